"""Fine-tune a student on a distilled dataset with TRL's SFTTrainer; the loss covers the answers only.

    accelerate launch train_sft.py --config recipes/sft/smollm2_135m/cpu.yaml
    accelerate launch train_sft.py --config RECIPE --model_name_or_path org/model --dataset_name org/dataset
    accelerate launch train_sft.py --config RECIPE --push_to_hub --hub_model_id org/my-ner

Without arguments it runs the first command. Every option of SFTConfig and ModelConfig can be set in the recipe or on
the command line, which overrides the recipe. After an interruption the same command resumes from the newest
checkpoint, or starts anew if none was saved. A finished run is not trained again.
"""

import argparse
import dataclasses
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, cast

from command_line.pretrained import load_or_explain
from command_line.recipes import read_yaml, refuse_unknown
from open_ner.tools.errors import UserError, run
from open_ner.tools.files import read_json
from sft import FINISHED
from sft.identity import SHOWN, run_identity
from sft.options import ScriptArguments, check_options, check_types

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftModel
    from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase
    from trl import ModelConfig, SFTConfig

    from hub.records import Scalar, TrainingRecord
    from sft.evaluation import HeldOut

DEFAULT_RECIPE = "recipes/sft/smollm2_135m/cpu.yaml"


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows the defaults of options, and keeps the line breaks of the description."""


def parse_arguments(arguments: list[str]) -> "tuple[ScriptArguments, SFTConfig, ModelConfig]":
    """Read a recipe and the command line, which overrides it.

    Raises UserError for an unknown option, a value of the wrong type, and options that exclude each other.
    """
    from trl import ModelConfig, SFTConfig, TrlParser

    parts = (given.split("=", 1) if given[:9] == "--config=" else [given] for given in arguments)
    arguments = [part for given in parts for part in given]
    if "--config" not in arguments:
        if not {"-h", "--help"} & set(arguments):
            print(f"no --config given: running {DEFAULT_RECIPE}")
        arguments = ["--config", DEFAULT_RECIPE, *arguments]
    kinds = [ScriptArguments, SFTConfig, ModelConfig]
    parser = TrlParser(kinds, allow_abbrev=False, description=__doc__, formatter_class=HelpFormatter)

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}: see train_sft.py --help")

    parser.error = refuse
    recipe = dict(zip(arguments, arguments[1:], strict=False)).get("--config") or refuse("--config needs a recipe")
    values = read_yaml(recipe)
    refuse_unknown(values, {action.dest for action in parser._actions} | {"env"}, recipe)
    check_types(values, kinds, recipe)
    given = [word[2:].split("=", 1)[0] for word in arguments if word[:2] == "--"]
    refuse_unknown(given, [word[2:] for word in (*parser._option_string_actions, "--config")], "command line", "--")
    try:
        script, config, model_config = parser.parse_args_and_config(arguments)
    except ValueError as error:
        hint = "; on a CPU set bf16: false, or use_cpu: true if it has bf16 too" if "bf16" in str(error) else ""
        raise UserError(f"{recipe}: {error}{hint}") from None
    if script.after and not model_config.model_name_or_path:
        model_config.model_name_or_path = read_yaml(script.after).get("output_dir")
    check_options(script, config, model_config)
    return script, config, model_config


def prepare_data(
    script: ScriptArguments, config: "SFTConfig", model_config: "ModelConfig", tokenizer: "PreTrainedTokenizerBase"
) -> "tuple[Dataset, dict[str, int], Dataset | None, HeldOut | None]":
    """Tokenize the training rows and, for a run that evaluates, the held-out rows.

    Returns the training rows with their counts, and the held-out rows as tokens and as conversations.
    """
    from sft.conversations import check_spelling, load_conversations, tokenize
    from sft.evaluation import HeldOut, count_entities
    from sft.tokenizer import read_max_positions

    max_positions = read_max_positions(str(model_config.model_name_or_path), model_config.model_revision)
    options = config.max_length, max_positions, config.dataset_num_proc, script.branches
    # the others wait for the first process of a machine; only that one bypasses the cache, because this deletes files
    with config.main_process_first(desc="dataset"):
        fresh = config.local_process_index == 0
        source = script.dataset_name, script.dataset_config
        conversations = load_conversations(*source, script.dataset_train_split, script.max_conversations, fresh)
        rows, report = tokenize(conversations, tokenizer, *options)
        if fresh and (warning := check_spelling(conversations, tokenizer, str(model_config.model_name_or_path))):
            print(warning)
        if config.eval_strategy == "no":
            return rows, report, None, None
        conversations = load_conversations(*source, script.dataset_eval_split, script.eval_passages, False)
        eval_rows, _ = tokenize(conversations, tokenizer, *options)
        return rows, report, eval_rows, HeldOut(conversations["messages"], count_entities)


def main_options(
    script: ScriptArguments, config: "SFTConfig", model_config: "ModelConfig", license_: str | None
) -> "dict[str, Scalar]":
    """Collect the options that the model card shows."""
    batch = ("per_device_train_batch_size", "gradient_accumulation_steps")
    return {
        **{name: getattr(model_config, name) for name in ("model_name_or_path", "dtype", "use_peft")},
        **dataclasses.asdict(script),
        "license": license_,
        **{name: getattr(config, name) for name in (*SHOWN, *batch, "max_length", "bf16")},
    }


def main() -> None:
    """Train the stages that come before this one, unless their students exist, and then this one."""
    stages = [parse_arguments(sys.argv[1:])]
    while recipe := stages[0][0].after:
        stages.insert(0, parse_arguments(["--config", recipe]))
    finished = [(Path(str(config.output_dir)) / FINISHED).exists() for _, config, _ in stages[:-1]] + [False]
    for is_finished, (_, config, _) in zip(finished, stages, strict=True):
        if not is_finished:
            check_run(config)
    for number, (is_finished, stage) in enumerate(zip(finished, stages, strict=True), start=1):
        if number < len(stages):
            print(f"stage {number} of {len(stages)}: {stage[1].output_dir}" + " exists already" * is_finished)
        if not is_finished:
            train(*stage)


def check_run(config: "SFTConfig") -> None:
    """Raise UserError if the upload would fail, or if the options do not fit the hardware of this machine."""
    from command_line.hardware import fast_bf16
    from hub.publish import require_upload

    if config.push_to_hub:
        if not config.hub_model_id:
            raise UserError("--push_to_hub needs --hub_model_id org/name")
        require_upload(config.hub_model_id)
    if config.n_gpu > 1:  # the Trainer would use DataParallel, which does not work with our replaced `forward`
        raise UserError(f"{config.n_gpu} GPUs and one process: run `accelerate launch train_sft.py`, or set "
                        "CUDA_VISIBLE_DEVICES=0")  # fmt: skip
    if config.device.type == "cpu" and config.bf16 and not fast_bf16():
        raise UserError("bf16 is several times slower than float32 on this CPU: set bf16: false")


def describe_and_publish(
    folder: Path, repo_id: str | None, config: "SFTConfig", record: "TrainingRecord | None" = None
) -> None:
    """Write the card and learning curve of a finished student, and publish it. Only an upload error is raised.

    `record` has the contents of training.json with full paths, by which a dataset in another folder is found.
    """
    from hub.model_card import read_training_data, write_model_card
    from hub.publish import publish_folder
    from sft.learning_curve import plot_learning_curve

    history = read_json(folder / FINISHED)["history"]
    curve = folder / "figures" / "learning_curve.png"
    for write in (
        lambda: record and read_training_data(folder, record),  # now, while the full paths are known
        lambda: plot_learning_curve(history, curve),
        lambda: write_model_card(folder),
    ):
        try:
            write()
        except Exception as error:  # such as a template, font or disk error; the student itself is complete
            said = "the student is complete, but its card or figure could not be written"
            print(f"{folder}: {said}: {type(error).__name__}: {error}", file=sys.stderr)
    if repo_id:
        print(publish_folder(folder, repo_id, private=config.hub_private_repo is not False))


def choose_license(given: str | None, of_dataset: str | None) -> str | None:
    """Return the student's license; None if the card derives one from its sources' licenses."""
    chosen = given or of_dataset
    if of_dataset and chosen != of_dataset:
        print(f"license {chosen} was given, but the dataset's is {of_dataset}: check that it allows {chosen}")
    return chosen


def load_base(
    model_config: "ModelConfig", quantized: "BitsAndBytesConfig | None", allow_flex: bool
) -> "PreTrainedModel":
    """Load the model to train.

    Args:
        model_config: The options of the model.
        quantized: How its weights are quantized; None: not at all.
        allow_flex: Use flex_attention, which skips fully masked blocks, unless the options name an implementation.
    """
    from transformers import AutoModelForCausalLM

    model = load_or_explain(
        AutoModelForCausalLM, str(model_config.model_name_or_path), revision=model_config.model_revision,
        quantization_config=quantized, dtype=model_config.dtype or "float32",
        attn_implementation=model_config.attn_implementation,
    )  # fmt: skip
    if allow_flex and not model_config.attn_implementation and model._supports_flex_attn:
        model.set_attn_implementation("flex_attention")
    return model


def train(script: ScriptArguments, config: "SFTConfig", model_config: "ModelConfig") -> None:
    """Load, tokenize, train, save and push one stage."""
    import torch
    from transformers import EarlyStoppingCallback, set_seed
    from trl import get_peft_config

    from command_line.hardware import hardware
    from command_line.students import revision_of
    from sft.adapters import check_targets, quantization
    from sft.disk import require_space
    from sft.origin import read_origin
    from sft.resume import choose_checkpoint, claim, find_checkpoint, hash_tokens
    from sft.saving import answering_config, save_student
    from sft.tokenizer import load_tokenizer
    from sft.trainer import AnswerTrainer

    repo_id = config.hub_model_id if config.push_to_hub else None
    config.push_to_hub = False  # hub.publish uploads the folder, with our card
    if config.device.type == "cpu":  # `accelerate launch` sets one thread on any number of cores
        torch.set_num_threads(script.cpu_threads or max(1, (os.cpu_count() or 1) // config.world_size))
    set_seed(config.seed)
    base, quantized = str(model_config.model_name_or_path), quantization(model_config)
    tokenizer = load_tokenizer(base, model_config.model_revision, config)
    check_targets(model_config)
    rows, report, eval_rows, held_out = prepare_data(script, config, model_config, tokenizer)
    folder = Path(str(config.output_dir))
    revision = revision_of(base, model_config.model_revision)
    identity = run_identity(script, config, model_config, hash_tokens(rows), revision)
    main_process = config.process_index == 0
    with config.main_process_first(local=False, desc="run"):
        finished = claim(folder, identity, script.overwrite_output_dir, main_process)
    if finished:
        print(f"{folder}: already trained; give --overwrite_output_dir to train it again")
        if main_process and (repo_id or not (folder / "README.md").exists()):
            describe_and_publish(folder, repo_id, config)
        return
    checkpoint = choose_checkpoint(folder, config.resume_from_checkpoint)
    origin = read_origin(script.dataset_name, base)
    license_ = choose_license(script.license, origin.license)
    print(
        f"training on {report['conversations']:,} conversations, {report['queries']:,} queries, "
        f"{report['answer_tokens']:,} answer tokens of {report['tokens']:,}"
    )
    model = load_base(model_config, quantized, script.branches and config.device.type == "cuda")
    model.generation_config = answering_config(tokenizer)  # same end token as in the saved student
    patience = script.early_stopping_patience
    trainer = AnswerTrainer(
        model=model, args=config, train_dataset=rows, eval_dataset=eval_rows, processing_class=tokenizer,
        peft_config=get_peft_config(model_config), branches=script.branches, held_out=held_out,
        callbacks=[EarlyStoppingCallback(patience)] if patience else None,
    )  # fmt: skip
    require_space(folder, cast("PreTrainedModel | PeftModel", trainer.model), config)
    started = time.monotonic()
    if checkpoint:
        print(f"resuming from {checkpoint}")
    try:
        metrics = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None).metrics
    except KeyboardInterrupt:
        if main_process:
            newest = find_checkpoint(folder)
            anew = "starts again, because no checkpoint was saved (see --save_strategy)"
            print(f"the same command {f'goes on from {newest}' if newest else anew}", file=sys.stderr)
        raise
    record: TrainingRecord = {
        "seconds": round(time.monotonic() - started, 1),
        "resumed_from": checkpoint.name if checkpoint else None,
        "steps_seconds": round(metrics["train_runtime"], 2),
        "peak_gpu_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
        "name": (config.hub_model_id or f"{base}-open-ner").rstrip("/").split("/")[-1], "base_model": base,
        "dataset": script.dataset_name, "language": origin.language, "trained_on": report,
        "on_hub": {"base_model": not Path(base).exists(), "dataset": not Path(script.dataset_name).exists()},
        "hardware": hardware(config.world_size),
        "history": [entry for entry in trainer.state.log_history if "loss" in entry or "eval_loss" in entry],
        "run": identity, "recipe": main_options(script, config, model_config, license_),
    }  # fmt: skip
    save_student(trainer, tokenizer, folder, origin, record, (script, config, model_config))
    if main_process:
        losses = [entry["loss"] for entry in record["history"] if "loss" in entry] or [metrics["train_loss"]]
        print(f"trained in {record['seconds']:.0f} s, loss {losses[0]:.3f} -> {losses[-1]:.3f}: {folder}")
        describe_and_publish(folder, repo_id, config, record)


if __name__ == "__main__":
    run(main)
