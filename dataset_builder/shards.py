"""Shards: parts of a stage that a workflow engine runs as separate processes, on one machine or on many.

The division depends only on the shard's number and on the keys or files, so a shard that is run again reads the same
part.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TypeVar

T = TypeVar("T")
SHOWN = 8  # maximum number of shards named in a message


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count` equal parts; `index` is 1 for the first part."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def suffix(self) -> str:
        """The shard's name inside file names, such as `2-of-4`."""
        return f"{self.index}-of-{self.count}"

    def has(self, key: str) -> bool:
        """Whether the shard contains the passage or other item with this key, decided by the hash of the key."""
        place = int.from_bytes(blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest())
        return place % self.count == self.index - 1

    def takes(self, number: int) -> bool:
        """Whether the shard has the row with this number; rows are assigned to the shards in turn."""
        return number % self.count == self.index - 1

    def choose(self, items: Sequence[T]) -> Sequence[T]:
        """Return the shard's part of a list; the parts of all shards, in order, make up the list."""
        return items[len(items) * (self.index - 1) // self.count : len(items) * self.index // self.count]

    def divide(self, files: int) -> tuple["Shard", "Shard"]:
        """Return the shard's part of a source's files, and its part of the rows of these files.

        If there are fewer files than shards, several shards read the same file, and each takes a part of its rows.
        """
        parts = min(files, self.count)
        part = parts * (self.index - 1) // self.count
        first, end = (-(-number * self.count // parts) for number in (part, part + 1))  # the shards of this part
        return Shard(part + 1, parts), Shard(self.index - first, end - first)


WHOLE = Shard(1, 1)


def all_shards(count: int) -> list[Shard]:
    """Return all `count` shards, in order."""
    return [Shard(index, count) for index in range(1, count + 1)]


def name_shards(shards: Sequence[Shard]) -> str:
    """Return the names of shards for a message; if there are many, only the first ones."""
    return ", ".join(map(str, shards[:SHOWN])) + (f" and {len(shards) - SHOWN} others" if len(shards) > SHOWN else "")
