"""A random sample of passages from a corpus of any size, independent of the order in which the corpus is read.

The hash of seed and text gives every distinct text a place in a random order. The sample is defined by that order:
texts are drawn one by one, and each is kept or rejected for a reason, until the quota is filled. Copies of a text
share its place, so duplicates are found over the whole corpus; near duplicates are found among the drawn texts. Memory
holds a quarter more texts than requested; if that is too few (many near duplicates), the corpus is read again.
"""

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from .cutting import Passage
from .filters import Filter

SPARE = 1.25  # texts held per text requested


def place_of(text: str, seed: int) -> int:
    """A text's place in the random order of a seed."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, key=str(seed).encode()).digest())


@dataclass
class Reservoir:
    """The first `size` texts, by place, that pass the filter, and the rejected texts before the last of them."""

    size: int
    seed: int
    why_reject: Filter
    drawn: dict[int, tuple[str | None, list[Passage]]] = field(default_factory=dict)
    places: list[int] = field(default_factory=list)  # negative, because heapq pops the smallest
    passing: int = 0
    overflowed: bool = False

    def offer(self, passage: Passage) -> None:
        """Add a passage if its place is among the first."""
        place = place_of(passage.text, self.seed)
        if place in self.drawn:
            copies = self.drawn[place][1]
            passage.text = copies[0].text  # one string in memory
            copies.append(passage)
            return
        if self.passing == self.size and place > -self.places[0]:
            self.overflowed = True
            return
        reason = self.why_reject(passage.text, passage.tokens)
        self.drawn[place] = reason, [passage]
        heapq.heappush(self.places, -place)
        self.passing += reason is None
        while self.passing > self.size:
            self.overflowed = True
            self.passing -= self.drawn.pop(-heapq.heappop(self.places))[0] is None


def draw(
    read: Callable[[], Iterator[tuple[int, Passage]]], quotas: list[int], seed: int, why_reject: Filter,
    make_is_new: Callable[[], Callable[[str], bool]],
) -> Iterator[tuple[Passage, str | None]]:  # fmt: skip
    """Draw the sample; yields each passage with None if it is kept, or else with the reason of its rejection.

    Args:
        read: yields `(group, passage)` over the whole corpus; may be called several times.
        quotas: passages to keep of each group; a group with too few passages stays short.
        seed: seed of the random order.
        why_reject: filter of passages.
        make_is_new: see `filters.make_is_new`.
    """
    spare = SPARE
    while True:
        reservoirs = [Reservoir(int(quota * spare) + 10, seed, why_reject) for quota in quotas]
        for group, passage in read():
            reservoirs[group].offer(passage)
        decided = _decide(reservoirs, quotas, make_is_new())
        kept = Counter(group for group, _, reason in decided if reason is None)
        if not any(r.overflowed and kept[g] < quotas[g] for g, r in enumerate(reservoirs)):
            yield from ((passage, reason) for _, passage, reason in decided)
            return
        spare *= 2


def _decide(
    reservoirs: list[Reservoir], quotas: list[int], is_new: Callable[[str], bool]
) -> list[tuple[int, Passage, str | None]]:
    """Walk through the drawn texts by place until each group's quota is filled."""
    order = sorted((place, group) for group, reservoir in enumerate(reservoirs) for place in reservoir.drawn)
    kept, decided, last = Counter(), [], None
    for place, group in order:
        if kept[group] == quotas[group]:
            continue
        reason, copies = reservoirs[group].drawn[place]
        first, *others = sorted(copies, key=lambda passage: passage.id)
        if reason is None and place == last:
            reason = "duplicate"  # of a text of another group
        elif reason is None and not is_new(first.text):
            reason = "near_duplicate"
        last = place
        kept[group] += reason is None
        decided.append((group, first, reason))
        decided += [(group, other, "duplicate" if reason in (None, "near_duplicate") else reason) for other in others]
    return decided
