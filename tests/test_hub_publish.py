"""`python -m hub.publish` against the stand-in: what goes up, tags, repeated and interrupted uploads, bad input."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fake_hub import FakeHub, File, HubError
from hub.contents import SEARCHED, check_content
from hub.publish import publish_folder
from open_ner.tools.errors import UserError

ROOT = Path(__file__).parent.parent
CARD = "---\nlicense: apache-2.0\n---\n\n# A student\n"
SPACE = "---\ntitle: Demo\nsdk: gradio\napp_file: app.py\n---\n"
REPO = "org/ner"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        yield hub


def publish(hub: FakeHub, kind: str, folder: Path, *more: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "hub.publish", kind, str(folder), REPO, *more],
        capture_output=True, text=True, cwd=ROOT, env=hub.env(folder.parent / "home") | environment,
    )  # fmt: skip


def published(*given: Any, **environment: str) -> str:
    ended = publish(*given, **environment)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def refused(*given: Any, **environment: str) -> str:
    """The one line of an upload that fails, without the progress bars before it."""
    ended = publish(*given, **environment)
    assert ended.returncode == 2 and "Traceback" not in ended.stderr, ended.stderr
    return ended.stderr.strip().splitlines()[-1]


def write(folder: Path, *names: str, **contents: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(contents.get(name.split(".")[0], f"contents of {name}"))
    return folder


@pytest.fixture
def student(tmp_path: Path) -> Path:
    return write(tmp_path / "student", "README.md", "training.json", "config.json", "a.safetensors", README=CARD)


JUNK = (".env", ".cache/huggingface/x", "__pycache__/app.cpython-311.pyc", "README.md.partial", "runs/events.1")
KINDS = {
    "dataset": (
        ["README.md", "stats.json", "types.json", "type/train-00000-of-00001.parquet", "rejects/replies.parquet",
         "figures/sources.png"],
        ["notes.txt", "journal.jsonl"],
    ),
    "model": (
        ["README.md", "training.json", "config.json", "model-00001-of-00002.safetensors", "tokenizer.json",
         "merges.txt", "tokenizer.model", "chat_template.jinja", "pipeline.py", "recipe.yaml",
         "results/sample-sample-free.json", ".eval_results/sample.yaml", "figures/learning_curve.png", "LICENSE"],
        ["optimizer.pt", "training_args.bin", "data/passages.jsonl", "journal.jsonl"],
    ),
    "gguf": (["README.md", "gguf.json", "student-q8_0.gguf"], ["student.log"]),
    "results": (
        ["table.md", "details.md", "figures/f1.png", "org--student/sample-sample-free/results.json"],
        ["org--student/sample-sample-free/predictions.jsonl"],
    ),
    "space": (["README.md", "app.py", "requirements.txt", "examples/law.txt"], []),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_exactly_this_goes_up(kind: str, hub: FakeHub, tmp_path: Path) -> None:
    files, left = KINDS[kind]
    folder = write(tmp_path / "folder", *files, *left, *JUNK, "checkpoint-5/training.json",
                   README=SPACE if kind == "space" else CARD)  # fmt: skip
    if kind == "space":
        (folder / "checkpoint-5" / "training.json").unlink()
    said = published(hub, kind, folder)
    repo = {"results": "dataset", "gguf": "model"}.get(kind, kind)
    assert set(hub.files(repo, REPO)) == {*files, *(["README.md"] if kind == "results" else [])}
    assert hub.private(repo, REPO)
    assert all(name in said.split("not sent: ")[1] for name in left) if left else "not sent" not in said
    if kind == "results":
        assert "contents of table.md" in hub.files(repo, REPO)["README.md"].decode()


def test_the_metric_goes_up_and_is_loaded_by_name(hub: FakeHub, tmp_path: Path) -> None:
    assert "/spaces/org/ner (private)" in published(
        hub, "metric", ROOT / "metrics" / "entity_f1", HF_HOME=str(tmp_path)
    )
    assert set(hub.files("space", REPO)) == {"README.md", "app.py", "entity_f1.py", "requirements.txt"}


def test_a_repository_from_its_first_version_to_the_second(hub: FakeHub, student: Path) -> None:
    said = published(hub, "model", student, "--tag", "v1")
    repo = hub.repos["model", REPO]
    first = repo.commits[-1]
    counts = "4 files sent, 0 unchanged, 0 deleted"
    assert said == f"published {hub.url}/{REPO} (private), revision {first.sha}, tag v1: {counts}\n"
    assert [commit.title for commit in repo.commits] == ["initial commit", "Upload model by uniner-distill"]
    assert repo.refs == {"v1": first.sha}

    again = published(hub, "model", student, "--tag", "v1")
    assert again.endswith(f"revision {first.sha}, tag v1: 0 files sent, 4 unchanged, 0 deleted\n")
    by_hand = repo.add_commit("by hand", {**first.files, "NOTES.md": File(b"mine", lfs=False)})
    (student / "a.safetensors").rename(student / "b.safetensors")
    assert refused(hub, "model", student, "--tag", "v1").startswith(
        f"error: {REPO} has a tag 'v1' already, of revision"
    )
    assert repo.commits[-1] is by_hand
    repo.commits.pop()  # of the tag's own revision no other version gets its name
    assert refused(hub, "model", student, "--tag", "v1").startswith(f"error: {REPO} has a tag 'v1' already")
    assert repo.commits[-1] is first
    repo.commits.append(by_hand)

    hub.requests.clear()
    said = published(hub, "model", student, "--tag", "v2", "--public")
    assert said.endswith(f"(public), revision {repo.refs['v2']}, tag v2: 1 files sent, 3 unchanged, 1 deleted\n")
    assert set(hub.files("model", REPO)) == {"README.md", "training.json", "config.json", "b.safetensors", "NOTES.md"}
    assert not [path for method, path in hub.requests if method == "PUT" and path.startswith("/lfs/")]  # renamed only
    assert not repo.private and repo.refs["v1"] == first.sha


def test_an_interrupted_upload_is_completed_by_the_same_command(
    hub: FakeHub, student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise HubError(403, "storage is full")

    with monkeypatch.context() as patch:
        patch.setattr(FakeHub, "commit", stop)
        line = refused(hub, "model", student, "--tag", "v1")
    assert line.startswith(f"error: {REPO}: the upload did not finish: ") and "storage is full" in line
    assert hub.files("model", REPO) == {}
    with monkeypatch.context() as patch:
        patch.setattr(FakeHub, "tag", stop)
        line = refused(hub, "model", student, "--tag", "v1")
    repo = hub.repos["model", REPO]
    assert f"revision {repo.commits[-1].sha} is published, but not yet its tag" in line and not repo.refs
    published(hub, "model", student, "--tag", "v1")
    assert len(repo.commits) == 2 and repo.refs == {"v1": repo.commits[-1].sha}
    assert sum(path.startswith("/lfs/") for _, path in hub.requests) == 1  # the weights were sent once


def test_of_two_pushes_at_once_the_later_one_stops_and_mixes_nothing(
    hub: FakeHub, student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(hub, "model", student)
    (student / "config.json").write_text("{}")
    with monkeypatch.context() as patch:
        preupload = FakeHub.preupload

        def overtaken(self: FakeHub, repo: Any, *given: Any) -> dict:
            answer = preupload(self, repo, *given)
            repo.add_commit("theirs", {**repo.commits[-1].files, "config.json": File(b"theirs", lfs=False)})
            return answer

        patch.setattr(FakeHub, "preupload", overtaken)
        line = refused(hub, "model", student)
    assert "somebody else pushed meanwhile" in line and line.endswith("run the same command again")
    assert hub.files("model", REPO)["config.json"] == b"theirs"
    assert "1 files sent" in published(hub, "model", student)
    assert hub.files("model", REPO)["config.json"] == b"{}"


def test_a_folder_can_be_published_under_two_names(hub: FakeHub, student: Path) -> None:
    card = student / "README.md"
    card.write_text(CARD + 'load("path/or/hub-id", revision="commit-or-tag")\n')
    written = card.read_text()
    published(hub, "model", student, "--tag", "v1")
    assert b'load("org/ner", revision="v1")' in hub.files("model", REPO)["README.md"]
    assert card.read_text() == written
    (student / "config.json").write_text("{}")
    published(hub, "model", student)  # without a tag, the newest one stays named
    assert b'load("org/ner", revision="v1")' in hub.files("model", REPO)["README.md"]


def test_what_the_hub_does_not_accept_is_one_line(hub: FakeHub, student: Path) -> None:
    card = student / "README.md"
    card.write_text(CARD.replace("apache-2.0", "[1]"))
    line = refused(hub, "model", student)
    assert "does not accept its metadata: " in line and str(card) in line
    card.write_text(CARD)
    assert "does not accept the token" in refused(hub, "model", student, HF_TOKEN="hf_other")
    assert not hub.repos
    unreachable = refused(hub, "model", student, HF_ENDPOINT="http://127.0.0.1:9")
    assert "http://127.0.0.1:9 cannot be reached" in unreachable and unreachable.endswith("run the same command again")
    published(hub, "model", student)
    (student / "gguf.json").write_text("{}")
    before = hub.files("model", REPO)
    assert "has other content (3 files, such as a.safetensors)" in refused(hub, "gguf", student)
    assert hub.files("model", REPO) == before


@pytest.mark.parametrize(
    ("change", "given", "message"),
    [
        ({}, ("org/a b",), "'org/a b' is not a repository's name .*: write org/name"),
        ({}, ("ner",), "'ner' is not a repository's name: write org/name"),
        ({}, (REPO, "model", True, "main"), "--tag 'main' is not a version's name"),
        ({}, (REPO, "dataset"), "student has no stats.json or annotation.json: a dataset is the folder"),
        ({}, (REPO, "space"), "student has no app.py"),
        ({"README.md": "---\nlicense: [a\n---\n"}, (REPO,), "README.md: its metadata, .* is invalid"),
        ({"README.md": "---\n- a\n---\n"}, (REPO,), "README.md: its metadata, .* is invalid"),
        ({"app.py": "", "README.md": CARD}, (REPO, "space"), "sdk is None in its metadata: write sdk: gradio"),
        ({"config.json": "sk-0123456789abcdef"}, (REPO,), "config.json contains a token or key"),
    ],
)
def test_a_mistake_is_named_before_the_hub_is_asked(
    change: dict, given: tuple, message: str, student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    monkeypatch.setenv("SOME_API_KEY", "sk-0123456789abcdef")
    for name, content in change.items():
        (student / name).write_text(content)
    with pytest.raises(UserError, match=message):
        publish_folder(student, *given)


def test_what_is_not_searched_for_secrets_is_what_the_page_says(
    student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = " ".join((ROOT / "docs" / "publish.md").read_text().split())
    assert "Keys of fewer than 16 characters are not searched for, nor files above 10 MiB" in page
    path = student / "config.json"
    monkeypatch.setenv("SOME_API_KEY", "sk-0123456789ab")
    path.write_text("sk-0123456789ab")
    check_content({"config.json": path}, "model")
    monkeypatch.setenv("SOME_API_KEY", "sk-0123456789abc")
    path.write_bytes(b"sk-0123456789abc".ljust(SEARCHED))
    with pytest.raises(UserError, match="contains a token or key"):
        check_content({"config.json": path}, "model")
    path.write_bytes(b"sk-0123456789abc".ljust(SEARCHED + 1))
    check_content({"config.json": path}, "model")


def test_without_a_token_or_offline_the_line_says_what_to_set(
    student: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert os.environ["HF_HUB_OFFLINE"] == "1"  # conftest
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    with pytest.raises(UserError, match="no Hub token: set HF_TOKEN"):
        publish_folder(student, REPO)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        publish_folder(student, REPO)
