"""The journal: an append-only file of the teacher's verbatim replies, so that no reply is ever paid twice.

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
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from open_ner.tools.errors import UserError

from .records import JournalRecord

FORMAT = 1
SYNC_SECONDS = 0.1


class Journal:
    """An open journal; a context manager that locks the file against other processes.

    `damaged` counts lines whose checksum fails: they stay in the file, and their questions are asked again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keys: set[str] = set()
        self.damaged = 0
        self._unsynced = False
        self._fault: OSError | None = None
        self._closing = threading.Event()

    def __enter__(self) -> "Journal":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise UserError(f"{self.path}: another process is writing this journal; wait for it to end") from None
        self._repair_torn_line()
        for record in self.records():
            self.keys.add(record["key"])
        if self._file.seek(0, os.SEEK_END) == 0:
            self._write({"journal": FORMAT, "run": uuid.uuid4().hex, "created": _now()})
        self._syncer = threading.Thread(target=self._keep_synced, daemon=True)
        self._syncer.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closing.set()
        self._syncer.join()
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        finally:
            self._file.close()

    def append(self, record: JournalRecord) -> None:
        """Write a reply: it survives a kill of this process at once, and a power cut a tenth of a second later."""
        self._write({**record, "time": _now()})
        self.keys.add(record["key"])

    def records(self) -> Iterator[JournalRecord]:
        """The journal's replies in the order they arrived; damaged lines are counted and left out."""
        self.damaged = 0
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines):
                record = _read_line(line)
                if record is None:
                    self.damaged += 1
                elif number == 0 or "journal" in record:
                    if record.get("journal") != FORMAT:
                        raise self._foreign()
                else:
                    yield record

    def _foreign(self) -> UserError:
        return UserError(f"{self.path} is not a journal of this program; choose another --output_dir")

    def _write(self, line: Any) -> None:
        body = json.dumps(line, ensure_ascii=True)
        self._file.write(f'{body[:-1]}, "checksum": "{_checksum(body)}"}}\n'.encode())
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
        size = self._file.seek(0, os.SEEK_END)
        tail = b""
        position = size
        while position > 0 and b"\n" not in tail:
            position = max(0, position - 65536)
            self._file.seek(position)
            tail = self._file.read(size - position)
        if size and b"\n" not in tail and not tail.startswith(b'{"journal"'):
            raise self._foreign()
        if size and not tail.endswith(b"\n"):
            self._file.truncate(position + tail.rfind(b"\n") + 1)
        self._file.seek(0, os.SEEK_END)


def _checksum(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:16]


def _read_line(line: bytes) -> Any:
    """The JSON object of a line, or None if its checksum fails."""
    body, mark, end = line.rpartition(b', "checksum": "')
    if not mark or end[16:] != b'"}\n' or _checksum(body.decode("ascii", "replace") + "}").encode() != end[:16]:
        return None
    return json.loads(body + b"}")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
