"""What an endpoint's errors mean: wait, ask again, give up this passage, or stop the run with one line."""

import asyncio
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from dataset_builder.config import TeacherConfig
from dataset_builder.teacher.client import TeacherClient
from dataset_builder.teacher.endpoint import ChatEndpoint, open_endpoint, read_key
from dataset_builder.teacher.http_errors import (
    RateLimited,
    RequestRejected,
    TransientError,
    mask,
    read_error,
    retry_after,
)
from dataset_builder.teacher.journal import Journal
from dataset_builder.teacher.requests import Question
from fake_teacher import FakeTeacher, completion
from open_ner.tools.errors import UserError
from quiet_server import QuietServer

KEY = "sk-very-secret"
# openssl ca -selfsign -startdate 20000101000000Z -enddate 21000101000000Z (valid whatever the clock says), with
# subject CN=localhost, basicConstraints CA:TRUE, subjectAltName DNS:localhost,IP:127.0.0.1
SELF_SIGNED = Path(__file__).parent / "data" / "self_signed.pem"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def complete(answer: Any, **options: Any) -> Any:
    """One request to a server that gives this answer."""

    async def main(config: TeacherConfig) -> Any:
        async with open_endpoint(config, KEY) as endpoint:
            body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
            return await endpoint.complete(json.dumps(body).encode())

    with FakeTeacher(lambda request: answer) as server:
        return asyncio.run(main(TeacherConfig(base_url=server.base_url, model="m", **options)))


def error(message: Any, code: Any = None) -> dict[str, Any]:
    return {"error": {"message": message, "code": code}}


def test_a_key_of_any_length_is_masked_but_no_letters_of_other_words(monkeypatch: pytest.MonkeyPatch) -> None:
    assert mask(f"{KEY} has no  proxy?key%3D{KEY}", TeacherConfig()) == "*** has no proxy?key%3D***"
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    assert mask("no proxy for 'x'", TeacherConfig()) == "no proxy for '***'"
    monkeypatch.setenv("OPENAI_API_KEY", "tok-1.3")
    assert mask("Incorrect API key provided: tok-1.3.", TeacherConfig()) == "Incorrect API key provided: ***."
    monkeypatch.delenv("OPENAI_API_KEY")
    assert mask("no key", TeacherConfig()) == "no key"


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (401, error(f"Incorrect API key provided: {KEY}"), UserError, "refuses model 'm' or the key in"),
        (402, error("Insufficient balance"), UserError, "quota is used up: Insufficient balance"),
        (403, error("not for you"), UserError, "refuses model 'm'"),
        (404, error("no such model"), UserError, "no such model"),
        (400, error("no such model", "model_not_found"), UserError, "refuses model 'm'"),
        (429, error("pay", "insufficient_quota"), UserError, "quota is used up: pay"),
        (429, error("slow down", "rate_limit_exceeded"), RateLimited, "rate limit: slow down"),
        (500, error("oops"), TransientError, "status 500: oops"),
        (529, "overloaded", TransientError, "status 529: overloaded"),
        (408, {"detail": "too slow"}, TransientError, "too slow"),
        (400, error("bad", "content_filter"), RequestRejected, "bad"),
        (400, error("maximum context length is 4096", 400), RequestRejected, "maximum context"),
        (422, {"detail": [{"loc": "temperature"}]}, RequestRejected, "temperature"),
        (307, {}, UserError, "set teacher.base_url"),
        (503, "<html>Bad gateway</html>", TransientError, "status 503: <html>Bad gateway</html>"),
    ],
)
def test_each_status_becomes_its_exception(status: int, body: Any, kind: type[Exception], said: str) -> None:
    raw = {"raw": body} if isinstance(body, str) else {"body": body}
    with pytest.raises(kind, match=said) as caught:
        complete({"status": status, **raw})
    assert KEY not in str(caught.value) and "\n" not in str(caught.value)


def test_a_rejection_is_final_if_it_is_about_the_passage() -> None:
    for body, code in [
        (error("x", "content_filter"), "content_filter"),
        (error("This model's maximum context length is 8 tokens"), "context_length_exceeded"),
        (error("Unsupported parameter: max_tokens", "unsupported_parameter"), None),
    ]:
        with pytest.raises(RequestRejected) as caught:
            complete({"status": 400, "body": body})
        assert caught.value.code == code


@pytest.mark.parametrize("content", ["<html>login</html>", "", "[" * 100_000, "{", "\x00"])
def test_a_body_that_is_not_json_is_a_fault(content: str) -> None:
    with pytest.raises(TransientError, match="not JSON"):
        complete({"raw": content})


def test_a_server_that_hangs_or_hangs_up_is_a_fault() -> None:
    with pytest.raises(TransientError, match="no answer within 0.2 s"):
        complete_slowly()
    with pytest.raises(TransientError, match="payload is not completed"):
        complete({"raw": "{", "headers": {"Content-Length": 99, "Connection": "close"}})


