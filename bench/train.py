"""Training speed of the authors' padded way, stock TRL and train_sft.py, on the same conversations and student.

    python bench/train.py [--dataset runs/quickstart/data/dataset] [--steps 3] [--runs 3] [--write results/bench]

Each way fine-tunes all weights for the same number of steps of four conversations, in its own process; in every run
the ways follow one another. Reported are medians of the steps' seconds, without loading. `padded` is UniversalNER's
fork of FastChat: every conversation padded to 1,024 tokens, and the loss computed over every position. `stock` is
TRL's command line with the marked chat template; it reads the rows in the same order as `ours`, so their losses are
compared step by step. `branched` is the default of train_sft.py. A GPU trains in bf16, and rows packed to 4,096
tokens are measured too: tokens per second, share of the GPU's bf16 peak (6 FLOPs per weight and token), peak memory.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
BATCH, PADDED = 4, 1024
WAYS = ("padded", "stock", "ours", "branched")
MODEL = "models/smollm2-135m-instruct"
BF16_PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense FLOPs per second, from the data sheets


def main() -> None:
    """Run every way in turns, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="runs/quickstart/data/dataset", help="folder with a config `type`")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--write", type=Path, help="folder for the results as JSON")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return pad_every_example(args)
    import torch

    gpu = torch.cuda.is_available()
    ways = [*WAYS, *(["stock packed", "packed"] if gpu else [])]
    measured: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for number in range(args.runs):
        for way in ways:
            with tempfile.TemporaryDirectory() as folder:
                measured[way].append(measure(way, args, Path(folder), gpu))
            seconds = measured[way][-1]["seconds"]
            print(f"run {number + 1}, {way}: {seconds:.1f} s for {args.steps} steps", flush=True)
    report = summarize(measured, args, gpu)
    print(report)
    if args.write:
        args.write.mkdir(parents=True, exist_ok=True)
        (args.write / ("train_gpu.json" if gpu else "train.json")).write_text(report + "\n", encoding="utf-8")


def measure(way: str, args: argparse.Namespace, folder: Path, gpu: bool) -> dict[str, Any]:
    """Train one way in its own process; returns its seconds, its losses by step, its tokens and its peak memory."""
    if way == "padded":
        given = ["--worker", folder, "--dataset", args.dataset, "--model", args.model, "--steps", args.steps]
        execute(sys.executable, __file__, *given)
        return json.loads((folder / "padded.json").read_text())
    options = [
        "--model_name_or_path", args.model, "--dataset_name", args.dataset, "--dataset_config", "type",
        "--output_dir", folder / "model", "--max_steps", args.steps, "--per_device_train_batch_size", BATCH,
        "--learning_rate", 1.5e-4, "--lr_scheduler_type", "cosine", "--warmup_steps", 0, "--weight_decay", 0,
        "--max_length", PADDED, "--train_sampling_strategy", "random", "--seed", 42, "--dtype", "float32",
        "--bf16", gpu, "--activation_checkpointing", False, "--logging_steps", 1, "--report_to", "none",
    ]  # fmt: skip
    packing = ["--packing", True, "--max_length", 4096, "--per_device_train_batch_size", 1] * way.endswith("packed")
    if way.startswith("stock"):
        marked = ["--assistant_only_loss", True, "--chat_template_path", "open_ner/chat_templates/smollm2.jinja"]
        printed = execute(Path(sys.executable).parent / "trl", "sft", *options, *marked, *packing)
        results = json.loads(next((folder / "model").glob("checkpoint-*/trainer_state.json")).read_text())
    else:
        own = ["--config", "recipes/sft/smollm2_135m/cpu.yaml", *options, "--branches", way == "branched"]
        printed = execute(sys.executable, "train_sft.py", *own, *packing)
        results = json.loads((folder / "model" / "training.json").read_text())
    entries = [entry for entry in results.get("history") or results["log_history"] if "loss" in entry]
    return {
        "seconds": float(printed.split("'train_runtime': ")[1].split(",")[0].strip("'\"")),
        "losses": [entry["loss"] for entry in entries],
        "tokens": entries[-1]["num_tokens"],
        "peak_gpu_bytes": results.get("peak_gpu_bytes"),
    }


