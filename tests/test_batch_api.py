"""The Batch API over real HTTP: one journal, nothing paid twice whatever dies when, limits, caps and faults."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataset_builder.config import TeacherConfig
from dataset_builder.corpus.cutting import Passage
from dataset_builder.teacher import batch as batch_api
from dataset_builder.teacher import batch_provider
from dataset_builder.teacher.batch_files import BatchFolder
from dataset_builder.teacher.batch_provider import Provider
from dataset_builder.teacher.journal import Journal
from dataset_builder.teacher.questions import questions
from dataset_builder.teacher.records import ReplyCounts
from dataset_builder.teacher.requests import request_ceiling
from dataset_builder.teacher.stage import fetch_replies
from fake_batch import EXPIRED, FakeBatch
from fake_teacher import completion
from open_ner.tools.errors import UserError

ROOT = Path(__file__).parent.parent
PRICES = {"price_input": 10.0, "price_output": 50.0, "max_answer_tokens": 100}


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setattr(batch_provider, "backoff", lambda attempt: 0.0)


def passages(count: int, start: int = 0) -> list[Passage]:
    texts = [f"Passage number {i} about Ada." for i in range(start, start + count)]
    return [Passage(f"p{i}", text, "", f"p{i}", "", 0, len(text), 6) for i, text in enumerate(texts, start)]


def ask(
    folder: Path, provider: FakeBatch | None, count: int = 6, start: int = 0, **options: Any
) -> tuple[ReplyCounts, list[dict[str, Any]]]:
    if provider:
        options = {"base_url": provider.base_url, "model": "fake-teacher"} | options
    config = TeacherConfig(**options, batch=True, batch_poll_seconds=0.01)
    with Journal(folder / "journal.jsonl") as journal:
        counts = fetch_replies(passages(count, start), journal, config)
        return counts, list(journal.records())


def once(provider: FakeBatch, records: list[dict[str, Any]], count: int = 6) -> None:
    """Every question is paid once and journaled once."""
    assert len(records) == len({record["key"] for record in records}) == count
    assert provider.paid == Counter(record["key"] for record in records)


def content(request: dict[str, Any]) -> str:
    return request["messages"][-1]["content"]


def test_replies_arrive_once_with_their_usage_and_a_second_run_asks_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeBatch(lambda request: f"[{content(request)[-9:]}\u2028]", polls=2, shuffle=True) as provider:
        counts, records = ask(tmp_path, provider, **PRICES)
        routes: list[str] = []
        provider.trouble = lambda route: routes.append(route)
        again, _ = ask(tmp_path, provider, **PRICES)
    once(provider, records)
    assert (counts.paid, counts.failed, again.paid, routes) == (6, 0, 0, [])
    assert sorted(record["passage_id"] for record in records) == [f"p{i}" for i in range(6)]
    assert {(record["reply"], record["model"]) for record in records} == {("[bout Ada.\u2028]", "fake-teacher")}
    spent = sum(10 * r["usage"]["prompt_tokens"] + 50 * r["usage"]["completion_tokens"] for r in records) / 1e6
    assert counts.cost == pytest.approx(spent) and spent > 0
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in written} == {"journal.jsonl", "state.json"}
    assert not any(b"sk-secret" in path.read_bytes() for path in written)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and said[-1].startswith("6 of 6 answered, 6 of them collected, 0 batches under way")


def test_what_is_sent_is_what_the_api_wants(tmp_path: Path) -> None:
    with FakeBatch(lambda request: "[]") as provider:
        _, records = ask(tmp_path, provider, count=1)
    line = json.loads(provider.files["file-0"])
    assert (line["custom_id"], line["method"], line["url"]) == (records[0]["key"], "POST", "/v1/chat/completions")
    assert set(line["body"]) == {"model", "messages", "temperature", "max_tokens"}
    [batch] = provider.batches.values()
    assert (batch["endpoint"], batch["completion_window"]) == ("/v1/chat/completions", "24h")
    assert {name: len(value) for name, value in batch["metadata"].items()} == {"run": 32, "part": 64}


@pytest.mark.parametrize(("limit", "value"), [("PART_REQUESTS", 4), ("PART_BYTES", 4000)])
def test_parts_stay_within_the_limits(limit: str, value: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_api, limit, value)
    with FakeBatch(lambda request: "[]") as provider:
        _, records = ask(tmp_path, provider, count=10)
    once(provider, records, 10)
    inputs = [provider.files[batch["input_file_id"]] for batch in provider.batches.values()]
    assert len(inputs) > 1
    assert all(len(file.splitlines()) <= 4 if limit == "PART_REQUESTS" else len(file) <= 4000 for file in inputs)


def kill_on(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, after: int, before: bool) -> None:
    """Raise Killed at the call number `after` of a function, before or after it has done its work."""
    real, calls = getattr(owner, name), iter(range(1, 100))

    def deadly(*args: Any, **options: Any) -> Any:
        last = next(calls) == after
        if last and before:
            raise Killed
        result = real(*args, **options)
        if last:
            raise Killed
        return result

    monkeypatch.setattr(owner, name, deadly)


@pytest.mark.parametrize("lost_state", [False, True], ids=["", "state-lost"])
@pytest.mark.parametrize(
    ("owner", "name", "after", "before"),
    [
        (Provider, "create", 2, True),  # the part's file is written, nothing is uploaded
        (BatchFolder, "remember", 1, True),  # created, not recorded
        (BatchFolder, "remember", 2, True),
        (BatchFolder, "remember", 1, False),
        (Provider, "retrieve", 1, True),  # all three parts under way
        (Provider, "retrieve", 4, True),  # each was polled once
        (Provider, "download", 2, False),  # the output file of the second is downloaded
        (Journal, "append", 3, False),  # half of it is journaled
        (BatchFolder, "remember", 4, True),  # the first is journaled, not recorded as collected
        (Provider, "retrieve", 6, True),  # two are collected
    ],
)
def test_nothing_is_paid_twice_wherever_a_run_dies(
    owner: Any, name: str, after: int, before: bool, lost_state: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_api, "PART_REQUESTS", 2)
    with FakeBatch(lambda request: "[]", polls=1, shuffle=True, page=1) as provider:
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_on(patch, owner, name, after, before)
            ask(tmp_path, provider)
        if lost_state:
            for path in (tmp_path / "batches").iterdir():
                path.unlink()
        _, records = ask(tmp_path, provider)
        once(provider, records)
        assert sorted(record["passage_id"] for record in records) == [f"p{i}" for i in range(6)]
        assert {path.name for path in (tmp_path / "batches").iterdir()} == {"state.json"}
        ask(tmp_path, provider, start=6)  # and the run after that creates batches for what is new alone
    assert set(provider.paid.values()) == {1}


DRIVER = """
import os, signal, sys
sys.path[:0] = ["tests"]
from pathlib import Path
from dataset_builder.teacher.journal import Journal
from test_batch_api import ask

