"""The hardware of a run: its name, and what its CPU can compute fast."""

import os
import platform

from open_ner.tools.errors import UserError


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


def inference_dtype(dtype: str | None = None) -> str:
    """Return the type of the weights for inference: by default bfloat16 on a GPU and float32 on a CPU.

    Raises UserError for bfloat16 on a CPU that only emulates it.
    """
    from accelerate import PartialState

    device = PartialState().device
    assert device is not None  # PartialState() sets it
    if dtype == "bfloat16" and device.type == "cpu" and not fast_bf16():
        raise UserError("dtype bfloat16 is several times slower than float32 on this CPU: remove it")
    return dtype or ("bfloat16" if device.type == "cuda" else "float32")
