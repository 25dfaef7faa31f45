"""Train students that differ from another in one factor, and compare them on the development set.

    python bench/ablations.py --data DISTILLED --dev DEV_CLOSED [--arms start negatives_4 ...] [--tokens 400000]

DISTILLED has passages.jsonl.gz and answers.jsonl.gz (recorded teacher replies); DEV_CLOSED has sentences.jsonl.gz,
the development set. Passages of the development set, by id or by text, are never trained on. Every arm trains on
about the same number of tokens and is asked sentences of the choosing half. An arm is kept only if the paired 95 %
interval of its gain excludes 0. Every step is a command of this project, which is printed. A finished step is not run
again, and an interrupted training resumes from its checkpoint. The table is written to results/ablations.
"""

import argparse
import gzip
import hashlib
import json
import random
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from bench.answers import compare, is_choosing, passage_of  # noqa: E402
from command_line.plotting import BLUE, GREY, new_figure, save  # noqa: E402
from open_ner.selection import Selection  # noqa: E402
from open_ner.tools.errors import UserError, run  # noqa: E402
from open_ner.tools.files import write_json  # noqa: E402
from zero_shot.calibration import cross_fitted, flatten  # noqa: E402
from zero_shot.predict import folder_name  # noqa: E402
from zero_shot.records import read_predictions  # noqa: E402

RECIPE = "recipes/sft/smollm2_135m/cpu.yaml"
WORK, RESULTS = Path("runs/ablations"), Path("results/ablations")  # relative, as they are shown in cards and results
BUILD = {"negative_ratio": 1.0, "max_queries": 10}  # the start: 10 queries of a passage, as many absent as present
TRAIN = {"learning_rate": 1.5e-4, "seed": 42, "bf16": False}


@dataclass
class Arm:
    """What an arm changes in the arm `base`: options of the build recipe's section `dataset`, and of the training."""

    base: str
    build: dict[str, object] = field(default_factory=dict)
    train: dict[str, object] = field(default_factory=dict)


ARMS = {
    "start": Arm(""),
    "negatives_half": Arm("start", {"negative_ratio": 0.5}),
    "negatives_2": Arm("start", {"negative_ratio": 2.0}),
    "negatives_4": Arm("start", {"negative_ratio": 4.0}),
    # bf16 takes little more than half of the time on a CPU that has it, so the arms below all use it
    "bf16": Arm("negatives_4", train={"bf16": True, "use_cpu": True}),
    "rate_5e-5": Arm("bf16", train={"learning_rate": 5e-5}),
    "rate_4e-4": Arm("bf16", train={"learning_rate": 4e-4}),
    "queries_6": Arm("bf16", {"max_queries": 6}),
    "queries_20": Arm("bf16", {"max_queries": 20}),
    "seed_7": Arm("bf16", {"seed": 7}, {"seed": 7}),
}


def options(name: str) -> tuple[dict[str, object], dict[str, object]]:
    """Return all options of an arm: of the build and of the training."""
    if not name:
        return BUILD, TRAIN
    build, train = options(ARMS[name].base)
    return build | ARMS[name].build, train | ARMS[name].train


