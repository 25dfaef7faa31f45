"""A real student on a real distilled set: multi-turn beside branched training, the better one scored at zero-shot.

    python bench/student.py --data DISTILLED --zero_shot ZERO_SHOT [--work_dir runs/student] [--conversations 500]

DISTILLED holds passages.jsonl.gz and answers.jsonl.gz (recorded teacher answers); ZERO_SHOT is the folder that
recipes/eval/uniner.yaml asks for. A passage is of the development set when SHA-256 of its id is 0 modulo 10; none is
trained on, and only they choose between the two ways of training. Every step is a command of this project, printed as
it starts; a step whose result is there is not run again. On a GPU leave out --conversations, --limit and --max_queries
and give --recipe recipes/sft/smollm2_135m/distilled.yaml.
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
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
WAYS = {"multi_turn": "false", "branched": "true"}


def main() -> None:
    """Split, build, train both ways, choose, score, collect."""
    args = parse_arguments()
    folders = {part: args.work_dir / part for part in ("train", "dev")}
    if not (args.work_dir / "dev" / "passages.jsonl").exists():
        split(args.data / "passages.jsonl.gz", folders)
    for part, folder in folders.items():
        if not (folder / "dataset" / "README.md").exists():
            build(args, folder, validation=part == "train")
    suite = write_suite(args, folders["dev"])
    for way, branches in WAYS.items():
        model = args.work_dir / way
        if not (model / "training.json").exists():
            train(args, folders["train"] / "dataset", model, branches)
        if not results_of(model, model / "on_dev"):
            command("eval_zero_shot.py", "--config", suite, "--model", model, "--output_dir", model / "on_dev")
    chosen = max(WAYS, key=lambda way: f1(args.work_dir / way, args.work_dir / way / "on_dev"))
    print(f"better on the development set: {chosen}", flush=True)
    if not results_of(args.work_dir / chosen, args.work_dir / "zero_shot"):
        command(
            "eval_zero_shot.py", "--config", "recipes/eval/uniner.yaml", "--data_dir", args.zero_shot, "--model",
            args.work_dir / chosen, "--output_dir", args.work_dir / "zero_shot",
            *(["--limit", args.limit] if args.limit else []), "--max_new_tokens", args.max_new_tokens,
            "--token_budget", args.token_budget,
        )  # fmt: skip
    collect(args, chosen)


def parse_arguments() -> argparse.Namespace:
    """The command line; paths are made to survive the working directory of the commands, the project's root."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=lambda path: Path(path).resolve(), required=True)
    parser.add_argument("--zero_shot", type=lambda path: Path(path).resolve(), required=True)
    parser.add_argument("--work_dir", type=Path, default=Path("runs/student"))
    parser.add_argument("--recipe", default="recipes/sft/smollm2_135m/cpu.yaml")
    parser.add_argument(
        "--conversations", type=int, help="train on the first N of the shuffled passages; default: all"
    )
    parser.add_argument("--max_queries", type=int, help="types asked of a training passage at most; default: all")
    parser.add_argument("--dev_passages", type=int, help="development passages scored; default: all")
    parser.add_argument("--limit", type=int, help="sentences of each zero-shot set, a seeded sample; default: all")
    parser.add_argument("--max_new_tokens", type=int, default=256, help="longest answer when scored")
    parser.add_argument("--token_budget", type=int, default=65536, help="tokens of cache in one batch when scored")
    return parser.parse_args()


def command(*words: object) -> None:
    """Run a command of the project with this interpreter, and stop where it fails."""
    line = [str(word) for word in words]
    print("$ python " + " ".join(line), flush=True)
    subprocess.run([sys.executable, *line], cwd=ROOT, check=True)


def split(path: Path, folders: dict[str, Path]) -> None:
    """Passages into training and development ones, in a seeded order so that the first N are a fair sample."""
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
    """A dataset of one part's passages; the development part is one split, with every present type."""
    command(
        "-m", "dataset_builder", "--config", "recipes/build/sample.yaml", "--output_dir", folder,
        "--name", "uniner-distill-student", "--corpus.path", folder / "passages.jsonl",
        "--corpus.max_tokens", 1000, "--corpus.min_words", 1, "--teacher.variants", "[type]",
        "--teacher.recorded", args.data / "answers.jsonl.gz", "--contamination.benchmarks", "[]",
        "--dataset.negative_ratio", "1.0", "--dataset.max_queries", args.max_queries or "null",
        "--dataset.validation_one_in", 20 if validation else 0,
    )  # fmt: skip


