"""Predictions to scores: micro-averaged counts, seen and unseen types, bootstrap intervals over passages."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from metrics.entity_f1.entity_f1 import Counts, f1_official, f1_strict, official_counts, strict_counts

RESAMPLES = 2000
Prediction = dict[str, Any]


def count(prediction: Prediction, scorer: str) -> Counts:
    """Counts of one predictions.jsonl line, a (passage, type) query, under `official` or `strict`."""
    if scorer == "official":
        return official_counts(prediction["raw"], prediction["gold"])
    spans = [{"start": s["start"], "end": s["end"], "type": prediction["type"]} for s in prediction["spans"]]
    gold = [{"start": start, "end": end, "type": prediction["type"]} for start, end in prediction["gold_spans"]]
    return strict_counts(spans, gold)


def score(predictions: Iterable[Prediction], scorer: str) -> dict[str, float] | None:
    """Precision, recall, F1 and counts over queries; None for `strict` where a query has no gold offsets."""
    predictions = list(predictions)
    if scorer == "strict" and any(prediction["gold_spans"] is None for prediction in predictions):
        predictions = [prediction for prediction in predictions if prediction["gold_spans"] is not None]
        if not predictions:
            return None
    total = sum((count(prediction, scorer) for prediction in predictions), Counts())
    return {"official": f1_official, "strict": f1_strict}[scorer](total)


def evaluate_benchmark(predictions: list[Prediction], seen_types: set[str] | None, seed: int) -> dict[str, Any]:
    """Everything results.json says of one benchmark's predictions."""
    result: dict[str, Any] = {
        "official": score(predictions, "official"),
        "strict": score(predictions, "strict"),
        "n_passages": len({prediction["passage_id"] for prediction in predictions}),
        "n_queries": len(predictions),
        "n_empty_gold": sum(prediction["gold"] == "[]" for prediction in predictions),
        "parse_failures": sum(prediction["parse_failure"] for prediction in predictions),
    }
    for scorer in ("official", "strict"):
        if result[scorer]:
            result[scorer]["interval"] = bootstrap(predictions, scorer, seed)
    if seen_types is not None:
        result["by_seen"] = {
            name: {scorer: score(part, scorer) for scorer in ("official", "strict")}
            for name, part in split_by_seen(predictions, seen_types).items()
            if part
        }
    return result


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
    tables = [_per_passage(run, scorer) for run in ([predictions] if baseline is None else [predictions, baseline])]
    passages = sorted(set.intersection(*(set(table) for table in tables)))
    draws = np.random.default_rng(seed).integers(0, len(passages), size=(RESAMPLES, len(passages)))
    values = []
    for table in tables:
        counts = np.array([table[passage] for passage in passages])[draws].sum(axis=1)
        found = counts[:, 1] + counts[:, 2]
        values.append(np.divide(2.0 * counts[:, 0], found, out=np.zeros(RESAMPLES), where=found > 0))
    gain = values[0] if baseline is None else values[0] - values[1]
    return [float(bound) for bound in np.percentile(gain, [2.5, 97.5])]


def compare(
    run: list[Prediction], baseline: list[Prediction], seen_types: set[str] | None, seed: int
) -> dict[str, Any]:
    """Gain in F1 over a baseline, with its paired 95 % interval: on all queries, seen and held-out types."""
    parts: dict[str, Callable[[list[Prediction]], list[Prediction]]] = {"all": lambda part: part}
    if seen_types is not None:
        parts["seen"] = lambda part: split_by_seen(part, seen_types)["seen"]
        parts["held_out"] = lambda part: split_by_seen(part, seen_types)["held_out"]
    gains: dict[str, Any] = {}
    for name, choose in parts.items():
        ours, theirs = choose(run), choose(baseline)
        for scorer in ("official", "strict"):
            scores = score(ours, scorer), score(theirs, scorer)
            if ours and all(scores):
                known = [
                    [p for p in part if scorer == "official" or p["gold_spans"] is not None] for part in (ours, theirs)
                ]
                gains[f"{name}: {scorer}"] = {
                    "gain": scores[0]["f1"] - scores[1]["f1"],
                    "interval": bootstrap(known[0], scorer, seed, known[1]),
                }
    return gains


def _per_passage(predictions: Iterable[Prediction], scorer: str) -> dict[tuple[str, str], tuple[int, int, int]]:
    table: dict[tuple[str, str], Counts] = {}
    for prediction in predictions:
        if scorer == "strict" and prediction["gold_spans"] is None:
            continue
        key = prediction["benchmark"], prediction["passage_id"]
        table[key] = table.get(key, Counts()) + count(prediction, scorer)
    return {key: (counts.tp, counts.n_pred, counts.n_gold) for key, counts in table.items()}
