"""Write the student to a folder that anyone can load: merged weights, its template, pipeline files, provenance."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from transformers import GenerationConfig, PreTrainedTokenizerBase, Trainer
from trl import ModelConfig

from command_line.public import public_value
from open_ner.pipeline import DEFAULTS, OpenNERPipeline
from open_ner.tools.errors import UserError
from open_ner.tools.files import write_atomic, write_json

from . import FINISHED
from .adapters import merge_adapter
from .origin import Origin
from .recipe import used_recipe
from .template import Template

DEFAULT_TYPES = 12  # the most frequent training types, asked when a caller names no types


def save_student(
    trainer: Trainer, tokenizer: PreTrainedTokenizerBase, folder: Path, origin: Origin,
    training: Mapping[str, object], arguments: Sequence[Any],
) -> None:  # fmt: skip
    """Write a trained student to a folder. Every process must call this, because the weights may be sharded.

    The folder gets merged weights in safetensors, the tokenizer with its template, the open-NER pipeline,
    `recipe.yaml`, `types.json` and `training.json`, without paths of this machine. With its `generation_config`,
    `pipeline("text-generation")` answers like the open-NER pipeline.

    Args:
        trainer: The trainer, after training.
        tokenizer: The student's tokenizer.
        folder: Where to write.
        origin: What the student inherits.
        training: The contents of `training.json`, a hub.records.TrainingRecord.
        arguments: The parsed options, for `recipe.yaml`; one of them is TRL's ModelConfig.
    """
    state = gather_weights(trainer)
    if trainer.accelerator.is_main_process:
        model_config = next(given for given in arguments if isinstance(given, ModelConfig))
        model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
        if hasattr(model, "peft_config"):
            model, state = merge_adapter(model, state, model_config), None
        types = list(origin.types)[:DEFAULT_TYPES] or DEFAULTS["types"]
        window = origin.window or DEFAULTS["window"]
        counts = cast(Mapping[str, int], training.get("trained_on"))
        share = {"present_share": round(counts["present"] / counts["queries"], 4)} if counts else {}
        model.config.update({"open_ner": {**DEFAULTS, "types": types, "window": window, **share}})
        model.generation_config = answering_config(tokenizer)
        tokens = ("bos_token_id", "eos_token_id", "pad_token_id")
        model.config.update({"use_cache": True, **{name: getattr(model.generation_config, name) for name in tokens}})
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FINISHED).unlink(missing_ok=True)
        pipeline = OpenNERPipeline(model=model.eval(), tokenizer=tokenizer, device=model.device)
        pipeline.save_pretrained(folder, state_dict=state)
        recipe = yaml.safe_dump(used_recipe(arguments), sort_keys=False, allow_unicode=True)
        write_atomic(folder / "recipe.yaml", recipe)
        write_atomic(folder / "types.json", json.dumps(origin.types, indent=0, ensure_ascii=False))
        write_json(folder / FINISHED, public_value(training))
    trainer.accelerator.wait_for_everyone()


def answering_config(tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """Return a greedy config that ends at the answers' end token, even if the base model lists several end tokens."""
    return GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=Template(tokenizer).end_token_id,
        pad_token_id=tokenizer.pad_token_id, do_sample=False, max_new_tokens=DEFAULTS["max_new_tokens"],
    )  # fmt: skip


def gather_weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Return the complete state dict of the model, at least on the main process. Every process must call this.

    Raises UserError if DeepSpeed is not configured to gather ZeRO-3 weights.
    """
    sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    try:
        state = trainer.accelerator.get_state_dict(trainer.model_wrapped if sharded else trainer.model)
    except ValueError as error:
        if "stage3_gather_16bit_weights_on_model_save" not in str(error):
            raise
        raise UserError(
            "DeepSpeed ZeRO-3 does not gather the weights: set zero3_save_16bit_model: true in the accelerate recipe "
            "and run again from the last checkpoint"
        ) from None
    tied = getattr(trainer.accelerator.unwrap_model(trainer.model), "all_tied_weights_keys", {})
    state = cast("dict[str, torch.Tensor]", state or {})  # under DeepSpeed the other processes get None
    # gathering copies tied weights into separate tensors; only one of the two is kept
    return {name: tensor for name, tensor in state.items() if not (sharded and tied.get(name) in state)}
