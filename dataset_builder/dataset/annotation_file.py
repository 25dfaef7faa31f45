"""Files of annotated passages."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path

from open_ner.tools.files import read_jsonl

from ..annotation.annotate import AnnotationRow
from ..corpus.sources import text_sha256
from .conversations import count_types


@dataclass
class AnnotationFile:
    """A JSONL file of annotated passages and its counts; the rows stay on disk.

    `counts` counts distinct (passage, string) pairs by type; `per_passage` is a histogram of passages by their number
    of (string, type) pairs. `train_counts` is `counts` of the training split, by human-annotated set ("" for distilled
    rows) and source; without a training split, of all rows. `closed`: whether rows list the types that they are asked.
    """

    path: Path
    held_out: list[bool] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    train_counts: dict[str, dict[str, Counter[str]]] = field(default_factory=dict)
    per_passage: Counter[int] = field(default_factory=Counter)
    present_types: int = 0  # types per passage, summed over passages
    mentions: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    licenses: Counter[str] = field(default_factory=Counter)
    teachers: Counter[str] = field(default_factory=Counter)
    dates: set[str] = field(default_factory=set)
    closed: bool = False

    @classmethod
    def read(cls, path: Path, one_in: int) -> "AnnotationFile":
        """Read a file; about one passage in `one_in` is held out for validation, none if it is 0."""
        found = cls(path)
        for row in read_jsonl(path):
            held_out = is_held_out(row["id"], one_in)
            found.held_out.append(held_out)
            types = count_types([row])
            found.counts.update(types)
            known = found.train_counts.setdefault(row.get("dataset", ""), {}).setdefault(row["source"], Counter())
            if not held_out or one_in == 1:  # if all are held out, there is no training split to count
                known.update(types)
            found.per_passage[types.total()] += 1
            found.present_types += len(types)
            found.mentions += len({(mention["start"], mention["end"]) for mention in row["entities"]})
            found.sources[row["source"]] += 1
            found.licenses[row["license"]] += 1
            found.teachers[row["teacher"]] += 1
            found.closed = found.closed or "types" in row
            found.dates.add(row["annotated"][:10])
        return found

    def rows(self, split: str) -> Iterator[AnnotationRow]:
        """Iterate over the rows of `train` or `validation`, in the order of the file."""
        return compress(read_jsonl(self.path), [held_out == (split == "validation") for held_out in self.held_out])


def is_held_out(passage_id: str, one_in: int) -> bool:
    """Whether a passage belongs to the validation split, decided by its id alone."""
    return one_in > 0 and int(text_sha256(passage_id), 16) % one_in == 0
