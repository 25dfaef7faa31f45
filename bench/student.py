"""Train a student on a real distilled set, multi-turn and branched, and score the better one at zero-shot.

    python bench/student.py --data DISTILLED --zero_shot ZERO_SHOT [--work_dir runs/student] [--conversations 500]

DISTILLED has passages.jsonl.gz and answers.jsonl.gz (recorded teacher replies); ZERO_SHOT is the `data_dir` of
recipes/eval/uniner.yaml. A passage is in the development set if SHA-256 of its id is 0 modulo 10. These passages are
not trained on, and they alone choose between the two ways of training. Every step is a command of this project, which
is printed; a step whose result exists is not run again. On a GPU omit --conversations, --limit and --max_queries, and
give --recipe recipes/sft/smollm2_135m/distilled.yaml.
"""

import argparse
import gzip
import hashlib
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from zero_shot.predict import folder_name  # noqa: E402

WAYS = {"multi_turn": "false", "branched": "true"}


def main() -> None:
    """Split, build, train both ways, choose, score, collect."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # the commands run in the project's root, so paths of data are made absolute
    parser.add_argument("--data", type=lambda path: Path(path).resolve(), required=True)
    parser.add_argument("--zero_shot", type=lambda path: Path(path).resolve(), required=True)
    parser.add_argument("--work_dir", type=Path, default=Path("runs/student"))
    parser.add_argument("--recipe", default="recipes/sft/smollm2_135m/cpu.yaml")
    parser.add_argument("--conversations", type=int, help="train on the first N passages only; default: all")
    parser.add_argument("--max_queries", type=int, help="most queries per training passage; default: all")
    parser.add_argument("--dev_passages", type=int, help="number of development passages to score; default: all")
    parser.add_argument("--limit", type=int, help="seeded sample of N passages per zero-shot set; default: all")
    parser.add_argument("--max_new_tokens", type=int, default=256, help="longest answer in the evaluation")
    parser.add_argument("--token_budget", type=int, default=65536, help="tokens per batch in the evaluation")
    args = parser.parse_args()
    folders = {part: args.work_dir / part for part in ("train", "dev")}
    if not (args.work_dir / "dev" / "passages.jsonl").exists():
        split(args.data / "passages.jsonl.gz", folders)
    for part, folder in folders.items():
        if not (folder / "dataset" / "README.md").exists():
            build(args, folder, validation=part == "train")
    suite, results = write_suite(args, folders["dev"]), {}
    for way, branches in WAYS.items():
        model = args.work_dir / way
        if not (model / "training.json").exists():
            command(
                "-m", "accelerate.commands.launch", "--quiet", "train_sft.py", "--config", args.recipe,
                "--dataset_name", folders["train"] / "dataset", "--output_dir", model, "--branches", branches,
                *(["--max_conversations", args.conversations] if args.conversations else []),
            )  # fmt: skip
        results[way] = evaluate(model, model / "on_dev", "--config", suite)
    f1 = {way: json.loads(file.read_text())["benchmarks"]["dev"]["official"]["f1"] for way, file in results.items()}
    chosen = max(WAYS, key=lambda way: f1[way])
    print(f"better on the development set: {chosen}", flush=True)
    results["zero_shot"] = evaluate(
        args.work_dir / chosen, args.work_dir / "zero_shot", "--config", "recipes/eval/uniner.yaml",
        "--data_dir", args.zero_shot, *(["--limit", args.limit] if args.limit else []),
        "--max_new_tokens", args.max_new_tokens, "--token_budget", args.token_budget,
    )  # fmt: skip
    collect(args, chosen, results)


def command(*words: object) -> None:
    """Print and run a command of the project with this interpreter; raise if it fails."""
    line = [str(word) for word in words]
    print("$ python " + " ".join(line), flush=True)
    subprocess.run([sys.executable, *line], cwd=ROOT, check=True)


def split(path: Path, folders: dict[str, Path]) -> None:
    """Split passages into training and development sets, in a seeded order, so that the first N are a fair sample."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = file.readlines()
    random.Random(42).shuffle(lines)
    parts: dict[str, list[str]] = {part: [] for part in folders}
    for line in lines:
        held_out = int(hashlib.sha256(json.loads(line)["id"].encode()).hexdigest(), 16) % 10 == 0
        parts["dev" if held_out else "train"].append(line)
    for part, own in parts.items():
        (ROOT / folders[part]).mkdir(parents=True, exist_ok=True)
        (ROOT / folders[part] / "passages.jsonl").write_text("".join(own), encoding="utf-8")


