"""Decide which passages of a corpus are kept, from the candidates that each shard holds.

Passages are kept or rejected one after another, in the order of the corpus, or, for a sample, in a random order that
does not depend on the order of the corpus: the place of a text is the hash of seed and text. A shard holds the first
passages of its part of the corpus in this order, after the filters of single texts. Duplicates and quotas are decided
over the passages of all shards in one order, so the result does not depend on the number of shards.
"""

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from ..config import CorpusConfig
from ..rejects import Reject
from .cutting import Passage
from .filters import Filter
from .sources import sources_of

Place = tuple[int, ...]  # sort key of candidates: hash and group for a sample; source, file, row and piece otherwise


class Candidate(NamedTuple):
    """A passage with the reason of a filter to reject it, or a rejected document."""

    at: Place
    item: Passage | Reject
    reason: str | None = None


class TooFewHeldError(Exception):
    """The shards hold too few passages of a group to fill its quota, because most are near duplicates."""

    def __init__(self, group: int) -> None:
        super().__init__(group)
        self.group = group


def quotas_of(config: CorpusConfig) -> list[int | None]:
    """Return the number of passages to keep of each group; None for all.

    A sample with weights has one group per source; otherwise all sources are one group.
    """
    weights = [source.weight or 0.0 for source in sources_of(config)]  # set for all sources or for none
    size, total = config.sample, sum(weights)
    if not size or not total:
        return [size or config.limit]
    shares = [size * weight / total for weight in weights]
    quotas = [int(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda number: quotas[number] - shares[number])
    for number in by_remainder[: size - sum(quotas)]:  # the quotas must sum up to the sample
        quotas[number] += 1
    return [*quotas]


def place_of(text: str, seed: int) -> int:
    """Return a text's place in the random order of a seed."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, key=str(seed).encode()).digest())


class Reservoir:
    """Holds the first of all added texts in random order: as many as needed so that `size` of them pass the filter.

    Attributes:
        horizon: the place from which texts may be missing; None if all texts are held.
    """

    def __init__(self, size: int, seed: int, why_reject: Filter) -> None:
        self.size, self.seed, self.why_reject = size, seed, why_reject
        self.horizon: int | None = None
        self._held: dict[int, tuple[str | None, list[Passage]]] = {}  # reason and copies of a text, by place
        self._last_first: list[int] = []  # negative places, because heapq pops the smallest
        self._passing = 0

    def add(self, passage: Passage) -> None:
        """Hold a passage if its text is among the first."""
        place = place_of(passage.text, self.seed)
        if self.horizon is not None and place >= self.horizon:
            return
        if place in self._held:
            copies = self._held[place][1]
            passage.text = copies[0].text  # share one string in memory
            copies.append(passage)
            return
        reason = self.why_reject(passage.text, passage.tokens)
        self._held[place] = reason, [passage]
        heapq.heappush(self._last_first, -place)
        self._passing += reason is None
        while self._passing > self.size:
            last = -heapq.heappop(self._last_first)
            if self._held.pop(last)[0] is None:
                self._passing -= 1
                self.horizon = last

    def candidates(self, group: int) -> Iterator[Candidate]:
        """Yield what is held, unsorted."""
        for place, (reason, copies) in self._held.items():
            yield from (Candidate((place, group), passage, reason) for passage in copies)


def decide(
    candidates: Iterable[Candidate],
    quotas: Sequence[int | None],
    horizons: Sequence[Place | None],
    is_sample: bool,
    is_new: Callable[[str], bool],
) -> Iterator[Candidate]:
    """Yield the candidates until the quotas are filled, each with its final reason to reject it, or None to keep it.

    Args:
        candidates: passages and rejected documents, sorted by place; copies of a text in a sample have the same place.
        quotas: number of passages to keep of each group; a group with fewer passages stays short. None keeps all.
        horizons: for each group, the place from which candidates may be missing, or None.
        is_sample: whether a place contains the group.
        is_new: the test for near duplicates, see `filters.make_is_new`.

    Raises:
        TooFewHeldError: the horizon of a group is reached before its quota is filled.
    """
    kept, seen, last = Counter[int](), set[bytes](), None
    for candidate in candidates:
        at, item, reason = candidate
        group = at[1] if is_sample else 0
        if kept[group] == quotas[group] and at != last:
            if all(kept[number] == quota for number, quota in enumerate(quotas)):
                return
            continue
        if (horizon := horizons[group]) is not None and at >= horizon:
            raise TooFewHeldError(group)
        last = at
        if isinstance(item, Passage):
            if reason is None:
                digest = hashlib.blake2b(item.text.encode(), digest_size=16).digest()
                reason = "duplicate" if digest in seen else None if is_new(item.text) else "near_duplicate"
                seen.add(digest)
            kept[group] += reason is None
        yield Candidate(at, item, reason)
    for group, (quota, horizon) in enumerate(zip(quotas, horizons, strict=True)):
        if horizon is not None and kept[group] != quota:
            raise TooFewHeldError(group)
