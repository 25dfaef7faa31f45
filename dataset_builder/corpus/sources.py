"""Documents of a corpus, one after the other: local files, folders and datasets of the Hub, or a mixture of them."""

import gzip
import hashlib
import json
import random
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from open_ner.tools.errors import UserError

from ..config import CorpusConfig, SourceConfig

READERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".txt": "text", ".csv": "csv"}
COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
PATTERN = re.compile(r"[*?\[]")
COMMIT = re.compile(r"[0-9a-f]{40}")
SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass
class Document:
    """A text of the corpus with its origin."""

    id: str
    text: str
    source: str
    license: str


@dataclass
class Dropped:
    """A line, document or passage left out, and why."""

    id: str
    reason: str
    text: str


def text_sha256(text: str) -> str:
    """Hex SHA-256 of a text's UTF-8, the name a passage's recorded answers know it by."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def sources_of(config: CorpusConfig) -> list[SourceConfig]:
    """The sources of a corpus; raises UserError for options that contradict each other."""
    if bool(config.path) == bool(config.sources):
        raise UserError("corpus: set either corpus.path or corpus.sources, a list of them")
    sources = config.sources or [config]
    if any(not source.path for source in sources):
        raise UserError("corpus.sources: each needs a path")
    if config.sample and config.limit:
        raise UserError("corpus.sample draws over the whole corpus and corpus.limit keeps its beginning: set one")
    for name in ("sample", "limit", "max_documents", "max_tokens"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise UserError(f"corpus.{name} is {value}: it must be at least 1")
    if config.near_duplicates is not None and not 0 < config.near_duplicates <= 1:
        raise UserError(f"corpus.near_duplicates is {config.near_duplicates}: it is a share, or null for none")
    weights = [source.weight for source in sources]
    if any(weight is not None for weight in weights):
        if not config.sample:
            raise UserError("corpus.sources: weights share out corpus.sample, which is not set")
        if any(weight is None or weight <= 0 for weight in weights):
            raise UserError(f"corpus.sources: give every source a weight above 0, or none; they are {weights}")
    if config.shuffle_buffer and not config.max_documents:
        raise UserError("corpus.shuffle_buffer only matters where corpus.max_documents cuts the corpus: set that too")
    return sources


def read_documents(source: SourceConfig, config: CorpusConfig) -> Iterator[Document | Dropped]:
    """Documents of one source; raises UserError for what cannot be read.

    Reasons to drop: `broken_line`, `no_text` (null), `empty`, `not_unicode` (a lone surrogate).
    """
    rows = _read_rows(source, config)
    for number, row in enumerate(islice(rows, config.max_documents), 1):
        if isinstance(row, Dropped):
            yield row
            continue
        text = _field(row, source.text_column)
        if text is None and number == 1 and not _has(row, source.text_column):
            raise UserError(
                f"{source.path}: row {number} has no column {source.text_column!r}, only {sorted(row)}: "
                "set corpus.text_column"
            )
        if text is not None and not isinstance(text, str):
            raise UserError(f"{source.path}: column {source.text_column!r} holds {text!r:.60}, not text")
        given = _field(row, source.id_column)
        name = str(given) if given not in (None, "") else text_sha256(text or "")[:16]
        if SURROGATE.search(name):
            name = text_sha256(name)[:16]
        if not text or not text.strip():
            yield Dropped(name, "no_text" if text is None else "empty", text or "")
        elif SURROGATE.search(text):
            yield Dropped(name, "not_unicode", text)
        else:
            origin, license = (_field(row, column) for column in (source.source_column, source.license_column))
            yield Document(name, text, _plain(origin) or source.source, _plain(license) or source.license)


def _plain(value: Any) -> str:
    return SURROGATE.sub("\ufffd", str(value)) if value not in (None, "") else ""


def _has(row: dict[str, Any], column: str) -> bool:
    return column in row or column.split(".")[0] in row


def _field(row: dict[str, Any], column: str | None) -> Any:
    """The value of a column, or of the field of one: `meta.pile_set_name`. None where there is none."""
    if column is None or column in row:
        return row.get(column) if column else None
    value: Any = row
    for part in column.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _read_rows(source: SourceConfig, config: CorpusConfig) -> Iterable[dict[str, Any] | Dropped]:
    path = Path(source.path)
    if path.name.endswith((".jsonl", ".jsonl.gz", ".json.gz")) and not PATTERN.search(source.path):
        # read here: it names the broken line, and keeps apart what `datasets` would give one type
        rows = _read_jsonl(path, config.skip_broken_lines)
        return _shuffled(rows, config.shuffle_buffer, config.seed) if config.shuffle_buffer else rows
    return _read_datasets(source, config)


def _read_jsonl(path: Path, skip_broken: bool) -> Iterator[dict[str, Any] | Dropped]:
    if not path.exists():
        raise UserError(f"{path}: no such file: set corpus.path to your corpus")
    opener = gzip.open if path.suffix == ".gz" else open
    number = 0
    try:
        with opener(path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")  # some editors write a mark first
                if not line.strip():
                    continue
                row, fault = _parse_line(line)
                if fault is None:
                    yield row
                elif skip_broken:
                    yield Dropped(f"{path.name}:{number}", "broken_line", line.decode("utf-8", "replace"))
                else:
                    raise UserError(f"{path}: line {number} {fault}; corpus.skip_broken_lines passes over such lines")
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UserError(f"{path}: not readable after line {number}: {error}") from None


def _parse_line(line: bytes) -> tuple[dict[str, Any] | None, str | None]:
    """The object of a JSONL line, or what is wrong with it."""
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return None, f"is not UTF-8 ({error.reason} at byte {error.start})"
    except json.JSONDecodeError as error:
        return None, f"is not JSON ({error.msg} at column {error.colno})"
    except RecursionError:
        return None, "is not JSON (nested too deep)"
    return (row, None) if isinstance(row, dict) else (None, f"is no JSON object: {line[:60]!r}")


def _shuffled(rows: Iterable[Any], size: int, seed: int) -> Iterator[Any]:
    """Rows in the order that `datasets` calls a shuffle buffer's: each is a random one of the next `size`."""
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
    """Everything else goes through `datasets`, streaming, so that no corpus is held in memory or on disk."""
    from datasets import load_dataset

    arguments = _arguments(source)
    try:
        rows = load_dataset(**arguments, split=source.split, streaming=True)
        if config.shuffle_buffer:
            rows = rows.shuffle(seed=config.seed, buffer_size=config.shuffle_buffer)
        yield from rows
    except UserError:
        raise
    except Exception as error:  # `datasets` raises dozens of kinds for a source it cannot read
        causes = [str(error), str(error.__cause__ or "")]
        raise UserError(
            f"corpus.path {source.path!r} cannot be read: {' - '.join(filter(None, causes)):.300}"
        ) from None


