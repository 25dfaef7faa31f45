"""Negative sampling: no present type, no type twice, the exact law, and draws that do not depend on other passages."""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_builder.dataset.negatives import NegativeSampler, random_numbers

MANY = {f"type {i:02d}": 40 - i for i in range(40)}  # few of many types: drawn with replacement
FEW = {"person": 8, "city": 4, "date": 2, "river": 1}  # many of few types: drawn by exponential keys


def draw(counts: dict, law: str, present: list[list[str]], wanted: list[int], seed: int = 0) -> list[list[str]]:
    """The negatives of each passage, in the order drawn."""
    sampler = NegativeSampler(counts, law, seed)
    return [
        sampler.draw(f"p{i}", names, number) for i, (names, number) in enumerate(zip(present, wanted, strict=True))
    ]


@pytest.mark.parametrize("counts", [FEW, MANY], ids=["few", "many"])
@given(data=st.data(), law=st.sampled_from(["none", "uniform", "frequency"]), seed=st.integers(-9, 99))
def test_negatives_are_absent_distinct_and_as_many_as_there_are(
    counts: dict, data: st.DataObject, law: str, seed: int
) -> None:
    names = st.lists(st.sampled_from(list(counts)), unique=True)
    present = data.draw(st.lists(names, min_size=1, max_size=6))
    wanted = data.draw(st.lists(st.integers(0, 50), min_size=len(present), max_size=len(present)))
    for own, number, drawn in zip(present, wanted, draw(counts, law, present, wanted, seed), strict=True):
        assert not set(drawn) & set(own) and len(set(drawn)) == len(drawn)
        assert len(drawn) == (0 if law == "none" else min(number, len(counts) - len(own)))


def exact(weights: dict[str, int], absent: list[str], length: int) -> dict[tuple[str, ...], float]:
    """The probability of each sequence under successive sampling without replacement, by its definition."""
    law = {}
    for sequence in permutations(absent, length):
        probability, left = 1.0, sum(weights[name] for name in absent)
        for name in sequence:
            probability *= weights[name] / left
            left -= weights[name]
        law[sequence] = probability
    return law


@pytest.mark.parametrize("law", ["frequency", "uniform"])
@pytest.mark.parametrize(
    ("counts", "wanted"),
    [(FEW, 2), (FEW, 3), (dict.fromkeys("abcdefghijklmnopqrst", 1) | {"a": 60, "b": 30, "c": 15}, 2)],
    ids=["keys", "all", "replacement"],
)
def test_sequences_follow_successive_sampling_without_replacement(counts: dict, wanted: int, law: str) -> None:
    """Pearson's chi-square against the law, over all sequences, with the most frequent type present."""
    passages, (own, *absent) = 60_000, counts
    law_of = exact(counts if law == "frequency" else dict.fromkeys(counts, 1), absent, wanted)
    seen = Counter(map(tuple, draw(counts, law, [[own]] * passages, [wanted] * passages, seed=5)))
    assert sum(seen.values()) == passages and set(seen) <= set(law_of)
    square = sum((seen[s] - passages * p) ** 2 / (passages * p) for s, p in law_of.items())
    freedom = len(law_of) - 1
    assert square < freedom + 5 * (2 * freedom) ** 0.5, (square, freedom)  # five standard deviations


def test_passages_that_need_many_draws_follow_the_law_too() -> None:
    """One type has nearly all of the weight, so both rounds with replacement fail and keys complete them."""
    counts = {"common": 100_000} | {f"rare {i:02d}": 1 + (i < 4) for i in range(23)}
    passages = 20_000
    drawn = draw(counts, "frequency", [[]] * passages, [3] * passages, seed=1)
    assert all(len(set(names)) == 3 for names in drawn)
    second = Counter(names[1] for names in drawn if names[0] == "common")
    assert second.total() > 0.999 * passages
    for name, weight in counts.items():
        if name != "common":
            share = weight / 27
            assert second[name] / passages == pytest.approx(share, abs=5 * (share / passages) ** 0.5)


def test_a_draw_does_not_depend_on_other_passages() -> None:
    alone = draw(MANY, "frequency", [["type 03"]], [4])[0]
    beside = [["type 03"], *([[f"type {i:02d}"] for i in range(30)])]
    assert draw(MANY, "frequency", beside, [4, *range(30)])[0] == alone
    assert draw({name: 7 * count for name, count in MANY.items()}, "frequency", [["type 03"]], [4])[0] == alone
    assert draw(MANY, "frequency", [["type 03"]], [4], seed=1)[0] != alone
    assert draw(MANY, "frequency", [["type 03"]], [5])[0][:4] == alone


def test_a_type_of_no_weight_is_drawn_uniformly_but_never_by_frequency() -> None:
    counts = {"seen": 3, "never seen": 0}
    assert draw(counts, "frequency", [[]], [2]) == [["seen"]]
    assert set(draw(counts, "uniform", [[]], [2])[0]) == set(counts)


def test_types_of_the_passages_own_source_are_drawn_first() -> None:
    sources = {"biology": {"gene": 5, "cell": 1}, "news": {"person": 60, "city": 30, "gene": 1}}
    counts = {"gene": 6, "cell": 1, "person": 60, "city": 30}
    sampler = NegativeSampler(counts, "source", 1, sources)
    drawn = [sampler.draw(f"p{number}", ["cell"], 2, "biology") for number in range(300)]
    assert {first for first, _ in drawn} == {"gene"}  # the other type of its source is present
    assert {second for _, second in drawn} == {"person", "city"}
    assert set(sampler.draw("p", [], 9, "biology")) == set(counts) == set(sampler.draw("p", [], 9, "a new source"))
    one = NegativeSampler(counts, "source", 1, {"news": counts})  # a corpus of one source: as by frequency
    assert [one.draw(f"p{n}", [], 2, "news") for n in range(50)] == draw(counts, "frequency", [[]] * 50, [2] * 50, 1)


def test_numbers_are_uniform_and_streams_differ() -> None:
    first, second = (np.array([random_numbers(f"p{i}", 100, stream, seed=3) for i in range(200)]) for stream in (0, 1))
    for numbers in (first, second):
        assert numbers.min() >= 0 and numbers.max() < 1
        shares = np.histogram(numbers, bins=20, range=(0, 1))[0] / numbers.size
        assert np.abs(shares - 0.05).max() < 5 * (0.05 * 0.95 / numbers.size) ** 0.5
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.03
    assert abs(np.corrcoef(first[:, 0], first[:, 1])[0, 1]) < 0.3
