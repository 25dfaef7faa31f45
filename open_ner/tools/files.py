"""Read and write JSON and JSON lines; files are written atomically."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..conversation import LONE_SURROGATE


def write_atomic(path: Path, text: str | Iterable[str]) -> None:
    """Write a UTF-8 file under a temporary name, then rename it, so that no reader sees half a file."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.writelines([text] if isinstance(text, str) else text)
    partial.replace(path)


def read_json(path: Path) -> Any:
    """Read a JSON file in UTF-8. Raises OSError or ValueError if it cannot be read."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, data: Any) -> None:
    """Write a value as indented JSON, atomically."""
    write_atomic(path, json.dumps(data, indent=1, ensure_ascii=False))


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write each row as one JSON line, atomically; a lone surrogate becomes its JSON escape."""
    write_atomic(path, (json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def replace_surrogates(text: str) -> str:
    """Join surrogate pairs to the characters they stand for, and replace lone surrogates by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if LONE_SURROGATE.search(text) else text


def read_jsonl(path: Path) -> Iterator[Any]:
    r"""Yield the value of each line; only `\n` ends a line. Raises ValueError for a line that is not JSON."""
    with path.open("rb") as lines:
        yield from (json.loads(line) for line in lines if line.strip())
