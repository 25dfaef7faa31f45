"""Fit a student's calibration: temperature and bias of its scores, presence bias and threshold.

    python -m zero_shot.calibration --predictions runs/held_out/MODEL/SUITE/predictions.jsonl --model runs/my-model

This reads predictions of the decoding `free`. It fits the temperature and the bias of `open_ner.answers.calibrate`,
and the presence bias and the threshold that give the best strict F1 with the decoding `flat`. It saves all four in the
model's config, where `pipeline("open-ner")` finds them. Use predictions on the validation split of your dataset (the
suite recipes/eval/held_out.yaml) or on a benchmark of your own, never on a benchmark whose scores you report.
`--dry_run` prints the values without saving them.
"""

import argparse
import hashlib
import json
import re
from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path
from typing import TypedDict

import numpy as np

from hub.records import RunResults
from open_ner.answers import Entity, calibrate
from open_ner.conversation import write_mentions
from open_ner.selection import Selection
from open_ner.tools.errors import UserError, run
from open_ner.tools.files import read_json, write_atomic

from .records import PredictedSpan, PredictionLine, read_predictions, read_results
from .reliability import describe, expected_error, plot, scored_spans
from .scoring import score

LEAST = 1e-6  # scores are written with six decimals, so they are clipped to this distance from 0 and 1
COMMIT = re.compile("[0-9a-f]{40}")  # revision of a Hub model; that of a folder is a shorter hash
CUTS = 20  # number of presence bounds to try: quantiles over the answered queries


class Fit(TypedDict):
    """Calibration of scores: the arguments of `open_ner.answers.calibrate`."""

    temperature: float
    bias: float


class Decision(Fit):
    """The values that are fitted to a student and saved in `config.open_ner`."""

    presence_bias: float | None
    threshold: float


