"""What is left out anywhere in a build: one class, one count of reasons, one pair of files in the dataset's folder."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COLUMNS = ("variant", "passage_id", "reason", "span", "type")


@dataclass
class Reject:
    """Anything left out, with its reason.

    `id` names the passage, or the line or document that gave none. `text` is what was left out, verbatim: a passage,
    a reply, or the reply that an entity came from. `span` and `type` name the entity, or `type` alone a query.
    """

    id: str
    reason: str
    text: str = ""
    span: str = ""
    type: str = ""


def count_reasons(rejects: Iterable[Reject]) -> dict[str, int]:
    """How many rejects each reason has, in order of first occurrence."""
    return dict(Counter(reject.reason for reject in rejects))


class RejectsFolder:
    """Writes rejects to `rejects.parquet`, and their verbatim texts to `replies.parquet`; a context manager.

    A text is written once however many entities of it were rejected; `variant` and `passage_id` join the two files.
    """

    def __init__(self, folder: Path) -> None:
        import pyarrow as pa  # the stages that ask a teacher do without it
        from pyarrow import parquet

        folder.mkdir()
        names = (COLUMNS, ("variant", "passage_id", "reply"))
        schemas = [pa.schema([(name, pa.string()) for name in columns]) for columns in names]
        self._rejects = parquet.ParquetWriter(folder / "rejects.parquet", schemas[0])
        self._replies = parquet.ParquetWriter(folder / "replies.parquet", schemas[1])

    def __enter__(self) -> "RejectsFolder":
        return self

    def __exit__(self, *error: Any) -> None:
        self._rejects.close()
        self._replies.close()

    def write(self, variant: str, rejects: Iterable[Reject]) -> None:
        """Add the rejects of one config."""
        rejects = list(rejects)
        self._write(self._rejects, [(variant, r.id, r.reason, r.span, r.type) for r in rejects])
        texts = dict.fromkeys((reject.id, reject.text) for reject in rejects if reject.text)
        self._write(self._replies, [(variant, *pair) for pair in texts])

    @staticmethod
    def _write(writer: Any, rows: list[tuple[str, ...]]) -> None:
        import pyarrow as pa

        columns = list(zip(*rows, strict=True)) or [()] * len(writer.schema)
        writer.write_table(pa.table([pa.array(column, pa.string()) for column in columns], schema=writer.schema))
