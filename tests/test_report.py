"""Tables, figures and comparisons: measured and published rows are told apart, and older results are read."""

import json
from pathlib import Path
from typing import Any

import pytest

from command_line.recipes import read_yaml
from hub.markdown import escape
from hub.model_card import write_eval_results
from hub.results_tables import PUBLISHED, beside_published, markdown_table, read_published
from open_ner.tools.errors import UserError
from zero_shot.reliability import describe
from zero_shot.report import BEGIN, END, compare_files, write_report
from zero_shot.scoring import average, compare, evaluate_benchmark

ROOT = Path(__file__).parent.parent
NAMES = read_yaml(PUBLISHED)["benchmarks"]


def lines(name: str, right: int, of: int = 6) -> list[dict[str, Any]]:
    """Queries about two types; the first `right` passages are answered rightly, the others with a part of a span."""
    made = []
    for number in range(of):
        for kind in ("city", "river <b>"):
            end = 4 if number < right else 3
            made.append({
                "benchmark": name, "passage_id": str(number), "text": "Rome Oslo", "type": kind,
                "raw": json.dumps(["Rome"[:end]]), "parse_failure": False, "gold": '["Rome"]',
                "spans": [{"start": 0, "end": end, "score": 0.5}], "gold_spans": [[0, 4]],
            })  # fmt: skip
    return made


def results(model: str, right: int, names: list[str], **changes: Any) -> dict[str, Any]:
    parts = {name: lines(name, right) for name in names}
    of_benchmarks = {
        name: {**evaluate_benchmark(part, None, 0), "sampled": None, "skipped": {"empty_text": 2}}
        for name, part in parts.items()
    }
    given = {"suite": "uniner7", "protocol": "uniner", "decoding": "free", "seed": 0, "hardware": "h"}
    head = {
        "model": {"id": model},
        "benchmarks": of_benchmarks,
        "average": average(parts, 0),
        "replies": {"length": 3},
    }
    return {**given, **head, **changes}


def test_published_rows_stand_only_beside_the_same_suite_protocol_and_decoding() -> None:
    run = results("mine", 3, NAMES)
    published = read_published([run])
    table = beside_published([run], published)
    [own] = [row for row in table.splitlines() if row.startswith("| mine |")]
    [theirs] = [row for row in table.splitlines() if row.startswith("| UniNER-7B |")]
    assert "measured here" in own and "50.0" in own
    assert "published, arXiv 2308.03279" in theirs and "| 53.5 |" in theirs and "| 53.4 |" in theirs
    run["benchmarks"][NAMES[0]]["sampled"] = {"passages": 6, "of": 60, "seed": 0}
    assert "measured here, on samples" in beside_published([run], published)
    for name, value in (("suite", "sample"), ("protocol", "instructuie"), ("decoding", "flat")):
        assert read_published([{**run, name: value}]) is None


def test_samples_are_named_for_the_models_that_were_scored_on_them() -> None:
    whole, sampled = results("base", 1, ["b"]), results("tuned", 5, ["b"])
    sampled["benchmarks"]["b"]["sampled"] = {"passages": 6, "of": 60, "seed": 0}
    assert "Seeded samples" not in markdown_table([whole, whole])
    for runs in ([whole, sampled], [sampled, whole]):
        assert markdown_table(runs).count("Seeded samples") == 1
        assert "Seeded samples of tuned, not whole benchmarks (passages): b 6 of 60." in markdown_table(runs)
    same = markdown_table([sampled, sampled])
    assert same.count("Seeded samples") == same.count("Seeded samples, not whole") == 1


def test_students_of_one_name_are_told_apart_by_the_revision_of_their_weights() -> None:
    first, second = (results("model", 3, ["b"]) for _ in range(2))
    first["model"]["revision"], second["model"]["revision"] = "0123456789ab", "ba9876543210"
    table = markdown_table([first, second])
    assert "| model (revision 01234567) |" in table and "| model (revision ba987654) |" in table
    assert "revision" not in markdown_table([first, first])


