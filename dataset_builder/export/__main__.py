"""Write a dataset of this project in the form of another trainer.

    python -m dataset_builder.export runs/my-dataset/dataset --to gliner --output exports/gliner
    python -m dataset_builder.export org/my-dataset --to spacy --language de --output exports/spacy
    python -m dataset_builder.export runs/my-dataset/dataset --to token-classification --types person,city --output out

Each split becomes one file. What the form cannot hold is counted by reason in export.json and listed in rejects.jsonl.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from command_line.public import public_path
from open_ner.tools.errors import UserError, run
from open_ner.tools.files import write_json, write_jsonl
from open_ner.tools.options import read_type_names

from ..config import Variant
from .forms import write_gliner, write_iob2, write_spacy
from .passages import Alignment, ExportPassage, Tally, find_passages, read_passages

if TYPE_CHECKING:
    from datasets import Dataset

HUMAN = ("supervised", "mixture")  # the configs with human-annotated passages
SUFFIXES = {"gliner": ".json", "spacy": ".spacy", "token-classification": ".parquet"}
COLUMNS, ENTITY_COLUMNS = {"id", "text", "entities"}, {"start", "end", "type"}
EXPLANATIONS = {  # explanations of the counts that a user may want to act on
    "not_on_word_borders": "begin or end inside a word: --alignment expand widens them to whole words",
    "inside_unspaced_word": "begin or end inside text without spaces, which is one word in this form: choose "
    "--to token-classification, or --to spacy with --language zh, ja or th",
    "entities_widened": "were widened to whole words",
    "overlaps_longer_span": "overlap a longer one: --to gliner and --to spacy keep both",
    "entities_outside_doc_ents": 'overlap a longer one, and are in doc.spans["sc"] only',
    "spans_over_max_width": "have more than 12 words: GLiNER ignores them unless max_width of its config is higher",
    "passages_over_max_len": "have more than 384 words: GLiNER cuts them unless max_len of its config is higher",
    "passages_over_max_types": "ask more than 25 types: GLiNER draws 25 unless max_types of its config is higher",
    "absent_types": "are known to be absent from a passage; this format takes every unmarked type for absent",
}
Write = Callable[[Iterable[ExportPassage], Path, Alignment, Tally], None]


def main() -> None:
    """Read the dataset, write each split, and print what could not be carried over."""
    args = parse_arguments()
    config, splits = load_splits(args.dataset, args.dataset_config, args.to)
    found = Counter(mention["type"] for rows in splits.values() for own in rows["entities"] for mention in own)
    types = read_type_names(args.types)
    if unknown := [kind for kind in types or [] if kind not in found]:
        known = ", ".join(kind for kind, _ in found.most_common(10))
        raise UserError(f"--types: {unknown[0]!r} does not occur in {args.dataset}; its most frequent types: {known}")
    write = writer(args.to, args.language, sorted(found if types is None else types))

    from tqdm import tqdm

    from ..build import replaced

    output, tallies = Path(args.output), {name: Tally() for name in splits}
    files = {name: f"{name}{SUFFIXES[args.to]}" for name in splits}
    with replaced(output, "export.json", "an export") as folder:
        for name, rows in splits.items():
            places = find_passages(rows.select_columns(["id", "text"]))
            progress: Iterable[Any] = tqdm(places, name, disable=None)
            needed = [column for column in ("id", "text", "entities", "negatives") if column in rows.column_names]
            passages = read_passages(rows.select_columns(needed), progress, types, tallies[name])
            write(passages, folder / files[name], args.alignment, tallies[name])
        rejects = ({"split": name, **asdict(one)} for name, tally in tallies.items() for one in tally.rejects)
        write_jsonl(folder / "rejects.jsonl", rejects)
        options = {"to": args.to, "alignment": args.alignment, "types": types, "language": args.language}
        summaries = {name: tally.summary() for name, tally in tallies.items()}
        source = {"dataset": public_path(args.dataset), "config": config}
        write_json(folder / "export.json", {**source, **options, "splits": summaries})
    for name, tally in tallies.items():
        show(name, tally.summary(), output / files[name])


def load_splits(name: str, config: str | None, form: str) -> tuple[str, "dict[str, Dataset]"]:
    """Return the chosen config of a dataset and its splits.

    If `config` is None, GLiNER gets the default config, whose rows name absent types. In the other forms, every type
    that is not marked counts as absent, so they get `annotations`, where each passage has all of its entities. If this
    leaves out configs with human-annotated passages, their names are printed.

    Raises:
        UserError: there is no such dataset or config, or its columns are not those of this project.
    """
    from datasets import get_dataset_config_names, load_dataset

    if Path(name).is_file():
        raise UserError(f"{name} is a file: give the folder of a dataset, or its Hub id")
    try:
        configs, given = get_dataset_config_names(name), config
        if config is None and form != "gliner" and "annotations" in configs:
            config = "annotations"
        splits = {str(split): rows for split, rows in load_dataset(name, config).items()}
    except Exception as error:  # `datasets` raises dozens of types for a source that it cannot read
        raise UserError(f"{name!r} cannot be read as a dataset: {str(error):.300}") from None
    for rows in splits.values():
        columns = set(rows.column_names)
        entity = getattr(rows.features.get("entities"), "feature", None)
        if not columns >= COLUMNS or not isinstance(entity, dict) or not entity.keys() >= ENTITY_COLUMNS:
            raise UserError(
                f"{name}: its columns are {', '.join(sorted(columns))}; a dataset of this project has id, text and "
                "entities with start, end and type: choose another --dataset_config, or build it first"
            )
    config = config or next(iter(splits.values())).info.config_name or "default"
    others = [one for one in HUMAN if one in configs]
    if given is None and others and config not in HUMAN and not {*get_args(Variant)}.isdisjoint(configs):
        what = f"config {config} has the passages that the teacher annotated, and no human-annotated ones"
        print(f"{what}: for these give --dataset_config {' or '.join(others)}")
    return config, splits


def writer(form: str, language: str | None, types: list[str]) -> Write:
    """Return the function that writes a split; raise UserError if spaCy or its language is not installed."""
    if form == "gliner":
        return write_gliner
    if form == "token-classification":
        return partial(write_iob2, types=types)
    try:
        import spacy
    except ModuleNotFoundError as error:
        raise UserError(f"--to spacy needs the package {error.name}: pip install spacy") from None
    try:
        return partial(write_spacy, nlp=spacy.blank(language or "en"))
    except ImportError as error:  # an unknown language, or the package of its tokenizer is missing
        raise UserError(f"--language {language}: {str(error):.200}") from None


def show(name: str, summary: dict[str, Any], path: Path) -> None:
    """Print one line for a split, and one for each count that the user may want to act on."""
    kept, read = summary.get("entities_kept", 0), summary.get("entities_read", 0)
    print(f"{name}: {summary.get('passages', 0)} passages, {kept} of {read} entities -> {path}")
    counts = {**summary["rejected"], **summary}
    for reason in [*summary["rejected"], *(key for key in EXPLANATIONS if key in summary)]:
        if counts[reason]:
            print(f"  {counts[reason]} {reason}{': ' if reason in EXPLANATIONS else ''}{EXPLANATIONS.get(reason, '')}")


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        "python -m dataset_builder.export", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("dataset", help="folder of a dataset that this project built, or its Hub id")
    parser.add_argument("--to", choices=list(SUFFIXES), required=True, help="the form to write")
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="folder of the export; an older one is replaced"
    )
    configs = "default: annotations, where each passage has all of its entities; for gliner that of load_dataset"
    parser.add_argument("--dataset_config", help=f"config of the dataset ({configs})")
    parser.add_argument("--types", help="export only these types, separated by commas or as a JSON list")
    inside = "an entity that begins or ends inside a word: strict rejects it, expand widens it (strict)"
    parser.add_argument("--alignment", choices=["strict", "expand"], default="strict", help=inside)
    parser.add_argument("--language", help="with --to spacy: code of the tokenizer's language, as in spacy.blank (en)")
    args = parser.parse_args()
    if args.language and args.to != "spacy":
        raise UserError(f"--language {args.language} has an effect with --to spacy only: remove it")
    return args


if __name__ == "__main__":
    run(main)
