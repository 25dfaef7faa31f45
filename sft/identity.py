"""What determines the result of a training run; a checkpoint made with other values belongs to another run."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trl import ModelConfig, SFTConfig

    from .options import ScriptArguments

SHOWN = (  # the model card shows these too
    "num_train_epochs", "max_steps", "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "optim",
    "packing", "train_sampling_strategy", "seed",
)  # fmt: skip
TRAINING = (
    *SHOWN, "data_seed", "max_grad_norm", "loss_type", "label_smoothing_factor", "neftune_noise_alpha",
    "lr_scheduler_kwargs", "optim_args", "optim_target_modules", "adam_beta1", "adam_beta2", "adam_epsilon",
    "router_aux_loss_coef", "bf16", "fp16",
)  # fmt: skip
MODEL = (
    "use_peft", "lora_r", "lora_alpha", "lora_dropout", "lora_target_parameters", "lora_modules_to_save",
    "use_rslora", "use_dora", "load_in_4bit", "load_in_8bit", "bnb_4bit_quant_type", "use_bnb_nested_quant", "dtype",
)  # fmt: skip
PACKING = ("packing_strategy", "max_length")  # determine the result only if rows are packed
# determine the result only if the run evaluates
CHOOSING = ("load_best_model_at_end", "metric_for_best_model", "greater_is_better")
HELD_OUT = ("dataset_eval_split", "eval_passages")  # determine the result only if they choose the best checkpoint


def run_identity(
    script: "ScriptArguments", config: "SFTConfig", model_config: "ModelConfig", data_hash: str, base_revision: str
) -> dict[str, str | int | float | bool | None]:
    """Collect what determines the result of a run.

    Args:
        script: The options of train_sft.py.
        config: The training arguments.
        model_config: The options of the model.
        data_hash: Hash of the tokenized training rows.
        base_revision: Commit or hash of the base model. It stands for `model_revision`, which may be a branch that
            moves: a run that began with an earlier commit resumes if `model_revision` names that commit.
    """
    batch = config.per_device_train_batch_size * config.gradient_accumulation_steps
    return {
        "model_name_or_path": model_config.model_name_or_path, "base_revision": base_revision,
        "data_hash": data_hash, "branches": script.branches, "global_batch_size": batch * config.world_size,
        **{name: getattr(config, name) for name in TRAINING},
        **{name: getattr(model_config, name) for name in MODEL},
        "lora_target_modules": str(model_config.lora_target_modules),
        "early_stopping_patience": script.early_stopping_patience,
        **{name: getattr(config, name) for name in PACKING if config.packing},
        **{name: getattr(config, name) for name in CHOOSING if config.eval_strategy != "no"},
        **{name: getattr(script, name) for name in HELD_OUT if config.load_best_model_at_end},
    }  # fmt: skip
