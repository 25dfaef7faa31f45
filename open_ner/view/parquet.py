"""Read passages and rejects from Parquet files: a dataset's folder, its folder `rejects`, or a single file."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..tools.errors import UserError
from ..tools.files import replace_surrogates
from ..tools.record import RECORD
from .passages import ShownPassage
from .rows import Row, from_row, new_passage, parse, reject

try:
    from pyarrow import ArrowException, parquet
except ModuleNotFoundError:
    raise UserError("Parquet files need the package pyarrow: pip install pyarrow") from None

COLUMNS = ("id", "text", "entities", "negatives", "types", "dataset", "source", "teacher", "error", "reason")
BATCH = 1000  # rows that are decoded at once
Opened = tuple[int, Any]  # the number of passages, and a function that yields the passages at sorted places


def open_dataset(path: Path, config: str | None) -> Opened:
    """Open the folder of a dataset or of its rejects, or one Parquet file; see `sources.open_source`."""
    if (path / "rejects.parquet").exists() or path.name == "rejects.parquet":
        return _open_rejects(path.parent if path.name == "rejects.parquet" else path)
    folder = path
    if path.is_dir() and (configs := sorted({file.parent.name for file in path.glob("*/*.parquet")} - {"rejects"})):
        name = config or ("annotations" if "annotations" in configs else configs[0])
        if name not in configs:
            raise UserError(f"--config {name}: {path} has {', '.join(configs)}")
        folder = path / name
    files = sorted(folder.glob("*.parquet")) if folder.is_dir() else [folder]
    if not files:
        inside = [str(file) for pattern in ("*.jsonl", "*/*/*.parquet") for file in sorted(path.glob(pattern))]
        seen = f"open one of its files or a folder within: {', '.join(inside[:4])}" if inside else "open another path"
        raise UserError(f"{path} has no Parquet files, so it is not the folder of a dataset: {seen}")
    try:
        size = sum(parquet.read_metadata(file).num_rows for file in files)
        names = parquet.read_schema(files[0]).names
    except ArrowException as error:
        raise UserError(f"{folder} cannot be read as Parquet: {error!s:.200}") from None
    columns = _shown_columns(files[0])
    if not any(columns.get(name) == "text" for name in names):
        others = ", ".join(map(repr, names))
        raise UserError(f'{folder} has no column "text", but {others}: rename the column of the texts to "text"')

    def read(places: Sequence[int]) -> Iterator[ShownPassage]:
        for place, row in zip(places, _rows_at(files, places, columns), strict=True):
            yield from_row(row, place + 1, f"{folder}: row {place + 1}")

    return size, read


def _shown_columns(file: Path) -> dict[str, str]:
    """Map the columns that are shown to their names in `COLUMNS`.

    `open-ner annotate` saves the names of its two columns beside its folder `data`.
    """
    folder = file.absolute().parent
    path = folder.parent / RECORD
    record = parse(path.read_bytes(), str(path)) if folder.name == "data" and path.exists() else {}
    own = {record.get(f"{name}_column", name): name for name in ("text", "entities")}
    return {name: name for name in COLUMNS if name not in own.values()} | own


def _rows_at(files: Sequence[Path], places: Sequence[int], shown: Mapping[str, str]) -> Iterator[Row]:
    """Yield the rows at sorted places, counted over all files; row groups without such rows are not read.

    `shown` maps the columns to read to their names in the rows.
    """
    wanted, at = iter(places), 0
    place = next(wanted, None)
    for file in files:
        opened = parquet.ParquetFile(file)
        columns = [name for name in opened.schema_arrow.names if name in shown]
        for group in range(opened.num_row_groups):
            rows = opened.metadata.row_group(group).num_rows
            if place is None or place >= at + rows:
                at += rows
                continue
            for batch in opened.iter_batches(BATCH, [group], columns):
                while place is not None and place < at + len(batch):
                    [row] = batch.slice(place - at, 1).to_pylist()
                    yield {shown[name]: value for name, value in row.items()}
                    place = next(wanted, None)
                at += len(batch)


def _open_rejects(folder: Path) -> Opened:
    """Open the rejects of a build: their passages, with texts from the run's `passages.jsonl` if it is there."""
    keys = ["variant", "passage_id"]
    try:
        table = parquet.read_table(folder / "rejects.parquet", columns=keys)
    except (ArrowException, OSError) as error:
        raise UserError(f"{folder} cannot be read as rejects of a build: {error!s:.200}") from None
    found = table.group_by(keys, use_threads=False).aggregate([])  # without threads the order is kept

    def read(places: Sequence[int]) -> Iterator[ShownPassage]:
        chosen = [found.slice(place, 1).to_pylist()[0] for place in places]
        ids = {key["passage_id"] for key in chosen}
        texts = _texts(folder.parent.parent / "passages.jsonl", ids)
        tables = _about(folder, ids)
        for place, key in zip(places, chosen, strict=True):
            variant, name = key["variant"], key["passage_id"]
            passage = new_passage(name, texts.get(name, ""), place + 1)
            passage["about"] = variant if name in texts else f"{variant} · the text is not in a passages.jsonl"
            _add_rejects(passage, tables, variant)
            yield passage

    return found.num_rows, read


