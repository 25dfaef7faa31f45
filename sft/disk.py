"""Whether the disk can hold what training writes: better said before training than after."""

import shutil
from pathlib import Path
from typing import Any

from open_ner.tools.errors import UserError


def require_space(folder: Path, needed: int) -> None:
    """Raise UserError unless the disk of `folder` can hold `needed` bytes."""
    existing = next(parent for parent in [folder, *folder.absolute().parents] if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(
            f"{folder}: weights and checkpoints need {needed / 2**30:.1f} GiB and the disk has {free / 2**30:.1f} GiB "
            "left: make room, lower save_total_limit or choose another --output_dir"
        )


def count_bytes(model: Any, config: Any) -> int:
    """Bytes of the tuned weights and of the checkpoints that lie on the disk at one time."""
    # DeepSpeed ZeRO-3 has split the weights as they were read, and keeps a parameter's size beside it
    sizes = [(getattr(p, "ds_numel", p.numel()) * p.itemsize, p.requires_grad) for p in model.parameters()]
    weights = sum(size for size, _ in sizes)
    if config.save_strategy == "no":
        return weights
    # one more than the limit: the oldest checkpoint goes after the newest came
    moments = sum(2 * size for size, learned in sizes if learned)
    return weights + (weights + moments) * ((config.save_total_limit or 1) + 1)
