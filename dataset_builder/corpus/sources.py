"""Read the documents of a corpus from local files, folders and datasets of the Hub, or from a mixture of them."""

import gzip
import hashlib
import json
import random
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from glob import glob
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from open_ner.conversation import LONE_SURROGATE
from open_ner.tools.errors import UserError
from open_ner.tools.files import replace_surrogates

from ..config import CorpusConfig, SourceConfig
from ..rejects import Reject

READERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".txt": "text", ".csv": "csv"}
COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
PATTERN = re.compile(r"[*?\[]")
COMMIT = re.compile(r"[0-9a-f]{40}")
Item = TypeVar("Item")


@dataclass
class Document:
    """A text of the corpus with its origin."""

    id: str
    text: str
    source: str
    license: str


def text_sha256(text: str) -> str:
    """Hex SHA-256 of a text's UTF-8; recorded answers name their passage by it."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def sources_of(config: CorpusConfig) -> list[SourceConfig]:
    """Check the options of a corpus and return its sources; raises UserError for options that conflict."""
    if bool(config.path) == bool(config.sources):
        raise UserError("corpus: set either corpus.path or corpus.sources, a list of them")
    sources = config.sources or [config]
    if any(not source.path for source in sources):
        raise UserError("corpus.sources: each needs a path")
    if config.sample and config.limit:
        raise UserError("corpus.sample draws from the whole corpus, corpus.limit keeps its beginning: set one of them")
    for name in ("sample", "limit", "max_documents", "max_tokens"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise UserError(f"corpus.{name} is {value}: it must be at least 1")
    if config.near_duplicates is not None and not 0 < config.near_duplicates <= 1:
        raise UserError(f"corpus.near_duplicates is {config.near_duplicates}: set a share up to 1, or null")
    weights = [source.weight for source in sources]
    if any(weight is not None for weight in weights):
        if not config.sample:
            raise UserError("corpus.sources: weights divide corpus.sample, which is not set")
        if any(weight is None or weight <= 0 for weight in weights):
            raise UserError(f"corpus.sources: give every source a weight above 0, or none; they are {weights}")
    if config.shuffle_buffer and not config.max_documents:
        raise UserError("corpus.shuffle_buffer only has an effect with corpus.max_documents: set that too")
    return sources


def read_documents(source: SourceConfig, config: CorpusConfig) -> Iterator[Document | Reject]:
    """Read the documents of one source.

    Reasons for rejects: `broken_line`, `no_text` (null), `empty`, `not_unicode` (a lone surrogate).

    Raises:
        UserError: the source cannot be read, or has no column with the text.
    """
    assert source.path  # see sources_of
    path = Path(source.path)
    if path.name.endswith((".jsonl", ".jsonl.gz", ".json.gz")) and not PATTERN.search(source.path):
        # not through `datasets`, which does not name a broken line and casts each column to one type
        rows = _read_jsonl(path, config.skip_broken_lines)
        rows = _shuffled(rows, config.shuffle_buffer, config.seed) if config.shuffle_buffer else rows
    else:
        rows = _read_datasets(source, config)
    for number, row in enumerate(islice(rows, config.max_documents), 1):
        yield row if isinstance(row, Reject) else _to_document(row, number, source)


def _to_document(row: dict[str, Any], number: int, source: SourceConfig) -> Document | Reject:
    """Check the columns of a row; `number` counts rows from 1."""
    column = source.text_column
    text = _field(row, column)
    if text is None and number == 1 and column not in row and column.split(".")[0] not in row:
        raise UserError(
            f"{source.path}: row {number} has no column {column!r}, only {sorted(row)}: set corpus.text_column"
        )
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
    """The value of a row's column, or of a field inside one (`meta.pile_set_name`); None if it is missing."""
    if not column or column in row:
        return row[column] if column else None
    for part in column.split("."):
        row = row.get(part) if isinstance(row, dict) else None
    return row


