"""The student as a folder that anyone can load: merged weights, stock template, pipeline files, origin."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from transformers import GenerationConfig, PreTrainedTokenizerBase, Trainer
from trl import ModelConfig

from open_ner.pipeline import DEFAULTS, OpenNERPipeline
from open_ner.tools.errors import UserError

from .adapters import merge_adapter
from .recipe import used_recipe
from .template import Template

TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
FINISHED = "training.json"  # written last: the mark of a finished student
DEFAULT_TYPES = 12  # so many of the most frequent training types are asked where a caller names none


def save_student(
    trainer: Trainer,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    dataset: str,
    results: dict[str, Any],
    arguments: Sequence[Any],
) -> None:
    """Write a tuned student to `folder`: to be called by every process, for the weights may be spread over all.

    Merged weights in safetensors, the tokenizer with its template, the open-NER pipeline, `recipe.yaml` (the options
    of `arguments`, TRL's ModelConfig among them, that are not default), `types.json` (the types of the dataset) and
    `training.json` (`results`). The last is written when all else is in place: a folder without it is not a finished
    student. `generation_config` ends at the token the answers end with, even where the base lists several, and
    samples nothing, so that `pipeline("text-generation")` answers as the open-NER pipeline does.
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
        _write(folder / "recipe.yaml", yaml.safe_dump(used_recipe(arguments), sort_keys=False, allow_unicode=True))
        _write(folder / "types.json", json.dumps(types, indent=0, ensure_ascii=False))
        _write(folder / FINISHED, json.dumps(results, indent=1, ensure_ascii=False, default=str))
    trainer.accelerator.wait_for_everyone()


def answering_config(tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """Greedy generation that ends at the token the template's answers end with, whatever the base model's lists."""
    return GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=Template(tokenizer).end_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
        max_new_tokens=DEFAULTS["max_new_tokens"],
    )


def gather_weights(trainer: Trainer) -> dict[str, Any]:
    """The whole state of the tuned model, on the main process at least; every process must call this.

    Raises UserError where DeepSpeed was told not to gather ZeRO-3 weights.
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
    state = state or {}  # DeepSpeed's other processes get None
    # once gathered, a tied weight is there twice, as two tensors
    return {name: tensor for name, tensor in state.items() if not (sharded and tied.get(name) in state)}


def _write(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def read_types(dataset: str) -> dict[str, int]:
    """Frequency of a dataset's entity types from its `types.json`, local or on the Hub; empty where it has none."""
    path = Path(dataset) / "types.json"
    if not Path(dataset).is_dir():
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        for kind in ("dataset", "model"):  # a student has the types of its training set
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
