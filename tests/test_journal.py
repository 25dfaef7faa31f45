"""The journal: paid once, repaired after a crash, held by one process."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dataset_builder.teacher import journal as journal_module
from dataset_builder.teacher.journal import Journal
from dataset_builder.teacher.requests import request_key
from fake_teacher import FakeTeacher
from open_ner.tools.errors import UserError

ROOT = Path(__file__).parent.parent
# written by `python -m dataset_builder` of commit 552559b, for the variants type and definition of these passages
OLD_JOURNAL = ROOT / "tests" / "data" / "journal_552559b.jsonl"
OLD_PASSAGES = [
    "Zoë Åberg opened a bakery in Malmö in 2019.",
    "The Kestrel 9 landed near Lake Orme; its crew “slept” until noon.",
    "Tokyo (東京) hosted the fair, and Ravi Menon sold 300 lamps.",
    "Nothing much happened that day, or so they said \\ wrote.",
]


def record(number: int) -> dict:
    return {"key": f"k{number}", "passage_id": f"p{number}", "reply": f"réply\n{number}", "model": "m"}


def replied(journal: Journal) -> set[str]:
    """The keys of all replies, which the index of the journal must agree on."""
    keys = {record["key"] for record in journal.records()}
    assert len(journal) == len(keys) and all(key in journal for key in keys)
    return keys


def written(path: Path, count: int) -> Path:
    with Journal(path) as journal:
        for number in range(count):
            journal.append(record(number))
    return path


def test_replies_come_back_verbatim_and_a_second_run_adds_to_them(tmp_path: Path) -> None:
    path = written(tmp_path / "journal.jsonl", 3)
    with Journal(path) as journal:
        assert replied(journal) == {"k0", "k1", "k2"}
        journal.append(record(3))
        assert [line["reply"] for line in journal.records()] == [f"réply\n{i}" for i in range(4)]
    header = json.loads(path.read_text().splitlines()[0])
    assert header["journal"] == 1


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_last_line_is_repaired(cut: int, tmp_path: Path) -> None:
    path = written(tmp_path / "journal.jsonl", 3)
    path.write_bytes(path.read_bytes()[:-cut])
    with Journal(path) as journal:
        assert replied(journal) == {"k0", "k1"} and journal.damaged == 0
        journal.append(record(2))
    with Journal(path) as journal:
        assert replied(journal) == {"k0", "k1", "k2"} and journal.damaged == 0


def test_a_damaged_line_is_counted_and_its_answer_asked_again(tmp_path: Path) -> None:
    path = written(tmp_path / "journal.jsonl", 3)
    lines = path.read_bytes().split(b"\n")
    lines[2] = lines[2].replace(b"ply", b"plx")
    path.write_bytes(b"\n".join(lines))
    with Journal(path) as journal:
        assert replied(journal) == {"k0", "k2"} and journal.damaged == 1


@pytest.mark.parametrize(
    "content", [b'{"some": "json"}\n', b"\xff\xfe\x00\n", b"\n\n", b'{"a": 1, "checksum": "x"}\n']
)
def test_rubbish_is_passed_over_and_kept(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(content)
    with Journal(path) as journal:
        journal.append(record(1))
        assert [line["key"] for line in journal.records()] == ["k1"]
    assert path.read_bytes().startswith(content)


def test_a_checksum_that_is_not_ascii_is_a_damaged_line(tmp_path: Path) -> None:
    path = written(tmp_path / "journal.jsonl", 2)
    lines = path.read_bytes().split(b"\n")
    lines[1] = lines[1][:-4] + b"\xff" + lines[1][-3:]
    path.write_bytes(b"\n".join(lines))
    with Journal(path) as journal:
        assert replied(journal) == {"k1"} and journal.damaged == 1


def test_a_journal_of_another_format_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.note({"journal": 99})
    with pytest.raises(UserError, match="choose another --output_dir"), Journal(path):
        pass


def test_a_journal_held_by_another_process_is_rejected_until_that_ends(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    code = f"""
import sys
from pathlib import Path
from dataset_builder.teacher.journal import Journal
with Journal(Path({str(path)!r})):
    print("held", flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", code]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    assert other.stdout is not None and other.stdout.readline() == b"held\n"
    with pytest.raises(UserError, match="another process"), Journal(path):
        pass
    other.communicate()
    assert other.returncode == 0
    with Journal(path) as journal:
        journal.append(record(1))


def test_a_second_opening_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path), pytest.raises(UserError, match="another process"), Journal(path):
        pass


