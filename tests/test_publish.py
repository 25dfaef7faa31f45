"""Publishing a dataset folder over HTTP: private, incremental, without stale files, loadable by name, resumable."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataset_builder import __main__ as builder
from fake_hub import FakeHub, HubError
from hub.dataset_card import write_dataset_card
from open_ner.tools.errors import UserError
from test_build import REPLIES, TEACHER, answer, run  # noqa: F401  (a fixture)

ROOT = Path(__file__).parent.parent
REPO = "org/uniner-distill"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        yield hub


BUILD = [sys.executable, "-m", "dataset_builder", "--stage", "build", "--push_to_hub", REPO]


def push(hub: FakeHub, recipe: Path, *more: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*BUILD, "--config", str(recipe), *more],
        capture_output=True, text=True, cwd=ROOT, env=hub.env(recipe.parent / "home") | environment,
    )  # fmt: skip


@pytest.fixture
def recipe(run: tuple, tmp_path: Path) -> Path:  # noqa: F811
    config, _ = run
    path = tmp_path / "recipe.yaml"
    corpus = {"path": config.corpus.path, "tokenizer": config.corpus.tokenizer}
    teacher = {"model": TEACHER.model, "variants": list(REPLIES)}
    dataset = {"validation_one_in": 4}
    path.write_text(
        json.dumps({"corpus": corpus, "teacher": teacher, "dataset": dataset, "output_dir": config.output_dir})
    )
    return path


def test_a_second_push_sends_only_what_changed_and_deletes_what_is_gone(hub: FakeHub, recipe: Path) -> None:
    first = push(hub, recipe, PYTHONHASHSEED="1")
    assert first.returncode == 0, first.stderr
    assert hub.private("dataset", REPO)
    said = f"published {hub.url}/datasets/{REPO} (private), revision {hub.repos['dataset', REPO].commits[-1].sha}: "
    assert said in first.stdout
    before = hub.files("dataset", REPO)
    local = recipe.parent / "run" / "dataset"
    made = {str(p.relative_to(local)): p.read_bytes() for p in local.rglob("*") if p.is_file()}
    made["README.md"] = made["README.md"].replace(b"path/to/this/folder", REPO.encode())
    assert before == made
    assert f'load_dataset("{REPO}"' in before["README.md"].decode()
    hub.requests.clear()
    again = push(hub, recipe, PYTHONHASHSEED="2")  # results may not depend on the order of a set
    assert again.returncode == 0, again.stderr
    assert not [path for method, path in hub.requests if method == "PUT"]  # no LFS bytes
    assert hub.files("dataset", REPO) == before
    repo = hub.repos["dataset", REPO]
    repo.add_commit("by hand", {**repo.commits[-1].files, "LICENSE": repo.commits[-1].files["README.md"]})
    hub.requests.clear()
    changed = push(hub, recipe, "--dataset.validation_one_in", "0")
    assert changed.returncode == 0, changed.stderr
    files = hub.files("dataset", REPO)
    sent = Counter(path for method, path in hub.requests if method == "PUT")
    assert sent and max(sent.values()) == 1
    assert not [name for name in files if "validation" in name] and "LICENSE" in files
    assert files["rejects/replies.parquet"] == before["rejects/replies.parquet"]
    kept = set(hub.lfs) & {path.removeprefix("/lfs/") for path in sent}
    assert len(kept) == len(sent) < sum(name.endswith((".parquet", ".png")) for name in files)


def test_an_interrupted_push_goes_on_where_it_stopped(
    hub: FakeHub, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> dict:
        raise HubError(403, "not now")

    with monkeypatch.context() as patch:
        patch.setattr(FakeHub, "commit", refuse)
        stopped = push(hub, recipe)
    assert stopped.returncode == 2 and "not now" in stopped.stderr.splitlines()[-1]
    assert "Traceback" not in stopped.stderr
    sent = {path for method, path in hub.requests if method == "PUT"}
    assert sent and hub.files("dataset", REPO) == {}
    hub.requests.clear()
    ended = push(hub, recipe)
    assert ended.returncode == 0, ended.stderr
    assert not sent & {path for method, path in hub.requests if method == "PUT"}
    assert "type/train-00000-of-00001.parquet" in hub.files("dataset", REPO)


def test_a_dataset_is_not_uploaded_while_questions_are_open_unless_that_is_wanted(hub: FakeHub, recipe: Path) -> None:
    folder = recipe.parent / "run"
    answer(folder, skip={("type", "p3"), ("definition", "p3"), ("definition", "p7")})
    refused = push(hub, recipe)
    assert refused.returncode == 1 and not hub.repos and not (folder / "dataset").exists()
    [said] = refused.stderr.strip().splitlines()
    assert said.startswith("error: 3 questions have no reply, so nothing was built or uploaded: run the same command")
    wanted = push(hub, recipe, "--allow_incomplete")
    assert wanted.returncode == 0, wanted.stderr
    assert "type/train-00000-of-00001.parquet" in hub.files("dataset", REPO)


def test_a_repository_without_an_owner_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = ["--config", "recipes/build/sample.yaml", "--output_dir", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", ["dataset_builder", *recipe, "--push_to_hub", "my-dataset"])
    with pytest.raises(UserError, match="'my-dataset' is not a repository's name: write org/name"):
        builder.main()
    assert not (tmp_path / "run").exists()


def test_a_hub_that_cannot_be_reached_gives_a_one_line_error(hub: FakeHub, recipe: Path) -> None:
    ended = push(hub, recipe, HF_ENDPOINT="http://127.0.0.1:9")
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    assert "cannot be reached" in ended.stderr.splitlines()[-1]
    assert (recipe.parent / "run" / "dataset" / "README.md").exists()


def test_folder_hub_and_stream_hold_the_same_rows(hub: FakeHub, recipe: Path, tmp_path: Path) -> None:
    ended = push(hub, recipe)
    assert ended.returncode == 0, ended.stderr
    code = f"""
from datasets import get_dataset_config_names, load_dataset
folder, repo = {str(recipe.parent / "run" / "dataset")!r}, {REPO!r}
names = get_dataset_config_names(repo)
assert names == get_dataset_config_names(folder) == ["type", "definition", "annotations"], names
for name in names:
    local, remote = load_dataset(folder, name), load_dataset(repo, name)
    assert list(local) == list(remote) == ["train", "validation"]
    for split in local:
        rows = list(local[split])
        assert rows and rows == list(remote[split])
        assert rows == list(load_dataset(repo, name, split=split, streaming=True))
        assert rows == list(load_dataset(folder, name, split=split, streaming=True))
        assert remote[split].info.splits[split].num_examples == len(rows)
assert load_dataset(repo, split="train").column_names[3] == "messages"  # the default config
"""
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=hub.env(tmp_path / "fresh"), cwd=tmp_path
    )
    assert loaded.returncode == 0, loaded.stderr[-3000:]


def test_the_card_is_written_from_the_statistics_alone(run: tuple, tmp_path: Path) -> None:  # noqa: F811
    from dataset_builder.build import build

    config, folder = run
    dataset = build(config, folder, write_dataset_card)
    written = (dataset / "README.md").read_text()
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "stats.json").write_bytes((dataset / "stats.json").read_bytes())
    write_dataset_card(tmp_path / "copy")
    assert (tmp_path / "copy" / "README.md").read_text() == written
