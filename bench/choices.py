"""What the ways of mapping an answered string to spans are worth, from the predictions of a run; nothing is decoded.

    python bench/choices.py runs/dev/results/MODEL/SUITE/predictions.jsonl [...] [--output results/bench/choices.json]

For every policy of `open_ner.conversation.find_spans`, which occurrences and whether letters must match in case, the
strict F1 with its 95 % interval over passages. The defaults OCCURRENCES and CASE there are the best on development
passages. Without a file it says so and ends.
"""

import argparse
import json
import sys
import typing
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from open_ner.conversation import CASE, OCCURRENCES, Case, Occurrences, find_spans, read_answer  # noqa: E402
from zero_shot.scoring import bootstrap, score  # noqa: E402

Line = dict[str, Any]


def mapped(line: Line, occurrences: Occurrences, case: Case) -> Line:
    """A prediction with the spans that a policy gives its raw answer."""
    places = [find_spans(line["text"], string, occurrences, case) for string in read_answer(line["raw"]) or []]
    spans = sorted({span for found in places for span in found})
    return {**line, "spans": [{"start": start, "end": end} for start, end in spans]}


def measure(lines: list[Line]) -> list[dict[str, Any]]:
    """A row for each policy."""
    rows = []
    for occurrences in typing.get_args(Occurrences):
        for case in typing.get_args(Case):
            run = [mapped(line, occurrences, case) for line in lines if line["gold_spans"] is not None]
            if not run:
                sys.exit("no query has gold offsets: nothing can be measured")
            scores = {"interval": bootstrap(run, "strict", 42), **score(run, "strict")}
            rows.append({"occurrences": occurrences, "case": case, **scores})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("predictions", type=Path, nargs="*", help="predictions.jsonl of eval_zero_shot.py")
    parser.add_argument("--output", type=Path, help="JSON file of all numbers")
    args = parser.parse_args()
    if not args.predictions:
        print("no predictions given: see --help")
    results = {}
    for path in args.predictions:
        rows = measure([json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()])
        results["/".join(path.parts[-3:-1])] = rows
        print(f"\n{path}")
        for row in sorted(rows, key=lambda row: -row["f1"]):
            mark = "  <- default" if (row["occurrences"], row["case"]) == (OCCURRENCES, CASE) else ""
            f1, low, high, precision, recall = (
                f"{100 * value:.2f}" for value in (row["f1"], *row["interval"], row["precision"], row["recall"])
            )
            policy = f"{row['occurrences']:<5} {row['case']:<8}"
            print(f"  {policy} strict F1 {f1} [{low}, {high}], P {precision}, R {recall}{mark}")
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