def main() -> None:
    """Build, train and ask every arm, then compare those that are finished."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # the commands run in the project's root, so paths of data are made absolute
    parser.add_argument("--data", type=lambda path: Path(path).resolve(), required=True)
    parser.add_argument("--dev", type=lambda path: Path(path).resolve(), required=True)
    parser.add_argument("--arms", nargs="*", choices=ARMS, default=list(ARMS), help="default: all, in this order")
    parser.add_argument("--tokens", type=int, default=400_000, help="tokens to train on")
    parser.add_argument("--sentences", type=int, default=400, help="seeded sample of the choosing half's sentences")
    args = parser.parse_args()
    if not (ROOT / WORK / "passages.jsonl").exists():
        write_passages(args.data / "passages.jsonl.gz", args.dev / "passages.jsonl.gz", ROOT / WORK / "passages.jsonl")
    write_choosing_half(args.dev / "sentences.jsonl.gz", ROOT / WORK / "dev" / "sentences.jsonl.gz")
    for name in args.arms:
        for_build, for_training = options(name)
        build(WORK / name, args.data, for_build)
        train(WORK / name, args.tokens, for_training)
        evaluate(WORK / name, args.sentences)
        if predictions(WORK / "start"):
            report()


def command(*words: object) -> None:
    """Print and run a command of the project with this interpreter.

    Raises UserError if it fails, after the command has said why.
    """
    line = [str(word) for word in words]
    print("$ python " + " ".join(line), flush=True)
    if code := subprocess.run([sys.executable, *line], cwd=ROOT).returncode:
        raise UserError(f"{line[0]} stopped with exit code {code}; the same command goes on from here")


def write_passages(data: Path, dev: Path, target: Path) -> None:
    """Write the passages that are not in the development set, in a seeded order, so that the first N are a sample.

    Raises UserError if a passage has the id or the text of one of the development set.
    """
    with gzip.open(dev, "rt", encoding="utf-8") as file:
        held_out = {row[key] for row in map(json.loads, file) for key in ("id", "text")}
    with gzip.open(data, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    # the development set is the tenth of the passages whose hash is 0 modulo 10
    kept = [row for row in rows if int(hashlib.sha256(row["id"].encode()).hexdigest(), 16) % 10]
    for row in kept:
        if row["id"] in held_out or row["text"] in held_out:
            raise UserError(f"{data}: passage {row['id']} is in the development set")
    random.Random(42).shuffle(kept)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept), encoding="utf-8")


def write_choosing_half(source: Path, target: Path) -> None:
    """Write the sentences of the half of the development set that choices are made on."""
    with gzip.open(source, "rt", encoding="utf-8") as file:
        lines = [line for line in file if is_choosing(json.loads(line)["passage_id"])]
    target.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(target, "wt", encoding="utf-8") as file:
        file.writelines(lines)


def build(folder: Path, data: Path, options: dict[str, object]) -> None:
    """Build an arm's dataset from the recorded replies, without a validation split."""
    if (ROOT / folder / "data" / "dataset" / "README.md").exists():
        return
    given = [
        word for name, value in options.items() for word in (f"--dataset.{name}", "null" if value is None else value)
    ]
    command(
        "-m", "dataset_builder", "--config", "recipes/build/sample.yaml", "--output_dir", folder / "data",
        "--name", "uniner-distill-ablation", "--corpus.path", WORK / "passages.jsonl",
        "--corpus.max_tokens", 1000, "--corpus.min_words", 1, "--teacher.variants", "[type]",
        "--teacher.recorded", data / "answers.jsonl.gz", "--contamination.benchmarks", "[]",
        "--dataset.validation_one_in", 0, *given,
    )  # fmt: skip


def train(folder: Path, tokens: int, options: dict[str, object]) -> None:
    """Train an arm on as many conversations as have `tokens` tokens in all."""
    if (ROOT / folder / "model" / "training.json").exists():
        return
    dataset, given = (
        folder / "data" / "dataset",
        [word for item in options.items() for word in (f"--{item[0]}", item[1])],
    )
    command(
        "-m", "accelerate.commands.launch", "--quiet", "train_sft.py", "--config", RECIPE,
        "--dataset_name", dataset, "--output_dir", folder / "model",
        "--max_conversations", conversations(ROOT / dataset, tokens),
        "--save_strategy", "steps", "--save_steps", 0.2, "--save_total_limit", 1, *given,
    )  # fmt: skip


def conversations(dataset: Path, tokens: int) -> int:
    """Return how many conversations, from the first one, have at most `tokens` tokens."""
    from sft.conversations import load_conversations, tokenize
    from sft.tokenizer import load_tokenizer

    rows, _ = tokenize(
        load_conversations(str(dataset), "type", "train", None, True),
        load_tokenizer(str(ROOT / "models/smollm2-135m-instruct")), None, branches=True,
    )  # fmt: skip
    for number, length in enumerate(rows["length"]):
        tokens -= length
        if tokens < 0:
            return number
    return len(rows)


