"""jobs/run.py from an empty folder against the stand-in of the Hub; the lines of docs/jobs.md as `hf` reads them."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from documents import blocks
from fake_hub import TOKEN, FakeHub, File
from tiny import LEARNED

ROOT = Path(__file__).parent.parent
NEEDED = ("open_ner", "hub", "command_line")  # what this job imports, so that the repository to clone is small
UV = f"""#!{sys.executable}
import os, sys
at = sys.argv.index("requirements.txt") + 1
assert sys.argv[1:at] == ["run", "--no-project", "--with-requirements", "requirements.txt"]
assert os.path.exists("requirements.txt")
assert sys.argv[at] == "accelerate"
os.execv(sys.executable, [sys.executable, "-m", "accelerate.commands.accelerate_cli", *sys.argv[at + 1:]])
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A bundle of a repository with the files of this one, at the tag v1."""
    folder = tmp_path / "repository"
    for name in NEEDED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "requirements.txt", folder)
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false")
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"], ["tag", "v1"],
                  ["bundle", "create", "-q", "../code.bundle", "v1"]):  # fmt: skip
        subprocess.run(["git", *identity, *words], cwd=folder, check=True)
    shutil.rmtree(folder)
    return tmp_path / "code.bundle"


def publish(hub: FakeHub, kind: str, name: str, files: dict[str, bytes]) -> str:
    """Put a private repository on the Hub; returns its revision."""
    owner, name = name.split("/")
    hub.create({"type": kind, "organization": owner, "name": name, "visibility": "private"})
    stored = {path: File(content, path.endswith(".safetensors")) for path, content in files.items()}
    return hub.repos[kind, f"{owner}/{name}"].add_commit("x", stored).sha


def test_a_job_annotates_a_dataset_and_publishes_it(source: Path, tmp_path: Path, tuned_student: Path) -> None:
    card = b"---\nlicense: cc-by-4.0\nlanguage: en\n---\n# Texts\n"
    lines = "\n".join(json.dumps({"id": i, "body": text}) for i, text in enumerate(LEARNED)).encode()
    uv, folder = tmp_path / "uv", tmp_path / "job"
    uv.write_text(UV)
    uv.chmod(0o755)
    folder.mkdir()
    shutil.copy(ROOT / "jobs" / "run.py", folder)
    with FakeHub() as hub:
        texts = publish(hub, "dataset", "org/texts", {"README.md": card, "data.jsonl": lines})
        student = publish(hub, "model", "org/ner", {p.name: p.read_bytes() for p in tuned_student.iterdir()})
        options = ["--dataset_name", "org/texts", "--text_column", "body", "--types", "person,city=city", "--model"]
        options += ["org/ner", "--output_dir", str(tmp_path / "out"), "--push_to_hub", "org/entities"]
        done = subprocess.run(
            [sys.executable, "run.py", source, "v1", "annotate", *options],
            cwd=folder, env=hub.env(tmp_path / "home") | {"UV": str(uv)}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "published" in done.stdout and "(private)" in done.stdout and hub.private("dataset", "org/entities")
        files = hub.files("dataset", "org/entities")
        assert sorted(files) == ["README.md", "annotation.json", "data/train-00000-of-00001.parquet"]
        code = (
            "from datasets import load_dataset; import json\n"
            "print(json.dumps(list(load_dataset('org/entities', split='train'))))"
        )
        loaded = subprocess.run(
            [sys.executable, "-c", code], env=hub.env(tmp_path / "other"), capture_output=True, text=True
        )
    rows = json.loads(loaded.stdout)
    found = {(row["body"], entity["entity_group"], entity["word"]) for row in rows for entity in row["entities"]}
    learned = {(text, name, word) for text, by in LEARNED.items() for name, words in by.items() for word in words}
    assert found == {each for each in learned if each[1] != "date"}
    text = files["README.md"].decode()
    metadata = yaml.safe_load(text.split("---")[1])
    assert (metadata["license"], metadata["language"]) == ("cc-by-4.0", "en")
    assert metadata["source_datasets"] == ["org/texts"]
    persons = sum(len(by.get("person", [])) for by in LEARNED.values())
    for part in (
        student,
        texts,
        f"| person | person | {persons} |",
        f'open_ner.load("org/ner", revision="{student}")',
    ):
        assert part in text
    assert not [
        name for name, content in files.items() if TOKEN.encode() in content or str(tmp_path).encode() in content
    ]


def test_the_code_of_a_tag_that_moved_is_run_and_other_files_of_the_clone_stay(tmp_path: Path) -> None:
    uv, clone = tmp_path / "uv", tmp_path / "uniner-distill-v1"
    uv.write_text("#!/bin/sh\ncat requirements.txt\n")
    uv.chmod(0o755)
    (tmp_path / "uniner-distill-v1.partial").mkdir()  # a kill left it
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false")
    for content in ("one", "two"):
        folder = tmp_path / content
        folder.mkdir()
        (folder / "requirements.txt").write_text(content)
        for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"], ["tag", "v1"],
                      ["bundle", "create", "-q", "../code.bundle", "v1"]):  # fmt: skip
            subprocess.run(["git", *identity, *words], cwd=folder, check=True)
        done = subprocess.run(
            [sys.executable, ROOT / "jobs" / "run.py", "code.bundle", "v1", "build"],
            cwd=tmp_path, env=os.environ | {"UV": str(uv)}, capture_output=True, text=True,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, content), done.stderr
        (clone / "runs").mkdir(exist_ok=True)
        (clone / "runs" / content).touch()
    assert {path.name for path in (clone / "runs").iterdir()} == {"one", "two"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_command_which_ends_by_itself(
    number: signal.Signals, source: Path, tmp_path: Path
) -> None:
    uv = tmp_path / "uv"
    uv.write_text(f"""#!{sys.executable}
