"""Merge the journals of shards into the journal of their run."""

import fcntl
import os
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from open_ner.tools.errors import UserError

from ..config import TeacherConfig
from ..corpus.cutting import Passage
from ..corpus.passages import StoredPassages
from ..shards import Shard, all_shards, name_shards
from .batch_files import has_batches
from .journal import FORMAT, Journal, read_line, write_line
from .journals import JOURNAL, find_journals, is_blank, remove_journals
from .stage import open_questions


def merge_journals(config: TeacherConfig, folder: Path, allow_incomplete: bool = False) -> str | None:
    """Move all replies of the shards' journals into `journal.jsonl`.

    The new file replaces the old one atomically, and then the journals of the shards are removed. A merge that was
    interrupted can be run again; no reply is lost or counted twice.

    Args:
        config: the teacher of the recipe, whose questions need replies.
        folder: the folder of the run, with its passages.
        allow_incomplete: merge what is there, although shards are missing or questions have no reply.

    Returns:
        What was done, in a line; None if there are no journals of shards.

    Raises:
        UserError: a shard is missing or incomplete, a file is not the journal of its shard, a batch is under way, or
            another process uses the journals.
    """
    if not find_journals(folder):
        return None
    with Journal(folder / JOURNAL) as whole:
        found = find_journals(folder)  # again, because no shard can start or end now
        due = {shard: path for shard, path in found.items() if not _is_merged(shard, path, whole)}
        if not allow_incomplete and not all(map(is_blank, due.values())):  # blank: of shards run again after a merge
            _require_all(due, folder)
        if under_way := [shard for shard, path in found.items() if has_batches(path)]:
            why = "have batches that may be under way, and their replies are paid: run them again, then merge"
            raise UserError(f"{folder}: shards {name_shards(under_way)} {why}")
        before = len(whole)
        if due:
            partial = whole.path.with_name(f"{JOURNAL}.partial")
            with partial.open("wb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # so that no shard starts before the old journals are removed
                with whole.path.open("rb") as lines:
                    shutil.copyfileobj(lines, file, 2**20)
                for shard, path in tqdm(due.items(), desc="journals", unit=" shards", disable=None):
                    _append(shard, path, whole, file)
                file.flush()
                os.fsync(file.fileno())
                if not allow_incomplete:
                    _require_replies(config, StoredPassages(folder), whole, next(iter(due)).count)
                partial.replace(whole.path)
                remove_journals(found.values())
            return f"journals of {len(due)} shards -> {folder / JOURNAL}, {len(whole) - before} replies more"
        remove_journals(found.values())
    return f"the journals of {len(found)} shards were merged already"


def _is_merged(shard: Shard, path: Path, whole: Journal) -> bool:
    """Whether an interrupted merge has copied a journal. Raises UserError if the file is not the shard's journal."""
    with path.open("rb") as lines:
        line = lines.readline()
    header = read_line(line) or {}
    if line.endswith(b"\n") and (header.get("journal"), header.get("shard")) != (FORMAT, str(shard)):
        raise UserError(f"{path} is not the journal of shard {shard}: restore the file that --shard {shard} wrote")
    return header.get("run") in whole.merged


def _require_all(due: dict[Shard, Path], folder: Path) -> None:
    counts = sorted({shard.count for shard in due})
    if len(counts) > 1:
        several = " and ".join(map(str, counts))
        raise UserError(f"{folder} has journals of {several} shards: give --allow_incomplete to merge all of them")
    if missing := [shard for shard in all_shards(counts[0]) if shard not in due]:
        how = f"run --stage annotate --shard {missing[0]} and so on, or give --allow_incomplete to merge the others"
        raise UserError(f"{folder}: shards {name_shards(missing)} have no journal: {how}")


def _append(shard: Shard, path: Path, whole: Journal, file: BinaryIO) -> None:
    """Copy the lines of a shard's journal, and note that it is merged and what was billed without a reply."""
    with Journal(path, str(shard)) as journal:  # opening repairs a torn last line
        with path.open("rb") as lines:
            next(lines)
            for line in lines:
                record = read_line(line) or {}
                if "unread" not in record and "in_flight" not in record:  # summed up below
                    file.write(line)
                if "key" in record:
                    whole.add_key(record["key"])
        note = {"journal": FORMAT, "merged": journal.run, "shard": str(shard)}
        file.write(write_line(note | {"unread": journal.unread + journal.in_flight}))


def _require_replies(config: TeacherConfig, passages: Iterable[Passage], whole: Journal, count: int) -> None:
    missing: Counter[Shard] = Counter()
    shards = all_shards(count)
    asked = tqdm(passages, desc="questions without a reply", unit=" passages", disable=None)
    for question in open_questions(asked, whole, config) if config.model else ():
        missing[next(shard for shard in shards if shard.has(question.passage_id))] += 1
    if missing:
        named = name_shards(sorted(missing, key=lambda shard: shard.index))
        how = "run them again, with a higher --max_cost if it was reached, or give --allow_incomplete"
        raise UserError(f"{missing.total()} questions of the shards {named} have no reply: {how}")