def write_suite(args: argparse.Namespace, folder: Path) -> Path:
    """The development set as a benchmark with offsets: each passage with its present and its absent types."""
    from datasets import load_dataset

    from open_ner.conversation import read_conversation

    rows = load_dataset(str(ROOT / folder / "dataset"), "type", split="train", download_mode="force_redownload")
    with (ROOT / folder / "queries.jsonl").open("w", encoding="utf-8") as file:
        for row in rows.select(range(min(args.dev_passages or len(rows), len(rows)))):
            types = [name for name, _ in read_conversation(row["messages"])[2]]
            own = [entity for entity in row["entities"] if entity["type"] in types]
            print(json.dumps({"id": row["id"], "text": row["text"], "types": types, "entities": own}), file=file)
    benchmark = {"name": "dev", "path": str(folder / "queries.jsonl"), "format": "offsets", "domain": "mixed"}
    (ROOT / folder / "dev.yaml").write_text(yaml.safe_dump(benchmark))
    suite = {
        "name": "dev", "benchmarks": [str(ROOT / folder / "dev")], "protocol": "dev", "decoding": "free",
        "max_new_tokens": args.max_new_tokens, "token_budget": args.token_budget,
    }  # fmt: skip
    (ROOT / folder / "suite.yaml").write_text(yaml.safe_dump(suite))
    return folder / "suite.yaml"


def train(args: argparse.Namespace, dataset: Path, model: Path, branches: str) -> None:
    """One student; the same conversations either way."""
    command(
        "-m", "accelerate.commands.launch", "--quiet", "train_sft.py", "--config", args.recipe, "--dataset_name",
        dataset, "--output_dir", model, "--branches", branches,
        *(["--max_conversations", args.conversations] if args.conversations else []),
    )  # fmt: skip


def results_of(model: Path, folder: Path) -> Path | None:
    """The results file of a model's run under `folder`, where it has ended."""
    return next((ROOT / folder / str(model).strip("/.").replace("/", "--")).glob("*/results.json"), None)


def gains(args: argparse.Namespace) -> dict[str, Any]:
    """Gain of branched over multi-turn training on the development set, with paired bootstrap intervals."""
    from zero_shot.scoring import compare

    predictions = []
    for model in (args.work_dir / way for way in ("branched", "multi_turn")):
        lines = results_of(model, model / "on_dev").with_name("predictions.jsonl").read_text(encoding="utf-8")
        predictions.append([json.loads(line) for line in lines.splitlines()])
    return compare(*predictions, seen_types=None, seed=42)


def f1(model: Path, folder: Path) -> float:
    """Official F1 on the development set."""
    return json.loads(results_of(model, folder).read_text())["benchmarks"]["dev"]["official"]["f1"]


def collect(args: argparse.Namespace, chosen: str) -> None:
    """Copy what a reader wants to see to results/student/, without predictions and this machine's paths."""
    target = ROOT / "results" / "student"
    target.mkdir(parents=True, exist_ok=True)
    hidden = {str(args.data): "DISTILLED", str(args.zero_shot): "ZERO_SHOT", f"{ROOT}/": ""}

    def copy(source: Path, name: str) -> None:
        text = source.read_text(encoding="utf-8")
        for path, word in hidden.items():
            text = text.replace(path, word)
        (target / name).write_text(text, encoding="utf-8")

    for way in WAYS:
        model = args.work_dir / way
        copy(results_of(model, model / "on_dev"), f"dev_{way}.json")
        copy(ROOT / model / "training.json", f"training_{way}.json")
    (target / "dev_gain_of_branches.json").write_text(json.dumps(gains(args), indent=1) + "\n")
    copy(results_of(args.work_dir / chosen, args.work_dir / "zero_shot"), "zero_shot.json")
    copy(ROOT / args.work_dir / "zero_shot" / "table.md", "table.md")
    for picture in (ROOT / args.work_dir / "zero_shot" / "figures").glob("*.png"):
        (target / "figures").mkdir(exist_ok=True)
        shutil.copy(picture, target / "figures")
    shutil.copy(ROOT / args.work_dir / chosen / "figures" / "learning_curve.png", target / "figures")


if __name__ == "__main__":
    main()
