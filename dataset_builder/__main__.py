"""From a corpus and a teacher to a dataset folder, and to the Hub.

    python -m dataset_builder --config recipes/build/sample.yaml
    python -m dataset_builder --config recipes/build/your_corpus.yaml --base_url URL --model NAME --max_cost 5
    python -m dataset_builder --config recipes/build/your_corpus.yaml --stage build --push_to_hub org/uniner-distill

Any option of the recipe can be given as --section.option VALUE, for example --corpus.path my.jsonl.
"""

import argparse
import time
from pathlib import Path

from command_line.recipes import describe, parse_overrides, read_recipe
from hub.publish import publish_folder, require_token
from open_ner.tools.errors import UserError, run

from .config import BuildConfig
from .corpus.filters import Screen
from .corpus.passages import load_passages, write_passages
from .dataset.supervised import load_set_configs
from .teacher.client import annotate, estimate, extrapolate
from .teacher.journal import Journal


def main() -> None:
    """Run the stages in order: passages, annotate, build, and the upload."""
    config, stage, dry, pilot, repo_id = parse_arguments()
    if repo_id:
        require_token()
    load_set_configs(config.supervised)  # a mistake in them costs nothing now
    folder = Path(config.output_dir)
    if not config.corpus.named and (dry or stage in ("passages", "annotate")):
        print("this recipe has no corpus: there are no passages to make and no teacher to ask")
        return
    if stage in ("passages", "all") and config.corpus.named:
        corpus = write_passages(config.corpus, folder, screen_of(config))
        print(f"passages: {corpus['kept']} kept, dropped {corpus['dropped'] or 'none'} -> {folder / 'passages.jsonl'}")
    if dry:
        dry_run(config, folder, pilot)
        return
    if stage in ("annotate", "all") and config.corpus.named:
        with Journal(folder / "journal.jsonl") as journal:
            tally = annotate(load_passages(folder), journal, config.teacher)
            if journal.damaged:
                print(
                    f"{journal.path}: {journal.damaged} damaged lines were passed over and their answers asked again"
                )
        print(f"answers: {tally}")
    if stage in ("build", "all"):
        from hub.dataset_card import write_dataset_card

        from .build import build  # pyarrow and datasets, which the other stages do without

        dataset = build(config, folder, finish=lambda built: write_dataset_card(built, repo_id))
        print(f'dataset: {dataset}, read it with load_dataset("{dataset}")')
    if repo_id:
        dataset = Path(config.dataset_dir or folder / "dataset")
        print(publish_folder(dataset, repo_id, "dataset", stale=["*.parquet", "figures/*.png"]))


def screen_of(config: BuildConfig) -> Screen | None:
    """What keeps passages that overlap a benchmark from the teacher, where the recipe names one and removes them."""
    if not config.contamination.benchmarks:
        return None
    from .dataset.contamination import Decontaminator  # numpy, which the annotate stage does without

    return Decontaminator(config.contamination).screen()


def dry_run(config: BuildConfig, folder: Path, pilot: int) -> None:
    """Say what is still to be asked and what it may cost; a pilot asks (and pays, and keeps) a few answers first."""
    with Journal(folder / "journal.jsonl") as journal:
        if pilot:
            started = time.monotonic()
            tally = annotate(load_passages(folder), journal, config.teacher, most=pilot)
            print(f"pilot: {tally.asked} answers for ${tally.cost:.4f} in {time.monotonic() - started:.1f} s, kept")
        requests, ceiling = estimate(load_passages(folder), journal, config.teacher)
        print(f"dry run: {requests} requests to send, at most ${ceiling:.4f}; nothing else was sent")
        if pilot:
            e = extrapolate(journal, config.teacher, requests)
            print(
                f"expected from the answers paid so far (95 %): ${e.cost:.4f} +- ${e.cost_margin:.4f}, "
                f"{e.seconds:.0f} s +- {e.seconds_margin:.0f} s with {config.teacher.concurrency} in flight"
            )


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
    parser.add_argument("--prompt", metavar="[VARIANT=]FILE", help="a prompt of your own (teacher.prompts)")
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
    if args.prompt:
        variant, named, file = args.prompt.rpartition("=")
        if (named and variant not in config.teacher.variants) or (not named and len(config.teacher.variants) > 1):
            raise UserError(f"--prompt {args.prompt}: say for which of {config.teacher.variants}, as in type=FILE")
        config.teacher.prompts[variant or config.teacher.variants[0]] = file
    return config, args.stage, args.dry_run, args.pilot, args.push_to_hub


if __name__ == "__main__":
    run(main)
