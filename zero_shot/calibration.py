"""Are the scores honest? Expected calibration error, reliability, risk by coverage, and the fit that mends them.

    python -m zero_shot.calibration --predictions runs/x/results/MODEL/SUITE/predictions.jsonl --model runs/x/model

fits the temperature and the bias of `open_ner.answers.calibrate` on the spans of a predictions file and saves them in
the model's config, where `pipeline("open-ner")` finds them. The predictions are those of the held-out part of the
distilled data, never of a benchmark that is reported. `--dry_run` only prints.
"""

import argparse
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from command_line.pretrained import load_or_explain
from open_ner.answers import calibrate
from open_ner.tools.errors import UserError, run

BINS = 10
LEAST = 1e-6  # scores are written with six decimals: nearer to 0 or 1 than this nothing is known
TEMPERATURES = (0.05, 20.0)
BIASES = (-10.0, 10.0)
Pairs = tuple[np.ndarray, np.ndarray]


def pairs(predictions: Iterable[dict[str, Any]]) -> Pairs:
    """The score of every predicted span, and whether it is a gold span; queries without gold offsets are left out."""
    found = [
        (span["score"], [span["start"], span["end"]] in [list(gold) for gold in line["gold_spans"]])
        for line in predictions
        if line["gold_spans"] is not None
        for span in line["spans"]
    ]
    scores, right = zip(*found, strict=True) if found else ((), ())
    return np.array(scores, dtype=float), np.array(right, dtype=bool)


def fit(scores: np.ndarray, right: np.ndarray, with_bias: bool = True) -> dict[str, float]:
    """The temperature and the bias under which the spans are likeliest; the bias is 0 where it is not fitted.

    Both are bounded, and the temperature is positive, so that calibrated scores keep their order. Raises UserError
    where the spans are all right or all wrong: nothing can be fitted on them.
    """
    from scipy.optimize import minimize

    if len(set(right.tolist())) < 2:
        raise UserError(f"{len(right)} spans, {right.sum()} of them right: a fit needs right and wrong ones")
    logits, sign = _logits(scores), np.where(right, 1.0, -1.0)

    def loss(parameters: np.ndarray) -> float:
        slope, bias = np.exp(-parameters[0]), parameters[1]
        return float(np.logaddexp(0.0, -sign * (logits * slope + bias)).mean())

    bounds = [tuple(np.log(TEMPERATURES)), BIASES if with_bias else (0.0, 0.0)]
    best = minimize(loss, np.zeros(2), method="L-BFGS-B", bounds=bounds)
    return {"temperature": round(float(np.exp(best.x[0])), 4), "bias": round(float(best.x[1]), 4)}


def reliability(scores: np.ndarray, right: np.ndarray) -> list[dict[str, float]]:
    """The mean score and the share of right spans in each of ten bins of equal width that holds any."""
    places = np.minimum((scores * BINS).astype(int), BINS - 1)
    return [
        {
            "n": int(own.sum()),
            "score": float(scores[own].mean()),
            "precision": float(right[own].mean()),
        }
        for place in range(BINS)
        if (own := places == place).any()
    ]


