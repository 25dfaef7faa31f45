"""Negative sampling: never a present type, never one twice, and the exact law."""

from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_builder.negatives import NegativeSampler

TYPES = ["person", "city", "date", "river"]
COUNTS = [8, 4, 2, 1]


@given(
    st.sets(st.sampled_from([*TYPES, "elsewhere"])),
    st.integers(0, 9),
    st.sampled_from(["none", "uniform", "frequency"]),
    st.integers(0, 99),
)
def test_negatives_are_absent_distinct_and_as_many_as_there_are(
    present: set[str], wanted: int, law: str, seed: int
) -> None:
    drawn = NegativeSampler(TYPES, COUNTS, law, seed).draw(present, wanted)
    assert not set(drawn) & present and len(set(drawn)) == len(drawn)
    assert len(drawn) == (0 if law == "none" else min(wanted, len(set(TYPES) - present)))


@pytest.mark.parametrize(("law", "weights"), [("frequency", COUNTS), ("uniform", [1, 1, 1, 1])])
def test_pairs_follow_successive_sampling_without_replacement(law: str, weights: list[int]) -> None:
    """P(first a, then b) = w_a / W * w_b / (W - w_a), over the types that are not present."""
    sampler = NegativeSampler(TYPES, COUNTS, law, seed=5)
    draws = 20_000
    seen = Counter(tuple(sampler.draw({"river"}, 2)) for _ in range(draws))
    absent = dict(zip(TYPES[:3], weights[:3], strict=True))
    total = sum(absent.values())
    for first, second in permutations(absent, 2):
        exact = absent[first] / total * absent[second] / (total - absent[first])
        assert seen[first, second] / draws == pytest.approx(exact, abs=4 * (exact * (1 - exact) / draws) ** 0.5)


def test_the_same_seed_draws_the_same() -> None:
    first, second = (NegativeSampler(TYPES, COUNTS, "frequency", 3) for _ in range(2))
    assert [first.draw(set(), 2) for _ in range(9)] == [second.draw(set(), 2) for _ in range(9)]
