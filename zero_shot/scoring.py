"""Score predictions with five scorers: overall, by type, by seen or held-out type, by wording; bootstrap intervals."""

import statistics
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, cast

import numpy as np

from hub.records import MAIN, SCORERS, BenchmarkScores, Gain, MeanScore, Paraphrases, Scorer, Scores
from metrics.entity_f1.entity_f1 import Counts, f1_official, f1_strict, official_counts, overlap_counts, strict_counts
from open_ner.conversation import Span

from .records import PredictionLine

RESAMPLES = 2000  # bootstrap draws
CountsByPassage = dict[tuple[str, str], Counts]  # by (benchmark, passage id)


def counts_by_passage(predictions: Iterable[PredictionLine], scorer: Scorer) -> CountsByPassage:
    """Count each passage over all its types; only `official` counts queries without gold offsets."""
    passages: dict[tuple[str, str], list[PredictionLine]] = defaultdict(list)
    for line in predictions:
        if scorer == "official" or line["gold_spans"] is not None:
            passages[line["benchmark"], line["passage_id"]].append(line)
    table: CountsByPassage = {}
    for passage, queries in passages.items():
        if scorer == "official":
            table[passage] = sum((official_counts(query["raw"], query["gold"]) for query in queries), Counts())
            continue
        found = [{"start": s["start"], "end": s["end"], "type": q["type"]} for q in queries for s in q["spans"]]
        gold = [{"start": a, "end": b, "type": q["type"]} for q in queries for a, b in q["gold_spans"] or []]
        table[passage] = strict_counts(found, gold) if scorer == "strict" else overlap_counts(found, gold)[scorer]
    return table


def f1(counts: Counts, scorer: Scorer) -> Scores:
    """Compute precision, recall and F1 by a scorer's formula."""
    return cast(Scores, f1_official(counts) if scorer == "official" else f1_strict(counts))


def score(predictions: Iterable[PredictionLine], scorer: Scorer) -> Scores | None:
    """Score queries; None if no query has the gold offsets that the scorer needs."""
    table = counts_by_passage(predictions, scorer)
    return f1(sum(table.values(), Counts()), scorer) if table or scorer == "official" else None


def evaluate_benchmark(predictions: list[PredictionLine], seen_types: set[str] | None, seed: int) -> BenchmarkScores:
    """Score the predictions on one benchmark; with `seen_types` (lower-cased), also by seen and held-out types."""
    scores: dict[Scorer, Scores | None] = {scorer: score(predictions, scorer) for scorer in SCORERS}
    by_type: dict[str, list[PredictionLine]] = defaultdict(list)
    for line in predictions:
        by_type[line["type"]].append(line)
    wrong, nothing = errors(predictions), {scorer: f1(Counts(), scorer) for scorer in MAIN}
    types: dict[str, Any] = {
        name: {**{scorer: score(part, scorer) or nothing[scorer] for scorer in MAIN}, "errors": wrong.get(name, {})}
        for name, part in sorted(by_type.items())
    }
    for scorer, found in scores.items():
        if found:
            found["interval"] = bootstrap(predictions, scorer, seed)
        if found and scorer in MAIN:
            of_types = [row[scorer]["f1"] for row in types.values() if row[scorer]["n_gold"]]
            found["macro_f1"] = sum(of_types) / len(of_types) if of_types else 0.0
    result: dict[str, Any] = {
        **scores, "n_passages": len({line["passage_id"] for line in predictions}), "n_queries": len(predictions),
        "n_empty_gold": sum(line["gold"] == "[]" for line in predictions),
        "parse_failures": sum(line["parse_failure"] for line in predictions), "per_type": types,
    }  # fmt: skip
    if seen_types is not None:
        parts = split_by_seen(predictions, seen_types)
        result["by_seen"] = {name: {s: score(part, s) for s in MAIN} for name, part in parts.items() if part}
    return cast(BenchmarkScores, result)


def errors(predictions: list[PredictionLine]) -> dict[str, dict[str, int]]:
    """Count, by type, the gold spans that were `missed` and the predicted spans that are wrong, by kind of error.

    `boundary`: overlaps a gold span of its type; `type`: equals a gold span of another type; `spurious`: neither.
    """
    gold: dict[tuple[str, str], set[Span]] = defaultdict(set)  # gold spans of each passage, of all types
    for line in predictions:
        gold[line["benchmark"], line["passage_id"]].update((a, b) for a, b in line["gold_spans"] or [])
    table: dict[str, dict[str, int]] = {}
    for line in predictions:
        if line["gold_spans"] is None:
            continue
        row = table.setdefault(line["type"], {"missed": 0, "boundary": 0, "type": 0, "spurious": 0})
        own = {(a, b) for a, b in line["gold_spans"]}
        found = {(span["start"], span["end"]) for span in line["spans"]}
        row["missed"] += len(own - found)
        for start, end in found - own:
            overlaps = any(a < end and start < b for a, b in own)
            is_other = (start, end) in gold[line["benchmark"], line["passage_id"]]
            row["boundary" if overlaps else "type" if is_other else "spurious"] += 1
    return table


