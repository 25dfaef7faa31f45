"""Rows of the files that sets come in: JSON, JSONL, CoNLL, Parquet and datasets of the Hub."""

import bz2
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import zstandard

from open_ner.tools.errors import UserError

from .config import SetConfig

LONGEST_LINE = 2**27  # bytes
Row = dict[str, Any]  # as the file has it; sets.py and benchmarks.py check the columns they read


class Source(NamedTuple):
    """A file or a dataset of a set; `tag_names` are the names of numbered tags."""

    name: str
    rows: Callable[[], Iterable[Row]]
    tag_names: Sequence[str]


def open_rows(config: SetConfig, file: Path | str) -> Source:
    """A source of a set: a local file, or the Hub id of a dataset."""
    if isinstance(file, str) or (config.format != "conll" and file.suffix == ".parquet"):
        return Source(str(file), *read_datasets(config, str(file)))
    read = partial(read_conll, file, config) if config.format == "conll" else partial(read_json_rows, file)
    return Source(str(file), read, config.tag_names)


def read_json_rows(path: Path) -> Iterator[Row]:
    """Objects of a JSON list or of JSONL, compressed or not. Raises UserError that names the first bad line."""
    for number, row, fault, _ in parse_json(path):
        if fault:
            raise UserError(f"{path}: line {number} {fault}")
        yield row


def parse_json(path: Path) -> Iterator[tuple[int, Row, str, str]]:
    """Line number, row, fault and content of each line of JSONL or element of a JSON list; without a fault no content.

    Raises UserError for a file that cannot be read.
    """
    lines = ((number, line) for number, line in enumerate(read_lines(path), 1) if line.strip())
    first = True
    for number, line in lines:
        whole = first and line.lstrip().startswith(b"[")
        if whole:
            line += b"".join(rest for _, rest in lines)
        first, fault, rows = False, "", [None]
        try:
            rows = json.loads(line.decode("utf-8"))
            rows = rows if whole and isinstance(rows, list) else [rows]
        except UnicodeDecodeError as error:
            fault = f"is not UTF-8 ({error.reason} at byte {error.start})"
        except json.JSONDecodeError as error:
            fault = f"is not JSON ({error.msg} at column {error.colno})"
        except RecursionError:
            fault = "is not JSON (nested too deep)"
        for row in rows:
            if isinstance(row, dict):
                yield number, row, "", ""
            else:
                content = line.decode("utf-8", "replace") if fault or not whole else repr(row)
                yield number, {}, fault or f"is not a JSON object: {row!r:.60}", content


def read_conll(path: Path, config: SetConfig) -> Iterator[Row]:
    """Sentences of a CoNLL file: one token per line with its tag in a column, a blank line after each sentence."""
    tokens: list[str] = []
    tags: list[str] = []
    number = 0
    for place, content in enumerate(chain(read_lines(path), [b""])):
        try:
            line = content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not readable after line {place}: {error}") from None
        columns = line.rstrip("\r\n").split("\t") if "\t" in line else line.split()
        if columns and config.comment and line.startswith(config.comment):
            continue
        if columns and columns[0] != "-DOCSTART-":
            size = len(columns)
            word, mark = (n + size if n < 0 else n for n in (config.token_column, config.tag_column))
            if word == mark and size > 1:
                raise UserError(f"{path}: token_column and tag_column are the same column of {columns}")
            tokens.append(columns[word] if 0 <= word < size else "")
            # a line without a tag makes the lengths differ: the sentence is rejected as tags_do_not_match_tokens
            tags += [columns[mark].strip()] if size > max(1, word, mark) and mark >= 0 else []
        elif tokens:
            number += 1
            name = f"{path.name.split('.')[0]}_{number}"
            yield {config.id_column: name, config.tokens_column: tokens, config.tags_column: tags}
            tokens, tags = [], []


def read_lines(path: Path) -> Iterator[bytes]:
    """Lines of a file, which is decompressed by its suffix, without a byte order mark; only a newline ends a line.

    Raises UserError for a file that cannot be read and for a line of more than `LONGEST_LINE` bytes, which a small
    compressed file can hold.
    """
    number = 0
    try:
        with OPENERS.get(path.suffix, open)(path, "rb") as file:
            while line := file.readline(LONGEST_LINE + 1):
                number += 1
                if len(line) > LONGEST_LINE:
                    raise UserError(f"{path}: line {number} has more than {LONGEST_LINE >> 20} MiB")
                yield line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
        raise UserError(f"{path}: not readable after line {number}: {error}") from None


def _open_zstd(path: Path, mode: str) -> io.BufferedReader:
    decompressor = zstandard.ZstdDecompressor(max_window_size=2**31)
    return io.BufferedReader(decompressor.stream_reader(path.open(mode), read_across_frames=True, closefd=True))


OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": _open_zstd}


def read_datasets(config: SetConfig, source: str) -> tuple[Callable[[], Iterable[Row]], list[str]]:
    """A function that streams the rows of a Parquet file or a Hub dataset, and the names of its numbered tags.

    Raises UserError for a source that `datasets` cannot read, and for numbered tags whose names are unknown.
    """
    from datasets import ClassLabel, load_dataset

    def refuse(error: Exception) -> UserError:
        return UserError(f"set {config.name}: {source!r} cannot be read: {str(error):.200}")

    def guarded() -> Iterator[Row]:
        try:
            yield from rows
        except Exception as error:  # `datasets` raises dozens of types for a source it cannot read
            raise refuse(error) from None

    try:
        if source.endswith(".parquet"):
            rows = load_dataset("parquet", data_files=source, split="train", streaming=True)
        elif config.data_files:  # files that may stand beside a loading script, which `datasets` refuses
            kind = "parquet" if config.data_files.endswith(".parquet") else "json"
            files = f"hf://datasets/{source}@{config.revision or 'main'}/{config.data_files}"
            rows = load_dataset(kind, data_files=files, split="train", streaming=True)
        else:
            rows = load_dataset(source, config.config, split=config.split, revision=config.revision, streaming=True)
    except Exception as error:
        raise refuse(error) from None
    names = list(config.tag_names)
    tags = getattr((rows.features or {}).get(config.tags_column), "feature", None)
    if isinstance(tags, ClassLabel) and not names:
        names = tags.names
    elif config.format == "tags" and "int" in str(getattr(tags, "dtype", "")) and not names:
        raise UserError(f"set {config.name}: column {config.tags_column!r} holds numbers: set tag_names")
    return guarded, names
