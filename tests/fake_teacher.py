"""A fake OpenAI-compatible endpoint: a real HTTP server on 127.0.0.1, because the usual mocking libraries do not
intercept the transport of the openai client.

    with FakeTeacher(lambda request: "[]") as teacher:
        client = openai.OpenAI(base_url=teacher.base_url, api_key="test")
        ...
    assert len(teacher.requests) == 1

Routes: POST /v1/chat/completions (not streaming), GET /v1/models. Both need `Authorization: Bearer <anything>`, or
`Basic <anything>`, which a password in the address becomes.
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
FakeReply = str | dict[str, Any]


class FakeTeacher:
    """The endpoint runs inside the `with` block.

    Args:
        replies: Called with the JSON of each request, from several threads at once; or a dict from a part of the last
            message to its reply, of which the first match counts. A reply is either
            - a str: the content of a normal completion, or
            - a dict, sent as it is: `status` (200), `headers`, and either `body` (JSON, such as from `completion`) or
              `raw` (str or bytes, such as a proxy's HTML page).
            If it raises or nothing matches, the client gets a 400, which it does not repeat, and the `with` block
            raises at its end.
        latency: Seconds before each reply.

    `requests` holds the parsed bodies in order of arrival.
    """

    def __init__(
        self, replies: Callable[[dict[str, Any]], FakeReply] | dict[str, FakeReply], latency: float = 0.0
    ) -> None:
        self.requests: list[dict[str, Any]] = []
        self.errors: list[Exception] = []
        self.latency = latency
        self._replies = replies
        self._server = QuietServer(("127.0.0.1", 0), type("Handler", (_TeacherHandler,), {"teacher": self}))
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> "FakeTeacher":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        if self.errors and error is None:
            raise self.errors[0]

    def reply(self, request: dict[str, Any]) -> FakeReply:
        """The prepared reply to one request."""
        if not isinstance(self._replies, dict):
            return self._replies(request)
        asked = _text(request["messages"][-1])
        for part, reply in self._replies.items():
            if part in asked:
                return reply
        raise LookupError(f"no reply is prepared for: {asked[:200]!r}")


def completion(content: str, request: dict[str, Any], finish_reason: str = "stop") -> dict[str, Any]:
    """A chat completion as the API sends it. Token counts are estimates: one token for four characters."""
    prompt, reply = sum(len(_text(message)) for message in request["messages"]) // 4, len(content) // 4
    message = {"role": "assistant", "content": content}
    return {
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": 1767225600,
        "model": request.get("model", MODEL),
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": reply, "total_tokens": prompt + reply},
    }


def _text(message: dict[str, Any]) -> str:
    """The text of a message, whether its content is a string or a list of parts."""
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _fault(status: int, message: str, code: str) -> dict[str, Any]:
    """An error in the API's own shape."""
    return {"status": status, "body": {"error": {"message": message, "type": "invalid_request_error", "code": code}}}


class _TeacherHandler(BaseHTTPRequestHandler):
    teacher: FakeTeacher
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # otherwise every reply waits 40 ms for the client's acknowledgment

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test output quiet."""

    def do_GET(self) -> None:
        """List the one model."""
        if not self._has_token():
            return self._send(_fault(401, "Incorrect API key provided.", "invalid_api_key"))
        if self.path != "/v1/models":
            return self._send(_fault(404, f"Unknown path: GET {self.path}", "not_found"))
        model = {"id": MODEL, "object": "model", "created": 1767225600, "owned_by": "tests"}
        return self._send({"body": {"object": "list", "data": [model]}})

    def do_POST(self) -> None:
        """Complete a chat."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))  # even for a 401: the connection is reused
        if not self._has_token():
            return self._send(_fault(401, "Incorrect API key provided.", "invalid_api_key"))
        if self.path != "/v1/chat/completions":
            return self._send(_fault(404, f"Unknown path: POST {self.path}", "not_found"))
        request = json.loads(body)
        self.teacher.requests.append(request)
        if request.get("stream"):
            return self._send(_fault(400, "This fake does not stream.", "unsupported"))
        try:
            reply = self.teacher.reply(request)
        except Exception as error:  # an error of the test's own code: raise it there, not in this thread
            self.teacher.errors.append(error)
            return self._send(_fault(400, repr(error), "reply_failed"))
        time.sleep(self.teacher.latency)
        return self._send(reply if isinstance(reply, dict) else {"body": completion(reply, request)})

    def _has_token(self) -> bool:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        return scheme in ("Bearer", "Basic") and bool(token.strip())

    def _send(self, reply: dict[str, Any]) -> None:
        raw = reply["raw"] if "raw" in reply else json.dumps(reply.get("body", {}))
        content = raw.encode() if isinstance(raw, str) else raw
        kind = "text/html" if "raw" in reply else "application/json"
        self.send_response(reply.get("status", 200))
        headers = {"Content-Type": kind, "Content-Length": str(len(content))} | reply.get("headers", {})
        for key, value in headers.items():
            self.send_header(key, str(value))
        self.end_headers()
        self.wfile.write(content)
