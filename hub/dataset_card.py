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
    "mixture": "a conversation of `type` or of `supervised`",
    "annotations": "a passage with its entities and where they come from",
}
COUNTED = ("passages", "entities", "spans", "types", "queries", "negative_queries", "types_not_asked")
SEEN = ("replies", "entities_read", "entities_kept")  # counts that are no reason to leave something out
NAMED = 12  # sources, licences and merged types that are listed; the rest is counted


def write_dataset_card(folder: Path, repo_id: str | None = None) -> None:
    """Write `README.md` with the Hub's metadata (`configs`, `dataset_info`, licence) and this build's statistics.

    `repo_id` is where the dataset goes, for the example of how to load it.
    """
    from huggingface_hub import DatasetCard

    stats = json.loads((folder / "stats.json").read_text(encoding="utf-8"))
    configs = stats["configs"]
    splits = list(dict.fromkeys(split for part in configs.values() for split in part["splits"]))
    default = next(iter(configs))
    corpus = stats["corpus"]
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
        names_sets=any(name not in ("type", "definition", "annotations") for name in configs),
        one_in=stats["negatives"]["validation_one_in"],
        variants=list(stats["variants"]),
        statistics=_statistics(stats),
        top_types=escape(", ".join(stats["variants"][default]["top_types"])),
        teacher=escape(", ".join(stats["teacher"]) or "not named"),
        annotated=" to ".join(stats["annotated"]),
        prompts=", ".join(f"{name} (SHA-256 {digest})" for name, digest in stats["prompts"].items()),
        answers=stats["answers"],
        kept=f"{corpus['kept']:,}",
        sources=_listed(stats["sources"]),
        licences=_listed(stats["licences"]),
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
        contamination=_table(stats.get("contamination", [])),
    )
    card.save(folder / "README.md")


def _metadata(stats: dict[str, Any]) -> Any:
    """What the Hub reads: configs and their files, features and sizes, licence, tags."""
    from huggingface_hub import DatasetCardData

    configs = stats["configs"]
    default = next(iter(configs))
    return DatasetCardData(
        pretty_name=stats["name"],
        license=stats["licence"],
        language=["en"],
        annotations_creators=["machine-generated"],
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


def _statistics(stats: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Rows of the paper's table: a name, then for each variant this dataset's number and the paper's."""
    variants = [(part, stats["paper"].get(name, {})) for name, part in stats["variants"].items()]
    table = [
        (
            key.replace("_", " "),
            [(f"{part[key]:,}", f"{paper[key]:,}" if key in paper else "") for part, paper in variants],
        )
        for key in COUNTED
    ]
    for key in ("entities_per_passage", "types_per_passage"):
        published = [
            f"{paper['entities'] / paper['passages']:.1f}"
            if key == "entities_per_passage" and "passages" in paper
            else ""
            for _, paper in variants
        ]
        table.append(
            (
                key.replace("_", " "),
                [(f"{part[key]:.1f}", old) for (part, _), old in zip(variants, published, strict=True)],
            )
        )
    for band, label in enumerate(("top 1 %", "1-10 %", "10-100 %")):
        cells = [
            (f"{part['bands'][band]:.0%}", f"{paper['bands'][band]:.0%}" if "bands" in paper else "")
            for part, paper in variants
        ]
        table.append((f"entities of the {label} of types by rank", cells))
    return [(label, [text for pair in cells for text in pair]) for label, cells in table]


def _negatives(options: dict[str, Any]) -> str:
    if options["negatives"] == "none":
        return "none"
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
    return f"{len(merged):,} plural types were merged into their singular: {shown}" if merged else ""


def _left_out(stats: dict[str, Any]) -> Iterable[tuple[str, str, str]]:
    """Stage, reason and number of everything that was left out."""
    for reason, number in sorted(stats["corpus"]["dropped"].items()):
        yield "passages", escape(reason), f"{number:,}"
    for name, part in stats["variants"].items():
        for reason, number in sorted(part["counts"].items()):
            if reason not in SEEN:
                yield f"{name}: replies and entities", escape(reason), f"{number:,}"
        for reason, number in sorted(part["left_out"].items()):
            yield f"{name}: conversations", escape(reason), f"{number:,}"


def _table(rows: list[dict[str, Any]]) -> dict[str, list]:
    """A Markdown table's head and rows of a list of records with the same keys."""
    head = [escape(key.replace("_", " ")) for key in rows[0]] if rows else []
    return {
        "head": head,
        "rows": [[escape(f"{v:,}" if isinstance(v, int) else v) for v in row.values()] for row in rows],
    }
