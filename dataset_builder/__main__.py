"""From a corpus and a teacher to a dataset folder, and to the Hub.

    python -m dataset_builder --config recipes/build/sample.yaml
    python -m dataset_builder --config recipes/build/your_corpus.yaml --base_url URL --model NAME --max_cost 5
    python -m dataset_builder --config recipes/build/your_corpus.yaml --stage build --push_to_hub org/uniner-distill

Any option of the recipe can be given as --section.option VALUE, for example --corpus.path my.jsonl.
"""

import argparse
import json
import platform
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hub.publish import publish_folder, require_token
from open_ner.cli import UserError, describe, parse_overrides, read_recipe, run

from .annotations import Annotations, annotate_passages
from .config import BuildConfig
from .journal import Journal
from .passages import load_passages, write_passages
from .questions import RECORDED, prompt_hash, questions
from .teacher import annotate, estimate, extrapolate, record_cost


def main() -> None:
    """Run the stages in order: passages, annotate, build, and the upload."""
    config, stage, dry, pilot, repo_id = parse_arguments()
    if repo_id:
        require_token()
    folder = Path(config.output_dir)
    corpus = None
    if stage in ("passages", "all") and config.corpus.path:
        corpus = write_passages(config.corpus, folder)
        print(f"passages: {corpus['kept']} kept, dropped {corpus['dropped'] or 'none'} -> {folder / 'passages.jsonl'}")
    if dry:
        dry_run(config, folder, pilot)
        return
    if stage in ("annotate", "all") and config.corpus.path:
        with Journal(folder / "journal.jsonl") as journal:
            tally = annotate(load_passages(folder), journal, config.teacher)
            if journal.damaged:
                print(
                    f"{journal.path}: {journal.damaged} damaged lines were passed over and their answers asked again"
                )
        print(f"answers: {tally}")
    if stage in ("build", "all"):
        build(config, folder, corpus)
    if repo_id:
        print(publish_folder(folder / "dataset", repo_id, repo_type="dataset"))


def dry_run(config: BuildConfig, folder: Path, pilot: int) -> None:
    """Say what is still to be asked and what it may cost; a pilot asks (and pays, and keeps) a few answers first."""
    with Journal(folder / "journal.jsonl") as journal:
        if pilot:
            started = time.monotonic()
            tally = annotate(load_passages(folder), journal, config.teacher, most=pilot)
            print(f"pilot: {tally.asked} answers for ${tally.cost:.4f} in {time.monotonic() - started:.1f} s, kept")
        requests, ceiling = estimate(load_passages(folder), journal, config.teacher)
        print(f"dry run: {requests} requests to send, at most ${ceiling:.4f}; nothing else was sent")
        if pilot and tally.asked:
            cost, margin = extrapolate(journal, config.teacher, requests)
            seconds = requests * (time.monotonic() - started) / tally.asked
            print(f"expected from the pilot: ${cost:.4f} +- ${margin:.4f} (95 %), about {seconds:.0f} s")


