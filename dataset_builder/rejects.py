"""Rejects: everything a build leaves out, with its reason, counted and written to the dataset's folder."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Reject:
    """Anything left out, with its reason.

    `id` is the id of the passage, or of the line or document if it has no passage. `text` is the verbatim content: a
    passage, a reply, or the reply that contains the entity. An entity also has `span` and `type`, a query has `type`.
    """

    id: str
    reason: str
    text: str = ""
    span: str = ""
    type: str = ""


def write_rejects(folder: Path, rejects: Mapping[str, Iterable[Reject]]) -> None:
    """Write rejects, by config or set, to `rejects.parquet`, and their verbatim texts to `replies.parquet`.

    A text is written once, however many of its entities were rejected; `variant` and `passage_id` join the two files.
    """
    import pyarrow as pa  # imported here, because the stages before `build` do not need it
    from pyarrow import parquet

    flat = [(variant, one) for variant, group in rejects.items() for one in group]
    lines = [(variant, one.id, one.reason, one.span, one.type) for variant, one in flat]
    texts = dict.fromkeys((variant, one.id, one.text) for variant, one in flat if one.text)
    folder.mkdir()
    for name, rows, others in (("rejects", lines, ("reason", "span", "type")), ("replies", texts, ("reply",))):
        columns = ("variant", "passage_id", *others)
        schema = pa.schema([(column, pa.string()) for column in columns])
        table = pa.Table.from_pylist([dict(zip(columns, row, strict=True)) for row in rows], schema=schema)
        parquet.write_table(table, folder / f"{name}.parquet")
