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


def plot_learning_curve(history: list[dict[str, Any]], path: Path) -> None:
    """Loss and token accuracy on the answers, by step."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    steps = [entry["step"] for entry in history]
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    axes.plot(steps, [entry["loss"] for entry in history], color="#3b6fb6", label="loss")
    axes.set(xlabel="step", ylabel="loss on the answers", title="Learning curve", ylim=(0, None))
    axes.grid(alpha=0.3, linewidth=0.4)
    if all("mean_token_accuracy" in entry for entry in history):
        right = axes.twinx()
        accuracy = [entry["mean_token_accuracy"] for entry in history]
        right.plot(steps, accuracy, color="#c8553d", label="token accuracy")
        right.set(ylabel="token accuracy on the answers", ylim=(0, 1))
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
