"""Train a student on names of types and one on definitions, and ask both for names and for definitions.

    python bench/definitions.py --data DISTILLED --dev DEV_CLOSED

DISTILLED is that of bench/ablations.py, with definitions.jsonl.gz (recorded replies to the prompt `definition`).
DEV_CLOSED also has labels.json, which defines the types of each domain. Both students are trained on the same
passages, which have replies of both kinds, and asked sentences of the choosing half. The steps are those of
bench/parts/steps.py: the same command goes on after an interruption. The results are written to
results/bench/definitions.json.
"""

import argparse
import gzip
import json
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from bench.ablations import RECIPE  # noqa: E402
from bench.answers import compare, passage_of  # noqa: E402
from bench.parts import steps  # noqa: E402
from bench.parts.provenance import provenance  # noqa: E402
from open_ner.tools.errors import run  # noqa: E402
from open_ner.tools.files import read_json, read_jsonl, write_json, write_jsonl  # noqa: E402
from zero_shot.calibration import cross_fitted  # noqa: E402
from zero_shot.records import read_predictions  # noqa: E402

WORK = Path("runs/definitions")  # relative, as it is shown in cards and results
OUTPUT = ROOT / "results" / "bench" / "definitions.json"
CONFIGS = {"names": "type", "definitions": "definition"}  # of the dataset
ASKED = ("names", "definitions")
BASE = "names, asked names"  # the others are compared with it
BUILD = {"negative_ratio": 4.0, "max_queries": 10}  # as the arm negatives_4 of bench/ablations.py
TRAIN = {"learning_rate": 1.5e-4, "seed": 42, "bf16": True}
BENCHMARK = "dev_closed_sentences"


def main() -> None:
    """Build, train and ask both students, then compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # the commands run in the project's root, so paths of data are made absolute
    parser.add_argument("--data", type=lambda path: Path(path).resolve(), required=True)
    parser.add_argument("--dev", type=lambda path: Path(path).resolve(), required=True)
    parser.add_argument("--passages", type=int, help="default: all, some 370")
    parser.add_argument("--sentences", type=int, default=100, help="seeded sample of the choosing half's sentences")
    args = parser.parse_args()
    work = WORK / f"{args.passages or 'all'}-{args.sentences}"  # other samples are other runs
    replies = {"type": args.data / "answers.jsonl.gz", "definition": args.data / "definitions.jsonl.gz"}
    write_passages(args.data, args.dev, ROOT / work / "passages.jsonl", args.passages)
    for asked in ASKED:
        write_questions(args.dev, ROOT / work / "dev" / asked, asked)
    dataset = steps.build(work / "data", work / "passages.jsonl", replies, BUILD)
    for name, config in CONFIGS.items():
        model = steps.train(work / name, RECIPE, dataset, {**TRAIN, "dataset_config": config})
        for asked in ASKED:
            steps.evaluate(
                model, work / f"asked_{asked}", "recipes/eval/dev_closed.yaml", "--data_dir", work / "dev" / asked,
                "--benchmarks", f"[{BENCHMARK}]", "--limit", args.sentences,
            )  # fmt: skip
    report(work, [*steps.sources(args.data, args.dev), replies["definition"], args.dev / "labels.json"])


def write_passages(data: Path, dev: Path, target: Path, limit: int | None) -> None:
    """Write the first `limit` passages that are not in the development set and have replies of both kinds."""
    steps.write_passages(data / "passages.jsonl.gz", dev / "passages.jsonl.gz", target)
    with gzip.open(data / "definitions.jsonl.gz", "rt", encoding="utf-8") as file:
        defined = {json.loads(line)["id"] for line in file}
    write_jsonl(target, [row for row in read_jsonl(target) if row["id"] in defined][:limit])


def write_questions(dev: Path, folder: Path, asked: str) -> None:
    """Write the sentences of the choosing half, with the names of their types or with short definitions."""
    labels = read_json(dev / "labels.json")
    target = folder / "sentences.jsonl.gz"
    steps.write_choosing_half(dev / "sentences.jsonl.gz", target)
    if asked == "names":
        return
    with gzip.open(target, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    with gzip.open(target, "wt", encoding="utf-8") as file:
        for row in rows:
            # the first part of each definition; after it come the borders to other types
            words = {name: text.split(";")[0].split(" (")[0] for name, text in labels[row["domain"]].items()}
            row["types"] = [words[name] for name in row["types"]]
            for entity in row["entities"]:
                entity["type"] = words[entity["type"]]
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def report(work: Path, sources: list[Path]) -> None:
    """Compare the four pairs of what was trained on and what is asked, and write the results.

    Args:
        work: folder of the run, relative to the project's root.
        sources: files of the data, whose hash is written.
    """
    free, training = {}, {}
    for name in CONFIGS:
        training[name] = read_json(ROOT / work / name / "training.json")
        for asked in ASKED:
            file = steps.predictions(work / name, work / f"asked_{asked}")
            assert file is not None  # main has asked
            free[f"{name}, asked {asked}"] = read_predictions(file)
    ways = {"free": free, "fitted": {pair: cross_fitted(lines, passage_of) for pair, lines in free.items()}}
    scores = {way: compare(pairs, BASE) for way, pairs in ways.items()}
    pairs = {pair: {way: own[pair] for way, own in scores.items()} for pair in free}
    students = {name: {key: own[key] for key in ("trained_on", "seconds")} for name, own in training.items()}
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    write_json(OUTPUT, {**provenance(*sources), "students": students, "pairs": pairs})
    for pair, own in pairs.items():
        print(pair, {way: (row["official"]["f1"], row["official"]["interval"]) for way, row in own.items()})


if __name__ == "__main__":
    run(main, resumes=True)
