"""Turn rows of files into passages to show; a span with invalid offsets becomes a reject."""

import json
from collections.abc import Sequence
from typing import Any

from ..conversation import read_answer
from ..tools.errors import UserError
from ..tools.files import replace_surrogates
from .passages import RejectedSpan, ShownPassage, ShownSpan, is_span

Row = dict[str, Any]  # as in the file; this module checks the fields that are shown


def parse(line: bytes, where: str) -> Row:
    """Read a line of JSON; raises UserError unless it is an object."""
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON in UTF-8 ({error!s:.120})") from None
    if not isinstance(row, dict):
        raise UserError(f"{where} is not a JSON object: {row!r:.60}")
    return row


def from_row(row: Row, number: int, where: str) -> ShownPassage:
    """Return the passage of a row with a `text`.

    Other fields are optional: `id`; `entities` with `start`, `end`, `type` (or `entity_group`, as the pipeline returns
    it) and `score`; the `types` that were asked, or the `negatives` among them; the `reason` or `error` of a rejected
    row. A text that is null, or that is not a string in a row with an `error`, is shown as "".
    """
    text = row.get("text")
    if not isinstance(text, str):
        if not row.get("error") and not ("text" in row and text is None):
            raise UserError(f'{where} has no string "text", but {", ".join(map(repr, row)) or "nothing"}')
        text = ""
    passage = new_passage(row.get("id"), text, number)
    for found in _spans_of(row, "entities", where):
        add_span(passage, found if isinstance(found, dict) else {"text": found})
    if about := [str(row[name]) for name in ("dataset", "source", "teacher") if row.get(name)]:
        passage["about"] = " · ".join(map(replace_surrogates, about))
    asked = row.get("negatives", row.get("types"))
    if isinstance(asked, list):
        present = {span["type"] for span in passage["entities"]}
        passage["absent"] = [name for name in map(replace_surrogates, map(str, asked)) if name not in present]
    for name in ("reason", "error"):
        if row.get(name):
            passage["rejects"].append(reject(str(row[name])))
    return passage


def new_passage(name: Any, text: str, number: int) -> ShownPassage:
    """Return a passage without spans; its number replaces a missing id."""
    shown = f"#{number}" if name is None else replace_surrogates(str(name))
    return {"id": shown, "text": replace_surrogates(text), "entities": [], "rejects": []}


def add_span(passage: ShownPassage, found: Row) -> ShownSpan | None:
    """Add a span to a passage and return it, or add a reject `invalid_offsets`."""
    start: Any = found.get("start")  # checked below
    end: Any = found.get("end")
    score = found.get("score")
    name = replace_surrogates(str(found.get("type", found.get("entity_group", ""))))
    string = found.get("text", found.get("word"))
    there = passage["text"][start:end] if is_span(passage["text"], start, end) else None
    if there is None or (isinstance(string, str) and there != replace_surrogates(string)):
        passage["rejects"].append(reject("invalid_offsets", f"{string or ''} [{start}:{end}]".strip(), name))
        return None
    span: ShownSpan = {"start": start, "end": end, "text": there, "type": name}
    if isinstance(score, int | float):
        span["score"] = float(score)
    passage["entities"].append(span)
    return span


def reject(reason: str, text: str = "", name: str = "") -> RejectedSpan:
    """Return a reject without offsets."""
    return {"reason": replace_surrogates(reason), "text": replace_surrogates(text), "type": replace_surrogates(name)}


def is_prediction(row: Row) -> bool:
    """Whether a row is a line of an evaluation's predictions.jsonl: a query and the model's answer."""
    return "passage_id" in row and "spans" in row


def passage_of(row: Row) -> tuple[Any, Any]:
    """The benchmark and the passage of a prediction."""
    return row.get("benchmark"), row.get("passage_id")


def from_predictions(rows: Sequence[Row], number: int, where: str) -> ShownPassage:
    """Return the passage of some predictions, one row per query.

    Its rejects are the errors: `not_in_gold` and `not_predicted` where the benchmark has offsets, `not_in_text` for
    an answered string without a span, and `unreadable_answer`.
    """
    text = rows[0].get("text")
    if not isinstance(text, str):
        raise UserError(f'{where} is a prediction without a string "text"')
    benchmark, name = passage_of(rows[0])
    passage = new_passage(name, text, number)
    passage["about"] = replace_surrogates(str(benchmark or ""))
    passage["absent"] = [replace_surrogates(str(row.get("type"))) for row in rows if not row.get("spans")]
    for row in rows:
        asked, spans = replace_surrogates(str(row.get("type"))), _spans_of(row, "spans", where)
        found = [add_span(passage, {**span, "type": asked}) for span in spans if isinstance(span, dict)]
        predicted = {(span["start"], span["end"]) for span in found if span}
        if row.get("parse_failure"):
            passage["rejects"].append(reject("unreadable_answer", str(row.get("raw", "")), asked))
        elif not predicted:
            strings = [string for string in read_answer(str(row.get("raw"))) or [] if string.strip()]
            passage["rejects"] += [reject("not_in_text", string, asked) for string in strings]
        if isinstance(gold := row.get("gold_spans"), list):
            pairs = [span for span in gold if isinstance(span, list) and len(span) == 2]
            expected = {(start, end) for start, end in pairs if is_span(text, start, end)}
            for reason, places in (("not_in_gold", predicted - expected), ("not_predicted", expected - predicted)):
                for start, end in sorted(places):
                    one = reject(reason, passage["text"][start:end], asked)
                    passage["rejects"].append({**one, "start": start, "end": end})
    return passage


def _spans_of(row: Row, key: str, where: str) -> list[Any]:
    """The spans of a row, none if they are missing or null; raises UserError if they are not a list."""
    spans = row.get(key) or []
    if not isinstance(spans, list):
        raise UserError(f"{where}: `{key}` is not a list of spans: {spans!r:.60}")
    return spans
