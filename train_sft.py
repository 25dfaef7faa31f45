"""Tune a student on a distilled dataset with TRL's SFTTrainer; the loss is on the answers alone.

    accelerate launch train_sft.py --config recipes/sft/smollm2_135m/cpu.yaml
    accelerate launch train_sft.py --config RECIPE --model_name_or_path org/model --dataset_name org/dataset
    accelerate launch train_sft.py --config RECIPE --push_to_hub --hub_model_id org/my-ner

Without arguments it runs the first line. Every option of SFTConfig and ModelConfig may stand in the recipe or on the
command line, which has the last word. A killed run goes on from its newest checkpoint when the same command is given
again.
"""

import dataclasses
import os
import sys
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from command_line.pretrained import load_or_explain
from command_line.recipes import read_yaml, refuse_unknown
from open_ner.tools.errors import UserError, run

DEFAULT_RECIPE = "recipes/sft/smollm2_135m/cpu.yaml"
# what decides the course of a run: with another value, a checkpoint is of another run
IDENTITY = (
    "num_train_epochs", "max_steps", "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "optim",
    "packing", "train_sampling_strategy", "seed",
)  # fmt: skip


@dataclass
class ScriptArguments:
    """What is trained on; train_sft never changes a conversation."""

    dataset_name: str = field(default="", metadata={"help": "folder or Hub id of a dataset with `messages`"})
    dataset_config: str = field(default="type", metadata={"help": "config of the dataset"})
    dataset_train_split: str = field(default="train", metadata={"help": "split to train on"})
    dataset_eval_split: str = field(default="validation", metadata={"help": "split of held-out passages"})
    eval_passages: int = field(
        default=100, metadata={"help": "held-out conversations that an evaluation (eval_strategy) scores"}
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": "evaluations without a better metric_for_best_model, such as entity_f1, that end training"},
    )
    branches: bool = field(
        default=True,
        metadata={"help": "train each question of a passage in sight of the passage alone, as inference asks it"},
    )
    after: str | None = field(
        default=None,
        metadata={"help": "recipe of the stage this one goes on from; trained first unless its student is there"},
    )
    license: str = field(default="other", metadata={"help": "license of the tuned model, as the Hub spells it"})
    cpu_threads: int | None = field(
        default=None, metadata={"help": "threads of a process on CPU; default: its share of the cores"}
    )
    max_conversations: int | None = field(default=None, metadata={"help": "train on the first N, for a trial"})


def parse_arguments(arguments: list[str]) -> tuple:
    """`(ScriptArguments, SFTConfig, ModelConfig)` of a recipe and the command line; UserError if wrong."""
    from trl import ModelConfig, SFTConfig, TrlParser

    if "--config" not in arguments:
        print(f"no --config given: running {DEFAULT_RECIPE}")
        arguments = ["--config", DEFAULT_RECIPE, *arguments]
    parser = TrlParser((ScriptArguments, SFTConfig, ModelConfig), allow_abbrev=False)

    def refuse(message: str) -> None:
        raise UserError(f"{message}: see train_sft.py --help")

    parser.error = refuse
    recipe = dict(zip(arguments, arguments[1:], strict=False))["--config"]
    refuse_unknown(read_yaml(recipe), {action.dest for action in parser._actions} | {"env"}, recipe)
    try:
        script, config, model_config = parser.parse_args_and_config(arguments)
    except (ValueError, TypeError) as error:
        hint = "; on CPU set bf16: false" if "bf16" in str(error) else ""
        raise UserError(f"{recipe}: {error}{hint}") from None
    if script.after and not model_config.model_name_or_path:
        model_config.model_name_or_path = read_yaml(script.after).get("output_dir")
    if not script.dataset_name:
        raise UserError("no dataset: give dataset_name, a folder or a Hub id")
    if not model_config.model_name_or_path:
        raise UserError("no student: give model_name_or_path, a folder or a Hub id")
    for tracker in config.report_to:  # the Trainer finds out after the weights are loaded
        if tracker in ("trackio", "tensorboard", "wandb", "mlflow") and find_spec(tracker) is None:
            raise UserError(f"report_to {tracker} needs it installed: pip install {tracker}, or report_to: none")
    if script.branches and config.packing:
        raise UserError("branches and packing exclude each other: set packing: false")
    if script.branches and model_config.attn_implementation not in (None, "sdpa", "flex_attention"):
        raise UserError(f"branches need sdpa or flex_attention, not {model_config.attn_implementation!r}")
    if script.early_stopping_patience is not None and not (config.load_best_model_at_end and config.save_total_limit):
        raise UserError(
            "early_stopping_patience goes back to the best checkpoint: set load_best_model_at_end: true, "
            "metric_for_best_model: entity_f1 and a save_total_limit"
        )
    return script, config, model_config


