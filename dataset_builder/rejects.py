"""Rejects: everything a build leaves out, with its reason, counted and written to the dataset's folder."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

ROWS_PER_GROUP = 20_000  # rows held in memory before they are written


@dataclass(frozen=True)
class Reject:
    """Anything left out, with its reason.

    `id` is the id of the passage, or of the line or document if there is no passage. `text` is the verbatim content: a
    passage, a reply, or the reply that contains the entity. An entity also has `span` and `type`, a query has `type`.
    """

    id: str
    reason: str
    text: str = ""
    span: str = ""
    type: str = ""


class RejectFiles:
    """Writes rejects to `rejects.parquet` and their verbatim texts to `replies.parquet`; a context manager.

    A text is written once, however many of its entities were rejected; `variant` and `passage_id` join the two files.
    """

    def __init__(self, folder: Path) -> None:
        import pyarrow as pa  # imported here, because the stages before `build` do not need it
        from pyarrow import parquet

        folder.mkdir()
        self._waiting: dict[str, list[dict[str, str]]] = {"rejects": [], "replies": []}
        self._schemas, self._files = {}, {}
        for name, others in (("rejects", ("reason", "span", "type")), ("replies", ("reply",))):
            self._schemas[name] = pa.schema([(column, pa.string()) for column in ("variant", "passage_id", *others)])
            self._files[name] = parquet.ParquetWriter(folder / f"{name}.parquet", self._schemas[name])

    def __enter__(self) -> "RejectFiles":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for name, file in self._files.items():
            if self._waiting[name]:
                self._write(name)
            file.close()

    def add(self, variant: str, rejects: Collection[Reject]) -> None:
        """Add rejects of a config or set; all rejects of a passage must be in the same call."""
        own = {"variant": variant}
        self._waiting["rejects"] += [
            {**own, "passage_id": one.id, "reason": one.reason, "span": one.span, "type": one.type} for one in rejects
        ]
        texts = dict.fromkeys((one.id, one.text) for one in rejects if one.text)
        self._waiting["replies"] += [{**own, "passage_id": name, "reply": text} for name, text in texts]
        for name, rows in self._waiting.items():
            if len(rows) >= ROWS_PER_GROUP:
                self._write(name)

    def _write(self, name: str) -> None:
        import pyarrow as pa

        self._files[name].write_table(pa.Table.from_pylist(self._waiting[name], schema=self._schemas[name]))
        self._waiting[name].clear()
