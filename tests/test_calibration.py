"""Calibration: its measures on cases worked by hand, a fit that recovers what was put in, and the command."""

import json
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from command_line.students import revision_of
from open_ner.answers import calibrate
from open_ner.selection import Selection
from open_ner.tools.errors import UserError
from zero_shot.calibration import apply_decision, cross_fitted, fit, fit_decision, flatten, main
from zero_shot.reliability import describe, expected_error, plot, reliability, risk_coverage, scored_spans

ROOT = Path(__file__).parent.parent
SCORES = st.floats(0, 1)


def drawn(temperature: float, bias: float, size: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and spans that are right as often as the calibrated scores say."""
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.01, 0.99, size)
    return scores, rng.uniform(size=size) < np.array([calibrate(score, temperature, bias) for score in scores])


def line(spans: list[tuple[int, int, float | None]], gold: list[tuple[int, int]] | None, passage: int = 0) -> dict:
    spans = [{"start": start, "end": end, "score": score} for start, end, score in spans]
    head = {"benchmark": "b", "passage_id": str(passage), "text": "Rome", "type": "city", "raw": "[]"}
    return {**head, "parse_failure": False, "spans": spans, "gold": "[]", "gold_spans": gold}


def drawn_lines(temperature: float, bias: float, size: int) -> list[dict]:
    """A span to a passage, right as often as its calibrated score says."""
    scored = enumerate(zip(*drawn(temperature, bias, size), strict=True))
    return [line([(0, 4, score)], [[0, 4]] if hit else [], number) for number, (score, hit) in scored]


@given(st.lists(SCORES, min_size=2), st.floats(0.05, 20), st.floats(-10, 10))
def test_calibrated_scores_lie_in_the_unit_interval_and_keep_their_order(
    scores: list[float], temperature: float, bias: float
) -> None:
    scores = sorted(scores)
    calibrated = [calibrate(score, temperature, bias) for score in scores]
    assert calibrated == sorted(calibrated) and calibrated[0] >= 0 and calibrated[-1] <= 1


@given(SCORES)
def test_without_a_fit_a_score_is_the_students_own(score: float) -> None:
    assert calibrate(score) == pytest.approx(score, abs=1e-9)


def test_a_temperature_draws_scores_towards_one_half_and_a_bias_moves_them() -> None:
    assert calibrate(0.8, 2.0) == pytest.approx(2 / 3)  # odds of 4 become 2
    assert calibrate(0.5, 3.0) == 0.5
    assert calibrate(0.5, 1.0, -np.log(3)) == pytest.approx(0.25)


@pytest.mark.parametrize(("temperature", "bias"), [(1.0, 0.0), (2.5, 0.0), (0.5, -1.0), (3.0, 1.5)])
def test_the_fit_finds_what_was_put_in_and_mends_the_scores(temperature: float, bias: float) -> None:
    scores, right = drawn(temperature, bias)
    fitted = fit(scores, right)
    assert fitted["temperature"] == pytest.approx(temperature, rel=0.1)
    assert fitted["bias"] == pytest.approx(bias, abs=0.1)
    mended = np.array([calibrate(score, **fitted) for score in scores])
    assert expected_error(mended, right) < 0.015


def typed(
    kind: str, spans: list[tuple[int, int, float]], gold: list[tuple[int, int]], presence: float, n: int
) -> dict:
    return {**line(spans, gold, n), "type": kind, "presence": presence, "text": "Rome and Paris"}


def test_free_predictions_are_read_as_types_that_compete() -> None:
    lines = [
        typed("city", [(0, 4, 0.8), (9, 14, 0.3)], [], 2.0, 1),
        typed("team", [(0, 4, 0.5), (9, 14, 0.6)], [], -0.5, 1),
        typed("team", [(0, 4, 0.1)], [], 3.0, 2),
    ]
    flat = flatten(lines, Selection(), None)
    found = [[(span["start"], span["score"]) for span in own["spans"]] for own in flat]
    assert found == [[(0, 0.8)], [(9, 0.6)], [(0, 0.1)]]
    assert [own["raw"] for own in flat] == ['["Rome"]', '["Paris"]', '["Rome"]']
    absent = flatten(lines, Selection(), 0.5)  # the team of the first passage does not occur
    assert [[span["start"] for span in own["spans"]] for own in absent] == [[0, 9], [], [0]]
    sure = flatten(lines, Selection(threshold=0.55), None)
    assert [len(own["spans"]) for own in sure] == [1, 1, 0]


def test_presence_and_threshold_are_those_of_the_best_f1() -> None:
    """Absent types have right and wrong answers of equal scores: only presence tells them apart."""
    rng = np.random.default_rng(0)
    lines = []
    for n in range(400):
        occurs, score = bool(rng.random() < 0.5), float(rng.uniform(0.2, 0.9))
        lines.append(typed("city", [(0, 4, round(score, 6))], [[0, 4]] if occurs else [], 2.0 if occurs else -2.0, n))
        lines[-1]["gold_spans"] = lines[-1]["gold_spans"] if rng.random() < 0.95 else []
    decision = fit_decision(lines)
    assert decision["presence_bias"] is not None and -2.0 < decision["presence_bias"] <= 2.0
    read = apply_decision(lines, decision)
    assert sum(bool(own["spans"]) for own in read) == sum(own["presence"] > 0 for own in lines)
    flat = [
        typed("city", [(0, 4, score)], [[0, 4]] if score > 0.4 else [], 1.0, n)
        for n, score in enumerate(rng.uniform(0.1, 0.9, 300).round(6).tolist())
    ]
    decision = fit_decision(flat)
    kept = [own["spans"][0]["score"] for own in apply_decision(flat, decision) if own["spans"]]
    assert len(kept) == sum(own["gold_spans"] != [] for own in flat) and min(kept) >= decision["threshold"] > 0


def test_a_decision_is_measured_on_the_passages_it_was_not_fitted_on() -> None:
    lines = drawn_lines(2.5, -1.0, 4000)
    crossed = cross_fitted(lines)
    assert len(crossed) == 4000
    scores, right = scored_spans(crossed)
    assert expected_error(scores, right) < 0.04 < expected_error(*scored_spans(lines))


def test_scores_that_say_nothing_or_the_contrary_keep_their_order() -> None:
    scores, right = drawn(1.0, 0.0, 500)
    assert fit(scores, ~right)["temperature"] == 20.0


@pytest.mark.parametrize("right", [[], [True, True], [False]])
def test_nothing_is_fitted_on_one_outcome(right: list[bool]) -> None:
    with pytest.raises(UserError, match="right and wrong"):
        fit(np.full(len(right), 0.5), np.array(right, dtype=bool))


def test_the_measures_on_a_case_worked_by_hand() -> None:
    scores, right = np.array([0.95, 0.95, 0.15, 1.0]), np.array([True, False, False, True])
    assert reliability(scores, right) == [
        {"n": 1, "score": 0.15, "precision": 0.0},
        {"n": 3, "score": pytest.approx(2.9 / 3), "precision": pytest.approx(2 / 3)},
    ]
    assert expected_error(scores, right) == pytest.approx((0.15 + 3 * 0.3) / 4)
    curve = risk_coverage(scores, right)
    assert curve[0] == {"coverage": 0.25, "risk": 0.0, "threshold": 1.0}
    assert curve[-1] == {"coverage": 1.0, "risk": 0.5, "threshold": 0.15}


def test_a_span_is_right_where_the_gold_has_it() -> None:
    lines = [line([(0, 4, 0.9), (5, 9, 0.2)], [[0, 4]]), line([(0, 1, 0.5)], None), line([], [[1, 2]])]
    scores, right = scored_spans(lines)
    assert (scores.tolist(), right.tolist()) == ([0.9, 0.2], [True, False])
    assert describe([line([], [])]) is None
    result = describe(lines, 2.0, 0.5)
    assert (result["n_spans"], result["precision"], result["temperature"]) == (2, 0.5, 2.0)
    assert result["raw"]["brier"] == pytest.approx((0.01 + 0.04) / 2)


def test_the_figure_shows_every_run(tmp_path: Path) -> None:
    lines = [line([(0, 4, 0.9), (5, 9, 0.2)], [[0, 4]])]
    plot([("a", describe(lines)), ("b", describe(lines, 3.0))], tmp_path / "figures" / "c.png")
    assert (tmp_path / "figures" / "c.png").read_bytes().startswith(b"\x89PNG")


def command(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "zero_shot.calibration", *arguments], capture_output=True, text=True, cwd=ROOT
    )


def test_the_command_saves_its_fit_in_the_models_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "open_ner": {"types": ["city"]}}))
    lines = [*drawn_lines(2.0, -0.5, 400), line([(0, 4, None)], [[0, 4]], 400)]
    reworded = [{**line([(0, 4, 0.9)], [[0, 4]], number), "asked": "town", "wording": 1} for number in range(400)]
    predictions = tmp_path / "predictions.jsonl"
    predictions.write_text("\n".join(map(json.dumps, [*lines, *reworded])))
    shutil.copy(ROOT / "results" / "quickstart" / "training.json", tmp_path)
    (tmp_path / "README.md").write_text("not calibrated")
    run = command("--predictions", str(predictions), "--model", str(tmp_path), "--figure", str(tmp_path / "c.png"))
    assert run.returncode == 0, run.stderr
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved == {"model_type": "llama", "open_ner": {"types": ["city"], **fit_decision(lines)}}
    assert "1 spans have no score" in run.stdout and run.stdout.count("400 spans, ") == 1
    assert f"temperature {saved['open_ner']['temperature']}" in run.stdout and (tmp_path / "c.png").exists()
    assert "calibrated (temperature and bias" in (tmp_path / "README.md").read_text()
    assert [row.split()[0] for row in run.stdout.splitlines() if "strict F1" in row] == ["free", "flat", "flat,"]


def test_predictions_of_another_decoding_or_of_earlier_weights_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, predictions = tmp_path / "model", tmp_path / "held_out-p-free" / "predictions.jsonl"
    for folder in (model, predictions.parent):
        folder.mkdir()
    (model / "config.json").write_text("{}")
    predictions.write_text("\n".join(map(json.dumps, drawn_lines(2.0, -0.5, 40))))
    given = {"id": "model", "revision": revision_of(str(model)), "kind": "student"}  # of a folder that is elsewhere
    results = {"model": given, "suite": "held_out", "protocol": "p", "benchmarks": {}, "hardware": "CPU", "seed": 42}
    monkeypatch.setattr(sys, "argv", ["calibration", "--predictions", str(predictions), "--model", str(model)])
    for decoding, said in (("flat", "needs predictions of free"), ("free", None), ("free", "held_out-p-free-<hash>")):
        predictions.with_name("results.json").write_text(json.dumps({**results, "decoding": decoding}))
        with pytest.raises(UserError, match=said) if said else nullcontext():
            main()
        if not said:  # the student is trained again; its saved fit alone makes no other weights
            main()
            (model / "model.safetensors").write_bytes(b"trained again")
    given["revision"] = "0123456789" * 4  # a commit of the Hub, which cannot be compared with a folder
    predictions.with_name("results.json").write_text(json.dumps({**results, "decoding": "free"}))
    main()


def test_a_fit_on_a_sample_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    predictions = tmp_path / "held_out-p-free" / "predictions.jsonl"
    predictions.parent.mkdir()
    (tmp_path / "config.json").write_text("{}")
    predictions.write_text("\n".join(map(json.dumps, drawn_lines(2.0, -0.5, 40))))
    part = {"official": {"f1": 0.5}, "strict": None, "n_queries": 40, "parse_failures": 0}
    part["sampled"] = {"passages": 40, "of": 300, "seed": 42}
    results = {"model": {"id": "m"}, "suite": "held_out", "protocol": "p", "decoding": "free", "hardware": "CPU"}
    predictions.with_name("results.json").write_text(
        json.dumps({**results, "seed": 42, "benchmarks": {"held_out": part}})
    )
    monkeypatch.setattr(sys, "argv", ["calibration", "--predictions", str(predictions), "--model", str(tmp_path)])
    main()
    assert "has samples only (held_out: 40 of 300 passages): a run without --limit" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "No such file"),
        ("no json", "predictions.jsonl"),
        ('{"spans": 3}', "gold_spans"),
        ("", "no span has both a score and gold offsets"),
        (json.dumps(line([(0, 4, None)] * 9, [[0, 4]])), "no span has both a score and gold offsets"),
        (json.dumps(line([(0, 4, 0.9)], None)), "no span has both a score and gold offsets"),
    ],
)
def test_mistakes_give_a_one_line_error(tmp_path: Path, content: str | None, named: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    if content is not None:
        (tmp_path / "predictions.jsonl").write_text(content)
    run = command("--predictions", str(tmp_path / "predictions.jsonl"), "--model", str(tmp_path), "--dry_run")
    assert run.returncode == 2 and named in run.stderr and len(run.stderr.strip().splitlines()) == 1
    assert (tmp_path / "config.json").read_text() == "{}"
