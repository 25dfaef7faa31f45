"""The journal: an append-only file of the teacher's verbatim replies, so that no answer is ever paid twice.

One JSON object a line, its last field a checksum of the rest; the first line is a header. An answer's key is the
SHA-256 of model, parameters and messages: a changed prompt asks again, changed parsing costs nothing.
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

FORMAT = 1
SYNC_SECONDS = 0.1


def request_key(model: str, parameters: dict[str, Any], messages: list[dict[str, str]]) -> str:
    """The identity of a request: what it was asked, of whom and how."""
    canonical = json.dumps([model, parameters, messages], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


class Journal:
    """An open journal; a context manager. Only one process holds it at a time.

    `damaged` counts lines whose checksum fails: they are left where they are and their answers asked again.
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

    def append(self, record: dict[str, Any]) -> None:
        """Write an answer the moment it arrives; `record` holds at least `key`, `passage_id` and `reply`.

        The system has it at once, so that no death of this process loses it; the disk a tenth of a second later.
        """
        self._write({**record, "time": _now()})
        self.keys.add(record["key"])

    def records(self) -> Iterator[dict[str, Any]]:
        """The journal's answers in the order they arrived; damaged lines are counted and passed over."""
        self.damaged = 0
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines):
                record = _checked(line)
                if record is None:
                    self.damaged += 1
                elif number == 0 or "journal" in record:
                    if record.get("journal") != FORMAT:
                        raise UserError(f"{self.path}: no journal of this program; choose another --output_dir")
                else:
                    yield record

    def _write(self, record: dict[str, Any]) -> None:
        body = json.dumps(record, ensure_ascii=True)
        self._file.write(f'{body[:-1]}, "checksum": "{_checksum(body)}"}}\n'.encode())
        self._file.flush()
        self._unsynced = True
        if self._fault:
            raise self._fault

    def _keep_synced(self) -> None:
        """Bring what was written to the disk, ten times a second; in a thread, for a disk may take its time."""
        while not self._closing.wait(SYNC_SECONDS):
            if self._unsynced:
                self._unsynced = False
                try:
                    os.fsync(self._file.fileno())
                except OSError as error:  # told with the next answer
                    self._fault = error

    def _repair_torn_line(self) -> None:
        """Cut off a last line that a crash left without its end."""
        size = self._file.seek(0, os.SEEK_END)
        tail = b""
        position = size
        while position > 0 and b"\n" not in tail:
            position = max(0, position - 65536)
            self._file.seek(position)
            tail = self._file.read(size - position)
        if size and b"\n" not in tail and not tail.startswith(b'{"journal"'):
            raise UserError(f"{self.path}: no journal of this program; choose another --output_dir")
        if size and not tail.endswith(b"\n"):
            self._file.truncate(position + tail.rfind(b"\n") + 1)
        self._file.seek(0, os.SEEK_END)


def _checksum(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:16]


def _checked(line: bytes) -> dict[str, Any] | None:
    """The record of a line whose checksum holds, else None."""
    body, mark, end = line.rpartition(b', "checksum": "')
    if not mark or end[16:] != b'"}\n' or _checksum(body.decode("ascii", "replace") + "}").encode() != end[:16]:
        return None
    return json.loads(body + b"}")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
