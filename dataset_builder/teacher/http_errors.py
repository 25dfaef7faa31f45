"""What an HTTP error of an endpoint means: wait, try again, give up this request, or stop the run."""

import json
import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from open_ner.tools.errors import UserError

from ..config import TeacherConfig

QUOTA_CODES = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
DENIED_CODES = ("invalid_api_key", "model_not_found")
# codes that concern one passage alone: the code is journaled as its reply, and the passage is not asked again
FINAL_CODES = ("content_filter", "context_length_exceeded")
TOO_LONG = re.compile(r"context.length|maximum context|too many tokens|prompt is too long", re.IGNORECASE)


class RateLimited(Exception):
    """The endpoint wants to be asked later: after `retry_after` seconds, or at a lower pace if that is None."""

    def __init__(self, retry_after: float | None, message: str = "") -> None:
        super().__init__(f"rate limit (Retry-After: {retry_after}): {message}")
        self.retry_after = retry_after


class TransientError(Exception):
    """A fault that may pass: a server error, a broken connection, a body that is not a completion."""


class RequestRejected(Exception):
    """The endpoint will never answer this request; `code` is one of FINAL_CODES if the passage is the reason."""

    def __init__(self, code: str | None, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class ApiError:
    """The error an endpoint sent in place of a result; `status` is None if a batch ended without one."""

    status: int | None
    code: str | None
    message: str


def read_error(status: int, body: bytes) -> ApiError:
    """Read an error body: the API's own form, a bare message, or a proxy's page."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return ApiError(status, None, body[:120].decode("utf-8", "replace"))
    return find_error(status, data)


def find_error(status: int | None, data: Any) -> ApiError:
    """Find code and message in the JSON of an error."""
    error = data.get("error", data) if isinstance(data, dict) else data
    if not isinstance(error, dict):
        return ApiError(status, None, str(error or f"status {status}"))
    code = error.get("code")
    message = error.get("message") or error.get("detail") or error or f"status {status}"
    return ApiError(status, code if isinstance(code, str) else None, str(message))


def exception_of(
    error: ApiError, headers: Mapping[str, str], url: str, config: TeacherConfig, unknown: str = ""
) -> Exception:
    """Map an HTTP error to the exception to raise.

    Args:
        error: What the endpoint sent.
        headers: The response's headers, with case-insensitive names.
        url: The address, for messages.
        config: The teacher, for messages.
        unknown: Message for status 404; default: the model is unknown or the key is refused.

    Returns:
        UserError if every other request would meet the same error, RateLimited, TransientError or RequestRejected.
    """
    status, code, message = error.status or 0, error.code, " ".join(error.message.split())[:300]
    wait = retry_after(headers)
    if code in QUOTA_CODES or status == 402:
        return UserError(f"the account's quota is used up: {message}")
    if status == 429 or (status == 503 and wait is not None):
        return RateLimited(wait, message)
    if status == 404 and unknown:
        return UserError(f"{url} {unknown}: {message}")
    if status in (401, 403, 404) or code in DENIED_CODES:
        return UserError(f"{url} refuses model {config.model!r} or the key in ${config.api_key_env}: {message}")
    if 300 <= status < 400:
        return UserError(f"{url} moved to {headers.get('Location', '?')!r:.200}: set teacher.base_url")
    if status < 400 or status >= 500 or status in (408, 409):
        return TransientError(f"status {status}: {message}" if status else message)
    if code not in FINAL_CODES:
        code = "context_length_exceeded" if TOO_LONG.search(message) else None
    return RequestRejected(code, message)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait according to the headers, which give milliseconds, seconds or a date; None if they do not."""
    for name, scale in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            return max(0.0, float(headers.get(name, "")) / scale)
        except ValueError:
            continue
    try:
        return max(0.0, parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - time.time())
    except ValueError:
        return None


def backoff(faults: int) -> float:
    """Seconds before the next try, doubled with each fault up to half a minute, with jitter."""
    return min(30.0, 0.5 * 2**faults) * (0.5 + random.random())