def build(args: argparse.Namespace, folder: Path, validation: bool) -> None:
    """Build the dataset of one part; the development part has no validation split."""
    command(
        "-m", "dataset_builder", "--config", "recipes/build/sample.yaml", "--output_dir", folder,
        "--name", "uniner-distill-student", "--corpus.path", folder / "passages.jsonl",
        "--corpus.max_tokens", 1000, "--corpus.min_words", 1, "--teacher.variants", "[type]",
        "--teacher.recorded", args.data / "answers.jsonl.gz", "--contamination.benchmarks", "[]",
        "--dataset.negative_ratio", "1.0", "--dataset.max_queries", args.max_queries or "null",
        "--dataset.validation_one_in", 20 if validation else 0,
    )  # fmt: skip


def write_suite(args: argparse.Namespace, folder: Path) -> Path:
    """Write the suite of the development set; its dataset is the benchmark."""
    benchmark = {"name": "dev", "path": str(folder / "dataset"), "format": "conversations", "config": "type"}
    benchmark |= {"split": "train", "domain": "mixed"}
    (ROOT / folder / "dev.yaml").write_text(yaml.safe_dump(benchmark))
    suite = {
        "name": "dev", "benchmarks": [str(ROOT / folder / "dev.yaml")], "protocol": "dev", "decoding": "free",
        "limit": args.dev_passages, "max_new_tokens": args.max_new_tokens, "token_budget": args.token_budget,
    }  # fmt: skip
    (ROOT / folder / "suite.yaml").write_text(yaml.safe_dump(suite))
    return folder / "suite.yaml"


def evaluate(model: Path, folder: Path, *options: object) -> Path:
    """Evaluate a model unless its results.json is under `folder`; returns that file."""
    results = ROOT / folder / folder_name(str(model))
    if not any(results.glob("*/results.json")):
        command("eval_zero_shot.py", *options, "--model", model, "--output_dir", folder)
    return next(results.glob("*/results.json"), None) or sys.exit(f"{folder}: no results of {model}")


def collect(args: argparse.Namespace, chosen: str, results: dict[str, Path]) -> None:
    """Copy results to results/student/, without predictions and paths of this machine."""
    from zero_shot.records import read_predictions
    from zero_shot.scoring import compare

    target = ROOT / "results" / "student"
    (target / "figures").mkdir(parents=True, exist_ok=True)
    hidden = {str(args.data): "DISTILLED", str(args.zero_shot): "ZERO_SHOT", f"{ROOT}/": ""}

    copies = {"zero_shot.json": results["zero_shot"], "table.md": ROOT / args.work_dir / "zero_shot" / "table.md"}
    for way in WAYS:
        copies |= {
            f"dev_{way}.json": results[way],
            f"training_{way}.json": ROOT / args.work_dir / way / "training.json",
        }
    for name, source in copies.items():
        text = source.read_text(encoding="utf-8")
        for path, word in hidden.items():
            text = text.replace(path, word)
        (target / name).write_text(text, encoding="utf-8")
    files = [results[way].with_name("predictions.jsonl") for way in ("branched", "multi_turn")]
    gains = compare(*map(read_predictions, files), seen_types=None, seed=42)
    (target / "dev_gain_of_branches.json").write_text(json.dumps(gains, indent=1) + "\n")
    curve = ROOT / args.work_dir / chosen / "figures" / "learning_curve.png"
    for picture in [curve, *(ROOT / args.work_dir / "zero_shot" / "figures").glob("*.png")]:
        shutil.copy(picture, target / "figures")


if __name__ == "__main__":
    main()