def fit(scores: np.ndarray, right: np.ndarray) -> Fit:
    """Fit temperature and bias by maximum likelihood of the spans.

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

    bounds = [tuple(np.log((0.05, 20.0))), (-10.0, 10.0)]
    best = minimize(loss, np.zeros(2), method="L-BFGS-B", bounds=bounds)
    return {"temperature": round(float(np.exp(best.x[0])), 4), "bias": round(float(best.x[1]), 4)}


def flatten(
    lines: Iterable[PredictionLine], selection: Selection, presence_bias: float | None
) -> list[PredictionLine]:
    """Convert free predictions to those of the decoding `flat`: absent types have no spans, the others compete.

    Args:
        lines: free predictions; lines of one passage are adjacent, and each type is asked by its own name.
        selection: how spans compete, and the calibration of their scores.
        presence_bias: a type is absent if its presence plus this is 0 or less; with None, no type is absent. Unlike
            in decoding, a bias above 0 cannot add answers.
    """
    result: list[PredictionLine] = []
    for _, group in groupby(lines, key=lambda line: (line["benchmark"], line["passage_id"])):
        passage = list(group)
        entities: list[Entity] = []
        for line in passage:
            if presence_bias is None or line.get("presence", np.inf) + presence_bias > 0:
                for span in line["spans"]:
                    word = line["text"][span["start"] : span["end"]]
                    score = span["score"] and calibrate(span["score"], selection.temperature, selection.bias)
                    entities.append({**span, "entity_group": line["type"], "word": word, "score": score})
        kept = selection.select(entities, [line["type"] for line in passage])
        for line in passage:
            own = [entity for entity in kept if entity["entity_group"] == line["type"]]
            spans: list[PredictedSpan] = [{"start": e["start"], "end": e["end"], "score": e["score"]} for e in own]
            raw = write_mentions((entity["start"], entity["word"]) for entity in own)
            result.append({**line, "raw": raw, "spans": spans, "parse_failure": False})
    return result


def fit_decision(lines: list[PredictionLine]) -> Decision:
    """Fit presence bias and threshold for the best strict F1, then temperature and bias on the spans that remain.

    Raises UserError if the spans are all right or all wrong.
    """
    n_gold = sum(len(line["gold_spans"] or []) for line in lines)
    answered = [line["presence"] for line in lines if line["spans"] and "presence" in line]
    bounds = np.unique(np.quantile(answered, np.arange(CUTS) / CUTS)) if answered else []
    best: tuple[float, float | None, float] = (-1.0, None, 0.0)  # F1, presence bias, threshold of raw scores
    for presence_bias in (None, *(round(-float(bound), 4) for bound in bounds)):
        scores, right = scored_spans(flatten(lines, Selection(), presence_bias))
        order = np.argsort(-scores, kind="stable")
        f1 = 2 * np.cumsum(right[order]) / (np.arange(1, len(order) + 1) + n_gold)
        if len(f1) and f1.max() > best[0]:
            best = float(f1.max()), presence_bias, float(scores[order[f1.argmax()]])
    _, presence_bias, threshold = best
    fitted = fit(*scored_spans(flatten(lines, Selection(), presence_bias)))
    # rounded down, so that the span at the threshold stays
    floor = np.floor(1e4 * calibrate(threshold, fitted["temperature"], fitted["bias"])) / 1e4
    return {**fitted, "presence_bias": presence_bias, "threshold": float(floor)}


def apply_decision(lines: list[PredictionLine], decision: Decision) -> list[PredictionLine]:
    """Convert free predictions to flat ones with the values of a decision."""
    selection = Selection(decision["threshold"], temperature=decision["temperature"], bias=decision["bias"])
    return flatten(lines, selection, decision["presence_bias"])


def cross_fitted(
    lines: list[PredictionLine], unit: Callable[[PredictionLine], str] = lambda line: line["passage_id"]
) -> list[PredictionLine]:
    """Convert each half of the passages with a decision that was fitted on the other half.

    Scores on the same passages that a decision was fitted on would be optimistic. Lines of the same `unit` are in the
    same half.
    """
    halves: list[list[PredictionLine]] = [[], []]
    for line in lines:
        halves[hashlib.sha256(unit(line).encode()).digest()[0] % 2].append(line)
    return apply_decision(halves[0], fit_decision(halves[1])) + apply_decision(halves[1], fit_decision(halves[0]))


def check_run(results: RunResults, predictions: Path, model: Path) -> None:
    """Raise UserError if predictions are not of the decoding `free`, or if the model's weights have changed since.

    Prints a line if they are of samples, which a run of the whole benchmarks leaves in the folder that it would use.
    """
    from command_line.students import revision_of

    if results["decoding"] != "free":
        raise UserError(f"{predictions}: the decoding is {results['decoding']}, but a fit needs predictions of free")
    made_by, revision = results["model"]["id"], results["model"].get("revision")
    beside = predictions.parent.with_name(f"{predictions.parent.name}-<hash>")
    samples = [(name, part) for name, result in results["benchmarks"].items() if (part := result.get("sampled"))]
    if samples:
        sizes = ", ".join(f"{name}: {part['passages']} of {part['of']} passages" for name, part in samples)
        hint = f"a run without --limit has them all, and names its folder, such as {beside}"
        print(f"{predictions} has samples only ({sizes}): {hint}")
    # a commit cannot be compared with a folder
    if revision and not COMMIT.fullmatch(revision) and revision != revision_of(str(model)):
        remedy = f"run eval_zero_shot.py again, and give the predictions of the folder that it names, such as {beside}"
        raise UserError(f"{predictions}: {made_by} had other weights than {model} has now: {remedy}")


def main() -> None:
    """Fit a decision on predictions, and save it in the model's config."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictions", type=Path, required=True, help="predictions.jsonl of the decoding free")
    parser.add_argument("--model", type=Path, required=True, help="the student's folder; its config.json is changed")
    parser.add_argument("--figure", type=Path, help="draw reliability and risk by coverage, before and after, there")
    parser.add_argument("--dry_run", action="store_true", help="print the fit and save nothing")
    args = parser.parse_args()

    try:
        config = read_json(args.model / "config.json")
    except (OSError, ValueError) as error:
        raise UserError(f"--model {args.model}: not a student's folder ({error})") from None
    # leave out other wordings of a type, because they would count its gold again
    lines = [line for line in read_predictions(args.predictions) if "asked" not in line]
    results = args.predictions.with_name("results.json")
    if results.exists():
        check_run(read_results(results), args.predictions, args.model)
    if unscored := sum(span["score"] is None for line in lines for span in line["spans"]):
        print(f"{unscored} spans have no score and are left out")
    scores, right = scored_spans(lines)
    if not len(scores):
        raise UserError(f"{args.predictions}: no span has both a score and gold offsets to compare with")
    decision, crossed = fit_decision(lines), cross_fitted(lines)
    values = ", ".join(f"{name} {value}" for name, value in decision.items())
    print(f"{len(scores)} spans, {100 * right.mean():.1f} % right; {values}")
    print("fitted on one half of the passages and measured on the other:")
    for name, part in (("free", lines), ("flat", flatten(lines, Selection(), None)), ("flat, fitted", crossed)):
        f1, error = (score(part, "strict") or {"f1": 0.0})["f1"], expected_error(*scored_spans(part))
        print(f"{name:13} strict F1 {100 * f1:.1f}, expected calibration error {error:.3f}")
    if args.figure:
        plot([("free", describe(lines)), ("flat, fitted", describe(crossed))], args.figure)
    if not args.dry_run:
        config["open_ner"] = {**config.get("open_ner", {}), **decision}
        write_atomic(args.model / "config.json", json.dumps(config, indent=2) + "\n")
        print(f"saved in {args.model / 'config.json'}")
        if (args.model / "training.json").exists():  # its card says whether scores are calibrated
            from hub.model_card import write_model_card

            write_model_card(args.model)


if __name__ == "__main__":
    run(main)
