"""The files of a run: predictions.jsonl, a line for each query, and results.json."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from hub.records import BenchmarkResult, MainScores, RunResults
from ner_sets.benchmarks import BenchmarkPassage, Query, Spans
from open_ner.tools.errors import UserError
from open_ner.tools.files import read_jsonl


class PredictedSpan(TypedDict):
    """A predicted span: offsets in characters, `end` exclusive, and its score, None if the model gives none."""

    start: int
    end: int
    score: float | None


class PredictionLine(TypedDict):
    """A query and the model's answer. `asked` and `wording` are there if the type was asked in other words."""

    benchmark: str
    passage_id: str
    text: str
    type: str
    asked: NotRequired[str]
    wording: NotRequired[int]
    raw: str  # what the official scorer reads
    reply: NotRequired[str]  # the verbatim reply, if `raw` was made from it
    parse_failure: bool
    spans: list[PredictedSpan]
    presence: NotRequired[float]  # log-odds that the type occurs, before any presence bias
    gold: str
    gold_spans: Spans | None


class Published(TypedDict):
    """Contents of published.yaml.

    Each row has `model`, `f1` in percent in the order of `benchmarks`, `source`, and perhaps `average`, a `note`, and
    `shown`, whether the figure shows it.
    """

    suite: str
    protocol: str
    decoding: str
    benchmarks: list[str]
    rows: list[dict[str, Any]]


def scores_of(result: BenchmarkResult, types: str) -> MainScores | None:
    """Return the scores of "all" types, or of those "seen" in training or "held_out"; None if there are none."""
    return result if types == "all" else result.get("by_seen", {}).get(types)


def make_line(
    benchmark: str,
    passage: BenchmarkPassage,
    query: Query,
    raw: str,
    spans: list[PredictedSpan] | None,
    reply: str | None = None,
    presence: float | None = None,
) -> PredictionLine:
    """Make a line of predictions.jsonl; `spans` is None if the answer cannot be parsed."""
    line: PredictionLine = {
        "benchmark": benchmark,
        "passage_id": passage.id,
        "text": passage.text,
        "type": query.type,
        "asked": query.asked,
        "wording": query.wording,
        "raw": raw,
        "reply": reply or "",
        "parse_failure": spans is None,
        "spans": spans or [],
        "presence": presence or 0.0,
        "gold": query.gold,
        "gold_spans": query.gold_spans,
    }
    if not query.wording:
        del line["asked"], line["wording"]
    if reply is None:
        del line["reply"]
    if presence is None:
        del line["presence"]
    return line


def read_predictions(path: Path) -> list[PredictionLine]:
    """Read a predictions.jsonl; raises UserError with the names of the fields that a line lacks."""
    try:
        lines = list(read_jsonl(path))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a predictions.jsonl: {error}") from None
    for number, line in enumerate(lines, 1):
        missing = _missing(line, PredictionLine.__required_keys__)
        for span in [] if missing else line["spans"]:
            missing = missing or _missing(span, PredictedSpan.__required_keys__)
        if missing:
            raise UserError(f"{path}: not a predictions.jsonl: line {number} has no {', '.join(missing)}")
    return lines


def read_results(path: Path) -> RunResults:
    """Read a results.json of this or an earlier version; raises UserError with the names of the fields it lacks."""
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a results.json: {error}") from None
    head = ("model", "suite", "protocol", "decoding", "benchmarks", "hardware", "seed")
    missing = _missing(run, head) or _missing(run["model"], ["id"])
    if not missing:
        parts = run["benchmarks"].values() if isinstance(run["benchmarks"], dict) else [{}]
        fields = ("official", "strict", "n_queries", "parse_failures")
        missing = [name for part in parts for name in _missing(part, fields) or _missing(part["official"], ["f1"])]
    if missing:
        raise UserError(f"{path}: not a results.json of eval_zero_shot.py: has no {', '.join(missing)}")
    return run


def _missing(value: object, names: Iterable[str]) -> list[str]:
    """The names that a JSON value lacks; all of them if it is not an object."""
    return sorted(set(names) - value.keys() if isinstance(value, dict) else set(names))
