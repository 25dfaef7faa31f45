"""What the dataset's card shows: statistics of a build beside the paper's, and where its rows come from. Pure."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from ..annotation.annotate import Annotations
from ..rejects import count_reasons
from ..teacher.questions import RECORDED
from .annotation_file import AnnotationFile
from .conversations import ConversationCounts
from .supervised import SET_COUNTS

PAPER = {
    "type": {"passages": 45_889, "entities": 240_725, "types": 13_020, "bands": [0.74, 0.19, 0.07]},
    "definition": {"types": 353_092},
}  # arXiv 2308.03279, section 3.1


@dataclass
class BuiltConfig:
    """A config as written: its rows by split, the Hub's `dataset_info`, and what its conversations ask."""

    splits: dict[str, int]
    dataset_info: dict[str, Any]
    annotations: AnnotationFile
    tally: ConversationCounts


def summarize(built: BuiltConfig) -> dict[str, Any]:
    """Statistics of one config: passages, conversations, queries, entities, types and the share of each rank band.

    `entities` are distinct (passage, string, type) triples, as the paper counts; `spans` distinct places.
    `types_not_asked` counts the (passage, type) pairs that `max_queries` left out of the conversations.
    """
    found, tally = built.annotations, built.tally
    return {
        "passages": len(found.held_out),
        "entities": found.counts.total(),
        "spans": found.mentions,
        "types": len(found.counts),
        "bands": rank_bands(found.counts),
        "top_types": [name for name, _ in found.counts.most_common(10)],
        "entities_per_passage": found.counts.total() / len(found.held_out),
        "types_per_passage": found.present_types / len(found.held_out),
        "conversations": built.splits,
        "queries": tally.queries.total(),
        "negative_queries": tally.negative_queries.total(),
        "types_not_asked": tally.types_not_asked,
        "left_out": count_reasons(tally.rejects),
    }


def describe_set(name: str, part: Annotations, tally: ConversationCounts) -> dict[str, Any]:
    """A set's line of the card: what went into the dataset, what was asked, and what was left out and why."""
    entities = [entity for row in part.rows for entity in row["entities"]]
    return {
        "license": part.rows[0]["license"],
        "passages": len(part.rows),
        "passages_without_entity": sum(not row["entities"] for row in part.rows),
        "entities": len(entities),
        "types": dict(Counter(entity["type"] for entity in entities).most_common()),
        "conversations": tally.conversations[name],
        "queries": tally.queries[name],
        "negative_queries": tally.negative_queries[name],
        **{count: part.counts[count] for count in SET_COUNTS},
        "left_out": {reason: n for reason, n in sorted(part.counts.items()) if reason not in SET_COUNTS and n},
    }


def provenance(built: dict[str, BuiltConfig], recorded_by: str | None) -> dict[str, Any]:
    """Teachers, days of annotation, sources and licenses with their passages, over all configs."""
    files = [part.annotations for name, part in built.items() if name != "annotations"]
    teachers = {name for file in files for name in file.teachers if name not in ("", RECORDED)}
    days = sorted(set().union(*(file.dates for file in files)) - {""})
    return {
        "teacher": sorted(teachers | ({recorded_by} if recorded_by else set())),
        "annotated": days[:1] + days[-1:] if len(days) > 1 else days,
        "sources": dict(files[0].sources.most_common()),
        "licenses": dict(files[0].licenses.most_common()),
    }


def rank_bands(counts: Counter[str]) -> list[float]:
    """Shares of entities in the top 1 %, the next 9 % and the rest of the types by rank."""
    ranked = sorted(counts.values(), reverse=True)
    total = max(1, sum(ranked))
    first, second = max(1, round(len(ranked) / 100)), max(1, round(len(ranked) / 10))
    return [sum(part) / total for part in (ranked[:first], ranked[first:second], ranked[second:])]
