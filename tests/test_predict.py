"""Predictions are resumed after a kill, read if the run has finished, and equal for any number of processes."""

import fcntl
import json
import os
import random
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from command_line.students import revision_of
from ner_sets.benchmarks import BenchmarkPassage, Query
from ner_sets.config import BenchmarkConfig
from open_ner.tools.errors import UserError
from open_ner.tools.fingerprint import hash_student
from zero_shot.predict import Todo, finish, folder_name, predict, public_ids
from zero_shot.records import PredictionLine
from zero_shot.suite import Benchmark, SuiteConfig

CONFIG = BenchmarkConfig(name="b", path="b.jsonl", format="offsets")
SUITE = SuiteConfig(name="s", benchmarks=["b"], protocol="p")


def benchmark(size: int) -> Benchmark:
    passages = [
        BenchmarkPassage(f"p{n}", "x" * (1 + n * 7 % 13), [Query("a", "[]", []), Query("b", "[]", [])])
        for n in range(size)
    ]
    return Benchmark(CONFIG, passages, size, digest="d")


class Echo:
    """Answers with the passage, and is killed after `stop_after` passages."""

    in_process = True

    def __init__(self, stop_after: int | None = None) -> None:
        self.name, self.record, self.asked, self.stop_after = "echo", {"id": "echo", "kind": "student"}, [], stop_after
        self.faults = Counter[str]()

    def ask(self, todo: Todo, suite: SuiteConfig) -> Iterator[list[PredictionLine]]:
        for own, passage in todo:
            if self.stop_after is not None and len(self.asked) == self.stop_after:
                raise KeyboardInterrupt
            self.asked.append(passage.id)
            self.faults["length"] += 1
            head = {"benchmark": own.config.name, "passage_id": passage.id}
            yield [{**head, "type": query.type, "raw": passage.text} for query in passage.queries]


def test_lines_come_in_the_benchmarks_order_not_in_the_order_of_asking(tmp_path: Path) -> None:
    asker, data = Echo(), benchmark(40)
    run = predict(asker, [data], SUITE, tmp_path)
    assert [line["passage_id"] for line in run.lines] == [p.id for p in data.passages for _ in p.queries]
    assert asker.asked != [p.id for p in data.passages] and sorted(asker.asked) == sorted(p.id for p in data.passages)
    written = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert written == run.lines
    finish(tmp_path, {"run": run.identity})
    assert {path.name for path in tmp_path.iterdir()} == {"predictions.jsonl", "results.json"}


@pytest.mark.parametrize(
    "torn", [b"", b'{"seconds": 0.1, "lines": [{"bench', '{"seconds": 1, "lines": "é'.encode()[:-1]]
)
def test_a_killed_run_resumes_with_the_next_passage(tmp_path: Path, torn: bytes) -> None:
    with pytest.raises(KeyboardInterrupt):
        predict(Echo(stop_after=5), [benchmark(40)], SUITE, tmp_path)
    with (tmp_path / "predictions.partial.jsonl").open("ab") as file:
        file.write(torn)
    asker = Echo()
    run = predict(asker, [benchmark(40)], SUITE, tmp_path)
    assert len(asker.asked) == 35 and run.lines == predict(Echo(), [benchmark(40)], SUITE, tmp_path / "whole").lines
    assert asker.faults == {"length": 40}


