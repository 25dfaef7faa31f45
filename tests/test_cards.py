"""The model card has the results of every suite, and `python -m hub.lint` finds a card that its files contradict."""

import gzip
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset
from huggingface_hub import ModelCard

from dataset_builder.__main__ import main as build_dataset
from fake_hub import FakeHub, File
from hub.licenses import conflicts, derive, terms_of
from hub.lint import main
from hub.model_card import write_model_card
from hub.publish import name_repository
from ner_sets.benchmarks import read_passages
from ner_sets.config import BenchmarkConfig
from open_ner.tools.errors import UserError

ROOT = Path(__file__).parent.parent
MEASURED = ROOT / "results" / "quickstart"


def read(name: str) -> Any:
    return json.loads((MEASURED / name).read_text(encoding="utf-8"))


@pytest.fixture
def student(tmp_path: Path) -> Path:
    """What a student's card is written from, with names of the Hub and a dataset that was compared with benchmarks."""
    folder = tmp_path / "student"
    (folder / "results").mkdir(parents=True)
    training = {**read("training.json"), "base_model": "org/base", "dataset": "org/data", "hardware": "4 x some GPU"}
    overlap = {"benchmark": "mit_movie", "texts": 3, "texts_found": 2, "passages": 7, "removed": 7, "types": 12,
               "types_shared": ["title"]}  # fmt: skip
    data = {
        "licenses": {"the base model": "apache-2.0", "the dataset": "cc-by-nc-4.0"},
        "passage_licenses": {"CC BY-SA 4.0": 1234, "CC0": 5}, "teacher": ["a | teacher"], "contamination": [overlap],
        "contamination_options": {"passages": "remove", "ngram": 8},
    }  # fmt: skip
    (folder / "training.json").write_text(json.dumps(training))
    (folder / "config.json").write_text(json.dumps({"open_ner": {"types": ["person", "<b>"]}}))
    (folder / "types.json").write_text(json.dumps({"Title": 3, "person": 9}))
    (folder / "results" / "training_data.json").write_text(json.dumps(data))
    return folder


@pytest.mark.parametrize(("given", "stated"), [(None, "cc-by-nc-4.0"), ("other", "other"), ("mit", "mit")])
def test_a_license_that_was_given_stands_and_without_one_it_is_derived(
    given: str | None, stated: str, student: Path
) -> None:
    training = json.loads((student / "training.json").read_text())
    training["recipe"]["license"] = given
    (student / "training.json").write_text(json.dumps(training))
    write_model_card(student)
    assert ModelCard.load(student / "README.md").data.license == stated


@pytest.mark.parametrize("on_hub", [True, False, None])
def test_a_folder_that_was_renamed_is_no_repository_of_somebody_else(on_hub: bool | None, student: Path) -> None:
    training = json.loads((student / "training.json").read_text())
    if on_hub is not None:  # older files do not say it
        training["on_hub"] = {"base_model": True, "dataset": on_hub}
    (student / "training.json").write_text(json.dumps(training))
    write_model_card(student)
    card = (student / "README.md").read_text()
    assert ("https://huggingface.co/datasets/org/data" in card) == (on_hub is not False)
    data = ModelCard.load(student / "README.md").data
    assert data.base_model == "org/base" and data.datasets == (None if on_hub is False else "org/data")


