"""Scores over predictions: the split by types, intervals over passages, and gains that are paired."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hub.results_tables import markdown_table
from metrics.entity_f1.entity_f1 import Counts, f1_strict
from zero_shot.figures import plot_f1
from zero_shot.scoring import (
    average,
    bootstrap,
    compare,
    counts_by_passage,
    errors,
    evaluate_benchmark,
    score,
    split_by_seen,
)


def prediction(passage: int, name: str, found: list[str], gold: list[str], text: str = "a b c d") -> dict[str, Any]:
    def spans(strings: list[str]) -> list[tuple[int, int]]:
        return [(text.index(string), text.index(string) + len(string)) for string in strings]

    return {
        "benchmark": "b",
        "passage_id": f"p{passage}",
        "text": text,
        "type": name,
        "raw": str(found).replace("'", '"'),
        "parse_failure": False,
        "spans": [{"start": start, "end": end, "score": 1.0} for start, end in spans(found)],
        "gold": str(gold).replace("'", '"'),
        "gold_spans": spans(gold),
    }


def run(quality: float, seed: int = 0) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    return [
        prediction(i, name, ["b"] if rng.random() < quality else ["c"], ["b"])
        for i in range(60)
        for name in ("seen type", "new type")
    ]


def test_counts_are_pooled_over_queries() -> None:
    lines = [prediction(0, "x", ["b", "c"], ["b"]), prediction(1, "x", [], ["d"]), prediction(2, "x", [], [])]
    strict = score(lines, "strict")
    assert (strict["tp"], strict["n_pred"], strict["n_gold"]) == (1, 2, 2)
    assert strict["f1"] == 0.5
    assert score(lines, "official")["f1"] == pytest.approx(0.5)


def test_strict_is_none_without_offsets_and_leaves_out_queries_without() -> None:
    lines = [prediction(0, "x", ["b"], ["b"]), {**prediction(1, "x", ["b"], ["c"]), "gold_spans": None}]
    assert score(lines, "strict")["n_gold"] == 1
    assert score(lines[1:], "strict") is None


def test_types_are_split_by_the_training_vocabulary() -> None:
    parts = split_by_seen(run(0.5), {"seen type"})
    assert {line["type"] for line in parts["seen"]} == {"seen type"}
    assert {line["type"] for line in parts["held_out"]} == {"new type"}


def test_the_interval_holds_the_score_and_is_reproducible() -> None:
    lines = run(0.5)
    low, high = bootstrap(lines, "strict", seed=3)
    assert low < score(lines, "strict")["f1"] < high
    assert bootstrap(lines, "strict", seed=3) == [low, high]


def test_an_interval_is_that_of_passages_drawn_and_scored_one_draw_after_the_other() -> None:
    """The product draws in blocks and adds up counts by a matrix product: both only spare memory and time."""
    ours, theirs = run(0.7, 1), run(0.4, 2)
    passages = sorted(counts_by_passage(ours, "strict"))
    draws = np.random.default_rng(3).integers(0, len(passages), size=(2000, len(passages)))

    def values(lines: list[dict[str, Any]]) -> np.ndarray:
        counts = counts_by_passage(lines, "strict")
        drawn = [sum((counts[passages[number]] for number in draw), Counts()) for draw in draws]
        return np.array([f1_strict(counts)["f1"] for counts in drawn])

    interval, gain = (np.percentile(f1, [2.5, 97.5]) for f1 in (values(ours), values(ours) - values(theirs)))
    assert bootstrap(ours, "strict", 3) == pytest.approx(interval, abs=1e-12)
    assert bootstrap(ours, "strict", 3, theirs) == pytest.approx(gain, abs=1e-12)


def test_a_better_run_has_a_gain_above_zero_and_an_equal_one_has_none() -> None:
    better, worse = run(0.9, 1), run(0.3, 2)
    gains = compare(better, worse, {"seen type"}, seed=1)
    assert set(gains) == {
        f"{part}: {scorer}" for part in ("all", "seen", "held_out") for scorer in ("official", "strict")
    }
    for gain in gains.values():
        assert gain["interval"][0] > 0
        assert gain["interval"][0] <= gain["gain"] <= gain["interval"][1]
    same = compare(worse, worse, None, seed=1)
    assert same["all: strict"] == {"gain": 0.0, "interval": [0.0, 0.0]}


def test_pairing_needs_the_same_passages() -> None:
    better, worse = run(0.9, 1), run(0.3, 2)
    paired = bootstrap(better, "strict", 0, worse)
    shuffled = bootstrap(better, "strict", 0, list(reversed(worse)))
    assert paired == shuffled


def results(name: str, quality: float) -> dict[str, Any]:
    return {
        "model": {"id": name},
        "suite": "s",
        "protocol": "p",
        "decoding": "free",
        "benchmarks": {"b": evaluate_benchmark(run(quality), {"seen type"}, 0)},
    }


def test_the_table_and_the_figure_show_every_run(tmp_path: Path) -> None:
    runs = [results("base", 0.1), results("tuned", 0.9)]
    runs[1]["gains"] = compare(run(0.9), run(0.1), None, 0)
    table = markdown_table(runs)
    for name in ("base", "tuned", "types seen in training", "held-out types", "Gain of tuned over base"):
        assert name in table
    percent = 100 * runs[1]["benchmarks"]["b"]["strict"]["f1"]
    assert f"{percent:.1f} [" in table and "Seeded samples" not in table
    runs[0]["benchmarks"]["b"]["sampled"] = {"passages": 3, "of": 48, "seed": 42}
    assert "not whole benchmarks (passages): b 3 of 48." in markdown_table(runs)
    plot_f1(runs, tmp_path / "f1.png")
    assert (tmp_path / "f1.png").read_bytes().startswith(b"\x89PNG")


def test_every_scorer_counts_passages_over_all_their_types() -> None:
    lines = [prediction(0, "x", ["b"], []), prediction(0, "y", [], ["b"]), prediction(1, "x", ["b c"], ["b"])]
    result = evaluate_benchmark(lines, None, 0)
    hits = {scorer: result[scorer]["tp"] for scorer in ("official", "strict", "partial", "type-only", "boundary-only")}
    assert hits == {"official": 0, "strict": 0, "partial": 1.5, "type-only": 1, "boundary-only": 1}
    assert all(result[scorer]["n_gold"] == 2 for scorer in hits)


def test_macro_is_the_mean_over_the_types_that_occur() -> None:
    lines = [prediction(i, "x", ["b"], ["b"]) for i in range(9)] + [prediction(0, "y", ["c"], ["d"])]
    lines.append(prediction(0, "z", [], []))
    result = evaluate_benchmark(lines, None, 0)
    assert result["strict"]["macro_f1"] == 0.5 and result["strict"]["f1"] == 0.9
    assert set(result["per_type"]) == {"x", "y", "z"}


def test_errors_are_told_apart() -> None:
    lines = [
        prediction(0, "x", ["b", "c"], ["b"]),  # c is a gold span of y alone
        prediction(0, "y", ["a b"], ["c"]),
        prediction(0, "z", ["a"], ["a b"]),
    ]
    assert errors(lines) == {
        "x": {"missed": 0, "boundary": 0, "type": 1, "spurious": 0},
        "y": {"missed": 1, "boundary": 0, "type": 1, "spurious": 0},
        "z": {"missed": 1, "boundary": 1, "type": 0, "spurious": 0},
    }


def test_the_average_is_over_benchmarks_and_its_interval_holds_it() -> None:
    parts = {"one": run(0.2, 1), "two": run(0.8, 2)}
    parts = {name: [{**line, "benchmark": name} for line in part] for name, part in parts.items()}
    found = average(parts, 0)
    expected = sum(score(part, "strict")["f1"] for part in parts.values()) / 2
    assert found["strict"]["f1"] == pytest.approx(expected)
    assert found["strict"]["interval"][0] < expected < found["strict"]["interval"][1]
    without = [{**line, "gold_spans": None} for line in parts["two"]]
    assert set(average({**parts, "two": without}, 0)) == {"official"}


def test_only_what_both_runs_answered_is_compared() -> None:
    assert compare(run(0.9), run(0.9)[:40], None, 0)["all: strict"]["gain"] == 0.0