@pytest.mark.parametrize("option", [{"max_new_tokens": 7}, {"dtype": "float16"}])
def test_another_run_takes_nothing_from_a_partial_file(option: dict, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        predict(Echo(stop_after=5), [benchmark(40)], SUITE, tmp_path)
    asker = Echo()
    other = SuiteConfig(name="s", benchmarks=["b"], protocol="p", **option)
    run = predict(asker, [benchmark(40)], other, tmp_path / "s")
    assert len(asker.asked) == 40 and run.folder == tmp_path / "s"


def test_a_run_that_goes_on_with_weights_of_another_type_is_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zero_shot.predict.inference_dtype", lambda dtype: "bfloat16")  # as on a GPU
    with pytest.raises(KeyboardInterrupt):
        predict(Echo(stop_after=5), [benchmark(40)], SUITE, tmp_path / "s")
    monkeypatch.undo()
    asker = Echo()
    assert predict(asker, [benchmark(40)], SUITE, tmp_path / "s").folder != tmp_path / "s" and len(asker.asked) == 40


@pytest.mark.parametrize("is_finished", [True, False])
def test_another_run_overwrites_nothing_unless_told(tmp_path: Path, is_finished: bool) -> None:
    folder = tmp_path / "s"
    with nullcontext() if is_finished else pytest.raises(KeyboardInterrupt):
        whole = predict(Echo(stop_after=None if is_finished else 30), [benchmark(40)], SUITE, folder)
        finish(folder, {"run": whole.identity, "seconds": 1.0})
    sample = benchmark(40)
    sample.passages = sample.passages[:3]
    few = SuiteConfig(name="s", benchmarks=["b"], protocol="p", limit=3)
    limited = predict(Echo(), [sample], few, folder)
    assert limited.folder.parent == tmp_path and limited.folder != folder and len(limited.lines) == 6
    finish(limited.folder, {"run": limited.identity, "seconds": 1.0})
    asker = Echo()
    assert len(predict(asker, [benchmark(40)], SUITE, folder).lines) == 80
    assert len(asker.asked) == (0 if is_finished else 10)
    asker = Echo()
    assert predict(asker, [sample], few, folder).lines == limited.lines and asker.asked == []
    replacing = SuiteConfig(name="s", benchmarks=["b"], protocol="p", seed=1)
    assert predict(Echo(), [benchmark(3)], replacing, folder, overwrite=True).folder == folder


def test_a_run_that_failed_before_its_first_passage_keeps_no_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        predict(Echo(stop_after=0), [benchmark(3)], SUITE, tmp_path / "s")
    other = SuiteConfig(name="s", benchmarks=["b"], protocol="p", seed=1)
    assert predict(Echo(), [benchmark(3)], other, tmp_path / "s").folder == tmp_path / "s"


def test_predictions_outlive_a_failure_before_the_results_are_written(tmp_path: Path) -> None:
    run = predict(Echo(), [benchmark(3)], SUITE, tmp_path)
    asker = Echo()
    assert predict(asker, [benchmark(3)], SUITE, tmp_path).lines == run.lines and asker.asked == []


def test_a_finished_run_is_read_and_overwrite_asks_again(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = predict(Echo(), [benchmark(3)], SUITE, tmp_path)
    (tmp_path / "results.json").write_text(json.dumps({"run": run.identity, "seconds": 12.5}))
    asker = Echo()
    again = predict(asker, [benchmark(3)], SUITE, tmp_path)
    assert (asker.asked, again.lines, again.seconds) == ([], run.lines, 12.5)
    assert "--overwrite" in capsys.readouterr().out
    predict(asker, [benchmark(3)], SUITE, tmp_path, overwrite=True)
    assert len(asker.asked) == 3


SHARE = """
import sys, time
from pathlib import Path
from test_predict import SUITE, Echo, benchmark
from zero_shot.predict import predict

class Stuck(Echo):
    def ask(self, todo, suite):
        for lines in super().ask(todo, suite):
            yield lines
            if len(self.asked) == 3:
                time.sleep(900)

predict(Stuck(), [benchmark(100)], SUITE, Path(sys.argv[1]))
"""


def free_port() -> int:
    """A port that stays free until it is used: below those that the system gives to others that ask for any."""
    for port in random.SystemRandom().sample(range(15_000, 30_000), 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise OSError("no free port")


def start(folder: Path, processes: int) -> list[subprocess.Popen]:
    """Start processes that share the passages, as `accelerate launch` starts them."""
    root = Path(__file__).parent.parent
    shared = {"ACCELERATE_USE_CPU": "true", "WORLD_SIZE": str(processes), "MASTER_PORT": str(free_port())}
    shared |= {"MASTER_ADDR": "127.0.0.1", "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"}
    return [
        subprocess.Popen(
            [sys.executable, "-c", SHARE, str(folder)], stderr=subprocess.DEVNULL,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(processes)
    ]  # fmt: skip


def test_one_process_resumes_what_three_killed_ones_have_shared(tmp_path: Path) -> None:
    killed = start(tmp_path / "shared", 3)
    partial = [tmp_path / "shared" / f"predictions.partial{rank}.jsonl" for rank in ("", ".1", ".2")]
    try:
        while not all(path.exists() and path.read_bytes().count(b"\n") == 1 + 3 for path in partial):
            assert [process.poll() for process in killed] == [None] * 3
            time.sleep(0.05)
    finally:
        for process in killed:
            process.kill()
            process.wait()
    asker = Echo()
    lines = predict(asker, [benchmark(100)], SUITE, tmp_path / "shared").lines
    assert len(asker.asked) == 100 - 3 * 3
    assert lines == predict(Echo(), [benchmark(100)], SUITE, tmp_path / "alone").lines


def test_two_runs_do_not_write_to_one_folder(tmp_path: Path) -> None:
    with (tmp_path / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="--output_dir"):
            predict(Echo(), [benchmark(1)], SUITE, tmp_path)


def test_a_run_that_has_only_begun_keeps_its_folder_while_it_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    (folder / "predictions.partial.jsonl").write_text('{"run": "other"}\n')
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        beside = predict(Echo(), [benchmark(1)], SUITE, folder)
    assert beside.folder.parent == tmp_path and beside.folder != folder
    other = SuiteConfig(name="s", benchmarks=["b"], protocol="p", seed=1)
    assert predict(Echo(), [benchmark(1)], other, folder).folder == folder  # the first run has failed


def test_a_models_folder_has_no_folders_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        folder_name("runs/quickstart/model")
        == "runs--quickstart--model"
        == folder_name(f"{tmp_path}/runs/quickstart/model")
    )
    assert (folder_name("org/model"), folder_name("gpt-4o")) == ("org--model", "gpt-4o")
    outside = [folder_name(name) for name in ("/data/a/model", "/data/b/model", "../model", "~/model")]
    assert len(set(outside)) == 4 and all(re.fullmatch("model-[0-9a-f]{8}", name) for name in outside)


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["runs/a/model", "/data/b/model", "org/model"], ["runs/a/model", "model", "org/model"]),
        (["/data/a/model", "/data/b/model"], ["a/model", "b/model"]),
        (["/data/a/out/model", "/data/b/out/model", "model"], ["a/out/model", "b/out/model", "model"]),
        (["/data/a/model", "/data/a/model"], ["model", "model"]),
    ],
)
def test_models_that_would_look_alike_are_shown_with_their_parents(names: list[str], ids: list[str]) -> None:
    assert public_ids(names) == ids


