"""Documents become passages, which are filtered, sampled and stored."""

import json
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from command_line.build_statistics import CorpusCounts
from command_line.public import public_path
from open_ner.tools.errors import UserError
from open_ner.tools.files import read_jsonl, write_json

from ..config import CorpusConfig
from ..rejects import Reject
from .cutting import Passage, PassageCutter, load_tokenizer
from .filters import Filter, Screen, make_filter, make_is_new
from .sampling import draw
from .sources import choose_files, fingerprint, read_documents, sources_of, text_sha256

HELD = 1_000  # rejected documents are truncated to this many characters while a sample is drawn


@dataclass
class ReadCounts:
    """Number of documents by index of the source, of passages before filtering, and of passages not drawn."""

    documents: Counter[int] = field(default_factory=Counter)
    candidates: int = 0
    not_sampled: int | None = None


def _read(config: CorpusConfig, counts: ReadCounts) -> Iterator[tuple[int, Passage | Reject]]:
    """Yield all passages of the corpus, unfiltered, with the number of their source, and update the counts."""
    cutter = PassageCutter(load_tokenizer(config.tokenizer), config.max_tokens)
    for number, source in enumerate(sources_of(config)):
        for _, item in read_documents(source, config):
            counts.documents[number] += 1
            if isinstance(item, Reject):
                yield number, item
                continue
            pieces = list(cutter.cut(item.text))
            for start, end, tokens in pieces:
                counts.candidates += 1
                name = item.id if len(pieces) == 1 else f"{item.id}:{start}"
                text = item.text[start:end]
                yield number, Passage(name, text, item.source, item.id, item.license, start, end, tokens)


def make_passages(
    config: CorpusConfig, counts: ReadCounts | None = None, screen: Screen | None = None
) -> Iterator[Passage | Reject]:
    """Make the passages of a corpus.

    Args:
        config: the options of the corpus.
        counts: is updated; passages that were not drawn into the sample are only counted.
        screen: an additional filter.

    Yields:
        Passages and rejects, in the order of the corpus or in the random order of the sample. A passage is rejected
        for the first of these reasons: `word_too_long`, `too_short`, `binary`, `markup`, `other_language`, those of
        the screen, `duplicate`, `near_duplicate`. The reasons of documents are those of `read_documents`.
    """
    counts = counts or ReadCounts()
    why_reject = make_filter(config, screen)
    ids: set[str] = set()
    for item in (_sampled if config.sample else _in_order)(config, counts, why_reject):
        if isinstance(item, Passage):
            if item.id in ids:  # make an id unique that the corpus repeats, because replies are stored by id
                item.id = f"{item.id}~{text_sha256(item.text)[:8]}"
            ids.add(item.id)
        yield item


def _in_order(config: CorpusConfig, counts: ReadCounts, why_reject: Filter) -> Iterator[Passage | Reject]:
    """Filter all passages, in the order of the corpus."""
    is_new, seen, kept = make_is_new(config.near_duplicates), set[str](), 0
    for _, item in _read(config, counts):
        if isinstance(item, Reject):
            yield item
            continue
        reason = why_reject(item.text, item.tokens)
        digest = text_sha256(item.text)[:32]
        if reason is None and digest in seen:
            reason = "duplicate"
        elif reason is None:
            seen.add(digest)
            reason = None if is_new(item.text) else "near_duplicate"
        yield Reject(item.id, reason, item.text) if reason else item
        kept += reason is None
        if kept == config.limit:
            return


