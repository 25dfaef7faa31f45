"""What an HTTP error of an endpoint means: wait, try again, give up this request, or stop the run."""

import json
import os
import random
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from open_ner.tools.errors import UserError
from open_ner.tools.escapes import without_key

from ..config import TeacherConfig
from .parse import PASSAGE_CODES

# this many rejections in a row, unusable replies or 429s are caused by the key or the request, not by a passage
MOST_ALIKE = 10
QUOTA_CODES = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
DENIED_CODES = ("invalid_api_key", "model_not_found")
GATEWAY = (408, 502, 504, 520, 522, 524)  # statuses of a proxy that timed out; the model's reply may be billed
LONGEST_WAIT = 60.0  # seconds; a longer Retry-After is shortened, because some endpoints send nonsense
ApiError = tuple[str | None, str]  # code and message, as the API gives them
TOO_LONG = re.compile(r"context.length|maximum context|too many tokens|prompt is too long", re.IGNORECASE)


class RateLimited(Exception):
    """Status 429: ask again after `retry_after` seconds, or at a lower pace if that is None."""

    def __init__(self, retry_after: float | None, message: str = "") -> None:
        super().__init__(f"rate limit{f' for {retry_after:g} s' if retry_after else ''}: {message}")
        self.retry_after = retry_after


class TransientError(Exception):
    """A temporary fault. `billed`: a reply may have been billed although it could not be read, as after a timeout."""

    def __init__(self, message: str, billed: bool = False) -> None:
        super().__init__(message)
        self.billed = billed


class Forbidden(UserError):
    """Status 403: the endpoint rejects the key or the model in every request, or a filter rejects one passage."""


class RequestRejected(Exception):
    """The endpoint will never answer this request; `code` is one of PASSAGE_CODES if the passage is the reason."""

    def __init__(self, code: str | None, message: str) -> None:
        super().__init__(message)
        self.code = code


def read_error(body: bytes) -> ApiError:
    """Read an error body: the API's own form, a bare message, or a proxy's page."""
    try:
        return find_error(json.loads(body))
    except (ValueError, RecursionError):
        return None, body[:120].decode("utf-8", "replace")


def find_error(data: Any) -> ApiError:
    """Find code and message in the JSON of an error."""
    error = data.get("error", data) if isinstance(data, dict) else data
    if not isinstance(error, dict):
        return None, str(error or "")
    code = error.get("code")
    return code if isinstance(code, str) else None, str(error.get("message") or error.get("detail") or error)


def exception_of(
    status: int, error: ApiError, headers: Mapping[str, str], url: str, config: TeacherConfig, unknown: str = ""
) -> Exception:
    """Map an HTTP error to the exception to raise; UserError if every other request would meet the same error.

    `status` is 0 if a batch ended without one; `unknown` is the message for status 404 if it is not about the model.
    """
    code, message = error[0], mask(error[1], config) or f"status {status}"
    wait = retry_after(headers)
    if code in QUOTA_CODES or status == 402:
        return UserError(f"the account's quota is used up: {message}")
    if status == 429 or (status == 503 and wait is not None):
        return RateLimited(None if wait is None else min(LONGEST_WAIT, wait), message)
    if status == 404 and unknown:
        return UserError(f"{url} {unknown}: {message}")
    if status in (401, 403, 404) or code in DENIED_CODES:
        said = f"{url} refuses model {config.model!r} or the key in ${config.api_key_env}: {message}"
        return Forbidden(said) if status == 403 else UserError(said)
    if 300 <= status < 400:
        return UserError(f"{url} moved to {mask(headers.get('Location', '?'), config)!r:.200}: set teacher.base_url")
    if status < 400 or status >= 500 or status in (408, 409):
        return TransientError(f"status {status}: {message}" if status else message, billed=status in GATEWAY)
    if code not in PASSAGE_CODES:
        code = "context_length_exceeded" if TOO_LONG.search(message) else None
    return RequestRejected(code, message)


def mask(message: str, config: TeacherConfig) -> str:
    """The message in one line of at most 300 characters, without the API key, which a server may repeat."""
    key = os.environ.get(config.api_key_env, "").strip()
    return " ".join(without_key(message, key).split())[:300]


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait according to the headers, which give milliseconds, seconds or a date; None if they do not."""
    for name, scale in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            return max(0.0, float(headers.get(name, "")) / scale)
        except ValueError:
            continue
    try:
        return max(0.0, parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def backoff(faults: int) -> float:
    """Seconds before the next try, doubled with each fault up to half a minute, with jitter."""
    return min(30.0, 0.5 * 2**faults) * (0.5 + random.random())
