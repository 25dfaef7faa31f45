"""The dataset's card: a template filled from the build's `stats.json`, so that no number in it was typed."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .markdown import code, escape

TEMPLATE = Path(__file__).parent.parent / "dataset_builder" / "card.md"
ROWS = {
    "type": "a conversation that asks types by name",
    "definition": "a conversation that asks types by definition",
    "supervised": "a conversation about a passage annotated by humans, which names its set",
    "mixture": "a conversation about a distilled passage or about one of a human-annotated set, in a seeded order",
    "annotations": "a passage with its entities and where they come from",
}
COUNTED = ("passages", "entities", "spans", "types", "queries", "negative_queries", "types_not_asked")
SEEN = ("replies", "entities_read", "entities_kept")  # counts that are no reason to leave something out
SET_COLUMNS = ("passages", "passages_without_entity", "entities", "conversations", "queries", "negative_queries")
NAMED = 12  # sources, licenses and merged types that are listed; the rest is counted


def write_dataset_card(folder: Path, repo_id: str | None = None) -> None:
    """Write `README.md` with the Hub's metadata (`configs`, `dataset_info`, license) and this build's statistics.

    `repo_id` is where the dataset goes, for the example of how to load it.
    """
    from huggingface_hub import DatasetCard

    stats = json.loads((folder / "stats.json").read_text(encoding="utf-8"))
    configs = stats["configs"]
    splits = list(dict.fromkeys(split for part in configs.values() for split in part["splits"]))
    default = next(iter(configs))
    rule = stats["contamination_options"]
    card = DatasetCard.from_template(
        _metadata(stats),
        template_path=str(TEMPLATE),
        name=escape(stats["name"]),
        repo=json.dumps(repo_id or "path/to/this/folder"),
        default_config=default,
        splits=splits,
        configs_table=[
            (name, ROWS.get(name, "a conversation"), [f"{part['splits'].get(s, 0):,}" for s in splits])
            for name, part in configs.items()
        ],
        found_by=" and ".join(["an LLM teacher"] * bool(stats["teacher"]) + ["people"] * bool(stats["supervised"])),
        mixture=_mixture(stats["supervised_options"]) if "mixture" in configs else "",
        dataset_line=stats["supervised_options"]["dataset_line"],
        sets=_table([_set(name, part) for name, part in stats["supervised"].items()]),
        set_negatives=_negatives(stats["supervised_options"] | {"seed": stats["negatives"]["seed"]}),
        one_in=stats["negatives"]["validation_one_in"],
        columns=[column for name in stats["variants"] for column in (name, *_paper_columns(stats, name))],
        statistics=_statistics(stats),
        top_types=escape(", ".join(stats["variants"][default]["top_types"])),
        distilled=bool(stats["prompts"]),
        teacher=escape(", ".join(stats["teacher"]) or "not named"),
        annotated=" to ".join(stats["annotated"]),
        prompts=", ".join(f"{name} (SHA-256 {digest})" for name, digest in stats["prompts"].items()),
        answers=stats["answers"],
        corpus=list(_corpus(stats["corpus"])),
        sources=_listed(stats["sources"]),
        licenses=_listed(stats["licenses"]),
        negatives=_negatives(stats["negatives"]),
        window=stats["negatives"],
        student=code(str(stats["negatives"]["tokenizer"])),
        hallucination=[
            (name, f"{part['hallucination_rate']:.2%}")
            for name, part in stats["variants"].items()
            if "hallucination_rate" in part
        ],
        merged=_merged(stats["variants"]),
        left_out=list(_left_out(stats)),
        contamination=_table(
            [{**row, "types_shared": _joined(row["types_shared"])} for row in stats["contamination"]]
        ),
        rule=rule,
    )
    card.save(folder / "README.md")


def _metadata(stats: dict[str, Any]) -> Any:
    """What the Hub reads: configs and their files, features and sizes, license, tags."""
    from huggingface_hub import DatasetCardData

    configs = stats["configs"]
    default = next(iter(configs))
    return DatasetCardData(
        pretty_name=stats["name"],
        license=stats["license"],
        language=["en"],
        annotations_creators=["machine-generated"] * bool(stats["prompts"]) + ["found"] * bool(stats["supervised"]),
        task_categories=["token-classification", "text-generation"],
        size_categories=[_size_category(sum(configs[default]["splits"].values()))],
        tags=["named-entity-recognition", "universal-ner", "distillation"],
        configs=[
            {
                "config_name": name,
                "data_files": [{"split": split, "path": f"{name}/{split}-*.parquet"} for split in part["splits"]],
                **({"default": True} if name == default else {}),
            }
            for name, part in configs.items()
        ],
        dataset_info=[{"config_name": name, **part["dataset_info"]} for name, part in configs.items()],
    )


def _size_category(rows: int) -> str:
    """The Hub's name for a number of rows."""
    bounds = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    return next((name for bound, name in bounds if rows < bound), "n>1M")


def _paper_columns(stats: dict[str, Any], variant: str) -> list[str]:
    """The heading of the paper's numbers beside a variant that the paper has too."""
    return ["paper"] if variant in stats["paper"] else []


