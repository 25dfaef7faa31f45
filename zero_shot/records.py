"""The files of a run: predictions.jsonl, with one line per query, and results.json."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from hub.records import RunResults
from ner_sets.benchmarks import BenchmarkPassage, Query, Spans
from open_ner.answers import Entity
from open_ner.tools.errors import UserError
from open_ner.tools.files import read_json, read_jsonl


class PredictedSpan(TypedDict):
    """A predicted span: offsets in characters, `end` exclusive, and its score (None if the model gives no scores)."""

    start: int
    end: int
    score: float | None


class PredictionLine(TypedDict):
    """A line of predictions.jsonl: a query and the model's answer."""

    benchmark: str
    passage_id: str
    text: str
    type: str
    asked: NotRequired[str]  # the wording that was asked, if it is not the type's own name
    wording: NotRequired[int]  # number of this wording, from 1
    raw: str  # what the official scorer reads
    reply: NotRequired[str]  # the verbatim reply, if `raw` was made from it
    parse_failure: bool
    spans: list[PredictedSpan]
    presence: NotRequired[float]  # log-odds that the type occurs, before any presence bias
    gold: str
    gold_spans: Spans | None


def is_sampled(run: RunResults) -> bool:
    """Whether any benchmark of a run is a seeded sample (`--limit`) instead of the whole benchmark."""
    return any(result.get("sampled") for result in run["benchmarks"].values())


def make_line(
    benchmark: str,
    passage: BenchmarkPassage,
    query: Query,
    raw: str,
    spans: Iterable[PredictedSpan | Entity] | None,
    reply: str | None = None,
    presence: float | None = None,
) -> PredictionLine:
    """Make a line of predictions.jsonl; `spans` is None if the answer cannot be parsed."""
    found = [{"start": s["start"], "end": s["end"], "score": s["score"] and round(s["score"], 6)} for s in spans or []]
    line = {
        "benchmark": benchmark, "passage_id": passage.id, "text": passage.text, "type": query.type,
        "asked": query.asked if query.wording else None, "wording": query.wording or None,
        "raw": raw, "reply": reply, "parse_failure": spans is None,
        "spans": found, "presence": None if presence is None else round(presence, 4),
        "gold": query.gold, "gold_spans": query.gold_spans,
    }  # fmt: skip
    return cast(PredictionLine, {k: value for k, value in line.items() if value is not None or k == "gold_spans"})


def read_predictions(path: Path) -> list[PredictionLine]:
    """Read a predictions.jsonl; raises UserError with the names of the fields that are missing."""
    try:
        lines = list(read_jsonl(path))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a predictions.jsonl: {error}") from None
    for number, line in enumerate(lines, 1):
        where = f"{path}: not a predictions.jsonl: line {number}"
        _require(line, PredictionLine.__required_keys__, where)
        for span in line["spans"]:
            _require(span, PredictedSpan.__required_keys__, where)
    return lines


def read_results(path: Path) -> RunResults:
    """Read a results.json of this or an earlier version; raises UserError with the names of missing fields."""
    try:
        run = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a results.json: {error}") from None
    where = f"{path}: not a results.json of eval_zero_shot.py:"
    _require(run, ("model", "suite", "protocol", "decoding", "benchmarks", "hardware", "seed"), where)
    _require(run["model"], ["id"], where)
    for part in run["benchmarks"].values() if isinstance(run["benchmarks"], dict) else [{}]:
        _require(part, ("official", "strict", "n_queries", "parse_failures"), where)
        _require(part["official"], ["f1"], where)
    return run


def _require(value: Any, names: Iterable[str], where: str) -> None:
    """Raise UserError with the names of missing keys: all of them if the value is not a JSON object."""
    if missing := sorted(set(names) - value.keys() if isinstance(value, dict) else names):
        raise UserError(f"{where} has no {', '.join(missing)}")
