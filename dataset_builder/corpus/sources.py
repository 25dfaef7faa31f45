"""Read the documents of a corpus from local files, folders and datasets of the Hub, or from a mixture of them."""

import hashlib
import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from glob import escape, glob
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
from .local_rows import LOCAL_READERS

if TYPE_CHECKING:
    from datasets import IterableDataset

READERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".txt": "text", ".csv": "csv"}
COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
PATTERN = re.compile(r"[*?\[]")
Position = tuple[int, int]  # of a document in its source: the part of the files, and the row in it
COMMIT = re.compile(r"[0-9a-f]{40}")


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
            dataset = _load_dataset(source, config)
            number = dataset.num_shards
        rows = partial(_read_dataset, dataset, source, kind == "text")
    return (number, rows) if most is None else (1, lambda part: islice(rows(part), most))


def _refuse_unused(source: SourceConfig, kind: str | None) -> None:
    """Raise UserError for an option that has no effect on a source, whose reader is `kind` (see `choose_files`)."""
    path = Path(source.path or "")
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


def local_files(source: SourceConfig) -> list[Path] | None:
    """Return the local files of a source; None for a Hub dataset or a file that does not exist."""
    assert source.path  # see sources_of
    path = Path(source.path)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [path / name for name in glob(f"**/{source.data_files or '*'}", root_dir=path, recursive=True)]
    elif PATTERN.search(source.path):
        found = [Path(name) for name in glob(source.path, recursive=True)]
    else:
        return None
    return sorted(file for file in found if file.is_file())


def choose_files(source: SourceConfig) -> tuple[str | None, list[Path], list[Path]]:
    """Choose the reader of a source, by the most frequent type of its local files.

    Returns:
        The key of the reader, the local files to read, and the other local files. The key is None if `datasets` must
        find the files: for a Hub dataset, a folder with configs, and a folder without files of a known type.

    Raises:
        UserError: the files do not exist, or are of an unknown type.
    """
    path, files = Path(source.path or ""), local_files(source)
    kinds = [READERS.get((f.with_suffix("") if f.suffix in COMPRESSED else f).suffix) for f in files or []]
    kind = max(READERS.values(), key=kinds.count)
    if not files or kind not in kinds:
        if path.is_dir() or (files is None and not {path.suffix, path.with_suffix("").suffix} & {*READERS}):
            return None, [], []
        types = f"unknown file type: use {', '.join(READERS)}, or one of them compressed ({', '.join(COMPRESSED)})"
        raise UserError(f"{path}: {types if files else 'no such file: set corpus.path to your corpus'}")
    chosen = [file for file, one in zip(files, kinds, strict=True) if one == kind]
    if path.is_dir() and not source.data_files:
        card = path / "README.md"
        if source.name or (card.exists() and "\nconfigs:" in card.read_text(encoding="utf-8", errors="replace")):
            return None, [], []
        chosen = chosen if kind == "text" else _of_split(path, chosen, source.split)
    return kind, chosen, [file for file in files if file not in {*chosen}]


def _of_split(folder: Path, files: list[Path], split: str) -> list[Path]:
    """Return the files whose names belong to a split, such as `test.jsonl`, by the rules of `datasets`."""
    from datasets.data_files import DataFilesDict, get_data_patterns

    try:
        splits = DataFilesDict.from_patterns(get_data_patterns(str(folder)), base_path=str(folder))
    except FileNotFoundError:
        return files
    if split not in splits:
        raise UserError(f"{folder}: no files of the split {split!r}, only of {sorted(map(str, splits))}")
    names = {Path(name).resolve() for name in splits[split]}
    return [file for file in files if file.resolve() in names]


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


def _load_dataset(source: SourceConfig, config: CorpusConfig) -> "IterableDataset":
    """Open a source with `datasets` as a stream, without holding the corpus in memory or in a cache on disk."""
    from datasets import load_dataset

    assert source.path  # see sources_of
    kind, files, _ = choose_files(source)
    arguments: dict[str, Any] = {"split": source.split, "data_files": source.data_files}
    if kind:
        arguments = {"split": "train", "data_files": [escape(str(file)) for file in files]}
        arguments |= {"sample_by": source.sample_by} if kind == "text" else {}
    elif not Path(source.path).exists():
        arguments["revision"] = source.revision
    rows = load_dataset(kind or source.path, None if kind else source.name, **arguments, streaming=True)
    return rows.shuffle(seed=config.seed, buffer_size=config.shuffle_buffer) if config.shuffle_buffer else rows


def _read_dataset(rows: "IterableDataset", source: SourceConfig, are_text: bool, part: Shard) -> Iterator[Row]:
    """Yield the rows of a part of the files of a dataset; those of text files without a byte order mark."""
    with readable(f"corpus.path {source.path!r}"):
        for row in rows.shard(part.count, part.index - 1) if part.count > 1 else rows:
            yield {**row, "text": row["text"].removeprefix("\ufeff")} if are_text else row


def pin(source: SourceConfig) -> str | None:
    """Set `source.revision` to the Hub's commit, and return a string that changes with the source.

    Returns:
        The commit, or for local files a hash of their sizes and times; None if the Hub cannot be reached or the
        source does not exist.
    """
    assert source.path  # see sources_of
    path, files = Path(source.path), local_files(source)
    if files is not None:
        states = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        return hashlib.sha256(repr(states).encode()).hexdigest()
    if path.suffix in READERS or path.suffix in COMPRESSED:
        return None  # the file is missing: reading it will report that
    if not COMMIT.fullmatch(source.revision or ""):
        from huggingface_hub import HfApi

        try:
            source.revision = HfApi().dataset_info(source.path, revision=source.revision).sha
        except Exception:  # offline, unknown or forbidden: reading the corpus will report that
            return None
    return source.revision