def _statistics(stats: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Rows of the paper's table: a name, then for each variant this dataset's number and, if any, the paper's."""
    table = [(key.replace("_", " "), [], key, ",") for key in COUNTED]
    table += [(f"{what} per passage", [], f"{what}_per_passage", ".1f") for what in ("entities", "types")]
    table += [
        (f"entities of the {label} of types by rank", [], band, ".0%")
        for band, label in enumerate(("top 1 %", "1-10 %", "10-100 %"))
    ]
    for name, part in stats["variants"].items():
        for column in (part, *(_published(stats["paper"][name]) for _ in _paper_columns(stats, name))):
            for _, cells, key, form in table:
                value = column.get("bands", [""] * 3)[key] if isinstance(key, int) else column.get(key, "")
                cells.append(f"{value:{form}}" if value != "" else "")
    return [(label, cells) for label, cells, *_ in table]


def _published(paper: dict[str, Any]) -> dict[str, Any]:
    """What the paper says of a variant, with what follows from it."""
    return paper | ({"entities_per_passage": paper["entities"] / paper["passages"]} if "passages" in paper else {})


def _corpus(corpus: dict[str, Any]) -> Iterable[str]:
    """What became of the corpus, a line each."""
    if not corpus:
        return
    documents = corpus.get("documents", {})
    line = f"{corpus['kept']:,} passages were kept"
    if "candidates" in corpus:
        line += f" of {corpus['candidates']:,} cut from {sum(documents.values()):,} documents"
    if "not_sampled" in corpus:
        line += f"; {corpus['not_sampled']:,} were not drawn into the sample"
    yield line
    for name, label in (
        ("documents", "Documents read"), ("sources", "Passages by source"), ("licenses", "Passages by license"),
    ):  # fmt: skip
        if corpus.get(name):
            yield f"{label}: {_listed(corpus[name])}"
    revisions = corpus.get("revisions", {})
    if revisions:
        yield "Revisions on the Hub: " + ", ".join(f"{escape(name)} at {escape(r)}" for name, r in revisions.items())


def _set(name: str, part: dict[str, Any]) -> dict[str, Any]:
    """A human-annotated set's row of its table."""
    counts = {key: part[key] for key in SET_COLUMNS}
    return {"set": name, "license": part["license"] or "not named", "types": len(part["types"]), **counts}


def _mixture(options: dict[str, Any]) -> str:
    weights = ", ".join(f"{escape(name)} {weight:g}" for name, weight in options["mixture"].items())
    return f"relative sizes {weights}; {options['passages_left_out']:,} passages left out" if weights else "everything"


def _joined(names: list[str]) -> str:
    return f"{len(names)}: {', '.join(names)}" if names else "none"


def _negatives(options: dict[str, Any]) -> str:
    if options["negatives"] in ("none", "all"):
        return {"none": "none", "all": "every type of the set that is absent"}[options["negatives"]]
    fixed = options["negatives_per_passage"]
    number = f"{fixed} a passage" if fixed is not None else f"{options['negative_ratio']:g} for each present type"
    law = {"frequency": "in proportion to their frequency", "uniform": "uniformly"}[options["negatives"]]
    return f"absent types drawn {law} without replacement, {number}, seed {options['seed']}"


def _listed(counts: dict[str, int]) -> str:
    """Names with their numbers, the most frequent first."""
    names = [f"{escape(name) or 'not named'} ({number:,})" for name, number in list(counts.items())[:NAMED]]
    rest = list(counts.values())[NAMED:]
    return ", ".join(names) + (f", and {len(rest)} others ({sum(rest):,})" if rest else "")


def _merged(variants: dict[str, Any]) -> str:
    """Plural types that were merged into their singular."""
    merged = {plural: single for part in variants.values() for plural, single in part.get("merged_types", {}).items()}
    shown = ", ".join(f"{escape(plural)} into {escape(single)}" for plural, single in list(merged.items())[:NAMED])
    return f"Plural types merged into their singular ({len(merged):,}): {shown}" if merged else ""


def _left_out(stats: dict[str, Any]) -> Iterable[tuple[str, str, str]]:
    """Stage, reason and number of everything that was left out."""
    for reason, number in sorted(stats["corpus"].get("dropped", {}).items()):
        yield "passages", escape(reason), f"{number:,}"
    for name, part in stats["variants"].items():
        for reason, number in sorted(part["counts"].items()):
            if reason not in SEEN:
                yield f"{name}: replies and entities", escape(reason), f"{number:,}"
        for reason, number in sorted(part["left_out"].items()):
            yield f"{name}: conversations", escape(reason), f"{number:,}"
    for name, part in stats["supervised"].items():
        for reason, number in part["left_out"].items():
            yield f"supervised: {escape(name)}", escape(reason), f"{number:,}"


def _table(rows: list[dict[str, Any]]) -> dict[str, list]:
    """A Markdown table's head and rows of a list of records with the same keys."""
    head = [escape(key.replace("_", " ")) for key in rows[0]] if rows else []
    return {
        "head": head,
        "rows": [[escape(f"{v:,}" if isinstance(v, int) else v) for v in row.values()] for row in rows],
    }
