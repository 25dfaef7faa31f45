"""The student as a folder that anyone can load: merged weights, stock template, pipeline files, origin."""

import json
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from open_ner.cli import UserError
from open_ner.pipeline import DEFAULTS, OpenNERPipeline

DEFAULT_TYPES = 12  # so many of the most frequent training types are asked where a caller names none


def save_student(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, dataset: str, results: dict[str, Any]
) -> None:
    """Write weights, tokenizer, the open-NER pipeline, the training's results and the types it saw to `folder`.

    An adapter is merged first. `generation_config` ends at the token the answers end with and samples nothing, so that
    `pipeline("text-generation")` answers as the open-NER pipeline does.
    """
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    types = read_types(dataset)
    model.config.open_ner = {**DEFAULTS, "types": list(types)[:DEFAULT_TYPES] or DEFAULTS["types"]}
    model.config.use_cache = True
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
        max_new_tokens=DEFAULTS["max_new_tokens"],
    )
    folder.mkdir(parents=True, exist_ok=True)
    OpenNERPipeline(model=model.eval(), tokenizer=tokenizer, device=model.device).save_pretrained(folder)
    (folder / "training.json").write_text(json.dumps(results, indent=1, default=str), encoding="utf-8")
    (folder / "types.json").write_text(json.dumps(types, indent=0, ensure_ascii=False), encoding="utf-8")


def read_types(dataset: str) -> dict[str, int]:
    """Frequency of the dataset's entity types from its `types.json`, local or on the Hub; empty where it has none."""
    path = Path(dataset) / "types.json"
    if not Path(dataset).is_dir():
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        try:
            path = Path(hf_hub_download(dataset, "types.json", repo_type="dataset"))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError):
            return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{path}: not readable: {error}") from None
