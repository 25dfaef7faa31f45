"""Read the rows of one local file of a corpus: JSONL, a JSON list, or CSV."""

import csv
from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ner_sets.rows import LONGEST_LINE, Row, parse_json, read_lines
from open_ner.tools.errors import UserError

from ..rejects import Reject

SKIP = "to skip such lines, set corpus.skip_broken_lines"


def read_json_lines(path: Path, skip_broken: bool) -> Iterator[Row | Reject]:
    """Yield the objects of a JSONL file or a JSON list."""
    for number, row, fault, content in parse_json(path):
        if fault and not skip_broken:
            raise UserError(f"{path}: {fault}; {SKIP}")
        yield Reject(f"{path.name}:{number}", "broken_line", content) if fault else row


def _not_utf8(path: Path, line: int, error: UnicodeDecodeError) -> str:
    return f"{path}: line {line} is not UTF-8 ({error.reason} at byte {error.start}): save the file as UTF-8"


def find_not_utf8(files: Iterable[Path]) -> str | None:
    """Return what is wrong with the first of `files` that is not UTF-8; None if all of them are."""
    for file in files:
        for number, line in enumerate(read_lines(file), 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return _not_utf8(file, number, error)
    return None


class _Lines:
    """The lines of a file; after a row that cannot be read, those behind its first line can be read once more.

    Attributes:
        of_row: the lines since the end of the last row.
        before: number of lines before these.
    """

    def __init__(self, path: Path) -> None:
        self.lines = read_lines(path)
        self.again: list[str] = []  # lines to read once more, the next one last
        self.of_row: list[str] = []
        self.before = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.of_row.append(self.again.pop() if self.again else next(self.lines).decode("utf-8"))
        return self.of_row[-1]

    def end_row(self) -> None:
        """Start the next row."""
        self.before += len(self.of_row)
        self.of_row = []

    def skip_line(self) -> str:
        """Start the next row after the first line of this one, which is returned."""
        first, *rest = self.of_row
        self.again += reversed(rest)
        self.of_row = [first]
        self.end_row()
        return first


def read_csv(path: Path, skip_broken: bool) -> Iterator[Row | Reject]:
    """Yield the rows of a CSV file with a header; every value is text, and a missing one is None.

    A quotation mark without its counterpart would make a single row of many lines. Therefore such a mark is an error,
    and only the first line of the row is rejected.
    """
    csv.field_size_limit(LONGEST_LINE)
    lines, names = _Lines(path), list[str]()
    reader = csv.reader(lines, strict=True)
    while True:
        try:
            values = next(reader, None)
        except UnicodeDecodeError as error:
            raise UserError(_not_utf8(path, lines.before + len(lines.of_row) + 1, error)) from None
        except csv.Error as error:
            number = lines.before + 1
            if not skip_broken or not names:
                how = "quote texts that have quotation marks or line breaks, and double the marks in them"
                raise UserError(f"{path}: the row in line {number} cannot be read ({error}): {how}; {SKIP}") from None
            yield Reject(f"{path.name}:{number}", "broken_line", lines.skip_line().rstrip("\r\n"))
            continue
        if values is None:
            return
        lines.end_row()
        if not names:
            names = values
        elif "".join(values[len(names) :]).strip():  # the text contains a comma without quotes
            if not skip_broken:
                how = f"quote texts that contain commas; {SKIP}"
                raise UserError(f"{path}: line {lines.before} has more fields than the header: {how}")
            yield Reject(f"{path.name}:{lines.before}", "broken_line", ",".join(values))
        elif values:  # not a blank line
            yield dict(zip_longest(names, values[: len(names)]))


LOCAL_READERS: dict[str | None, Callable[[Path, bool], Iterator[Any]]] = {"json": read_json_lines, "csv": read_csv}
