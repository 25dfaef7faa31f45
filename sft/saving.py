"""The student as a folder that anyone can load: merged weights, stock template, pipeline files, provenance."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from transformers import GenerationConfig, PreTrainedTokenizerBase, Trainer
from trl import ModelConfig

from open_ner.pipeline import DEFAULTS, OpenNERPipeline
from open_ner.tools.errors import UserError
from open_ner.tools.files import write_atomic, write_json

from .adapters import merge_adapter
from .recipe import used_recipe
from .template import Template

TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
FINISHED = "training.json"  # written last, so that its presence marks a finished student
DEFAULT_TYPES = 12  # the most frequent training types, asked when a caller names no types


def save_student(
    trainer: Trainer,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    dataset: str,
    training: Mapping[str, object],
    arguments: Sequence[Any],
) -> None:
    """Write a trained student to `folder`. Every process must call this, because the weights may be sharded.

    The folder gets merged weights in safetensors, the tokenizer with its template, the open-NER pipeline,
    `recipe.yaml` (from the parsed `arguments`, one of them TRL's ModelConfig), the dataset's `types.json`, and
    `training.json` (`training`, a hub.records.TrainingRecord). `generation_config` is greedy and ends at the end token
    of answers, so that `pipeline("text-generation")` answers like the open-NER pipeline.
    """
    state = gather_weights(trainer)
    if trainer.accelerator.is_main_process:
        model_config = next(given for given in arguments if isinstance(given, ModelConfig))
        model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
        if hasattr(model, "peft_config"):
            model, state = merge_adapter(model, state, model_config), None
        types = read_types(dataset)
        model.config.update({"open_ner": {**DEFAULTS, "types": list(types)[:DEFAULT_TYPES] or DEFAULTS["types"]}})
        model.generation_config = answering_config(tokenizer)
        tokens = {name: getattr(model.generation_config, name) for name in TOKENS}
        model.config.update({"use_cache": True, **tokens})
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FINISHED).unlink(missing_ok=True)
        pipeline = OpenNERPipeline(model=model.eval(), tokenizer=tokenizer, device=model.device)
        pipeline.save_pretrained(folder, state_dict=state)
        recipe = yaml.safe_dump(used_recipe(arguments), sort_keys=False, allow_unicode=True)
        write_atomic(folder / "recipe.yaml", recipe)
        write_atomic(folder / "types.json", json.dumps(types, indent=0, ensure_ascii=False))
        write_json(folder / FINISHED, training)
    trainer.accelerator.wait_for_everyone()


def answering_config(tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """Greedy generation that ends at the token answers end with, even if the base model lists several end tokens."""
    return GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=Template(tokenizer).end_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
        max_new_tokens=DEFAULTS["max_new_tokens"],
    )


def gather_weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Return the whole state dict of the model, at least on the main process. Every process must call this.

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
    # gathering copies a tied weight, so that the two names no longer share a tensor
    return {name: tensor for name, tensor in state.items() if not (sharded and tied.get(name) in state)}


def read_types(dataset: str) -> dict[str, int]:
    """Read the `types.json` of a dataset or student, a folder or Hub id: entity types with their frequencies.

    Returns an empty dict if there is no such file.
    """
    path = Path(dataset) / "types.json"
    if not Path(dataset).is_dir():
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        for kind in ("dataset", "model"):
            try:
                path = Path(hf_hub_download(dataset, "types.json", repo_type=kind))
                break
            except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError):
                continue
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{path}: not readable: {error}") from None
