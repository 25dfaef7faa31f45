"""The steps from recorded replies to a student's predictions, for bench/ablations.py and bench/results.py.

Each is a command of this project, which is printed. A finished step is not run again, and an interrupted training or
evaluation goes on where it stopped. Folders are relative to the project's root, where the commands run.
"""

import gzip
import hashlib
import json
import random
import subprocess
import sys
from pathlib import Path

from bench.answers import is_choosing
from command_line.hardware import fast_bf16
from open_ner.tools.errors import UserError
from zero_shot.predict import folder_name

ROOT = Path(__file__).parent.parent.parent
BASE = "models/smollm2-135m-instruct"


def command(*words: object) -> None:
    """Print and run a command of the project with this interpreter.

    Raises UserError if the command fails; the command has then printed the reason.
    """
    line = [str(word) for word in words]
    print("$ python " + " ".join(line), flush=True)
    if code := subprocess.run([sys.executable, *line], cwd=ROOT).returncode:
        raise UserError(f"{line[0]} stopped with exit code {code}; the same command goes on from here")


def sources(data: Path, dev: Path) -> list[Path]:
    """Return the files of passages and replies, and of the development set's passages and sentences."""
    return [
        data / "passages.jsonl.gz", data / "answers.jsonl.gz", dev / "passages.jsonl.gz", dev / "sentences.jsonl.gz"
    ]  # fmt: skip


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


def build(folder: Path, passages: Path, replies: dict[str, Path], options: dict[str, object]) -> Path:
    """Build a dataset from recorded replies, without a validation split, and return its folder.

    Args:
        folder: folder of the run.
        passages: JSONL file of the passages.
        replies: by prompt variant, the file of recorded replies to these passages, and perhaps to others.
        options: options of the section `dataset` of the recipe.
    """
    dataset = folder / "dataset"
    if not (ROOT / dataset / "README.md").exists():
        given = [
            word
            for name, value in options.items()
            for word in (f"--dataset.{name}", "null" if value is None else value)
        ]
        command(
            "-m", "dataset_builder", "--config", "recipes/build/sample.yaml", "--output_dir", folder,
            "--name", "uniner-distill-bench", "--corpus.path", passages,
            "--corpus.max_tokens", 1000, "--corpus.min_words", 1, "--teacher.variants", json.dumps(list(replies)),
            "--teacher.recorded", json.dumps({variant: str(file) for variant, file in replies.items()}),
            "--contamination.benchmarks", "[]", "--dataset.validation_one_in", 0,
            *given,
        )  # fmt: skip
    return dataset


def train(folder: Path, recipe: str, dataset: Path, options: dict[str, object]) -> Path:
    """Train a student with twenty checkpoints on the way, of which the newest is kept, and return its folder.

    The option `bf16` is applied only if the hardware computes bfloat16 fast; other CPUs train in float32.
    """
    if not (ROOT / folder / "training.json").exists():
        options = options | precision(bool(options.get("bf16")))
        command(
            "-m", "accelerate.commands.launch", "--quiet", "train_sft.py", "--config", recipe,
            "--dataset_name", dataset, "--output_dir", folder,
            "--save_strategy", "steps", "--save_steps", 0.05, "--save_total_limit", 1,
            *(word for name, value in options.items() for word in (f"--{name}", value)),
        )  # fmt: skip
    return folder


def precision(bf16: bool) -> dict[str, object]:
    """Return the options to train in bfloat16 if it is requested and fast on this machine, otherwise in float32."""
    import torch

    if torch.cuda.is_available() or not bf16:
        return {"bf16": bf16}
    return {"bf16": True, "use_cpu": True} if fast_bf16() else {"bf16": False}


def count_conversations(dataset: Path, tokens: int) -> int:
    """Return how many conversations, from the first one, have at most `tokens` tokens."""
    from sft.conversations import load_conversations, tokenize
    from sft.tokenizer import load_tokenizer

    rows, _ = tokenize(
        load_conversations(str(ROOT / dataset), "type", "train", None, True),
        load_tokenizer(str(ROOT / BASE)), None, branches=True,
    )  # fmt: skip
    for number, length in enumerate(rows["length"]):
        tokens -= length
        if tokens < 0:
            return number
    return len(rows)


def evaluate(model: Path, folder: Path, suite: str | Path, *options: object) -> Path:
    """Evaluate a student on a suite, in bfloat16 if that is fast, and return the file of its predictions."""
    if (found := predictions(model, folder)) is None:
        dtype = ["--dtype", "bfloat16"] if fast_bf16() else []
        command("eval_zero_shot.py", "--config", suite, "--model", model, "--output_dir", folder, *dtype, *options)
        found = predictions(model, folder)
    assert found is not None  # the command has succeeded
    return found


def predictions(model: Path, folder: Path) -> Path | None:
    """Return the predictions of a student in a folder of results, or None if they are not finished."""
    runs = (ROOT / folder / folder_name(str(model))).glob("*/results.json")
    return next((file.with_name("predictions.jsonl") for file in runs), None)
