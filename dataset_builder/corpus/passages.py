"""Documents of any `datasets` source become passages of at most so many tokens, with offsets into their document."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from open_ner.tools.errors import UserError

from ..config import CorpusConfig
from .cutting import WindowCutter, load_tokenizer
from .filters import NearDuplicates, Screen, make_filter
from .sampling import draw
from .sources import Document, Dropped, fingerprint, read_documents, sources_of, text_sha256

__all__ = ["Dropped", "Passage", "load_passages", "load_tokenizer", "make_passages", "text_sha256", "write_passages"]

BATCH = 500_000  # characters of documents cut together
MARKED = 1_000  # characters that a sample's rejects hold of a document that gave no passage


@dataclass
class Passage:
    """`text == document[start:end]`; `tokens` counts the corpus's tokenizer."""

    id: str
    text: str
    source: str
    source_id: str
    license: str
    start: int
    end: int
    tokens: int


Filter = Callable[[str, int], str | None]
Verdict = tuple[Passage | Dropped, str | None]


def read_passages(config: CorpusConfig, read: Counter[int]) -> Iterator[tuple[int, Passage | Dropped]]:
    """(number of the source, passage) of the whole corpus, unfiltered; `read` counts the documents of each source."""
    cutter = WindowCutter(load_tokenizer(config.tokenizer), config.max_tokens)
    for number, source in enumerate(sources_of(config)):
        batch, characters = [], 0
        for item in read_documents(source, config):
            read[number] += 1
            batch.append(item)
            characters += len(item.text)
            if characters >= BATCH:
                yield from ((number, passage) for passage in _cut(batch, cutter))
                batch, characters = [], 0
        yield from ((number, passage) for passage in _cut(batch, cutter))


def _cut(batch: list[Document | Dropped], cutter: WindowCutter) -> Iterator[Passage | Dropped]:
    documents = [item for item in batch if isinstance(item, Document)]
    windows = iter(cutter.cut([document.text for document in documents]))
    for item in batch:
        if isinstance(item, Dropped):
            yield item
            continue
        found = next(windows)
        for start, end, tokens in found:
            name = item.id if len(found) == 1 else f"{item.id}:{start}"
            yield Passage(name, item.text[start:end], item.source, item.id, item.license, start, end, tokens)


def make_passages(
    config: CorpusConfig, tally: dict[str, Any] | None = None, screen: Screen | None = None
) -> Iterator[Passage | Dropped]:
    """The corpus's passages, and what was dropped and why: in the corpus's order, or the sample's random one.

    A passage is dropped for the first of these: `word_too_long`, `too_short`, `binary`, `markup`, `other_language`,
    what the screen says, `duplicate`, `near_duplicate`; a line or document for `broken_line`, `no_text`, `empty`,
    `not_unicode`. `tally` receives `documents`, `candidates` and `not_sampled` (passages after the last one drawn, of
    which nothing is said).
    """
    tally = {} if tally is None else tally
    why_not = make_filter(config, screen)
    decided = _sampled(config, tally, why_not) if config.sample else _in_order(config, tally, why_not)
    ids: set[str] = set()
    for item, reason in decided:
        if isinstance(item, Dropped):
            yield item
        elif reason:
            yield Dropped(item.id, reason, item.text)
        else:
            if item.id in ids:  # the corpus gives an id twice: answers are kept by id, so make it one of its own
                item.id = f"{item.id}~{text_sha256(item.text)[:8]}"
            ids.add(item.id)
            yield item


def _in_order(config: CorpusConfig, tally: dict[str, Any], why_not: Filter) -> Iterator[Verdict]:
    """Every passage with its verdict; holds 5 KiB a kept passage for `near_duplicates`, a hash without."""
    near = _make_near(config)
    seen: set[str] = set()
    kept, tally["documents"], tally["candidates"] = 0, Counter(), 0
    for _, item in read_passages(config, tally["documents"]):
        if isinstance(item, Dropped):
            yield item, item.reason
            continue
        tally["candidates"] += 1
        reason = why_not(item.text, item.tokens)
        digest = text_sha256(item.text)[:32]
        if reason is None and digest in seen:
            reason = "duplicate"
        elif reason is None:
            seen.add(digest)
            reason = None if near.add(item.text) else "near_duplicate"
        yield item, reason
        kept += reason is None
        if kept == config.limit:
            return


def _sampled(config: CorpusConfig, tally: dict[str, Any], why_not: Filter) -> Iterator[Verdict]:
    """The sample (see sampling.py), then the documents that gave no passage."""
    weights = [source.weight for source in sources_of(config)]
    shares = [weight / sum(weights) for weight in weights] if weights[0] else [1.0]
    dropped: list[Dropped] = []

    def read() -> Iterator[tuple[int, Passage]]:
        tally["documents"], tally["candidates"] = Counter(), 0
        dropped.clear()
        for number, item in read_passages(config, tally["documents"]):
            if isinstance(item, Dropped):
                if len(item.text) > MARKED:  # they are held until the end
                    item.text = f"{item.text[:MARKED]} ... [the first of {len(item.text):,} characters]"
                dropped.append(item)
            else:
                tally["candidates"] += 1
                yield (number if weights[0] else 0), item

    quotas = [round(config.sample * share) for share in shares]
    decided = 0
    for passage, reason in draw(read, quotas, config.seed, why_not, lambda: _make_near(config)):
        decided += 1
        yield passage, reason
    tally["not_sampled"] = tally["candidates"] - decided
    yield from ((item, item.reason) for item in dropped)


