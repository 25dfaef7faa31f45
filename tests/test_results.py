"""Reports of bench/results.py and bench/ablations.py, from predictions that were made up."""

import gzip
import json
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench import ablations, definitions, results, supervised
from bench.answers import is_choosing
from bench.parts import steps
from bench.parts.sets import write_sets
from zero_shot.predict import folder_name

CHOOSING, REPORTING = (
    [name for n in range(60) if is_choosing(name := f"news-{n}") == half][:12] for half in (True, False)
)


def predicted(name: str, wrong: bool) -> list[dict[str, Any]]:
    """Lines of a passage: a right answer, a wrong one if `wrong`, and a type that is absent and answered so."""
    spans = {"city": [(0, 4, 0.8)], "person": [(9, 14, 0.6)] if wrong else [], "date": []}
    gold = {"city": [[0, 4]], "person": [], "date": []}
    head = {"benchmark": "dev_closed_sentences", "passage_id": f"{name}.0", "text": "Rome and Paris"}
    return [
        {
            **head, "type": kind, "raw": json.dumps(["Rome and Paris"[a:b] for a, b, _ in own]),
            "parse_failure": False,
            "spans": [{"start": a, "end": b, "score": score} for a, b, score in own], "presence": 1.0 if own else -3.0,
            "gold": json.dumps(["Rome"] if gold[kind] else []), "gold_spans": gold[kind],
        }
        for kind, own in spans.items()
    ]  # fmt: skip


