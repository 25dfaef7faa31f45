"""The schema of a dataset's `stats.json`, which the builder writes and the dataset card reads."""

from collections.abc import Iterator
from typing import Any, NotRequired, TypedDict

ENTITY_COUNTS = ("replies", "entities_read", "entities_kept")


class CorpusCounts(TypedDict, total=False):
    """Counts of the passages stage; empty if the recipe has no corpus."""

    kept: int
    rejected: dict[str, int]  # by reason
    documents: dict[str, int]  # by source
    candidates: int
    not_sampled: int
    sources: dict[str, int]
    licenses: dict[str, int]
    revisions: dict[str, str]


class PaperNumbers(TypedDict, total=False):
    """Statistics of a variant in the paper."""

    passages: int
    entities: int
    types: int
    bands: list[float]


class AnnotationCounts(TypedDict):
    """Statistics of the annotation of one variant."""

    counts: dict[str, int]  # ENTITY_COUNTS, and the rejects by reason
    hallucination_rate: NotRequired[float]  # share of the teacher's entities that are not in their passage
    merged_types: NotRequired[dict[str, str]]  # plural -> singular


class ConfigStatistics(AnnotationCounts):
    """Statistics of one config."""

    passages: int
    passages_without_entity: NotRequired[int]
    entities: int  # distinct (passage, string, type) triples, as counted in the paper
    spans: int  # distinct (passage, start, end)
    types: int
    bands: list[float]  # shares of the entities in the top 1 %, the next 9 % and the rest of the types
    top_types: list[str]
    entities_per_passage: float
    types_per_passage: float
    conversations: dict[str, int]
    queries: int
    negative_queries: int
    types_not_asked: int  # (passage, type) pairs beyond `max_queries` in all draws
    rejected: dict[str, int]  # of the conversations, by reason


class SetStatistics(TypedDict):
    """Statistics of one human-annotated set."""

    license: str
    closed: NotRequired[bool]  # whether each passage is asked the types of its own row
    passages: int
    passages_without_entity: int
    entities: int
    types: dict[str, int]
    conversations: int
    queries: int
    negative_queries: int
    rows_read: int
    windows_added: int
    entities_read: int
    entities_kept: int
    entities_of_rejected_passages: int
    rejected: dict[str, int]  # by reason


class TypeStatistics(TypedDict):
    """A type of a closed world."""

    definition: str  # may be empty
    entities: int


class TypeSetStatistics(TypedDict):
    """The types of a closed world, and how they were explained to the teacher."""

    types: dict[str, TypeStatistics]
    overlaps: str
    guidelines: bool
    examples: int


class Overlap(TypedDict):
    """What the dataset shares with one benchmark."""

    benchmark: str
    texts: int
    too_short: int  # texts that are not searched for
    texts_found: int
    passages: int
    removed: int
    types: int
    types_shared: list[str]


class BuildStatistics(TypedDict):
    """Contents of stats.json; `negatives` and the `_options` are sections of the recipe."""

    name: str
    license: str
    language: NotRequired[str | None]
    passage_options: NotRequired[dict[str, Any]]
    teacher: list[str]
    annotated: list[str]  # first and last day
    sources: dict[str, int]  # passages
    licenses: dict[str, int]
    corpus: CorpusCounts
    answers: dict[str, float]  # number of replies `paid`, and their `cost` in dollars
    negatives: dict[str, Any]
    prompts: dict[str, str]  # hash by variant
    type_set: NotRequired[TypeSetStatistics | None]  # None in an open world
    variants: dict[str, ConfigStatistics]
    supervised: dict[str, SetStatistics]
    supervised_options: dict[str, Any]
    contamination: list[Overlap]
    contamination_options: dict[str, Any]
    configs: dict[str, dict[str, Any]]  # `splits`: rows by split; `dataset_info`: metadata as written by `datasets`
    paper: dict[str, PaperNumbers]
    versions: dict[str, str]


def rejects_by_stage(stats: BuildStatistics) -> Iterator[tuple[str, str, str, int]]:
    """Yield `(part, stage, reason, number)` for each reason of rejects; a part is "corpus", a variant or a set."""
    for reason, number in sorted(stats["corpus"].get("rejected", {}).items()):
        yield "corpus", "passages", reason, number
    for name, part in stats["variants"].items():
        for reason, number in sorted(part["counts"].items()):
            if reason not in ENTITY_COUNTS:
                yield name, f"{name}: replies and entities", reason, number
        for reason, number in sorted(part["rejected"].items()):
            yield name, f"{name}: conversations", reason, number
    for name, entry in stats["supervised"].items():
        for reason, number in entry["rejected"].items():
            yield name, f"supervised: {name}", reason, number