class _KeepAll:
    def add(self, text: str) -> bool:
        return True


def _make_near(config: CorpusConfig) -> NearDuplicates | _KeepAll:
    return _KeepAll() if config.near_duplicates is None else NearDuplicates(config.near_duplicates)


def write_passages(config: CorpusConfig, folder: Path, screen: Screen | None = None) -> dict[str, Any]:
    """Write `passages.jsonl` and `dropped_passages.jsonl`; returns counts.

    `kept`; `dropped` by reason; `documents` read, by source; `candidates`, all passages of the corpus; `not_sampled`;
    `sources` and `licenses` of the kept ones; `revisions`, the Hub's commits. Passages already written from the same
    corpus with the same options are left as they are; a run that was interrupted starts anew.
    """
    options = asdict(config) | ({"screen": screen.name} if screen else {})
    config = deepcopy(config)
    sources = sources_of(config)
    state = [fingerprint(source) for source in sources]
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / "passages.report.json"
    if report.exists() and (folder / "passages.jsonl").exists():
        before = json.loads(report.read_text(encoding="utf-8"))
        then = before["origin"].get("state", [])
        same = before["origin"]["options"] == options and len(then) == len(state)
        if same and all(now in (None, old) for now, old in zip(state, then, strict=True)):
            if None in state:
                print("passages: kept as they are; the corpus could not be reached to see whether it has changed")
            return before["counts"]
    tally: dict[str, Any] = {}
    partial = folder / "passages.jsonl.partial"
    with partial.open("w", encoding="utf-8") as good, (folder / "dropped_passages.jsonl").open("w") as bad:
        counts = _write(tqdm(make_passages(config, tally, screen), desc="passages", unit=" passages"), good, bad)
    if not counts["kept"]:
        what = counts["dropped"] or "it has no rows"
        raise UserError(f"{config.path or 'corpus.sources'}: no passage left of this corpus; dropped: {what}")
    names = [":".join(filter(None, (public_name(source.path), source.name))) for source in sources]
    documents: Counter[str] = Counter()
    for number, n in tally["documents"].items():
        documents[names[number]] += n
    counts["documents"] = dict(documents)
    counts |= {name: tally[name] for name in ("candidates", "not_sampled") if name in tally}
    counts["revisions"] = {name: s.revision for name, s in zip(names, sources, strict=True) if s.revision}
    if config.sample and counts["kept"] < config.sample:
        print(f"passages: the corpus gave {counts['kept']} of the {config.sample} that corpus.sample asks for")
    partial.replace(folder / "passages.jsonl")
    report.write_text(json.dumps({"origin": {"options": options, "state": state}, "counts": counts}, indent=1))
    return counts


def public_name(path: str) -> str:
    """A Hub id or relative path as it is; of a path on this machine, which the card must not show, the name."""
    return Path(path).name if Path(path).is_absolute() else path


def _write(items: Iterator[Passage | Dropped], good: TextIO, bad: TextIO) -> dict[str, Any]:
    """Write each item to its file, one JSON object a line; returns what was kept and dropped."""
    reasons, sources, licenses = Counter(), Counter(), Counter()
    for item in items:
        if isinstance(item, Passage):
            sources[item.source] += 1
            licenses[item.license] += 1
        else:
            reasons[item.reason] += 1
        print(json.dumps(asdict(item)), file=good if isinstance(item, Passage) else bad)
    return {
        "kept": sources.total(),
        "dropped": dict(reasons),
        "sources": dict(sources.most_common()),
        "licenses": dict(licenses.most_common()),
    }


class StoredPassages:
    """Passages written by `write_passages`, in order; may be read again and again, and is never held in memory."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "passages.jsonl"
        self.dropped_path = folder / "dropped_passages.jsonl"
        if not self.path.exists():
            raise UserError(f"{self.path}: not there yet; run --stage passages first")

    def __len__(self) -> int:
        return self._count

    @cached_property
    def _count(self) -> int:
        with self.path.open("rb") as lines:
            return sum(1 for _ in lines)

    def __iter__(self) -> Iterator[Passage]:
        with self.path.open(encoding="utf-8") as lines:
            for line in lines:
                yield Passage(**json.loads(line))

    def dropped(self) -> Iterator[Dropped]:
        """What the passages stage left out, with its reason."""
        with self.dropped_path.open(encoding="utf-8") as lines:
            for line in lines:
                yield Dropped(**json.loads(line))


def load_passages(folder: Path) -> StoredPassages:
    """The passages of a run's folder; UserError where that stage has not run yet."""
    return StoredPassages(folder)