appended = 0
append = Journal.append
def deadly(self, record):
    global appended
    append(self, record)
    appended += 1
    if appended == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

Journal.append = deadly
ask(Path(sys.argv[1]), None, base_url=sys.argv[2], model="fake-teacher")
"""


@pytest.mark.parametrize("point", ["created, not told", "half journaled"])
def test_a_kill_9_pays_for_nothing_twice(point: str, tmp_path: Path) -> None:
    children: list[subprocess.Popen] = []

    def created(batch: dict[str, Any]) -> bool:
        if children and point == "created, not told":
            os.kill(children[0].pid, signal.SIGKILL)
        return bool(children) and point == "created, not told"

    with FakeBatch(lambda request: "[]", polls=1, created=created) as provider:
        command = [sys.executable, "-c", DRIVER, str(tmp_path), provider.base_url, "3"]
        children.append(subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL))
        assert children[0].wait() == -signal.SIGKILL
        children.clear()
        counts, records = ask(tmp_path, provider)
    once(provider, records)
    assert len(provider.batches) == 1 and counts.paid == (6 if point == "created, not told" else 3)


def test_a_lost_answer_to_create_is_looked_up_not_sent_again(tmp_path: Path) -> None:
    deaf = [True, True]
    with FakeBatch(lambda request: "[]", created=lambda batch: deaf and deaf.pop()) as provider:
        _, records = ask(tmp_path, provider)
    once(provider, records)
    assert len(provider.batches) == 1


def test_batches_of_another_journal_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeBatch(lambda request: "[]") as provider:
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_on(patch, Provider, "retrieve", 1, True)
            ask(tmp_path / "theirs", provider, start=3)
        _, records = ask(tmp_path / "ours", provider)
    assert len(records) == 6 and len(provider.batches) == 2


def test_a_part_never_submitted_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeBatch(lambda request: "[]") as provider:
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_on(patch, Provider, "create", 1, True)
            ask(tmp_path, provider)
        _, records = ask(tmp_path, provider, start=2)
    once(provider, records)
    assert {path.name for path in (tmp_path / "batches").iterdir()} == {"state.json"}


def test_replies_to_questions_no_longer_asked_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeBatch(lambda request: "[]") as provider:
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_on(patch, Provider, "retrieve", 1, True)
            ask(tmp_path, provider)
        ask(tmp_path, provider, count=4, start=4)  # p4 and p5 are under way, p6 and p7 are new
        counts, records = ask(tmp_path, provider, count=8)
    once(provider, records, 8)
    assert counts.paid == 0 and len(provider.batches) == 2


def test_batches_under_way_under_another_limit_are_waited_for_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(request: dict[str, Any]) -> dict[str, Any]:
        cut = request["max_tokens"] == 100 and "number 1 " in content(request)
        return {"body": completion("[]", request, finish_reason="length" if cut else "stop")}

    monkeypatch.setattr(batch_api, "PART_REQUESTS", 4)
    with FakeBatch(answer, polls=1) as provider:
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_on(patch, Provider, "retrieve", 1, True)
            ask(tmp_path, provider, **PRICES)
        raised = PRICES | {"max_answer_tokens": 200}
        second, records = ask(tmp_path, provider, count=8, **raised)
        third, _ = ask(tmp_path, provider, count=8, **raised)
    assert provider.paid.total() == 9 and set(provider.paid.values()) == {1}  # 6, the cut one again, 2 new ones
    assert (second.paid, second.missing, third.paid, third.missing) == (9, 0, 0, 0)
    copies = [record for record in records if "copy_of" in record]
    assert {record["passage_id"] for record in copies} == {"p0", "p2", "p3", "p4", "p5"}
    assert len(records) == 9 + len(copies) and not any(record["cost"] for record in copies)


def some_fail(fault: Any, times: int) -> Callable[[dict[str, Any]], Any]:
    """Replies to every passage, but a fault the first `times` times for passages 1 and 4."""
    seen: Counter[str] = Counter()

    def answer(request: dict[str, Any]) -> Any:
        seen[content(request)] += 1
        unlucky = "number 1 " in content(request) or "number 4 " in content(request)
        return fault if unlucky and seen[content(request)] <= times else "[]"

    return answer


SERVER_ERROR = {"status": 500, "body": {"error": {"message": "oops", "code": "server_error"}}}
NO_COMPLETION = {"body": {"choices": []}}


@pytest.mark.parametrize("fault", [SERVER_ERROR, EXPIRED], ids=["error", "expired"])
def test_error_and_expired_lines_are_asked_again(fault: Any, tmp_path: Path) -> None:
    with FakeBatch(some_fail(fault, 2)) as provider:
        counts, records = ask(tmp_path, provider)
    assert (counts.paid, counts.failed, len(provider.batches)) == (6, 0, 3)
    assert len(records) == 6 and {provider.paid[record["key"]] for record in records} == {1}


@pytest.mark.parametrize("fault", [SERVER_ERROR, EXPIRED, NO_COMPLETION], ids=["error", "expired", "no-completion"])
def test_what_keeps_failing_is_left_to_the_next_run(
    fault: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeBatch(some_fail(fault, 3)) as provider:
        first, _ = ask(tmp_path, provider)
        assert (first.paid, first.failed, len(provider.batches)) == (4, 2, batch_api.ROUNDS)
        assert "2 requests got no usable answer" in capsys.readouterr().out
        second, records = ask(tmp_path, provider)
    assert (second.paid, second.failed, len(records), len(provider.batches)) == (2, 0, 6, 4)


@pytest.mark.parametrize("lost_state", [False, True], ids=["", "state-lost"])
def test_a_wholly_expired_part_is_not_taken_for_its_repetition(
    lost_state: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = [EXPIRED] * 6
    with FakeBatch(
        lambda request: first.pop() if first else "[]", polls=1, created=lambda batch: batch["id"] == "batch_1"
    ) as provider:
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_on(patch, BatchFolder, "remember", 3, True)  # the repetition is created and found, not recorded
            ask(tmp_path, provider)
        if lost_state:
            (tmp_path / "batches" / "state.json").unlink()
        _, records = ask(tmp_path, provider)
    once(provider, records)
    assert len(provider.batches) == 2
    assert provider.batches["batch_0"]["metadata"] == provider.batches["batch_1"]["metadata"]


def test_a_repetition_that_could_not_be_created_is_not_found_in_the_part_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_api, "ROUNDS", 2)
    first, fault = [EXPIRED] * 6, [None, {"status": 500, "body": {"error": {"message": "oops"}}}]

    def trouble(route: str) -> dict[str, Any] | None:
        return fault.pop(0) if route == "POST /v1/batches" and fault else None

    with FakeBatch(lambda request: first.pop() if first else "[]", trouble=trouble) as provider:
        counts, records = ask(tmp_path, provider)
    once(provider, records)
    assert (counts.paid, counts.failed, len(provider.batches)) == (6, 0, 2)


def test_final_replies_keep_their_reason(tmp_path: Path) -> None:
    def answer(request: dict[str, Any]) -> Any:
        text = content(request)
        if "number 0" in text:
            return {"body": completion('[("Ada", "per', request, finish_reason="length")}
        if "number 1" in text:
            return {"body": completion("", request, finish_reason="content_filter")}
        if "number 2" in text:
            return {"status": 400, "body": {"error": {"message": "filtered", "code": "content_filter"}}}
        body = completion("", request)
        body["choices"][0]["message"] |= {"content": None, "refusal": "I will not."}
        return {"body": body}

    with FakeBatch(answer) as provider:
        counts, records = ask(tmp_path, provider, count=4)
    assert {r["passage_id"]: r["finish_reason"] for r in records} == {
        "p0": "length", "p1": "content_filter", "p2": "content_filter", "p3": "refusal",
    }  # fmt: skip
    assert {r["reply"] for r in records} == {'[("Ada", "per', "", "I will not."}
    assert (counts.paid, counts.failed, len(provider.batches)) == (4, 0, 1)


def test_the_cap_holds_over_batches_and_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_api, "PART_REQUESTS", 5)
    with FakeBatch(lambda request: "[]" * 100) as provider:
        free, _ = ask(tmp_path / "free", provider, count=40, **PRICES)
        cap = free.cost / 2
        provider.batches.clear()
        first, _ = ask(tmp_path / "capped", provider, count=40, max_cost=cap, **PRICES)
        config = TeacherConfig(model="fake-teacher", **PRICES)
        ceilings = {question.key: request_ceiling(question, config) for question in questions(passages(40), config)}
        submitted = [json.loads(line)["custom_id"] for line in provider.files["file-16"].splitlines()]
        assert 0 < sum(ceilings[key] for key in submitted) <= cap
        second, _ = ask(tmp_path / "capped", provider, count=40, max_cost=cap, **PRICES)
    assert 0 < first.paid < 40 and first.cost <= cap and second.cost_before + second.cost <= cap
    assert f"{40 - first.paid} requests are not submitted" in capsys.readouterr().out


@pytest.mark.parametrize("killed", [False, True], ids=["", "collected-again-after-a-kill"])
def test_billed_lines_without_a_usable_reply_count_against_the_cap_once(
    killed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty: list[str] = []

    def answer(request: dict[str, Any]) -> Any:
        if not any(f"number {number} " in content(request) for number in (1, 3, 5)):
            return "[]"
        empty.append(content(request))
        return ""

    config = TeacherConfig(model="fake-teacher", **PRICES)
    [most] = {request_ceiling(question, config) for question in questions(passages(6), config)}
    cap = 7 * most  # room for two tries of the three
    with FakeBatch(answer) as provider:
        if killed:
            with monkeypatch.context() as patch, pytest.raises(Killed):
                kill_on(patch, BatchFolder, "remember", 2, True)
                ask(tmp_path, provider, max_cost=cap, **PRICES)
        counts, _ = ask(tmp_path, provider, max_cost=cap, **PRICES)
    assert len(empty) == 6 and counts.cost_before + counts.cost <= cap
    with Journal(tmp_path / "journal.jsonl") as journal:
        assert journal.unread == pytest.approx(len(empty) * most) and counts.bound == pytest.approx(journal.unread)


def test_what_is_under_way_counts_against_the_cap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeBatch(lambda request: "[]", polls=1) as provider:
        config = TeacherConfig(model="fake-teacher", **PRICES)
        cap = 1.6 * sum(request_ceiling(question, config) for question in questions(passages(4), config))
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_on(patch, Provider, "retrieve", 1, True)
            ask(tmp_path, provider, count=4, max_cost=cap, **PRICES)
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_on(patch, Provider, "retrieve", 1, True)
            ask(tmp_path, provider, count=40, max_cost=cap, **PRICES)
        assert [batch["request_counts"]["total"] for batch in provider.batches.values()] == [4, 2]
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_on(patch, Journal, "append", 6, False)  # all is journaled, nothing recorded as collected
            ask(tmp_path, provider, count=40, max_cost=cap, **PRICES)
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_on(patch, Provider, "retrieve", 1, True)
            ask(tmp_path, provider, count=40, max_cost=cap, **PRICES)
    # what is journaled counts with what it cost, no longer with what it could have
    assert list(provider.batches.values())[2]["request_counts"]["total"] > 2


def test_single_requests_do_not_pay_again_for_a_batch_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeBatch(lambda request: "[]", polls=1) as provider:
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_on(patch, Provider, "retrieve", 1, True)
            ask(tmp_path, provider)
        config = TeacherConfig(base_url=provider.base_url, model="fake-teacher")
        with Journal(tmp_path / "journal.jsonl") as journal, pytest.raises(UserError, match="batches are under way"):
            fetch_replies(passages(6), journal, config)
        _, records = ask(tmp_path, provider)
        once(provider, records)
        with Journal(tmp_path / "journal.jsonl") as journal:
            assert fetch_replies(passages(6), journal, config).known == 6  # collected: nothing is left to ask


def test_a_message_about_a_batch_hides_the_password_of_the_address(tmp_path: Path) -> None:
    fault = {"status": 401, "body": {"error": {"message": "no", "code": "invalid_api_key"}}}
    with FakeBatch(lambda request: "[]", trouble=lambda asked: fault) as provider:
        address = provider.base_url.replace("://", "://me:hunter2secret@")
        with pytest.raises(UserError, match="refuses model") as caught:
            ask(tmp_path, provider, base_url=address)
    assert "hunter2secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (401, "invalid_api_key", "refuses model .* or the key in .*no luck"),
        (404, "not_found", "has no Batch API"),
        (429, "insufficient_quota", "quota is used up"),
        (400, "billing_hard_limit_reached", "quota is used up: .*no luck"),
        (400, "invalid_request_error", "rejects the batch: .*no luck"),
        (500, "server_error", "gave no usable answer 3 times"),
    ],
)
@pytest.mark.parametrize("route", ["POST /v1/files", "POST /v1/batches"])
def test_an_error_that_no_retry_mends_gives_a_one_line_error(
    route: str, status: int, code: str, said: str, tmp_path: Path
) -> None:
    fault = {"status": status, "body": {"error": {"message": "no luck with key sk-secret", "code": code}}}
    with (
        FakeBatch(lambda request: "[]", trouble=lambda asked: fault if asked == route else None) as provider,
        pytest.raises(UserError, match=said) as caught,
    ):
        ask(tmp_path, provider, max_retries=2)
    assert not provider.paid and "sk-secret" not in str(caught.value)


@pytest.mark.parametrize("status", [302, 307, 308])
def test_passages_and_key_never_follow_a_redirect_and_downloads_do(status: int, tmp_path: Path) -> None:
    forwarded: set[str] = set()

    def trouble(route: str) -> dict[str, Any] | None:
        method, path = route.split(" /v1")
        if route in moved:
            return {"status": status, "headers": {"Location": other.base_url.replace("127.0.0.1", "localhost") + path}}
        if not path.endswith("/content") or path in forwarded:
            return None
        forwarded.add(path)
        return {"status": status, "headers": {"Location": provider.base_url + path}}

    moved, reached = [""], list[str]()
    with FakeBatch(lambda request: "[]", trouble=trouble) as provider, FakeBatch({}, trouble=reached.append) as other:
        for moved[0] in ("POST /v1/files", "POST /v1/batches"):
            with pytest.raises(UserError, match="moved to .*localhost.*: set teacher.base_url"):
                ask(tmp_path, provider)
        moved.clear()
        _, records = ask(tmp_path, provider)
    once(provider, records)
    assert reached == [] and forwarded


def test_faults_and_rate_limits_are_waited_out(tmp_path: Path) -> None:
    kinds = [
        {"status": 429, "headers": {"Retry-After": "0.01"}, "body": {"error": {"message": "slow down"}}},
        {"status": 500, "body": {"error": {"message": "oops"}}},
        {"status": 200, "raw": "<html>not JSON</html>"},
        {"status": 200, "raw": "{", "headers": {"Content-Length": 99, "Connection": "close"}},  # hangs up midway
    ]
    met: Counter[str] = Counter()

    def trouble(route: str) -> dict[str, Any] | None:
        met[route] += 1
        return kinds[met[route] - 1] if met[route] <= len(kinds) else None

    with FakeBatch(lambda request: "[]", trouble=trouble) as provider:
        counts, records = ask(tmp_path, provider)
    once(provider, records)
    assert len(met) == 5 and min(met.values()) == 5 and counts.failed == 0


def test_an_endpoint_that_is_not_there_and_a_missing_key_give_a_one_line_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="127.0.0.1:9/v1 gave no usable answer"):
        ask(tmp_path, None, base_url="http://127.0.0.1:9/v1", model="m", max_retries=1)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UserError, match=r"\$OPENAI_API_KEY"):
        ask(tmp_path, None, base_url="http://127.0.0.1:9/v1", model="m")


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (404, "model_not_found", "refuses model 'fake-teacher' or the key in .*: no luck"),
        (429, "insufficient_quota", "quota is used up: no luck"),
        (401, None, "refuses model 'fake-teacher' or the key in .*: no luck"),
    ],
)
def test_an_error_that_every_line_would_meet_stops_the_run_after_its_replies_are_kept(
    status: int, code: str | None, said: str, tmp_path: Path
) -> None:
    fault = {"status": status, "body": {"error": {"message": "no luck", "code": code}}}
    with FakeBatch(some_fail(fault, 1)) as provider:
        with pytest.raises(UserError, match=said):
            ask(tmp_path, provider)
        _, records = ask(tmp_path, provider)
    assert len(records) == 6 and {provider.paid[record["key"]] for record in records} == {1}


def test_a_request_that_is_wrong_is_not_repeated(tmp_path: Path) -> None:
    fault = {"status": 400, "body": {"error": {"message": "temperature?", "code": None}}}
    with FakeBatch(lambda request: fault) as provider, pytest.raises(UserError, match="6 requests .* temperature?"):
        ask(tmp_path, provider)
    assert len(provider.batches) == 1


@pytest.mark.parametrize("status", [400, 403, 413])
def test_the_command_takes_the_rejection_of_one_passage_for_its_answer(
    status: int, tmp_path: Path, tiny_student: Path
) -> None:
    rejection = {"status": status, "body": {"error": {"message": "not this", "code": None}}}
    corpus, run = tmp_path / "corpus.jsonl", tmp_path / "run"
    texts = [f"Note {i} says that Ada moved to London in {1800 + i}." for i in range(6)]
    corpus.write_text("".join(json.dumps({"id": str(i), "text": text}) + "\n" for i, text in enumerate(texts)))
    command = [
        sys.executable, "-m", "dataset_builder", "--config", "recipes/build/your_corpus.yaml", "--batch",
        "--corpus.path", str(corpus), "--corpus.tokenizer", str(tiny_student), "--corpus.near_duplicates", "null",
        "--output_dir", str(run), "--model", "m", "--teacher.batch_poll_seconds", "0.01", "--base_url",
    ]  # fmt: skip

    def answer(request: dict[str, Any]) -> Any:
        return rejection if "Note 3 " in content(request) else '[("Ada", "person")]'

    with FakeBatch(answer) as provider:
        for _ in range(2):
            ended = subprocess.run([*command, provider.base_url], cwd=ROOT, capture_output=True, text=True)
            assert ended.returncode == 0, ended.stderr
        assert len(provider.batches) == 1
    with Journal(run / "journal.jsonl") as journal:
        replies = {record["passage_id"]: (record["reply"], record["finish_reason"]) for record in journal.records()}
    rejected = [said for said, reason in replies.values() if reason == "refusal"]
    assert len(replies) == 6 and len(rejected) == 1 and "not this" in rejected[0]
    assert (run / "dataset" / "stats.json").exists()


def test_replies_of_earlier_batches_show_that_a_rejection_is_about_the_passage(tmp_path: Path) -> None:
    rejection = {"status": 403, "body": {"error": {"message": "not this", "code": None}}}
    with FakeBatch(lambda request: rejection if "number 0" in content(request) else "[]") as provider:
        ask(tmp_path, provider, count=2, start=1)
        counts, records = ask(tmp_path, provider, count=3)
    assert (counts.known, counts.rejected, counts.failed, records[-1]["finish_reason"]) == (2, 1, 0, "refusal")


def test_a_key_that_is_withdrawn_within_a_batch_rejects_no_passage_for_good(tmp_path: Path) -> None:
    rejection = {"status": 403, "body": {"error": {"message": "key disabled", "code": None}}}
    answers = iter(["[]"] * 5 + [rejection] * 12)
    with FakeBatch(lambda request: next(answers)) as provider, Journal(tmp_path / "journal.jsonl") as journal:
        config = TeacherConfig(base_url=provider.base_url, model="m", batch=True, batch_poll_seconds=0.01)
        with pytest.raises(UserError, match="key disabled"):
            fetch_replies(passages(17), journal, config)
        assert len(journal) == 5


@pytest.mark.parametrize("lost_state", [False, True], ids=["", "state-lost"])
def test_a_batch_that_fails_validation_is_said_and_not_met_again(lost_state: bool, tmp_path: Path) -> None:
    errors = [{"code": "invalid_json_line", "message": "This line is not valid.", "line": 3}]
    with FakeBatch(lambda request: "[]", validate=lambda lines: errors) as provider:
        with pytest.raises(UserError, match=r"refuses batch batch_0: This line is not valid. \(line 3\)"):
            ask(tmp_path, provider)
        provider.validate = lambda lines: []
        if lost_state:
            (tmp_path / "batches" / "state.json").unlink()
        _, records = ask(tmp_path, provider)
    once(provider, records)


FULL = [{"code": "token_limit_exceeded", "message": "Enqueued token limit reached.", "line": None}]


def test_parts_the_accounts_queue_does_not_take_become_smaller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_api, "SMALLEST_PART", 2)
    with FakeBatch(lambda request: "[]", validate=lambda lines: FULL if len(lines) > 3 else []) as provider:
        _, records = ask(tmp_path, provider, count=10)
        once(provider, records, 10)
        provider.validate = lambda lines: FULL
        with pytest.raises(UserError, match="has no room for even 2 requests: Enqueued token limit reached."):
            ask(tmp_path, provider, count=10, start=10)


def test_no_more_batches_are_under_way_than_the_accounts_queue_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_api, "PART_REQUESTS", 2)

    def validate(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        before = list(provider.batches)[:-1]
        waiting = [name for name in before if "errors" not in provider.ends[name] and not provider.seen[name]]
        return FULL if len(waiting) >= 2 else []

    with FakeBatch(lambda request: "[]", validate=validate) as provider:
        _, records = ask(tmp_path, provider, count=10)
    once(provider, records, 10)
    assert len(provider.batches) == 5 + 3  # three are rejected in the first round, none after it


def test_a_cancelled_batch_gives_what_it_has_and_is_not_repeated(tmp_path: Path) -> None:
    with FakeBatch(some_fail(EXPIRED, 9)) as provider:
        real = provider.retrieve
        provider.retrieve = lambda name: real(name) | {"status": "cancelled"}
        counts, records = ask(tmp_path, provider)
    assert (counts.paid, counts.failed, len(records), len(provider.batches)) == (4, 2, 4, 1)


def test_a_batch_of_another_endpoint_and_a_broken_state_are_named(tmp_path: Path) -> None:
    (tmp_path / "batches").mkdir()
    state = tmp_path / "batches" / "state.json"
    state.write_text(json.dumps({"batches": {"batch_x": {"part": "a", "collected": False}}}))
    with FakeBatch(lambda request: "[]") as provider:
        with pytest.raises(UserError, match=r"does not know batch_x: use the base_url and key .* state.json"):
            ask(tmp_path, provider)
        for broken in ("{", "[]", '{"batches": {"a": 1}}'):
            state.write_text(broken)
            with pytest.raises(UserError, match="state.json is not a state of batches: delete it"):
                ask(tmp_path, provider)
    assert not provider.batches
