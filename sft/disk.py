"""Check before training that the disk has room for weights and checkpoints."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from open_ner.tools.errors import UserError

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, TrainingArguments


def require_space(folder: Path, model: "PreTrainedModel | PeftModel", config: "TrainingArguments") -> None:
    """Raise UserError unless the disk of `folder` has room for the student and the checkpoints of a run.

    Checkpoints of an adapter contain only the adapter, but the student contains all weights. With save_total_limit,
    the space of existing checkpoints counts as free, because newer ones replace them.
    """
    learned = sum(_numel(p) * p.itemsize for p in model.parameters() if p.requires_grad)
    needed = weights = sum(map(_numel, model.parameters())) * model.dtype.itemsize
    if config.save_strategy != "no":
        checkpoint = (learned if hasattr(model, "peft_config") else weights) + 2 * learned  # and two Adam moments
        # one more than the limit, because the oldest checkpoint is deleted after the newest is written
        needed += checkpoint * ((config.save_total_limit or 1) + 1)
    existing = next(parent for parent in [folder, *folder.absolute().parents] if parent.exists())
    free = shutil.disk_usage(existing).free
    if config.save_strategy != "no" and config.save_total_limit:
        free += sum(path.stat().st_size for path in folder.glob("checkpoint-*/**/*") if path.is_file())
    if free < needed:
        raise UserError(
            f"{folder}: weights and checkpoints need {needed / 2**30:.1f} GiB and the disk has {free / 2**30:.1f} GiB "
            "left: free space, lower save_total_limit or choose another --output_dir"
        )


def _numel(parameter: "torch.nn.Parameter") -> int:
    """Return the number of elements of a parameter that may be sharded by ZeRO-3 or packed to 4 bits."""
    return getattr(parameter, "ds_numel", parameter.numel()) * (2 if hasattr(parameter, "quant_state") else 1)
