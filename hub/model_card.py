"""The model's card: a template filled from files that a command wrote, so that no number in it was typed."""

import json
from pathlib import Path
from typing import Any

from open_ner.conversation import build_query

from .markdown import code, escape
from .records import SCORERS, run_name

MODEL_TEMPLATE = Path(__file__).parent.parent / "model_card.md"


def write_model_card(folder: Path, results: dict[str, Any] | None = None, table: str = "Not evaluated yet.") -> None:
    """Write a student's `README.md` from its training.json and the results of an evaluation, which go with it.

    `table` is the Markdown table of all models of that evaluation.
    """
    from huggingface_hub import ModelCard, ModelCardData

    training = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if results:
        target = folder / "results" / f"{run_name(results['suite'], results['protocol'], results['decoding'])}.json"
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


def write_eval_results(folder: Path, results: dict[str, Any]) -> Path | None:
    """Write `.eval_results/<run>.yaml`, the Hub's form of results, for benchmarks that are datasets of the Hub.

    A seeded sample of a benchmark is left out: the Hub shows the values as those of the whole. None where nothing is
    left.
    """
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    entries = [
        EvalResultEntry(
            dataset_id=result["dataset"]["id"],
            task_id=result["dataset"]["config"] or "default",
            value=round(100 * result["official"]["f1"], 2),
            dataset_revision=result["dataset"]["revision"],
            notes=f"official F1, protocol {results['protocol']}, {results['decoding']} decoding",
        )
        for result in results["benchmarks"].values()
        if result.get("dataset", {}).get("id") and not result["sampled"]
    ]
    if not entries:
        return None
    target = folder / ".eval_results" / f"{run_name(results['suite'], results['protocol'], results['decoding'])}.yaml"
    target.parent.mkdir(exist_ok=True)
    target.write_text(yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False), encoding="utf-8")
    return target


def _eval_results(results: dict[str, Any]) -> list[Any]:
    """Each benchmark's F1 under each scorer, as the Hub's model-index holds them; a sample is called one."""
    from huggingface_hub import EvalResult

    entries = []
    for name, result in results["benchmarks"].items():
        dataset, sampled = result.get("dataset", {}), result["sampled"]
        setting = f"{results['protocol']} protocol, {results['decoding']} decoding"
        sample = f", sample of {sampled['passages']} of {sampled['of']} passages" if sampled else ""
        for scorer in SCORERS:
            if scores := result.get(scorer):
                entries.append(
                    EvalResult(
                        task_type="token-classification",
                        task_name="zero-shot named-entity recognition",
                        dataset_type=dataset.get("id") or name,
                        dataset_name=f"{name} ({setting}{sample})",
                        dataset_config=dataset.get("config"),
                        dataset_revision=dataset.get("revision"),
                        metric_type="f1",
                        metric_name=f"{scorer} F1",
                        metric_value=round(100 * scores["f1"], 2),
                    )
                )
    return entries


def _hub_id(name: str) -> str | None:
    """A Hub id, or None for a local folder, which the Hub's metadata cannot name."""
    return None if Path(name).exists() or name.count("/") != 1 or name.startswith(("models/", "runs/")) else name
