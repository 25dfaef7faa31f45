"""Check before training that the disk has room for weights and checkpoints."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from open_ner.tools.errors import UserError

if TYPE_CHECKING:
    from torch import nn
    from transformers import TrainingArguments


def require_space(folder: Path, model: "nn.Module", config: "TrainingArguments") -> None:
    """Raise UserError unless the disk of `folder` has room for the weights and the checkpoints of a run."""
    # under DeepSpeed ZeRO-3 the parameters are sharded already, and ds_numel is their full size
    sizes = [(getattr(p, "ds_numel", p.numel()) * p.itemsize, p.requires_grad) for p in model.parameters()]
    needed = weights = sum(size for size, _ in sizes)
    if config.save_strategy != "no":
        moments = sum(2 * size for size, learned in sizes if learned)
        # one more than the limit, because the oldest checkpoint is deleted after the newest is written
        needed += (weights + moments) * ((config.save_total_limit or 1) + 1)
    existing = next(parent for parent in [folder, *folder.absolute().parents] if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(
            f"{folder}: weights and checkpoints need {needed / 2**30:.1f} GiB and the disk has {free / 2**30:.1f} GiB "
            "left: free space, lower save_total_limit or choose another --output_dir"
        )
