"""Compare ways to read a student's answers: free, only strings of the text, types that compete, and fitted bounds.

    python eval_zero_shot.py --config recipes/eval/dev_closed.yaml --data_dir DATA --model runs/my-model
    python bench/answers.py --dev PREDICTIONS [--test PREDICTIONS ...] --output FILE.json

All rows are computed from the same predictions, those of the decoding `free`. `--dev` is for the development set. Its
passages have a choosing half, on which presence bias and threshold are fitted, and a reporting half. The fit is
applied to the reporting half and to the sets of `--test`; the choosing half itself is scored by two-fold
cross-fitting. Intervals are from a paired bootstrap over passages, never over sentences. table.md beside the output
shows all students whose JSON file is there.
"""

import argparse
import hashlib
import json
import random
import sys
from pathlib import Path
from statistics import fmean

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from bench.parts.provenance import provenance  # noqa: E402
from hub.records import MAIN, Scorer  # noqa: E402
from metrics.entity_f1.entity_f1 import Counts  # noqa: E402
from open_ner.selection import Selection  # noqa: E402
from open_ner.tools.files import read_json, write_json  # noqa: E402
from zero_shot.calibration import Decision, apply_decision, cross_fitted, fit_decision, flatten  # noqa: E402
from zero_shot.records import PredictionLine, read_predictions  # noqa: E402
from zero_shot.reliability import expected_error, scored_spans  # noqa: E402
from zero_shot.scoring import CountsByPassage, counts_by_passage, f1, interval, resample  # noqa: E402

SPLITS = 10  # random halves in which the sign of a gain is counted
WAYS = ("free", "in the text", "nested", "flat", "flat, presence", "flat, threshold", "flat, fitted")
SUREST = 0.05  # number of the surest spans whose precision is measured, as a share of the gold mentions


def passage_of(line: PredictionLine) -> str:
    """Return the id of the passage that a line's text was cut from: sentences of a passage share it."""
    sentence = line["benchmark"].endswith("_sentences")
    return line["passage_id"].rpartition(".")[0] if sentence else line["passage_id"]


def domain_of(benchmark: str, passage: str) -> str:
    """Return the domain of a passage: the beginning of its id in the development set, else the benchmark."""
    return passage.rpartition("-")[0] if benchmark.startswith("dev_closed") else benchmark


def is_choosing(passage: str) -> bool:
    """Whether a passage belongs to the half of the development set that choices are made on."""
    return int(hashlib.sha256(passage.encode()).hexdigest(), 16) // 10 % 2 == 0


def readings(lines: list[PredictionLine], decision: Decision | None) -> dict[str, list[PredictionLine]]:
    """Read free predictions in each way; without a decision, presence bias and threshold are cross-fitted."""
    ways = {
        "free": lines,
        "in the text": flatten(lines, Selection(overlaps="all"), None),
        "nested": flatten(lines, Selection(overlaps="nested"), None),
        "flat": flatten(lines, Selection(), None),
    }
    if decision is None:
        return {**ways, "flat, fitted": cross_fitted(lines, passage_of)}
    present = flatten(lines, Selection(), decision["presence_bias"])
    sure = apply_decision(lines, {**decision, "presence_bias": None})
    return {
        **ways,
        "flat, presence": present,
        "flat, threshold": sure,
        "flat, fitted": apply_decision(lines, decision),
    }


def sum_by_passage(lines: list[PredictionLine], scorer: Scorer) -> CountsByPassage:
    """Return the counts of each passage, summed over its sentences."""
    passages = {(line["benchmark"], line["passage_id"]): passage_of(line) for line in lines}
    summed: CountsByPassage = {}
    for (benchmark, number), counts in counts_by_passage(lines, scorer).items():
        place = benchmark, passages[benchmark, number]
        summed[place] = summed.get(place, Counts()) + counts
    return summed


def macro_f1(counts: CountsByPassage, scorer: Scorer) -> float:
    """Return the mean F1 over the domains."""
    domains = sorted({domain_of(*place) for place in counts})
    sums = (sum((own for place, own in counts.items() if domain_of(*place) == d), Counts()) for d in domains)
    return fmean(f1(own, scorer)["f1"] for own in sums)


