"""Predictions to scores: five scorers, by type, seen and held-out types, bootstrap intervals over passages."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Literal, cast

import numpy as np

from hub.records import SCORERS, BenchmarkScores, Gain, MeanScore, Scorer, Scores, TypeResult
from metrics.entity_f1.entity_f1 import Counts, f1_official, f1_strict, official_counts, overlap_counts, strict_counts

from .records import PredictionLine

MAIN: tuple[Literal["official", "strict"], ...] = ("official", "strict")
RESAMPLES, BLOCK = 2000, 50  # draws in all, and at a time
CountsByPassage = dict[tuple[str, str], Counts]  # by (benchmark, passage id)


def counts_by_passage(predictions: Iterable[PredictionLine], scorer: Scorer) -> CountsByPassage:
    """Count each passage over all its types; only `official` counts queries without gold offsets."""
    if scorer == "official":
        return {
            key: sum((official_counts(query["raw"], query["gold"]) for query in queries), Counts())
            for key, queries in _by_passage(predictions).items()
        }
    table: CountsByPassage = {}
    for key, queries in _by_passage(p for p in predictions if p["gold_spans"] is not None).items():
        found = [{"start": s["start"], "end": s["end"], "type": q["type"]} for q in queries for s in q["spans"]]
        gold = [{"start": a, "end": b, "type": q["type"]} for q in queries for a, b in q["gold_spans"] or []]
        table[key] = strict_counts(found, gold) if scorer == "strict" else overlap_counts(found, gold)[scorer]
    return table


def f1(counts: Counts, scorer: Scorer) -> Scores:
    """Compute precision, recall and F1 by a scorer's formula."""
    return cast(Scores, f1_official(counts) if scorer == "official" else f1_strict(counts))


def score(predictions: Iterable[PredictionLine], scorer: Scorer) -> Scores | None:
    """Score queries; None if no query has the gold that the scorer compares with."""
    table = counts_by_passage(predictions, scorer)
    return f1(sum(table.values(), Counts()), scorer) if table or scorer == "official" else None


def evaluate_benchmark(predictions: list[PredictionLine], seen_types: set[str] | None, seed: int) -> BenchmarkScores:
    """Score the predictions on one benchmark; with `seen_types`, seen and held-out types separately too."""
    scores: dict[Scorer, Scores | None] = {scorer: score(predictions, scorer) for scorer in SCORERS}
    types = per_type(predictions)
    for scorer, found in scores.items():
        if found:
            found["interval"] = bootstrap(predictions, scorer, seed)
        if found and scorer in MAIN:
            of_types = [row[scorer]["f1"] for row in types.values() if row[scorer]["n_gold"]]
            found["macro_f1"] = sum(of_types) / len(of_types) if of_types else 0.0
    result: dict[str, Any] = {
        **scores,
        "n_passages": len({prediction["passage_id"] for prediction in predictions}),
        "n_queries": len(predictions),
        "n_empty_gold": sum(prediction["gold"] == "[]" for prediction in predictions),
        "parse_failures": sum(prediction["parse_failure"] for prediction in predictions),
        "per_type": types,
    }
    if seen_types is not None:
        result["by_seen"] = {
            name: {"official": score(part, "official"), "strict": score(part, "strict")}
            for name, part in split_by_seen(predictions, seen_types).items()
            if part
        }
    return cast(BenchmarkScores, result)


def per_type(predictions: list[PredictionLine]) -> dict[str, TypeResult]:
    """Score each type under the main scorers, and count its errors."""
    by_type: dict[str, list[PredictionLine]] = defaultdict(list)
    for prediction in predictions:
        by_type[prediction["type"]].append(prediction)
    wrong = errors(predictions)
    return {
        name: {
            "official": score(part, "official") or f1(Counts(), "official"),
            "strict": score(part, "strict") or f1(Counts(), "strict"),
            "errors": wrong.get(name, {}),
        }
        for name, part in sorted(by_type.items())
    }


def errors(predictions: Iterable[PredictionLine]) -> dict[str, dict[str, int]]:
    """Count, by type, the gold spans that were `missed` and the predicted spans that are wrong, by kind of error.

    `boundary`: overlaps a gold span of its type; `type`: equals a gold span of another type; `spurious`: neither.
    """
    table: dict[str, dict[str, int]] = {}
    for queries in _by_passage(p for p in predictions if p["gold_spans"] is not None).values():
        gold = {(a, b, query["type"]) for query in queries for a, b in query["gold_spans"] or []}
        for query in queries:
            name = query["type"]
            row = table.setdefault(name, {"missed": 0, "boundary": 0, "type": 0, "spurious": 0})
            own = {(a, b) for a, b, kind in gold if kind == name}
            found = {(span["start"], span["end"]) for span in query["spans"]}
            row["missed"] += len(own - found)
            for start, end in found - own:
                overlaps = any(a < end and start < b for a, b in own)
                is_other = any((start, end) == (a, b) for a, b, _ in gold)
                row["boundary" if overlaps else "type" if is_other else "spurious"] += 1
    return table


