"""What a build left out, beside the data."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from .annotations import Annotations

REJECT = ("variant", "passage_id", "reason", "span", "type")


class Rejects:
    """Everything that was left out, with its reason: `rejects.parquet`, and the verbatim replies in `replies.parquet`.

    A reply stands once however many of its entities were left out; `variant` and `passage_id` join the two. Where
    people annotated, the set's own record of the entity or passage at fault stands for the reply.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        text = pa.string()
        self._rejects = parquet.ParquetWriter(folder / "rejects.parquet", pa.schema([(name, text) for name in REJECT]))
        reply = pa.schema([("variant", text), ("passage_id", text), ("reply", text)])
        self._replies = parquet.ParquetWriter(folder / "replies.parquet", reply)

    def __enter__(self) -> "Rejects":
        return self

    def __exit__(self, *error: Any) -> None:
        self._rejects.close()
        self._replies.close()

    def write_annotations(self, variant: str, found: Annotations) -> None:
        """Replies, passages and entities that did not become annotations."""
        self._write(self._rejects, ((variant, r.passage_id, r.reason, r.span, r.type) for r in found.rejects))
        replies = dict.fromkeys((reject.passage_id, reject.reply) for reject in found.rejects)
        self._write(self._replies, ((variant, *pair) for pair in replies))

    def write_left_out(self, config: str, left_out: Iterable[tuple[str, str, str]]) -> None:
        """Passages and queries that fit into no conversation."""
        self._write(self._rejects, ((config, passage_id, reason, "", kind) for passage_id, reason, kind in left_out))

    @staticmethod
    def _write(writer: parquet.ParquetWriter, rows: Iterable[tuple[str, ...]]) -> None:
        columns = list(zip(*rows, strict=True)) or [()] * len(writer.schema)
        writer.write_table(pa.table([pa.array(c, pa.string()) for c in columns], schema=writer.schema))