def compare(ways: dict[str, list[PredictionLine]], base: str = "free", seed: int = 42) -> dict[str, dict]:
    """Score each way, with its gain over `base`: paired 95 % interval, and splits in which the gain is positive."""
    rows: dict[str, dict] = {name: {} for name in ways}
    for scorer in MAIN:
        counts = {name: sum_by_passage(lines, scorer) for name, lines in ways.items()}
        draws = dict(zip(counts, resample(list(counts.values()), seed), strict=True))
        places = sorted(counts[base])
        for name, own in counts.items():
            value = f1(sum(own.values(), Counts()), scorer)
            gain = value["f1"] - f1(sum(counts[base].values(), Counts()), scorer)["f1"]
            positive = 0
            for number in range(SPLITS):
                half = random.Random(number).sample(places, len(places) // 2)
                ours, theirs = (f1(sum((t[p] for p in half), Counts()), scorer)["f1"] for t in (own, counts[base]))
                positive += ours > theirs
            rows[name][scorer] = {
                **{key: round(100 * value[key], 1) for key in ("precision", "recall", "f1")},
                "macro_f1": round(100 * macro_f1(own, scorer), 1),
                "gain": round(100 * gain, 1),
                "interval": [round(100 * bound, 1) for bound in interval(draws[name] - draws[base])],
                "positive_splits": f"{positive} of {SPLITS}",
            }
    for name, lines in ways.items():
        scores, right = scored_spans(lines)
        if len(scores):
            surest = (-scores).argsort(kind="stable")[
                : max(1, round(SUREST * sum(len(x["gold_spans"] or []) for x in lines)))
            ]
            rows[name]["ece"] = round(expected_error(scores, right), 3)
            rows[name]["precision_of_the_surest"] = round(float(right[surest].mean()), 3)
        rows[name]["answered"] = round(sum(bool(line["spans"]) for line in lines) / len(lines), 3)
        rows[name]["unreadable"] = sum(line["parse_failure"] for line in lines)
    return rows


def markdown(files: list[Path]) -> str:
    """Write the results of several students as one table, ending with means over the sets that all students have."""
    head = ["set", "answers", "student", "official F1 (gain [95 %], splits)", "strict F1 (gain [95 %], splits)"]
    lines = [f"| {' | '.join([*head, 'macro F1', 'ECE', 'surest'])} |", "|---|---|---|" + "--:|" * 5]
    students = {file.stem: read_json(file)["sets"] for file in files}
    for name in dict.fromkeys(name for sets in students.values() for name in sets if not name.startswith("choosing")):
        for way in WAYS:
            for student, sets in students.items():
                if row := sets.get(name, {}).get(way):
                    cells = [
                        f"{x['f1']} ({x['gain']:+} {x['interval']}, {x['positive_splits']})" for x in main_scores(row)
                    ]
                    rest = [row["strict"]["macro_f1"], row.get("ece", ""), row.get("precision_of_the_surest", "")]
                    lines.append(f"| {' | '.join(map(str, [name, way, student, *cells, *rest]))} |")
    common = set.intersection(*map(set, students.values()))
    common = {name for name in common if not name.startswith(("choosing", "reporting", "dev_"))}
    for way in WAYS:
        for student, sets in students.items():
            if rows := [main_scores(sets[name][way]) for name in sorted(common)]:
                means = [[fmean(row[n][key] for row in rows) for key in ("f1", "gain")] for n in range(len(MAIN))]
                cells = [f"{value:.1f} ({gain:+.1f})" for value, gain in means]
                lines.append(f"| mean of {len(rows)} sets | {' | '.join([way, student, *cells])} | | | |")
    return "\n".join(lines) + "\n"


def main_scores(row: dict) -> list[dict]:
    """Return the scores of a row by the main scorers."""
    return [row[scorer] for scorer in MAIN]


def main() -> None:
    """Fit on the choosing half, compare on every set, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dev", type=Path, required=True, help="free predictions on the development set")
    parser.add_argument("--test", type=Path, nargs="*", default=[], help="free predictions on other sets")
    parser.add_argument(
        "--report", action="store_true", help="read the reporting half too; once, for the reported rows"
    )
    parser.add_argument("--output", type=Path, required=True, help="JSON file")
    args = parser.parse_args()
    lines = read_predictions(args.dev)
    choosing = [line for line in lines if is_choosing(passage_of(line))]
    decision = fit_decision(choosing)
    sets = {"choosing half": readings(choosing, None)}
    if args.report:
        sets["reporting half"] = readings([line for line in lines if not is_choosing(passage_of(line))], decision)
    for path in args.test:
        own = read_predictions(path)
        for name in dict.fromkeys(line["benchmark"] for line in own):
            lines = [line for line in own if line["benchmark"] == name]
            if name.startswith("dev_closed"):  # whole passages of the development set: only those not used for the fit
                lines = [line for line in lines if not is_choosing(passage_of(line))]
            sets[name] = readings(lines, decision)
    results = {name: compare(ways) for name, ways in sets.items()}
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.output, {**provenance(args.dev, *args.test), "decision": decision, "sets": results})
    table = markdown(sorted(args.output.parent.glob("*.json")))
    (args.output.parent / "table.md").write_text(table, encoding="utf-8")
    for name, rows in results.items():
        print(f"\n{name}")
        for way, row in rows.items():
            print(
                f"  {way:16}"
                + "".join(
                    f" {s} {row[s]['f1']:5} ({row[s]['gain']:+} {row[s]['interval']}, {row[s]['positive_splits']})"
                    for s in MAIN
                ),
                f"ece {row.get('ece')} surest {row.get('precision_of_the_surest')} answered {row['answered']}",
            )
    print(json.dumps(decision))


if __name__ == "__main__":
    main()
