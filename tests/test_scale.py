"""Training on several processes, and after kill -9, gives the losses and weights of one undisturbed process."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from open_ner.conversation import build_conversation

ROOT = Path(__file__).parent.parent
CONVERSATIONS, EPOCHS, BATCH, SAVED = 24, 16, 4, 2
STEPS = EPOCHS * CONVERSATIONS // BATCH
pytestmark = pytest.mark.timeout(1800)  # seconds; a test trains up to three times


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Conversations of uneven length in full batches, because accelerate fills a partial one with the first rows."""
    folder = tmp_path_factory.mktemp("dataset")
    draw = random.Random(0)
    with (folder / "train.jsonl").open("w") as lines:
        for number in range(CONVERSATIONS):
            person, city = draw.choice(["Ada", "Alan Turing", "Marie Curie"]), draw.choice(["Rome", "Paris", "Berlin"])
            text = f"{person} saw {city} on day {number}." + " It was a long year." * draw.randrange(4)
            answers = [("person", [person]), ("city", [city]), ("river", [])][: draw.randrange(1, 4)]
            lines.write(json.dumps({"messages": build_conversation(text, answers)}) + "\n")
    return folder


def start(student: Path, dataset: Path, folder: Path, processes: int) -> subprocess.Popen:
    """Start training into `folder`/student on 1 or 2 processes with the same global batch."""
    launch = ["-m", "accelerate.commands.launch", "--config_file", "recipes/accelerate/cpu.yaml"]
    with (folder / "log").open("w") as output:
        return subprocess.Popen(
            [
                sys.executable, *(launch if processes == 2 else []), "train_sft.py",
                "--config", "recipes/sft/smollm2_135m/cpu.yaml", "--use_cpu", "true", "--cpu_threads", "1",
                "--model_name_or_path", str(student), "--output_dir", str(folder / "student"),
                "--dataset_name", str(dataset), "--dataset_config", "default",
                "--num_train_epochs", str(EPOCHS), "--learning_rate", "1e-3",
                "--per_device_train_batch_size", "2", "--gradient_accumulation_steps", str(BATCH // 2 // processes),
                "--save_strategy", "steps", "--save_steps", "5", "--save_total_limit", str(SAVED),
            ],
            cwd=ROOT, stdout=output, stderr=output,
            env=os.environ | {"HF_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip


def log(folder: Path) -> str:
    return (folder / "log").read_text()[-5000:]


def losses(folder: Path) -> list[tuple[int, float]]:
    history = json.loads((folder / "student" / "training.json").read_text())["history"]
    return [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "student" / "model.safetensors")


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def checkpoints(folder: Path) -> list[Path]:
    return sorted((folder / "student").glob("checkpoint-*"), key=step_of)


@pytest.fixture(scope="module")
def undisturbed(dataset: Path, tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process without interruption."""
    folder = tmp_path_factory.mktemp("one")
    assert start(tiny_student, dataset, folder, processes=1).wait() == 0, log(folder)
    assert [step for step, _ in losses(folder)] == list(range(1, STEPS + 1))
    assert losses(folder)[-1][1] < losses(folder)[0][1] / 2
    return folder


def test_two_processes_have_the_loss_curve_of_one_with_the_same_global_batch(
    undisturbed: Path, dataset: Path, tiny_student: Path, tmp_path: Path
) -> None:
    ended = start(tiny_student, dataset, tmp_path, processes=2)
    assert ended.wait() == 0, log(tmp_path)
    assert log(tmp_path).count("trained in") == 1  # only one of them saves
    assert losses(tmp_path) == [(step, pytest.approx(loss, abs=1e-5)) for step, loss in losses(undisturbed)]


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_killed_in_the_middle_goes_on_to_the_same_student(
    processes: int, undisturbed: Path, dataset: Path, tiny_student: Path, tmp_path: Path
) -> None:
    killed = start(tiny_student, dataset, tmp_path, processes)
    # not a certain checkpoint: it may be gone, with newer ones in its place, before a loaded machine looks again
    while not any(step_of(path) >= 10 and (path / "trainer_state.json").exists() for path in checkpoints(tmp_path)):
        assert killed.poll() is None, log(tmp_path)
        time.sleep(0.005)
    for process in [*psutil.Process(killed.pid).children(recursive=True), killed]:
        process.kill()
    killed.wait()
    assert not (tmp_path / "student" / "training.json").exists()
    left = checkpoints(tmp_path)[-1]
    # what a kill while writing a checkpoint leaves: the newest one without its last files
    torn = left.with_name(f"checkpoint-{step_of(left) + 5}")
    shutil.copytree(left, torn)
    for name in ("trainer_state.json", "optimizer.pt"):
        (torn / name).unlink(missing_ok=True)

    assert start(tiny_student, dataset, tmp_path, processes).wait() == 0, log(tmp_path)
    assert [step for step, _ in losses(tmp_path)] == list(range(1, STEPS + 1))
    assert len(checkpoints(tmp_path)) == SAVED
    ours, theirs = weights(tmp_path), weights(undisturbed)
    assert ours.keys() == theirs.keys()
    if processes == 1:
        assert losses(tmp_path) == losses(undisturbed)
        assert all(tensor.equal(theirs[name]) for name, tensor in ours.items())
    else:  # gradients are summed in another order
        assert losses(tmp_path) == [(step, pytest.approx(loss, abs=1e-5)) for step, loss in losses(undisturbed)]
        assert all(tensor.allclose(theirs[name], atol=1e-4) for name, tensor in ours.items())


def test_disk_use_is_bounded(undisturbed: Path) -> None:
    assert len(checkpoints(undisturbed)) == SAVED