def complete_slowly() -> None:
    async def main(config: TeacherConfig) -> None:
        async with open_endpoint(config, KEY) as endpoint:
            await endpoint.complete(b'{"messages": [{"content": "x"}]}')

    too_late = threading.Event()
    with FakeTeacher(lambda request: "[]" if too_late.wait(60) else "") as server:
        try:
            asyncio.run(main(TeacherConfig(base_url=server.base_url, model="m", timeout=0.2)))
        finally:
            too_late.set()


@pytest.mark.parametrize("base_url", ["nowhere", "http://", "ftp://host/v1", "http://[::1"])
def test_an_invalid_address_gives_a_one_line_error(base_url: str) -> None:
    async def main() -> None:
        async with ChatEndpoint(TeacherConfig(base_url=base_url), base_url, {}, False) as endpoint:
            await endpoint.complete(b"{}")

    with pytest.raises(UserError, match="is not a valid address"):
        asyncio.run(main())


def test_an_address_the_client_rejects_gives_a_one_line_error() -> None:
    with pytest.raises(UserError, match="is not a valid address"):
        open_endpoint(TeacherConfig(base_url="http://[::1", model="m"), KEY)


def test_headers_are_those_of_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v9")
    endpoint = open_endpoint(TeacherConfig(model="m"), KEY)
    assert endpoint.url == "http://127.0.0.1:1/v9/chat/completions"
    assert endpoint.headers["Authorization"] == f"Bearer {KEY}"
    assert endpoint.headers["OpenAI-Organization"] == "org-1" and endpoint.certificates is False


@contextmanager
def self_signed_server() -> Iterator[tuple[int, list[str]]]:
    """Port of an HTTPS server with a self-signed certificate, and the authorizations of the requests it has read."""
    received: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.headers["Authorization"])
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            content = json.dumps(completion("[]", body)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Keep the test output quiet."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(SELF_SIGNED)
    with QuietServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server.server_port, received
        server.shutdown()


@pytest.mark.parametrize("batch", [False, True], ids=["chat", "batch"])
@pytest.mark.parametrize("by", ["option", "environment"])
@pytest.mark.parametrize("scheme", ["https", "HTTPS", "Https"])
def test_a_certificate_nobody_signed_stops_the_run_before_anything_is_sent(
    scheme: str, by: str, batch: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with self_signed_server() as (port, received), Journal(tmp_path / "journal.jsonl") as journal:
        address = f"{scheme}://127.0.0.1:{port}/v1"
        config = TeacherConfig(base_url=address if by == "option" else None, model="m", batch=batch)
        if by == "environment":
            monkeypatch.setenv("OPENAI_BASE_URL", address)
        with pytest.raises(UserError, match="certificate that is not trusted.*self-signed certificate") as caught:
            TeacherClient(config, journal).fetch([Question("k", "type", "p", [{"role": "user", "content": "x"}])], 1)
    assert received == [] and "\n" not in str(caught.value) and KEY not in str(caught.value)


def test_a_certificate_the_user_trusts_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("SSL_CERT_FILE", str(SELF_SIGNED))
    with self_signed_server() as (port, received), Journal(tmp_path / "journal.jsonl") as journal:
        client = TeacherClient(TeacherConfig(base_url=f"HTTPS://127.0.0.1:{port}/v1", model="m"), journal)
        client.fetch([Question("k", "type", "p", [{"role": "user", "content": "x"}])], 1)
        assert received == [f"Bearer {KEY}"] and journal.get("k")["reply"] == "[]"


def test_retry_after_is_read_in_every_form() -> None:
    assert retry_after({"retry-after": "300"}) == 300
    assert retry_after({"retry-after-ms": "250", "retry-after": "1"}) == 0.25
    assert retry_after({"retry-after": "-5"}) == 0
    assert 3000 < retry_after({"retry-after": formatdate(time.time() + 3600, usegmt=True)}) <= 3600
    for nonsense in ({}, {"retry-after": "soon"}, {"retry-after": ""}):
        assert retry_after(nonsense) is None


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        (b'{"error": {"message": "m", "code": "c"}}', ("c", "m")),
        (b'{"error": "m"}', (None, "m")),
        (b'{"message": "m", "code": 7}', (None, "m")),
        (b'"m"', (None, "m")),
        (b"<p>\xff</p>", (None, "<p>\ufffd</p>")),
    ],
)
def test_the_message_of_an_error_is_read_in_every_form(answer: bytes, read: tuple[str | None, str]) -> None:
    assert read_error(answer) == read


@pytest.mark.parametrize(
    ("key", "said"), [("", "is not set: set it"), (" \n", "is not set: set it"), ("sk-é", "not valid in an API key")]
)
def test_an_invalid_key_gives_a_one_line_error(key: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", key)
    with pytest.raises(UserError, match=said):
        read_key(TeacherConfig(api_key_env="MY_KEY"), 3)


def test_a_key_may_end_with_a_line_break(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1\n")
    assert read_key(TeacherConfig(), 3) == "sk-1"
