"""Annotated passages become conversations, many at once, and conversations become Arrow tables."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import pyarrow as pa

from open_ner.conversation import build_conversation, order_strings, passage_turns, write_answer, write_query

from ..annotation.annotate import AnnotationRow
from ..config import DatasetConfig
from ..rejects import Reject
from .negatives import ORDER, NegativeSampler, random_numbers
from .token_budget import AnsweredQuery, TokenBudget

ROWS_AT_ONCE = 2000


@dataclass
class Conversation:
    """A passage with its queries and their answers; `id` is that of the passage, or `passage#2` for a continuation.

    `line` is the name in the line `Dataset: {name}`; None if there is no such line.
    """

    id: str
    row: AnnotationRow
    queries: list[AnsweredQuery]
    line: str | None = None


@dataclass
class ConversationCounts:
    """What a config asks, and the rejected passages and queries.

    `conversations`, `queries` and `negative_queries` count by human-annotated set; "" counts distilled rows.
    """

    conversations: Counter[str] = field(default_factory=Counter)
    queries: Counter[str] = field(default_factory=Counter)
    negative_queries: Counter[str] = field(default_factory=Counter)
    types_not_asked: int = 0
    rejects: list[Reject] = field(default_factory=list)


def count_types(rows: Iterable[AnnotationRow]) -> Counter[str]:
    """Count the distinct (passage, string, type) triples of each type."""
    # a dict instead of a set keeps types of equal frequency in the order of the passages, so runs are reproducible
    return Counter(kind for row in rows for _, kind in dict.fromkeys((m["text"], m["type"]) for m in row["entities"]))


def to_conversations(
    rows: Iterable[AnnotationRow], samplers: Mapping[str, NegativeSampler], options: Mapping[str, DatasetConfig],
    budget: TokenBudget | None, counts: ConversationCounts, dataset_line: bool = True,
) -> Iterator[Conversation]:  # fmt: skip
    """Ask all present types of each passage and some absent ones, in a seeded random order.

    A passage whose conversation exceeds the budget is continued in another one, which repeats the passage.

    Args:
        rows: annotated passages.
        samplers: sampler of absent types for each human-annotated set by name; "" is for distilled rows.
        options: how each set is asked, with the same keys.
        budget: longest conversation; None for no limit.
        counts: receives the counts, and the rejects `passage_too_long`, `query_too_long` and `nothing_to_ask`.
        dataset_line: open the conversations of a set with its name.
    """
    rows = iter(rows)
    while block := list(islice(rows, ROWS_AT_ONCE)):
        sets = [row.get("dataset", "") for row in block]
        pairs = zip(block, sets, strict=True)
        asked = [choose_queries(row, samplers[name], options[name], counts) for row, name in pairs]
        costs = _query_costs(asked, budget) if budget else [[] for _ in asked]
        for row, dataset, queries, prices in zip(block, sets, asked, costs, strict=True):
            line = dataset if dataset_line and dataset else None
            if not queries:
                counts.rejects.append(Reject(row["id"], "nothing_to_ask"))
                continue
            parts = [queries]
            if budget:
                tokens = budget.text_tokens(row["text"], row.get("tokens"))
                parts, too_long = budget.spread(row["text"], tokens, queries, prices, line)
                if too_long and not parts and budget.exact(passage_turns(row["text"], line)) > budget.limit:
                    counts.rejects.append(Reject(row["id"], "passage_too_long"))
                else:
                    counts.rejects += [Reject(row["id"], "query_too_long", type=name) for name, _ in too_long]
            for number, part in enumerate(parts, 1):
                counts.conversations[dataset] += 1
                counts.queries[dataset] += len(part)
                counts.negative_queries[dataset] += sum(not strings for _, strings in part)
                yield Conversation(row["id"] if number == 1 else f"{row['id']}#{number}", row, part, line)


def choose_queries(
    row: AnnotationRow, sampler: NegativeSampler, options: DatasetConfig, counts: ConversationCounts
) -> list[AnsweredQuery]:
    """Return the queries of a row in the order asked; present types beyond `max_queries` are counted."""
    present: dict[str, list[tuple[int, str]]] = {}
    for mention in row["entities"]:
        present.setdefault(mention["type"], []).append((mention["start"], mention["text"]))
    queries = [(name, order_strings(strings)) for name, strings in present.items()]
    fixed = options.negatives_per_passage
    wanted = math.ceil(options.negative_ratio * len(present)) if fixed is None else fixed
    queries += [(name, []) for name in sampler.draw(row["id"], present, wanted)]
    order = np.argsort(random_numbers(row["id"], len(queries), ORDER, options.seed)).tolist()
    kept = order[: options.max_queries]
    counts.types_not_asked += sum(bool(queries[place][1]) for place in order[len(kept) :])
    return [queries[place] for place in kept]


def _query_costs(asked: list[list[AnsweredQuery]], budget: TokenBudget) -> list[list[int]]:
    """Tokens of the text and the answer of each query, counted in one batch."""
    pairs = (pair for part in asked for pair in part)
    texts = [text for name, strings in pairs for text in (write_query(name), write_answer(strings))]
    counts = iter(budget.counts(texts))
    return [[next(counts) + next(counts) for _ in part] for part in asked]


def to_table(conversations: Iterable[Conversation], schema: pa.Schema) -> pa.Table:
    """Return conversations as a table with the columns of `schema`."""
    rows = []
    for conversation in conversations:
        row, queries = conversation.row, conversation.queries
        asked = {name for name, strings in queries if strings}
        rows.append({
            "id": conversation.id, "text": row["text"], "source": row["source"], "dataset": row.get("dataset", ""),
            "messages": build_conversation(row["text"], queries, conversation.line),
            "entities": [mention for mention in row["entities"] if mention["type"] in asked],
            "negatives": [name for name, strings in queries if not strings],
        })  # fmt: skip
    return pa.Table.from_pylist(rows, schema=schema)