def _read_jsonl(path: Path, skip_broken: bool) -> Iterator[dict[str, Any] | Reject]:
    if not path.exists():
        raise UserError(f"{path}: no such file: set corpus.path to your corpus")
    opener = gzip.open if path.suffix == ".gz" else open
    number = 0
    try:
        with opener(path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")  # some editors write a byte order mark
                if not line.strip():
                    continue
                row: Any = None
                try:
                    row = json.loads(line.decode("utf-8"))
                    fault = None if isinstance(row, dict) else f"is not a JSON object: {line[:60]!r}"
                except UnicodeDecodeError as error:
                    fault = f"is not UTF-8 ({error.reason} at byte {error.start})"
                except json.JSONDecodeError as error:
                    fault = f"is not JSON ({error.msg} at column {error.colno})"
                except RecursionError:
                    fault = "is not JSON (nested too deep)"
                if fault is None:
                    yield row
                elif skip_broken:
                    yield Reject(f"{path.name}:{number}", "broken_line", line.decode("utf-8", "replace"))
                else:
                    raise UserError(f"{path}: line {number} {fault}; set corpus.skip_broken_lines to skip them")
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UserError(f"{path}: not readable after line {number}: {error}") from None


def _shuffled(rows: Iterable[Item], size: int, seed: int) -> Iterator[Item]:
    """Shuffle a stream as `IterableDataset.shuffle` does: each row is a random one of the next `size` rows."""
    chooser, buffer = random.Random(seed), []
    for row in rows:
        if len(buffer) < size:
            buffer.append(row)
            continue
        place = chooser.randrange(size)
        yield buffer[place]
        buffer[place] = row
    chooser.shuffle(buffer)
    yield from buffer


def _read_datasets(source: SourceConfig, config: CorpusConfig) -> Iterator[dict[str, Any]]:
    """Stream the rows through `datasets`, so that the corpus is held neither in memory nor in a cache on disk."""
    from datasets import load_dataset

    arguments = _load_arguments(source)
    try:
        rows = load_dataset(**arguments, split=source.split, streaming=True)
        if config.shuffle_buffer:
            rows = rows.shuffle(seed=config.seed, buffer_size=config.shuffle_buffer)
        yield from rows
    except Exception as error:  # `datasets` raises dozens of kinds for a source it cannot read
        causes = [str(error), str(error.__cause__ or "")]
        raise UserError(
            f"corpus.path {source.path!r} cannot be read: {' - '.join(filter(None, causes)):.300}"
        ) from None


def _load_arguments(source: SourceConfig) -> dict[str, Any]:
    """The arguments of `load_dataset` for a source."""
    assert source.path  # see sources_of
    path = Path(source.path)
    suffix = path.with_suffix("").suffix if path.suffix in COMPRESSED else path.suffix
    if path.is_dir():
        suffixes = {file.suffix for file in path.rglob(source.data_files or "*") if file.is_file()} - {""}
        if suffixes == {".txt"}:  # named explicitly: else `datasets` finds the reader, but takes no sample_by
            pattern = str(path / "**" / (source.data_files or "*.txt"))
            return {"path": "text", "data_files": pattern, "sample_by": source.sample_by}
        return {"path": source.path, "name": source.name, "data_files": source.data_files}
    if path.is_file() or PATTERN.search(source.path) or suffix in READERS:
        if not path.is_file() and not PATTERN.search(source.path):
            raise UserError(f"{path}: no such file: set corpus.path to your corpus")
        if suffix not in READERS:
            raise UserError(
                f"{path}: unknown file type: use {', '.join(READERS)}, also compressed as {', '.join(COMPRESSED)}"
            )
        text = {"sample_by": source.sample_by} if suffix == ".txt" else {}
        return {"path": READERS[suffix], "data_files": source.path, **text}
    return {
        "path": source.path, "name": source.name, "data_files": source.data_files, "revision": source.revision,
    }  # fmt: skip


def fingerprint(source: SourceConfig) -> str | None:
    """A string that changes with the source: sizes and times of its files, or the Hub's commit; None if unknown.

    The commit is written to `source.revision`, so that the whole corpus is read at one state.
    """
    assert source.path  # see sources_of
    path, files = Path(source.path), None
    if path.is_file():
        files = [path]
    elif path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
    elif PATTERN.search(source.path):
        files = sorted(map(Path, glob(source.path, recursive=True)))
    if files is not None:
        states = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        return hashlib.sha256(repr(states).encode()).hexdigest()
    if path.suffix in READERS or path.suffix in COMPRESSED:
        return None  # a missing file, which reading reports
    if not COMMIT.fullmatch(source.revision or ""):
        from huggingface_hub import HfApi

        try:
            source.revision = HfApi().dataset_info(source.path, revision=source.revision).sha
        except Exception:  # offline, unknown or forbidden: reading the corpus reports which
            return None
    return source.revision