def pad_every_example(args: argparse.Namespace) -> None:
    """The authors' way, with the Trainer of transformers: rows padded to 1,024 tokens, the model's own loss."""
    import torch
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, DataCollatorForSeq2Seq, Trainer, TrainingArguments

    from sft.conversations import tokenize
    from sft.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(args.model)
    rows, _ = tokenize(load_dataset(args.dataset, "type", split="train"), tokenizer, PADDED)
    torch.set_num_threads(os.cpu_count() or 1)
    trainer = Trainer(
        model=AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32),
        args=TrainingArguments(
            output_dir=str(args.worker), max_steps=args.steps, per_device_train_batch_size=BATCH, learning_rate=1.5e-4,
            lr_scheduler_type="cosine", bf16=torch.cuda.is_available(), logging_steps=1, save_strategy="no",
            report_to="none", seed=42,
        ),
        train_dataset=rows, data_collator=DataCollatorForSeq2Seq(tokenizer, padding="max_length", max_length=PADDED),
    )  # fmt: skip
    trainer.train()
    history = trainer.state.log_history
    losses = [entry["loss"] for entry in history if "loss" in entry]
    result = {"seconds": history[-1]["train_runtime"], "losses": losses, "tokens": args.steps * BATCH * PADDED}
    (args.worker / "padded.json").write_text(json.dumps(result))


def execute(*words: object) -> str:
    """Run a command with all cores and return its output; if it fails, show the end of it and exit."""
    command = [str(word) for word in words]
    environment = os.environ | {"OMP_NUM_THREADS": str(os.cpu_count()), "HF_HUB_OFFLINE": "1"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    printed = ended.stdout + ended.stderr
    if ended.returncode:
        sys.exit(f"{' '.join(command)}\n{printed[-3000:]}")
    return printed


def summarize(measured: dict[str, list[dict[str, Any]]], args: argparse.Namespace, gpu: bool) -> str:
    """JSON of all seconds, ratios to train_sft.py, and the largest difference of its losses to stock TRL's."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    seconds = {way: statistics.median(run["seconds"] for run in runs) for way, runs in measured.items()}
    pairs = zip(measured["stock"][0]["losses"], measured["ours"][0]["losses"], strict=True)
    hardware = torch.cuda.get_device_name(0) if gpu else f"{platform.machine()} CPU, {os.cpu_count()} cores"
    report = {
        "command": "python bench/train.py", "student": args.model, "steps": args.steps, "conversations_a_step": BATCH,
        "runs": args.runs, "hardware": hardware,
        "seconds": {way: [run["seconds"] for run in runs] for way, runs in measured.items()},
        "conversations_per_second": {way: args.steps * BATCH / seconds[way] for way in WAYS},
        "tokens": {way: runs[0]["tokens"] for way, runs in measured.items()},
        "ours_over_padded": seconds["padded"] / seconds["ours"],
        "ours_over_stock": seconds["stock"] / seconds["ours"],
        "largest_loss_difference_to_stock": max(abs(a - b) for a, b in pairs),
    }  # fmt: skip
    if gpu:
        with torch.device("meta"):
            student = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(args.model))
        flops = 6 * sum(parameter.numel() for parameter in student.parameters())
        peak = next((value for name, value in BF16_PEAK.items() if name in hardware), None)
        report["packed_over_stock_packed"] = seconds["stock packed"] / seconds["packed"]
        for way in ("packed", "branched"):
            rate = measured[way][0]["tokens"] / seconds[way]
            report[way] = {
                "tokens_per_second": rate, "share_of_bf16_peak": flops * rate / peak if peak else None,
                "peak_gpu_bytes": measured[way][0]["peak_gpu_bytes"],
            }  # fmt: skip
    return json.dumps(report, indent=1)


if __name__ == "__main__":
    main()
