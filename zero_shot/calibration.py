"""Are the scores honest? Expected calibration error, reliability, risk by coverage, and the fit that corrects them.

    python -m zero_shot.calibration --predictions runs/x/results/MODEL/SUITE/predictions.jsonl --model runs/x/model

fits the temperature and the bias of `open_ner.answers.calibrate` on the spans of a predictions file, and saves them in
the model's config, where `pipeline("open-ner")` finds them. Use predictions on the held-out part of the distilled
data, never on a benchmark that is reported. `--dry_run` only prints.
"""

import argparse
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np

from command_line.plotting import COLORS, GREY, LIGHT_GREY, new_figure, save
from command_line.pretrained import load_or_explain
from hub.records import Calibration, Reliability
from open_ner.answers import calibrate
from open_ner.tools.errors import UserError, run
from open_ner.tools.files import write_atomic

from .records import PredictionLine, read_predictions

BINS = 10
LEAST = 1e-6  # scores are written with six decimals, so they are clipped to this distance from 0 and 1


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


def fit(scores: np.ndarray, right: np.ndarray, with_bias: bool = True) -> dict[str, float]:
    """Fit temperature and bias by maximum likelihood of the spans; without `with_bias` the bias is 0.

    Both are bounded, and the temperature is positive, so calibrated scores keep their order. Raises UserError if the
    spans are all right or all wrong.
    """
    from scipy.optimize import minimize

    if len(set(right.tolist())) < 2:
        raise UserError(f"{len(right)} spans, {right.sum()} of them right: a fit needs right and wrong ones")
    clipped = np.clip(scores, LEAST, 1 - LEAST)
    logits, sign = np.log(clipped) - np.log1p(-clipped), np.where(right, 1.0, -1.0)

    def loss(parameters: np.ndarray) -> float:
        slope, bias = np.exp(-parameters[0]), parameters[1]
        return float(np.logaddexp(0.0, -sign * (logits * slope + bias)).mean())

    bounds = [tuple(np.log((0.05, 20.0))), (-10.0, 10.0) if with_bias else (0.0, 0.0)]
    best = minimize(loss, np.zeros(2), method="L-BFGS-B", bounds=bounds)
    return {"temperature": round(float(np.exp(best.x[0])), 4), "bias": round(float(best.x[1]), 4)}


def reliability(scores: np.ndarray, right: np.ndarray) -> list[dict[str, float]]:
    """Compute the mean score and the share of right spans in each non-empty one of ten bins of equal width."""
    places = np.minimum((scores * BINS).astype(int), BINS - 1)
    return [
        {"n": int(own.sum()), "score": float(scores[own].mean()), "precision": float(right[own].mean())}
        for place in range(BINS)
        if (own := places == place).any()
    ]


def expected_error(scores: np.ndarray, right: np.ndarray) -> float:
    """Compute the expected calibration error (Guo et al. 2017): |score - precision| averaged over spans, by bin."""
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


