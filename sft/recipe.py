"""The recipe a student was trained with: every option that differs from its default, ready to run again."""

import dataclasses
from collections.abc import Sequence
from enum import Enum
from typing import Any

from transformers.trainer_pt_utils import AcceleratorConfig

from command_line.public import public_text

# values that SFTConfig fills in itself; creating an SFTConfig to compare with would reset accelerate's state mid-run
FILLED_IN = {
    "accelerator_config": AcceleratorConfig(), "activation_checkpointing": True, "debug": [], "disable_tqdm": False,
    "pad_to_multiple_of": None, "report_to": [],
}  # fmt: skip


def used_recipe(arguments: Sequence[Any]) -> dict[str, Any]:
    """Collect the options of the parsed dataclasses that differ from their defaults.

    The token is left out. A path outside the working directory, which exists here only, is cut to its name.
    """
    recipe = {}
    for given in arguments:
        for field in dataclasses.fields(given):
            value, made = getattr(given, field.name), field.default_factory
            default = field.default if made is dataclasses.MISSING else made()
            if value not in (default, FILLED_IN.get(field.name, default)) and field.name != "hub_token":
                recipe[field.name] = _plain(value)
    return recipe


def _plain(value: Any) -> Any:
    """Convert a value to what YAML and JSON can write."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    return value if value is None or isinstance(value, (bool, int, float)) else public_text(str(value))
