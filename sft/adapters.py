"""LoRA and QLoRA by TRL's ModelConfig: the quantization of the base, and the adapter merged into whole weights."""

from copy import deepcopy
from importlib.util import find_spec
from typing import Any

from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel
from trl import ModelConfig, get_quantization_config

from command_line.pretrained import load_or_explain
from open_ner.tools.errors import UserError


def quantization(model_config: ModelConfig) -> BitsAndBytesConfig | None:
    """How bitsandbytes loads the base model: for `from_pretrained(quantization_config=...)`; None where it does not.

    Raises UserError where it is asked for without an adapter to train, or bitsandbytes is not installed.
    """
    if not (model_config.load_in_4bit or model_config.load_in_8bit):
        return None
    option = "load_in_4bit" if model_config.load_in_4bit else "load_in_8bit"
    if not model_config.use_peft:
        raise UserError(f"{option} without use_peft: quantized weights cannot be tuned themselves, set use_peft: true")
    if model_config.dtype not in ("bfloat16", "float16", "float32"):
        raise UserError(
            f"{option} computes in dtype, which is {model_config.dtype}: choose bfloat16, float16 or float32"
        )
    if find_spec("bitsandbytes") is None:
        raise UserError(f"{option} needs bitsandbytes: pip install bitsandbytes, or leave {option} out for plain LoRA")
    return get_quantization_config(model_config)


def merge_adapter(model: Any, state: dict[str, Any], model_config: ModelConfig) -> PreTrainedModel:
    """The base model, read again in the training's dtype, with the adapter of a tuned PeftModel merged in; on CPU.

    `state` is the PeftModel's whole state, gathered from all processes. The base is not the one that was trained on:
    that may be quantized, or spread over processes.
    """
    from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()  # under ZeRO-3 the base would be spread over processes that do not load it
    adapter = get_peft_model_state_dict(model, state_dict=state, save_embedding_layers=False)
    base = load_or_explain(
        AutoModelForCausalLM,
        model_config.model_name_or_path,
        revision=model_config.model_revision,
        dtype=model_config.dtype or "float32",
    )
    merged = get_peft_model(base, deepcopy(model.peft_config[model.active_adapter]))
    set_peft_model_state_dict(merged, adapter)
    return merged.merge_and_unload()
