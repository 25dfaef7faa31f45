"""One passage, header or refusal never stops or starves a run; what every request meets ends it with the words."""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from dataset_builder.config import TeacherConfig
from dataset_builder.teacher import asking as module
from dataset_builder.teacher import endpoint as endpoint_module
from dataset_builder.teacher.journal import Journal
from dataset_builder.teacher.records import ReplyCounts
from dataset_builder.teacher.stage import fetch_replies
from fake_teacher import FakeTeacher, completion
from made_up import passages
from open_ner.tools.errors import UserError
from quiet_server import QuietServer

Answer = Callable[[dict[str, Any]], Any]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setattr(module, "backoff", lambda attempt: 0.0)


def ask(folder: Path, base_url: str, count: int = 40, **options: Any) -> ReplyCounts:
    with Journal(folder / "journal.jsonl") as journal:
        return fetch_replies(passages(count), journal, TeacherConfig(base_url=base_url, model="m", **options))


def limited(message: str = "slow down", **headers: str) -> dict[str, Any]:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"status": 429, "headers": names, "body": {"error": {"message": message}}}


def only(number: int, answer: Any) -> Answer:
    """This answer to one passage, always, and a good one to the others."""

    def reply(request: dict[str, Any]) -> Any:
        if f"number {number} " not in request["messages"][-1]["content"]:
            return "[]"
        return answer() if callable(answer) else answer

    return reply


@pytest.mark.parametrize("number", [0, 20, 39])
def test_one_passage_that_is_always_limited_fails_alone(number: int, tmp_path: Path) -> None:
    others, tries = threading.Semaphore(0), 0

    def answer(request: dict[str, Any]) -> Any:
        nonlocal tries
        if f"number {number} " not in request["messages"][-1]["content"]:
            others.release()
            return "[]"
        tries += 1
        if tries == 2:  # 8 others, of 7 workers: the client has the reply to one of them
            assert all(others.acquire(timeout=60) for _ in range(8))
        return limited()

    with FakeTeacher(answer) as endpoint:
        counts = ask(tmp_path, endpoint.base_url, concurrency=8)
    assert (counts.paid, counts.failed) == (39, 1) and "slow down" in str(counts)
    assert len(endpoint.requests) <= 39 + module.ALL_LIMITED


def test_a_first_passage_that_hangs_does_not_hold_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_SECONDS", 0.05)
    others = threading.Event()

    def answer(request: dict[str, Any]) -> Any:
        if len(endpoint.requests) == 40:
            others.set()
        return only(0, lambda: others.wait(60) and {"status": 504, "raw": "no answer in time"})(request)

    with FakeTeacher(answer) as endpoint:
        counts = ask(tmp_path, endpoint.base_url, concurrency=8)
    assert (counts.paid, counts.failed) == (39, 1) and len(endpoint.requests) == 39 + module.MOST_UNREAD
    assert sum("number 0 " in request["messages"][-1]["content"] for request in endpoint.requests[:40]) == 1
    assert "status 504: no answer in time" in str(counts)


@pytest.mark.parametrize("value", ["1e9", "inf", "3600", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_long_retry_after_is_bounded_said_and_holds_one_request(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dataset_builder.teacher.http_errors.LONGEST_WAIT", 0.5)
    once = [limited(Retry_After=value)]
    with FakeTeacher(lambda request: once.pop() if once else "[]") as endpoint:
        started = time.monotonic()
        counts = ask(tmp_path, endpoint.base_url)
    assert counts.paid == 40 and time.monotonic() - started >= 0.5
    assert "rate limit for 0.5 s: slow down; waiting" in capsys.readouterr().err


def test_a_quota_of_nothing_shows_its_words_and_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = "You exceeded your current quota, limit: 0"
    with FakeTeacher(lambda request: limited(said)) as endpoint, pytest.raises(UserError, match=said):
        ask(tmp_path, endpoint.base_url, concurrency=2)
    assert said in capsys.readouterr().err and len(endpoint.requests) < 30


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"content": None, "reasoning_content": "Let me think."}, "is usable: the completion is empty"),
        ({"content": ""}, "is usable: the completion is empty"),
        (None, "is usable: not a chat completion"),
    ],
)
def test_ten_first_answers_that_are_unusable_end_the_run(message: Any, said: str, tmp_path: Path) -> None:
    def answer(request: dict[str, Any]) -> Any:
        body = completion("", request)
        body["choices"] = [{**body["choices"][0], "message": message}] if message else []
        return {"body": body}

    with FakeTeacher(answer) as endpoint, pytest.raises(UserError, match=said):
        ask(tmp_path, endpoint.base_url, concurrency=4)
    assert 10 <= len(endpoint.requests) <= 14


def test_a_response_that_is_too_long_fails_its_passage_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "LARGEST", 10_000)
    with FakeTeacher(only(3, lambda: "x" * 20_000)) as endpoint:
        counts = ask(tmp_path, endpoint.base_url, count=8)
    assert (counts.paid, counts.failed) == (7, 1) and "more than 10,000 bytes" in str(counts)


def test_a_netrc_and_proxy_variables_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".netrc").write_text("default login me password mine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with FakeTeacher(lambda request: "[]") as endpoint:
        assert ask(tmp_path, endpoint.base_url, count=2).paid == 2
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with FakeTeacher(lambda request: "[]") as endpoint, pytest.raises(UserError, match="127.0.0.1:9|connect"):
        ask(tmp_path / "by-proxy", endpoint.base_url, count=2, max_retries=0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with FakeTeacher(lambda request: "[]") as endpoint:
        assert ask(tmp_path / "no-proxy", endpoint.base_url, count=2).paid == 2


def test_credentials_in_an_address_are_sent_and_never_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    received: list[tuple[str, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.path, self.headers["Authorization"]))
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps({"error": {"message": "no entry"}}).encode()
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Keep the test output quiet."""

    with QuietServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        url = f"http://me:pass%40word@127.0.0.1:{server.server_port}/v1?code=hidden"
        with pytest.raises(UserError, match="no entry") as caught:
            ask(tmp_path, url, count=2)
        server.shutdown()
    assert received == [("/v1/chat/completions?code=hidden", "Basic bWU6cGFzc0B3b3Jk")]
    captured = capsys.readouterr()
    said = captured.out + captured.err + str(caught.value) + (tmp_path / "journal.jsonl").read_text()
    assert "word" not in said and "hidden" not in said and "127.0.0.1" in said