def expected_error(scores: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error (Guo et al. 2017): the mean distance of score and precision, by size of bin."""
    return sum(row["n"] * abs(row["score"] - row["precision"]) for row in reliability(scores, right)) / len(scores)


def risk_coverage(scores: np.ndarray, right: np.ndarray) -> list[dict[str, float]]:
    """The share of wrong spans among the surest, where 5, 10, ... 100 % of all are kept, and the score they reach."""
    order = np.argsort(-scores, kind="stable")
    wrong = np.cumsum(~right[order])
    kept = sorted({max(1, round(len(scores) * part / 20)) for part in range(1, 21)})
    return [
        {"coverage": n / len(scores), "risk": float(wrong[n - 1] / n), "threshold": float(scores[order[n - 1]])}
        for n in kept
    ]


def cross_fitted(predictions: list[dict[str, Any]], with_bias: bool = True) -> Pairs:
    """Calibrated scores, each by a fit on the half of the passages that its own is not in, and which spans are right.

    What a fit is worth is measured on these: on the spans it was fitted on it would flatter itself.
    """
    halves: list[list[dict[str, Any]]] = [[], []]
    for line in predictions:
        place = f"{line['benchmark']}/{line['passage_id']}".encode()
        halves[hashlib.sha256(place).digest()[0] % 2].append(line)
    measured = []
    for fitted_on, own in (halves, halves[::-1]):
        parameters = fit(*pairs(fitted_on), with_bias=with_bias)
        scores, right = pairs(own)
        measured.append((np.array([calibrate(score, **parameters) for score in scores]), right))
    return tuple(np.concatenate(parts) for parts in zip(*measured, strict=True))


def describe(predictions: list[dict[str, Any]], temperature: float = 1.0, bias: float = 0.0) -> dict[str, Any] | None:
    """The calibration of a run as results.json has it, raw and by the model's own fit; None without scored spans."""
    scores, right = pairs(predictions)
    if not len(scores):
        return None
    ways = {"raw": scores, "calibrated": np.array([calibrate(score, temperature, bias) for score in scores])}
    return {
        "n_spans": len(scores),
        "precision": float(right.mean()),
        "temperature": temperature,
        "bias": bias,
        "risk_coverage": risk_coverage(scores, right),
        **{
            name: {
                "ece": expected_error(values, right),
                "brier": float(((values - right) ** 2).mean()),
                "reliability": reliability(values, right),
            }
            for name, values in ways.items()
        },
    }


def plot(runs: dict[str, dict[str, Any]], path: Path) -> None:
    """Reliability, raw and where a fit is saved calibrated, and risk by coverage, of each run by its name."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
    left.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=0.8)
    for number, (name, result) in enumerate(runs.items()):
        color = ["#3b6fb6", "#c8553d", "#4f8a5b", "#8c6bb1", "#a9b4c2"][number % 5]
        is_fitted = (result["temperature"], result["bias"]) != (1.0, 0.0)
        ways = {"calibrated": "-o", "raw": ":x"} if is_fitted else {"raw": "-o"}
        for way, style in ways.items():
            rows = result[way]["reliability"]
            points = [row["score"] for row in rows], [row["precision"] for row in rows]
            label = f"{name}, {way}: ECE {result[way]['ece']:.3f}"
            left.plot(*points, style, color=color, markersize=4, label=label)
        curve = result["risk_coverage"]
        right.plot([row["coverage"] for row in curve], [row["risk"] for row in curve], color=color, label=name)
    left.set(xlabel="score", ylabel="share of right spans", title="Reliability", xlim=(0, 1), ylim=(0, 1))
    right.set(xlabel="share of spans kept", ylabel="share of wrong spans", title="Risk by coverage", xlim=(0, 1))
    right.set_ylim(0, 1)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def read_saved(name: str) -> dict[str, float]:
    """The temperature and bias that are saved with a model, those of no calibration where it has none."""
    from transformers import AutoConfig

    saved = getattr(load_or_explain(AutoConfig, name), "open_ner", None) or {}
    return {"temperature": saved.get("temperature", 1.0), "bias": saved.get("bias", 0.0)}


def read_config(model: Path) -> dict[str, Any]:
    """A local student's config.json."""
    try:
        return json.loads((model / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--model {model}: not a student's folder ({error})") from None


def read_predictions(path: Path) -> list[dict[str, Any]]:
    """The lines of a predictions.jsonl."""
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        pairs(lines)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a predictions.jsonl of eval_zero_shot.py ({error!r:.120})") from None
    return lines


def main() -> None:
    """Fit on predictions and save to the model's config."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictions", type=Path, required=True, help="predictions.jsonl on held-out distilled data")
    parser.add_argument("--model", type=Path, required=True, help="the student's folder; its config.json is changed")
    parser.add_argument("--figure", type=Path, help="write the reliability plot there")
    parser.add_argument("--dry_run", action="store_true", help="print the fit and save nothing")
    args = parser.parse_args()

    config, lines = read_config(args.model), read_predictions(args.predictions)
    fitted = fit(*pairs(lines))
    result = describe(lines, **fitted)
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
        (args.model / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        print(f"saved in {args.model / 'config.json'}")


def _logits(scores: np.ndarray) -> np.ndarray:
    clipped = np.clip(scores, LEAST, 1 - LEAST)
    return np.log(clipped) - np.log1p(-clipped)


if __name__ == "__main__":
    run(main)
