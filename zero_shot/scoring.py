"""Predictions to scores: five scorers, by type, seen and unseen types, bootstrap intervals over passages."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from metrics.entity_f1.entity_f1 import (
    CONFIGS,
    Counts,
    f1_official,
    f1_strict,
    official_counts,
    overlap_counts,
    strict_counts,
)

SCORERS = ("official", *(name for name in CONFIGS if name != "official"))
MAIN = ("official", "strict")
RESAMPLES = 2000
Prediction = dict[str, Any]
Passages = dict[tuple[str, str], Counts]  # by (benchmark, passage)


def counts_by_passage(predictions: Iterable[Prediction], scorer: str) -> Passages:
    """Counts of each passage, over all its types; queries without gold offsets count for `official` alone."""
    table: Passages = {}
    grouped: dict[tuple[str, str], list[Prediction]] = defaultdict(list)
    for prediction in predictions:
        key = prediction["benchmark"], prediction["passage_id"]
        if scorer == "official":
            table[key] = table.get(key, Counts()) + official_counts(prediction["raw"], prediction["gold"])
        elif prediction["gold_spans"] is not None:
            grouped[key].append(prediction)
    for key, queries in grouped.items():
        found = [{"start": s["start"], "end": s["end"], "type": q["type"]} for q in queries for s in q["spans"]]
        gold = [{"start": a, "end": b, "type": q["type"]} for q in queries for a, b in q["gold_spans"]]
        table[key] = strict_counts(found, gold) if scorer == "strict" else overlap_counts(found, gold)[scorer]
    return table


def f1(counts: Counts, scorer: str) -> dict[str, float]:
    """Precision, recall, F1 and counts by a scorer's formula."""
    return f1_official(counts) if scorer == "official" else f1_strict(counts)


def score(predictions: Iterable[Prediction], scorer: str) -> dict[str, float] | None:
    """Precision, recall, F1 and counts over queries; None where no query has what the scorer compares."""
    table = counts_by_passage(predictions, scorer)
    return f1(sum(table.values(), Counts()), scorer) if table or scorer == "official" else None


def evaluate_benchmark(predictions: list[Prediction], seen_types: set[str] | None, seed: int) -> dict[str, Any]:
    """Everything results.json says of one benchmark's predictions."""
    result: dict[str, Any] = {scorer: score(predictions, scorer) for scorer in SCORERS}
    result |= {
        "n_passages": len({prediction["passage_id"] for prediction in predictions}),
        "n_queries": len(predictions),
        "n_empty_gold": sum(prediction["gold"] == "[]" for prediction in predictions),
        "parse_failures": sum(prediction["parse_failure"] for prediction in predictions),
        "per_type": per_type(predictions),
    }
    for scorer in SCORERS:
        if result[scorer]:
            result[scorer]["interval"] = bootstrap(predictions, scorer, seed)
    for scorer in MAIN:
        if result[scorer]:
            of_types = [row[scorer]["f1"] for row in result["per_type"].values() if row[scorer]["n_gold"]]
            result[scorer]["macro_f1"] = sum(of_types) / len(of_types) if of_types else 0.0
    if seen_types is not None:
        result["by_seen"] = {
            name: {scorer: score(part, scorer) for scorer in MAIN}
            for name, part in split_by_seen(predictions, seen_types).items()
            if part
        }
    return result


def per_type(predictions: Iterable[Prediction]) -> dict[str, dict[str, Any]]:
    """By type, under the main scorers: counts and F1; and how its predictions went wrong, as `errors` has it."""
    by_type: dict[str, list[Prediction]] = defaultdict(list)
    for prediction in predictions:
        by_type[prediction["type"]].append(prediction)
    wrong = errors([prediction for part in by_type.values() for prediction in part])
    rows = {}
    for name, part in sorted(by_type.items()):
        scores = {scorer: score(part, scorer) for scorer in MAIN}
        rows[name] = {scorer: found for scorer, found in scores.items() if found} | {"errors": wrong.get(name, {})}
        rows[name].setdefault("strict", f1_strict(Counts()))
    return rows