import signal, sys
stops = {{signal.SIGTERM, signal.SIGINT}}
signal.pthread_sigmask(signal.SIG_BLOCK, stops)
print("started", flush=True)
received = signal.sigtimedwait(stops, 20)
print("journaled")
sys.exit(100 + received.si_signo if received else 1)
""")
    uv.chmod(0o755)
    job = subprocess.Popen(
        [sys.executable, ROOT / "jobs" / "run.py", source, "v1", "build"],
        cwd=tmp_path, env=os.environ | {"UV": str(uv)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert job.stdout and job.stdout.readline() == "started\n"
    job.send_signal(number)
    said, _ = job.communicate()
    assert (job.returncode, said) == (100 + number, "journaled\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["code.bundle", "v1"], "error: usage: run.py SOURCE TAG {build,merge,train,evaluate,annotate} OPTIONS"),
        (["no.bundle", "v1", "train"], "error: no.bundle cannot be cloned at 'v1': give an address or a bundle"),
    ],
)
def test_wrong_arguments_are_one_line(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "jobs" / "run.py", *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith(said) and not [*tmp_path.iterdir()]


def test_hf_accepts_every_line_of_the_page(tmp_path: Path) -> None:
    """`--dry-run` reads the options, flavor, time and volumes of a line, and sends nothing."""
    lines = [words for block in blocks(ROOT / "docs" / "jobs.md", "bash") for words in block.commands]
    jobs = [words for words in lines if words[:4] == ["hf", "jobs", "uv", "run"]]
    assert [words[words.index("jobs/run.py") + 3] for words in jobs] == ["build", "train", "evaluate", "annotate"]
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": "hf_x"}
    for words in jobs:
        hf = [sys.executable, "-m", "huggingface_hub.cli.hf", "jobs", "uv", "run", "--dry-run", *words[4:]]
        done = subprocess.run(hf, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0 and "not submitted" in done.stdout + done.stderr, done.stderr
        assert "--timeout" in words and words[words.index("--secrets") + 1] == "HF_TOKEN"
