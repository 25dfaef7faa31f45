"""Rejects: everything a build leaves out, with its reason, counted and written to the dataset's folder."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Reject:
    """Anything left out, with its reason.

    `id` is the id of the passage, or of the line or document without one. `text` is the verbatim content: a passage, a
    reply, or the reply that holds the entity. `span` and `type` name a rejected entity, `type` alone a rejected query.
    """

    id: str
    reason: str
    text: str = ""
    span: str = ""
    type: str = ""


class RejectsFolder:
    """Writes rejects to `rejects.parquet` and their verbatim texts to `replies.parquet`; a context manager.

    A text is written once, however many of its entities were rejected; `variant` and `passage_id` join the two files.
    """

    def __init__(self, folder: Path) -> None:
        import pyarrow as pa  # imported here: the stages before `build` do not need it
        from pyarrow import parquet

        folder.mkdir()
        names = (("variant", "passage_id", "reason", "span", "type"), ("variant", "passage_id", "reply"))
        schemas = [pa.schema([(name, pa.string()) for name in columns]) for columns in names]
        self._rejects = parquet.ParquetWriter(folder / "rejects.parquet", schemas[0])
        self._replies = parquet.ParquetWriter(folder / "replies.parquet", schemas[1])

    def __enter__(self) -> "RejectsFolder":
        return self

    def __exit__(self, *error: object) -> None:
        self._rejects.close()
        self._replies.close()

    def write(self, variant: str, rejects: Iterable[Reject]) -> None:
        """Add the rejects of one config."""
        import pyarrow as pa

        rejects = list(rejects)
        lines = [(variant, reject.id, reject.reason, reject.span, reject.type) for reject in rejects]
        texts = dict.fromkeys((variant, reject.id, reject.text) for reject in rejects if reject.text)
        for writer, rows in ((self._rejects, lines), (self._replies, texts)):
            columns = list(zip(*rows, strict=True)) or [()] * len(writer.schema)
            writer.write_table(pa.table([pa.array(column, pa.string()) for column in columns], schema=writer.schema))
