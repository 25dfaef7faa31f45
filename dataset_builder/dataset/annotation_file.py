"""A file of annotated passages, and what one reading of it tells."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .conversations import count_types


@dataclass
class AnnotationFile:
    """A JSONL file of annotated passages and what one reading of it tells; the rows themselves stay on disk.

    `counts` and `per_passage` count distinct (string, type) pairs of a passage; `train_counts` those of the training
    part, by the human-annotated set that a row names in `dataset` ("" for distilled rows).
    """

    path: Path
    one_in: int
    held_out: list[bool] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    train_counts: dict[str, Counter[str]] = field(default_factory=dict)
    per_passage: Counter[int] = field(default_factory=Counter)
    present_types: int = 0
    mentions: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    licenses: Counter[str] = field(default_factory=Counter)
    teachers: Counter[str] = field(default_factory=Counter)
    dates: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        for row in self._read():
            held_out = is_held_out(row["id"], self.one_in)
            self.held_out.append(held_out)
            types = count_types([row])
            self.counts.update(types)
            known = self.train_counts.setdefault(row.get("dataset") or "", Counter())
            if not held_out:
                known.update(types)
            self.per_passage[types.total()] += 1
            self.present_types += len(types)
            self.mentions += len({(mention["start"], mention["end"]) for mention in row["entities"]})
            for name, seen in (("source", self.sources), ("license", self.licenses), ("teacher", self.teachers)):
                seen[row.get(name) or ""] += 1
            self.dates.add((row.get("annotated") or "")[:10])

    def rows(self, split: str) -> Iterator[dict[str, Any]]:
        """The rows of `train` or `validation`, in the order of the file."""
        return self._read([held_out == (split == "validation") for held_out in self.held_out])

    def _read(self, wanted: list[bool] | None = None) -> Iterator[dict[str, Any]]:
        with self.path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines):
                if wanted is None or wanted[number]:
                    yield json.loads(line)


def is_held_out(passage_id: str, one_in: int) -> bool:
    """Whether a passage belongs to the validation split; it stays there however the corpus grows."""
    return one_in > 0 and int.from_bytes(hashlib.sha256(passage_id.encode()).digest()) % one_in == 0
