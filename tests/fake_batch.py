"""A fake of a provider's Batch API over real HTTP, beside the chat completions of fake_teacher.

    with FakeBatch(lambda request: "[]", polls=2) as provider:
        client = openai.OpenAI(base_url=provider.base_url, api_key="test")
        ...
    assert provider.paid["some custom_id"] == 1

Routes: POST /v1/files (multipart), GET /v1/files/{id}/content, POST and GET /v1/batches, GET /v1/batches/{id}. The
list is newest first and supports `after` and `limit`. A batch is answered, and paid, when it is created.
"""

import json
import random
from collections import Counter
from collections.abc import Callable
from email.parser import BytesParser
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fake_teacher import FakeTeacher, _fault, _TeacherHandler, completion

EXPIRED: dict[str, Any] = {"expired": True}  # a reply: the batch expires before it reaches the request


class FakeBatch(FakeTeacher):
    """The provider runs inside the `with` block.

    Args:
        replies: As for FakeTeacher, called with the body of each line. A dict with a `status` of 400 or more becomes
            an error line with its `body`, `EXPIRED` an expired line, and the batch then ends `expired`.
        polls: How often a batch is reported as in progress before it ends.
        shuffle: Write the output lines in another order than the input's.
        validate: Returns the validation errors of a batch's lines; with any, the batch fails.
        created: Called with each new batch before the client gets a response; True: the client gets none.
        trouble: Called with a route such as "GET /v1/batches"; returns a response to send instead of the real one.
        page: Maximum number of batches in a page of the list.

    `files` holds contents by id, `batches` every batch in order, `paid` how often each custom_id was answered.
    """

    def __init__(
        self,
        replies: Callable[[dict[str, Any]], Any] | dict[str, Any],
        polls: int = 0,
        shuffle: bool = False,
        validate: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = lambda lines: [],
        created: Callable[[dict[str, Any]], Any] = lambda batch: None,
        trouble: Callable[[str], dict[str, Any] | None] = lambda route: None,
        page: int = 100,
    ) -> None:
        super().__init__(replies)
        self.polls, self.shuffle, self.validate, self.created, self.trouble = (
            polls,
            shuffle,
            validate,
            created,
            trouble,
        )
        self.page = page
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.ends: dict[str, dict[str, Any]] = {}  # how a batch ends, after enough polls
        self.seen: Counter[str] = Counter()
        self.paid: Counter[str] = Counter()
        self._server.RequestHandlerClass = type("BatchHandler", (_BatchHandler,), {"teacher": self})

    def add_file(self, content: bytes) -> str:
        name = f"file-{len(self.files)}"
        self.files[name] = content
        return name

    def create(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Create a batch and answer its requests at once: they are paid even if the client forgets the batch."""
        lines = [json.loads(line) for line in self.files[wanted["input_file_id"]].splitlines()]
        batch = {
            "id": f"batch_{len(self.batches)}",
            "object": "batch",
            "endpoint": wanted["endpoint"],
            "completion_window": wanted["completion_window"],
            "input_file_id": wanted["input_file_id"],
            "metadata": wanted.get("metadata"),
            "created_at": 1767225600 + len(self.batches),
            "status": "in_progress",
            "request_counts": {"total": len(lines), "completed": len(lines) // 2, "failed": 0},
        }
        self.batches[batch["id"]] = batch
        errors = self.validate(lines)
        if errors:
            self.ends[batch["id"]] = {"status": "failed", "errors": {"object": "list", "data": errors}}
            return batch
        output, faults = [], []
        for line in lines:
            self.requests.append(line["body"])
            reply = self.reply(line["body"])
            if isinstance(reply, str):
                reply = {"body": completion(reply, line["body"])}
            row = {"id": "batch_req", "custom_id": line["custom_id"], "response": None, "error": None}
            if reply is EXPIRED:
                row["error"] = {"code": "batch_expired", "message": "This request could not be executed in time."}
                faults.append(row)
                continue
            status = reply.get("status", 200)
            row["response"] = {"status_code": status, "request_id": "r", "body": reply["body"]}
            self.paid[line["custom_id"]] += status == 200
            (output if status == 200 else faults).append(row)
        if self.shuffle:
            random.Random(len(self.batches)).shuffle(output)
        expired = any(row["error"] for row in faults)
        end: dict[str, Any] = {"status": "expired" if expired else "completed"}
        for name, rows in (("output_file_id", output), ("error_file_id", faults)):
            # not only ASCII: a line separator inside a reply does not end the line
            content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            end[name] = self.add_file(content.encode()) if rows else None
        self.ends[batch["id"]] = end
        return batch

    def retrieve(self, name: str) -> dict[str, Any]:
        self.seen[name] += 1
        if self.seen[name] > self.polls:
            self.batches[name] |= self.ends[name]
        return self.batches[name]

    def list(self, after: str | None, limit: int) -> dict[str, Any]:
        names = list(self.batches)[::-1]
        names = names[names.index(after) + 1 :] if after else names
        shown = names[: min(limit, self.page)]
        data = [self.batches[name] for name in shown]
        return {"object": "list", "data": data, "has_more": len(names) > len(shown)}


class _BatchHandler(_TeacherHandler):
    teacher: FakeBatch

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        parts = address.path.removeprefix("/v1/").split("/")
        if self._in_the_way(f"GET {address.path}"):
            return None
        if parts == ["batches"]:
            return self._send({"body": self.teacher.list(query.get("after"), int(query.get("limit", 20)))})
        if parts[0] == "batches" and parts[1] in self.teacher.batches:
            return self._send({"body": self.teacher.retrieve(parts[1])})
        if parts[0] == "files" and parts[2:] == ["content"] and parts[1] in self.teacher.files:
            return self._send({"raw": self.teacher.files[parts[1]]})
        if parts[0] in ("batches", "files"):
            return self._send(_fault(404, f"No such object: {address.path}", "not_found"))
        return super().do_GET()

    def do_POST(self) -> None:
        if self.path not in ("/v1/files", "/v1/batches"):
            return super().do_POST()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self._in_the_way(f"POST {self.path}"):
            return None
        if self.path == "/v1/batches":
            try:
                batch = self.teacher.create(json.loads(body))
            except Exception as error:  # an error of the test's own code: raise it there, not in this thread
                self.teacher.errors.append(error)
                return self._send(_fault(400, repr(error), "reply_failed"))
            if self.teacher.created(batch):
                self.close_connection = True
                return None
            return self._send({"body": batch})
        kind = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        fields: dict[Any, Any] = {
            part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
            for part in BytesParser().parsebytes(kind + body).walk()
        }
        if fields["purpose"] != b"batch":
            return self._send(_fault(400, "purpose must be batch", "invalid_purpose"))
        name = self.teacher.add_file(fields["file"])
        file = {"id": name, "object": "file", "bytes": len(fields["file"]), "created_at": 1, "filename": "f.jsonl"}
        return self._send({"body": file | {"purpose": "batch", "status": "processed"}})

    def _in_the_way(self, route: str) -> bool:
        """Send an error if the token is missing or the test prepared one for this route; True if it did."""
        fault = None if self._has_token() else _fault(401, "Incorrect API key provided.", "invalid_api_key")
        fault = fault or self.teacher.trouble(route)
        if fault:
            self._send(fault)
        return bool(fault)
