"""`open-ner annotate`: a dataset with a column of entities, the same from any number of processes, and continued."""

import gzip
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

import open_ner
from hub.annotate import main as hub
from hub.annotate import source_metadata
from hub.lint import main as lint
from open_ner.__main__ import main
from open_ner.tools.errors import UserError, run
from tiny import LEARNED

TYPES = ["person", "city", "date"]
TEXTS = [*LEARNED, None, "", *LEARNED]
Call = Callable[..., str]


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten rows with a nested column; the cache of datasets is the test's own."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "texts.jsonl"
    rows = [{"id": i, "body": text, "meta": {"tags": ["a"] * (i % 3)}} for i, text in enumerate(TEXTS)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.fixture
def call(
    source: Path, tuned_student: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Call:
    """Annotate to a folder in this process, as one of several; returns the output, or the error."""

    def invoke(folder: Path, *more: str, rank: int = 0, processes: int = 1, run_by: Callable[[], None] = main) -> str:
        arguments = ["--dataset_name", str(source), "--text_column", "body", "--model", str(tuned_student)]
        arguments += ["--output_dir", str(folder), "--rows_per_file", "3", "--batch_size", "2", *more]
        command = ["open-ner", "annotate"] if run_by is main else ["hub.annotate"]
        monkeypatch.setattr(sys, "argv", [*command, "--types", ",".join(TYPES), *arguments])
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(processes))
        try:
            run(run_by)
        except SystemExit as left:
            assert left.code == 2
            return capsys.readouterr().err.splitlines()[-1]
        return capsys.readouterr().out

    return invoke


def load(folder: Path) -> list[dict[str, Any]]:
    return list(datasets.load_dataset(str(folder), split="train"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("data/*"))}


def test_the_card_of_an_annotated_dataset_agrees_with_its_files(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(tmp_path / "out", run_by=hub)
    monkeypatch.setattr(sys, "argv", ["hub.lint", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as ended:
        lint()
    assert not ended.value.code, capsys.readouterr().out
    assert 'load_dataset("path/to/this/folder"' in (tmp_path / "out" / "README.md").read_text()


def test_the_card_says_if_only_the_first_rows_were_annotated(call: Call, tmp_path: Path) -> None:
    for limit, said in (("3", "The first 3 rows of"), ("10", "The first 10 rows of"), ("11", "The 10 rows of")):
        call(tmp_path / limit, "--limit", limit, run_by=hub)
        assert said in (tmp_path / limit / "README.md").read_text()


def test_a_card_of_the_source_that_cannot_be_fetched_is_one_line() -> None:
    record: Any = {"dataset": "no/such-texts", "dataset_revision": "0" * 40}
    with pytest.raises(UserError, match=r"the card of no/such-texts cannot be fetched: .* check the network"):
        source_metadata(record)  # offline, see conftest


def test_every_row_is_kept_with_the_entities_of_the_pipeline(call: Call, tmp_path: Path, tuned_student: Path) -> None:
    out = call(tmp_path / "out", "--threshold", "0.2")
    rows = load(tmp_path / "out")
    assert [(row["id"], row["body"], len(row["meta"]["tags"])) for row in rows] == [
        (i, text, i % 3) for i, text in enumerate(TEXTS)
    ]
    expected = open_ner.load(tuned_student)(list(LEARNED), types=TYPES, threshold=0.2)
    for row in rows:
        if row["body"]:
            found = expected[list(LEARNED).index(row["body"])]
            assert found and [(e["entity_group"], e["start"], e["end"]) for e in row["entities"]] == [
                (e["entity_group"], e["start"], e["end"]) for e in found
            ]
            # other batches round differently
            assert [e["score"] for e in row["entities"]] == pytest.approx([e["score"] for e in found], rel=1e-3)
    assert [row["entities"] for row in rows[4:6]] == [None, []]
    assert f"10 rows, {2 * sum(map(len, expected))} entities" in out and "null in rows without a text: 1" in out
    record = (tmp_path / "out" / "annotation.json").read_text(encoding="utf-8")
    assert json.loads(record)["options"] == {"threshold": 0.2} and str(tmp_path) not in record


def test_a_file_is_read_by_its_last_known_ending(call: Call, source: Path, tmp_path: Path) -> None:
    path = source.rename(tmp_path / "articles.txt.jsonl")
    assert "10 rows" in call(tmp_path / "out", "--dataset_name", str(path))
    packed = tmp_path / "articles.txt.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert "3 rows" in call(tmp_path / "packed", "--dataset_name", str(packed), "--limit", "3")


def test_processes_and_interruptions_do_not_change_the_files(call: Call, tmp_path: Path) -> None:
    one, several = tmp_path / "one", tmp_path / "several"
    call(one)
    files = sorted(path.name for path in one.glob("data/*"))
    assert files == [f"train-{i:05d}-of-00004.parquet" for i in range(4)]
    assert call(several, rank=1, processes=3) == call(several, rank=2, processes=3) == ""
    assert sorted(path.name for path in several.glob("data/*")) == files[1:3]
    (several / "data" / files[2]).rename(several / "data" / f"{files[2]}.1.partial")  # killed while it wrote
    kept = (several / "data" / files[1]).stat().st_mtime_ns
    assert "10 rows" in call(several)  # one process goes on with what three began
    assert (several / "data" / files[1]).stat().st_mtime_ns == kept
    assert contents(several) == contents(one)


def test_shards_make_the_files_of_one_run_together(call: Call, tmp_path: Path) -> None:
    one, shards = tmp_path / "one", tmp_path / "shards"
    call(one)
    assert call(shards, "--shard", "2/2", rank=1, processes=2) == ""  # the second process of the second shard
    assert [*contents(shards)] == ["train-00003-of-00004.parquet"]
    assert "shard 2/2 has its 2 of the 4 files" in call(shards, "--shard", "2/2", rank=0, processes=2)
    assert "shard 1/2 has its 2 of the 4 files" in call(shards, "--shard", "1/2")  # of one process: files 0 and 2
    assert len(contents(shards)) == 3
    assert "10 rows" in call(shards) and contents(shards) == contents(one)  # and file 1, which was left
    assert "--shard '3/2': give I/N" in call(shards, "--shard", "3/2")
    assert "publish by the command without it" in call(shards, "--shard", "1/2", "--push_to_hub", "org/x", run_by=hub)


def test_a_student_that_has_changed_does_not_go_on_in_its_folder(
    call: Call, tmp_path: Path, tuned_student: Path
) -> None:
    """Its name is the same: a run is always saved as `model`, and a calibration changes the config there."""
    first = shutil.copytree(tuned_student, tmp_path / "first" / "model")
    other = shutil.copytree(first, tmp_path / "other" / "model")
    out, limit = tmp_path / "out", ("--limit", "3")
    for student in (first, other):  # the same files elsewhere
        assert "3 rows" in call(out, *limit, "--model", str(student))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"open_ner": {"threshold": 0.5}}))
    assert "has another run, with model_fingerprint '" in call(out, *limit, "--model", str(other))
    record = json.loads((out / "annotation.json").read_text())
    del record["model_fingerprint"]  # as older versions wrote it
    (out / "annotation.json").write_text(json.dumps(record))
    assert "3 rows" in call(out, *limit, "--model", str(other))


def test_a_process_that_lost_its_launcher_harms_no_file(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes the same file at the same time, and ends after another process has completed the folder."""
    one, twice = tmp_path / "one", tmp_path / "twice"
    call(one)
    write, begun = datasets.Dataset.to_parquet, []

    def late(rows: datasets.Dataset, path: Path) -> int:
        begun.append(path)
        size = write(rows, path)
        if len(begun) == 1:
            assert "10 rows" in call(twice)
        return size

    monkeypatch.setattr(datasets.Dataset, "to_parquet", late)
    call(twice)
    assert len(begun) == 5 and len(set(begun)) == 5 and contents(twice) == contents(one)


def test_another_run_in_the_folder_and_wrong_columns_are_named(call: Call, tmp_path: Path) -> None:
    call(tmp_path / "out", "--limit", "3")
    error = call(tmp_path / "out", "--limit", "3", "--threshold", "0.5")
    assert "has another run, with options {} instead of {'threshold': 0.5}: choose another --output_dir" in error
    assert "--text_column text: the columns with texts are body" in call(tmp_path / "new", "--text_column", "text")
    assert "types asks 'person' twice" in call(tmp_path / "new", "--types", "person,person")
    assert "has a column 'id' already" in call(tmp_path / "new", "--entities_column", "id")
    assert "split 'test' cannot be read" in call(tmp_path / "new", "--dataset_name", str(tmp_path / "out"),
                                                 "--dataset_split", "test")  # fmt: skip
    (tmp_path / "new" / "data").mkdir(parents=True)
    (tmp_path / "new" / "data" / "notes.txt").touch()
    assert "has files of something else" in call(tmp_path / "new")