def test_what_was_appended_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    code = f"""
import os, signal
from pathlib import Path
from dataset_builder.teacher.journal import Journal
with Journal(Path({str(path)!r})) as journal:
    for n in range(50):
        journal.append({{"key": f"k{{n}}", "passage_id": "p", "reply": "r", "model": "m"}})
    os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert ended.returncode == -signal.SIGKILL
    with Journal(path) as journal:
        assert len(journal) == 50


def test_a_file_that_is_not_a_journal_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b"precious, without a line end")
    with pytest.raises(UserError, match="not a journal"), Journal(path):
        pass
    assert path.read_bytes() == b"precious, without a line end"


def test_a_key_changes_with_model_parameters_and_messages() -> None:
    messages = [{"role": "user", "content": "x"}]
    keys = {
        request_key("m", {"temperature": 0}, messages),
        request_key("n", {"temperature": 0}, messages),
        request_key("m", {"temperature": 1}, messages),
        request_key("m", {"temperature": 0}, [{"role": "user", "content": "y"}]),
    }
    assert len(keys) == 4
    assert request_key("m", {"a": 1, "b": 2}, messages) == request_key("m", {"b": 2, "a": 1}, messages)


def test_a_journal_of_an_older_version_opens_and_nothing_is_paid_again(tmp_path: Path, tiny_student: Path) -> None:
    corpus, run = tmp_path / "corpus.jsonl", tmp_path / "run"
    corpus.write_text("".join(json.dumps({"id": f"p{i}", "text": t}) + "\n" for i, t in enumerate(OLD_PASSAGES)))
    run.mkdir()
    shutil.copy(OLD_JOURNAL, run / "journal.jsonl")
    with FakeTeacher({}) as teacher:
        ended = subprocess.run(
            [
                sys.executable, "-m", "dataset_builder", "--config", "recipes/build/your_corpus.yaml",
                "--corpus.path", str(corpus), "--corpus.tokenizer", str(tiny_student), "--output_dir", str(run),
                "--base_url", teacher.base_url, "--model", "fake-teacher", "--teacher.variants", "[type, definition]",
            ],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), "OPENAI_API_KEY": "sk-x"}, text=True,
            capture_output=True,
        )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert teacher.requests == [] and (run / "journal.jsonl").read_bytes() == OLD_JOURNAL.read_bytes()
    stats = json.loads((run / "dataset" / "stats.json").read_text())
    assert stats["answers"]["paid"] == 8
    counts = [stats["variants"][variant]["counts"] for variant in ("type", "definition")]
    assert [(c["replies"], c["entities_read"], c["no_entities"]) for c in counts] == [(4, 8, 1), (4, 8, 1)]


def test_replies_are_brought_to_the_disk_within_a_tenth_of_a_second_or_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = threading.Event()
    monkeypatch.setattr(journal_module.os, "fsync", lambda file: synced.set())
    with Journal(tmp_path / "journal.jsonl") as journal:
        synced.clear()
        journal.append(record(1))
        assert synced.wait(60)


def test_a_disk_that_fails_is_told_with_the_next_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = threading.Event()

    def fail(file: int) -> None:
        failed.set()
        raise OSError(errno.EIO, "Input/output error")

    with Journal(tmp_path / "journal.jsonl") as journal, monkeypatch.context() as patch:
        patch.setattr(journal_module.os, "fsync", fail)
        journal.append(record(1))
        assert failed.wait(60)
        with pytest.raises(OSError, match="Input/output"):
            for number in range(2, 6000):  # it is noted within moments
                journal.append(record(number))
                time.sleep(0.01)
