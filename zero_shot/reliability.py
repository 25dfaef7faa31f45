"""Measure the calibration of span scores: expected calibration error, reliability, and risk by coverage."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from command_line.plotting import COLORS, GREY, LIGHT_GREY, new_figure, save
from hub.records import Calibration, Reliability
from open_ner.answers import calibrate

from .records import PredictionLine

BINS = 10


def scored_spans(predictions: Iterable[PredictionLine]) -> tuple[np.ndarray, np.ndarray]:
    """Return the score of every predicted span that has one, and whether the span is right.

    Queries without gold offsets do not count.
    """
    found = [
        (span["score"], [span["start"], span["end"]] in [list(gold) for gold in line["gold_spans"]])
        for line in predictions
        if line["gold_spans"] is not None
        for span in line["spans"]
        if span["score"] is not None
    ]
    scores, right = zip(*found, strict=True) if found else ((), ())
    return np.array(scores, dtype=float), np.array(right, dtype=bool)


def reliability(scores: np.ndarray, right: np.ndarray) -> list[dict[str, float]]:
    """Compute the mean score and the share of right spans in each non-empty one of ten bins of equal width."""
    places = np.minimum((scores * BINS).astype(int), BINS - 1)
    return [
        {"n": int(own.sum()), "score": float(scores[own].mean()), "precision": float(right[own].mean())}
        for place in range(BINS)
        if (own := places == place).any()
    ]


def expected_error(scores: np.ndarray, right: np.ndarray) -> float:
    """Compute the expected calibration error (Guo et al. 2017): |score - precision| of each bin, weighted by spans."""
    return sum(row["n"] * abs(row["score"] - row["precision"]) for row in reliability(scores, right)) / len(scores)


def risk_coverage(scores: np.ndarray, right: np.ndarray) -> list[dict[str, float]]:
    """Compute the share of wrong spans among the 5, 10, ... 100 % with the highest scores, and their lowest score."""
    order = np.argsort(-scores, kind="stable")
    wrong = np.cumsum(~right[order])
    kept = sorted({max(1, round(len(scores) * part / 20)) for part in range(1, 21)})
    return [
        {"coverage": n / len(scores), "risk": float(wrong[n - 1] / n), "threshold": float(scores[order[n - 1]])}
        for n in kept
    ]


def describe(predictions: list[PredictionLine], temperature: float = 1.0, bias: float = 0.0) -> Calibration | None:
    """Describe the calibration of a run, raw and with the given fit; None if no span has a score."""
    scores, right = scored_spans(predictions)
    if not len(scores):
        return None
    calibrated = np.array([calibrate(score, temperature, bias) for score in scores])
    measured: dict[str, Reliability] = {
        way: {
            "ece": expected_error(values, right),
            "brier": float(((values - right) ** 2).mean()),
            "reliability": reliability(values, right),
        }
        for way, values in (("raw", scores), ("calibrated", calibrated))
    }
    return {
        "n_spans": len(scores), "precision": float(right.mean()), "temperature": temperature, "bias": bias,
        "risk_coverage": risk_coverage(scores, right),
        "raw": measured["raw"], "calibrated": measured["calibrated"],
    }  # fmt: skip


def plot(runs: Sequence[tuple[str, Calibration | None]], path: Path) -> None:
    """Draw reliability (raw, and calibrated if a fit is saved) and risk by coverage of `(name, calibration)` pairs.

    Runs without scores are left out; nothing is drawn if no run has scores.
    """
    scored = [(name, result) for name, result in runs if result]
    if not scored:
        return
    figure = new_figure(9, 4.2)
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color=LIGHT_GREY, linewidth=0.8)
    for number, (name, result) in enumerate(scored):
        color = (*COLORS, GREY)[number % 5]
        ways: list[tuple[Literal["raw", "calibrated"], str]] = [("raw", "-o")]
        if (result["temperature"], result["bias"]) != (1.0, 0.0):
            ways = [("calibrated", "-o"), ("raw", ":x")]
        for way, style in ways:
            rows = result[way]["reliability"]
            x, y = ([row[key] for row in rows] for key in ("score", "precision"))
            left.plot(x, y, style, color=color, markersize=4, label=f"{name}, {way}: ECE {result[way]['ece']:.3f}")
        curve = result["risk_coverage"]
        right.plot([row["coverage"] for row in curve], [row["risk"] for row in curve], color=color, label=name)
    left.set(xlabel="score", ylabel="share of right spans", title="Reliability", xlim=(0, 1), ylim=(0, 1))
    right.set(xlabel="share of spans kept", ylabel="share of wrong spans", title="Risk by coverage")
    right.set(xlim=(0, 1), ylim=(0, 1))
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    save(figure, path)
