"""Annotated passages become conversations."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from open_ner.conversation import Message, build_conversation, order_strings, passage_turns

from ..annotation.annotate import AnnotationRow
from ..config import DatasetConfig
from ..rejects import Reject
from .negatives import ORDER, NegativeSampler, random_numbers
from .token_budget import AnsweredQuery, TokenBudget

BLOCK = 500  # passages whose conversations are tokenized at once, on all cores


class WholeConversation(NamedTuple):
    """A passage with all of its queries in one conversation."""

    row: AnnotationRow
    name: str
    line: str | None
    queries: list[AnsweredQuery]
    messages: list[Message]


@dataclass
class ConversationCounts:
    """Counters by human-annotated set ("" for distilled rows), types beyond `max_queries`, and rejects.

    `types_not_asked` counts the present types of each passage that are beyond `max_queries` in all draws.
    """

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
    budget: TokenBudget | None, counts: ConversationCounts, dataset_line: bool = True, draw: int = 1, draws: int = 1,
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
        draw: number of this pass over the rows, from 1; each has its own absent types, order and choice of queries.
        draws: number of all passes; the first one counts the types that no pass asks.

    Yields:
        The rows of the dataset. A conversation that exceeds the budget is continued in another one, which repeats the
        passage and has the id `passage#2`; ids of the second draw are `passage@2` and `passage@2#2`.
    """

    def ask(row: AnnotationRow) -> WholeConversation:
        dataset = row.get("dataset", "")
        sampler, own = samplers[dataset], options[dataset]
        name, line = _conversation_id(row, draw), dataset if dataset_line else None
        queries, not_asked = choose_queries(row, name, sampler, own)
        if draw == 1:
            for other in range(2, draws + 1):
                if not_asked:  # the other draws choose again later, because keeping what is not asked takes memory
                    not_asked &= choose_queries(row, _conversation_id(row, other), sampler, own)[1]
            counts.types_not_asked += len(not_asked)
        return WholeConversation(row, name, line, queries, build_conversation(row["text"], queries, line))

    asked = map(ask, rows)
    while block := list(islice(asked, BLOCK)):
        sizes = budget.count_all([one.messages for one in block]) if budget else [0] * len(block)
        for one, size in zip(block, sizes, strict=True):
            yield from _split(one, budget if budget and size > budget.limit else None, counts)


def _split(one: WholeConversation, budget: TokenBudget | None, counts: ConversationCounts) -> Iterator[dict[str, Any]]:
    """Yield the conversations of a passage as rows: one, or several if `budget` is given, which one would exceed."""
    row, dataset = one.row, one.row.get("dataset", "")
    counts.rejects += [Reject(row["id"], "doubtful_type", type=kind) for kind in row.get("doubtful", [])]
    if not one.queries:
        counts.rejects.append(Reject(row["id"], "nothing_to_ask"))
        return
    parts, too_long = budget.split(row["text"], one.queries, one.line) if budget else ([one.queries], [])
    if budget and not parts and budget.count(passage_turns(row["text"], one.line)) > budget.limit:
        counts.rejects.append(Reject(row["id"], "passage_too_long"))
    else:
        counts.rejects += [Reject(row["id"], "query_too_long", type=kind) for kind, _ in too_long]
    for number, part in enumerate(parts, 1):
        present = {kind for kind, strings in part if strings}
        negatives = [kind for kind, strings in part if not strings]
        counts.conversations[dataset] += 1
        counts.queries[dataset] += len(part)
        counts.negative_queries[dataset] += len(negatives)
        yield {
            "id": one.name if number == 1 else f"{one.name}#{number}",
            "text": row["text"], "source": row["source"], "dataset": dataset,
            "messages": build_conversation(row["text"], part, one.line) if budget else one.messages,
            "entities": [mention for mention in row["entities"] if mention["type"] in present],
            "negatives": negatives,
        }  # fmt: skip


def _conversation_id(row: AnnotationRow, draw: int) -> str:
    """Return the id of a passage's conversation in a draw."""
    return row["id"] if draw == 1 else f"{row['id']}@{draw}"


def choose_queries(
    row: AnnotationRow, name: str, sampler: NegativeSampler, options: DatasetConfig
) -> tuple[list[AnsweredQuery], set[str]]:
    """Return the queries of a row in the order asked, and the present types beyond `max_queries`.

    All random choices depend on the `name` of the conversation. The doubtful types of a closed world are not asked.
    """
    present: dict[str, list[tuple[int, str]]] = {}
    for mention in row["entities"]:
        present.setdefault(mention["type"], []).append((mention["start"], mention["text"]))
    queries = [(kind, order_strings(strings)) for kind, strings in present.items()]
    fixed = options.negatives_per_passage
    wanted = math.ceil(options.negative_ratio * len(present)) if fixed is None else fixed
    doubtful = row.get("doubtful", [])
    if "types" in row:
        queries += [(kind, []) for kind in row["types"] if kind not in present]
    else:
        queries += [(kind, []) for kind in sampler.draw(name, [*present, *doubtful], wanted, row["source"])]
    order = np.argsort(random_numbers(name, len(queries), ORDER, options.seed)).tolist()
    kept = order[: options.max_queries]
    beyond = {queries[place][0] for place in order[len(kept) :] if queries[place][1]}
    return [queries[place] for place in kept], beyond
