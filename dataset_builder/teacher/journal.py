"""The journal: an append-only file of the teacher's verbatim replies, so that no reply is ever paid for twice.

Each line is a JSON object whose last field is a checksum of the rest; the first line is a header. The key of a reply
is the SHA-256 of model, parameters and messages: a changed prompt asks again, changed parsing costs nothing.
"""

import fcntl
import hashlib
import json
import os
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, TypedDict

from open_ner.tools.errors import UserError

from .records import JournalRecord, Spent

FORMAT = 1
SYNC_SECONDS = 0.1


class TeacherSettings(TypedDict):
    """The teacher of a run: the name of the model, its address, and the limits of the reply's length."""

    model: str | None
    address: str
    limits: dict[str, int]


class Note(TypedDict, total=False):
    """A line of the journal that is not a reply, with one or more of these fields."""

    journal: int  # FORMAT
    run: str  # in the first line: a name that no other journal has
    shard: str  # in the first line of the journal of a shard, such as 2/4
    merged: str  # the `run` of a shard's journal, whose lines are all in this one
    unread: float  # maximum dollars of requests that may have been billed without a readable reply
    batch: str  # with `unread`: id of the batch of these requests
    in_flight: float  # maximum dollars of the requests in flight; stays above 0 after a kill
    asked: TeacherSettings


