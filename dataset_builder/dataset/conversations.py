"""Annotated passages become conversations, many at once, and conversations become Arrow columns."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa

from open_ner.conversation import order_strings, passage_turns, write_answer, write_query

from ..config import DatasetConfig
from ..rejects import Reject
from .negatives import ORDER, NegativeSampler, passage_keys, uniform
from .token_budget import Query, TokenBudget

ROWS_AT_ONCE = 2000
NO_ANSWER = write_answer([])


@dataclass
class Conversation:
    """A passage with the queries asked of it, each with its answer; `id` is the passage's, or `passage#2`.

    `line` is the set that the line `Dataset: {name}` names, None where there is no such line.
    """

    id: str
    row: dict[str, Any]
    queries: list[Query]
    line: str | None = None


@dataclass
class ConversationCounts:
    """What a config asks, and the passages and queries no conversation could hold.

    `conversations`, `queries` and `negative_queries` count by human-annotated set, distilled rows under "".
    """

    conversations: Counter[str] = field(default_factory=Counter)
    queries: Counter[str] = field(default_factory=Counter)
    negative_queries: Counter[str] = field(default_factory=Counter)
    types_not_asked: int = 0
    rejects: list[Reject] = field(default_factory=list)


def count_types(rows: Iterable[dict[str, Any]]) -> Counter[str]:
    """Frequency of each type: distinct (passage, string, type) triples, as the teacher named them."""
    # no set: types of equal frequency come in the order of the passages, the same in every run
    return Counter(kind for row in rows for _, kind in dict.fromkeys((e["text"], e["type"]) for e in row["entities"]))


def to_conversations(
    rows: Iterable[dict[str, Any]],
    samplers: Mapping[str, NegativeSampler],
    options: Mapping[str, DatasetConfig],
    window: TokenBudget | None,
    tally: ConversationCounts,
    dataset_line: bool = True,
) -> Iterator[Conversation]:
    """Every present type of each passage and sampled absent ones, in a seeded random order.

    `samplers` holds the types of each human-annotated set by its name, and those of distilled rows under "", and
    `options` how each is asked; `dataset_line` says whether a set's name opens its conversations. A passage whose
    conversation exceeds the window is continued in a second one that repeats the passage; what cannot fit at all goes
    to `tally.rejects` as `passage_too_long` or `query_too_long`, and a passage without a query as `nothing_to_ask`.
    """
    rows = iter(rows)
    while block := list(islice(rows, ROWS_AT_ONCE)):
        asked = choose_queries(block, samplers, options, tally)
        costs = _query_costs(asked, window) if window else asked
        for row, queries, prices in zip(block, asked, costs, strict=True):
            dataset = row.get("dataset") or ""
            line = dataset if dataset_line and dataset else None
            if not queries:
                tally.rejects.append(Reject(row["id"], "nothing_to_ask"))
                continue
            parts = _spread(row, queries, prices, window, tally, line) if window else [queries]
            for number, part in enumerate(parts, 1):
                tally.conversations[dataset] += 1
                tally.queries[dataset] += len(part)
                tally.negative_queries[dataset] += sum(not strings for _, strings in part)
                yield Conversation(row["id"] if number == 1 else f"{row['id']}#{number}", row, part, line)


def choose_queries(
    rows: list[dict[str, Any]],
    samplers: Mapping[str, NegativeSampler],
    options: Mapping[str, DatasetConfig],
    tally: ConversationCounts,
) -> list[list[Query]]:
    """The queries of each row in the order asked; present types beyond `max_queries` are counted in the tally."""
    answers = [_answers(row) for row in rows]
    keys = passage_keys(row["id"] for row in rows)
    queries = [[(name, order_strings(mentions)) for name, mentions in present.items()] for present in answers]
    for name, members in _by_dataset(rows).items():
        sampler = samplers[name]
        present = [[sampler.index[kind] for kind in answers[i] if kind in sampler.index] for i in members]
        owners = np.repeat(np.arange(len(members)), [len(codes) for codes in present])
        wanted = [_wanted(len(answers[i]), options[name]) for i in members]
        flat = np.array([code for codes in present for code in codes], dtype=np.int64)
        drawn = sampler.draw(keys[members], owners, flat, np.array(wanted, dtype=np.int64))
        for place, code in zip(*(column.tolist() for column in drawn), strict=True):
            queries[members[place]].append((sampler.types[code], []))
        orders = _random_orders(keys[members], [queries[i] for i in members], options[name].seed)
        for i, order in zip(members, orders, strict=True):
            queries[i] = _shuffled(queries[i], order, tally, options[name].max_queries)
    return queries


def _answers(row: dict[str, Any]) -> dict[str, list[tuple[int, str]]]:
    answers: dict[str, list[tuple[int, str]]] = {}
    for mention in row["entities"]:
        answers.setdefault(mention["type"], []).append((mention["start"], mention["text"]))
    return answers


def _by_dataset(rows: list[dict[str, Any]]) -> dict[str, list[int]]:
    members: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        members.setdefault(row.get("dataset") or "", []).append(place)
    return members


def _wanted(present: int, options: DatasetConfig) -> int:
    fixed = options.negatives_per_passage
    return math.ceil(options.negative_ratio * present) if fixed is None else fixed


def _random_orders(keys: np.ndarray, queries: list[list[Query]], seed: int) -> list[list[int]]:
    """A permutation for each row, from random numbers of its own."""
    lengths = np.array([len(part) for part in queries])
    rows, begins = np.repeat(np.arange(len(queries)), lengths), np.cumsum(lengths) - lengths
    positions = np.arange(len(rows)) - begins[rows]
    order = np.lexsort((uniform(keys[rows], positions, ORDER, seed), rows))
    flat = positions[order].tolist()
    return [flat[begin : begin + length] for begin, length in zip(begins.tolist(), lengths.tolist(), strict=True)]


def _shuffled(queries: list[Query], order: list[int], tally: ConversationCounts, most: int | None) -> list[Query]:
    kept = order[:most]
    tally.types_not_asked += sum(bool(queries[i][1]) for i in order[len(kept) :])
    return [queries[i] for i in kept]


def _query_costs(asked: list[list[Query]], window: TokenBudget) -> list[list[int]]:
    """Tokens of each query's question and answer."""
    pairs = [pair for part in asked for pair in part]
    contents = [text for name, strings in pairs for text in (write_query(name), write_answer(strings))]
    counts = iter(window.counts(contents))
    return [[next(counts) + next(counts) for _ in part] for part in asked]


