"""The folder of a run's batches: what is known of each batch, and the input files of those under way."""

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TypedDict

from open_ner.tools.errors import UserError

from ..config import TeacherConfig
from .batch_provider import request_line
from .requests import Question, request_ceiling


class BatchEntry(TypedDict):
    """What `state.json` holds of a batch."""

    part: str
    collected: bool


class BatchFolder:
    """`state` maps the id of every batch to its part, and to whether its replies are in the journal."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.state = self._read_state()

    def _read_state(self) -> dict[str, BatchEntry]:
        path = self.path / "state.json"
        if not path.exists():
            return {}
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            data = None
        entries = data.get("batches") if isinstance(data, dict) else None
        if not isinstance(entries, dict) or not all(
            isinstance(entry, dict) and isinstance(entry.get("part"), str) and "collected" in entry
            for entry in entries.values()
        ):
            raise UserError(f"{path} is not a state of batches: delete it, they are found again at the provider")
        return entries

    def remember(self, name: str, part: str, collected: bool = False) -> None:
        """Record a batch: the state is replaced as a whole and flushed to disk."""
        self.state[name] = {"part": part, "collected": collected}
        draft = self.path / "state.json.draft"
        with draft.open("w", encoding="utf-8") as file:
            json.dump({"batches": self.state}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.path / "state.json")

    def part_path(self, part: str) -> Path:
        """The input file of a part, which exists while its batch is under way."""
        return self.path / f"part-{part[:32]}.jsonl"

    def write_part(
        self, questions: Iterable[Question], config: TeacherConfig, room: float, requests: int, size: int
    ) -> tuple[str, dict[str, Question], float] | None:
        """Write the input file of the first questions that cost at most `room` dollars.

        The file holds at most `requests` lines and `size` bytes. Returns the part's name, its questions by key and the
        most they can cost; None if not even one fits.
        """
        taken: dict[str, Question] = {}
        written, ceiling = 0, 0.0
        draft = self.path / "part-draft"
        with draft.open("wb") as file:
            for question in questions:
                line = request_line(question, config)
                cost = request_ceiling(question, config)
                full = len(taken) == requests or (taken and written + len(line) > size)
                if full or ceiling + cost > room:
                    break
                file.write(line)
                taken[question.key] = question
                written += len(line)
                ceiling += cost
        if not taken:
            draft.unlink()
            return None
        part = hashlib.sha256("\n".join(sorted(taken)).encode()).hexdigest()
        draft.replace(self.part_path(part))
        return part, taken, ceiling

    def read_part(self, part: str, config: TeacherConfig) -> Iterator[tuple[Question, float]]:
        """The questions of an input file, which does not name variant and passage, and the most each can cost."""
        with self.part_path(part).open("rb") as lines:
            for line in lines:
                row = json.loads(line)
                question = Question(row["custom_id"], "", "", row["body"]["messages"])
                yield question, request_ceiling(question, config, row["body"])

    def delete_parts(self, kept: Collection[str]) -> None:
        """Delete the input files of other parts: a run that stopped before it created their batches wrote them."""
        paths = {self.part_path(part) for part in kept}
        for path in self.path.glob("part-*"):
            if path not in paths:
                path.unlink()