@pytest.mark.parametrize(
    ("asked", "labels"),
    [
        ([{"baseline": "one"}, {"baseline": "two"}], ["model (baseline one)", "model (baseline two)"]),
        ([{}, {"baseline": "two"}], ["model", "model (baseline two)"]),
        ([{"parameters": {"top_p": 1}}] * 2, ["model", "model"]),
        ([{"parameters": {"top_p": n}} for n in (0, 1)], [f'model (parameters {{"top_p": {n}}})' for n in (0, 1)]),
        ([{"base_url": "u"}, {"base_url": "u", "parameters": {"top_p": 1}}], ["model", "model"]),  # an older file
        (
            [{"revision": "0123456789"}, {"revision": None, "base_url": "u", "parameters": {"top_p": 1}}],
            ["model", "model (base_url u)"],
        ),
    ],
)
def test_one_model_that_is_asked_in_several_ways_is_told_apart_by_them(asked: list[dict], labels: list[str]) -> None:
    runs = [results("model", 3, NAMES) for _ in asked]
    for run, way in zip(runs, asked, strict=True):
        run["model"] |= way
    runs[1]["gains"] = {"all: strict": {"gain": 0.5, "interval": [0.4, 0.6]}}
    tables = markdown_table(runs), beside_published(runs, read_published(runs))
    assert all(f"| {escape(label)} |" in table for label in labels for table in tables)
    assert f"Gain of {escape(labels[1])} over {escape(labels[0])}" in tables[0]


def test_published_averages_are_those_of_their_rows() -> None:
    rows = read_yaml(PUBLISHED)["rows"]
    assert all(len(row["f1"]) == len(NAMES) == 7 and row["source"] for row in rows)
    whole = [row for row in rows if None not in row["f1"]]
    assert len(whole) == 7
    for row in whole:
        assert sum(row["f1"]) / len(NAMES) == pytest.approx(row["average"], abs=0.06), row["model"]


def test_the_report_writes_tables_and_figures_and_escapes_what_it_shows(tmp_path: Path) -> None:
    runs = [results("base", 1, NAMES), results("tuned", 5, NAMES)]
    table = write_report(runs, tmp_path)
    assert "average | all types | 83.3 [" in table and "Official F1 beside published numbers" in table
    details = (tmp_path / "details.md").read_text()
    assert "river &lt;b&gt;" in details and "<b>" not in details
    assert "length: 3" in details and "empty\\_text: 2" in details and "boundary-only" in details
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"f1.png", "errors.png", "pair.png"}


def test_compare_reads_todays_and_older_results_and_computes_gains(tmp_path: Path, capsys: Any) -> None:
    files = []
    for name, right in (("base", 1), ("tuned", 5)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "results.json").write_text(json.dumps(results(name, right, ["b"], suite="mine")))
        (folder / "predictions.jsonl").write_text("\n".join(map(json.dumps, lines("b", right))))
        files.append(folder / "results.json")
    compare_files(files, output_dir=tmp_path / "out")
    printed = capsys.readouterr().out
    assert "Gain of tuned over base" in printed and "| all: strict | +66.7 |" in printed
    assert (tmp_path / "out" / "figures" / "pair.png").exists()
    tuned = json.loads(files[1].read_text())
    strange = {"all: strict": {"gain": 0.5, "interval": [0.4, 0.6]}}  # over another baseline
    files[1].write_text(json.dumps({**tuned, "gains": strange}))
    compare_files(files)
    assert "| all: strict | +66.7 |" in capsys.readouterr().out
    kept = compare(lines("b", 5), lines("b", 1), None, tuned["seed"])  # over this baseline: those on seen types too
    files[1].write_text(json.dumps({**tuned, "gains": kept | {"held_out: strict": kept["all: strict"]}}))
    compare_files(files)
    assert "| held_out: strict |" in capsys.readouterr().out
    for path in tmp_path.glob("*/predictions.jsonl"):  # as published
        path.unlink()
    compare_files(files)
    assert "Gain of tuned over base" in capsys.readouterr().out
    compare_files([files[1], files[1]])  # the saved gain is over another baseline
    assert "Gain of" not in capsys.readouterr().out
    older = sorted((ROOT / "results").glob("quickstart/*model*.json"))
    compare_files(older, output_dir=tmp_path / "older")
    assert len(older) == 2 and "official F1" in capsys.readouterr().out
    (tmp_path / "bad.json").write_text('{"model": 3}')
    with pytest.raises(UserError, match="results.json"):
        compare_files([tmp_path / "bad.json"])