def split_by_seen(predictions: Iterable[PredictionLine], seen_types: set[str]) -> dict[str, list[PredictionLine]]:
    """Split queries into types of the training set and held-out types, by lower-cased name."""
    parts: dict[str, list[PredictionLine]] = {"seen": [], "held_out": []}
    for prediction in predictions:
        parts["seen" if prediction["type"].lower() in seen_types else "held_out"].append(prediction)
    return parts


def bootstrap(
    predictions: list[PredictionLine], scorer: Scorer, seed: int, baseline: list[PredictionLine] | None = None
) -> list[float]:
    """Compute the 95 % bootstrap interval of F1 over passages, or of the gain over `baseline`.

    Both runs are resampled with the same passages (paired bootstrap, Koehn 2004).
    """
    runs = [predictions] if baseline is None else [predictions, baseline]
    values = resample([counts_by_passage(run, scorer) for run in runs], seed)
    return interval(values[0] if baseline is None else values[0] - values[1])


def average(by_benchmark: dict[str, list[PredictionLine]], seed: int) -> dict[Scorer, MeanScore]:
    """Compute the mean F1 of several benchmarks under each scorer that all of them have, with its 95 % interval.

    Passages are resampled within each benchmark.
    """
    result: dict[Scorer, MeanScore] = {}
    for scorer in SCORERS:
        tables = [counts_by_passage(part, scorer) for part in by_benchmark.values()]
        if all(tables):
            values = np.mean([resample([table], seed + number)[0] for number, table in enumerate(tables)], axis=0)
            each = [f1(sum(table.values(), Counts()), scorer)["f1"] for table in tables]
            result[scorer] = {"f1": sum(each) / len(each), "interval": interval(values)}
    return result


def compare(
    run: list[PredictionLine], baseline: list[PredictionLine], seen_types: set[str] | None, seed: int
) -> dict[str, Gain]:
    """Compute the gain in F1 over a baseline, with its paired 95 % interval, on all, seen and held-out types.

    Only queries in both runs are compared, and only those that ask a type by its own name.
    """
    run, baseline = ([line for line in part if "asked" not in line] for part in (run, baseline))
    both = set(map(_place, run)) & set(map(_place, baseline))
    run, baseline = ([line for line in part if _place(line) in both] for part in (run, baseline))
    parts = {"all": (run, baseline)}
    if seen_types is not None:
        ours, theirs = split_by_seen(run, seen_types), split_by_seen(baseline, seen_types)
        parts |= {name: (ours[name], theirs[name]) for name in ours}
    gains: dict[str, Gain] = {}
    for name, (ours, theirs) in parts.items():
        for scorer in MAIN:
            our_scores, their_scores = score(ours, scorer), score(theirs, scorer)
            if ours and our_scores and their_scores:
                gains[f"{name}: {scorer}"] = {
                    "gain": our_scores["f1"] - their_scores["f1"],
                    "interval": bootstrap(ours, scorer, seed, theirs),
                }
    return gains


def _by_passage(predictions: Iterable[PredictionLine]) -> dict[tuple[str, str], list[PredictionLine]]:
    grouped: dict[tuple[str, str], list[PredictionLine]] = defaultdict(list)
    for prediction in predictions:
        grouped[prediction["benchmark"], prediction["passage_id"]].append(prediction)
    return grouped


def resample(tables: list[CountsByPassage], seed: int) -> list[np.ndarray]:
    """Return `RESAMPLES` bootstrap draws of the F1 of each table, over the same draws of passages."""
    passages = sorted(set.intersection(*(set(table) for table in tables)))
    rows = [np.array([(c.tp, c.n_pred, c.n_gold) for c in (table[p] for p in passages)]) for table in tables]
    rng, sums = np.random.default_rng(seed), []
    for _ in range(0, RESAMPLES, BLOCK):  # all draws at once would take gigabytes
        draws = rng.integers(0, len(passages), size=(BLOCK, len(passages)))
        # how often each passage was drawn: a matrix product then sums the counts, without a copy of the rows per draw
        weights = np.array([np.bincount(draw, minlength=len(passages)) for draw in draws])
        sums.append([weights @ own for own in rows])
    values = []
    for counts in map(np.concatenate, zip(*sums, strict=True)):
        found = counts[:, 1] + counts[:, 2]
        values.append(np.divide(2.0 * counts[:, 0], found, out=np.zeros(RESAMPLES), where=found > 0))
    return values


def interval(values: np.ndarray) -> list[float]:
    """Return the 95 % interval of bootstrap draws."""
    return [float(bound) for bound in np.percentile(values, [2.5, 97.5])]


def _place(line: PredictionLine) -> tuple[str, str, str]:
    return line["benchmark"], line["passage_id"], line["type"]
