"""The provider's side of its Batch API: files and batches, each request repeated until it passes or never will."""

import json
import time
from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from open_ner.tools.errors import UserError

from ..config import TeacherConfig
from .endpoint import QUOTA, backoff, retry_after
from .questions import Question, request_parameters
from .records import read_completion

ENDPOINT = "/v1/chat/completions"
HOPELESS = (*QUOTA, "invalid_api_key", "model_not_found")
Result = TypeVar("Result")


@dataclass
class LineFault:
    """Why a line holds no answer."""

    status: int | None
    code: str | None
    message: str

    @property
    def hopeless(self) -> bool:
        """Every other request would meet it too."""
        return self.status in (401, 403, 404) or self.code in HOPELESS

    @property
    def lasting(self) -> bool:
        """The same request would meet it again."""
        return self.status is not None and 400 <= self.status < 500 and self.status not in (408, 409, 429)


class Provider:
    """Batches that carry one run's name. `client` is an `openai.OpenAI` whose own retries are off."""

    def __init__(self, client: Any, config: TeacherConfig, run: str) -> None:
        self.client, self.config, self.run = client, config, run

    def listed(self, part: str | None = None) -> list[Any]:
        """The batches that carry this run's name, and the part's where one is given."""
        return self.call(lambda: self._list(part))

    def _list(self, part: str | None) -> list[Any]:
        found = []
        for batch in self.client.batches.list(limit=100):  # goes on through all pages
            metadata = batch.metadata or {}
            if metadata.get("run") == self.run and part in (None, metadata.get("part")):
                found.append(batch)
        return found

    def retrieve(self, name: str) -> Any:
        """A batch as it stands."""
        return self.call(lambda: self.client.batches.retrieve(name), name)

    def create(self, part: str, path: Path, known: Container[str]) -> str:
        """Upload a part and create its batch, once; the batch's id. `known` are the ids of other batches."""
        metadata = {"run": self.run, "part": part}
        sent = False

        def upload() -> Any:
            with path.open("rb") as file:
                return self.client.files.create(file=file, purpose="batch")

        def create_or_find() -> Any:
            nonlocal sent
            if sent:  # no answer came: the batch may have been created all the same
                for batch in self._list(part):
                    if batch.id not in known:
                        return batch
            sent = True
            return self.client.batches.create(
                input_file_id=uploaded.id, endpoint=ENDPOINT, completion_window="24h", metadata=metadata
            )

        uploaded = self.call(upload)
        return self.call(create_or_find).id

    def download(self, file_id: str, path: Path) -> None:
        """A file of the provider's, whole or not at all: it may be larger than memory."""
        draft = path.with_suffix(".draft")

        def fetch() -> None:
            with self.client.files.with_streaming_response.content(file_id) as response:
                response.stream_to_file(draft)
            with draft.open("rb") as lines:
                for line in lines:  # a proxy's page taken for a file would lose the answers
                    if line.strip() and "custom_id" not in json.loads(line):
                        raise ValueError(f"no line of a batch: {line[:60]!r}")

        self.call(fetch, file_id)
        draft.replace(path)

    def call(self, request: Callable[[], Result], about: str = "") -> Result:
        """The result of a request: rate limits are waited out, faults asked again, the rest is one line."""
        import httpx2
        import openai

        where = self.config.base_url or "the endpoint"
        attempt = faults = 0
        while True:
            try:
                result = request()
                if isinstance(result, str):  # a proxy's page, which the client hands through
                    raise ValueError(f"no JSON: {result:.60}")
                return result
            except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
                raise UserError(f"{where} refuses the key: {error}") from None
            except openai.NotFoundError as error:
                hint = "use the base_url and key that made it, or delete the folder's state.json to ask anew"
                hint = f"does not know {about}: {hint}" if about else "has no Batch API"
                raise UserError(f"{where} {hint}: {error}") from None
            except openai.RateLimitError as error:
                if error.code in QUOTA:
                    raise UserError(f"the account's quota is used up: {error}") from None
                wait = retry_after(error.response.headers) or backoff(attempt)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                raise UserError(f"{where} rejects the batch: {error}") from None
            # a fault, an answer cut short, or a body that is not what the API sends
            except (openai.APIError, httpx2.HTTPError, AttributeError, TypeError, ValueError) as error:
                faults += 1
                if faults > self.config.max_retries:
                    raise UserError(f"{where} gave no usable answer {faults} times: {error!r:.200}") from None
                wait = backoff(attempt)
            attempt = min(attempt + 1, 6)
            time.sleep(wait)


def request_line(question: Question, config: TeacherConfig) -> bytes:
    """A line of a part's input file."""
    body = {"model": config.model, "messages": question.messages, **request_parameters(config)}
    row = {"custom_id": question.key, "method": "POST", "url": ENDPOINT, "body": body}
    return json.dumps(row, ensure_ascii=True).encode() + b"\n"


def read_line(row: dict[str, Any], question: Question) -> dict[str, Any] | LineFault:
    """The journal record of an output or error line, or why it holds no answer."""
    response, error = row.get("response") or {}, row.get("error")
    status, body = response.get("status_code"), response.get("body")
    try:
        if status == 200 and not error:
            return read_completion(question, body)
    except ValueError as fault:
        return LineFault(None, None, str(fault))
    error = error or (body.get("error") if isinstance(body, dict) else None)
    error = error if isinstance(error, dict) else {"message": error}
    return LineFault(status, error.get("code"), str(error.get("message") or f"status {status}"))
