"""The name of the hardware that a result was measured on."""

import os
import platform


def hardware(processes: int = 1) -> str:
    """Return the name of the GPU, or of the CPU with its number of cores; `processes` is the number of GPUs in use."""
    import torch

    if not torch.cuda.is_available():
        return f"{platform.machine()} CPU, {os.cpu_count()} cores"
    name = torch.cuda.get_device_name(0)
    return f"{processes} x {name}" if processes > 1 else name
