"""The stage `annotate` in shards: each has a journal and a part of the cost; a merge loses and repeats nothing."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from command_line.recipes import read_recipe
from dataset_builder import __main__ as builder
from dataset_builder import merge
from dataset_builder.config import BuildConfig
from dataset_builder.corpus.cutting import Passage
from dataset_builder.review import __main__ as review
from dataset_builder.teacher.journal import Journal
from dataset_builder.teacher.journals import find_journals
from dataset_builder.teacher.stage import fetch_replies
from fake_batch import FakeBatch
from fake_teacher import FakeTeacher
from open_ner.tools.errors import UserError

REPLY = '[("Ada", "person")]'
COUNT = 24
Command = Callable[..., None]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Command]:
    """The folder of a run with merged passages, and its commands."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    folder = tmp_path / "run"
    folder.mkdir()
    texts = [f"Passage number {i} about Ada." for i in range(COUNT)]
    passages = [Passage(f"p{i}", text, "", f"p{i}", "", 0, len(text), 6) for i, text in enumerate(texts)]
    (folder / "passages.jsonl").write_text("".join(json.dumps(vars(passage)) + "\n" for passage in passages))
    (folder / "rejected_passages.jsonl").touch()
    teacher = {"model": "m", "price_input": 10.0, "price_output": 50.0, "max_answer_tokens": 100}
    recipe = {"corpus": {"path": "nowhere.jsonl"}, "output_dir": str(folder), "teacher": teacher}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))

    def command(*options: str, endpoint: FakeTeacher | None = None) -> None:
        module = builder if "--stage" in options else merge
        url = ["--base_url", endpoint.base_url] if endpoint else []
        monkeypatch.setattr(sys, "argv", ["", "--config", str(tmp_path / "recipe.yaml"), *url, *options])
        module.main()

    return folder, command


def records(folder: Path) -> list[str]:
    with Journal(folder / "journal.jsonl") as journal:
        assert not journal.damaged
        return [record["key"] for record in journal.records()]


