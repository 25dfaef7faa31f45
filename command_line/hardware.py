"""The hardware of a run: its name, and what its CPU can compute fast."""

import os
import platform


def hardware(processes: int = 1) -> str:
    """Return the name of the GPU, or of the CPU with its number of cores; `processes` is the number of GPUs in use."""
    import torch

    if not torch.cuda.is_available():
        return f"{platform.machine()} CPU, {os.cpu_count()} cores"
    name = torch.cuda.get_device_name(0)
    return f"{processes} x {name}" if processes > 1 else name


def fast_bf16() -> bool:
    """Return whether the CPU has instructions for bfloat16; others emulate it, several times slower than float32."""
    import torch

    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16"))