def test_a_folder_is_known_by_what_decides_an_answer(tmp_path: Path) -> None:
    def student(name: str, weights: bytes, config: dict) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(weights)
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    big = bytes(3 << 20)
    first = student("a", big, {"vocab_size": 5})
    same = student("b", big, {"vocab_size": 5, "open_ner": {"temperature": 2.0}})
    others = [
        student("c", b"\x01" + big[1:], {"vocab_size": 5}),
        student("d", big[:-1] + b"\x01", {"vocab_size": 5}),
        student("e", big, {"vocab_size": 6}),
    ]
    assert revision_of(str(first)) == revision_of(str(same))
    assert len({revision_of(str(folder)) for folder in [first, *others]}) == 4
    seen = {revision_of(str(first))}
    (first / "README.md").write_text("a card")
    assert revision_of(str(first)) in seen
    with (first / "model.safetensors").open("r+b") as file:  # in the middle of the weights
        file.seek(3 << 19)
        file.write(b"\x01")
    for name in ("pytorch_model.bin", "tokenizer.json", "chat_template.jinja", "generation_config.json", None):
        assert revision_of(str(first)) not in seen
        seen.add(revision_of(str(first)))
        if name:
            (first / name).write_text("{}")


def test_the_fingerprint_of_an_adapter_covers_its_local_base(tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    for folder in (base, adapter):
        folder.mkdir()
    (base / "model.safetensors").write_bytes(b"weights")
    (adapter / "adapter_model.safetensors").write_bytes(b"adapter")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    before = revision_of(str(adapter)), hash_student(adapter)
    (base / "model.safetensors").write_bytes(b"others")
    assert revision_of(str(adapter)) != before[0] and hash_student(adapter) != before[1]
