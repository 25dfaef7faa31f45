"""The folder of a run's batches: the state of each batch, and the input files of those under way."""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from open_ner.tools.errors import UserError
from open_ner.tools.files import read_json

from ..config import TeacherConfig
from .batch_provider import request_line
from .requests import Question, request_ceiling


def folder_of(journal: Path) -> Path:
    """The folder of the batches of a journal, beside it: `batches`, or `batches-2-of-4` of a shard."""
    return journal.with_name("batches" + journal.stem.removeprefix("journal"))


def has_batches(journal: Path) -> bool:
    """Whether batches of a journal may be under way, whose replies are paid but not yet in the journal."""
    return any(folder_of(journal).glob("part-*.jsonl"))


class BatchFolder:
    """`state` maps the id of every batch to its `part`, and to `collected`: whether its replies are in the journal."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.state: dict[str, dict[str, Any]] = {}
        if (state := path / "state.json").exists():
            try:
                data = read_json(state)
            except ValueError:
                data = None
            found = data.get("batches") if isinstance(data, dict) else None
            self.state = found if isinstance(found, dict) else {}
            rows = self.state.values() if isinstance(found, dict) else [found]
            whole = [isinstance(row, dict) and isinstance(row.get("part"), str) and "collected" in row for row in rows]
            if not all(whole):
                raise UserError(f"{state} is not a state of batches: delete it, they are found again at the provider")

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