def split_by_seen(predictions: Iterable[PredictionLine], seen_types: set[str]) -> dict[str, list[PredictionLine]]:
    """Split queries by whether their type is in the training set; names are lower-cased."""
    parts: dict[str, list[PredictionLine]] = {"seen": [], "held_out": []}
    for line in predictions:
        parts["seen" if line["type"].lower() in seen_types else "held_out"].append(line)
    return parts


def bootstrap(
    predictions: list[PredictionLine], scorer: Scorer, seed: int, reference: list[PredictionLine] | None = None
) -> list[float]:
    """Compute the 95 % bootstrap interval of F1 over passages, or of the gain over `reference`.

    Both runs are resampled with the same passages (paired bootstrap, Koehn 2004).
    """
    runs = [predictions] if reference is None else [predictions, reference]
    values = resample([counts_by_passage(run, scorer) for run in runs], seed)
    return interval(values[0] if reference is None else values[0] - values[1])


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
    run: list[PredictionLine], reference: list[PredictionLine], seen_types: set[str] | None, seed: int
) -> dict[str, Gain]:
    """Compute the gain in F1 over a reference, with its paired 95 % interval, on all, seen and held-out types.

    Only queries in both runs are compared, and only those that ask a type by its own name.
    """
    ours, theirs = (
        {(line["benchmark"], line["passage_id"], line["type"]): line for line in lines if "asked" not in line}
        for lines in (run, reference)
    )
    both = [query for query in ours if query in theirs]
    run, reference = [ours[query] for query in both], [theirs[query] for query in both]
    parts = {"all": (run, reference)}
    if seen_types is not None:
        split, other = split_by_seen(run, seen_types), split_by_seen(reference, seen_types)
        parts |= {name: (split[name], other[name]) for name in split}
    gains: dict[str, Gain] = {}
    for name, (lines, others) in parts.items():
        for scorer in MAIN:
            found, before = score(lines, scorer), score(others, scorer)
            if lines and found and before:
                bounds = bootstrap(lines, scorer, seed, others)
                gains[f"{name}: {scorer}"] = {"gain": found["f1"] - before["f1"], "interval": bounds}
    return gains


def paraphrases(lines: list[PredictionLine]) -> Paraphrases | None:
    """Compute F1 by wording on one benchmark, by type and for all types, and its spread (Figure 7 of the paper).

    Wording 0 is the type's own name. Row k of `wordings` pools wording k of all types, so rows differ only in the
    wording. Only types with several wordings count; None if there are no such types.
    """
    by_type: dict[str, dict[int, list[PredictionLine]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        by_type[line["type"]][line.get("wording", 0)].append(line)
    by_type = {name: rows for name, rows in by_type.items() if len(rows) > 1}
    if not by_type:
        return None

    def scores(part: list[PredictionLine]) -> dict[Scorer, Scores]:
        return {scorer: found for scorer in MAIN if (found := score(part, scorer))}

    def spread(wordings: list[dict[Scorer, Scores]]) -> dict[Scorer, dict[str, float] | None]:
        result: dict[Scorer, dict[str, float] | None] = {}
        for scorer in MAIN:
            f1 = [own[scorer]["f1"] for own in wordings if scorer in own]
            numbers = {"mean": statistics.mean, "std": statistics.pstdev, "min": min, "max": max}
            result[scorer] = {name: f(f1) for name, f in numbers.items()} if len(f1) == len(wordings) else None
        return result

    numbers = sorted(set.intersection(*map(set, by_type.values())))
    pooled = [scores([line for rows in by_type.values() for line in rows[number]]) for number in numbers]
    types: dict[str, dict[str, Any]] = {}
    for name, rows in sorted(by_type.items()):
        own = {rows[number][0].get("asked", name): scores(rows[number]) for number in sorted(rows)}
        types[name] = {"wordings": own, "spread": spread(list(own.values()))}
    return {"wordings": pooled, "spread": spread(pooled), "types": types}


def resample(tables: list[CountsByPassage], seed: int) -> list[np.ndarray]:
    """Return `RESAMPLES` bootstrap draws of the F1 of each table, over the same draws of passages."""
    passages = sorted(set.intersection(*(set(table) for table in tables)))
    rows = [np.array([(c.tp, c.n_pred, c.n_gold) for c in (table[p] for p in passages)]) for table in tables]
    rng, sums = np.random.default_rng(seed), []
    for _ in range(RESAMPLES):
        draw = rng.integers(0, len(passages), size=len(passages))
        times = np.bincount(draw, minlength=len(passages))  # how often each passage was drawn
        sums.append([times @ own for own in rows])
    tp, n_pred, n_gold = np.moveaxis(np.array(sums), -1, 0)  # each of shape (draws, tables)
    total = n_pred + n_gold
    return list(np.divide(2.0 * tp, total, out=np.zeros(total.shape), where=total > 0).T)


def interval(values: np.ndarray) -> list[float]:
    """Return the 95 % interval of bootstrap draws."""
    return [float(bound) for bound in np.percentile(values, [2.5, 97.5])]
