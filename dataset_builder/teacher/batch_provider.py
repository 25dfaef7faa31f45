"""The provider's side of the Batch API: files and batches; each request is repeated while a retry can help."""

import json
import time
from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from open_ner.tools.errors import UserError

from ..config import TeacherConfig
from .http_errors import (
    ApiError,
    RateLimited,
    RequestRejected,
    TransientError,
    backoff,
    exception_of,
    find_error,
    read_error,
)
from .records import JournalRecord, read_completion
from .requests import Question, request_body

if TYPE_CHECKING:
    import openai

ENDPOINT = "/v1/chat/completions"
Result = TypeVar("Result")


@dataclass
class ProviderBatch:
    """A batch as the provider describes it; `run` and `part` are its metadata."""

    id: str
    status: str
    run: str | None
    part: str | None
    input_file_id: str
    output_file_id: str | None
    error_file_id: str | None
    completed: int
    errors: list[ApiError]


class Provider:
    """Batches that carry one run's name.

    Args:
        client: A client whose own retries are off.
        config: The recipe's teacher.
        run: The run's name.
    """

    def __init__(self, client: "openai.OpenAI", config: TeacherConfig, run: str) -> None:
        self.client, self.config, self.run = client, config, run
        self.url = config.base_url or "the endpoint"

    def listed(self) -> list[ProviderBatch]:
        """All batches that carry this run's name."""
        return self._call(self._list)

    def _list(self) -> list[ProviderBatch]:
        import openai

        found: list[ProviderBatch] = []
        after: str | openai.Omit = openai.omit
        while True:
            response = self.client.batches.with_raw_response.list(limit=100, after=after)
            page = _object(json.loads(response.content))
            batches = [read_batch(data) for data in page.get("data") or []]
            found += [batch for batch in batches if batch.run == self.run and batch.part]
            if not batches or not page.get("has_more"):
                return found
            after = batches[-1].id

    def retrieve(self, name: str) -> ProviderBatch:
        """The current state of a batch."""
        return self._call(
            lambda: read_batch(json.loads(self.client.batches.with_raw_response.retrieve(name).content)), name
        )

    def create(self, part: str, path: Path, known: Container[str]) -> str:
        """Upload a part and create its batch, once.

        Args:
            part: The part's name.
            path: Its input file.
            known: Ids of other batches.

        Returns:
            The batch's id.
        """
        sent = False

        def upload() -> str:
            with path.open("rb") as file:
                response = self.client.files.with_raw_response.create(file=file, purpose="batch")
            return _string(_object(json.loads(response.content)), "id")

        def create_or_find() -> str:
            nonlocal sent
            if sent:  # no response came, but the batch may have been created
                for batch in self._list():
                    if batch.part == part and batch.id not in known:
                        return batch.id
            sent = True
            response = self.client.batches.with_raw_response.create(
                input_file_id=file_id,
                endpoint=ENDPOINT,
                completion_window="24h",
                metadata={"run": self.run, "part": part},
            )
            return read_batch(json.loads(response.content)).id

        file_id = self._call(upload)
        return self._call(create_or_find)

    def download(self, file_id: str, path: Path) -> None:
        """Download a file, completely or not at all; it may be larger than memory."""
        draft = path.with_suffix(".draft")

        def fetch() -> None:
            with self.client.files.with_streaming_response.content(file_id) as response:
                response.stream_to_file(draft)
            with draft.open("rb") as lines:
                for line in lines:  # reading a proxy's page as the file would lose the replies
                    if line.strip():
                        _string(_object(json.loads(line)), "custom_id")

        self._call(fetch, file_id)
        draft.replace(path)

    def _call(self, request: Callable[[], Result], about: str = "") -> Result:
        """Return the result of a request; wait for rate limits and repeat it after faults.

        Args:
            request: Sends the request; raises ValueError if the response is malformed.
            about: Id of the file or batch that is asked for.

        Raises:
            UserError: a retry cannot help, or the retries are used up.
        """
        import httpx2
        import openai

        unknown = "has no Batch API"
        if about:
            unknown = (
                f"does not know {about}: use the base_url and key that made it, or delete the folder's state.json to "
                "ask again"
            )
        attempt = faults = 0
        while True:
            try:
                return request()
            except openai.APIStatusError as status:
                error = read_error(status.status_code, status.response.content)
                fault = exception_of(error, status.response.headers, self.url, self.config, unknown)
            except (openai.APIError, httpx2.HTTPError, ValueError) as error:
                cause = error.__cause__ or error
                if "CERTIFICATE_VERIFY_FAILED" in str(cause):
                    raise UserError(f"{self.url} has a certificate that is not trusted: {cause}") from None
                fault = TransientError(f"{cause!r:.200}")
            if isinstance(fault, UserError):
                raise fault
            if isinstance(fault, RequestRejected):
                raise UserError(f"{self.url} rejects the batch: {fault}")
            wait = fault.retry_after if isinstance(fault, RateLimited) else None
            if not isinstance(fault, RateLimited):
                faults += 1
                if faults > self.config.max_retries:
                    raise UserError(f"{self.url} gave no usable answer {faults} times: {fault}")
            time.sleep(backoff(attempt) if wait is None else wait)
            attempt = min(attempt + 1, 6)


def read_batch(data: Any) -> ProviderBatch:
    """Read the JSON of a batch; raises ValueError if it is not one."""
    batch = _object(data)
    metadata = _object(batch.get("metadata"))
    errors = []
    for item in _object(batch.get("errors")).get("data") or []:
        error = find_error(None, _object(item))
        errors.append(ApiError(None, error.code, f"{error.message} (line {item.get('line') or '-'})"))
    return ProviderBatch(
        _string(batch, "id"),
        _string(batch, "status"),
        metadata.get("run"),
        metadata.get("part"),
        _string(batch, "input_file_id"),
        batch.get("output_file_id"),
        batch.get("error_file_id"),
        int(_object(batch.get("request_counts")).get("completed") or 0),
        errors,
    )


def _object(data: Any) -> dict[str, Any]:
    """A JSON object; null counts as an empty one."""
    if data is not None and not isinstance(data, dict):
        raise ValueError(f"not an object of the Batch API: {data!r:.60}")
    return data or {}


def _string(data: dict[str, Any], name: str) -> str:
    if not isinstance(data.get(name), str):
        raise ValueError(f"no {name} in {data!r:.60}")
    return data[name]


def request_line(question: Question, config: TeacherConfig) -> bytes:
    """A line of a part's input file."""
    row = {"custom_id": question.key, "method": "POST", "url": ENDPOINT, "body": request_body(question, config)}
    return json.dumps(row, ensure_ascii=True).encode() + b"\n"


def read_line(line: bytes, question: Question, config: TeacherConfig) -> JournalRecord:
    """Read the reply in a line of an output or error file.

    Raises:
        RateLimited, TransientError, RequestRejected, UserError, ValueError: the line has no reply; see `http_errors`.
    """
    row = _object(json.loads(line))
    response = _object(row.get("response"))
    status, body = response.get("status_code"), response.get("body")
    if status == 200 and not row.get("error"):
        return read_completion(question, body)
    error = find_error(status if isinstance(status, int) else None, row.get("error") or body)
    raise exception_of(error, {}, "the endpoint", config)
