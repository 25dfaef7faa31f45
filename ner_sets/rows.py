"""Read the rows of sets from JSON, JSONL, CoNLL and Parquet files and from datasets of the Hub."""

import bz2
import gzip
import io
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import zstandard

from open_ner.tools.errors import UserError

from .config import SetConfig

SPACED = re.compile(r"[^ \r\n]+")  # columns of a CoNLL line without tabs; a no-break space is part of a token
LONGEST_LINE = 2**27  # bytes; bounds the memory, since a small compressed file can contain a huge line
Row = dict[str, Any]  # as in the file; sets.py and benchmarks.py check the columns that they read


class Source(NamedTuple):
    """A file or Hub dataset of a set: its rows, read anew by each call, and the names of its numbered tags."""

    name: str
    rows: Callable[[], Iterable[Row]]
    tag_names: Sequence[str]


def open_rows(config: SetConfig, file: Path | str) -> Source:
    """Open a local file of a set (a path), or a dataset of the Hub (a string).

    Raises:
        UserError: `datasets` cannot read the source, or its tags are numbers without names.
    """
    if config.format == "conll" and isinstance(file, Path):
        return Source(str(file), partial(read_conll, file, config), config.tag_names)
    if isinstance(file, Path) and file.suffix != ".parquet":
        return Source(str(file), partial(read_json_rows, file), config.tag_names)
    from datasets import ClassLabel, load_dataset

    source, load = str(file), partial(load_dataset, split="train", streaming=True)
    with readable(f"set {config.name}: {source!r}"):
        if isinstance(file, Path):
            rows = load("parquet", data_files=source)
        elif config.data_files:  # read as files, because `datasets` refuses repositories that contain a script
            kind = "parquet" if config.data_files.endswith(".parquet") else "json"
            address = f"hf://datasets/{source}@{config.revision or 'main'}/{config.data_files}"
            rows = load(kind, data_files=address)
        else:
            rows = load(source, config.config, split=config.split, revision=config.revision)
    names, tags = config.tag_names, getattr((rows.features or {}).get(config.tags_column), "feature", None)
    if isinstance(tags, ClassLabel) and not names:
        names = tags.names
    elif config.format == "tags" and "int" in str(getattr(tags, "dtype", "")) and not names:
        raise UserError(f"set {config.name}: column {config.tags_column!r} has numbers: set tag_names")

    def read() -> Iterator[Row]:
        with readable(f"set {config.name}: {source!r}"):
            yield from rows

    return Source(source, read, names)


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Raise UserError for any error within; `datasets` raises dozens of types for a source that it cannot read."""
    try:
        yield
    except Exception as error:
        causes = " - ".join(filter(None, [str(error), str(error.__cause__ or "")]))
        raise UserError(f"{name} cannot be read: {causes:.300}") from None


def read_json_rows(path: Path) -> Iterator[Row]:
    """Yield the objects of a JSON list or of JSONL, compressed or not; raise UserError for the first fault."""
    for _, row, fault, _ in parse_json(path):
        if fault:
            raise UserError(f"{path}: {fault}")
        yield row


def parse_json(path: Path) -> Iterator[tuple[int, Row, str, str]]:
    """Yield `(number, object, fault, content)` for each line of JSONL or element of a JSON list.

    Number is that of the line or element. For a valid row, fault and content are empty. For an invalid one, the object
    is empty, and the fault names the line or element. Raises UserError for an unreadable file.
    """
    lines, first = enumerate(read_lines(path), 1), True
    for number, line in lines:
        if not line.strip():
            continue
        is_list, first = first and line.lstrip().startswith(b"["), False
        if is_list:
            line += b"".join(rest for _, rest in lines)
        try:
            value = json.loads(line.rstrip().decode("utf-8"))
        except UnicodeDecodeError as error:
            number += line.count(b"\n", 0, error.start)
            byte = error.start - line.rfind(b"\n", 0, error.start) - 1
            fault = f"line {number} is not UTF-8 ({error.reason} at byte {byte})"
        except json.JSONDecodeError as error:
            number += error.lineno - 1
            fault = f"line {number} is not JSON ({error.msg} at column {error.colno})"
        except RecursionError:
            fault = f"line {number} is not JSON (nested too deep)"
        else:
            unit, start, rows = ("element", 1, value) if is_list else ("line", number, [value])
            for place, row in enumerate(rows, start):
                if isinstance(row, dict):
                    yield place, row, "", ""
                else:
                    content = repr(row) if is_list else line.decode("utf-8")
                    yield place, {}, f"{unit} {place} is not a JSON object: {row!r:.60}", content
            continue
        yield number, {}, fault, line.decode("utf-8", "replace")


def read_conll(path: Path, config: SetConfig) -> Iterator[Row]:
    """Yield the sentences of a CoNLL file: a token and its tag per line, a blank line after each sentence."""
    tokens: list[str] = []
    tags: list[str] = []
    sentences = 0
    most = {True: 0, False: 0}  # columns of the rows with a tag, and of those with an empty one
    for number, content in enumerate(chain(read_lines(path), [b""]), 1):
        try:
            line = content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: line {number} is not UTF-8: {error}") from None
        columns: list[str] = []
        if line.strip():  # a line with only tabs is blank; spreadsheets write such lines
            columns = line.rstrip("\r\n").split("\t") if "\t" in line else SPACED.findall(line)
        if columns and config.comment and line.startswith(config.comment):
            continue
        if columns and columns[0] != "-DOCSTART-":
            size = len(columns)
            word, mark = (n + size if n < 0 else n for n in (config.token_column, config.tag_column))
            if word == mark and size > 1:
                raise UserError(f"{path}: token_column and tag_column are the same column of {columns}")
            tokens.append(columns[word] if 0 <= word < size else "")
            if mark >= 0 and size > max(1, word, mark):  # else the sentence is a reject, tags_do_not_match_tokens
                tags.append(columns[mark].strip())
                most[bool(tags[-1])] = max(most[bool(tags[-1])], size)
        elif tokens:
            sentences += 1
            name = f"{path.name.split('.')[0]}_{sentences}"
            yield {config.id_column: name, config.tokens_column: tokens, config.tags_column: tags}
            tokens, tags = [], []
    # otherwise, and in an explicit column, an empty tag means O
    if config.tag_column < 0 and most[False] > most[True]:
        rows = "rows with more columns than the others" if most[True] else "every row"
        where = f"column {config.tag_column} of the tags is empty in {rows}, as after a tab at the end of a row"
        raise UserError(f"{path}: {where}: set tag_column, counted from 0")


def read_lines(path: Path) -> Iterator[bytes]:
    r"""Yield the lines of a file, decompressed by its suffix, without a byte order mark; only `\n` ends a line.

    Raises UserError for an unreadable file and for a line of more than `LONGEST_LINE` bytes.
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
