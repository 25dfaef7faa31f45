"""A random sample of passages from a corpus of any size, independent of the order in which the corpus is read.

The hash of seed and text gives every distinct text a place in a random order. Texts are drawn in that order, and each
is kept or rejected with a reason, until the quota is filled. Copies of a text have the same place, so duplicates are
found in the whole corpus; near duplicates are found among the drawn texts.
"""

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from .cutting import Passage
from .filters import Filter

SPARE = 2  # texts in memory per passage to keep; if filters reject more than half, the corpus is read again


def place_of(text: str, seed: int) -> int:
    """Return a text's place in the random order of a seed."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, key=str(seed).encode()).digest())


def draw(
    read: Callable[[], Iterable[tuple[int, Passage]]], quotas: list[int], seed: int, why_reject: Filter,
    make_is_new: Callable[[], Callable[[str], bool]],
) -> Iterator[tuple[Passage, str | None]]:  # fmt: skip
    """Draw the sample; yield each drawn passage with the reason to reject it, or None to keep it.

    Args:
        read: yields `(group, passage)` for the whole corpus; may be called several times.
        quotas: number of passages to keep of each group; a group with fewer passages stays short.
        seed: seed of the random order.
        why_reject: filter of passages.
        make_is_new: makes the test for near duplicates, see `filters.make_is_new`.
    """
    spare, complete, decided = SPARE, False, []
    while not complete:
        held, overflowed = _first_texts(read(), [quota * spare + 10 for quota in quotas], seed)
        is_new, kept, last = make_is_new(), Counter(), None
        decided.clear()
        for place, group in sorted((place, group) for group, texts in enumerate(held) for place in texts):
            if kept[group] == quotas[group]:
                continue
            first, *copies = sorted(held[group][place], key=lambda passage: passage.id)
            reason = why_reject(first.text, first.tokens)
            if reason is None and place == last:
                reason = "duplicate"  # of a text of another group
            elif reason is None and not is_new(first.text):
                reason = "near_duplicate"
            last = place
            kept[group] += reason is None
            decided.append((first, reason))
            decided += [(copy, "duplicate" if reason in (None, "near_duplicate") else reason) for copy in copies]
        complete = all(kept[group] == quotas[group] for group in overflowed)
        spare *= 2
    yield from decided


def _first_texts(
    passages: Iterable[tuple[int, Passage]], sizes: list[int], seed: int
) -> tuple[list[dict[int, list[Passage]]], set[int]]:
    """Return the first `sizes[group]` texts of each group, as copies by place, and the groups that have more texts."""
    held: list[dict[int, list[Passage]]] = [{} for _ in sizes]
    heaps: list[list[int]] = [[] for _ in sizes]  # negative places, because heapq pops the smallest
    overflowed: set[int] = set()
    for group, passage in passages:
        place = place_of(passage.text, seed)
        if copies := held[group].get(place):
            passage.text = copies[0].text  # one string in memory
            copies.append(passage)
            continue
        held[group][place] = [passage]
        heapq.heappush(heaps[group], -place)
        if len(heaps[group]) > sizes[group]:
            del held[group][-heapq.heappop(heaps[group])]
            overflowed.add(group)
    return held, overflowed