def errors(predictions: Iterable[Prediction]) -> dict[str, dict[str, int]]:
    """By type: gold spans `missed`, and predicted spans that are no gold span of their type, by what is wrong.

    `type`: a gold span of another type alone; `boundary`: overlaps a gold span of its type; `spurious`: neither.
    """
    grouped: dict[tuple[str, str], list[Prediction]] = defaultdict(list)
    for prediction in predictions:
        if prediction["gold_spans"] is not None:
            grouped[prediction["benchmark"], prediction["passage_id"]].append(prediction)
    table: dict[str, dict[str, int]] = {}
    for queries in grouped.values():
        gold = {(a, b, query["type"]) for query in queries for a, b in query["gold_spans"]}
        for query in queries:
            name = query["type"]
            row = table.setdefault(name, {"missed": 0, "boundary": 0, "type": 0, "spurious": 0})
            own = {(a, b) for a, b, kind in gold if kind == name}
            found = {(span["start"], span["end"]) for span in query["spans"]}
            row["missed"] += len(own - found)
            for start, end in found - own:
                if any(a < end and start < b for a, b in own):
                    row["boundary"] += 1
                elif any((start, end) == (a, b) for a, b, _ in gold):
                    row["type"] += 1
                else:
                    row["spurious"] += 1
    return table


def split_by_seen(predictions: Iterable[Prediction], seen_types: set[str]) -> dict[str, list[Prediction]]:
    """Queries about types of the training set, and about held-out ones; names are compared in lower case."""
    parts: dict[str, list[Prediction]] = {"seen": [], "held_out": []}
    for prediction in predictions:
        parts["seen" if prediction["type"].lower() in seen_types else "held_out"].append(prediction)
    return parts


def bootstrap(
    predictions: list[Prediction], scorer: str, seed: int, baseline: list[Prediction] | None = None
) -> list[float]:
    """95 % interval of F1 over passages drawn with replacement; of the gain over `baseline` where that is given.

    Both runs are resampled with the same passages (paired bootstrap, Koehn 2004).
    """
    tables = [
        counts_by_passage(run, scorer) for run in ([predictions] if baseline is None else [predictions, baseline])
    ]
    values = _resampled(tables, seed)
    gain = values[0] if baseline is None else values[0] - values[1]
    return [float(bound) for bound in np.percentile(gain, [2.5, 97.5])]


def average(by_benchmark: dict[str, list[Prediction]], seed: int) -> dict[str, Any]:
    """The mean F1 of several benchmarks, under each scorer that all of them have, with its 95 % interval.

    Passages are resampled within each benchmark.
    """
    result = {}
    for scorer in SCORERS:
        tables = [counts_by_passage(part, scorer) for part in by_benchmark.values()]
        if all(tables):
            values = np.mean([_resampled([table], seed + number)[0] for number, table in enumerate(tables)], axis=0)
            interval = [float(bound) for bound in np.percentile(values, [2.5, 97.5])]
            each = [f1(sum(table.values(), Counts()), scorer)["f1"] for table in tables]
            result[scorer] = {"f1": sum(each) / len(each), "interval": interval}
    return result


def compare(
    run: list[Prediction], baseline: list[Prediction], seen_types: set[str] | None, seed: int
) -> dict[str, Any]:
    """Gain in F1 over a baseline, with its paired 95 % interval: on all queries, seen and held-out types.

    Only queries that both runs answered are compared.
    """
    both = {_place(line) for line in run} & {_place(line) for line in baseline}
    run, baseline = ([line for line in part if _place(line) in both] for part in (run, baseline))
    parts: dict[str, Callable[[list[Prediction]], list[Prediction]]] = {"all": lambda part: part}
    if seen_types is not None:
        parts["seen"] = lambda part: split_by_seen(part, seen_types)["seen"]
        parts["held_out"] = lambda part: split_by_seen(part, seen_types)["held_out"]
    gains: dict[str, Any] = {}
    for name, choose in parts.items():
        ours, theirs = choose(run), choose(baseline)
        for scorer in MAIN:
            scores = score(ours, scorer), score(theirs, scorer)
            if ours and all(scores):
                gains[f"{name}: {scorer}"] = {
                    "gain": scores[0]["f1"] - scores[1]["f1"],
                    "interval": bootstrap(ours, scorer, seed, theirs),
                }
    return gains


def _resampled(tables: list[Passages], seed: int) -> list[np.ndarray]:
    """F1 of each table over the same draws of passages."""
    passages = sorted(set.intersection(*(set(table) for table in tables)))
    draws = np.random.default_rng(seed).integers(0, len(passages), size=(RESAMPLES, len(passages)))
    values = []
    for table in tables:
        rows = np.array([(c.tp, c.n_pred, c.n_gold) for c in (table[passage] for passage in passages)])
        # rows summed by how often each was drawn: a draw of thousands of passages is no copy of them
        weights = np.array([np.bincount(draw, minlength=len(passages)) for draw in draws])
        counts = weights @ rows
        found = counts[:, 1] + counts[:, 2]
        values.append(np.divide(2.0 * counts[:, 0], found, out=np.zeros(RESAMPLES), where=found > 0))
    return values


def _place(line: Prediction) -> tuple[str, str, str]:
    return line["benchmark"], line["passage_id"], line["type"]
