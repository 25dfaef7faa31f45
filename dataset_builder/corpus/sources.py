"""Read the documents of a corpus from local files, folders and datasets of the Hub, or from a mixture of them."""

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from glob import escape
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ner_sets.rows import Row, readable
from open_ner.conversation import LONE_SURROGATE
from open_ner.tools.errors import UserError
from open_ner.tools.files import replace_surrogates

from ..config import CorpusConfig, SourceConfig
from ..rejects import Reject
from ..shards import WHOLE, Shard
from .local_rows import LOCAL_READERS, find_not_utf8
from .source_files import choose_files, path_of

if TYPE_CHECKING:
    from datasets import IterableDataset

Position = tuple[int, int]  # of a document in its source: the part of the files, and the row in it


@dataclass
class Document:
    """A text of the corpus with its origin and license."""

    id: str
    text: str
    source: str
    license: str


def text_sha256(text: str) -> str:
    """Return the hex SHA-256 of a text in UTF-8, which identifies the passage of a recorded reply."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def sources_of(config: CorpusConfig) -> list[SourceConfig]:
    """Return the sources of a corpus. Raises UserError for options that are out of range or conflict."""
    if bool(config.path) == bool(config.sources):
        raise UserError("set either corpus.path or corpus.sources")
    sources = config.sources or [config]
    if not all(source.path for source in sources):
        raise UserError("corpus.sources: each source needs a path")
    for field in fields(SourceConfig) if config.sources else ():
        if field.name != "path" and getattr(config, field.name) != field.default:
            raise UserError(f"corpus.{field.name} has no effect with corpus.sources: set it in each source")
    if config.sample and config.limit:
        raise UserError("corpus.sample draws from the whole corpus, corpus.limit keeps its beginning: set one of them")
    if config.near_duplicates is not None and not 0 < config.near_duplicates <= 1:
        raise UserError(f"corpus.near_duplicates is {config.near_duplicates}: it must be above 0 and at most 1")
    weights = [source.weight for source in sources]
    if any(weight is not None for weight in weights):
        if not config.sample:
            raise UserError("corpus.sources: weights divide corpus.sample, so set that too")
        if any(weight is None or weight <= 0 for weight in weights):
            raise UserError(f"corpus.sources: all weights must be above 0, or none may be set; they are {weights}")
    if config.shuffle_buffer and not config.max_documents:
        raise UserError("corpus.shuffle_buffer only has an effect with corpus.max_documents, so set that too")
    return sources


def read_documents(
    source: SourceConfig, config: CorpusConfig, shard: Shard = WHOLE
) -> Iterator[tuple[Position, Document | Reject]]:
    """Read the documents of one source, or a shard's part of them.

    Yields:
        Each document with its position, or a reject for the reasons `broken_line`, `no_text` (null), `empty`, and
        `not_unicode` (a lone surrogate). Sorting by position gives the order of the source.

    Raises:
        UserError: the source cannot be read, or has no column with the text.
    """
    files, read = _open(source, config)
    part, share = shard.divide(files)
    for number, row in enumerate(read(part), 1):
        if share.takes(number):
            at = (part.index, number)
            yield at, row if isinstance(row, Reject) else _to_document(row, at == (1, 1), source)


def _open(source: SourceConfig, config: CorpusConfig) -> tuple[int, Callable[[Shard], Iterable[Row | Reject]]]:
    """Return the number of files of a source, and a function that reads a part of them.

    With `max_documents`, all files count as one, because this option limits the number of rows in all of them.
    """
    kind, files, _ = choose_files(source)
    _refuse_unused(source, kind)
    number, most = len(files), config.max_documents
    if kind in LOCAL_READERS:  # `datasets` would cast a column to one type, and does not say which line is broken
        rows = partial(_read_local, LOCAL_READERS[kind], files, config)
    else:
        with readable(f"corpus.path {source.path!r}"):
            dataset = _load_dataset(source, config, kind, files)
            number = dataset.num_shards
        rows = partial(_read_dataset, dataset, source, files if kind == "text" else [])
    return (number, rows) if most is None else (1, lambda part: islice(rows(part), most))


def _refuse_unused(source: SourceConfig, kind: str | None) -> None:
    """Raise UserError for an option that has no effect on a source, whose reader is `kind` (see `choose_files`)."""
    path = path_of(source)
    is_folder, is_text, by_datasets = path.is_dir(), kind == "text", kind is None
    has_effect = {
        "split": by_datasets or (is_folder and not is_text and not source.data_files),
        "name": by_datasets, "revision": by_datasets and not is_folder, "data_files": by_datasets or is_folder,
        "sample_by": is_text,
    }  # fmt: skip
    what = f"local {kind} files" if kind else "a dataset"
    if is_folder:
        what = f"this folder of {kind} files" if kind else "this folder"
    for name, known in has_effect.items():
        value = getattr(source, name)
        if not known and value != getattr(SourceConfig(), name):
            raise UserError(f"{path}: corpus.{name} {value!r} has no effect on {what}: remove it")


def _to_document(row: Row, is_first: bool, source: SourceConfig) -> Document | Reject:
    """Read the columns of a row."""
    column = source.text_column
    text = _field(row, column)
    if text is None and is_first and column not in row and column.split(".")[0] not in row:
        raise UserError(f"{source.path}: row 1 has no column {column!r}, only {sorted(row)}: set corpus.text_column")
    if text is not None and not isinstance(text, str):
        raise UserError(f"{source.path}: column {column!r} contains {text!r:.60}, which is not text")
    name = _field(row, source.id_column)
    name = str(name) if name not in (None, "") else text_sha256(text or "")[:16]
    if LONE_SURROGATE.search(name):
        name = text_sha256(name)[:16]
    if not text or not text.strip():
        return Reject(name, "no_text" if text is None else "empty", text or "")
    if LONE_SURROGATE.search(text):
        return Reject(name, "not_unicode", text)
    british = source.license_column == "license" and "license" not in row
    origin, license = _field(row, source.source_column), _field(row, "licence" if british else source.license_column)
    origin, license = (replace_surrogates("" if value is None else str(value)) for value in (origin, license))
    return Document(name, text, origin or source.source, license or source.license)


def _field(row: Any, column: str | None) -> Any:
    """Return the value of a row's column, or of a field in it (`meta.pile_set_name`); None if it is missing."""
    for part in [column] if not column or column in row else column.split("."):
        row = row.get(part) if isinstance(row, dict) else None
    return row


