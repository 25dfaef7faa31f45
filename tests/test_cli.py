"""Commands end a user's mistake with an exit status and one line, never with a traceback."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from open_ner.tools.errors import UserError, readable_weights, run

ROOT = Path(__file__).parent.parent


def raising(error: BaseException) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (UserError("no such\nthing: mend it"), 2, "error: no such thing: mend it"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), 1, "No space left on device at /x/y"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 1, "denied at /x: check its permissions or write"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/x/y"), 1, "at /x/y: a file is where a folder"),
        (FileExistsError(errno.EEXIST, "File exists", "/x"), 1, "a folder is needed: choose another path"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), 1, "no space left on the disk"),
    ],
)
def test_each_end_has_its_status_and_one_line(
    error: BaseException, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        run(raising(error))
    lines = capsys.readouterr().err.splitlines()
    assert left.value.code == status
    assert len(lines) == 1 and said in lines[0]


def test_a_device_that_torch_was_not_built_for_is_a_wrong_value() -> None:
    with pytest.raises(ValueError, match="choose another device, such as cpu"), readable_weights():
        raise AssertionError("Torch not compiled with CUDA enabled")
    with pytest.raises(AssertionError), readable_weights():
        raise AssertionError("a bug")


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run(raising(ZeroDivisionError("a bug")))


def command(*arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment.pop("HF_TOKEN", None)
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=ROOT)


def test_a_full_disk_gives_a_one_line_error(tiny_student: Path, tmp_path: Path) -> None:
    (tmp_path / "passages.jsonl.partial").symlink_to("/dev/full")
    arguments = ["--config", "recipes/build/sample.yaml", "--output_dir", str(tmp_path)]
    ended = command("-m", "dataset_builder", *arguments, "--corpus.tokenizer", str(tiny_student))
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "No space left on device" in ended.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (["--dataset_name", "runs/no-such-dataset"], "runs/no-such-dataset"),
        (["--model_name_or_path", "models/no-such-student"], "models/no-such-student"),
        (["--learning_rte", "1"], "learning_rte"),
        (["--push_to_hub", "--hub_model_id", "org/x"], "HF_TOKEN"),
        (["--bf16", "true", "--dtype", "quadruple"], "quadruple"),
    ],
)
def test_training_stops_on_a_mistake_before_it_starts(
    change: list[str], named: str, tiny_student: Path, tmp_path: Path
) -> None:
    import datasets

    folder = tmp_path / "data"
    rows = [{"id": "a", "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}]
    (folder / "type").mkdir(parents=True)
    datasets.Dataset.from_list(rows).to_parquet(str(folder / "type" / "train-00000-of-00001.parquet"))
    given = ["--dataset_name", str(folder), "--dataset_config", "default", "--model_name_or_path", str(tiny_student)]
    ended = command("train_sft.py", *given, "--output_dir", str(tmp_path / "out"), *change)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and named in last
    assert not (tmp_path / "out").exists()


def test_publishing_a_folder_that_is_not_there_gives_a_one_line_error(tmp_path: Path) -> None:
    from hub.publish import publish_folder

    with pytest.raises(UserError, match="nothing to publish"):
        publish_folder(tmp_path / "absent", "org/x")
