"""Caps and mixtures: seeded, counted, and independent of the order of the rows."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_builder.annotation.annotate import Annotations
from dataset_builder.dataset.mixture import cap_set, mix
from open_ner.tools.errors import UserError

ENTITY = {"start": 0, "end": 1, "text": "x", "type": "t"}


def rows(full: int, empty: int = 0, prefix: str = "") -> list[dict[str, Any]]:
    return [{"id": f"{prefix}{i}", "entities": [ENTITY] if i < full else []} for i in range(full + empty)]


def ids(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{i}" for i in range(count)]


@given(st.integers(0, 20), st.integers(0, 20), st.sampled_from([0.0, 0.3, 1.0, 5.0]), st.integers(0, 30) | st.none())
def test_caps_hold_and_their_rejects_are_counted(full: int, empty: int, ratio: float, most: int | None) -> None:
    result = cap_set(Annotations(rows(full, empty)), ratio, most, seed=1)
    kept = len(result.rows)
    allowed = full + min(empty, int(full * ratio))
    assert kept == (allowed if most is None else min(most, allowed))
    assert result.counts["beyond_empty_ratio"] == full + empty - allowed
    assert result.counts["beyond_max_passages"] == allowed - kept
    assert len(result.rejects) == full + empty - kept
    assert not {row["id"] for row in result.rows} & {reject.id for reject in result.rejects}


def test_a_cap_depends_only_on_seed_and_ids() -> None:
    kept = [{row["id"] for row in cap_set(Annotations(part), 1.0, 5, seed).rows}
            for part, seed in [(rows(30), 1), (random.Random(0).sample(rows(30), 30), 1), (rows(30), 2)]]  # fmt: skip
    assert kept[0] == kept[1] != kept[2]
    fewer = {row["id"] for row in cap_set(Annotations(rows(29)), 1.0, 5, 1).rows}
    assert len(kept[0] & fewer) >= 4  # one more passage pushes out at most one
    assert [row["id"] for row in cap_set(Annotations(rows(30)), 1.0, 5, 1).rows] == sorted(kept[0], key=int)


def test_a_mixture_is_the_largest_of_its_relative_sizes() -> None:
    parts = {"d": ids("d", 100), "a": ids("a", 30), "b": ids("b", 8)}
    everything = mix(parts, {}, seed=1)
    assert sorted(everything) == sorted((name, index) for name, own in parts.items() for index in range(len(own)))
    mixed = [name for name, _ in mix(parts, {"d": 2, "a": 1}, seed=1)]
    assert [mixed.count(name) for name in "dab"] == [60, 30, 8]
    mixed = [name for name, _ in mix(parts, {"d": 0.5, "a": 0.25, "b": 0.25}, seed=1)]
    assert [mixed.count(name) for name in "dab"] == [16, 8, 8]
    assert mixed != sorted(mixed, key="dab".index)


@pytest.mark.parametrize("weights", [{"c": 1}, {"a": 0}, {"a": -1}, {"a": float("nan")}])
def test_a_wrong_weight_is_named(weights: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(weights))):
        mix({"distilled": ids("d", 3), "a": ids("a", 3)}, weights, seed=1)
