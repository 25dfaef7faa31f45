"""The model card: a template filled from training.json and results.json, so no number in it is typed by hand."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from command_line.public import public_value
from open_ner.conversation import build_query
from open_ner.tools.files import write_atomic, write_json

from .markdown import code, escape
from .records import SCORERS, Comparison, RunResults, TrainingRecord, run_name

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

AGAINST_TEACHER = "results/against_teacher.json"  # in a student's folder
SECTION = "## Against the teacher\n\n"
MODEL_TEMPLATE = Path(__file__).parent.parent / "model_card.md"


def write_model_card(folder: Path, results: RunResults | None = None, table: str = "Not evaluated yet.") -> None:
    """Write a student's `README.md` from its training.json, and its evaluation results both there and in `results/`.

    `table` is the Markdown table of all models of the evaluation.
    """
    from huggingface_hub import ModelCard, ModelCardData

    training: TrainingRecord = public_value(json.loads((folder / "training.json").read_text(encoding="utf-8")))
    options = json.loads((folder / "config.json").read_text(encoding="utf-8"))["open_ner"]
    if results:
        name = run_name(results["suite"], results["protocol"], results["decoding"])
        (folder / "results").mkdir(exist_ok=True)
        write_json(folder / "results" / f"{name}.json", public_value(results))
    metadata = ModelCardData(
        model_name=training["name"], license=str(training["recipe"]["license"]),
        language=training.get("language") or None, library_name="transformers",
        pipeline_tag="text-generation",  # token-classification would load a random head
        base_model=_hub_id(training["base_model"]), datasets=_hub_id(training["dataset"]),
        tags=["named-entity-recognition", "open-ner", "universal-ner"],
        eval_results=_eval_results(results) if results else None,
    )  # fmt: skip
    losses = [f"{entry['loss']:.3f}" for entry in training["history"] if "loss" in entry] or ["not logged"]
    card = ModelCard.from_template(
        metadata, template_path=str(MODEL_TEMPLATE),
        name=escape(training["name"]), base_model=code(training["base_model"]), dataset=code(training["dataset"]),
        trained_on=training["trained_on"], minutes=f"{training['seconds'] / 60:.1f}",
        first_loss=losses[0], last_loss=losses[-1], language=escape(", ".join(training.get("language", []))),
        recipe=json.dumps(training["recipe"], indent=1), results=results, results_table=table,
        types=", ".join(escape(name) for name in options["types"]),
        calibrated=options.get("temperature", 1.0) != 1.0,
        against_teacher=_against_teacher(folder),
        query=json.dumps(build_query("Marie Curie was born in Warsaw.", "city"), indent=1),
    )  # fmt: skip
    card.save(folder / "README.md")


def write_against_teacher(folder: Path, comparison: Comparison, figure: Path) -> Path:
    """Write a comparison with the teacher into a student's folder, and its section into the card; return the card.

    The rest of a card that exists stays as it is.
    """
    (folder / "results").mkdir(exist_ok=True)
    (folder / "figures").mkdir(exist_ok=True)
    write_json(folder / AGAINST_TEACHER, public_value(comparison))
    shutil.copyfile(figure, folder / "figures" / "against_teacher.png")
    card = folder / "README.md"
    if not card.exists():
        write_model_card(folder)
        return card
    before, heading, after = card.read_text(encoding="utf-8").partition(SECTION)
    if heading:
        after = after[after.find("\n## ") + 1 :] if "\n## " in after else ""
    else:  # a card without the section: it stands before the training
        before, training, rest = before.partition("## Training\n")
        after = training + rest
    write_atomic(card, f"{before}{_against_teacher(folder)}{after}")
    return card


def _against_teacher(folder: Path) -> str:
    """Return the card's section about the comparison with the teacher; empty without a comparison."""
    if not (path := folder / AGAINST_TEACHER).exists():
        return ""
    section = json.loads(path.read_text(encoding="utf-8"))["section"]
    return f"{SECTION}{section}\n\n![student and teacher](figures/against_teacher.png)\n\n"


def write_eval_results(folder: Path, results: RunResults) -> Path | None:
    """Write `.eval_results/<run>.yaml`, the Hub's format for results on benchmarks that are Hub datasets.

    Sampled benchmarks are excluded, because the Hub shows a value as that of the whole benchmark.

    Returns:
        The path of the file, or None if there was no result to write.
    """
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    notes = f"official F1, protocol {results['protocol']}, {results['decoding']} decoding"
    entries = [
        EvalResultEntry(
            dataset_id=dataset["id"], task_id=dataset["config"] or "default", dataset_revision=dataset["revision"],
            value=round(100 * official["f1"], 2), notes=notes,
        )
        for result in results["benchmarks"].values()
        if (dataset := result["dataset"])["id"] and (official := result["official"]) and not result["sampled"]
    ]  # fmt: skip
    if not entries:
        return None
    name = run_name(results["suite"], results["protocol"], results["decoding"])
    target = folder / ".eval_results" / f"{name}.yaml"
    target.parent.mkdir(exist_ok=True)
    write_atomic(target, yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False))
    return target


def _eval_results(results: RunResults) -> "list[EvalResult]":
    """Return the F1 of each benchmark and scorer for the Hub's model-index; names of sampled benchmarks say so."""
    from huggingface_hub import EvalResult

    entries = []
    for name, result in results["benchmarks"].items():
        dataset, sampled = result["dataset"], result["sampled"]
        setting = f"{results['protocol']} protocol, {results['decoding']} decoding"
        if sampled:
            setting += f", sample of {sampled['passages']} of {sampled['of']} passages"
        for scorer in SCORERS:
            if scores := result[scorer]:
                entry = EvalResult(
                    task_type="token-classification", task_name="zero-shot named-entity recognition",
                    dataset_type=dataset["id"] or name, dataset_name=f"{name} ({setting})",
                    dataset_config=dataset["config"], dataset_revision=dataset["revision"],
                    metric_type="f1", metric_name=f"{scorer} F1", metric_value=round(100 * scores["f1"], 2),
                )  # fmt: skip
                entries.append(entry)
    return entries


def _hub_id(name: str) -> str | None:
    """Return a Hub id as it is, or None for a local folder, which the Hub's metadata must not contain."""
    return None if Path(name).exists() or name.count("/") != 1 or name.startswith(("models/", "runs/")) else name
