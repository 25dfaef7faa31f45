"""The recipe a student was trained with: every option that differs from its default, ready to run again."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from transformers.trainer_pt_utils import AcceleratorConfig

from command_line.public import public_value

# defaults that SFTConfig computes; listed here, because creating a second SFTConfig would reset accelerate's state
FILLED_IN = {
    "accelerator_config": AcceleratorConfig(), "activation_checkpointing": True, "debug": [], "disable_tqdm": False,
    "pad_to_multiple_of": None, "report_to": [],
}  # fmt: skip


def used_recipe(arguments: Sequence[Any]) -> dict[str, Any]:
    """Collect the options of the parsed dataclasses that differ from their defaults.

    A path outside the working directory is cut to its last part.
    """
    recipe = {}
    for given in arguments:
        for field in dataclasses.fields(given):
            value, made = getattr(given, field.name), field.default_factory
            default = field.default if made is dataclasses.MISSING else made()
            if value not in (default, FILLED_IN.get(field.name, default)):
                recipe[field.name] = public_value(json.loads(json.dumps(value, default=_plain)))
    return recipe


def _plain(value: Any) -> Any:
    """Convert what `json` cannot write: a nested dataclass, such as the accelerator's config, or another object."""
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else str(value)
