"""A shard of the stage `passages` on disk: the candidates from which a merge chooses the passages."""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from open_ner.tools.errors import UserError
from open_ner.tools.files import read_json, write_json

from ..config import CorpusConfig
from ..rejects import Reject
from ..shards import Shard
from .cutting import Passage, PassageCutter, load_tokenizer
from .filters import Screen, make_filter
from .sampling import Candidate, Place, Reservoir, quotas_of
from .sources import read_documents, sources_of

SPARE = 2  # filtered texts to hold per passage to keep; if too many are near duplicates, the corpus is read again
BLOCK = 2**16  # bytes that a merge reads from a shard at once
CANDIDATES, DOCUMENTS, SHARD_REPORT = "candidates.jsonl", "rejected_documents.jsonl", "shard.json"


@dataclass
class Origin:
    """What passages were made from.

    Attributes:
        options: the options of the corpus that decide the passages.
        state: what `pin` returns for each source.
        revisions: the commit of each source on the Hub.
    """

    options: dict[str, Any]
    state: list[str | None]
    revisions: list[str | None]

    def fits(self, options: Any, state: list[str | None]) -> bool:
        """Whether the options are the same and no source has changed, as far as that is known now."""
        same = self.options == options and len(self.state) == len(state)
        return same and all(now in (None, then) for now, then in zip(state, self.state, strict=True))


@dataclass
class ShardReport:
    """What a shard has read and holds; written after its other files.

    Attributes:
        origin: what the shard was made from.
        spare: texts held per passage to keep.
        documents: number of documents by source.
        candidates: number of passages before filtering.
        horizons: for each group, the place from which candidates are missing; None if all are held.
        sizes: bytes of the files.
    """

    origin: Origin
    spare: int
    documents: list[int]
    candidates: int
    horizons: list[Place | None]
    sizes: dict[str, int]

    def is_current(self, origin: Origin, spare: int) -> bool:
        """Whether the shard has this origin, and holds at least `spare` texts per passage to keep or all its texts."""
        return self.origin.fits(origin.options, origin.state) and (self.spare >= spare or not any(self.horizons))


class ShardWriter:
    """Makes the passages of shards; tokenizer and filters are loaded once."""

    def __init__(self, config: CorpusConfig, screen: Screen | None) -> None:
        self.config, self.sources, self.quotas = config, sources_of(config), quotas_of(config)
        self.cutter = PassageCutter(load_tokenizer(config.tokenizer), config.max_tokens)
        self.why_reject = make_filter(config, screen)

    def write(self, folder: Path, origin: Origin, spare: int, shard: Shard, progress: Callable[[int], object]) -> None:
        """Write a shard to `folder`, completely or not at all."""
        report = ShardReport(origin, spare, [0] * len(self.sources), 0, [None] * len(self.quotas), {})
        sizes = [None if quota is None else quota * spare + 10 for quota in self.quotas]
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder, prefix=f"{shard.suffix}.") as unfinished:
            new = Path(unfinished) / shard.suffix
            new.mkdir()
            candidates = self._read(shard, report, progress)
            if self.config.sample:
                self._draw(candidates, [size or 0 for size in sizes], new, report)
            else:
                _write(new / CANDIDATES, self._take(candidates, sizes[0], report))
                _write(new / DOCUMENTS, ())
            report.sizes = {name: (new / name).stat().st_size for name in (CANDIDATES, DOCUMENTS)}
            write_json(new / SHARD_REPORT, asdict(report))
            shutil.rmtree(folder / shard.suffix, ignore_errors=True)
            try:
                new.rename(folder / shard.suffix)
            except OSError:
                if not load_report(folder / shard.suffix):  # otherwise another process has written it meanwhile
                    raise

    def _read(self, shard: Shard, report: ShardReport, progress: Callable[[int], object]) -> Iterator[Candidate]:
        """Yield all passages, unfiltered, and all rejected documents of a shard, in the order of the corpus."""
        for number, source in enumerate(self.sources):
            for (part, row), document in read_documents(source, self.config, shard):
                report.documents[number] += 1
                at = (number, part, row)
                if isinstance(document, Reject):
                    yield Candidate(at, document, document.reason)
                    continue
                pieces = list(self.cutter.cut(document.text))
                report.candidates += len(pieces)
                progress(len(pieces))
                for piece, (start, end, tokens) in enumerate(pieces):
                    name = document.id if len(pieces) == 1 else f"{document.id}:{start}"
                    text, origin = document.text[start:end], (document.source, document.id, document.license)
                    yield Candidate((*at, piece), Passage(name, text, *origin, start, end, tokens))

    def _take(self, candidates: Iterable[Candidate], size: int | None, report: ShardReport) -> Iterator[Candidate]:
        """Yield the candidates with the filters' reasons, in the order of the corpus, until enough of them pass."""
        passing = 0
        for candidate in candidates:
            if passing == size:
                report.horizons = [candidate.at]
                return
            if isinstance(passage := candidate.item, Passage):
                candidate = candidate._replace(reason=self.why_reject(passage.text, passage.tokens))
                passing += candidate.reason is None
            yield candidate

    def _draw(self, candidates: Iterable[Candidate], sizes: list[int], new: Path, report: ShardReport) -> None:
        """Write the first candidates of each group in random order, and all rejected documents."""
        drawn = [Reservoir(size, self.config.seed, self.why_reject) for size in sizes]

        def rejects() -> Iterator[Candidate]:
            for candidate in candidates:
                if isinstance(candidate.item, Reject):
                    yield candidate
                else:
                    drawn[candidate.at[0] if len(drawn) > 1 else 0].add(candidate.item)

        _write(new / DOCUMENTS, rejects())
        held = chain.from_iterable(one.candidates(group) for group, one in enumerate(drawn))
        _write(new / CANDIDATES, sorted(held, key=order))
        report.horizons = [None if one.horizon is None else (one.horizon, group) for group, one in enumerate(drawn)]


def order(candidate: Candidate) -> tuple[Any, ...]:
    """Return the sort key of a candidate: its place, then its fields, which order the copies of a text."""
    return candidate.at, *vars(candidate.item).values()


def load_report(path: Path) -> ShardReport | None:
    """Return the report of a shard's folder; None if it is missing, damaged or of another version."""
    try:
        data = read_json(path / SHARD_REPORT)
        if set(data) != {one.name for one in fields(ShardReport)}:
            return None
        data["origin"] = Origin(**data["origin"])
        data["horizons"] = [horizon and tuple(horizon) for horizon in data["horizons"]]
        complete = all((path / name).stat().st_size == size for name, size in data["sizes"].items())
    except (FileNotFoundError, ValueError):
        return None
    return ShardReport(**data) if complete else None


def read_candidates(path: Path) -> Iterator[Candidate]:
    """Yield the candidates of a file.

    The file is not kept open, because a merge may read more shards at once than a process may have open files.
    """
    place = 0
    while True:
        with path.open("rb") as file:
            file.seek(place)
            lines = file.readlines(BLOCK)
            place = file.tell()
        if not lines:
            return
        for line in lines:
            try:
                at, reason, row = json.loads(line)
            except ValueError as error:
                raise UserError(f"{path} is damaged ({error}): delete it and run its shard again") from None
            yield Candidate(tuple(at), Passage(**row) if "tokens" in row else Reject(**row), reason)


def _write(path: Path, candidates: Iterable[Candidate]) -> None:
    with path.open("w", encoding="utf-8") as lines:
        lines.writelines(f"{json.dumps([at, reason, vars(item)])}\n" for at, item, reason in candidates)
