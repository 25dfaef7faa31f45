"""LoRA and QLoRA options of TRL's ModelConfig: quantize the base model, merge the adapter into full weights."""

import re
from copy import deepcopy
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch.nn import Linear
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel
from trl import ModelConfig, get_quantization_config

from command_line.pretrained import load_or_explain
from open_ner.tools.errors import UserError

if TYPE_CHECKING:
    from peft import PeftModel


def quantization(model_config: ModelConfig) -> BitsAndBytesConfig | None:
    """Return the `quantization_config` to load the base model with, or None without load_in_4bit and load_in_8bit.

    Raises UserError if no adapter is trained, the dtype cannot be used, or bitsandbytes is not installed.
    """
    if not (model_config.load_in_4bit or model_config.load_in_8bit):
        return None
    option = "load_in_4bit" if model_config.load_in_4bit else "load_in_8bit"
    if not model_config.use_peft:
        raise UserError(f"{option} without use_peft: quantized weights cannot be trained, set use_peft: true")
    if (dtype := model_config.dtype) not in ("bfloat16", "float16", "float32"):
        raise UserError(f"{option} computes in dtype, which is {dtype}: choose bfloat16, float16 or float32")
    if find_spec("bitsandbytes") is None:
        raise UserError(f"{option} needs bitsandbytes: pip install bitsandbytes, or remove {option} for plain LoRA")
    return get_quantization_config(model_config)


def check_targets(model_config: ModelConfig) -> None:
    """Raise UserError if the student has none of the modules in `lora_target_modules`; loads no weights.

    As in peft, a list has the ends of modules' names, and a single string is a regular expression of whole names.
    Names of a list that the student does not have are printed: a recipe may list those of several architectures.
    """
    targets = model_config.lora_target_modules
    if not model_config.use_peft or not targets or targets == "all-linear":
        return
    name = str(model_config.model_name_or_path)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            load_or_explain(AutoConfig, name, revision=model_config.model_revision)
        )
    modules = [module for module, _ in model.named_modules() if module]
    ends = [targets] if isinstance(targets, str) else targets
    unknown = [end for end in ends if not any(f".{module}".endswith(f".{end}") for module in modules)]
    if isinstance(targets, str):
        single = f"lora_target_modules {targets!r}: a single name is read as a regular expression of whole names"
        try:
            if any(re.fullmatch(targets, module) for module in modules):
                return
        except re.error as error:
            raise UserError(f"{single}, and this is none ({error}): write .* for any characters") from None
        if not unknown:
            raise UserError(f"{single}: write .*{targets}")
    if len(unknown) == len(ends):
        head = model.get_output_embeddings()  # recipes train no adapter of it
        linear = {
            module.rpartition(".")[2]
            for module, kind in model.named_modules()
            if isinstance(kind, Linear) and kind is not head
        }
        hint = f"give several of {', '.join(sorted(linear))}, or all-linear, or a regular expression of whole names"
        raise UserError(f"lora_target_modules {', '.join(map(repr, unknown))}: {name} has no such module: {hint}")
    if unknown:
        print(f"lora_target_modules: {name} has no {', '.join(unknown)}; the others get adapters")


def merge_adapter(model: "PeftModel", state: dict[str, torch.Tensor], model_config: ModelConfig) -> PreTrainedModel:
    """Load the base model again, on CPU in the training dtype, and merge a trained adapter into it.

    The base weights in `model` cannot be used, because they may be quantized or sharded.

    Args:
        model: The trained model with its adapter.
        state: The complete state dict of `model`, gathered from all processes.
        model_config: The options that name the base model, its revision and its dtype.

    Returns:
        The base model with the adapter merged into its weights.
    """
    from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()  # otherwise from_pretrained under ZeRO-3 waits for processes that do not load the base
    adapter = get_peft_model_state_dict(model, state_dict=state, save_embedding_layers=False)
    base = load_or_explain(
        AutoModelForCausalLM, str(model_config.model_name_or_path), revision=model_config.model_revision,
        dtype=model_config.dtype or "float32",
    )  # fmt: skip
    merged = get_peft_model(base, deepcopy(model.peft_config[str(model.active_adapter)]))
    set_peft_model_state_dict(merged, adapter)
    student = merged.merge_and_unload()
    assert isinstance(student, PreTrainedModel)
    return student