def parse_arguments() -> tuple[BuildConfig, str, bool, int, str | None]:
    """The recipe with the command line over it, the stage, whether it is a dry run, its pilot, and the Hub repo."""
    parser = argparse.ArgumentParser(
        prog="python -m dataset_builder",
        description=__doc__,
        epilog=f"Options of a recipe (default): \n{describe(BuildConfig)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, help="recipe, e.g. recipes/build/your_corpus.yaml")
    parser.add_argument("--stage", choices=["passages", "annotate", "build", "all"], default="all")
    parser.add_argument("--base_url", help="OpenAI-compatible endpoint (teacher.base_url)")
    parser.add_argument("--model", help="the teacher's name there (teacher.model)")
    parser.add_argument("--max_cost", type=float, help="dollars never to be exceeded (teacher.max_cost)")
    parser.add_argument("--batch", action="store_true", default=None, help="ask through the provider's Batch API")
    parser.add_argument("--dry_run", action="store_true", help="say what would be asked and at most paid, then stop")
    parser.add_argument(
        "--pilot", type=int, default=0, metavar="N", help="with --dry_run: ask N passages and estimate"
    )
    parser.add_argument("--output_dir", help="folder of this run")
    parser.add_argument("--push_to_hub", metavar="ORG/NAME", help="upload the dataset folder, private by default")
    args, rest = parser.parse_known_args()
    overrides = parse_overrides(rest)
    for name in ("base_url", "model", "max_cost", "batch"):
        if getattr(args, name) is not None:
            overrides[f"teacher.{name}"] = getattr(args, name)
    if args.output_dir:
        overrides["output_dir"] = args.output_dir
    config = read_recipe(BuildConfig, args.config, overrides)
    if not config.corpus.path and not config.supervised.sets:
        raise UserError(f"{args.config}: nothing to build from: set corpus.path, or supervised.sets, or both")
    if config.supervised.mixture is not None and not (config.corpus.path and config.supervised.sets):
        raise UserError(f"{args.config}: supervised.mixture mixes distilled passages with sets: set both, or drop it")
    return config, args.stage, args.dry_run, args.pilot, args.push_to_hub


def build(config: BuildConfig, folder: Path, corpus: dict[str, Any] | None) -> None:
    """Annotations, conversations, statistics, figure and card, from passages, journal and annotated sets alone."""
    from hub.cards import write_dataset_card

    from .contamination import Decontaminator
    from .mixture import DISTILLED, mix
    from .report import PAPER, plot_types, summarise
    from .supervised import describe_set, load_sets
    from .uniner_distill import count_types, materialise

    annotated, records = annotate_distilled(config, folder) if config.corpus.path else ({}, {})
    sets = load_sets(config.supervised, config.corpus.tokenizer, config.corpus.max_tokens, config.dataset.seed)
    decontaminator = Decontaminator(config.contamination)
    annotated = {name: decontaminator.clean(part) for name, part in annotated.items()}
    sets = {name: decontaminator.clean(part) for name, part in sets.items()}
    parts = annotated | {f"supervised: {name}": part for name, part in sets.items()}
    for name, part in parts.items():
        if not part.rows:
            raise UserError(f"no {name} annotation is left: {dict(part.counts)}")
        print(f"{name}: {dict(sorted(part.counts.items()))}")
    rejects = [{"variant": name, **asdict(reject)} for name, part in parts.items() for reject in part.rejects]
    if sets:
        annotated["supervised"] = Annotations([row for part in sets.values() for row in part.rows])
    weights, unused = config.supervised.mixture, 0
    if weights is not None:
        mixed = {DISTILLED: annotated["type"].rows, **{name: part.rows for name, part in sets.items()}}
        annotated["mixture"] = Annotations(mix(mixed, weights, config.dataset.seed))
        unused = sum(map(len, mixed.values())) - len(annotated["mixture"].rows)
    folder.mkdir(parents=True, exist_ok=True)
    variants = {}
    for variant, result in annotated.items():
        variants[variant] = folder / f"annotations.{variant}.jsonl"
        lines = "".join(json.dumps(row) + "\n" for row in result.rows)
        variants[variant].write_text(lines, encoding="utf-8")
    dataset_folder = folder / "dataset"
    built = materialise(
        variants, config.dataset, config.corpus.tokenizer, dataset_folder, folder / "cache", config.supervised
    )
    counts = {variant: count_types(result.rows) for variant, result in annotated.items()}
    main_variant, *_ = variants
    paid = [record for record in records.values() if record["model"] != RECORDED]
    stats = {
        "name": config.name,
        "licence": config.licence,
        "corpus": (corpus or json.loads((folder / "passages.report.json").read_text())["counts"])
        if config.corpus.path
        else {"kept": 0, "dropped": {}},
        "teacher": sorted(
            {row["teacher"] for result in annotated.values() for row in result.rows} - {RECORDED, ""}
            | ({config.teacher.recorded_by} if config.teacher.recorded else set())
        ),
        "prompts": {
            variant: prompt_hash(config.teacher.prompts.get(variant, variant))
            for variant in variants
            if variant in ("type", "definition")
        },
        "answers": {"paid": len(paid), "cost": sum(record_cost(record, config.teacher) for record in paid)},
        "negatives": asdict(config.dataset),
        "sources": sorted({row["source"] for row in annotated[main_variant].rows}),
        "licences": sorted({row["licence"] for row in annotated[main_variant].rows}),
        "variants": {
            variant: {
                "counts": dict(result.counts),
                "hallucination_rate": result.hallucination_rate,
                **summarise(counts[variant], result.rows, built[variant]),
            }
            for variant, result in annotated.items()
        },
        "supervised": {
            name: describe_set(
                part, (row for split in built["supervised"].values() for row in split if row["dataset"] == name)
            )
            for name, part in sets.items()
        },
        "supervised_options": without_paths(config.supervised),
        "mixture": {"weights": weights, "passages_left_out": unused},
        "contamination": {
            **without_paths(config.contamination),
            "overlaps": [asdict(overlap) for overlap in decontaminator.overlaps()],
        },
        "paper": PAPER,
        "versions": {"python": platform.python_version(), "datasets": version("datasets")},
    }
    write_rejects(rejects, dataset_folder)
    (dataset_folder / "stats.json").write_text(json.dumps(stats, indent=1, ensure_ascii=False), encoding="utf-8")
    vocabulary = dict(counts[main_variant].most_common())
    (dataset_folder / "types.json").write_text(json.dumps(vocabulary, indent=0, ensure_ascii=False), encoding="utf-8")
    plot_types(counts[main_variant], dataset_folder / "figures" / "types_by_rank.png")
    write_dataset_card(dataset_folder, stats, built)
    for name, splits in built.items():
        print(f"{name}: " + ", ".join(f"{split} {len(rows)}" for split, rows in splits.items()))
    print(f'dataset: {dataset_folder}, read it with load_dataset("{dataset_folder}")')


def without_paths(options: Any) -> dict[str, Any]:
    """Options as the published statistics show them: folders of this machine are nobody's business."""
    return {name: value for name, value in asdict(options).items() if name not in ("data_dir", "sets", "benchmarks")}


def annotate_distilled(config: BuildConfig, folder: Path) -> tuple[dict[str, Annotations], dict[str, Any]]:
    """The teacher's annotations by variant, and the journal's records by key."""
    passages = list(load_passages(folder))
    with Journal(folder / "journal.jsonl") as journal:
        records = {record["key"]: record for record in journal.records()}
    replies: dict[str, dict[str, Any]] = {variant: {} for variant in config.teacher.variants}
    for question in questions(passages, config.teacher):
        if question.key in records:
            replies[question.variant][question.passage.id] = records[question.key]
    annotated = {}
    for variant, by_passage in replies.items():
        known = passages if variant == "type" else [p for p in passages if p.id in by_passage]
        result = annotate_passages(known, by_passage, variant, config.dataset.max_entity_words)
        if not result.rows:
            raise UserError(f"no {variant} annotation is left of {len(known)} passages: {dict(result.counts)}")
        annotated[variant] = result
    return annotated, records


def write_rejects(rejects: list[dict[str, Any]], folder: Path) -> None:
    """Everything that was left out, with its reason and the verbatim reply, beside the data."""
    import pyarrow as pa
    from pyarrow import parquet

    columns = ("variant", "passage_id", "reason", "span", "type", "reply")
    schema = pa.schema([(name, pa.string()) for name in columns])
    (folder / "rejects").mkdir(exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rejects, schema=schema), folder / "rejects" / "rejects.parquet")


if __name__ == "__main__":
    run(main)
