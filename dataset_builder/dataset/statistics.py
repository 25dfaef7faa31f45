"""The statistics of a build that the dataset card shows beside the paper's."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from command_line.build_statistics import (
    AnnotationCounts,
    ConfigStatistics,
    PaperNumbers,
    SetStatistics,
    TypeSetStatistics,
)

from ..annotation.annotate import Annotations
from ..config import TeacherConfig
from ..teacher.type_set import load_type_set
from .annotation_file import AnnotationFile
from .conversations import ConversationCounts
from .supervised import SET_COUNTS

PAPER: dict[str, PaperNumbers] = {
    "type": {"passages": 45_889, "entities": 240_725, "types": 13_020, "bands": [0.74, 0.19, 0.07]},
    "definition": {"types": 353_092},
}  # arXiv 2308.03279, section 3.1


@dataclass
class BuiltConfig:
    """A config as written: its number of rows by split, the Hub's `dataset_info`, its source, and its counts."""

    splits: dict[str, int]
    dataset_info: dict[str, Any]
    annotations: AnnotationFile
    counts: ConversationCounts


def summarize(built: BuiltConfig, annotation: AnnotationCounts) -> ConfigStatistics:
    """Return the statistics of one config, including the counts of its annotation."""
    found, counts = built.annotations, built.counts
    return {
        **annotation,
        "passages": len(found.held_out), "passages_without_entity": found.per_passage[0],
        "entities": found.counts.total(), "spans": found.mentions,
        "types": len(found.counts), "bands": rank_bands(found.counts),
        "top_types": [name for name, _ in found.counts.most_common(10)],
        "entities_per_passage": found.counts.total() / len(found.held_out),
        "types_per_passage": found.present_types / len(found.held_out),
        "conversations": built.splits, "queries": counts.queries.total(),
        "negative_queries": counts.negative_queries.total(), "types_not_asked": counts.types_not_asked,
        "rejected": dict(Counter(reject.reason for reject in counts.rejects)),
    }  # fmt: skip


def describe_types(teacher: TeacherConfig, counts: Counter[str]) -> TypeSetStatistics | None:
    """Return the types of a closed world, their numbers of entities and explanations; None in an open world."""
    types = load_type_set(teacher)
    return types and {
        "types": {name: {"definition": text, "entities": counts[name]} for name, text in types.definitions.items()},
        "overlaps": types.overlaps, "guidelines": bool(types.guidelines), "examples": len(types.examples),
    }  # fmt: skip


def describe_set(name: str, part: Annotations, counts: ConversationCounts) -> SetStatistics:
    """Return the statistics of a human-annotated set: its passages, queries and rejects."""
    mentions = [mention for row in part.rows for mention in row["entities"]]
    licenses = {row["license"] for row in part.rows}
    return {
        "license": next(iter(licenses)) if len(licenses) == 1 else "by row",
        "closed": any("types" in row for row in part.rows), "passages": len(part.rows), "entities": len(mentions),
        "passages_without_entity": sum(not row["entities"] for row in part.rows),
        "types": dict(Counter(mention["type"] for mention in mentions).most_common()),
        "conversations": counts.conversations[name], "queries": counts.queries[name],
        "negative_queries": counts.negative_queries[name],
        "rows_read": part.counts["rows_read"], "windows_added": part.counts["windows_added"],
        "entities_read": part.counts["entities_read"], "entities_kept": part.counts["entities_kept"],
        "entities_of_rejected_passages": part.counts["entities_of_rejected_passages"],
        "rejected": {reason: n for reason, n in sorted(part.counts.items()) if reason not in SET_COUNTS and n},
    }  # fmt: skip


def rank_bands(counts: Counter[str]) -> list[float]:
    """Return the shares of entities in the top 1 %, the next 9 % and the rest of the types by rank."""
    ranked = sorted(counts.values(), reverse=True)
    total = max(1, sum(ranked))
    first, second = max(1, round(len(ranked) / 100)), max(1, round(len(ranked) / 10))
    return [sum(part) / total for part in (ranked[:first], ranked[first:second], ranked[second:])]
