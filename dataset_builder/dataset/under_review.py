"""The passages under review: people correct their annotations, so the stage `build` leaves them out of the dataset."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from open_ner.tools.errors import UserError
from open_ner.tools.files import read_jsonl, write_jsonl

from ..corpus.cutting import Passage
from ..corpus.sources import text_sha256

UNDER_REVIEW = "under_review"  # the reason of the reject
FILE = Path("review") / "held_out.jsonl"  # in the folder of a run


class UnderReviewLine(TypedDict):
    """A line of held_out.jsonl."""

    id: str
    text_sha256: str


@dataclass
class UnderReview:
    """The ids and text hashes of the passages under review, in all reviews of a run."""

    ids: set[str] = field(default_factory=set)
    hashes: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, folder: Path) -> "UnderReview":
        """Read the file of a run; without the file nothing is under review. Raises UserError if it is damaged."""
        path, found = folder / FILE, cls()
        if path.exists():
            for number, line in enumerate(_lines(path), 1):
                if not isinstance(line, dict) or not all(isinstance(line.get(k), str) for k in ("id", "text_sha256")):
                    raise UserError(f"{path}: line {number} is not an object with the strings id and text_sha256")
                found.ids.add(line["id"])
                found.hashes.add(line["text_sha256"])
        return found

    def __contains__(self, passage: Passage) -> bool:
        """Whether a passage is under review, by its id, or by its text if another corpus gives it another id."""
        return passage.id in self.ids or (bool(self.ids) and text_sha256(passage.text) in self.hashes)


def add_under_review(folder: Path, passages: Iterable[tuple[str, str]]) -> None:
    """Add new passages `(id, text)` to the file of a run, atomically; passages that are in the file stay there."""
    path = folder / FILE
    lines: list[UnderReviewLine] = _lines(path) if path.exists() else []
    new = [UnderReviewLine(id=name, text_sha256=text_sha256(text)) for name, text in passages]
    lines += [line for line in new if line not in lines]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(path, lines)


def _lines(path: Path) -> list[UnderReviewLine]:
    try:
        return list(read_jsonl(path))
    except (OSError, ValueError) as error:
        hint = "it lists the passages that must stay out of the dataset; restore it before you build"
        raise UserError(f"{path} is damaged ({error}): {hint}") from None
