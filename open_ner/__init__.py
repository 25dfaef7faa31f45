"""Named-entity recognition with types of your choice, by a small student model.

    import open_ner

    tagger = open_ner.load("org/model")
    tagger("Ada Lovelace met Charles Babbage in London.", types=["person", "city"])

`import open_ner` is fast: torch and transformers are imported when a model is loaded.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from .pipeline import OpenNERPipeline
    from .tools.served import ServedNER

__all__ = ["OpenNERPipeline", "ServedNER", "load"]
__version__ = "0.1.0"


def load(
    model: str | os.PathLike[str],
    *,
    device: "int | str | torch.device | None" = None,
    dtype: "str | torch.dtype" = "auto",
    revision: str | None = None,
    **options: Any,
) -> "OpenNERPipeline":
    """Load a student with the code of this package; code saved with the model is never run.

    Args:
        model: folder or Hub id.
        device: such as "cpu", "cuda:1" or "mps"; default: the first accelerator, or the CPU if there is none.
        dtype: such as "bfloat16"; default: that of the saved weights.
        revision: branch, tag or commit of a Hub model.
        options: defaults for calls (see `OpenNERPipeline`), or arguments of `transformers.pipeline`, such as `token`
            or `device_map`.

    Raises:
        OSError: the model does not exist, or its weights cannot be read.
        ValueError: the model's architecture or tokenizer is not supported, or an option is out of range.
    """
    import transformers

    from .pipeline import TASK, OpenNERPipeline
    from .tools.errors import readable_weights

    build: Any = transformers.pipeline  # its overloads list only transformers' own tasks
    options |= {"device": device, "dtype": dtype, "revision": revision}
    with readable_weights():
        return build(TASK, model=os.fspath(model), pipeline_class=OpenNERPipeline, trust_remote_code=False, **options)


if not TYPE_CHECKING:  # a type checker sees the imports above

    def __getattr__(name: str) -> Any:
        home = {"OpenNERPipeline": ".pipeline", "ServedNER": ".tools.served"}.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(home, __name__), name)
