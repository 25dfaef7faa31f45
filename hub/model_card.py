"""The model card: a template filled from training.json and results.json, so no number in it is typed by hand."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from command_line.pretrained import read_repository_file
from command_line.public import public_value
from open_ner.conversation import build_query
from open_ner.tools.files import read_json, write_atomic, write_json

from .licenses import conflicts, derive
from .markdown import code, escape
from .records import SCORERS, Comparison, RunResults, Source, TrainingData, TrainingRecord, run_name
from .results_tables import calibration_table, seen_types_table, suite_section
from .training_tables import contamination_table, training_table

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

AGAINST_TEACHER = "results/against_teacher.json"  # in a student's folder
REFERENCE = ".baseline.json"  # suffix of the file of the reference's results in a student's folder
TRAINING_DATA = "results/training_data.json"
SECTION = "## Against the teacher\n\n"
MODEL_TEMPLATE = Path(__file__).parent.parent / "model_card.md"


def write_model_card(folder: Path, results: RunResults | None = None, reference: RunResults | None = None) -> None:
    """Write a student's `README.md` from its training.json, types.json and all results in `results/`.

    Args:
        folder: the student's folder.
        results: results to add to `results/` first; they replace those of the same suite, protocol and decoding.
        reference: results of the model that `results` are compared with.
    """
    from huggingface_hub import ModelCard, ModelCardData

    training: TrainingRecord = public_value(read_json(folder / "training.json"))
    if results:
        (folder / "results").mkdir(exist_ok=True)
        name = run_name(results["suite"], results["protocol"], results["decoding"])
        write_json(folder / "results" / f"{name}.json", public_value(results))
        beside = folder / "results" / f"{name}{REFERENCE}"
        if reference:
            write_json(beside, public_value(reference))
        else:
            beside.unlink(missing_ok=True)
    runs, data = read_runs(folder), read_training_data(folder, training)
    licenses, base, dataset = data["licenses"], hub_id(training, "base_model"), hub_id(training, "dataset")
    license_ = str(training["recipe"]["license"] or derive(licenses))
    metadata = ModelCardData(
        model_name=training["name"], license=license_, language=training.get("language") or None,
        library_name="transformers", pipeline_tag="text-generation",  # token-classification would load a random head
        base_model=base, base_model_relation="finetune" if base else None, datasets=dataset,
        tags=["named-entity-recognition", "open-ner", "universal-ner"], metrics=["f1"],
        eval_results=[entry for run, _ in runs for entry in _eval_results(run)] or None,
    )  # fmt: skip
    losses = [f"{entry['loss']:.3f}" for entry in training["history"] if "loss" in entry] or ["not logged"]
    types = read_json(path) if (path := folder / "types.json").exists() else {}
    options = read_json(folder / "config.json")["open_ner"]
    query = build_query("Marie Curie was born in Warsaw.", "city")
    card = ModelCard.from_template(
        metadata, template_path=str(MODEL_TEMPLATE),
        name=escape(training["name"]), base_model=_link(training["base_model"], base, ""),
        dataset=_link(training["dataset"], dataset, "datasets/"),
        first_loss=losses[0], last_loss=losses[-1], language=escape(", ".join(training.get("language", []))),
        recipe=json.dumps(training["recipe"], indent=1), query=json.dumps(query, indent=4),
        suites="\n\n".join(suite_section(run, reference) for run, reference in runs),
        calibration=calibration_table([run for run, _ in runs]), against_teacher=_against_teacher(folder),
        types=", ".join(escape(name) for name in options["types"]),
        training=training_table(training, data, len(types)),
        calibrated=options.get("temperature", 1.0) != 1.0,
        contamination=contamination_table(data["contamination"]), rule=data["contamination_options"],
        seen_types=seen_types_table([run for run, _ in runs], types),
        license_text=_license_text(license_, data),
    )  # fmt: skip
    card.save(folder / "README.md")


def read_runs(folder: Path) -> list[tuple[RunResults, RunResults | None]]:
    """Return the results in a student's folder, each with those of its reference if there are any."""
    runs = []
    for path in sorted((folder / "results").glob("*.json")):
        run = read_json(path)
        if "benchmarks" in run and not path.name.endswith(REFERENCE):
            beside = path.with_name(f"{path.stem}{REFERENCE}")
            runs.append((run, read_json(beside) if beside.exists() else None))
    return runs


