"""Sort a student's errors by cause (boundary, type, both, invented, missed) and by training frequency of the type.

    python bench/errors.py --predictions NAME=PREDICTIONS [NAME=...] [--dataset DATASET] --output FILE.json

PREDICTIONS is a file of the decoding `free` on the development set; the decoding `flat` is applied to its reporting
half. DATASET is the training dataset of the students, in which the mentions of each type are counted. `--examples N`
prints N random errors of each cause.
"""

import argparse
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from bench.answers import is_choosing, passage_of  # noqa: E402
from bench.parts.provenance import provenance  # noqa: E402
from open_ner.selection import Selection  # noqa: E402
from open_ner.tools.errors import UserError, run  # noqa: E402
from open_ner.tools.files import write_atomic, write_json  # noqa: E402
from zero_shot.calibration import flatten  # noqa: E402
from zero_shot.records import PredictionLine, read_predictions  # noqa: E402

# a predicted span can be `invented`, and a gold mention `missed`; the other causes are common to both
CAUSES = ("right", "boundary", "type", "boundary and type", "invented", "missed")
BANDS = ((100, "100 or more"), (10, "10 to 99"), (1, "1 to 9"), (0, "none"))  # mentions of the type in training


class Mention(NamedTuple):
    """A span with its type; offsets in characters, `end` exclusive."""

    start: int
    end: int
    type: str


def cause(one: Mention, others: list[Mention], alone: str) -> str:
    """Return how a mention differs from the nearest of `others`; `alone` if it overlaps none of them."""
    touching = [other for other in others if other.start < one.end and one.start < other.end]
    if one in touching:
        return "right"
    if any(other.type == one.type for other in touching):
        return "boundary"
    if any(other[:2] == one[:2] for other in touching):
        return "type"
    return "boundary and type" if touching else alone


def passages(lines: list[PredictionLine]) -> Iterator[tuple[str, list[Mention], list[Mention]]]:
    """Yield the text, the predicted and the gold mentions of each passage."""
    grouped: dict[tuple[str, str], list[PredictionLine]] = defaultdict(list)
    for line in lines:
        grouped[line["benchmark"], line["passage_id"]].append(line)
    for group in grouped.values():
        predicted = [Mention(span["start"], span["end"], line["type"]) for line in group for span in line["spans"]]
        gold = [Mention(start, end, line["type"]) for line in group for start, end in line["gold_spans"] or []]
        yield group[0]["text"], predicted, gold


def band(type_name: str, trained: Counter[str]) -> str:
    """Return the band of a type by its mentions in training."""
    return next(name for least, name in BANDS if trained[type_name] >= least)


def sort_errors(lines: list[PredictionLine], trained: Counter[str] | None) -> tuple[dict, dict[str, list[str]]]:
    """Count the causes over all predicted and all gold mentions, and collect the errors by cause."""
    counts: dict[str, Counter[str]] = {"predicted": Counter(), "gold": Counter()}
    by_band: dict[str, dict[str, Counter[str]]] = {}
    errors: dict[str, list[str]] = defaultdict(list)
    for text, predicted, gold in passages(lines):
        for side, own, others, alone in (
            ("predicted", predicted, gold, "invented"), ("gold", gold, predicted, "missed")
        ):  # fmt: skip
            for one in own:
                why = cause(one, others, alone)
                counts[side][why] += 1
                if trained is not None:
                    by_band.setdefault(band(one.type, trained), {}).setdefault(side, Counter())[why] += 1
                if why in ("missed", "invented") or (side == "predicted" and why != "right"):
                    near = [(other.type, text[other.start : other.end]) for other in others if other.start < one.end]
                    errors[why].append(f"{one.type}: {text[one.start : one.end]!r} against {near[-2:]} in {text!r}")
    return {"all": counts, **by_band}, errors


def markdown(students: dict[str, dict]) -> str:
    """Write the causes as percent of the predicted, and of the gold mentions."""
    head = ["student", "mentions of the type in training", "of", "number", *CAUSES]
    lines = [f"| {' | '.join(head)} |", "|---|---|---|" + "--:|" * (1 + len(CAUSES))]
    for student, bands in students.items():
        for name in ("all", *(name for _, name in BANDS if name in bands)):
            for side, counts in bands[name].items():
                total = sum(counts.values())
                cells = [f"{100 * counts.get(why, 0) / total:.1f}" if counts.get(why) else "" for why in CAUSES]
                lines.append(f"| {student} | {name} | {side} | {total} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Count, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictions", nargs="+", required=True, metavar="NAME=FILE")
    parser.add_argument("--dataset", help="folder or Hub id of the training dataset (config `annotations`)")
    parser.add_argument("--examples", type=int, default=0, help="errors of each cause to print")
    parser.add_argument("--output", type=Path, required=True, help="JSON file; a table is written beside it")
    args = parser.parse_args()
    trained = None
    if args.dataset:
        from datasets import load_dataset

        rows = load_dataset(args.dataset, "annotations", split="train")
        trained = Counter(mention["type"] for entities in rows["entities"] for mention in entities)
    students, files = {}, []
    for given in args.predictions:
        name, equals, file = given.partition("=")
        if not equals:
            raise UserError(f"--predictions {given}: write NAME=FILE")
        files.append(Path(file))
        lines = [line for line in read_predictions(files[-1]) if not is_choosing(passage_of(line))]
        students[name], errors = sort_errors(flatten(lines, Selection(), None), trained)
        for why, examples in sorted(errors.items()):
            for example in random.Random(42).sample(examples, min(args.examples, len(examples))):
                print(f"{name}, {why}: {example}")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.output, {**provenance(*files), "students": students})
    table = markdown(students)
    write_atomic(args.output.with_suffix(".md"), table)
    print(table)


if __name__ == "__main__":
    run(main)
