"""Answer the texts of JSON lines in batches, in order, with constant memory."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, islice
from typing import Any

from ..answers import Entity
from .errors import UserError
from .escapes import in_a_cell

Ask = Callable[[list[str], Any], list[list[Entity]]]  # maps texts and their types to the entities of each text
Record = dict[str, Any]  # the object of a line; `text` and `types` are checked


def answer_jsonl(lines: Iterable[bytes], name: str, ask: Ask, types: Any, batch_size: int) -> None:
    """Print the record of each line with `entities` added, as soon as its batch is answered; skip blank lines.

    `types` applies to records without `types`. `entities` and `error` in the input become `input_entities` and
    `input_error`, or `input_input_entities` if that name is taken, and so on. Raises UserError at the end if some
    lines could not be answered; their records have an `error`, which is also printed to stderr.
    """
    broken = total = 0
    numbered = enumerate(lines, 1)
    while batch := list(islice(numbered, batch_size)):
        records = [(number, _record(line)) for number, line in batch if line.strip()]
        for number, record in _answered(records, ask, types):
            total += 1
            if "error" in record:
                broken += 1
                print(f"{name}, line {number}: {in_a_cell(record['error'])}", file=sys.stderr)
            print(json.dumps(record, ensure_ascii=False))
        sys.stdout.flush()
    if broken:
        raise UserError(f"{name}: {broken} of {total} lines could not be answered and have an error in their place")


def _record(line: bytes) -> Record:
    """Return the record of a line, or one with only an error."""
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return {"error": f"not JSON in UTF-8: {error}"}
    kept = record if isinstance(record, dict) else {}
    for key in kept.keys() & {"entities", "error"}:
        new = f"input_{key}"
        while new in kept:
            new = f"input_{new}"
        kept = {new if name == key else name: value for name, value in kept.items()}
    types = kept.get("types")
    if not isinstance(kept.get("text"), str):
        kept["error"] = f'not an object with a "text" that is a string: {line[:60]!r}'
    elif not (types is None or (isinstance(types, list | dict) and all(isinstance(name, str) for name in types))):
        kept["error"] = f'"types" is neither a list of strings nor an object: {types!r:.60}'
    return kept


def _answered(records: list[tuple[int, Record]], ask: Ask, types: Any) -> Iterator[tuple[int, Record]]:
    """Yield the records with their entities; adjacent records with the same types are answered together."""

    def wanted(record: Record) -> Any:
        return types if record.get("types") is None else record["types"]

    def alike(numbered: tuple[int, Record]) -> tuple[bool, str]:
        # compared as JSON, because equal dicts may differ in order, and the order of types decides ties
        return "error" in numbered[1], json.dumps(wanted(numbered[1]))

    for (broken, _), group in groupby(records, alike):
        same = list(group)
        if broken:
            yield from same
            continue
        try:
            answers = ask([record["text"] for _, record in same], wanted(same[0][1]))
        except ValueError as error:
            if len(same) == 1:
                yield same[0][0], same[0][1] | {"error": str(error)}
            else:  # some record is invalid: ask each alone
                yield from (answered for each in same for answered in _answered([each], ask, types))
            continue
        yield from ((n, record | {"entities": found}) for (n, record), found in zip(same, answers, strict=True))