def finish(root: Path, model: Path, folder: Path, wrong_in: int, training: dict[str, Any]) -> None:
    """Write what training and evaluation leave; every passage whose place is below `wrong_in` has a wrong span."""
    (root / model).mkdir(parents=True, exist_ok=True)
    (root / model / "training.json").write_text(json.dumps(training))
    target = root / folder / "on_dev" / folder_name(str(model)) / "dev"
    target.mkdir(parents=True)
    names = [(place, name) for half in (CHOOSING, REPORTING) for place, name in enumerate(half)]
    lines = [line for place, name in names for line in predicted(name, place < wrong_in)]
    (target / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (target / "results.json").write_text("{}")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(results, "ROOT", tmp_path)
    monkeypatch.setattr(ablations, "ROOT", tmp_path)
    monkeypatch.setattr(steps, "ROOT", tmp_path)
    return tmp_path


def test_students_are_compared_with_the_quick_start_on_the_reporting_half(root: Path) -> None:
    training = {"seconds": 90.0, "resumed_from": None, "history": [{"step": 40}], "trained_on": {"conversations": 200}}
    quickstart = Path("runs/quickstart/model")
    finish(root, quickstart, results.WORK / "quickstart", 12, training)
    for number, (name, passages) in enumerate((("distilled", 2912), ("passages_200", 200))):
        resumed = {**training, "resumed_from": "checkpoint-30"} if number else training
        finish(root, results.WORK / name / "model", results.WORK / name, 3 + number, resumed)
        report = root / results.WORK / name / "data" / "passages.report.json"
        report.parent.mkdir(parents=True)
        report.write_text(json.dumps({"counts": {"kept": passages}}))
    data = root / "passages.jsonl.gz"
    data.write_bytes(b"passages")
    results.report_development_set(quickstart, [data])
    written = json.loads((root / results.RESULTS / "development.json").read_text())
    assert written["command"].startswith("python ") and written["hardware"] and len(written["data_hash"]) == 16
    rows = written["students"]
    assert {name: row["passages"] for name, row in rows.items()} == {
        "quickstart": 200, "passages_200": 200, "distilled": 2912
    }  # fmt: skip
    assert [rows[name]["seconds"] for name in rows] == [90.0, 360.0, 90.0]  # the last 10 of 40 steps took 90
    free = {name: row["free"]["strict"] for name, row in rows.items()}
    assert free["distilled"]["precision"] == 80.0 and free["quickstart"]["precision"] == 50.0
    assert free["distilled"]["gain"] > 0 and free["distilled"]["interval"][0] > 0
    assert (root / results.RESULTS / "figures" / "scaling.png").stat().st_size > 1000


def test_the_table_has_means_of_both_groups_of_sets(root: Path) -> None:
    def scored(f1: float) -> dict[str, Any]:
        return {way: {"official": {"f1": f1}, "strict": {"f1": f1 + 10}} for way in results.READINGS.values()}

    (root / "results" / "answers").mkdir(parents=True)
    (root / results.RESULTS).mkdir(parents=True)
    sets = {
        "reporting half": scored(1.0),
        "mit_movie": scored(10.0),
        "crossner_ai": scored(20.0),
        "AnEM": scored(30.0),
    }
    (root / "results" / "answers" / "distilled.json").write_text(json.dumps({"sets": sets}))
    seven = {name: {"texts": 90, "shared": 0} for name in ("mit_movie", "crossner_ai")}
    (root / results.RESULTS / "zero_shot").mkdir()
    (root / results.RESULTS / "zero_shot" / "shared_texts.json").write_text(json.dumps(seven))
    human = {"AnEM": {"texts": 50, "shared": 2, "asked": 48}}
    (root / results.RESULTS / "human_sets.json").write_text(json.dumps(human))
    results.write_table()
    rows = (root / results.RESULTS / "table.md").read_text().splitlines()[2:]
    assert [row.split(" | ")[0].strip("| ") for row in rows] == [
        "mit_movie", "crossner_ai", "mean of the seven sets", "AnEM", "mean of the ten sets"
    ]  # fmt: skip
    assert rows[2] == "| mean of the seven sets | 15.0 / 25.0 | 15.0 / 25.0 | 15.0 / 25.0 | 15.0 / 25.0 |  |"
    assert rows[0].endswith("| 0 of 90 |") and rows[3].endswith("| 2 of 50, not asked |")


def test_an_arm_is_compared_with_its_base_and_keeps_its_row_on_a_machine_that_has_not_trained_both(root: Path) -> None:
    training = {"seconds": 90.0, "trained_on": {"conversations": 3, "tokens": 1000}, "recipe": {"bf16": False}}
    data = root / "passages.jsonl.gz"
    data.write_bytes(b"passages")
    for name, wrong in {"start": 12, "negatives_4": 3, "negatives_uniform": 3}.items():  # the last without its base
        finish(root, ablations.WORK / name / "model", ablations.WORK / name, wrong, training)
    ablations.report([data])
    rows = json.loads((root / ablations.RESULTS / "arms.json").read_text())
    assert {name: row["base"] for name, row in rows.items()} == {
        "start": "start", "negatives_4": "start", "negatives_uniform": "negatives_uniform"
    }  # fmt: skip
    assert rows["negatives_4"]["build"]["negative_ratio"] == 4.0 and rows["negatives_4"]["train"]["bf16"] is False
    assert rows["negatives_4"]["free"]["strict"]["interval"][0] > 0 and rows["start"]["free"]["strict"]["gain"] == 0
    measured = (root / ablations.RESULTS / "table.md").read_text()

    (root / ablations.RESULTS / "arms.json").write_text(
        json.dumps({name: {**row, "commit": "old"} for name, row in rows.items()})
    )
    ablations.report([data])
    again = json.loads((root / ablations.RESULTS / "arms.json").read_text())
    assert again == rows | {"negatives_uniform": {**rows["negatives_uniform"], "commit": "old"}}

    rows["negatives_4"]["commit"] = "earlier"
    (root / ablations.RESULTS / "arms.json").write_text(json.dumps(rows))
    shutil.rmtree(root / ablations.WORK / "start")
    ablations.report([data])
    assert json.loads((root / ablations.RESULTS / "arms.json").read_text()) == rows
    assert (root / ablations.RESULTS / "table.md").read_text() == measured

    finish(root, ablations.WORK / "bf16" / "model", ablations.WORK / "bf16", 3, training)  # in float32, as its base
    ablations.report([data])
    assert "bf16" not in json.loads((root / ablations.RESULTS / "arms.json").read_text())


@pytest.mark.parametrize(
    ("gpu", "fast", "wanted", "options"),
    [
        (True, False, True, {"bf16": True}),
        (False, True, True, {"bf16": True, "use_cpu": True}),
        (False, False, True, {"bf16": False}),
        (True, True, False, {"bf16": False}),
    ],
)
def test_an_arm_in_bf16_is_trained_on_any_machine(
    gpu: bool, fast: bool, wanted: bool, options: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    monkeypatch.setattr(steps, "fast_bf16", lambda: fast)
    assert steps.precision(wanted) == options


def test_supervised_students_are_compared_on_each_set_and_on_all(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervised, "ROOT", root)
    monkeypatch.setattr(supervised, "OUTPUT", root / "results" / "supervised.json")
    for name in supervised.SETS:
        for split in ("train", "test"):
            (root / name).mkdir(exist_ok=True)
            (root / name / f"{split}.jsonl.gz").write_bytes(name.encode())
    args = Namespace(distilled=Path("runs/student"), data=root, work=Path("runs/supervised"), passages=9, texts=20)
    training = {"seconds": 90.0, "trained_on": {"conversations": 3, "tokens": 1000}}
    for place, name in enumerate(supervised.STUDENTS):
        model = supervised.model(name, args)
        (root / model).mkdir(parents=True)
        (root / model / "training.json").write_text(json.dumps(training))
        target = root / args.work / "on_test" / name / folder_name(str(model)) / "run"
        target.mkdir(parents=True)
        lines = [
            {**line, "benchmark": one} for one in supervised.SETS for n in range(20)
            for line in predicted(f"text-{n}", n > 3 * place)
        ]  # fmt: skip
        (target / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        supervised.report(args)  # the evaluation is not finished
        (target / "results.json").write_text("{}")
    supervised.report(args)
    written = json.loads((root / "results" / "supervised.json").read_text())
    assert len(written["both"]["data_hash"]) == 16 and list(written) == list(supervised.STUDENTS)
    strict = {name: row["all"]["strict"] for name, row in written.items()}
    assert strict["both"]["gain"] == 0 and max(strict[name]["interval"][1] for name in ("distilled", "supervised")) < 0
    base = written["both"]
    assert base["mean"]["strict"] == pytest.approx(base["all"]["strict"]["f1"], abs=0.1) == 85.1
    assert list(base["sets"]) == list(supervised.SETS)
    for name in ("distilled", "supervised"):  # as on another machine, where fewer are trained
        folder = root / args.work / "on_test" / name / folder_name(str(supervised.model(name, args)))
        (folder / "run" / "results.json").unlink()
    kept = {**written, "both": {**base, "seconds": 1.0}, "supervised": {**written["supervised"], "texts": 5}}
    (root / "results" / "supervised.json").write_text(json.dumps(kept))
    supervised.report(args)
    again = json.loads((root / "results" / "supervised.json").read_text())
    assert again["distilled"] == written["distilled"] and again["both"]["seconds"] == 1.0
    assert "supervised" not in again  # it was asked another sample


@pytest.mark.parametrize("line", [False, True])
def test_sets_are_asked_with_the_line_of_their_training(line: bool, tmp_path: Path) -> None:
    mention = {"start": 0, "end": 4, "type": "cell"}
    rows = [{"id": str(n), "text": f"Cell number {n}.", "entities": [mention]} for n in range(9)]
    (tmp_path / "AnEM").mkdir()
    with gzip.open(tmp_path / "AnEM" / "test.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    counts = write_sets(tmp_path, [], tmp_path, 5, ["AnEM"], dataset_line=line)
    assert counts == {"AnEM": {"texts": 9, "shared": 0, "asked": 5}}
    assert yaml.safe_load((tmp_path / "AnEM.yaml").read_text()).get("dataset") == ("AnEM" if line else None)
    assert yaml.safe_load((tmp_path / "suite.yaml").read_text())["benchmarks"] == [str(tmp_path / "AnEM.yaml")]


def test_definitions_are_asked_where_names_are(tmp_path: Path) -> None:
    labels = {"news": {"city": "a town (not a country); also suburbs", "date": "a day; not a year"}}
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    entity = {"start": 0, "end": 4, "text": "Rome", "type": "city"}
    rows = [
        {"passage_id": name, "domain": "news", "text": "Rome", "types": ["city", "date"], "entities": [entity]}
        for name in CHOOSING + REPORTING
    ]
    with gzip.open(tmp_path / "sentences.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    asked = {}
    for name in definitions.ASKED:
        definitions.write_questions(tmp_path, tmp_path / name, name)
        with gzip.open(tmp_path / name / "sentences.jsonl.gz", "rt") as file:
            asked[name] = [json.loads(line) for line in file]
    assert asked["names"] == rows[: len(CHOOSING)]  # the reporting half chooses nothing
    defined = {"types": ["a town", "a day"], "entities": [{**entity, "type": "a town"}]}
    assert asked["definitions"] == [{**row, **defined} for row in asked["names"]]


def test_students_of_names_and_of_definitions_are_compared(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(definitions, "ROOT", root)
    monkeypatch.setattr(definitions, "OUTPUT", root / "results" / "definitions.json")
    (root / "data").write_bytes(b"data")
    work, training = Path("runs/definitions"), {"seconds": 9.0, "trained_on": {"tokens": 1000}}
    for place, name in enumerate(definitions.CONFIGS):
        (root / work / name).mkdir(parents=True)
        (root / work / name / "training.json").write_text(json.dumps(training))
        for asked in definitions.ASKED:
            target = root / work / f"asked_{asked}" / folder_name(str(work / name)) / "dev"
            target.mkdir(parents=True)
            lines = [line for n, one in enumerate(CHOOSING) for line in predicted(one, n < 4 + 6 * place)]
            renamed = [
                {**line, "type": f"a {line['type']}" if asked == "definitions" else line["type"]} for line in lines
            ]
            (target / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in renamed))
            (target / "results.json").write_text("{}")
    definitions.report(work, [root / "data"])
    written = json.loads((root / "results" / "definitions.json").read_text())
    assert list(written["students"]) == list(definitions.CONFIGS)
    free = {pair: own["free"]["official"] for pair, own in written["pairs"].items()}
    assert (
        free[definitions.BASE]["f1"] == free["names, asked definitions"]["f1"] == pytest.approx(100 * 24 / 28, abs=0.1)
    )
    assert free["definitions, asked names"]["interval"][1] < 0