def _arguments(source: SourceConfig) -> dict[str, Any]:
    """How `load_dataset` is called for a source."""
    path = Path(source.path)
    suffix = path.with_suffix("").suffix if path.suffix in COMPRESSED else path.suffix
    by = {"sample_by": source.sample_by}
    if path.is_dir():
        suffixes = {file.suffix for file in path.rglob(source.data_files or "*") if file.is_file()} - {""}
        if suffixes == {".txt"}:  # `datasets` finds this out too, but then takes no sample_by
            return {"path": "text", "data_files": str(path / "**" / (source.data_files or "*.txt")), **by}
        return {"path": source.path, "name": source.name, "data_files": source.data_files}
    if path.is_file() or PATTERN.search(source.path) or suffix in READERS:
        if not path.is_file() and not PATTERN.search(source.path):
            raise UserError(f"{path}: no such file: set corpus.path to your corpus")
        if suffix not in READERS:
            raise UserError(
                f"{path}: unknown kind of file: use {', '.join(READERS)}, also with {', '.join(COMPRESSED)}"
            )
        reader = READERS[suffix]
        return {"path": reader, "data_files": source.path, **(by if reader == "text" else {})}
    return {
        "path": source.path, "name": source.name, "data_files": source.data_files, "revision": source.revision,
    }  # fmt: skip


def fingerprint(source: SourceConfig) -> str | None:
    """What changes when the source does: sizes and times of its files, or the Hub's commit. None: could not be asked.

    The commit is written into `source.revision`, so that all of the corpus is read at one state.
    """
    path = Path(source.path)
    if path.is_file():
        return _state([path])
    if path.is_dir():
        return _state(sorted(file for file in path.rglob("*") if file.is_file()))
    if PATTERN.search(source.path):
        from glob import glob

        return _state(sorted(Path(name) for name in glob(source.path, recursive=True)))
    if path.suffix in READERS or path.suffix in COMPRESSED:
        return None  # a file that is not there: reading says so
    if not COMMIT.fullmatch(source.revision or ""):
        from huggingface_hub import HfApi

        try:
            source.revision = HfApi().dataset_info(source.path, revision=source.revision).sha
        except Exception:  # offline, unknown or forbidden: reading the corpus says which
            return None
    return source.revision


def _state(files: list[Path]) -> str:
    states = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(states).encode()).hexdigest()
