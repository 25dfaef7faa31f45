"""Cards: templates filled from files that a command wrote, so that no number in them was typed."""

import html
import json
from pathlib import Path
from typing import Any

from open_ner.conversation import build_query

DATASET_TEMPLATE = Path(__file__).parent.parent / "dataset_builder" / "card.md"
MODEL_TEMPLATE = Path(__file__).parent.parent / "model_card.md"
ROWS = {
    "type": "a conversation that asks types by name",
    "definition": "a conversation that asks types by definition",
    "supervised": "a conversation about a passage of a human-annotated set, within its label set",
    "mixture": "distilled and human-annotated conversations, in a seeded order",
    "annotations": "a passage with its entities and where they come from",
}


def escape(text: str) -> str:
    """Text from a corpus or a model, harmless in a Markdown table: no HTML, no new cell, no link."""
    escaped = html.escape(" ".join(str(text).split()), quote=False)
    for character in "\\`*_[]|":
        escaped = escaped.replace(character, "\\" + character)
    return escaped


def write_dataset_card(folder: Path, stats: dict[str, Any], built: dict[str, Any]) -> None:
    """Write `README.md` with the Hub's metadata (`configs`, `dataset_info`, licence) and this build's statistics."""
    from huggingface_hub import DatasetCard, DatasetCardData

    default = next(iter(built))
    metadata = DatasetCardData(
        pretty_name=stats["name"],
        license=stats["licence"],
        language=["en"],
        task_categories=["token-classification", "text-generation"],
        tags=["named-entity-recognition", "universal-ner", "distillation"],
        configs=[
            {
                "config_name": name,
                "data_files": [{"split": split, "path": f"{name}/{split}-*.parquet"} for split in splits],
                **({"default": True} if name == default else {}),
            }
            for name, splits in built.items()
        ],
        dataset_info=[
            {"config_name": name, **next(iter(splits.values())).info._to_yaml_dict()} for name, splits in built.items()
        ],
    )
    splits = list(dict.fromkeys(split for parts in built.values() for split in parts))
    variant = stats["variants"][default]
    fixed = stats["negatives"]["negatives_per_passage"]
    per_passage = (
        f"{fixed} a passage" if fixed is not None else f"{stats['negatives']['negative_ratio']:g} per present type"
    )
    reasons = {
        f"{name}: {reason}": number
        for name, part in stats["variants"].items()
        for reason, number in sorted(part["counts"].items())
        if reason not in ("replies", "entities_read", "entities_kept")
    } | {
        f"{name}: {reason}": number
        for name, part in stats["supervised"].items()
        for reason, number in part["left_out"].items()
    }
    answers = stats["answers"]
    paid = (
        f"{answers['paid']} answers were paid for, ${answers['cost']:.4f}." if answers["paid"] else "Nothing was paid."
    )
    card = DatasetCard.from_template(
        metadata,
        template_path=str(DATASET_TEMPLATE),
        name=escape(stats["name"]),
        default_config=default,
        splits=splits,
        configs_table=[
            {"name": name, "what": ROWS[name], "sizes": [len(parts[s]) if s in parts else "-" for s in splits]}
            for name, parts in built.items()
        ],
        one_in=stats["negatives"]["validation_one_in"],
        statistics=_statistics(stats),
        teacher=escape(", ".join(stats["teacher"])),
        prompts=", ".join(f"{name} (hash {digest})" for name, digest in stats["prompts"].items()),
        answers=paid,
        corpus=f"{stats['corpus']['kept']} kept, dropped {stats['corpus']['dropped'] or 'none'}",
        sources=escape(", ".join(filter(None, stats["sources"])) or "not named"),
        licences=escape(", ".join(filter(None, stats["licences"])) or "not named"),
        negatives=f"{stats['negatives']['negatives']}, {per_passage}, seed {stats['negatives']['seed']}",
        dataset_line=stats["supervised_options"]["dataset_line"],
        set_negatives=stats["supervised_options"]["negatives"],
        sets=[
            {"name": escape(name), **part, "licence": escape(part["licence"])}
            for name, part in stats["supervised"].items()
        ],
        mixture=_mixture(stats["mixture"]) if "mixture" in built else "",
        contamination=stats["contamination"],
        overlaps=[
            {
                **overlap,
                "benchmark": escape(overlap["benchmark"]),
                "shared": escape(", ".join(overlap["types_shared"]) or "none"),
            }
            for overlap in stats["contamination"]["overlaps"]
        ],
        hallucination=f"{variant['hallucination_rate']:.2%}",
        dropped=", ".join(f"{escape(reason)} {number}" for reason, number in reasons.items()) or "nothing",
    )
    card.save(folder / "README.md")


def _mixture(mixture: dict[str, Any]) -> str:
    weights = ", ".join(f"{escape(name)} {weight:g}" for name, weight in mixture["weights"].items())
    return f"relative sizes {weights}; {mixture['passages_left_out']} passages left out" if weights else "everything"


def _statistics(stats: dict[str, Any]) -> list[tuple[str, str, str]]:
    rows = []
    for name, part in stats["variants"].items():
        paper = stats["paper"].get(name, {})
        for key in ("passages", "entities", "types", "queries", "negative_queries", "types_not_asked"):
            published = f"{paper[key]:,}" if key in paper else ""
            rows.append((f"{name}: {key.replace('_', ' ')}", f"{part[key]:,}", published))
        for band, label in enumerate(("top 1 % of types", "1-10 %", "10-100 %")):
            published = f"{paper['bands'][band]:.0%}" if "bands" in paper else ""
            rows.append((f"{name}: share of entities, {label}", f"{part['bands'][band]:.0%}", published))
    head = escape(", ".join(stats["variants"][next(iter(stats["variants"]))]["top_types"]))
    return [*rows, ("most frequent types", head, "person, organization, location, date, concept, ...")]


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
    history = training["history"]
    card = ModelCard.from_template(
        metadata,
        template_path=str(MODEL_TEMPLATE),
        name=escape(training["name"]),
        base_model=_code(training["base_model"]),
        dataset=_code(training["dataset"]),
        trained_on=training["trained_on"],
        minutes=f"{training['seconds'] / 60:.1f}",
        first_loss=f"{history[0]['loss']:.3f}",
        last_loss=f"{history[-1]['loss']:.3f}",
        recipe=json.dumps(training["recipe"], indent=1),
        results=results,
        results_table=table,
        types=", ".join(escape(name) for name in config["open_ner"]["types"]),
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


def _code(text: str) -> str:
    """Text that stands between backticks."""
    return text.replace("`", "'")


def _hub_id(name: str) -> str | None:
    """A Hub id, or None for a local folder, which the Hub's metadata cannot name."""
    return None if Path(name).exists() or name.count("/") != 1 or name.startswith(("models/", "runs/")) else name