def rejects_beside(path: Path, config: str | None) -> tuple[Path, str] | None:
    """The folder of rejects that belongs to a file of annotations or to a dataset's folder, and the variant in it."""
    if path.is_dir():
        folder, variant = path / "rejects", config or "annotations"
    else:  # annotations.<variant>.jsonl
        stem, _, rest = path.name.partition(".")
        folder = path.parent / "dataset" / "rejects"
        variant = rest.partition(".")[0] if stem == "annotations" else ""
    if not variant or not (folder / "rejects.parquet").exists():
        return None
    if variant == "annotations":  # this config has the passages of the first variant
        stats = folder.parent / "stats.json"
        variant = next(iter(parse(stats.read_bytes(), str(stats)).get("variants") or ()), None)
        if variant is None:
            raise UserError(f"{stats} names no variant: run the stage build again")
    return folder, variant


def join_rejects(passages: Collection[ShownPassage], folder: Path, variant: str) -> None:
    """Add the rejects of a variant to the passages that they belong to."""
    tables = _about(folder, {passage["id"] for passage in passages})
    for passage in passages:
        _add_rejects(passage, tables, variant)


def _about(folder: Path, ids: set[str]) -> list[dict[str, list[Row]]]:
    """The rows of rejects.parquet and, if it is there, of replies.parquet about these passages, by passage."""
    tables: list[dict[str, list[Row]]] = [{}, {}]
    for table, name in zip(tables, ("rejects", "replies"), strict=True):
        if (path := folder / f"{name}.parquet").exists():
            for row in parquet.read_table(path, filters=[("passage_id", "in", ids)]).to_pylist():
                table.setdefault(row["passage_id"], []).append(row)
    return tables


def _add_rejects(passage: ShownPassage, tables: Sequence[dict[str, list[Row]]], variant: str) -> None:
    """Add rejects and the reply; `supervised` stands for the variants of all its sets, `supervised: name`."""
    rejects, replies = (
        [row for row in table.get(passage["id"], []) if f"{row['variant']}:".startswith(f"{variant}:")]
        for table in tables
    )
    passage["rejects"] += [reject(row["reason"], row["span"] or "", row["type"] or "") for row in rejects]
    if replies:
        passage["reply"] = replace_surrogates(replies[0]["reply"])


def _texts(path: Path, ids: set[str]) -> dict[str, str]:
    """The texts of passages, if the run's file is there."""
    if not path.exists():
        return {}
    with path.open("rb") as lines:
        rows = (parse(line, f"{path}: line {number}") for number, line in enumerate(lines, 1) if line.strip())
        return {row["id"]: str(row.get("text", "")) for row in rows if row.get("id") in ids}
