"""Measure what bfloat16 saves on a CPU: training and evaluation in float32 and in bfloat16, side by side.

    python bench/bf16.py [--steps 12] [--passages 16] [--repeats 2]      # five minutes on two quiet cores

The commands are those of the quick-start, whose dataset and student must exist (`make quickstart`). Both types train
on the same batches, and the runs alternate. Seconds are those that the commands report: of the training steps, and of
the predictions. Writes results/bench/bf16.json.
"""

import argparse
import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from bench.parts.provenance import provenance  # noqa: E402
from bench.parts.steps import command  # noqa: E402
from command_line.hardware import fast_bf16  # noqa: E402
from open_ner.tools.errors import UserError, run  # noqa: E402
from open_ner.tools.files import read_json, read_jsonl, write_json  # noqa: E402

TYPES = ("float32", "bfloat16")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12, help="training steps")
    parser.add_argument("--passages", type=int, default=16, help="passages to answer")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--model", default="runs/quickstart/model", help="student to evaluate")
    args = parser.parse_args()
    if not fast_bf16():
        raise UserError("this CPU has no instructions for bfloat16, which it would only emulate")
    training: dict[str, list[float]] = {name: [] for name in TYPES}
    evaluation: dict[str, list[float]] = {name: [] for name in TYPES}
    answers: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(args.repeats):
            for name in TYPES:
                run_folder = Path(folder) / f"{name}{number}"
                training[name].append(train(run_folder / "model", name, args.steps))
                seconds, answers[name] = evaluate(run_folder / "results", name, args.model, args.passages)
                evaluation[name].append(seconds)
    same = sum(one == other for one, other in zip(*answers.values(), strict=True))
    results = {
        **provenance(),
        "torch": version("torch"), "steps": args.steps, "passages": args.passages,
        "training_seconds": training, "evaluation_seconds": evaluation,
        "training_speedup": round(median(training["float32"]) / median(training["bfloat16"]), 2),
        "evaluation_speedup": round(median(evaluation["float32"]) / median(evaluation["bfloat16"]), 2),
        "queries": len(answers["float32"]), "identical_answers": same,
    }  # fmt: skip
    write_json(ROOT / "results" / "bench" / "bf16.json", results)
    print(json.dumps(results, indent=1))


def train(folder: Path, name: str, steps: int) -> float:
    """Train the quick-start's student for a few steps, and return the seconds of the steps."""
    bf16 = str(name == "bfloat16").lower()
    command(
        "-m", "accelerate.commands.launch", "--quiet", "train_sft.py", "--config", "recipes/sft/smollm2_135m/cpu.yaml",
        "--output_dir", folder, "--max_steps", steps, "--bf16", bf16, "--use_cpu", "true",
    )  # fmt: skip
    return read_json(folder / "training.json")["steps_seconds"]


def evaluate(folder: Path, name: str, model: str, passages: int) -> tuple[float, list[str]]:
    """Answer embedded passages, and return the seconds and the replies."""
    command(
        "eval_zero_shot.py", "--config", "recipes/eval/sample.yaml", "--model", model, "--limit", passages,
        "--dtype", name, "--output_dir", folder,
    )  # fmt: skip
    [results] = folder.glob("*/*/results.json")
    seconds = read_json(results)["seconds"]
    return seconds, [line["raw"] for line in read_jsonl(results.with_name("predictions.jsonl"))]


if __name__ == "__main__":
    run(main)
