"""Robustness to the wording of types: F1 by wording and its spread, and what shows them."""

from pathlib import Path

import pytest

from zero_shot.figures import plot_paraphrases
from zero_shot.report import paraphrase_table
from zero_shot.scoring import compare, paraphrases

RUN = {"protocol": "uniner", "decoding": "free"}


def line(passage: int, kind: str, wording: int, right: bool) -> dict:
    asked = {"asked": f"{kind} {wording}", "wording": wording} if wording else {}
    span, raw = ((0, 4), '["Rome"]') if right else ((5, 9), '["Oslo"]')
    return {
        "benchmark": "b", "passage_id": str(passage), "type": kind, **asked, "raw": raw,
        "gold": '["Rome"]', "spans": [{"start": span[0], "end": span[1], "score": 1.0}], "gold_spans": [(0, 4)],
    }  # fmt: skip


def lines() -> list[dict]:
    """`city` is found under its own name in 4 of 4 passages, under wordings 1 and 2 in 2 and 0; `river` always."""
    found = {0: 4, 1: 2, 2: 0}
    own = [line(p, "city", wording, p < found[wording]) for p in range(4) for wording in found]
    return own + [line(p, "river", wording, True) for p in range(4) for wording in found]


def test_f1_by_wording_and_its_spread() -> None:
    result = paraphrases(lines())
    assert [row["strict"]["f1"] for row in result["wordings"]] == [1.0, 0.75, 0.5]
    spread = result["spread"]["strict"]
    assert (spread["mean"], spread["min"], spread["max"]) == (0.75, 0.5, 1.0)
    assert spread["std"] == pytest.approx(0.2041, abs=1e-4)
    city = result["types"]["city"]
    assert {asked: row["official"]["tp"] for asked, row in city["wordings"].items()} == {
        "city": 4, "city 1": 2, "city 2": 0,
    }  # fmt: skip
    assert result["types"]["river"]["spread"]["strict"]["std"] == 0.0


def test_gains_are_those_of_the_types_own_names() -> None:
    worse = [{**each, "raw": "[]"} if "asked" in each else each for each in lines()]
    gains = compare(lines(), worse, None, seed=0)
    assert gains["all: official"]["gain"] == gains["all: strict"]["gain"] == 0.0
    assert compare([each for each in lines() if "asked" not in each], worse, None, 0) == gains


def test_nothing_paraphrased_is_none_and_types_without_wordings_are_left_out() -> None:
    own = [each for each in lines() if "asked" not in each]
    assert paraphrases(own) is None
    some = [each for each in lines() if each["type"] == "city" or "asked" not in each]
    assert set(paraphrases(some)["types"]) == {"city"}


def test_the_table_and_the_figure_show_the_spread(tmp_path: Path) -> None:
    run = {**RUN, "model": {"id": "m|n"}, "benchmarks": {"b": {"paraphrases": paraphrases(lines())}, "c": {}}}
    table = paraphrase_table(run)
    assert "m\\|n" in table and "| b | strict | 100.0 | 75.0 | 20.4 | 50.0 | 100.0 | city |" in table
    plot_paraphrases([run], tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert paraphrase_table({"benchmarks": {"c": {}}}) == ""
    plot_paraphrases([{"benchmarks": {}}], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_two_runs_of_one_name_have_places_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr("zero_shot.figures.save", lambda figure, path: drawn.append(figure))
    run = {**RUN, "model": {"id": "m"}, "benchmarks": {"b": {"paraphrases": paraphrases(lines())}}}
    plot_paraphrases([run, run], tmp_path / "p.png")
    [axes] = drawn[0].axes
    assert len({line.get_xdata()[0] for line in axes.get_lines()}) == 2
