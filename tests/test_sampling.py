"""The sample: uniform, reproducible, the same in any order; rejects are told apart from what was not drawn."""

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from dataset_builder.corpus.cutting import Passage
from dataset_builder.corpus.sampling import Candidate, Reservoir, TooFewHeldError, decide, place_of
from dataset_builder.corpus.shard_files import SPARE, order


def passage(name: str, text: str) -> Passage:
    return Passage(name, text, "", name, "", 0, len(text), tokens=1)


class Near:
    """Texts with the same first letter are near duplicates."""

    def __init__(self) -> None:
        self.letters: set[str] = set()

    def add(self, text: str) -> bool:
        new = not text[0].isalpha() or text[0] not in self.letters
        self.letters.add(text[0])
        return new


def why_reject(text: str, tokens: int) -> str | None:
    return "ugly" if text.endswith("7") else None


def sample(
    items: list[tuple[int, Passage]], quotas: list[int], seed: int = 1, shards: int = 1, spare: int = SPARE
) -> list[tuple[str, str | None]]:
    """Draw from items `(group, passage)`, dealt to shards; hold more if most are near duplicates."""
    held = [[Reservoir(quota * spare, seed, why_reject) for quota in quotas] for _ in range(shards)]
    for number, (group, one) in enumerate(items):
        held[number % shards][group].add(one)
    candidates: list[Candidate] = []
    horizons = []
    for group in range(len(quotas)):
        candidates += [one for shard in held for one in shard[group].candidates(group)]
        first = [shard[group].horizon for shard in held if shard[group].horizon is not None]
        horizons.append((min(first), group) if first else None)
    try:
        decided = [*decide(sorted(candidates, key=order), quotas, horizons, True, Near().add)]
    except TooFewHeldError:
        return sample(items, quotas, seed, shards, 2 * spare)
    return [(one.item.id, one.reason) for one in decided]


def by_definition(items: list[tuple[int, Passage]], wanted: int) -> list[tuple[str, str | None]]:
    """The sample as sampling.py's docstring defines it, all in memory."""
    out, near, kept, seen = [], Near(), 0, set()
    for _, item in sorted(items, key=lambda pair: (place_of(pair[1].text, 1), pair[1].id)):
        if kept == wanted and item.text not in seen:
            break
        reason = why_reject(item.text, 1)
        if reason is None:
            if item.text in seen:
                reason = "duplicate"
            elif not near.add(item.text):
                reason = "near_duplicate"
        seen.add(item.text)
        kept += reason is None
        out.append((item.id, reason))
    return out


TEXTS = st.lists(st.tuples(st.sampled_from("ab12"), st.integers(0, 40)).map(lambda p: f"{p[0]}{p[1]}"), max_size=120)


@given(TEXTS, st.integers(1, 40), st.integers(1, 5), st.randoms(use_true_random=False))
def test_the_sample_is_what_its_definition_says_in_any_order(
    texts: list[str], wanted: int, shards: int, chooser: random.Random
) -> None:
    items = [(0, passage(f"{i:03}", text)) for i, text in enumerate(texts)]
    expected = by_definition(items, wanted)
    assert sample([(0, passage(i.id, i.text)) for _, i in items], [wanted]) == expected
    chooser.shuffle(items)
    assert sample(items, [wanted], shards=shards) == expected


def test_more_texts_are_held_if_too_many_are_near_duplicates() -> None:
    items = [(0, passage(f"{i:04}", f"a{i}")) for i in range(2000)]
    items += [(0, passage(f"z{i}", f"{i}-")) for i in range(30)]
    assert len({place_of(one.text, 1) for _, one in items}) == 2030
    assert sum(reason is None for _, reason in sample(items, [20], shards=3)) == 20
    assert sample(items, [20], shards=3) == by_definition(items, 20) == sample(items, [20], spare=64)


def test_every_text_has_the_same_chance_and_another_seed_draws_others() -> None:
    items = [(0, passage(str(i), f"{i}.")) for i in range(100)]
    drawn = Counter(name for seed in range(400) for name, reason in sample(items, [25], seed) if reason is None)
    assert len(drawn) == 100 and max(drawn.values()) < 150 and min(drawn.values()) > 60  # expected 100, deviation 9
    assert sample(items, [25], 1) != sample(items, [25], 2)


def test_a_mixture_keeps_its_shares_and_a_small_source_stays_short() -> None:
    items = [(i % 2, passage(str(i), f"{i}.")) for i in range(400)] + [(2, passage("x", "x."))]
    random.Random(0).shuffle(items)
    result = sample(items, [30, 10, 5], 3)
    groups = {item.id: group for group, item in items}
    kept = Counter(groups[name] for name, reason in result if reason is None)
    assert kept == {0: 30, 1: 10, 2: 1} and result == sample(items, [30, 10, 5], 3, shards=4)