def _sampled(config: CorpusConfig, counts: ReadCounts, why_reject: Filter) -> Iterator[Passage | Reject]:
    """Yield the drawn passages, kept or rejected (see sampling.py), then the rejected documents."""
    weights = [source.weight or 0.0 for source in sources_of(config)]  # set for all sources or for none
    size, total = config.sample or 0, sum(weights)
    rejects: list[Reject] = []

    def read() -> Iterator[tuple[int, Passage]]:
        counts.documents.clear()  # `draw` may call this function several times
        counts.candidates = 0
        rejects.clear()
        for number, item in _read(config, counts):
            if isinstance(item, Passage):
                yield (number if total else 0), item  # one quota per source, or one for all
                continue
            if len(item.text) > HELD:
                shown = f"{item.text[:HELD]} ... [the first of {len(item.text):,} characters]"
                item = replace(item, text=shown)
            rejects.append(item)

    shares = [size * weight / total for weight in weights] if total else [size]
    quotas = [int(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda number: quotas[number] - shares[number])
    for number in by_remainder[: size - sum(quotas)]:  # the quotas must sum up to the sample
        quotas[number] += 1
    drawn = 0
    for passage, reason in draw(read, quotas, config.seed, why_reject, lambda: make_is_new(config.near_duplicates)):
        drawn += 1
        yield Reject(passage.id, reason, passage.text) if reason else passage
    counts.not_sampled = counts.candidates - drawn
    yield from rejects


def write_passages(config: CorpusConfig, folder: Path, screen: Screen | None = None) -> CorpusCounts:
    """Write `passages.jsonl` and `rejected_passages.jsonl`, or reuse those of the same corpus and options.

    Returns:
        The counts of the stage, which are also written to `passages.report.json`.

    Raises:
        UserError: the corpus cannot be read, or no passage is left.
    """
    options = asdict(config) | ({"screen": screen.name} if screen else {})
    config = deepcopy(config)  # because `fingerprint` sets revisions
    sources = sources_of(config)
    state = [fingerprint(source) for source in sources]
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / "passages.report.json"
    before = None
    with suppress(FileNotFoundError, ValueError):  # the report is missing, or incomplete
        before = json.loads(report.read_text(encoding="utf-8"))
    if before and (folder / "passages.jsonl").exists() and not _is_outdated(folder):
        then = before["origin"].get("state", [])
        same = before["origin"]["options"] == options and len(then) == len(state)
        if same and all(now in (None, old) for now, old in zip(state, then, strict=True)):
            if None in state:
                print("passages: reused, but the Hub could not be reached to check whether the corpus has changed")
            return before["counts"]
    read = ReadCounts()
    origins, licenses, reasons = Counter(), Counter(), Counter()
    names = [folder / "passages.jsonl", folder / "rejected_passages.jsonl"]
    partials = [path.with_name(f"{path.name}.partial") for path in names]
    with partials[0].open("w", encoding="utf-8") as good, partials[1].open("w", encoding="utf-8") as bad:
        for item in tqdm(make_passages(config, read, screen), desc="passages", unit=" passages"):
            if isinstance(item, Passage):
                origins[item.source] += 1
                licenses[item.license] += 1
                print(json.dumps(vars(item)), file=good)
            else:
                reasons[item.reason] += 1
                print(json.dumps({"id": item.id, "reason": item.reason, "text": item.text}), file=bad)
    for source in sources:
        if unread := choose_files(source)[2]:
            shown = ", ".join(file.name for file in unread[:5]) + (", ..." if len(unread) > 5 else "")
            print(f"passages: {len(unread)} files of {source.path}, of another type or split, are not read: {shown}")
    if not origins:
        what = f"rejected: {dict(reasons)}" if reasons else "it has no rows"
        raise UserError(f"{config.path or 'corpus.sources'}: no passage left of this corpus; {what}")
    titles = [":".join(filter(None, (public_path(source.path or ""), source.name))) for source in sources]
    documents: Counter[str] = Counter()
    for number, n in read.documents.items():
        documents[titles[number]] += n
    counts: CorpusCounts = {
        "kept": origins.total(), "rejected": dict(reasons), "sources": dict(origins.most_common()),
        "licenses": dict(licenses.most_common()), "documents": dict(documents), "candidates": read.candidates,
        "revisions": {title: s.revision for title, s in zip(titles, sources, strict=True) if s.revision},
    }  # fmt: skip
    if read.not_sampled is not None:
        counts["not_sampled"] = read.not_sampled
    if config.sample and counts["kept"] < config.sample:
        print(f"passages: the corpus has {counts['kept']} of the {config.sample} passages of corpus.sample")
    for path in (report, names[1]):  # removed first, so that an interruption here is detected
        path.unlink(missing_ok=True)
    for partial, path in zip(partials, names, strict=True):
        partial.replace(path)
    write_json(report, {"origin": {"options": options, "state": state}, "counts": counts})
    return counts


def _read_rows(path: Path) -> Iterator[Any]:
    try:
        yield from read_jsonl(path)
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): delete it and run --stage passages again") from None


def _is_outdated(folder: Path) -> bool:
    """Whether the passages are incomplete or of an older version: other fields, or no file of rejects."""
    try:
        first = next(read_jsonl(folder / "passages.jsonl"), {})
    except ValueError:
        return True
    return set(first) != {one.name for one in fields(Passage)} or not (folder / "rejected_passages.jsonl").exists()


class StoredPassages(Collection[Passage]):
    """The passages written by `write_passages`, in their order; each iteration reads the file again."""

    def __init__(self, folder: Path) -> None:
        self.path, self.rejects_path = folder / "passages.jsonl", folder / "rejected_passages.jsonl"
        if not self.path.exists():
            raise UserError(f"{self.path} does not exist: run --stage passages first")
        if _is_outdated(folder):
            why = "is incomplete or was written by an older version"
            raise UserError(f"{self.path} {why}: run --stage passages again; paid replies stay valid")

    def __len__(self) -> int:
        with self.path.open("rb") as lines:
            return sum(1 for _ in lines)

    def __iter__(self) -> Iterator[Passage]:
        return (Passage(**row) for row in _read_rows(self.path))

    def __contains__(self, passage: object) -> bool:
        return any(passage == stored for stored in self)

    def rejects(self) -> Iterator[Reject]:
        """Yield the rejects of the stage `passages`."""
        return (Reject(**row) for row in _read_rows(self.rejects_path))


def load_passages(folder: Path) -> StoredPassages:
    """Return the passages of a run's folder. Raises UserError if the stage `passages` must run first."""
    return StoredPassages(folder)