def evaluate(folder: Path, sentences: int) -> None:
    """Ask an arm the sentences of the choosing half."""
    if predictions(folder) is None:
        command(
            "eval_zero_shot.py", "--config", "recipes/eval/dev_closed.yaml", "--data_dir", WORK / "dev",
            "--benchmarks", "[dev_closed_sentences]", "--limit", sentences, "--model", folder / "model",
            "--output_dir", folder / "on_dev",
        )  # fmt: skip


def predictions(folder: Path) -> Path | None:
    """Return the predictions of an arm, or None if it is not finished."""
    runs = (ROOT / folder / "on_dev" / folder_name(str(folder / "model"))).glob("*/results.json")
    return next((file.with_name("predictions.jsonl") for file in runs), None)


def report() -> None:
    """Compare the finished arms with the arms that they change; write arms.json, table.md and the figure."""
    files = {name: file for name in ARMS if (file := predictions(WORK / name))}
    lines = {name: read_predictions(file) for name, file in files.items()}
    ways = {
        "free": lines,  # each type by itself, as in published rows
        "flat": {name: flatten(own, Selection(), None) for name, own in lines.items()},
        "fitted": {name: cross_fitted(own, passage_of) for name, own in lines.items()},
    }
    rows = {}
    for name in files:
        base = ARMS[name].base if ARMS[name].base in files else name
        training = json.loads((ROOT / WORK / name / "model" / "training.json").read_text(encoding="utf-8"))
        for_build, for_training = options(name)
        rows[name] = {
            "base": base, "build": for_build, "train": for_training, "trained_on": training["trained_on"],
            "seconds": training["seconds"],
            **{way: compare({one: by_arm[one] for one in (base, name)}, base)[name] for way, by_arm in ways.items()},
        }  # fmt: skip
    (ROOT / RESULTS).mkdir(parents=True, exist_ok=True)
    write_json(ROOT / RESULTS / "arms.json", rows)
    table = [
        "| arm | gain over | conversations | tokens | seconds | free: official F1 | gain [95 %] "
        "| flat: official F1 | gain [95 %] | flat: strict F1 | gain [95 %] | fitted: strict F1 | gain [95 %] |",
        "|---|---|" + "--:|" * 11,
    ]
    for name, row in rows.items():
        size, cells = row["trained_on"], []
        for way, scorer in (("free", "official"), ("flat", "official"), ("flat", "strict"), ("fitted", "strict")):
            score = row[way][scorer]
            low, high = score["interval"]
            cells += [f"{score['f1']:.1f}", f"{score['gain']:+.1f} [{low:+.1f}, {high:+.1f}]"]
        numbers = [str(size["conversations"]), f"{size['tokens']:,}", f"{row['seconds']:.0f}"]
        table.append(f"| {' | '.join([name, row['base'], *numbers, *cells])} |")
    (ROOT / RESULTS / "table.md").write_text("\n".join(table) + "\n", encoding="utf-8")
    print("\n".join(table), flush=True)
    plot(rows)


def plot(rows: dict[str, dict]) -> None:
    """Draw the gain of each arm over its base, with its interval."""
    arms = [name for name in rows if name != "start"]
    if not arms:
        return
    figure = new_figure(7, 1.2 + 0.35 * len(arms))
    axes = figure.subplots()
    for place, name in enumerate(reversed(arms)):
        low, high = rows[name]["fitted"]["strict"]["interval"]
        axes.plot([low, high], [place, place], color=BLUE if low > 0 or high < 0 else GREY, linewidth=2)
        axes.plot(rows[name]["fitted"]["strict"]["gain"], place, "o", color=BLUE)
    axes.set_yticks(range(len(arms)), [f"{name} over {rows[name]['base']}" for name in reversed(arms)])
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set_xlabel("gain in strict F1 (flat, fitted) on the development set, with 95 % interval")
    save(figure, ROOT / RESULTS / "gains.png")


if __name__ == "__main__":
    run(main)
