"""Compare the ways to map an answered string to spans, on the predictions of a run; nothing is decoded.

    python bench/choices.py runs/dev/results/MODEL/SUITE/predictions.jsonl [...] [--output results/bench/choices.json]

Prints the strict F1 of every policy of `open_ner.conversation.find_spans` (which occurrences, and whether letters must
match in case), with its 95 % interval over passages. The defaults OCCURRENCES and CASE there are the best on
development passages.
"""

import argparse
import itertools
import sys
import typing
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from open_ner.conversation import CASE, OCCURRENCES, Case, Occurrences, find_spans, read_answer  # noqa: E402
from open_ner.tools.files import read_jsonl, write_json  # noqa: E402
from zero_shot.records import PredictionLine  # noqa: E402
from zero_shot.scoring import bootstrap, score  # noqa: E402


def measure(lines: list[PredictionLine]) -> list[dict[str, Any]]:
    """Return every policy with its strict scores."""
    rows = []
    lines = [line for line in lines if line["gold_spans"] is not None]
    if not lines:
        sys.exit("no query has gold offsets: nothing can be measured")
    for occurrences, case in itertools.product(typing.get_args(Occurrences), typing.get_args(Case)):
        run = [line.copy() for line in lines]
        for line in run:
            strings = read_answer(line["raw"]) or []
            spans = {span for string in strings for span in find_spans(line["text"], string, occurrences, case)}
            line["spans"] = [{"start": start, "end": end, "score": None} for start, end in sorted(spans)]
        scores = {"interval": bootstrap(run, "strict", 42), **(score(run, "strict") or {})}
        rows.append({"occurrences": occurrences, "case": case, **scores})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("predictions", type=Path, nargs="+", help="predictions.jsonl of eval_zero_shot.py")
    parser.add_argument("--output", type=Path, help="JSON file for all numbers")
    args = parser.parse_args()
    results = {}
    for path in args.predictions:
        rows = measure(list(read_jsonl(path)))
        results["/".join(path.parts[-3:-1])] = rows
        print(f"\n{path}")
        for row in sorted(rows, key=lambda row: -row["f1"]):
            mark = "  <- default" if (row["occurrences"], row["case"]) == (OCCURRENCES, CASE) else ""
            f1, precision, recall, low, high = (
                f"{100 * value:.2f}" for value in (row["f1"], row["precision"], row["recall"], *row["interval"])
            )
            scores = f"F1 {f1} [{low}, {high}], P {precision}, R {recall}"
            print(f"  {row['occurrences']:<5} {row['case']:<8} strict {scores}{mark}")
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.output, results)


if __name__ == "__main__":
    main()
