"""The dataset card: a template filled from the build's `stats.json`, so every number comes from the build."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from command_line.build_statistics import BuildStatistics, ConfigStatistics, CorpusCounts, rejects_by_stage
from open_ner.tools.files import read_json

from .licenses import conflicts
from .markdown import code, escape

if TYPE_CHECKING:
    from huggingface_hub import DatasetCardData

TEMPLATE = Path(__file__).parent.parent / "dataset_builder" / "card.md"
ROWS = {
    "type": "a conversation that asks types by name",
    "definition": "a conversation that asks types by definition",
    "closed": "a conversation that asks each type of a closed set by name",
    "supervised": "a conversation about a passage of a human-annotated set",
    "mixture": "a conversation about a distilled passage or one of a human-annotated set, in a seeded order",
    "annotations": "a passage with its entities and their origin",
}
BANDS = [f"entities of the {band} of types by rank" for band in ("top 1 %", "1-10 %", "10-100 %")]
FORMATS = {  # format specs of the statistics table
    **dict.fromkeys(("passages", "passages_without_entity", "entities", "spans", "types"), ","),
    **dict.fromkeys(("queries", "negative_queries", "types_not_asked"), ","),
    **dict.fromkeys(("entities_per_passage", "types_per_passage"), ".1f"),
    **dict.fromkeys(BANDS, ".0%"),
}
MAX_NAMES = 12  # maximum number of sources, licenses or merged types to name; the others are counted


def write_dataset_card(folder: Path) -> None:
    """Write a dataset's `README.md` from its `stats.json`; an upload fills in the repository's name."""
    from huggingface_hub import DatasetCard

    stats: BuildStatistics = read_json(folder / "stats.json")
    configs, options = stats["configs"], stats["supervised_options"]
    splits = list(dict.fromkeys(split for part in configs.values() for split in part["splits"]))
    default, seed = next(iter(configs)), stats["negatives"]["seed"]
    closed = bool(stats["supervised"]) and all(part.get("closed") for part in stats["supervised"].values())
    card = DatasetCard.from_template(
        _metadata(stats), template_path=str(TEMPLATE),
        name=escape(stats["name"]), default_config=default, splits=splits,
        configs_table=[
            (name, ROWS.get(name, "a conversation"), [f"{part['splits'].get(s, 0):,}" for s in splits])
            for name, part in configs.items()
        ],
        found_by=" and ".join(["an LLM teacher"] * bool(stats["teacher"]) + ["people"] * bool(stats["supervised"])),
        mixture=_mixture(options["mixture"], options["passages_outside_mixture"]) if "mixture" in configs else "",
        dataset_line=options["dataset_line"], sets=_sets(stats), sets_closed=closed,
        set_negatives="every type of the row that is absent" if closed else _negatives(options, seed),
        one_in=stats["negatives"]["validation_one_in"], statistics=_statistics(stats),
        type_set=_type_set(stats), top_types=escape(", ".join(stats["variants"][default]["top_types"])),
        distilled=bool(stats["prompts"]), teacher=escape(", ".join(stats["teacher"]) or "not named"),
        annotated=" to ".join(stats["annotated"]),
        prompts=", ".join(f"{name} (SHA-256 {digest})" for name, digest in stats["prompts"].items()),
        replies=stats["answers"], corpus=list(_corpus(stats["corpus"])),
        license_conflicts=" ".join(map(escape, conflicts(stats["license"], {}, stats["licenses"]))),
        license=escape(stats["license"]), sources=_listed(stats["sources"]), licenses=_listed(stats["licenses"]),
        negatives=_negatives(stats["negatives"], seed), limits=stats["negatives"],
        student=code(str(stats["negatives"]["tokenizer"])),
        hallucination=[
            (name, f"{part['hallucination_rate']:.2%}")
            for name, part in stats["variants"].items() if "hallucination_rate" in part
        ],
        merged=_merged(stats["variants"]),
        rejects=[
            (stage if part == "corpus" else escape(stage), escape(reason), f"{number:,}")
            for part, stage, reason, number in rejects_by_stage(stats)
        ],
        contamination=_contamination(stats), rule=stats["contamination_options"],
    )  # fmt: skip
    card.save(folder / "README.md")


def _metadata(stats: BuildStatistics) -> "DatasetCardData":
    """Return the card's metadata for the Hub: configs with their files, features and sizes, license, tags."""
    from huggingface_hub import DatasetCardData

    configs, language = stats["configs"], stats.get("language")
    default = next(iter(configs))
    size = sum(configs[default]["splits"].values())
    bounds = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    return DatasetCardData(
        pretty_name=stats["name"], license=stats["license"], language=[language] if language else None,
        annotations_creators=["machine-generated"] * bool(stats["prompts"]) + ["found"] * bool(stats["supervised"]),
        task_categories=["token-classification", "text-generation"],
        size_categories=[next((name for bound, name in bounds if size < bound), "n>1M")],
        tags=["named-entity-recognition", "universal-ner", "distillation"],
        configs=[
            {"config_name": name,
             "data_files": [{"split": split, "path": f"{name}/{split}-*.parquet"} for split in part["splits"]],
             **({"default": True} if name == default else {})}
            for name, part in configs.items()
        ],
        dataset_info=[{"config_name": name, **part["dataset_info"]} for name, part in configs.items()],
    )  # fmt: skip