def _shuffled(rows: Iterator[Any], size: int, seed: int) -> Iterator[Any]:
    """Shuffle a stream as `IterableDataset.shuffle` does: each row is chosen among the next `size` rows."""
    chooser = random.Random(seed)
    buffer = list(islice(rows, size))
    for row in rows:
        place = chooser.randrange(size)
        yield buffer[place]
        buffer[place] = row
    chooser.shuffle(buffer)
    yield from buffer


def _read_local(
    reader: Callable[[Path, bool], Iterator[Any]], files: list[Path], config: CorpusConfig, part: Shard
) -> Iterator[Row | Reject]:
    """Yield the rows of a part of the local files, shuffled if the recipe says so."""
    rows = (row for file in part.choose(files) for row in reader(file, config.skip_broken_lines))
    return _shuffled(rows, config.shuffle_buffer, config.seed) if config.shuffle_buffer else rows


def _load_dataset(
    source: SourceConfig, config: CorpusConfig, kind: str | None, files: list[Path]
) -> "IterableDataset":
    """Open a source with `datasets` as a stream, without holding the corpus in memory or in a cache on disk."""
    from datasets import load_dataset

    path = path_of(source)
    arguments: dict[str, Any] = {"split": source.split, "data_files": source.data_files}
    if kind:
        arguments = {"split": "train", "data_files": [escape(str(file)) for file in files]}
        arguments |= {"sample_by": source.sample_by} if kind == "text" else {}
    elif not path.exists():
        arguments["revision"] = source.revision
    rows = load_dataset(kind or str(path), None if kind else source.name, **arguments, streaming=True)
    return rows.shuffle(seed=config.seed, buffer_size=config.shuffle_buffer) if config.shuffle_buffer else rows


def _read_dataset(rows: "IterableDataset", source: SourceConfig, texts: list[Path], part: Shard) -> Iterator[Row]:
    """Yield the rows of a part of the files of a dataset; those of `texts`, its text files, without a byte order mark.

    Raises UserError for a file that cannot be read.
    """
    fault = None
    with readable(f"corpus.path {source.path!r}"):
        try:
            for row in rows.shard(part.count, part.index - 1) if part.count > 1 else rows:
                yield {**row, "text": row["text"].removeprefix("\ufeff")} if texts else row
        except UnicodeDecodeError:  # which does not say the name of the file
            if not (fault := find_not_utf8(texts)):
                raise
    if fault:
        raise UserError(fault)
