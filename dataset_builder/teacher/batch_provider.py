"""The provider's side of the Batch API: files and batches; each request is repeated while a retry can help."""

import json
import time
from collections.abc import Callable, Container
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from open_ner.tools.errors import UserError

from ..config import TeacherConfig
from .http_errors import RateLimited, RequestRejected, backoff, exception_of, find_error, read_error
from .records import JournalRecord, read_completion
from .requests import Question, address, request_body

if TYPE_CHECKING:
    from openai.types import Batch

ENDPOINT = "/v1/chat/completions"
Result = TypeVar("Result")


class Provider:
    """Batches that carry one run's name as metadata."""

    def __init__(self, config: TeacherConfig, key: str, run: str) -> None:
        import openai

        self.config, self.run, self.url = config, run, address(config)
        # without redirects, which would send the passages to a host that the user did not name, and without the
        # client's own retries: a repeated `create` would be a second batch, and paid
        options = {"max_retries": 0, "timeout": config.timeout}
        http = openai.DefaultHttpxClient(follow_redirects=False)
        self.client = openai.OpenAI(api_key=key, base_url=config.base_url, http_client=http, **options)

    def listed(self) -> "list[Batch]":
        """All batches that carry this run's name."""
        return self._call(self._list)

    def _list(self) -> "list[Batch]":
        from openai import omit
        from openai.types import Batch

        found: list[Batch] = []
        after = omit
        while True:  # read the raw pages: the client fails on a proxy's page with an AttributeError
            page = json.loads(self.client.batches.with_raw_response.list(limit=100, after=after).content)
            rows = page.get("data") if isinstance(page, dict) else None
            if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
                raise ValueError(f"not a list of batches: {page!r:.2000}")
            batches = [_checked(Batch.construct(**row), id=str, status=str) for row in rows]
            found += [batch for batch in batches if batch.metadata and batch.metadata.get("run") == self.run]
            if not batches or not page.get("has_more"):
                return found
            after = batches[-1].id

    def retrieve(self, name: str) -> "Batch":
        """The current state of a batch."""
        return self._call(lambda: _checked(self.client.batches.retrieve(name), id=str, status=str), name)

    def create(self, part: str, path: Path, known: Container[str]) -> str:
        """Upload a part and create its batch, once; returns the batch's id. `known` are the ids of other batches."""
        sent = False

        def upload() -> str:
            with path.open("rb") as file:
                return _checked(self.client.files.create(file=file, purpose="batch"), id=str).id

        def create_or_find() -> str:
            nonlocal sent
            if sent:  # no response came, but the batch may have been created
                for batch in self._list():
                    if batch.metadata and batch.metadata.get("part") == part and batch.id not in known:
                        return batch.id
            sent = True
            metadata, batches = {"run": self.run, "part": part}, self.client.batches
            created = batches.create(
                input_file_id=file_id, endpoint=ENDPOINT, completion_window="24h", metadata=metadata
            )
            return _checked(created, id=str).id

        try:
            file_id = self._call(upload)
        except UserError:  # no batch has this part
            path.unlink()
            raise
        return self._call(create_or_find)

    def download(self, file_id: str, path: Path) -> None:
        """Download a file, completely or not at all; it may be larger than memory."""
        import openai

        draft = path.with_suffix(".draft")

        def fetch() -> None:
            with openai.DefaultHttpxClient() as http:  # follows redirects to the storage, without the key
                files = self.client.with_options(http_client=http).files.with_streaming_response
                with files.content(file_id) as response:
                    response.stream_to_file(draft)
            with draft.open("rb") as lines:
                for line in lines:  # reading a proxy's page as the file would lose the replies
                    row = json.loads(line) if line.strip() else {"custom_id": ""}
                    if not isinstance(row, dict) or "custom_id" not in row:
                        raise ValueError(f"not a line of a batch: {line[:2000]!r}")

        self._call(fetch, file_id)
        draft.replace(path)

    def _call(self, request: Callable[[], Result], about: str = "") -> Result:
        """Repeat a request after faults; UserError if that cannot help. `about` is the id of its file or batch."""
        import httpx2
        import openai

        hint = "use the base_url and key that made it, or delete the folder's state.json to ask again"
        unknown = f"does not know {about}: {hint}" if about else "has no Batch API"
        attempt = faults = 0
        while True:
            try:
                return request()
            except openai.APIStatusError as error:
                response, said = error.response, read_error(error.response.content)
                fault = exception_of(response.status_code, said, response.headers, self.url, self.config, unknown)
            except (openai.APIError, httpx2.HTTPError, ValueError) as error:
                cause = error.__cause__ or error
                if "CERTIFICATE_VERIFY_FAILED" in str(cause):
                    raise UserError(f"{self.url} has a certificate that is not trusted: {cause}") from None
                fault = exception_of(0, (None, repr(cause)), {}, self.url, self.config)
            if isinstance(fault, UserError):
                raise fault
            if isinstance(fault, RequestRejected):
                raise UserError(f"{self.url} rejects the batch: {fault}")
            faults += not isinstance(fault, RateLimited)
            if faults > self.config.max_retries:
                raise UserError(f"{self.url} gave no usable answer {faults} times: {fault}")
            wait = fault.retry_after if isinstance(fault, RateLimited) else None
            time.sleep(backoff(attempt) if wait is None else wait)
            attempt = min(attempt + 1, 6)


def _checked(result: Result, **types: type) -> Result:
    """Check the types of attributes: the client builds objects from any JSON, and returns a proxy's page as text."""
    for name, expected in types.items():
        if not isinstance(getattr(result, name, None), expected):
            raise ValueError(f"no {name} in the response: {result!r:.2000}")
    return result


def request_line(question: Question, config: TeacherConfig) -> bytes:
    """A line of a part's input file."""
    row = {"custom_id": question.key, "method": "POST", "url": ENDPOINT, "body": request_body(question, config)}
    return json.dumps(row, ensure_ascii=True).encode() + b"\n"


def read_result(row: Any, question: Question, config: TeacherConfig) -> JournalRecord:
    """Read the reply in a line of an output or error file; without one, raise what `exception_of` returns."""
    response = row.get("response")
    response = response if isinstance(response, dict) else {}
    status, body = response.get("status_code"), response.get("body")
    if status == 200 and not row.get("error"):
        return read_completion(question, body, "the endpoint", config)
    error = find_error(row.get("error") or body)
    raise exception_of(status if isinstance(status, int) else 0, error, {}, "the endpoint", config)