def _statistics(stats: BuildStatistics) -> dict[str, list]:
    """Return the table of the numbers of each variant, beside those of the paper if it has that variant."""
    head, columns = [""], list[dict[str, Any]]()
    for name, part in stats["variants"].items():
        for title, source in ((name, part), ("paper", stats["paper"].get(name))):
            if source:
                numbers: dict[str, Any] = {**source, **dict(zip(BANDS, source.get("bands", []), strict=False))}
                if "passages" in numbers:
                    numbers.setdefault("entities_per_passage", numbers["entities"] / numbers["passages"])
                head.append(title)
                columns.append(numbers)
    rows = [
        [key.replace("_", " "), *(f"{numbers[key]:{form}}" if key in numbers else "" for numbers in columns)]
        for key, form in FORMATS.items()
        if key != "passages_without_entity" or any(numbers.get(key) for numbers in columns)
    ]
    return {"head": head, "rows": rows}


def _corpus(corpus: CorpusCounts) -> Iterator[str]:
    """Yield the lines about the corpus."""
    if "kept" not in corpus:
        return
    line = f"{corpus['kept']:,} passages were kept"
    if "candidates" in corpus:
        documents = sum(corpus.get("documents", {}).values())
        line += f" of {corpus['candidates']:,} cut from {documents:,} documents"
    if "not_sampled" in corpus:
        line += f"; {corpus['not_sampled']:,} were not drawn into the sample"
    yield line
    labels = {"documents": "Documents read", "sources": "Passages by source", "licenses": "Passages by license"}
    for key, label in labels.items():
        if counts := corpus.get(key):
            yield f"{label}: {_listed(counts)}"
    if revisions := corpus.get("revisions"):
        yield "Revisions on the Hub: " + ", ".join(f"{escape(name)} at {escape(r)}" for name, r in revisions.items())


def _type_set(stats: BuildStatistics) -> dict[str, Any] | None:
    """Return the table of a closed world's types, and what explained them to the teacher; None in an open world."""
    found = stats.get("type_set")
    if not found:
        return None
    rows = [[name, part["definition"], part["entities"]] for name, part in found["types"].items()]
    given = ["guidelines"] * found["guidelines"]
    given += [f"{found['examples']} annotated example{'s' * (found['examples'] > 1)}"] * bool(found["examples"])
    return {**_table(["type", "definition", "entities"], rows), "overlaps": found["overlaps"], "given": given}


def _sets(stats: BuildStatistics) -> dict[str, list]:
    """Return the table of the human-annotated sets."""
    keys = ("passages", "passages_without_entity", "entities", "conversations", "queries", "negative_queries")
    rows = [
        [name, part["license"] or "not named", len(part["types"]), *(part[key] for key in keys)]
        for name, part in stats["supervised"].items()
    ]
    return _table(["set", "license", "types", *keys], rows)


def _contamination(stats: BuildStatistics) -> dict[str, list]:
    """Return the table of the benchmarks and of what the dataset shares with them."""
    keys = ("benchmark", "texts", "too_short", "texts_found", "passages", "removed", "types")
    rows = []
    for part in stats["contamination"]:
        shared = f"{len(part['types_shared'])}: {', '.join(part['types_shared'])}" if part["types_shared"] else "none"
        rows.append([*(part[key] for key in keys), shared])
    return _table([*keys, "types_shared"], rows)


def _table(head: Sequence[str], rows: Iterable[Iterable[str | int]]) -> dict[str, list]:
    cells = [[f"{cell:,}" if isinstance(cell, int) else escape(cell) for cell in row] for row in rows]
    return {"head": [name.replace("_", " ") for name in head], "rows": cells}


def _mixture(weights: dict[str, float], outside: int) -> str:
    sizes = ", ".join(f"{escape(name)} {weight:g}" for name, weight in weights.items())
    return f"relative sizes {sizes}; {outside:,} passages are not in it" if weights else "all passages"


def _negatives(options: dict[str, Any], seed: int) -> str:
    sampling, fixed = options["negatives"], options["negatives_per_passage"]
    if sampling in ("none", "all"):
        return {"none": "none", "all": "every type of the set that is absent"}[sampling]
    number = f"{fixed} per passage" if fixed is not None else f"{options['negative_ratio']:g} per present type"
    how = {
        "frequency": "in proportion to their frequency", "uniform": "uniformly",
        "source": "in proportion to their frequency in the passage's source, and if those run out in all sources",
    }[sampling]  # fmt: skip
    return f"absent types drawn {how} without replacement, {number}, seed {seed}"


def _listed(counts: dict[str, int]) -> str:
    """Write the first `MAX_NAMES` names with their counts, and how many others there are."""
    names = [f"{escape(name) or 'not named'} ({number:,})" for name, number in list(counts.items())[:MAX_NAMES]]
    rest = list(counts.values())[MAX_NAMES:]
    return ", ".join(names) + (f", and {len(rest)} others ({sum(rest):,})" if rest else "")


def _merged(variants: dict[str, ConfigStatistics]) -> str:
    """Write which plural types were merged into their singular."""
    merged = {plural: single for part in variants.values() for plural, single in part.get("merged_types", {}).items()}
    shown = ", ".join(f"{escape(plural)} into {escape(single)}" for plural, single in list(merged.items())[:MAX_NAMES])
    return f"Plural types merged into their singular ({len(merged):,}): {shown}" if merged else ""