def load_conversations(script: ScriptArguments, split: str, fresh: bool = True) -> "datasets.Dataset":  # noqa: F821
    """The rows of a split, of a local folder read anew if `fresh`; UserError for one that is not there or empty."""
    from datasets import load_dataset

    # the cache key of a local folder does not see its contents: a rebuilt dataset must not be read from there
    mode = "force_redownload" if fresh and Path(script.dataset_name).is_dir() else None
    try:
        rows = load_dataset(script.dataset_name, script.dataset_config, split=split, download_mode=mode)
    except Exception as error:  # `datasets` raises dozens of kinds for a source it cannot read
        raise UserError(
            f"dataset {script.dataset_name!r}, config {script.dataset_config!r}, split {split!r} cannot be read: "
            f"{str(error):.200}"
        ) from None
    if not len(rows):
        raise UserError(f"dataset {script.dataset_name!r} has no rows in split {split!r}")
    return rows


def count_entities(replies: list[str], gold: list[str]) -> tuple[int, int, int]:
    """True positives, predicted and gold entities under the official scorer."""
    from metrics.entity_f1.entity_f1 import Counts, official_counts

    total = sum((official_counts(*pair) for pair in zip(replies, gold, strict=True)), Counts())
    return total.tp, total.n_pred, total.n_gold


def main() -> None:
    """Train the stage before this one where there is one and its student is missing, then this one."""
    from sft.saving import FINISHED

    stages = [parse_arguments(sys.argv[1:])]
    while recipe := stages[0][0].after:
        stages.insert(0, parse_arguments(["--config", recipe]))
    for number, (script, config, model_config) in enumerate(stages):
        if number < len(stages) - 1:
            if (Path(config.output_dir) / FINISHED).exists():
                print(f"stage {number + 1} of {len(stages)}: {config.output_dir} is there already")
                continue
            print(f"stage {number + 1} of {len(stages)}: {config.output_dir}")
        train(script, config, model_config)


