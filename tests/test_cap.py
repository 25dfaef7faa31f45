"""What a teacher costs: bills without a readable answer, kills, missing usage, and what the command says of them."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataset_builder.config import TeacherConfig
from dataset_builder.teacher import asking as module
from dataset_builder.teacher.journal import Journal
from dataset_builder.teacher.records import ReplyCounts
from dataset_builder.teacher.stage import estimate, fetch_replies
from fake_teacher import FakeTeacher, completion
from made_up import passages
from open_ner.tools.errors import UserError

ROOT = Path(__file__).parent.parent
PRICES = {"price_input": 10.0, "price_output": 50.0, "max_answer_tokens": 100}
PAIRS = '[("Ada", "person"), ("London", "city")]'


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setattr(module, "backoff", lambda attempt: 0.0)


def ask(folder: Path, endpoint: FakeTeacher, count: int = 40, **options: Any) -> tuple[ReplyCounts, list[Any]]:
    options = {"base_url": endpoint.base_url, "model": "m", **PRICES, **options}
    with Journal(folder / "journal.jsonl") as journal:
        counts = fetch_replies(passages(count), journal, TeacherConfig(**options))
        return counts, list(journal.records())


def ceiling(folder: Path) -> float:
    with Journal(folder / "empty.jsonl") as journal:
        return estimate(passages(1), journal, TeacherConfig(model="m", **PRICES))[1]


def answer_with(**usage: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda request: {"body": {**completion(PAIRS, request), "usage": usage or None}}


@pytest.mark.parametrize("usage", [{}, {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}])
def test_a_reply_without_usage_costs_the_most_it_could(usage: dict[str, int], tmp_path: Path) -> None:
    most = ceiling(tmp_path)
    with FakeTeacher(answer_with(**usage)) as endpoint:
        counts, _ = ask(tmp_path, endpoint, max_cost=5.5 * most)
        again, _ = ask(tmp_path, endpoint, max_cost=5.5 * most)
    assert len(endpoint.requests) == 5 and again.paid == 0
    for said in (counts, again):
        assert said.cost_before + said.cost == pytest.approx(5 * most, rel=0.02)
        assert "is an upper bound" in str(said)


def test_thoughts_that_only_the_total_counts_are_paid(tmp_path: Path) -> None:
    with FakeTeacher(answer_with(prompt_tokens=50, completion_tokens=8, total_tokens=110)) as endpoint:
        counts, records = ask(tmp_path, endpoint, count=1)
    assert records[0]["usage"] == {"prompt_tokens": 50, "completion_tokens": 60}
    assert counts.cost == pytest.approx((50 * 10 + 60 * 50) / 1e6)


def test_what_was_paid_is_not_computed_again_at_todays_prices(tmp_path: Path) -> None:
    with FakeTeacher(answer_with(prompt_tokens=50, completion_tokens=20)) as endpoint:
        counts, _ = ask(tmp_path, endpoint, count=4)
        again, records = ask(tmp_path, endpoint, count=4, price_input=0.1, price_output=0.1)
    assert again.cost_before == pytest.approx(counts.cost) and counts.cost > 0 and not counts.bound
    assert {record["address"] for record in records} == {endpoint.base_url}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_cost": 1.0, "price_input": 0.0, "price_output": 0.0}, "price_input and price_output"),
        ({"max_cost": float("nan")}, "teacher.max_cost is nan"),
        ({"price_output": float("nan")}, "teacher.price_output is nan"),
        ({"price_input": -1.0}, "teacher.price_input is -1.0"),
        ({"concurrency": 0}, "teacher.concurrency is 0"),
        ({"parameters": {"n": 8}}, "n is 8"),
        ({"parameters": {"stream": True}}, "stream is True"),
        ({"parameters": {"max_tokens": None}}, "set no limit"),
        ({"parameters": {"max_tokens": 0.5}}, "teacher.parameters give 0.5 as the limit of a reply"),
        ({"max_answer_tokens": 0}, "teacher.max_answer_tokens or teacher.parameters give 0 as the limit of a reply"),
    ],
)
def test_options_under_which_the_cap_cannot_hold_give_a_one_line_error(
    options: Any, said: str, tmp_path: Path
) -> None:
    with FakeTeacher({}) as endpoint, pytest.raises(UserError, match=re.escape(said)):
        ask(tmp_path, endpoint, **options)
    assert endpoint.requests == []


def test_the_larger_of_two_limits_counts(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.jsonl") as journal:
        config = TeacherConfig(model="m", **PRICES, parameters={"max_completion_tokens": 2000})
        assert estimate(passages(1), journal, config)[1] > 2000 * 50 / 1e6


class Trouble:
    """Replies of which some are billed and not readable; `most` is the largest bill of one."""

    def __init__(self, kind: str, most: float) -> None:
        self.kind, self.most, self.arrival, self.ended = kind, most, itertools.count(1), threading.Event()

    def __call__(self, request: dict[str, Any]) -> Any:
        if next(self.arrival) % 2:
            usage = {"prompt_tokens": 150, "completion_tokens": 99}
            return {"body": {**completion(PAIRS, request), "usage": usage}}
        if self.kind == "hang":
            self.ended.wait(60)
        if self.kind == "reset":
            return {"raw": '{"choices": [', "headers": {"Content-Length": 999, "Connection": "close"}}
        return {"raw": '{"choices": ['} if self.kind == "json" else "" if self.kind == "empty" else PAIRS


@pytest.mark.parametrize("kind", ["hang", "reset", "json", "empty"])
def test_bills_without_a_readable_answer_count_and_are_remembered(kind: str, tmp_path: Path) -> None:
    most = ceiling(tmp_path)
    cap, trouble = 20.5 * most, Trouble(kind, most)
    options = {"max_cost": cap, "concurrency": 8, "timeout": 2.0 if kind == "hang" else 60.0}
    with FakeTeacher(trouble) as endpoint:
        counts, _ = ask(tmp_path, endpoint, count=60, **options)
        again, _ = ask(tmp_path, endpoint, count=60, **options)
        trouble.ended.set()
    # each at most: the half that was answered cost less
    assert len(endpoint.requests) * most <= 1.5 * cap
    assert counts.bound >= 5 * most and counts.cost <= cap and again.cost_before + again.cost <= cap
    assert again.cost_before == pytest.approx(counts.cost) and "is an upper bound" in str(again)


def test_requests_in_flight_at_a_kill_count_as_paid(tmp_path: Path) -> None:
    most, cap = ceiling(tmp_path), 11.5 * ceiling(tmp_path)
    code = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
import test_cap
from pathlib import Path
from types import SimpleNamespace
endpoint = SimpleNamespace(base_url=sys.argv[1])
test_cap.module.FIRST_SECONDS = 0.05
test_cap.ask(Path({str(tmp_path)!r}), endpoint, max_cost={cap}, concurrency=4)
"""
    ended = threading.Event()
    with FakeTeacher(lambda request: PAIRS if ended.wait(600) else "") as endpoint:
        for killed_after in (4, 8, 11, 12):
            child = subprocess.Popen([sys.executable, "-c", code, endpoint.base_url], stderr=subprocess.DEVNULL)
            while child.poll() is None and len(endpoint.requests) < killed_after:
                time.sleep(0.02)
            child.kill()
            child.wait()
        ended.set()
        with Journal(tmp_path / "journal.jsonl") as journal:
            assert not len(journal) and journal.unread == pytest.approx(11 * most)
    assert len(endpoint.requests) == 11


