"""Compare the ways to map an answered string to spans, on the predictions of a run; nothing is decoded.

    python bench/choices.py runs/dev/results/MODEL/SUITE/predictions.jsonl [...] [--output results/bench/choices.json]

Prints the strict F1 of every policy of `open_ner.conversation.find_spans` (which occurrences, and whether letters must
match in case), with its 95 % interval over passages. The defaults OCCURRENCES and CASE there are the best on
development passages. Without a file it does nothing.
"""

import argparse
import sys
import typing
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from hub.records import Scores  # noqa: E402
from open_ner.conversation import CASE, OCCURRENCES, Case, Occurrences, find_spans, read_answer  # noqa: E402
from open_ner.tools.files import read_jsonl, write_json  # noqa: E402
from zero_shot.records import PredictionLine  # noqa: E402
from zero_shot.scoring import bootstrap, score  # noqa: E402


class PolicyScores(Scores):
    """A policy and its strict scores."""

    occurrences: Occurrences
    case: Case


def mapped(line: PredictionLine, occurrences: Occurrences, case: Case) -> PredictionLine:
    """A prediction with the spans of its raw answer under a policy."""
    places = [find_spans(line["text"], string, occurrences, case) for string in read_answer(line["raw"]) or []]
    spans = sorted({span for found in places for span in found})
    return {**line, "spans": [{"start": start, "end": end, "score": None} for start, end in spans]}


def measure(lines: list[PredictionLine]) -> list[PolicyScores]:
    """The strict scores of each policy."""
    rows: list[PolicyScores] = []
    for occurrences in typing.get_args(Occurrences):
        for case in typing.get_args(Case):
            run = [mapped(line, occurrences, case) for line in lines if line["gold_spans"] is not None]
            scores = score(run, "strict")
            if scores is None:
                sys.exit("no query has gold offsets: nothing can be measured")
            interval = bootstrap(run, "strict", 42)
            rows.append({"occurrences": occurrences, "case": case, **scores, "interval": interval})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("predictions", type=Path, nargs="*", help="predictions.jsonl of eval_zero_shot.py")
    parser.add_argument("--output", type=Path, help="JSON file for all numbers")
    args = parser.parse_args()
    if not args.predictions:
        print("no predictions given: see --help")
    results = {}
    for path in args.predictions:
        rows = measure(list(read_jsonl(path)))
        results["/".join(path.parts[-3:-1])] = rows
        print(f"\n{path}")
        for row in sorted(rows, key=lambda row: -row["f1"]):
            mark = "  <- default" if (row["occurrences"], row["case"]) == (OCCURRENCES, CASE) else ""
            interval = ", ".join(f"{100 * bound:.2f}" for bound in row.get("interval", []))
            scores = (
                f"F1 {100 * row['f1']:.2f} [{interval}], P {100 * row['precision']:.2f}, R {100 * row['recall']:.2f}"
            )
            print(f"  {row['occurrences']:<5} {row['case']:<8} strict {scores}{mark}")
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.output, results)


if __name__ == "__main__":
    main()