def test_shards_and_merge_pay_nothing_twice_and_lose_nothing(
    run: tuple[Path, Command], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, command = run
    with FakeTeacher(lambda request: REPLY) as teacher:
        first = (folder / "passages.jsonl").read_text().splitlines()[:5]
        config = read_recipe(BuildConfig, folder.parent / "recipe.yaml").teacher
        config.base_url = teacher.base_url
        with Journal(folder / "journal.jsonl") as journal:  # of an earlier run without shards
            fetch_replies([Passage(**json.loads(line)) for line in first], journal, config)
        for shard in ("1/3", "3/3"):
            command("--stage", "annotate", "--shard", shard, endpoint=teacher)
        with pytest.raises(UserError, match="shards 2/3 have no journal: run --stage annotate --shard 2/3"):
            command(endpoint=teacher)  # with the options of the shards
        with pytest.raises(UserError, match="journal-1-of-3.jsonl is of another number of shards.*merge"):
            command("--stage", "annotate", "--shard", "1/2", endpoint=teacher)
        for stage in ("annotate", "build"):
            with pytest.raises(UserError, match="journal-1-of-3.jsonl .*not merged"):
                command("--stage", stage, endpoint=teacher)
        with Journal(folder / "journal.jsonl"), pytest.raises(UserError, match="another process"):
            command("--stage", "annotate", "--shard", "2/3", endpoint=teacher)  # beside a merge
        command("--stage", "annotate", "--shard", "2/3", endpoint=teacher)
        command("--stage", "annotate", "--shard", "2/3", endpoint=teacher)  # an engine runs it again
        with monkeypatch.context() as patch:  # killed after the new journal has its name
            patch.setattr(Path, "unlink", lambda *_, **__: sys.exit(9))
            with pytest.raises(SystemExit):
                command()
        assert len(find_journals(folder)) == 3
        command()
        command()  # an engine starts all steps again
        for _ in range(2):
            command(
                "--stage", "annotate", "--shard", "1/3", endpoint=teacher
            )  # and one alone, which finds all replies
            command("--stage", "annotate", endpoint=teacher)
            command()
    assert "the journals of 3 shards were merged already" in capsys.readouterr().out
    asked = [request["messages"][-1]["content"] for request in teacher.requests]
    assert len(asked) == len(set(asked)) == COUNT
    keys = records(folder)
    assert len(keys) == len(set(keys)) == COUNT
    assert [path.name for path in folder.glob("*journal*")] == ["journal.jsonl"]


def test_shards_share_max_cost_and_what_a_kill_left_in_flight_stays_counted(
    run: tuple[Path, Command], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, command = run
    with Journal(folder / "journal.jsonl") as journal:
        journal.note({"unread": 0.2})
    with FakeTeacher(lambda request: REPLY) as teacher:
        for shard in ("1/2", "2/2"):
            with pytest.raises(SystemExit, match="questions have no reply"):
                command("--stage", "annotate", "--shard", shard, "--max_cost", "0.23", endpoint=teacher)
            assert f"shard {shard}: " in (said := capsys.readouterr().out) and "for at most $0.0150" in said
    assert 2 <= len(teacher.requests) < COUNT
    with Journal(folder / "journal-1-of-2.jsonl") as journal:
        journal.note({"in_flight": 0.5})
        journal.note({"unread": 0.125})
        spent = journal.spent.cost
    with Journal(folder / "journal-2-of-2.jsonl") as journal:
        journal.note({"in_flight": 0.0})
        spent += journal.spent.cost
    with pytest.raises(UserError, match="questions of the shards 1/2, 2/2 have no reply: .* --allow_incomplete"):
        command()
    assert len(find_journals(folder)) == 2 and not records(folder)
    command("--allow_incomplete")
    with Journal(folder / "journal.jsonl") as journal:
        assert len(journal) == len(teacher.requests) and journal.spent.cost == pytest.approx(spent)
        assert journal.unread == pytest.approx(0.2 + 0.5 + 0.125)


def test_a_shard_uses_batches_of_its_own_and_no_batch_under_way_is_forgotten(run: tuple[Path, Command]) -> None:
    folder, command = run
    options = ["--stage", "annotate", "--batch", "--teacher.batch_poll_seconds", "0.01", "--shard"]
    under_way = folder / "batches" / "part-1.jsonl"
    under_way.parent.mkdir()
    under_way.touch()
    provider = FakeBatch(lambda request: REPLY)
    with provider:
        with pytest.raises(UserError, match="a batch of the run without shards may be under way"):
            command(*options, "1/2", endpoint=provider)
        shutil.rmtree(under_way.parent)
        for shard in ("1/2", "2/2"):
            command(*options, shard, endpoint=provider)
            assert (folder / f"batches-{shard[0]}-of-2" / "state.json").exists()
        assert len(provider.paid) == COUNT and set(provider.paid.values()) == {1}
        part = folder / "batches-2-of-2" / "part-1.jsonl"
        part.touch()
        with pytest.raises(UserError, match="shards 2/2 have batches that may be under way"):
            command("--allow_incomplete")
        part.unlink()
        command()
    assert set(records(folder)) == set(provider.paid) and not list(folder.glob("batches*"))


def test_a_journal_under_the_name_of_another_shard_is_not_merged(run: tuple[Path, Command]) -> None:
    folder, command = run
    with FakeTeacher(lambda request: REPLY) as teacher:
        command("--stage", "annotate", "--shard", "1/2", endpoint=teacher)
    shutil.copy(folder / "journal-1-of-2.jsonl", folder / "journal-2-of-2.jsonl")
    with pytest.raises(UserError, match="journal-2-of-2.jsonl is not the journal of shard 2/2"):
        command()
    assert not records(folder)


def annotate_shards(command: Command, teacher: FakeTeacher, *options: str) -> None:
    for shard in ("1/2", "2/2"):
        command("--stage", "annotate", "--shard", shard, *options, endpoint=teacher)


def test_what_shards_ask_after_an_interrupted_merge_is_not_lost(
    run: tuple[Path, Command], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, command = run
    with FakeTeacher(lambda request: REPLY) as teacher:
        annotate_shards(command, teacher)
        with monkeypatch.context() as patch:  # killed after the new journal has its name
            patch.setattr(Path, "unlink", lambda *_, **__: sys.exit(9))
            with pytest.raises(SystemExit):
                command()
        other = ["--teacher.temperature", "0.5"]  # asks all again
        annotate_shards(command, teacher, *other)
        command(*other)
    keys = records(folder)
    assert len(teacher.requests) == len(keys) == len(set(keys)) == 2 * COUNT


def test_a_review_reads_the_recipe_of_merged_shards(
    run: tuple[Path, Command], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, command = run
    with FakeTeacher(lambda request: REPLY) as teacher:
        annotate_shards(command, teacher, "--teacher.temperature", "0.5")
        command("--teacher.temperature", "0.5", endpoint=teacher)
    monkeypatch.setattr(sys, "argv", ["", "export", "--run", str(folder), "--to", "jsonl", "--sample", "3"])
    review.main()
    assert len((folder / "review" / "tasks.jsonl").read_text().splitlines()) == 3
