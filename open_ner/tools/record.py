"""The record of a folder that `annotate` writes: what its rows depend on, so that runs are not mixed."""

from pathlib import Path
from typing import Any, TypedDict
from uuid import uuid4

from .errors import UserError
from .files import read_json, write_json

RECORD = "annotation.json"


class AnnotationRecord(TypedDict):
    """The settings that determine the rows of a folder, saved as `annotation.json`; a run must have the same ones.

    For a local dataset or student, the name of its file or folder is saved without the path, with a hash of the
    contents, and its revision is null.
    """

    dataset: str
    dataset_config: str | None
    dataset_split: str
    dataset_revision: str | None
    fingerprint: str
    rows: int
    limit: int | None  # null without a limit, or if there are fewer rows
    text_column: str
    entities_column: str
    model: str
    model_revision: str | None
    model_fingerprint: str | None  # null for a student on the Hub
    types: list[str] | dict[str, str]
    options: dict[str, Any]
    rows_per_file: int
    open_ner: str


def claim(folder: Path, record: AnnotationRecord) -> None:
    """Save the record of a new folder, unless another process of this run has; check that the folder has this run."""
    path, data = folder / RECORD, folder / "data"
    filled = data.exists() and any(data.iterdir())  # first, because other processes write after saving the record
    if not path.exists():
        if filled:
            raise UserError(f"{data} has files of something else: choose another --output_dir")
        data.mkdir(parents=True, exist_ok=True)
        own = folder / f"{uuid4().hex}.json"
        write_json(own, record)
        own.replace(path)
    saved = {"model_fingerprint": record["model_fingerprint"], **read_record(folder)}  # older records lack it
    other = [key for key, value in record.items() if saved.get(key) != value]
    if other:
        raise UserError(
            f"{folder} has another run, with {other[0]} {saved.get(other[0])!r:.80} instead of "
            f"{record[other[0]]!r:.80}: choose another --output_dir, or delete the folder"
        )


def read_record(folder: Path) -> AnnotationRecord:
    """Read the record of a folder."""
    return read_json(folder / RECORD)
