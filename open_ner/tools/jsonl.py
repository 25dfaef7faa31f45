"""JSON lines in, JSON lines out: texts answered a batch at a time, in order, in constant memory."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, islice
from typing import Any

from .errors import UserError

Ask = Callable[[list[str], Any], list[list[dict[str, Any]]]]  # texts and types to the entities of each text
Record = dict[str, Any]


def answer_jsonl(lines: Iterable[bytes], name: str, ask: Ask, types: Any, batch_size: int) -> None:
    """Print each line's record with its `entities`, as soon as its batch is answered; blank lines are passed over.

    A record's own `types` go before those given. One that cannot be answered gets an `error` instead, which is said
    with its line's number, and in the end a UserError counts them.
    """
    broken = total = 0
    numbered = enumerate(lines, 1)
    while batch := list(islice(numbered, batch_size)):
        records = [(number, _record(line)) for number, line in batch if line.strip()]
        for number, record in _answered(records, ask, types):
            total += 1
            if "entities" not in record:
                broken += 1
                print(f"{name}, line {number}: {record['error']}", file=sys.stderr)
            print(json.dumps(record, ensure_ascii=False))
        sys.stdout.flush()
    if broken:
        raise UserError(f"{name}: {broken} of {total} lines could not be answered and have an error in their place")


def _record(line: bytes) -> Record:
    """The record of a line, or one with an error alone."""
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return {"error": f"no JSON in UTF-8: {error}"}
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        return {"error": f'no object with a "text" that is a string: {line[:60]!r}'}
    return {key: value for key, value in record.items() if key not in ("entities", "error")}  # of an earlier run


def _answered(records: list[tuple[int, Record]], ask: Ask, types: Any) -> Iterator[tuple[int, Record]]:
    """The records with their entities; those next to each other with the same types are asked together."""

    def alike(numbered: tuple[int, Record]) -> tuple[bool, Any]:
        own = numbered[1].get("types")
        return "text" in numbered[1], types if own is None else own

    for (askable, wanted), group in groupby(records, alike):
        same = list(group)
        if not askable:
            yield from same
            continue
        try:
            answers: list[Any] = ask([record["text"] for _, record in same], wanted)
        except ValueError:  # of one of them: which one is found by asking each alone
            answers = [_alone(ask, record["text"], wanted) for _, record in same]
        for (number, record), answer in zip(same, answers, strict=True):
            yield number, record | ({"error": answer} if isinstance(answer, str) else {"entities": answer})


def _alone(ask: Ask, text: str, types: Any) -> list[dict[str, Any]] | str:
    """The entities of a text, or what is wrong with it."""
    try:
        return ask([text], types)[0]
    except ValueError as error:
        return str(error)
