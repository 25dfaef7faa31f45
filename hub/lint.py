"""Check that cards agree with the files in their folders: metadata, tables, and data that loads.

    python -m hub.lint runs/quickstart/model runs/quickstart/data/dataset
    python -m hub.lint runs/quickstart/model --write

A folder is a student, its GGUF file, a dataset, or a Space with its README.md. `--write` writes the card of a student
or dataset anew from its files first. The exit status is 1 if a card has a problem.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from open_ner.tools.errors import UserError, run

from .contents import KINDS, read_metadata
from .dataset_card import write_dataset_card
from .model_card import write_model_card

Write = Callable[[Path], None]
WRITERS: dict[str, Write] = {"model": write_model_card, "dataset": write_dataset_card}  # write a card from files
REQUIRED = {
    "model": ("license", "library_name", "pipeline_tag", "tags", "model-index"),
    "dataset": ("license", "pretty_name", "configs", "dataset_info", "size_categories", "task_categories", "tags"),
    "gguf": ("license", "tags"),
    "space": ("title", "sdk", "app_file", "license"),
}
BUILT = ("license", "dataset_info", "size_categories")  # only in the card of a dataset with stats.json
LARGE = ("*.safetensors", "*.parquet", "*.gguf", "*.png", "tokenizer.json")  # large files, which no card depends on
TOGETHER = {"base_model": "base_model_relation"}  # key -> another key that it requires


def main() -> None:
    """Check the cards of the folders, print their problems, and exit with status 1 if there is one."""
    parser = argparse.ArgumentParser(
        prog="python -m hub.lint", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, help="folders of students, datasets and Spaces")
    parser.add_argument("--write", action="store_true", help="write the card anew from the folder's files first")
    args = parser.parse_args()
    failed = False
    for folder in args.folders:
        kind = kind_of(folder)
        if args.write and (write := writer_of(folder, kind)):
            write(folder)
        problems = list(lint(folder, kind))
        failed = failed or bool(problems)
        print(f"{folder / 'README.md'}: {'; '.join(problems) or f'{kind} card agrees with its files'}")
    sys.exit(failed)


def kind_of(folder: Path) -> str:
    """Return the kind of a folder; raises UserError if it has no card or is of an unknown kind."""
    for kind in REQUIRED:
        if any((folder / marker).is_file() for marker in KINDS[kind].markers):
            if not (folder / "README.md").is_file():
                raise UserError(f"{folder} has no README.md: a {kind} gets one from the command that makes it")
            return kind
    hints = "; ".join(f"a {kind} is {KINDS[kind].hint}" for kind in REQUIRED)
    raise UserError(f"{folder} has no card to check: {hints}")


def writer_of(folder: Path, kind: str) -> Write | None:
    """Return the function that writes a folder's card from its files; None if there is none for this folder."""
    return WRITERS.get(kind) if kind != "dataset" or (folder / "stats.json").exists() else None


def lint(folder: Path, kind: str) -> Iterator[str]:
    """Yield the problems of a card, one line each."""
    metadata = read_metadata(folder / "README.md")
    yield from check_metadata(metadata, folder / "README.md", kind)
    if write := writer_of(folder, kind):
        yield from check_tables(folder, write)
    if kind == "dataset":
        yield from check_data(folder, metadata)


def check_metadata(metadata: dict[str, Any], card: Path, kind: str) -> Iterator[str]:
    """Yield the missing required keys, and the keys that the card classes of huggingface_hub would change."""
    from huggingface_hub import DatasetCard, ModelCard, RepoCard, SpaceCard

    loaded: RepoCard = {"dataset": DatasetCard, "space": SpaceCard}.get(kind, ModelCard).load(card)
    again = loaded.data.to_dict()
    for key in sorted(metadata.keys() | again.keys()):
        if metadata.get(key) != again.get(key):
            yield f"{key} is {metadata.get(key)!r:.80}, which the Hub reads as {again.get(key)!r:.80}"
    needed = [key for key in REQUIRED[kind] if key != "model-index" or any(card.parent.glob("results/*-*.json"))]
    if kind == "dataset" and not (card.parent / "stats.json").exists():
        needed = [key for key in needed if key not in BUILT]
    needed += [other for key, other in TOGETHER.items() if metadata.get(key)]
    if missing := [key for key in needed if not metadata.get(key)]:
        yield f"its metadata lacks {', '.join(missing)}"


def check_tables(folder: Path, write: Write) -> Iterator[str]:
    """Yield the differences in tables and `model-index` between the card and one written anew from the files.

    The new card is written in a copy of the small files. Prose may differ.
    """
    with tempfile.TemporaryDirectory() as work:
        copy = Path(work) / "folder"
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("checkpoint-*", *LARGE))
        write(copy)
        rows, fresh = ((place / "README.md").read_text(encoding="utf-8").splitlines() for place in (folder, copy))
        again = read_metadata(copy / "README.md")
    tables = {row for row in fresh if row.startswith("|")}
    wrong = [row for row in rows if row.startswith("|") and row not in tables]
    if wrong:
        yield f"{len(wrong)} rows of its tables are not what the files say, such as {wrong[0]!r:.150}"
    missing = tables - set(rows)
    if missing and not wrong:
        yield f"its tables lack {len(missing)} rows that the files give, such as {min(missing)!r:.150}"
    if read_metadata(folder / "README.md").get("model-index") != again.get("model-index"):
        yield "model-index is not what the files in results/ say"


def check_data(folder: Path, metadata: dict[str, Any]) -> Iterator[str]:
    """Load each split of each config that the card names, and compare its columns and number of rows."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetGenerationError
    from pyarrow import parquet

    sizes = {info["config_name"]: info for info in metadata.get("dataset_info") or []}
    for config in metadata.get("configs") or []:
        name = config["config_name"]
        stated = {split["name"]: split["num_examples"] for split in sizes.get(name, {}).get("splits", [])}
        for part in config["data_files"]:
            split, files = part["split"], sorted(folder.glob(part["path"]))
            rows = sum(parquet.read_metadata(file).num_rows for file in files)
            if not files:
                yield f"{name}/{split}: no file matches {part['path']}"
            elif sizes and rows != stated.get(split):
                yield f"{name}/{split}: {rows} rows in the files, {stated.get(split)} in dataset_info"
        with tempfile.TemporaryDirectory() as cache:
            try:
                loaded = load_dataset(str(folder), name, streaming=True, cache_dir=cache)
                for split in loaded:
                    next(iter(loaded[split]), None)
            except (ValueError, OSError, DatasetGenerationError) as error:
                yield f"load_dataset(..., {name!r}) fails: {error!s:.150}"


if __name__ == "__main__":
    run(main)
