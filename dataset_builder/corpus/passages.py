"""The passages of a run, as the stage `passages` stored them."""

from collections.abc import Collection, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from open_ner.tools.errors import UserError
from open_ner.tools.files import read_jsonl

from ..rejects import Reject
from .cutting import Passage

PASSAGES, REJECTED, REPORT = "passages.jsonl", "rejected_passages.jsonl", "passages.report.json"
SHARDS = "passages.shards"  # folder of the shards that `--shard` writes
PARTS = "passages.parts"  # folder of the shards of one run without --shard


def _read_rows(path: Path) -> Iterator[Any]:
    try:
        yield from read_jsonl(path)
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): delete it and run --stage passages again") from None


def is_outdated(folder: Path) -> bool:
    """Whether the passages are incomplete or of an older version, with other fields or without a file of rejects."""
    try:
        first = next(read_jsonl(folder / PASSAGES), {})
    except ValueError:
        return True
    return set(first) != {one.name for one in fields(Passage)} or not (folder / REJECTED).exists()


class StoredPassages(Collection[Passage]):
    """The passages of a run's folder, in their order; each iteration reads the file again.

    Raises UserError if the stage `passages` must run first.
    """

    def __init__(self, folder: Path) -> None:
        self.path, self.rejects_path = folder / PASSAGES, folder / REJECTED
        if not self.path.exists():
            how = "python -m dataset_builder.merge" if (folder / SHARDS).exists() else "--stage passages"
            raise UserError(f"{self.path} does not exist: run {how} first")
        if is_outdated(folder):
            why = "is incomplete or was written by an older version"
            raise UserError(f"{self.path} {why}: run --stage passages again; paid replies stay valid")

    def __len__(self) -> int:
        with self.path.open("rb") as lines:
            return sum(1 for _ in lines)

    def __iter__(self) -> Iterator[Passage]:
        return (Passage(**row) for row in _read_rows(self.path))

    def __contains__(self, passage: object) -> bool:
        return any(passage == stored for stored in self)

    def rejects(self) -> Iterator[Reject]:
        """Yield the rejects of the stage `passages`."""
        return (Reject(**row) for row in _read_rows(self.rejects_path))