class Journal:
    """An open journal; a context manager that locks the file against other processes.

    For each reply, a hash of its key and its place in the file are in memory, about 120 bytes. `key in journal` says
    whether a question has a reply.

    Args:
        path: the file, which is created if it does not exist.
        shard: name of the shard in the header of a new file.
        whole: for a shard, the open journal of the whole run, whose replies `in` and `get` find too.
        reading: only read; several processes may do so at a time, and none may write meanwhile.

    Attributes:
        damaged: number of lines whose checksum fails: they stay in the file, and their questions are asked again.
        spent: what the replies in the file cost.
        merged: the `run` of the shards' journals whose lines are all in the file.
    """

    def __init__(self, path: Path, shard: str = "", whole: "Journal | None" = None, reading: bool = False) -> None:
        self.path, self.shard, self.whole, self.reading = path, shard, whole, reading
        self._places: dict[bytes, int] = {}  # of the last reply of each key, in the file
        self.damaged = 0
        self.spent = Spent()
        self.unread = self.in_flight = 0.0  # dollars: the sum of all notes `unread`, and the last note `in_flight`
        self.counted_batches: set[str] = set()  # batches whose unreadable replies are part of `unread`
        self.teachers: list[TeacherSettings] = [] if whole is None else list(whole.teachers)
        self.run = ""  # of the header
        self.merged: set[str] = set()
        self._unsynced = False
        self._fault: OSError | None = None
        self._closing = threading.Event()

    def __enter__(self) -> "Journal":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._open_locked()
        if not self.reading:
            self._repair_torn_line()
        self._reader = self.path.open("rb")
        for place, record in self._lines():
            if "journal" in record:
                self._read_note(record)
            else:
                self._places[_short(record["key"])] = place
                self.spent.add(record)
        if self._file.seek(0, os.SEEK_END) == 0 and not self.reading:
            named = {"shard": self.shard} if self.shard else {}
            self.run = uuid.uuid4().hex
            self._write({"journal": FORMAT, "run": self.run, **named, "created": _now()})
        self._syncer = threading.Thread(target=self._keep_synced, daemon=True)
        self._syncer.start()
        return self

    def _open_locked(self) -> BinaryIO:
        """Open and lock the file. Raises UserError if another process holds it."""
        while True:
            file = self.path.open("a+b")
            try:
                fcntl.flock(file, (fcntl.LOCK_SH if self.reading else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                raise UserError(f"{self.path}: another process is writing this journal; wait for it to end") from None
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
                    return file
            file.close()  # a merge replaced or removed the file before it was locked here

    def __contains__(self, key: str) -> bool:
        return _short(key) in self._places or (self.whole is not None and key in self.whole)

    def __len__(self) -> int:
        return len(self._places) + (0 if self.whole is None else len(self.whole))

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closing.set()
        self._syncer.join()
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        finally:
            self._reader.close()
            self._file.close()

    def append(self, record: JournalRecord) -> None:
        """Write a reply: it survives a kill of this process at once, and a power cut a tenth of a second later."""
        place = self._file.seek(0, os.SEEK_END)
        self._write({**record, "time": _now()})
        self._places[_short(record["key"])] = place
        self.spent.add(record)

    def note(self, note: Note) -> None:
        """Write a note."""
        self._write({"journal": FORMAT, **note})
        self._read_note(note)

    def _read_note(self, note: Note) -> None:
        self.unread += note.get("unread", 0.0)
        self.in_flight = note.get("in_flight", self.in_flight)
        self.run = note.get("run", self.run)
        if "batch" in note:
            self.counted_batches.add(note["batch"])
        if "asked" in note:
            self.teachers.append(note["asked"])
        if "merged" in note:
            self.merged.add(note["merged"])

    def forget(self, keys: Iterable[str]) -> None:
        """Treat questions that have a reply as open again; the reply stays in the file."""
        for key in keys:
            self._places.pop(_short(key), None)

    def add_key(self, key: str) -> None:
        """Count a question as answered by a reply that is being copied into the file."""
        self._places.setdefault(_short(key), -1)

    def get(self, key: str) -> JournalRecord | None:
        """The last reply of a key."""
        place = self.place(key)
        if place is None:
            return None if self.whole is None else self.whole.get(key)
        return self.read(place)

    def place(self, key: str) -> int | None:
        """The place of the last reply of a key in this file, for `read`."""
        return self._places.get(_short(key))

    def read(self, place: int) -> JournalRecord:
        """The reply at a place."""
        self._reader.seek(place)
        return read_line(self._reader.readline())

    def records(self) -> Iterator[JournalRecord]:
        """The journal's replies in the order they arrived; damaged lines are counted and left out."""
        return (record for _, record in self._lines() if "journal" not in record)

    def _lines(self) -> Iterator[tuple[int, Any]]:
        """Place and content of every line with a valid checksum."""
        self.damaged = place = 0
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines):
                record = read_line(line)
                if record is None:
                    self.damaged += 1
                elif (number == 0 or "journal" in record) and record.get("journal") != FORMAT:
                    raise self._foreign_error()
                else:
                    yield place, record
                place += len(line)

    def _foreign_error(self) -> UserError:
        return UserError(f"{self.path} is not a journal of this program; choose another --output_dir")

    def _write(self, line: Any) -> None:
        self._file.write(write_line(line))
        self._file.flush()
        self._unsynced = True
        if self._fault:
            raise self._fault

    def _keep_synced(self) -> None:
        """Flush to disk ten times a second, in a thread because a flush may block for long."""
        while not self._closing.wait(SYNC_SECONDS):
            if self._unsynced:
                self._unsynced = False
                try:
                    os.fsync(self._file.fileno())
                except OSError as error:  # raised when the next reply is written
                    self._fault = error

    def _repair_torn_line(self) -> None:
        """Cut off an incomplete last line, which a crash left."""
        size = position = self._file.seek(0, os.SEEK_END)
        tail = b""
        while position > 0 and b"\n" not in tail:
            position = max(0, position - 65536)
            self._file.seek(position)
            tail = self._file.read(size - position)
        if size and b"\n" not in tail and not b'{"journal"'.startswith(tail[:10]):
            raise self._foreign_error()
        if size and not tail.endswith(b"\n"):
            self._file.truncate(position + tail.rfind(b"\n") + 1)


def write_line(line: Any) -> bytes:
    """The line of a record or note in the file, with its checksum."""
    body = json.dumps(line, ensure_ascii=True)
    return f'{body[:-1]}, "checksum": "{_checksum(body)}"}}\n'.encode()


def _short(key: str) -> bytes:
    """A hash of a key that takes little memory."""
    return hashlib.blake2b(key.encode(), digest_size=15).digest()


def _checksum(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:16]


def read_line(line: bytes) -> Any:
    """The JSON object of a line, or None if its checksum fails."""
    body, mark, end = line.rpartition(b', "checksum": "')
    whole = mark and end[16:] in (b'"}\n', b'"}\r\n')
    if not whole or _checksum(body.decode("ascii", "replace") + "}").encode() != end[:16]:
        return None
    return json.loads(body + b"}")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