def read_training_data(folder: Path, training: TrainingRecord) -> TrainingData:
    """Return what dataset and base model state about themselves: licenses, teacher, contamination.

    The first call reads it from them and saves it in the student's folder, and later calls read the saved file: the
    dataset and the base model may move or change, and the folder does not contain local paths. Nothing is saved if one
    of them cannot be reached, so that the next call tries again.
    """
    path = folder / TRAINING_DATA
    if path.exists():
        return read_json(path)
    wanted: list[tuple[Source, str, str]] = [
        ("dataset", "stats.json", "dataset"),
        ("base_model", "README.md", "model"),
        ("dataset", "README.md", "dataset"),
    ]
    # a folder that is elsewhere now is not looked up on the Hub, where its name is somebody else's
    local = [source for source, on_hub in training.get("on_hub", {}).items() if not on_hub]
    gone = [source for source in local if not Path(training[source]).is_dir()]
    read = [
        None if source in gone else read_repository_file(training[source], file, [kind])
        for source, file, kind in wanted
    ]
    stats, base, dataset = (part or {} for part in read)
    found: TrainingData = public_value({
        "licenses": {"the base model": _license_of(base), "the dataset": _license_of(dataset)},
        "passage_licenses": stats.get("licenses", {}), "teacher": stats.get("teacher", []),
        "contamination": stats.get("contamination", []),
        "contamination_options": stats.get("contamination_options", {}),
    })  # fmt: skip
    if None not in read and any(read):
        path.parent.mkdir(exist_ok=True)
        write_json(path, found)
    return found


def _license_of(card: dict) -> str:
    """Return the license in a card's metadata (`license_name`, a string or a list); empty if there is none."""
    given = card.get("license_name") or card.get("license") or ""
    return ", ".join(map(str, given)) if isinstance(given, list) else str(given)


def _license_text(license_name: str, data: TrainingData) -> str:
    """Return the paragraph about the license: what it follows from, and what conflicts with it."""
    stated = [f"{name}: {escape(own) or 'not stated'}" for name, own in data["licenses"].items()]
    parts = [f"The license of this model is {escape(license_name)}. Licenses of its sources: {', '.join(stated)}."]
    parts += map(escape, conflicts(license_name, data["licenses"], data["passage_licenses"]))
    parts.append("The terms of the teacher's provider apply too; several forbid training competing models.")
    return " ".join(parts)


def _link(name: str, repo_id: str | None, kind: str) -> str:
    """Return a link to a repository of the Hub, or the name of a local folder."""
    return f"[{escape(name)}](https://huggingface.co/{kind}{repo_id})" if repo_id else f"`{code(name)}`"


def write_against_teacher(folder: Path, comparison: Comparison, figure: Path) -> Path:
    """Write a comparison with the teacher into a student's folder, and its section into the card; return the card.

    The rest of an existing card is kept.
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
    else:  # a card without the section: insert it before Training
        before, training, rest = before.partition("## Training\n")
        after = training + rest
    write_atomic(card, f"{before}{_against_teacher(folder)}{after}")
    return card


def _against_teacher(folder: Path) -> str:
    """Return the card's section about the comparison with the teacher; empty without a comparison."""
    if not (path := folder / AGAINST_TEACHER).exists():
        return ""
    section = read_json(path)["section"]
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
    """Return the F1 of each benchmark and scorer for the Hub's model-index.

    The setting is part of the metric's name, because the Hub lists all metrics of a benchmark under one name.
    """
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
                    dataset_type=dataset["id"] or name, dataset_name=name,
                    dataset_config=dataset["config"], dataset_revision=dataset["revision"],
                    metric_type="f1", metric_name=f"{scorer} F1 ({setting})",
                    metric_value=round(100 * scores["f1"], 2),
                )  # fmt: skip
                entries.append(entry)
    return entries


def hub_id(training: TrainingRecord, source: Source) -> str | None:
    """Return the Hub id of a student's dataset or base model; None for a local folder, which metadata must not name.

    `on_hub` of training.json says which it is. Older files do not have it: what is no folder now counts as an id.
    """
    name = training[source]
    on_hub = training["on_hub"][source] if "on_hub" in training else is_hub_id(name)
    return name if on_hub else None


def is_hub_id(name: str) -> bool:
    """Whether a name is that of a repository of the Hub and not of a local folder."""
    return not (Path(name).exists() or name.count("/") != 1 or name.startswith(("models/", "runs/")))
