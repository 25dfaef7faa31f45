"""Open what a view shows: files of annotated passages, predictions, rejects, and folders of datasets.

Opening a source only finds where each passage is; a passage is read when it is shown.
"""

import gzip
import random
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..tools.errors import UserError
from .passages import ShownPassage
from .rows import from_predictions, from_row, is_prediction, parse, passage_of

PAGE_CHARACTERS = 3_000_000  # characters of text on a page; browsers are slow with more
Read = Callable[[Sequence[int]], Iterator[ShownPassage]]  # yields the passages at these places, which are sorted


@dataclass
class Source:
    """An opened file or folder: the number of its passages, and a function that reads those at places, from 0."""

    name: str
    size: int
    read: Read
    noun: str = "reject"


@dataclass
class Page:
    """The passages that are shown; `notes` say how to see the others."""

    passages: list[ShownPassage]
    notes: list[str] = field(default_factory=list)
    noun: str = "reject"  # what the rejects are called: those of predictions are errors


def open_page(
    path: Path, limit: int, start: int = 1, sample: int | None = None, seed: int = 0, config: str | None = None
) -> Page:
    """Read the passages of a page.

    Args:
        path: see `open_source`.
        limit: number of passages on the page.
        start: number of the first passage, from 1.
        sample: show a random sample of this many passages instead.
        seed: seed of the sample.
        config: config of a dataset's folder.

    Raises:
        UserError: the file cannot be read, has no passages, or has fewer than `start`.
    """
    source = open_source(path, config)
    if not source.size:
        raise UserError(f"{source.name} has no passages")
    if start > source.size:
        raise UserError(f"--start {start}: {source.name} has only {source.size:,} passages")
    first = start - 1
    places = range(first, min(source.size, first + limit))
    if sample is not None:
        places = sorted(random.Random(seed).sample(range(source.size), min(sample, source.size)))
    page, characters = Page([], noun=source.noun), 0
    with _readable(path):
        for passage in source.read(places):
            page.passages.append(passage)
            characters += len(passage["text"])
            if characters > PAGE_CHARACTERS:
                break
    _join_rejects(path, config, page)
    shown = len(page.passages)
    if shown < len(places):
        page.notes.append(f"The page ends after {shown} of {len(places):,} passages, because their texts are long.")
    if sample is not None:
        page.notes.append(f"A random sample of {source.size:,} passages; another one: --seed {seed + 1}")
    elif shown < source.size:
        page.notes.append(f"Passages {start:,} to {first + shown:,} of {source.size:,}.")
        if first + shown < source.size:
            page.notes[-1] += f" The next ones: --start {first + shown + 1}."
        page.notes[-1] += f" A random sample of all: --sample {limit}"
    return page


def open_source(path: Path, config: str | None) -> Source:
    """Open a file or folder.

    Args:
        path: JSONL of annotated passages (also .gz), a `predictions.jsonl`, the folder of a dataset or of
            `open-ner annotate`, a folder `rejects`, or a Parquet file.
        config: config of a dataset's folder; default: `annotations`, or the first one.

    Raises:
        UserError: the path does not exist, or is none of these.
    """
    with _readable(path):
        if config and not path.is_dir():
            raise UserError(f"--config {config}: only the folder of a dataset has configs, not {path}")
        if path.is_dir() or path.suffix == ".parquet":
            from .parquet import open_dataset  # needs pyarrow

            return Source(str(path), *open_dataset(path, config))
        return _open_lines(path)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raise UserError if a file of this path is missing or damaged."""
    try:
        yield
    except (OSError, ValueError, EOFError, zlib.error) as error:  # ValueError: Parquet; the last two: .gz
        name, cause = getattr(error, "filename", None) or path, getattr(error, "strerror", None) or error
        raise UserError(f"{str(name)!r} cannot be read: {cause!s:.200}") from None


def _join_rejects(path: Path, config: str | None, page: Page) -> None:
    """Add the rejects of the same build, if they are beside the file or in the folder."""
    try:
        with _readable(path):
            from .parquet import join_rejects, rejects_beside

            if beside := rejects_beside(path, config):
                join_rejects(page.passages, *beside)
                note = f"Rejects are those of {beside[0]}; passages that lost all entities are listed only there."
                page.notes.append(note)
    except UserError as error:  # JSONL is shown without pyarrow too
        page.notes.append(f"Rejects are not shown. {error}")


def _open_lines(path: Path) -> Source:
    """Open JSONL: one passage per line, or predictions, with one line per query and adjacent lines per passage."""
    opener = gzip.open if path.suffix == ".gz" else open
    offsets, numbers = array("q"), array("q")  # byte offset and number of each passage's first line
    at, grouped, before = 0, False, None
    with opener(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                if not offsets:
                    grouped = is_prediction(parse(line, f"{path}: line {number}"))
                key = passage_of(parse(line, f"{path}: line {number}")) if grouped else number
                if key != before:
                    offsets.append(at)
                    numbers.append(number)
                before = key
            at += len(line)
    offsets.append(at)

    def read(places: Sequence[int]) -> Iterator[ShownPassage]:
        with opener(path, "rb") as file:
            for place in places:
                file.seek(offsets[place])
                block = file.read(offsets[place + 1] - offsets[place]).split(b"\n")
                where = f"{path}: line {numbers[place]}"
                rows = [parse(line, where) for line in block if line.strip()]
                yield from_predictions(rows, place + 1, where) if grouped else from_row(rows[0], place + 1, where)

    return Source(str(path), len(numbers), read, "error" if grouped else "reject")
