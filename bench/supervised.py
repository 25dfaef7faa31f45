"""Train students on human-annotated sets: with and without the line `Dataset:`, distillation, and all absent types.

    python bench/supervised.py --data SUPERVISED --distilled STUDENT [--passages 60 --texts 50]

SUPERVISED has a folder for each of SETS, with train.jsonl.gz and test.jsonl.gz. The sets share names of types, whose
guidelines differ. STUDENT is a distilled student, such as that of the arm `frequency` of bench/ablations.py: it is
asked as it is, and also trained further. All are asked a seeded sample of each test split, so the trained ones are
tested in their domain. The steps are those of bench/parts/steps.py: the same command goes on after an interruption.
The results are written to results/bench/supervised.json, where students that this machine has not trained keep their
rows, and with them the row that they were compared with.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import yaml

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from bench.ablations import RECIPE  # noqa: E402
from bench.answers import compare  # noqa: E402
from bench.parts import steps  # noqa: E402
from bench.parts.provenance import provenance  # noqa: E402
from bench.parts.sets import write_sets  # noqa: E402
from hub.records import MAIN  # noqa: E402
from open_ner.tools.errors import run  # noqa: E402
from open_ner.tools.files import read_json, write_json  # noqa: E402
from zero_shot.records import read_predictions  # noqa: E402

WORK = Path("runs/supervised_bench")  # relative, as it is shown in cards and results
OUTPUT = ROOT / "results" / "bench" / "supervised.json"
SETS = ("AnEM", "BioNLP13CG", "CRAFT")
BASE = "both"  # the others are compared with it
SAMPLE = ("data_hash", "passages", "texts")  # what rows have in common that may stand together


@dataclass
class Student:
    """What a student is trained on; without `trained` it is the distilled student as it is."""

    dataset_line: bool = True
    negatives: str = "frequency"  # one absent type of the set per present type; all: every absent type
    distilled: bool = True
    trained: bool = True


STUDENTS = {
    "distilled": Student(dataset_line=False, trained=False),
    "supervised": Student(distilled=False),
    "all_negatives": Student(negatives="all"),
    "without_line": Student(dataset_line=False),
    BASE: Student(),
}


def main() -> None:
    """Train and ask every student, then compare those that are finished."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # the commands run in the project's root, so paths of data are made absolute
    parser.add_argument("--data", type=lambda path: Path(path).resolve(), required=True)
    parser.add_argument("--distilled", type=Path, required=True, help="student, relative to the project's root")
    parser.add_argument("--students", nargs="*", choices=STUDENTS, default=list(STUDENTS), help="default: all")
    parser.add_argument("--passages", type=int, default=60, help="seeded sample of each training split")
    parser.add_argument("--texts", type=int, default=50, help="seeded sample of each test split")
    args = parser.parse_args()
    args.work = WORK / f"{args.passages}-{args.texts}"  # other samples are other runs
    for line in (False, True):
        write_sets(args.data, [], ROOT / asked(line, args), args.texts, SETS, dataset_line=line)
    for name in args.students:
        student = STUDENTS[name]
        if student.trained:
            start = {"model_name_or_path": args.distilled} if student.distilled else {}
            steps.train(args.work / name, RECIPE, build(student, args), {**start, "dataset_config": "supervised"})
        folder = asked(student.dataset_line, args)
        steps.evaluate(model(name, args), args.work / "on_test" / name, folder / "suite.yaml", "--data_dir", folder)
        report(args)


def asked(line: bool, args: argparse.Namespace) -> Path:
    """Return the folder of the test sets that are asked with or without the line `Dataset:`."""
    return args.work / ("asked_with_line" if line else "asked")


def model(name: str, args: argparse.Namespace) -> Path:
    """Return the folder of a student."""
    return args.work / name if STUDENTS[name].trained else args.distilled


def build(student: Student, args: argparse.Namespace) -> Path:
    """Build the dataset of the training splits for a student, and return its folder."""
    folder = args.work / "_".join(["data", student.negatives, *(["with_line"] if student.dataset_line else [])])
    if not (ROOT / folder / "dataset" / "README.md").exists():
        (ROOT / folder).mkdir(parents=True, exist_ok=True)
        for name in SETS:
            described = {"name": name, "path": f"{name}/train.jsonl.gz", "format": "offsets", "license": "other"}
            (ROOT / folder / f"{name}.yaml").write_text(yaml.safe_dump(described), encoding="utf-8")
        steps.command(
            "-m", "dataset_builder", "--config", "recipes/build/supervised.yaml", "--output_dir", folder,
            "--supervised.sets", json.dumps([str(folder / f"{name}.yaml") for name in SETS]),
            "--supervised.data_dir", args.data, "--supervised.dataset_line", student.dataset_line,
            "--supervised.negatives", student.negatives, "--supervised.max_passages", args.passages,
            "--dataset.validation_one_in", 0,
        )  # fmt: skip
    return folder / "dataset"


def report(args: argparse.Namespace) -> None:
    """Compare the finished students, on each set and on all, and write the results.

    Rows of the same samples that were measured elsewhere stay until all students are finished here.
    """
    files = {name: steps.predictions(model(name, args), args.work / "on_test" / name) for name in STUDENTS}
    lines = {name: read_predictions(file) for name, file in files.items() if file}
    if BASE not in lines:
        return
    scores = {}
    for name in SETS:
        own = {student: [line for line in found if line["benchmark"] == name] for student, found in lines.items()}
        scores[name] = compare(own, BASE)
    data = [args.data / name / f"{split}.jsonl.gz" for name in SETS for split in ("train", "test")]
    measured = {**provenance(*data), "passages": args.passages, "texts": args.texts}
    rows = {}
    for student, row in compare(lines, BASE).items():
        training = read_json(ROOT / model(student, args) / "training.json")
        sets = {name: {scorer: own[student][scorer] for scorer in MAIN} for name, own in scores.items()}
        rows[student] = {
            **measured, "trained_on": training["trained_on"], "seconds": training["seconds"], "all": row, "sets": sets,
            "mean": {scorer: round(fmean(own[scorer]["f1"] for own in sets.values()), 1) for scorer in MAIN},
        }  # fmt: skip
        print(student, rows[student]["mean"], row["official"]["gain"], row["official"]["interval"], flush=True)
    known = read_json(OUTPUT) if OUTPUT.exists() else {}
    same = [name for name, row in known.items() if all(row[key] == measured[key] for key in SAMPLE)]
    rows = {name: rows.get(name) or known[name] for name in STUDENTS if name in rows or name in same}
    if BASE in same and len(lines) < len(STUDENTS):
        rows[BASE] = known[BASE]
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    write_json(OUTPUT, rows)


if __name__ == "__main__":
    run(main, resumes=True)
