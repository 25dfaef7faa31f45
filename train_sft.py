"""Tune a student on a distilled dataset with TRL's SFTTrainer; the loss is on the answers alone.

    accelerate launch train_sft.py --config recipes/sft/smollm2_135m/cpu.yaml
    accelerate launch train_sft.py --config RECIPE --model_name_or_path org/model --dataset_name org/dataset
    accelerate launch train_sft.py --config RECIPE --push_to_hub --hub_model_id org/my-ner

Without arguments it runs the first line. Every option of SFTConfig and ModelConfig may stand in the recipe or on the
command line, which has the last word.
"""

import dataclasses
import os
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from open_ner.cli import UserError, load_or_explain, read_yaml, refuse_unknown, run

DEFAULT_RECIPE = "recipes/sft/smollm2_135m/cpu.yaml"


@dataclass
class ScriptArguments:
    """What is trained on; train_sft never changes a conversation."""

    dataset_name: str = field(default="", metadata={"help": "folder or Hub id of a dataset with `messages`"})
    dataset_config: str = field(default="type", metadata={"help": "config of the dataset"})
    dataset_train_split: str = field(default="train", metadata={"help": "split to train on"})
    license: str = field(default="other", metadata={"help": "licence of the tuned model, as the Hub spells it"})
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
    if not script.dataset_name:
        raise UserError("no dataset: give dataset_name, a folder or a Hub id")
    if not model_config.model_name_or_path:
        raise UserError("no student: give model_name_or_path, a folder or a Hub id")
    return script, config, model_config


def load_conversations(script: ScriptArguments) -> "datasets.Dataset":  # noqa: F821  (imported where it is used)
    """The rows to train on; raises UserError for a dataset that is not there or empty."""
    from datasets import load_dataset

    # the cache key of a local folder does not see its contents: a rebuilt dataset must not be read from there
    mode = "force_redownload" if Path(script.dataset_name).is_dir() else None
    try:
        rows = load_dataset(
            script.dataset_name, script.dataset_config, split=script.dataset_train_split, download_mode=mode
        )
    except Exception as error:  # `datasets` raises dozens of kinds for a source it cannot read
        raise UserError(
            f"dataset {script.dataset_name!r}, config {script.dataset_config!r}, split {script.dataset_train_split!r} "
            f"cannot be read: {str(error):.200}"
        ) from None
    if script.max_conversations:
        rows = rows.select(range(min(script.max_conversations, len(rows))))
    if not len(rows):
        raise UserError(f"dataset {script.dataset_name!r} has no rows in split {script.dataset_train_split!r}")
    return rows


def require_space(folder: Path, needed: int) -> None:
    """Raise UserError unless the disk of `folder` can hold `needed` bytes: better said now than after training."""
    existing = next(parent for parent in [folder, *folder.absolute().parents] if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(
            f"{folder}: the tuned weights need {needed / 2**30:.1f} GiB and the disk has {free / 2**30:.1f} GiB left: "
            "make room or choose another --output_dir"
        )


def main() -> None:
    """Load, tokenize, train, save, push."""
    script, config, model_config = parse_arguments(sys.argv[1:])

    import torch
    from transformers import AutoModelForCausalLM, set_seed
    from trl import get_peft_config

    from hub.model_card import write_model_card
    from hub.publish import publish_folder, require_token
    from sft.adapters import quantization
    from sft.conversations import tokenize
    from sft.saving import plot_learning_curve, save_student
    from sft.tokenizer import load_tokenizer, read_window
    from sft.trainer import AnswerTrainer

    push, config.push_to_hub = config.push_to_hub, False  # uploads go through hub.publish, with our card
    if push:
        require_token()
        if not config.hub_model_id:
            raise UserError("--push_to_hub needs --hub_model_id org/name")
    if config.device.type == "cpu":  # `accelerate launch` leaves one thread, however many cores there are
        torch.set_num_threads(script.cpu_threads or max(1, (os.cpu_count() or 1) // config.world_size))
    set_seed(config.seed)
    rows = load_conversations(script)
    quantised = quantization(model_config)
    tokenizer = load_tokenizer(model_config.model_name_or_path, model_config.model_revision)
    window = read_window(model_config.model_name_or_path, model_config.model_revision)
    train, report = tokenize(rows, tokenizer, config.max_length, window)
    print(
        f"training on {report['conversations']:,} conversations, {report['queries']:,} queries, "
        f"{report['answer_tokens']:,} answer tokens of {report['tokens']:,}"
    )
    model = load_or_explain(
        AutoModelForCausalLM,
        model_config.model_name_or_path,
        revision=model_config.model_revision,
        quantization_config=quantised,
        dtype=getattr(torch, model_config.dtype or "float32"),
        attn_implementation=model_config.attn_implementation or "sdpa",
    )
    require_space(Path(config.output_dir), model.num_parameters() * model.dtype.itemsize)
    trainer = AnswerTrainer(
        model=model,
        args=config,
        train_dataset=train,
        processing_class=tokenizer,
        peft_config=get_peft_config(model_config),
    )
    started = time.monotonic()
    trainer.train()
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    results = {
        "seconds": round(time.monotonic() - started, 1),
        "name": (config.hub_model_id or f"{model_config.model_name_or_path}-open-ner").rstrip("/").split("/")[-1],
        "base_model": model_config.model_name_or_path,
        "dataset": script.dataset_name,
        "trained_on": report,
        "history": history,
        "recipe": {
            **{key: getattr(model_config, key) for key in ("model_name_or_path", "dtype", "use_peft")},
            **dataclasses.asdict(script),
            **{
                key: getattr(config, key)
                for key in (
                    "num_train_epochs",
                    "max_steps",
                    "learning_rate",
                    "lr_scheduler_type",
                    "warmup_steps",
                    "weight_decay",
                    "per_device_train_batch_size",
                    "gradient_accumulation_steps",
                    "max_length",
                    "bf16",
                    "seed",
                )
            },
        },
    }
    folder = Path(config.output_dir)
    save_student(trainer, tokenizer, folder, script.dataset_name, results, (script, config, model_config))
    if trainer.accelerator.is_main_process:
        write_model_card(folder)
        plot_learning_curve(history, folder / "figures" / "learning_curve.png")
        print(
            f"trained in {results['seconds']:.0f} s, "
            f"loss {history[0]['loss']:.3f} -> {history[-1]['loss']:.3f}: {folder}"
        )
        if push:
            print(publish_folder(folder, config.hub_model_id, private=config.hub_private_repo is not False))
    trainer.accelerator.wait_for_everyone()


if __name__ == "__main__":
    run(main)