def _spread(
    row: dict[str, Any],
    queries: list[Query],
    costs: list[int],
    window: TokenBudget,
    tally: ConversationCounts,
    dataset: str | None,
) -> list[list[Query]]:
    tokens = window.text_tokens(row["text"], row.get("tokens"))
    parts, left_out = window.spread(row["text"], tokens, queries, costs, dataset)
    if left_out and not parts and window.exact(passage_turns(row["text"], dataset)) > window.limit:
        tally.rejects.append(Reject(row["id"], "passage_too_long"))
    else:
        tally.rejects += [Reject(row["id"], "query_too_long", type=name) for name, _ in left_out]
    return parts


def to_table(conversations: Iterable[Conversation], schema: pa.Schema) -> pa.Table:
    """Arrow columns of conversations, built one column at a time: no row ever becomes a Python dict of its own."""
    texts: dict[str, list[str]] = {name: [] for name in ("id", "text", "source", "dataset")}
    contents: list[str] = []
    mentions: list[dict[str, Any]] = []
    negatives: list[str] = []
    ends: dict[str, list[int]] = {name: [0] for name in ("messages", "entities", "negatives")}
    for conversation in conversations:
        row, queries = conversation.row, conversation.queries
        given = (conversation.id, row["text"], row["source"], row.get("dataset") or "")
        for name, value in zip(texts, given, strict=True):
            texts[name].append(value)
        contents += [message["content"] for message in passage_turns(row["text"], conversation.line)]
        for name, strings in queries:
            contents += (write_query(name), write_answer(strings) if strings else NO_ANSWER)
        asked = {name for name, strings in queries if strings}
        mentions += [mention for mention in row["entities"] if mention["type"] in asked]
        negatives += [name for name, strings in queries if not strings]
        for column, items in (("messages", contents), ("entities", mentions), ("negatives", negatives)):
            ends[column].append(len(items))
    columns = {name: pa.array(values, pa.string()) for name, values in texts.items()}
    columns["messages"] = _lists({"role": _roles(ends["messages"]), "content": contents}, ends, schema, "messages")
    columns["entities"] = entity_column(mentions, ends["entities"], schema)
    columns["negatives"] = pa.ListArray.from_arrays(
        pa.array(ends["negatives"], pa.int32()), pa.array(negatives, pa.string())
    )
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


def _roles(ends: list[int]) -> pa.Array:
    """System first, then user and assistant by turns, in every conversation."""
    lengths = np.diff(ends)
    positions = np.arange(ends[-1]) - np.repeat(ends[:-1], lengths)
    codes = np.where(positions == 0, 0, 2 - positions % 2)
    return pa.DictionaryArray.from_arrays(codes, ["system", "user", "assistant"]).cast(pa.string())


def entity_column(mentions: list[dict[str, Any]], ends: list[int], schema: pa.Schema) -> pa.ListArray:
    """Mentions, one after the other, as a list for each row; row `i` has those from `ends[i]` to `ends[i + 1]`."""
    names = [column.name for column in schema.field("entities").type.value_type]
    fields = {name: list(map(itemgetter(name), mentions)) for name in names}
    return _lists(fields, {"entities": ends}, schema, "entities")


def _lists(fields: dict[str, Any], ends: dict[str, list[int]], schema: pa.Schema, name: str) -> pa.ListArray:
    """A column of lists of structs, from the structs' fields one after the other."""
    kind = schema.field(name).type
    given = [(fields[column.name], column.type) for column in kind.value_type]
    arrays = [values if isinstance(values, pa.Array) else pa.array(values, arrow) for values, arrow in given]
    struct = pa.StructArray.from_arrays(arrays, fields=list(kind.value_type))
    return pa.ListArray.from_arrays(pa.array(ends[name], pa.int32()), struct, type=kind)