def test_what_an_unreachable_hub_did_not_say_is_read_for_the_next_card(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    data.mkdir()
    (data / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    (data / "stats.json").write_text("{}")
    training = json.loads((student / "training.json").read_text())
    (student / "training.json").write_text(json.dumps({**training, "dataset": "data"}))
    (student / "results" / "training_data.json").unlink()
    write_model_card(student)
    assert "the base model: not stated, the dataset: cc-by-4.0" in (student / "README.md").read_text()
    code = "import pathlib, sys, hub.model_card as card; card.write_model_card(pathlib.Path(sys.argv[1]))"
    with FakeHub() as hub:
        hub.create({"type": "model", "organization": "org", "name": "base", "visibility": "public"})
        hub.repos["model", "org/base"].add_commit("x", {"README.md": File(b"---\nlicense: mit\n---\n", lfs=False)})
        subprocess.run(
            [sys.executable, "-c", code, student], env={**hub.env(tmp_path), "PYTHONPATH": str(ROOT)}, check=True
        )
    write_model_card(student)  # read from the folder, because the Hub is not reached
    assert "the base model: mit, the dataset: cc-by-4.0" in (student / "README.md").read_text()


def test_the_card_names_no_passages_that_the_scores_were_calibrated_on(student: Path) -> None:
    """They may be held-out passages, a benchmark of one's own, or those of `fit`."""
    options = {"types": ["person"], "temperature": 1.5}
    (student / "config.json").write_text(json.dumps({"open_ner": options}))
    write_model_card(student)
    text = (student / "README.md").read_text()
    assert "probabilities,\ncalibrated (temperature and bias in `config.json`)." in text


def lint(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["lint", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_each_suite_stands_in_the_card_beside_its_baseline_and_published_rows(student: Path) -> None:
    sample, whole = read("runs--quickstart--model.json"), read("zero_shot/results.json")
    write_model_card(student, sample, read("models--smollm2-135m-instruct.json"))
    write_model_card(student, whole)  # the second suite does not replace the first
    text = (student / "README.md").read_text()
    f1 = sample["benchmarks"]["sample"]["official"]["f1"]
    assert f"| runs/quickstart/model | sample | all types | {100 * f1:.1f} [" in text
    assert "| models/smollm2-135m-instruct | sample | all types |" in text and "Gain of runs/quickstart/model" in text
    assert "protocol uniner, free decoding" in text and "| UniNER-7B | 42.4 | 31.7 |" in text
    surest = next(p["risk"] for p in whole["calibration"]["risk_coverage"] if p["coverage"] >= 0.25)
    row = f"| uniner7 | free | {whole['calibration']['n_spans']:,} | {100 * whole['calibration']['raw']['ece']:.1f} |"
    assert row in text and f"| {100 * surest:.1f} |" in text[text.index(row) :].splitlines()[0]
    for line in (
        "| hardware | 4 x some GPU |", "| teacher | a \\| teacher |", "| mit\\_movie | 3 | 2 | 7 | 7 | 12 | 1 |",
        "| mit\\_movie | 12 | 1 |",  # one of its types was seen in training
    ):  # fmt: skip
        assert line in text.splitlines(), line
    assert "&lt;b&gt;" in text and "apache-2.0: " not in text
    calls = [line for line in text.splitlines() if "trust_remote_code=True" in line]
    assert calls and all("revision=" in line for line in calls)  # code that runs is pinned
    data = ModelCard.load(student / "README.md").data
    assert (data.base_model, data.base_model_relation, data.datasets) == ("org/base", "finetune", "org/data")
    assert {entry.dataset_name for entry in data.eval_results} == {*sample["benchmarks"], *whole["benchmarks"]}
    assert "The license of the dataset, cc-by-nc-4.0, forbids commercial use." in text  # the recipe says apache-2.0
    assert "1,234 passages have a license that demands the same license" in text
    named = name_repository(student / "README.md", "org/mine", "v1")
    assert 'model="org/mine", revision="v1", trust_remote_code=True' in named
    assert "org/mine" not in (student / "README.md").read_text()  # it can be published under another name too
    write_model_card(student, sample)  # scored again without a baseline
    assert "models/smollm2-135m-instruct | sample" not in (student / "README.md").read_text()


def test_numbers_that_the_files_do_not_have_are_found(
    student: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model_card(student, read("runs--quickstart--model.json"))
    card = student / "README.md"
    card.write_text(card.read_text() + "\nPeople may add prose.\n")
    assert lint(monkeypatch, student) == 0
    right = card.read_text()
    card.write_text(right + "\n| a model | 99.9 |\n")
    assert lint(monkeypatch, student) == 1 and "'| a model | 99.9 |'" in capsys.readouterr().out
    card.write_text(re.sub(r"value: \d", "value: 99", right.replace("base_model_relation: finetune\n", "")))
    assert lint(monkeypatch, student) == 1
    said = capsys.readouterr().out
    assert "lacks base_model_relation" in said and "model-index is not what the files" in said
    card.write_text("---\nlicense: [\n---\n")
    monkeypatch.setattr(sys, "argv", ["lint", str(student)])
    with pytest.raises(UserError, match="metadata, the YAML at the top, is invalid"):
        main()
    card.write_text(right)
    path = student / "results" / "sample-sample-free.json"
    path.write_text(json.dumps(read("models--smollm2-135m-instruct.json")))  # other results than the card's
    assert lint(monkeypatch, student) == 1
    assert lint(monkeypatch, "--write", student) == 0 and "prose" not in card.read_text()


def test_closed_rows_become_a_dataset_that_scores_the_same(
    tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe of the development set, on rows of two domains: one split, a license for each row, the same gold."""
    rows = [
        {"id": "a.0", "domain": "wikipedia", "text": "Rome", "types": ["city", "river"],
         "entities": [{"start": 0, "end": 4, "text": "Rome", "type": "city"}]},
        {"id": "a.1", "domain": "wikipedia", "text": "Nothing here", "types": ["city", "river"], "entities": []},
        {"id": "b.0", "domain": "lab_protocol", "text": "Rome", "types": ["cell"], "entities": [], "license": "CC0"},
    ]  # fmt: skip
    data, recipe = tmp_path / "data", ROOT / "recipes" / "build" / "dev_closed.yaml"
    data.mkdir()
    with gzip.open(data / "passages.jsonl.gz", "wt") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))

    def build() -> None:
        options = {"--supervised.data_dir": data, "--output_dir": tmp_path, "--corpus.tokenizer": tiny_student}
        words = [str(word) for pair in options.items() for word in pair]
        monkeypatch.setattr(sys, "argv", ["dataset_builder", "--config", str(recipe), *words])
        build_dataset()

    build()
    folder = tmp_path / "dataset"
    assert lint(monkeypatch, folder) == 0
    loaded = load_dataset(str(folder), "annotations", cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["validation"]
    built = loaded["validation"].to_list()
    assert [row["types"] for row in built] == [row["types"] for row in rows]  # in the file's order, repeated text too
    assert [row["license"] for row in built] == ["CC BY-SA 4.0", "CC BY-SA 4.0", "CC0"]
    own = BenchmarkConfig(name="own", path="passages.jsonl.gz", format="offsets")
    again = replace(own, path="annotations/validation-*.parquet", id_column="source_id")
    assert read_passages(again, str(folder), Counter()) == read_passages(own, str(data), Counter())
    card = (folder / "README.md").read_text()
    assert "2 passages have a license that demands the same license" in card and "All rows are for evaluation" in card
    (folder / "README.md").write_text(card.replace("num_examples: 3", "num_examples: 4"))
    assert lint(monkeypatch, folder) == 1
    next((folder / "annotations").glob("*.parquet")).unlink()
    assert lint(monkeypatch, folder) == 1
    with gzip.open(data / "passages.jsonl.gz", "at") as file:
        file.write(json.dumps({**rows[0], "domain": "new"}) + "\n")
    with pytest.raises(UserError, match="'a.0' is from 'new', which has no license"):
        build()


def test_the_card_of_the_metric_is_complete(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = shutil.copytree(ROOT / "metrics" / "entity_f1", tmp_path / "metric")
    assert lint(monkeypatch, folder) == 0
    (folder / "README.md").write_text("---\ntitle: x\nsdk: gradio\n---\n")
    assert lint(monkeypatch, folder) == 1


def test_a_license_follows_from_those_of_the_sources() -> None:
    assert derive({"model": "apache-2.0", "data": "cc-by-4.0"}) == "apache-2.0"
    assert derive({"model": "mit", "data": "cc-by-sa-4.0"}) == "cc-by-sa-4.0"
    for data in ("", "llama3.1", "cc-by-nd-4.0"):
        assert derive({"model": "apache-2.0", "data": data}) == "other"
    assert derive({"model": "cc-by-nc-4.0", "data": "cc-by-sa-4.0"}) == "other"
    assert conflicts("apache-2.0", {"model": "mit", "data": ""}, {"CC BY 4.0": 2, "public domain (court)": 1}) == []
    for name in ("Unlicensed", "misc", "All rights reserved; by permit", "summit"):
        assert terms_of(name) == {"unknown"}, name
    for name in ("MIT License", "0BSD", "BSD-3-Clause", "The Unlicense", "Public Domain", "CC BY 4.0", "Apache 2.0"):
        assert terms_of(name) == {"free"}, name
    [sa, no] = conflicts("cc-by-nc-4.0", {"data": "CC BY-SA 4.0"}, {"": 3, "CC BY-NC 3.0": 4})
    assert "data, CC BY-SA 4.0, demands the same license" in sa and "3 passages do not state" in no
