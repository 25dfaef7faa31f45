"""The journals of a run: `journal.jsonl`, and, until a merge, those of the shards of the stage `annotate` beside it.

A shard pays for no reply that `journal.jsonl` has. All shards lock that file for reading and a merge locks it for
writing, so that shards never run during a merge. Journals of another number of shards must be merged first.
"""

import re
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from open_ner.tools.errors import UserError

from ..config import TeacherConfig
from ..corpus.cutting import Passage
from ..shards import Shard
from .batch_files import folder_of, has_batches
from .journal import Journal

JOURNAL = "journal.jsonl"
NAME = re.compile(r"journal-(\d+)-of-(\d+)\.jsonl")
MERGE = "run `python -m dataset_builder.merge` with this recipe first"


class PassagesOf(Collection[Passage]):
    """The passages of a shard, by the hash of their ids; each iteration reads them again."""

    def __init__(self, passages: Collection[Passage], shard: Shard) -> None:
        self.passages, self.shard = passages, shard

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[Passage]:
        return (passage for passage in self.passages if self.shard.has(passage.id))

    def __contains__(self, passage: object) -> bool:
        return any(passage == own for own in self)


def find_journals(folder: Path) -> dict[Shard, Path]:
    """Return the journals of shards in the folder of a run, in the order of the shards."""
    names = {NAME.fullmatch(path.name): path for path in folder.glob("journal-*.jsonl")}
    found = {Shard(int(name[1]), int(name[2])): path for name, path in names.items() if name}
    return dict(sorted(found.items(), key=lambda item: (item[0].count, item[0].index)))


def is_blank(path: Path) -> bool:
    """Whether a journal has only its first line, for example because its shard found all replies elsewhere."""
    with path.open("rb") as lines:
        return not (lines.readline() and lines.readline())


def remove_journals(journals: Iterable[Path]) -> None:
    """Remove journals of shards, with the folders of their batches."""
    for path in journals:
        path.unlink()
        shutil.rmtree(folder_of(path), ignore_errors=True)


def require_merged(folder: Path) -> None:
    """Raise UserError if a run has journals of shards with replies that `journal.jsonl` lacks."""
    if found := [path for path in find_journals(folder).values() if not is_blank(path)]:
        raise UserError(f"{found[0]} is the journal of a shard that is not merged ({len(found)} in all): {MERGE}")


@contextmanager
def open_journal(folder: Path, shard: Shard | None = None) -> Iterator[Journal]:
    """Open the journal of a run or of a shard; a shard's journal also finds the replies of the run's journal.

    Raises UserError if another process uses it, or if replies may be elsewhere: in journals of shards, of another
    number of shards, or in a batch that is under way.
    """
    if shard is None:
        with Journal(folder / JOURNAL) as journal:
            require_merged(folder)
            yield journal
        return
    with Journal(folder / JOURNAL, reading=True) as whole:
        if has_batches(whole.path):
            why = "a batch of the run without shards may be under way, and its replies are paid"
            raise UserError(f"{folder}: {why}: run the command once without --shard")
        path = folder / f"journal-{shard.suffix}.jsonl"
        with Journal(path, str(shard), whole) as journal:
            if others := [path for other, path in find_journals(folder).items() if other.count != shard.count]:
                if is_blank(path):  # otherwise this one would have to be merged too
                    path.unlink()
                raise UserError(f"{others[0]} is of another number of shards than --shard {shard}: {MERGE}")
            if journal.run not in whole.merged:
                yield journal
                return
            if has_batches(path):
                why = "a batch of a shard that is merged may be under way, and its replies are paid"
                raise UserError(f"{folder_of(path)}: {why}: delete its part-*.jsonl to give them up")
            remove_journals([path])  # a merge that was interrupted has copied it, and the next one would remove it
        with Journal(path, str(shard), whole) as journal:
            yield journal


def share_cost(config: TeacherConfig, journal: Journal, shard: Shard) -> TeacherConfig:
    """Return the options of a shard, whose `max_cost` is its part of what the run's journal leaves of `max_cost`."""
    if config.max_cost is None or journal.whole is None:
        return config
    whole = journal.whole
    left = max(0.0, config.max_cost - whole.spent.cost - whole.unread - whole.in_flight)
    return replace(config, max_cost=left / shard.count)
