"""An output folder belongs to one run, and a run resumes from its newest complete checkpoint."""

import json
from pathlib import Path

import datasets
import pytest

from open_ner.tools.errors import UserError
from sft.resume import choose_checkpoint, claim, find_checkpoint, hash_tokens

RUN = {"learning_rate": 1e-4, "model": "org/m", "warmup_steps": 0.04}


def write_checkpoint(folder: Path, step: int, state: str | None = '{"global_step": 1}') -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    if state is not None:
        (path / "trainer_state.json").write_text(state)
    return path


def test_the_newest_complete_checkpoint_is_found(tmp_path: Path) -> None:
    assert find_checkpoint(tmp_path) is None
    write_checkpoint(tmp_path, 9)
    newest = write_checkpoint(tmp_path, 20)
    write_checkpoint(tmp_path, 100, state=None)
    write_checkpoint(tmp_path, 110, state='{"global_st')
    (tmp_path / "checkpoint-last").mkdir()
    assert (
        find_checkpoint(tmp_path) == choose_checkpoint(tmp_path, None) == choose_checkpoint(tmp_path, "true") == newest
    )
    assert choose_checkpoint(tmp_path, str(tmp_path / "checkpoint-9")) == tmp_path / "checkpoint-9"
    with pytest.raises(UserError, match="checkpoint-100' is not a complete checkpoint"):
        choose_checkpoint(tmp_path, str(tmp_path / "checkpoint-100"))


@pytest.mark.parametrize("left", ["checkpoint-4/trainer_state.json", "training.json"])
def test_the_folder_of_another_run_is_refused(left: str, tmp_path: Path) -> None:
    claim(tmp_path, RUN)
    (tmp_path / left).parent.mkdir(exist_ok=True)
    (tmp_path / left).write_text('{"global_step": 4}')
    claim(tmp_path, RUN)
    with pytest.raises(UserError, match=r"another run \(learning_rate was 0.0001, now it is 0.001\).*--output_dir"):
        claim(tmp_path, RUN | {"learning_rate": 1e-3})
    assert json.loads((tmp_path / "run.json").read_text()) == RUN
    claim(tmp_path, RUN | {"data_seed": 3})  # an earlier version did not write it
    with pytest.raises(UserError, match="data_seed was 3, now it is 4"):
        claim(tmp_path, RUN | {"data_seed": 4})
    (tmp_path / "run.json").unlink()
    with pytest.raises(UserError, match="another run"):
        claim(tmp_path, RUN)


def test_a_folder_where_nothing_was_trained_is_free(tmp_path: Path) -> None:
    claim(tmp_path, RUN)
    claim(tmp_path, RUN | {"learning_rate": 1e-3})
    assert json.loads((tmp_path / "run.json").read_text())["learning_rate"] == 1e-3


def test_one_process_writes_and_only_what_has_changed(tmp_path: Path) -> None:
    claim(tmp_path, RUN, write=False)
    assert not (tmp_path / "run.json").exists()
    claim(tmp_path, RUN)
    before = (tmp_path / "run.json").stat()
    claim(tmp_path, RUN)
    claim(tmp_path, RUN | {"learning_rate": 1e-3}, write=False)
    after = (tmp_path / "run.json").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_the_hash_sees_ids_rows_and_their_order() -> None:
    def of(*rows: list[int]) -> str:
        return hash_tokens(datasets.Dataset.from_dict({"input_ids": list(rows), "other": [0] * len(rows)}))

    hashes = {of([1, 2], [3]), of([1], [2, 3]), of([3], [1, 2]), of([1, 2], [4])}
    assert len(hashes) == 4
    longer = datasets.Dataset.from_dict({"input_ids": [[9], [1, 2], [3], [5]]})
    assert hash_tokens(longer.select([1, 2])) == of([1, 2], [3])