def test_an_answer_that_was_cut_is_asked_anew_and_the_others_are_kept(tmp_path: Path) -> None:
    def answer(request: dict[str, Any]) -> Any:
        cut = "number 3 " in request["messages"][-1]["content"] and request["max_tokens"] == 100
        return {"body": completion(PAIRS, request, finish_reason="length" if cut else "stop")}

    with FakeTeacher(answer) as endpoint:
        first, _ = ask(tmp_path, endpoint, count=8)
        with Journal(tmp_path / "journal.jsonl") as journal:
            raised = TeacherConfig(model="m", base_url=endpoint.base_url, **{**PRICES, "max_answer_tokens": 400})
            assert estimate(passages(8), journal, raised)[0] == 1
        second, records = ask(tmp_path, endpoint, count=8, max_answer_tokens=400)
        third, _ = ask(tmp_path, endpoint, count=8, max_answer_tokens=400)
    assert (first.paid, second.paid, second.known, third.paid, len(endpoint.requests)) == (8, 1, 7, 0, 9)
    assert second.cost_before == pytest.approx(first.cost) and third.cost_before < 1.2 * first.cost
    assert len({record["key"] for record in records}) == 16


def test_another_address_under_one_name_warns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeTeacher(lambda request: PAIRS) as one, FakeTeacher(lambda request: PAIRS) as two:
        ask(tmp_path, one, count=2)
        ask(tmp_path, one, count=3, base_url=f"{one.base_url}/")
        assert "warning" not in capsys.readouterr().out
        again, _ = ask(tmp_path, two, count=2)
        assert again.paid == 0 and two.requests == []
        with Journal(tmp_path / "journal.jsonl") as journal:  # as a dry run does after its pilot
            estimate(passages(2), journal, TeacherConfig(base_url=two.base_url, model="m", **PRICES))
        said = capsys.readouterr().out
        assert said.count("warning") == 1 and f"at {one.base_url} and uses them for {two.base_url}:" in said
        ask(tmp_path, two, count=4)
        ask(tmp_path, one, count=4)
    assert f"at {two.base_url} and uses them for {one.base_url}:" in capsys.readouterr().out