def train(script: ScriptArguments, config: Any, model_config: Any) -> None:
    """Load, tokenize, train, save, push: one stage."""
    import torch
    from transformers import AutoModelForCausalLM, EarlyStoppingCallback, set_seed
    from trl import get_peft_config

    from hub.model_card import write_model_card
    from hub.publish import publish_folder, require_token
    from sft.adapters import quantization
    from sft.conversations import tokenize
    from sft.disk import count_bytes, require_space
    from sft.evaluation import HeldOut
    from sft.learning_curve import plot_learning_curve
    from sft.resume import choose_checkpoint, claim, hash_tokens
    from sft.saving import answering_config, save_student
    from sft.tokenizer import load_tokenizer, read_window
    from sft.trainer import AnswerTrainer

    push, config.push_to_hub = config.push_to_hub, False  # uploads go through hub.publish, with our card
    if push:
        require_token()
        if not config.hub_model_id:
            raise UserError("--push_to_hub needs --hub_model_id org/name")
    if config.device.type == "cpu":
        if config.bf16:
            raise UserError("bf16 on a CPU is several times slower: set bf16: false")
        # `accelerate launch` leaves one thread, however many cores there are
        torch.set_num_threads(script.cpu_threads or max(1, (os.cpu_count() or 1) // config.world_size))
    set_seed(config.seed)
    quantized = quantization(model_config)
    tokenizer = load_tokenizer(model_config.model_name_or_path, model_config.model_revision)
    window = read_window(model_config.model_name_or_path, model_config.model_revision)

    def prepare(split: str, first: int | None) -> tuple:
        rows = load_conversations(script, split, fresh=config.local_process_index == 0)
        rows = rows.select(range(min(first or len(rows), len(rows))))
        return rows, *tokenize(rows, tokenizer, config.max_length, window, config.dataset_num_proc, script.branches)

    # one process of a machine at a time, and only the first reads anew: that removes files the others would be reading
    with config.main_process_first(desc="dataset"):
        _, rows, report = prepare(script.dataset_train_split, script.max_conversations)
        held_out = eval_rows = None
        if config.eval_strategy != "no":
            conversations, eval_rows, _ = prepare(script.dataset_eval_split, script.eval_passages)
            held_out = HeldOut(conversations["messages"], count_entities)
    folder = Path(config.output_dir)
    batch = config.per_device_train_batch_size * config.gradient_accumulation_steps * config.world_size
    identity = {
        "model_name_or_path": model_config.model_name_or_path,
        "data_hash": hash_tokens(rows),
        "branches": script.branches,
        "global_batch_size": batch,
        **{name: getattr(config, name) for name in IDENTITY},
        **{name: getattr(model_config, name) for name in ("use_peft", "lora_r", "lora_alpha", "load_in_4bit")},
    }
    checkpoint = choose_checkpoint(folder, config.resume_from_checkpoint)
    claim(folder, identity)
    print(
        f"training on {report['conversations']:,} conversations, {report['queries']:,} queries, "
        f"{report['answer_tokens']:,} answer tokens of {report['tokens']:,}"
    )
    attention = "flex_attention" if script.branches and config.device.type == "cuda" else "sdpa"
    model = load_or_explain(
        AutoModelForCausalLM,
        model_config.model_name_or_path,
        revision=model_config.model_revision,
        quantization_config=quantized,
        dtype=getattr(torch, model_config.dtype or "float32"),
        attn_implementation=model_config.attn_implementation or attention,
    )
    model.generation_config = answering_config(tokenizer)  # evaluations end answers where the student is to end them
    require_space(folder, count_bytes(model, config))
    trainer = AnswerTrainer(
        model=model,
        args=config,
        train_dataset=rows,
        eval_dataset=eval_rows,
        processing_class=tokenizer,
        peft_config=get_peft_config(model_config),
        branches=script.branches,
        held_out=held_out,
        callbacks=[EarlyStoppingCallback(script.early_stopping_patience)] if script.early_stopping_patience else None,
    )
    started = time.monotonic()
    if checkpoint:
        print(f"going on from {checkpoint}")
    measured = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None).metrics
    history = [entry for entry in trainer.state.log_history if "loss" in entry or "eval_loss" in entry]
    losses = [entry["loss"] for entry in history if "loss" in entry]
    results = {
        "seconds": round(time.monotonic() - started, 1),
        "resumed_from": checkpoint.name if checkpoint else None,
        "steps_seconds": round(measured["train_runtime"], 2),  # since the start or the checkpoint, without loading
        "peak_gpu_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
        "name": (config.hub_model_id or f"{model_config.model_name_or_path}-open-ner").rstrip("/").split("/")[-1],
        "base_model": model_config.model_name_or_path,
        "dataset": script.dataset_name,
        "trained_on": report,
        "history": history,
        "run": identity,
        "recipe": {
            **{key: getattr(model_config, key) for key in ("model_name_or_path", "dtype", "use_peft")},
            **dataclasses.asdict(script),
            **{name: getattr(config, name) for name in IDENTITY},
            "per_device_train_batch_size": config.per_device_train_batch_size,
            "gradient_accumulation_steps": config.gradient_accumulation_steps,
            "max_length": config.max_length,
            "bf16": config.bf16,
        },
    }
    save_student(trainer, tokenizer, folder, script.dataset_name, results, (script, config, model_config))
    if trainer.accelerator.is_main_process:
        write_model_card(folder)
        plot_learning_curve(history, folder / "figures" / "learning_curve.png")
        print(f"trained in {results['seconds']:.0f} s, loss {losses[0]:.3f} -> {losses[-1]:.3f}: {folder}")
        if push:
            print(publish_folder(folder, config.hub_model_id, private=config.hub_private_repo is not False))
    trainer.accelerator.wait_for_everyone()


if __name__ == "__main__":
    run(main)