@pytest.mark.parametrize(
    ("changes", "digest", "said"),
    [
        ({}, "new", "the gain of tuned over base is left out: b has other content (digest new, not old)"),
        ({"decoding": "flat"}, "old", "is left out: decoding flat, not free"),
        ({"protocol": "instructuie"}, "new", "left out: protocol instructuie, not uniner; b has other content"),
        ({}, "old+wordings:1", None),
    ],
)
@pytest.mark.parametrize("with_predictions", [True, False])
def test_there_is_no_gain_over_a_run_that_was_asked_something_else(
    changes: dict, digest: str, said: str | None, with_predictions: bool, tmp_path: Path, capsys: Any
) -> None:
    files = []
    for name, right, content, other in (("base", 1, "old", {}), ("tuned", 5, digest, changes)):
        (folder := tmp_path / name).mkdir()
        run = results(name, right, ["b"], suite="mine", **other)
        run["benchmarks"]["b"]["dataset"] = {"digest": content}
        if name == "tuned":
            run["gains"] = compare(lines("b", 5), lines("b", 1), None, 0)
        if with_predictions:
            (folder / "predictions.jsonl").write_text("\n".join(map(json.dumps, lines("b", right))))
        (folder / "results.json").write_text(json.dumps(run))
        files.append(folder / "results.json")
    compare_files(files)
    printed = capsys.readouterr().out
    assert ("Gain of tuned over base" in printed) == (said is None) and (said or "") in printed
    for name, value in changes.items():
        assert f"| tuned ({name} {value}) | b |" in printed
    assert ("| tuned | b |" in printed) == (not changes)


def test_there_is_no_gain_of_a_sample_over_the_whole(tmp_path: Path, capsys: Any) -> None:
    for name, of in (("base", 6), ("tuned", 3)):
        (folder := tmp_path / name).mkdir()
        (folder / "predictions.jsonl").write_text("\n".join(map(json.dumps, lines("b", 3, of))))
        run = results(name, 3, ["b"], suite="mine")
        run["benchmarks"]["b"]["sampled"] = {"passages": 3, "of": 6, "seed": 42} if name == "tuned" else None
        (folder / "results.json").write_text(json.dumps(run))
    compare_files([tmp_path / name / "results.json" for name in ("base", "tuned")])
    printed = capsys.readouterr().out
    said = "the gain of tuned over base is left out: b was asked on 3 passages (seed 42), not on all passages"
    assert said in printed and "Gain of" not in printed
    compare_files([tmp_path / "tuned" / "results.json"] * 2)
    assert "Gain of" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read: No such file or directory"),
        (f"{BEGIN} old", f"write the marks {BEGIN} and {END} once each"),
        (f"{END}\n{BEGIN}", f"write the marks {BEGIN} and {END} once each"),
        (f"It is between {BEGIN} and {END}.\n{BEGIN}\n{END}\nend", f"write the marks {BEGIN} and {END} once each"),
    ],
)
def test_a_file_without_one_place_for_the_table_is_left_alone(tmp_path: Path, text: str | None, said: str) -> None:
    (tmp_path / "results.json").write_text(json.dumps(results("base", 1, ["b"])))
    readme = tmp_path / "README.md"
    if text is not None:
        readme.write_text(text)
    with pytest.raises(UserError, match=said):
        compare_files([tmp_path / "results.json"], readme)
    assert not readme.exists() or readme.read_text() == text


def test_two_runs_of_one_name_are_both_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr("zero_shot.report.reliability.save", lambda figure, path: drawn.append(figure))
    runs = [results("m", right, ["b"], calibration=describe(lines("b", right))) for right in (1, 5)]
    write_report(runs, tmp_path)
    [figure] = drawn
    assert [len(axes.get_lines()) for axes in figure.axes] == [1 + 2, 2]  # with the diagonal


def test_the_quickstarts_table_is_the_one_of_its_files() -> None:
    text = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    files = sorted((ROOT / "results" / "quickstart").glob("*--*.json"))
    assert markdown_table([json.loads(file.read_text(encoding="utf-8")) for file in files]) in text


def test_eval_results_are_those_of_whole_benchmarks_of_the_hub(tmp_path: Path) -> None:
    import yaml
    from huggingface_hub import parse_eval_result_entries

    run = results("mine", 3, ["local", "whole", "part"], schema=2)
    run["benchmarks"]["local"]["dataset"] = {"id": None, "config": None, "revision": None}
    for name in ("whole", "part"):
        run["benchmarks"][name]["dataset"] = {"id": f"org/{name}", "config": "en", "revision": "abc"}
    run["benchmarks"]["part"]["sampled"] = {"passages": 6, "of": 60, "seed": 0}
    path = write_eval_results(tmp_path, run)
    assert path == tmp_path / ".eval_results" / "uniner7-uniner-free.yaml"
    [entry] = parse_eval_result_entries(yaml.safe_load(path.read_text()))
    assert (entry.dataset_id, entry.task_id, entry.dataset_revision, entry.value) == ("org/whole", "en", "abc", 50.0)
    assert "protocol uniner" in entry.notes
    del run["benchmarks"]["whole"]
    assert write_eval_results(tmp_path / "none", run) is None and not (tmp_path / "none").exists()
