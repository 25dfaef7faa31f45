"""Shards and their merge give the files of one process, byte for byte, whatever their number, and after kills."""

import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import dataset_builder.__main__
import dataset_builder.merge
from dataset_builder.config import CorpusConfig, SourceConfig
from dataset_builder.corpus import processes
from dataset_builder.corpus.passages import StoredPassages
from dataset_builder.corpus.processes import count_processes, run_shards
from dataset_builder.corpus.stage import merge_passages, write_passages, write_shard
from dataset_builder.shards import Shard
from open_ner.tools.errors import UserError

FILES = ("passages.jsonl", "rejected_passages.jsonl", "passages.report.json")


def documents(number: int, seed: int) -> list[dict[str, Any]]:
    """Documents with duplicates, near duplicates, repeated ids, and faults."""
    draw = random.Random(seed)
    words = [f"{a}{b}" for a in ("lo", "ma", "ti", "ven", "rus") for b in ("da", "kel", "mi", "port", "sa", "zur")]
    rows: list[dict[str, Any]] = []
    for place in range(number):
        row = {
            "id": str(place),
            "text": " ".join(draw.choices(words, k=draw.choice((3, 20, 60)))),
            "source": "abc"[place % 3],
        }
        rows.append(row)
        rows += [
            [{**row, "id": f"{place} again", "source": "d"}], [{**row, "text": row["text"] + " indeed."}],
            [{**row, "text": " ".join(reversed(words))}], [{"id": "empty", "text": " "}], [{"text": None}], [], [], [],
        ][draw.randrange(8)]  # fmt: skip
    draw.shuffle(rows)
    return rows


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files of uneven size in a folder, and one beside it."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "many").mkdir()
    for number, path in enumerate([*(folder / "many" / f"{name}.jsonl" for name in "abc"), folder / "one.jsonl"]):
        path.write_text("".join(json.dumps(row) + "\n" for row in documents(8 + 12 * number, number)))
    return folder


def config_of(corpus: Path, tokenizer: Path, **options: Any) -> CorpusConfig:
    given: dict[str, Any] = {
        "path": str(corpus / "many"),
        "tokenizer": str(tokenizer),
        "max_tokens": 80,
        "language": None,
    }
    return CorpusConfig(**{**given, **options})


def files_of(folder: Path) -> list[bytes]:
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)  # and nothing else is left
    return [(folder / name).read_bytes() for name in FILES]


def merge(config: CorpusConfig, folder: Path, count: int) -> None:
    """Make all shards, the last one first, and merge them; once more if they held too few."""
    for _ in range(5):
        for index in range(count, 0, -1):
            write_shard(config, folder, Shard(index, count))
        try:
            assert merge_passages(config, folder)
            return
        except UserError as error:
            assert "near duplicates, so they hold too few" in str(error)


@pytest.mark.parametrize(
    "options",
    [
        {}, {"limit": 20}, {"sample": 30}, {"sample": 5000}, {"sample": 25, "near_duplicates": 0.02},
        {"max_documents": 40, "shuffle_buffer": 10}, {"sample": 20, "weights": [3.0, 1.0]},
    ],
    ids=str,
)  # fmt: skip
def test_shards_give_the_passages_of_one_process(
    options: dict[str, Any], corpus: Path, tiny_student: Path, tmp_path: Path
):
    if weights := options.pop("weights", None):
        paths = (str(corpus / "many"), str(corpus / "one.jsonl"))
        options = {**options, "path": None}
        options["sources"] = [SourceConfig(path=p, weight=w) for p, w in zip(paths, weights, strict=True)]
    config = config_of(corpus, tiny_student, **options)
    write_passages(config, tmp_path / "0")
    whole = files_of(tmp_path / "0")
    for count in (1, 2, 7):
        merge(config, tmp_path / str(count), count)
        assert files_of(tmp_path / str(count)) == whole, count


def test_processes_give_the_passages_of_one(corpus: Path, tiny_student: Path, tmp_path: Path) -> None:
    config = config_of(corpus, tiny_student, sample=30)
    write_passages(config, tmp_path / "one")
    write_passages(replace(config, num_proc=2), tmp_path / "two")
    assert files_of(tmp_path / "two") == files_of(tmp_path / "one")