def cross_fitted(predictions: list[PredictionLine], with_bias: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Calibrate the scores of each half of the passages by a fit on the other half, as `scored_spans` returns them.

    A fit must be judged on these: on the spans it was fitted on, its error would be too low.
    """
    halves: list[list[PredictionLine]] = [[], []]
    for line in predictions:
        place = f"{line['benchmark']}/{line['passage_id']}".encode()
        halves[hashlib.sha256(place).digest()[0] % 2].append(line)
    all_scores, all_right = [], []
    for fitted_on, own in (halves, halves[::-1]):
        parameters = fit(*scored_spans(fitted_on), with_bias=with_bias)
        scores, right = scored_spans(own)
        all_scores.append(np.array([calibrate(score, **parameters) for score in scores]))
        all_right.append(right)
    return np.concatenate(all_scores), np.concatenate(all_right)


def describe(predictions: list[PredictionLine], temperature: float = 1.0, bias: float = 0.0) -> Calibration | None:
    """Describe the calibration of a run, raw and with the given fit; None if no span has a score."""
    scores, right = scored_spans(predictions)
    if not len(scores):
        return None

    def measure(values: np.ndarray) -> Reliability:
        return {
            "ece": expected_error(values, right),
            "brier": float(((values - right) ** 2).mean()),
            "reliability": reliability(values, right),
        }

    return {
        "n_spans": len(scores),
        "precision": float(right.mean()),
        "temperature": temperature,
        "bias": bias,
        "risk_coverage": risk_coverage(scores, right),
        "raw": measure(scores),
        "calibrated": measure(np.array([calibrate(score, temperature, bias) for score in scores])),
    }


def plot(runs: dict[str, Calibration], path: Path) -> None:
    """Draw reliability, raw and calibrated if a fit is saved, and risk by coverage, of each run by its name."""
    figure = new_figure(9, 4.2)
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color=LIGHT_GREY, linewidth=0.8)
    for number, (name, result) in enumerate(runs.items()):
        color = (*COLORS, GREY)[number % 5]
        ways: list[tuple[Literal["raw", "calibrated"], str]] = [("raw", "-o")]
        if (result["temperature"], result["bias"]) != (1.0, 0.0):
            ways = [("calibrated", "-o"), ("raw", ":x")]
        for way, style in ways:
            rows = result[way]["reliability"]
            points = [row["score"] for row in rows], [row["precision"] for row in rows]
            label = f"{name}, {way}: ECE {result[way]['ece']:.3f}"
            left.plot(*points, style, color=color, markersize=4, label=label)
        curve = result["risk_coverage"]
        right.plot([row["coverage"] for row in curve], [row["risk"] for row in curve], color=color, label=name)
    left.set(xlabel="score", ylabel="share of right spans", title="Reliability", xlim=(0, 1), ylim=(0, 1))
    right.set(xlabel="share of spans kept", ylabel="share of wrong spans", title="Risk by coverage")
    right.set(xlim=(0, 1), ylim=(0, 1))
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    save(figure, path)


def read_saved(name: str) -> dict[str, float]:
    """Read the temperature and bias saved with a model; 1 and 0 if it was not calibrated."""
    from transformers import AutoConfig

    saved = getattr(load_or_explain(AutoConfig, name), "open_ner", None) or {}
    return {"temperature": saved.get("temperature", 1.0), "bias": saved.get("bias", 0.0)}


def main() -> None:
    """Fit temperature and bias on predictions, and save them in the model's config."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictions", type=Path, required=True, help="predictions.jsonl on held-out distilled data")
    parser.add_argument("--model", type=Path, required=True, help="the student's folder; its config.json is changed")
    parser.add_argument("--figure", type=Path, help="write the reliability plot there")
    parser.add_argument("--dry_run", action="store_true", help="print the fit and save nothing")
    args = parser.parse_args()

    try:
        config = json.loads((args.model / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--model {args.model}: not a student's folder ({error})") from None
    lines = read_predictions(args.predictions)
    if unscored := sum(span["score"] is None for line in lines for span in line["spans"]):
        print(f"{unscored} spans have no score and are left out")
    if not len(scored_spans(lines)[0]):
        raise UserError(f"{args.predictions}: 0 spans have a score, so there is nothing to fit")
    fitted = fit(*scored_spans(lines))
    result = describe(lines, **fitted)
    assert result is not None  # fit() raises if there are no spans
    alone, both = (expected_error(*cross_fitted(lines, with_bias)) for with_bias in (False, True))
    print(
        f"{result['n_spans']} spans, {100 * result['precision']:.1f} % right; temperature {fitted['temperature']}, "
        f"bias {fitted['bias']}\nexpected calibration error {result['raw']['ece']:.3f} raw; fitted on one half of the "
        f"passages and measured on the other {both:.3f}, with a temperature alone {alone:.3f}"
    )
    if args.figure:
        plot({args.model.name: result}, args.figure)
    if not args.dry_run:
        config["open_ner"] = {**config.get("open_ner", {}), **fitted}
        write_atomic(args.model / "config.json", json.dumps(config, indent=2) + "\n")
        print(f"saved in {args.model / 'config.json'}")


if __name__ == "__main__":
    run(main)
