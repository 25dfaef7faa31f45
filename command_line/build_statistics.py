"""The schema of a dataset's `stats.json`, which the builder writes and the dataset card reads."""

from collections.abc import Iterator
from typing import Any, NotRequired, TypedDict

ENTITY_COUNTS = ("replies", "entities_read", "entities_kept")  # counts that are not reasons of rejects


class CorpusCounts(TypedDict, total=False):
    """Counts of the passages stage; empty if the recipe has no corpus. `rejected` counts by reason."""

    kept: int
    rejected: dict[str, int]
    documents: dict[str, int]
    candidates: int
    not_sampled: int
    sources: dict[str, int]
    licenses: dict[str, int]
    revisions: dict[str, str]


class PaperNumbers(TypedDict, total=False):
    """What the paper reports of a variant."""

    passages: int
    entities: int
    types: int
    bands: list[float]


class AnnotationCounts(TypedDict):
    """Replies, entities and, by reason, rejects of the annotation of one variant."""

    counts: dict[str, int]
    hallucination_rate: NotRequired[float]
    merged_types: NotRequired[dict[str, str]]


class ConfigStatistics(AnnotationCounts):
    """Statistics of one config.

    `entities` are distinct (passage, string, type) triples, as the paper counts; `spans` are distinct places. `bands`
    are the shares of entities in the top 1 %, the next 9 % and the rest of the types. `types_not_asked` counts the
    (passage, type) pairs beyond `max_queries`; `rejected` counts the rejects of the conversations by reason.
    """

    passages: int
    entities: int
    spans: int
    types: int
    bands: list[float]
    top_types: list[str]
    entities_per_passage: float
    types_per_passage: float
    conversations: dict[str, int]
    queries: int
    negative_queries: int
    types_not_asked: int
    rejected: dict[str, int]


class SetStatistics(TypedDict):
    """Statistics of one human-annotated set; `rejected` counts its rejects by reason."""

    license: str
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
    rejected: dict[str, int]


class Overlap(TypedDict):
    """What the dataset shares with one benchmark; `too_short` counts texts that are not searched for."""

    benchmark: str
    texts: int
    too_short: int
    texts_found: int
    passages: int
    removed: int
    types: int
    types_shared: list[str]


class BuildStatistics(TypedDict):
    """The whole file; `negatives` and the `_options` are sections of the recipe.

    `answers` has the number of replies `paid` and their `cost` in dollars. `configs` has the rows by split, `splits`,
    and `dataset_info`, the Hub's metadata as `datasets` writes it.
    """

    name: str
    license: str
    language: NotRequired[str | None]
    passage_options: NotRequired[dict[str, Any]]
    teacher: list[str]
    annotated: list[str]  # first and last day
    sources: dict[str, int]  # passages
    licenses: dict[str, int]
    corpus: CorpusCounts
    answers: dict[str, float]
    negatives: dict[str, Any]
    prompts: dict[str, str]
    variants: dict[str, ConfigStatistics]
    supervised: dict[str, SetStatistics]
    supervised_options: dict[str, Any]
    contamination: list[Overlap]
    contamination_options: dict[str, Any]
    configs: dict[str, dict[str, Any]]
    paper: dict[str, PaperNumbers]
    versions: dict[str, str]


def rejects_by_stage(stats: BuildStatistics) -> Iterator[tuple[str, str, str, int]]:
    """Yield `(part, stage, reason, number)` for each reason in a build; the part is a variant or a set."""
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
