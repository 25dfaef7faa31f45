"""The model's card: a template filled from files that a command wrote, so that no number in it was typed."""

import json
from pathlib import Path
from typing import Any

from open_ner.conversation import build_query

from .markdown import code, escape

MODEL_TEMPLATE = Path(__file__).parent.parent / "model_card.md"


def write_model_card(folder: Path, results: dict[str, Any] | None = None, table: str = "Not evaluated yet.") -> None:
    """Write a student's `README.md` from its training.json and the results of an evaluation, which go with it.

    `table` is the Markdown table of all models of that evaluation.
    """
    from huggingface_hub import ModelCard, ModelCardData

    training = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if results:
        target = folder / "results" / f"{_run_name(results)}.json"
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(results, indent=1, ensure_ascii=False), encoding="utf-8")
    metadata = ModelCardData(
        model_name=training["name"],
        license=training["recipe"]["license"],
        language=["en"],
        library_name="transformers",
        pipeline_tag="text-generation",  # token-classification would load a random head
        base_model=_hub_id(training["base_model"]),
        datasets=_hub_id(training["dataset"]),
        tags=["named-entity-recognition", "open-ner", "universal-ner"],
        eval_results=_eval_results(results) if results else None,
    )
    history = [entry for entry in training["history"] if "loss" in entry]
    card = ModelCard.from_template(
        metadata,
        template_path=str(MODEL_TEMPLATE),
        name=escape(training["name"]),
        base_model=code(training["base_model"]),
        dataset=code(training["dataset"]),
        trained_on=training["trained_on"],
        minutes=f"{training['seconds'] / 60:.1f}",
        first_loss=f"{history[0]['loss']:.3f}",
        last_loss=f"{history[-1]['loss']:.3f}",
        recipe=json.dumps(training["recipe"], indent=1),
        results=results,
        results_table=table,
        types=", ".join(escape(name) for name in config["open_ner"]["types"]),
        calibrated=config["open_ner"].get("temperature", 1.0) != 1.0,
        query=json.dumps(build_query("Marie Curie was born in Warsaw.", "city"), indent=1),
    )
    card.save(folder / "README.md")


def _run_name(results: dict[str, Any]) -> str:
    return f"{results['suite']}-{results['protocol']}-{results['decoding']}"


def _eval_results(results: dict[str, Any]) -> list[Any]:
    """Each benchmark's F1 under each scorer, as the Hub's model-index holds them."""
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type="token-classification",
            task_name="zero-shot named-entity recognition",
            dataset_type=name,
            dataset_name=f"{name} ({results['protocol']} protocol, {results['decoding']} decoding)",
            metric_type="f1",
            metric_name=f"{scorer} F1",
            metric_value=round(100 * scores["f1"], 2),
        )
        for name, result in results["benchmarks"].items()
        for scorer in ("official", "strict")
        if (scores := result[scorer])
    ]


def _hub_id(name: str) -> str | None:
    """A Hub id, or None for a local folder, which the Hub's metadata cannot name."""
    return None if Path(name).exists() or name.count("/") != 1 or name.startswith(("models/", "runs/")) else name
