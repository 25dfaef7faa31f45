"""A stand-in of an OpenAI-compatible endpoint: a real HTTP server on 127.0.0.1, because the openai client's own
transport is not one that the usual mocking libraries intercept.

    with FakeTeacher(lambda request: "[]") as teacher:
        client = openai.OpenAI(base_url=teacher.base_url, api_key="test")
        ...
    assert len(teacher.requests) == 1

Routes: POST /v1/chat/completions (not streaming), GET /v1/models. Both want `Authorization: Bearer <anything>`.
"""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any

from quiet_server import QuietServer

MODEL = "fake-teacher"
Answer = str | dict[str, Any]


class FakeTeacher:
    """The endpoint while the `with` block runs.

    answers: `answer(request_json)` for each request, or a dict from a piece of the last message to its answer (the
        first piece found there counts). An answer is either
        - a str: the content of a normal completion, or
        - a dict, sent as it is: `status` (200), `headers`, and either `body` (anything JSON can hold, e.g. from
          `completion`) or `raw` (str or bytes, e.g. a proxy's HTML page).
    latency: seconds before each answer.

    `requests` holds the parsed bodies in order of arrival. `answers` is called from several threads at once. When it
    raises, or no piece fits, the client gets a 400, which it does not repeat, and the `with` block raises at its end.
    """

    def __init__(self, answers: Callable[[dict[str, Any]], Answer] | dict[str, Answer], latency: float = 0.0) -> None:
        self.requests: list[dict[str, Any]] = []
        self.errors: list[Exception] = []
        self.latency = latency
        self._answers = answers
        self._server = QuietServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"teacher": self}))
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> "FakeTeacher":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        if self.errors and error is None:
            raise self.errors[0]

    def answer(self, request: dict[str, Any]) -> Answer:
        """The prepared answer to one request."""
        if not isinstance(self._answers, dict):
            return self._answers(request)
        asked = _text(request["messages"][-1])
        for piece, answer in self._answers.items():
            if piece in asked:
                return answer
        raise LookupError(f"no answer is prepared for: {asked[:200]!r}")


def completion(content: str, request: dict[str, Any], finish_reason: str = "stop") -> dict[str, Any]:
    """A chat completion as the API sends it. Token counts are estimates: one token for four characters."""
    prompt, answer = sum(len(_text(message)) for message in request["messages"]) // 4, len(content) // 4
    message = {"role": "assistant", "content": content}
    return {
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": 1767225600,
        "model": request.get("model", MODEL),
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer},
    }


def _text(message: dict[str, Any]) -> str:
    """The text of a message, whether its content is a string or a list of parts."""
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _fault(status: int, message: str, code: str) -> dict[str, Any]:
    """An error in the API's own shape."""
    return {"status": status, "body": {"error": {"message": message, "type": "invalid_request_error", "code": code}}}


class _Handler(BaseHTTPRequestHandler):
    teacher: FakeTeacher
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else every answer waits 40 ms for the client's acknowledgement

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test output quiet."""

    def do_GET(self) -> None:
        """List the one model."""
        if not self._has_token():
            return self._send(_fault(401, "Incorrect API key provided.", "invalid_api_key"))
        if self.path != "/v1/models":
            return self._send(_fault(404, f"Unknown address: GET {self.path}", "not_found"))
        model = {"id": MODEL, "object": "model", "created": 1767225600, "owned_by": "tests"}
        return self._send({"body": {"object": "list", "data": [model]}})

    def do_POST(self) -> None:
        """Complete a chat."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))  # even for a 401: the connection stays
        if not self._has_token():
            return self._send(_fault(401, "Incorrect API key provided.", "invalid_api_key"))
        if self.path != "/v1/chat/completions":
            return self._send(_fault(404, f"Unknown address: POST {self.path}", "not_found"))
        request = json.loads(body)
        self.teacher.requests.append(request)
        if request.get("stream"):
            return self._send(_fault(400, "This stand-in does not stream.", "unsupported"))
        try:
            answer = self.teacher.answer(request)
        except Exception as error:  # the test's own code, in a thread: hand it to the test instead of printing it
            self.teacher.errors.append(error)
            return self._send(_fault(400, repr(error), "answer_failed"))
        time.sleep(self.teacher.latency)
        return self._send(answer if isinstance(answer, dict) else {"body": completion(answer, request)})

    def _has_token(self) -> bool:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        return scheme == "Bearer" and bool(token.strip())

    def _send(self, answer: dict[str, Any]) -> None:
        raw = answer["raw"] if "raw" in answer else json.dumps(answer.get("body", {}))
        content = raw.encode() if isinstance(raw, str) else raw
        kind = "text/html" if "raw" in answer else "application/json"
        self.send_response(answer.get("status", 200))
        headers = {"Content-Type": kind, "Content-Length": str(len(content))} | answer.get("headers", {})
        for key, value in headers.items():
            self.send_header(key, str(value))
        self.end_headers()
        self.wfile.write(content)