def test_small_corpora_and_beginnings_take_one_process(
    corpus: Path, tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    config = config_of(corpus, tiny_student)
    assert count_processes(config) == 1
    monkeypatch.setattr(processes, "LARGE", 1000)
    assert count_processes(config) == 3 and count_processes(replace(config, num_proc=2)) == 2
    assert count_processes(replace(config, limit=5)) == count_processes(replace(config, path="org/corpus")) == 1


def test_a_process_that_is_killed_gives_a_one_line_error() -> None:
    with pytest.raises(UserError, match="a process was killed.* smaller --corpus.num_proc than 2"):
        run_shards(partial(signal.raise_signal, signal.SIGKILL), [Shard(1, 2), Shard(2, 2)], 2)


def killed(monkeypatch: pytest.MonkeyPatch, place: str, work: Callable[[], object]) -> None:
    """Do work in a process that is killed when it calls the function at a place."""
    with monkeypatch.context() as patch:
        patch.setattr(place, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        process = os.fork()
        if not process:
            work()
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(process, 0)[1]) == signal.SIGKILL


@pytest.mark.parametrize("options", [{}, {"sample": 30}], ids=str)
def test_killed_shards_and_merges_leave_nothing_behind(
    options: dict[str, Any], corpus: Path, tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(corpus, tiny_student, **options)
    for place in ("is_binary", "shard_files.write_json", "merging.write_json"):
        module = "filters." if place == "is_binary" else ""
        killed(
            monkeypatch, f"dataset_builder.corpus.{module}{place}", lambda: write_passages(config, tmp_path / "one")
        )
    write_passages(config, tmp_path / "one")

    folder = tmp_path / "shards"
    first, second = Shard(1, 2), Shard(2, 2)
    killed(monkeypatch, "dataset_builder.corpus.filters.is_binary", lambda: write_shard(config, folder, first))
    killed(monkeypatch, "dataset_builder.corpus.shard_files.write_json", lambda: write_shard(config, folder, first))
    assert "shard 2/2 -> " in write_shard(config, folder, second)
    with pytest.raises(UserError, match="shards 1/2 are missing or incomplete: run --stage passages --shard 1/2"):
        merge_passages(config, folder)
    write_shard(config, folder, first)
    assert "shard 1/2 was complete" in write_shard(config, folder, first)
    killed(monkeypatch, "dataset_builder.corpus.merging.write_json", lambda: merge_passages(config, folder))
    assert merge_passages(config, folder)
    assert files_of(folder) == files_of(tmp_path / "one")
    assert "already merged" in write_shard(config, folder, first) and merge_passages(config, folder) is None


def test_shards_that_do_not_belong_together_are_named(corpus: Path, tiny_student: Path, tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text((corpus / "one.jsonl").read_text())
    config = config_of(corpus, tiny_student, path=str(path), sample=5)
    write_shard(config, tmp_path / "run", Shard(1, 2))
    with pytest.raises(UserError, match="does not exist: run python -m dataset_builder.merge first"):
        StoredPassages(tmp_path / "run")
    write_shard(replace(config, sample=6), tmp_path / "run", Shard(2, 2))
    with pytest.raises(UserError, match="shards 2/2 are of another recipe"):
        merge_passages(config, tmp_path / "run")
    with path.open("a") as lines:
        lines.write(json.dumps({"text": "one more document of the corpus"}) + "\n")
    with pytest.raises(UserError, match="shards 1/2, 2/2 are of another recipe, or the corpus has changed"):
        merge_passages(config, tmp_path / "run")
    write_shard(config, tmp_path / "run", Shard(1, 2))
    path.unlink()  # the merge may run where the corpus is not
    other = tmp_path / "run" / "passages.shards" / "2-of-2" / "shard.json"
    report = json.loads(other.read_text())
    report["origin"]["options"]["sample"] = 5
    other.write_text(json.dumps(report))
    with pytest.raises(UserError, match="shards 2/2 read another state of the corpus than 1/2"):
        merge_passages(config, tmp_path / "run")
    shutil.copytree(tmp_path / "run" / "passages.shards" / "1-of-2", tmp_path / "run" / "passages.shards" / "1-of-4")
    with pytest.raises(UserError, match=r"passages\.shards has shards of 2 and 4"):
        merge_passages(config, tmp_path / "run")
    with pytest.raises(UserError, match=r"corpus.num_proc 3 with --shard"):
        write_shard(replace(config, num_proc=3), tmp_path / "run", Shard(1, 2))


def command(main: Callable[[], None], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    main()


def test_the_commands_make_and_merge_shards(
    corpus: Path,
    tiny_student: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe, run = tmp_path / "recipe.yaml", tmp_path / "run"
    options = {"path": str(corpus / "many"), "tokenizer": str(tiny_student), "language": None, "sample": 20}
    recipe.write_text(json.dumps({"corpus": options, "output_dir": str(run)}))
    builder = partial(command, dataset_builder.__main__.main, monkeypatch, "--config", str(recipe))
    merge = partial(command, dataset_builder.merge.main, monkeypatch, "--config", str(recipe))
    with pytest.raises(UserError, match="has no shards to merge: run --stage passages --shard 1/N"):
        merge()
    for shard in ("1/3", "2/3", "3/3"):
        builder("--stage", "passages", "--shard", shard)
    merge()
    merge()  # an engine starts all steps again
    said = capsys.readouterr().out
    assert "passages: shard 2/3 -> " in said and "passages: 20 kept, rejected " in said
    assert "all shards were merged already" in said
    builder("--stage", "passages")
    assert files_of(run) and "passages: 20 kept" in capsys.readouterr().out
    for given, fault in (
        (["--stage", "build"], "with --stage build"),
        (["--stage", "annotate", "--dry_run"], "--dry_run"),
    ):
        with pytest.raises(UserError, match=f"--shard 1/3 .*{fault}"):
            builder("--shard", "1/3", *given)
