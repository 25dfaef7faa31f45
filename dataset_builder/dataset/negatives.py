"""Negative sampling: types absent from a passage, asked so that the student learns to answer `[]`.

The largest single lever of the method (paper, table 7): none 31.5, uniform 47.7, by frequency 53.4 average F1.
"""

import hashlib
from collections.abc import Collection, Mapping

import numpy as np

from ..config import Law

NEGATIVES, REST, ORDER = range(3)  # independent streams of random numbers of each passage


def random_numbers(passage_id: str, count: int, stream: int, seed: int) -> np.ndarray:
    """Return the first `count` random numbers in [0, 1) of one of a passage's streams.

    They depend only on the passage's id, the stream and the seed, so other passages may be added or removed. The
    generator is SplitMix64 (Steele, Lea, Flood 2014), which needs no setup per passage.
    """
    key = int.from_bytes(hashlib.sha256(passage_id.encode()).digest()[:8], "little")
    stream_seed = _mix(np.array([(seed * 4 + stream) % 2**64], dtype=np.uint64))
    start = _mix(np.uint64(key) ^ stream_seed)
    bits = _mix(start + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    return (bits >> np.uint64(11)) * 2.0**-53


def _mix(bits: np.ndarray) -> np.ndarray:
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


class NegativeSampler:
    """Draws types that are absent from a passage, without replacement, uniformly or by frequency, or takes all.

    Each draw chooses among the types that are neither present nor drawn yet, in proportion to their weights.

    Args:
        counts: frequency of each type.
        law: how types are weighted; "none" draws nothing, "all" draws every type; "source" draws by frequency among
            the types of the passage's source, and among all types when those are used up; default: "frequency".
        seed: seed of all draws.
        by_source: frequency of each type in each source, for the law "source".
    """

    def __init__(
        self, counts: Mapping[str, int], law: Law | None, seed: int,
        by_source: Mapping[str, Mapping[str, int]] | None = None,
    ) -> None:  # fmt: skip
        self.law = law = law or "frequency"
        self.seed = seed
        weighted = law in ("frequency", "source")
        self.types = sorted(name for name, count in counts.items() if count > 0 or not weighted)
        self.codes = {name: code for code, name in enumerate(self.types)}
        self.weights = np.array([counts[name] if weighted else 1 for name in self.types], dtype=float)
        self.cumulative = np.cumsum(self.weights) / max(self.weights.sum(), 1)
        known = by_source or {}
        self.by_source = {source: NegativeSampler(own, "frequency", seed) for source, own in known.items()}

    def draw(self, passage_id: str, present: Collection[str], wanted: int, source: str = "") -> list[str]:
        """Draw `wanted` types that are not `present`, or all absent types if there are fewer, in the order drawn.

        `wanted` has no effect if the law is "none" or "all", and `source` only has one if the law is "source".
        """
        near = self.by_source[source].draw(passage_id, present, wanted) if source in self.by_source else []
        taken = {self.codes[name] for name in (*present, *near) if name in self.codes}
        absent = len(self.types) - len(taken)
        wanted = {"none": 0, "all": absent}.get(self.law, min(wanted - len(near), absent))
        drawn: list[int] = []
        if 0 < wanted <= len(self.types) // 8:  # draw with replacement, then ignore repeats and present types
            numbers = random_numbers(passage_id, 16 * wanted + 50, NEGATIVES, self.seed)
            codes = np.searchsorted(self.cumulative, numbers, side="right").clip(max=len(self.types) - 1)
            drawn = [code for code in dict.fromkeys(codes.tolist()) if code not in taken][:wanted]
        if len(drawn) < wanted:  # same law: the smallest E / weight, E exponential (Efraimidis and Spirakis 2006)
            numbers = random_numbers(passage_id, len(self.types), REST, self.seed)
            ranks = -np.log1p(-numbers) / self.weights
            ranks[[*taken, *drawn]] = np.inf
            drawn += np.argsort(ranks)[: wanted - len(drawn)].tolist()
        return near + [self.types[code] for code in drawn]
