"""Merge shards: keep or reject their passages in one order, and write the passages and rejects of the stage."""

import heapq
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from command_line.build_statistics import CorpusCounts
from command_line.public import public_path
from open_ner.tools.errors import UserError
from open_ner.tools.files import read_json, write_json

from ..config import CorpusConfig
from .cutting import Passage
from .filters import make_is_new
from .passages import PASSAGES, REJECTED, REPORT, is_outdated
from .sampling import Candidate, decide, quotas_of
from .shard_files import CANDIDATES, DOCUMENTS, Origin, ShardReport, order, read_candidates
from .source_files import choose_files
from .sources import sources_of, text_sha256


def load_counts(folder: Path, origin: Origin) -> CorpusCounts | None:
    """Return the counts of the stored passages, or None if no passages of the same origin are stored."""
    with suppress(FileNotFoundError, ValueError):  # the report is missing, or incomplete
        report = read_json(folder / REPORT)
        stored = Origin(report["origin"]["options"], report["origin"].get("state", []), [])
        if stored.fits(origin.options, origin.state) and (folder / PASSAGES).exists() and not is_outdated(folder):
            if None in origin.state:
                print("passages: reused, but the Hub could not be reached to check whether the corpus has changed")
            return report["counts"]
    return None


def changed_option(config: CorpusConfig, folder: Path) -> str | None:
    """Return the first option of the corpus that has changed since the stored passages were made; None if unknown."""
    with suppress(OSError, ValueError, KeyError):  # the report is missing, incomplete, or of an older version
        made = read_json(folder / REPORT)["origin"]["options"]
        # the report leaves out `num_proc`, which does not change the passages
        return next((name for name, value in asdict(config).items() if made.get(name, value) != value), None)
    return None


@dataclass
class Decided:
    """Counts of a merge: passages kept by source and by license, rejects by reason, documents by source."""

    sources: Counter[str] = field(default_factory=Counter)
    licenses: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    documents: Counter[int] = field(default_factory=Counter)
    candidates: int = 0


def merge_shards(
    config: CorpusConfig, origin: Origin, shards: list[Path], reports: list[ShardReport], folder: Path
) -> CorpusCounts:
    """Keep or reject the passages of all shards, write both to a folder, and return the counts.

    A passage is rejected for the first of these reasons: `word_too_long`, `too_short`, `binary`, `markup`,
    `other_language`, those of the screen, `duplicate`, `near_duplicate`. The reasons of documents are those of
    `read_documents`.

    Args:
        config: the options of the corpus.
        origin: what the shards were made from.
        shards: the folders of all shards.
        reports: their reports.
        folder: the folder of the run.

    Raises:
        TooFewHeldError: the shards must be written again with more passages.
        UserError: no passage is left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = [folder / PASSAGES, folder / REJECTED]
    partials = [path.with_name(f"{path.name}.partial") for path in names]
    try:
        with partials[0].open("w", encoding="utf-8") as good, partials[1].open("w", encoding="utf-8") as bad:
            decided = _write(_decide(config, shards, reports), good, bad)
        _print_unread_files(config)
        if not decided.sources:
            what = f"rejected: {dict(decided.rejected)}" if decided.rejected else "it has no rows"
            raise UserError(f"{config.path or 'corpus.sources'}: no passage of this corpus is left; {what}")
        counts = _count(config, origin, reports, decided)
        if config.sample and (kept := decided.sources.total()) < config.sample:
            print(f"passages: the corpus has {kept} of the {config.sample} passages of corpus.sample")
        for path in (folder / REPORT, names[1]):  # removed first, so that an interruption here is detected
            path.unlink(missing_ok=True)
        for partial, path in zip(partials, names, strict=True):
            partial.replace(path)
    finally:
        for partial in partials:
            partial.unlink(missing_ok=True)
    write_json(folder / REPORT, {"origin": {"options": origin.options, "state": origin.state}, "counts": counts})
    return counts


def _decide(config: CorpusConfig, shards: list[Path], reports: list[ShardReport]) -> Iterator[Candidate]:
    """Yield kept and rejected passages in order; rejected documents are in the same order, or last in a sample."""
    groups = zip(*(report.horizons for report in reports), strict=True)
    horizons = [min(filter(None, group), default=None) for group in groups]
    candidates = heapq.merge(*(read_candidates(shard / CANDIDATES) for shard in shards), key=order)
    is_new = make_is_new(config.near_duplicates)
    yield from decide(candidates, quotas_of(config), horizons, bool(config.sample), is_new)
    yield from heapq.merge(*(read_candidates(shard / DOCUMENTS) for shard in shards), key=order)


def _write(candidates: Iterator[Candidate], good: TextIO, bad: TextIO) -> Decided:
    """Write the passages to one file and the rejects to another."""
    decided, last, ids = Decided(), None, set[str]()
    for at, item, reason in tqdm(candidates, desc="merging", unit=" passages"):
        if isinstance(item, Passage) and reason is None:
            if item.id in ids:  # make a repeated id unique, because replies are stored by id
                item.id = f"{item.id}~{text_sha256(item.text)[:8]}"
            ids.add(item.id)
            decided.sources[item.source] += 1
            decided.licenses[item.license] += 1
            print(json.dumps(vars(item)), file=good)
        else:
            decided.rejected[reason or ""] += 1
            print(json.dumps({"id": item.id, "reason": reason, "text": item.text}), file=bad)
        decided.candidates += isinstance(item, Passage)
        decided.documents[at[0]] += at[:3] != last  # source, file and row of the document, unless this is a sample
        last = at[:3]
    return decided


def _count(config: CorpusConfig, origin: Origin, reports: list[ShardReport], decided: Decided) -> CorpusCounts:
    """Return the counts of the stage."""
    candidates, documents = decided.candidates, decided.documents
    if not config.limit:  # with a limit, shards read past the last kept passage
        candidates = sum(report.candidates for report in reports)
        documents = sum((Counter(dict(enumerate(report.documents))) for report in reports), Counter[int]())
    sources = sources_of(config)
    titles = [":".join(filter(None, (public_path(source.path or ""), source.name))) for source in sources]
    by_title: Counter[str] = Counter()
    for number, n in documents.items():
        by_title[titles[number]] += n
    counts: CorpusCounts = {
        "kept": decided.sources.total(), "rejected": dict(decided.rejected),
        "sources": dict(decided.sources.most_common()), "licenses": dict(decided.licenses.most_common()),
        "documents": dict(by_title), "candidates": candidates,
        "revisions": {title: commit for title, commit in zip(titles, origin.revisions, strict=True) if commit},
    }  # fmt: skip
    if config.sample:
        counts["not_sampled"] = candidates - decided.candidates
    return counts


def _print_unread_files(config: CorpusConfig) -> None:
    for source in sources_of(config):
        if unread := choose_files(source)[2]:
            shown = ", ".join(file.name for file in unread[:5]) + (", ..." if len(unread) > 5 else "")
            print(f"passages: {len(unread)} files of {source.path}, of another type or split, are not read: {shown}")
