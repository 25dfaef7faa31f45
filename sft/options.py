"""Options of a training run beyond those of TRL, and the checks of all options before any work."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, get_type_hints

from command_line.recipes import option
from open_ner.tools.errors import UserError

if TYPE_CHECKING:
    from trl import ModelConfig, SFTConfig

UNUSED = {  # options of SFTConfig that would have no effect, and what to do instead
    "trust_remote_code": "a student needs an architecture that transformers includes",
    "model_init_kwargs": "set dtype, attn_implementation or model_revision",
    "padding_free": "packing: true with branches: false trains without padding",
    "truncation_mode": "nothing is truncated",
    "dataset_text_field": "the column is `messages`",
    "dataset_kwargs": "conversations are used as they are",
    "save_only_model": "a run resumes with the optimizer's state",
    "hub_revision": "students are uploaded to the main branch; `--tag` of hub.publish names a revision",
    "hub_token": "set the environment variable HF_TOKEN",
    "hub_strategy": "the finished student is uploaded",
    "hub_always_push": "the finished student is uploaded",
}
METRICS = ("entity_f1", "entity_precision", "entity_recall", "loss")  # what an evaluation during training measures


@dataclass
class ScriptArguments:
    """Options of train_sft.py that TRL does not have. Conversations are used as they are in the dataset."""

    dataset_name: str = option("", "folder or Hub id of a dataset with a `messages` column")
    dataset_config: str = option("type", "config of the dataset")
    dataset_train_split: str = option("train", "split to train on")
    dataset_eval_split: str = option("validation", "split with held-out passages")
    eval_passages: int = option(100, "number of held-out conversations that each evaluation (eval_strategy) scores")
    early_stopping_patience: int | None = option(
        None, "stop after this many evaluations without a better metric_for_best_model, such as entity_f1"
    )
    branches: bool = option(True, "train each query of a passage without the other queries in view, as at inference")
    after: str | None = option(None, "recipe of the previous stage; it is trained first unless its student exists")
    license: str | None = option(None, "license of the student, in the Hub's spelling; default: the dataset's")
    overwrite_output_dir: bool = option(
        False, "delete the earlier run in output_dir and train from the start; leave it out to resume"
    )
    cpu_threads: int | None = option(None, "threads per process on CPU; default: cores divided by processes")
    max_conversations: int | None = option(None, "train on the first N conversations only, for a trial")


def check_types(values: Mapping[str, object], kinds: list[type], recipe: str) -> None:
    """Raise UserError for a recipe value of the wrong type. Strings pass: the parser converts or rejects them."""
    from dacite.types import is_instance

    for name, hint in (item for kind in kinds for item in get_type_hints(kind).items()):
        if name in values and not isinstance(values[name], str) and not is_instance(values[name], hint):
            wanted = hint.__name__ if isinstance(hint, type) else hint
            raise UserError(f"{recipe}: {name}: {values[name]!r} is not of type {wanted}")


def check_options(script: ScriptArguments, config: "SFTConfig", model_config: "ModelConfig") -> None:
    """Raise UserError for options that are missing or exclude each other."""
    if not script.dataset_name:
        raise UserError("no dataset: give dataset_name, a folder or a Hub id")
    if not model_config.model_name_or_path:
        raise UserError("no student: give model_name_or_path, a folder or a Hub id")
    for tracker in config.report_to or []:  # the Trainer notices only after the weights are loaded
        if tracker in ("trackio", "tensorboard", "wandb", "mlflow") and find_spec(tracker) is None:
            raise UserError(f"report_to {tracker} needs the package: pip install {tracker}, or set report_to: none")
    for field in dataclasses.fields(config):
        if field.name in UNUSED and getattr(config, field.name) != field.default:
            raise UserError(f"{field.name} cannot be used: {UNUSED[field.name]}")
    for name in ("max_conversations", "eval_passages", "early_stopping_patience", "cpu_threads"):
        if (number := getattr(script, name)) is not None and number < 1:
            raise UserError(f"{name} {number}: give a number of at least 1, or leave it out")
    check_numbers(config, model_config)
    metric = config.metric_for_best_model
    if config.eval_strategy != "no" and metric and metric.removeprefix("eval_") not in METRICS:
        raise UserError(f"metric_for_best_model {metric}: choose from {', '.join(METRICS)}")
    if config.completion_only_loss is False:
        raise UserError("completion_only_loss: the loss covers answers only; remove it")
    if script.branches and (config.packing or config.eval_packing):
        raise UserError("branches and packing exclude each other: set packing: false")
    if script.branches and config.shuffle_dataset:
        raise UserError("branches and shuffle_dataset exclude each other: train_sampling_strategy: random shuffles")
    if script.branches and isinstance(config.pad_to_multiple_of, int):
        raise UserError("branches and pad_to_multiple_of exclude each other: remove pad_to_multiple_of")
    if script.branches and model_config.attn_implementation not in (None, "sdpa", "flex_attention", "eager"):
        raise UserError(f"branches need sdpa, flex_attention or eager, not {model_config.attn_implementation!r}")
    if script.early_stopping_patience is not None and not (config.load_best_model_at_end and config.save_total_limit):
        raise UserError(
            "early_stopping_patience needs the best checkpoint: set load_best_model_at_end: true, "
            "metric_for_best_model: entity_f1 and a save_total_limit"
        )


def check_numbers(config: "SFTConfig", model_config: "ModelConfig") -> None:
    """Raise UserError for a number out of range, which the Trainer would notice late or not at all."""
    for name in ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"):
        if (number := getattr(config, name)) < 1:
            raise UserError(f"{name} {number}: give a number of at least 1")
    if config.num_train_epochs <= 0 and config.max_steps <= 0:
        raise UserError(f"num_train_epochs {config.num_train_epochs:g}: give a number above 0, or max_steps")
    if model_config.use_peft and model_config.lora_r < 1:
        raise UserError(f"lora_r {model_config.lora_r}: give a number of at least 1")
