"""A random sample of passages over a corpus of any size, the same whatever the order in which the corpus is read.

Every distinct text has a place in a random order, the hash of seed and text. The sample is defined by that order:
texts are drawn one after the other, each is dropped for a reason or kept, until so many are kept. Copies of a text
share its place, so they are found over the whole corpus; near duplicates are looked for among the drawn. In memory are
a quarter more texts than asked for; where that is too few (many near duplicates), the corpus is read once more.
"""

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

SPARE = 1.25  # texts held per text asked for


def place_of(text: str, seed: int) -> int:
    """A text's place in the random order that `seed` makes."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=str(seed).encode())
    return int.from_bytes(digest.digest())


@dataclass
class Reservoir:
    """The first `size` texts, by place, that pass `why_not`, and what was dropped before the last of them."""

    size: int
    seed: int
    why_not: Callable[[str, int], str | None]
    drawn: dict[int, tuple[str | None, list[Any]]] = field(default_factory=dict)
    places: list[int] = field(default_factory=list)
    passing: int = 0
    overflowed: bool = False

    def offer(self, passage: Any) -> None:
        """Take a passage (`id`, `text`, `tokens`) where it is among the first."""
        place = place_of(passage.text, self.seed)
        if place in self.drawn:
            copies = self.drawn[place][1]
            passage.text = copies[0].text  # one string in memory
            copies.append(passage)
            return
        if self.passing == self.size and place > -self.places[0]:
            self.overflowed = True
            return
        reason = self.why_not(passage.text, passage.tokens)
        self.drawn[place] = reason, [passage]
        heapq.heappush(self.places, -place)
        self.passing += reason is None
        while self.passing > self.size:
            self.overflowed = True
            self.passing -= self.drawn.pop(-heapq.heappop(self.places))[0] is None


def draw(
    read: Callable[[], Iterator[tuple[int, Any]]],
    quotas: list[int],
    seed: int,
    why_not: Callable[[str, int], str | None],
    make_near: Callable[[], Any],
) -> Iterator[tuple[Any, str | None]]:
    """The sample, as (passage, reason): None for the `quotas[i]` passages kept of group i, else why it was dropped.

    `read()` gives (group, passage) over the whole corpus, anew on each call. `make_near()` gives an object whose
    `add(text)` is False for a near duplicate of what was added before. A group that has too few passages stays short.
    """
    spare = SPARE
    while True:
        reservoirs = [Reservoir(int(quota * spare) + 10, seed, why_not) for quota in quotas]
        for group, passage in read():
            reservoirs[group].offer(passage)
        verdicts = _decide(reservoirs, quotas, make_near())
        kept = Counter(group for group, _, reason in verdicts if reason is None)
        if not any(r.overflowed and kept[g] < quotas[g] for g, r in enumerate(reservoirs)):
            break
        spare *= 2
    for _, passage, reason in verdicts:
        yield passage, reason


def _decide(reservoirs: list[Reservoir], quotas: list[int], near: Any) -> list[tuple[int, Any, str | None]]:
    """Walk the drawn texts by place until each group's quota is kept."""
    order = sorted((place, group) for group, reservoir in enumerate(reservoirs) for place in reservoir.drawn)
    kept, verdicts, last = Counter(), [], None
    for place, group in order:
        if kept[group] == quotas[group]:
            continue
        reason, copies = reservoirs[group].drawn[place]
        first, *others = sorted(copies, key=lambda passage: passage.id)
        if reason is None and place == last:
            reason = "duplicate"  # of another group's
        elif reason is None and not near.add(first.text):
            reason = "near_duplicate"
        last = place
        kept[group] += reason is None
        verdicts.append((group, first, reason))
        verdicts += [(group, other, "duplicate" if reason in (None, "near_duplicate") else reason) for other in others]
    return verdicts