@pytest.fixture
def command(tmp_path: Path, tiny_student: Path) -> Callable[..., list[str]]:
    corpus = tmp_path / "corpus.jsonl"
    texts = [f"Note {i} says that Ada moved to London in {1800 + i}." for i in range(12)]
    corpus.write_text("".join(json.dumps({"id": str(i), "text": text}) + "\n" for i, text in enumerate(texts)))

    def build(base_url: str, *more: str) -> list[str]:
        return [
            sys.executable, "-m", "dataset_builder", "--config", str(ROOT / "recipes/build/your_corpus.yaml"),
            "--corpus.path", str(corpus), "--corpus.tokenizer", str(tiny_student), "--corpus.near_duplicates", "null",
            "--output_dir", str(tmp_path / "run"), "--base_url", base_url, "--model", "m", *more,
        ]  # fmt: skip

    return build


def start(command: list[str]) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OPENAI_API_KEY": "sk-x", "HF_HUB_OFFLINE": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=env, text=True, stdout=pipe, stderr=pipe)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_end_loses_no_reply_that_is_in_flight(
    number: int, command: Callable[..., list[str]], tmp_path: Path
) -> None:
    started: list[subprocess.Popen[str]] = []
    arrival = itertools.count(1)

    def answer(request: dict[str, Any]) -> str:
        if next(arrival) == 6:
            started[0].send_signal(number)
        time.sleep(0.5)
        return PAIRS

    with FakeTeacher(answer) as endpoint:
        started.append(start(command(endpoint.base_url, "--teacher.concurrency", "8")))
        _, said = started[0].communicate()
    assert started[0].returncode == 130 and "run the same command again" in said
    with Journal(tmp_path / "run" / "journal.jsonl") as journal:
        assert len(journal) == len(endpoint.requests) >= 6 and not journal.in_flight


def test_what_is_left_unasked_is_not_built_unless_that_is_wanted(
    command: Callable[..., list[str]], tmp_path: Path
) -> None:
    def run(*more: str) -> tuple[int, str]:
        ended = start(command(endpoint.base_url, "--max_cost", "0.01", *more))
        out, error = ended.communicate()
        return ended.returncode, out + error

    with FakeTeacher(answer_with()) as endpoint:
        status, said = run("--pilot", "3")
        assert status == 2 and "give --dry_run too" in said and endpoint.requests == []
        status, said = run()
        assert status == 1 and "--allow_incomplete" in said and "stopped below max_cost" in said
        assert "is an upper bound" in said and not (tmp_path / "run" / "dataset").exists()
        asked = len(endpoint.requests)
        journal = tmp_path / "run" / "journal.jsonl"
        journal.write_bytes(journal.read_bytes().replace(b"\n", b"\r\n"))  # an editor or a checkout
        status, said = run("--allow_incomplete")
        assert status == 0 and (tmp_path / "run" / "dataset" / "stats.json").exists()
    assert 0 < asked < 12 and len(endpoint.requests) == asked


@pytest.mark.parametrize("cut", [1, 5, 9, 40])
def test_a_journal_without_one_whole_line_is_begun_anew(cut: int, tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.jsonl"):
        pass
    (tmp_path / "journal.jsonl").write_bytes((tmp_path / "journal.jsonl").read_bytes()[:cut])
    with FakeTeacher(lambda request: PAIRS) as endpoint:
        assert ask(tmp_path, endpoint, count=2)[0].paid == 2
