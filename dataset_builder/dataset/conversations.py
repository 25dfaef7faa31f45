"""Annotated passages become conversations."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from open_ner.conversation import build_conversation, order_strings, passage_turns

from ..annotation.annotate import AnnotationRow
from ..config import DatasetConfig
from ..rejects import Reject
from .negatives import ORDER, NegativeSampler, random_numbers
from .token_budget import AnsweredQuery, TokenBudget


@dataclass
class ConversationCounts:
    """Counters by human-annotated set ("" for distilled rows), types beyond `max_queries`, and rejects."""

    conversations: Counter[str] = field(default_factory=Counter)
    queries: Counter[str] = field(default_factory=Counter)
    negative_queries: Counter[str] = field(default_factory=Counter)
    types_not_asked: int = 0
    rejects: list[Reject] = field(default_factory=list)


def count_types(rows: Iterable[AnnotationRow]) -> Counter[str]:
    """Count the distinct (passage, string, type) triples of each type."""
    # a dict, because the order of a set differs between runs
    return Counter(kind for row in rows for _, kind in dict.fromkeys((m["text"], m["type"]) for m in row["entities"]))


def to_conversations(
    rows: Iterable[AnnotationRow], samplers: Mapping[str, NegativeSampler], options: Mapping[str, DatasetConfig],
    budget: TokenBudget | None, counts: ConversationCounts, dataset_line: bool = True,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Ask all present types of each passage and some absent ones, in a seeded random order.

    Args:
        rows: annotated passages.
        samplers: samplers of absent types by human-annotated set; "" is the key for distilled rows.
        options: dataset options by human-annotated set, with the same keys as `samplers`.
        budget: limit of a conversation; None for no limit.
        counts: receives the counts, and the rejects `passage_too_long`, `query_too_long`, `doubtful_type` and
            `nothing_to_ask`.
        dataset_line: open the conversations of a set with its name.

    Yields:
        The rows of the dataset. A conversation that exceeds the budget is continued in another one, which repeats the
        passage and has the id `passage#2`.
    """
    for row in rows:
        dataset = row.get("dataset", "")
        queries = choose_queries(row, samplers[dataset], options[dataset], counts)
        if not queries:
            counts.rejects.append(Reject(row["id"], "nothing_to_ask"))
            continue
        line = dataset if dataset_line else None
        parts, too_long = budget.split(row["text"], queries, line) if budget else ([queries], [])
        if budget and not parts and budget.count(passage_turns(row["text"], line)) > budget.limit:
            counts.rejects.append(Reject(row["id"], "passage_too_long"))
        else:
            counts.rejects += [Reject(row["id"], "query_too_long", type=name) for name, _ in too_long]
        for number, part in enumerate(parts, 1):
            present = {name for name, strings in part if strings}
            negatives = [name for name, strings in part if not strings]
            counts.conversations[dataset] += 1
            counts.queries[dataset] += len(part)
            counts.negative_queries[dataset] += len(negatives)
            yield {
                "id": row["id"] if number == 1 else f"{row['id']}#{number}",
                "text": row["text"], "source": row["source"], "dataset": dataset,
                "messages": build_conversation(row["text"], part, line),
                "entities": [mention for mention in row["entities"] if mention["type"] in present],
                "negatives": negatives,
            }  # fmt: skip


def choose_queries(
    row: AnnotationRow, sampler: NegativeSampler, options: DatasetConfig, counts: ConversationCounts
) -> list[AnsweredQuery]:
    """Return the queries of a row in the order asked, and count the present types beyond `max_queries`.

    The doubtful types of a closed world are not asked.
    """
    present: dict[str, list[tuple[int, str]]] = {}
    for mention in row["entities"]:
        present.setdefault(mention["type"], []).append((mention["start"], mention["text"]))
    queries = [(name, order_strings(strings)) for name, strings in present.items()]
    fixed = options.negatives_per_passage
    wanted = math.ceil(options.negative_ratio * len(present)) if fixed is None else fixed
    doubtful = row.get("doubtful", [])
    counts.rejects += [Reject(row["id"], "doubtful_type", type=name) for name in doubtful]
    queries += [(name, []) for name in sampler.draw(row["id"], [*present, *doubtful], wanted)]
    order = np.argsort(random_numbers(row["id"], len(queries), ORDER, options.seed)).tolist()
    kept = order[: options.max_queries]
    counts.types_not_asked += sum(bool(queries[place][1]) for place in order[len(kept) :])
    return [queries[place] for place in kept]
