"""One OpenAI-compatible endpoint over one pool of connections, and what its refusals mean.

The `openai` client says where to send and with which headers (key, organisation, project, the OPENAI_* variables);
the bytes go through aiohttp, because building the client's own request objects costs three times the CPU of the rest.
"""

import json
import os
import random
import re
import ssl
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any
from urllib.request import getproxies

from open_ner.tools.errors import UserError

from ..config import TeacherConfig
from .records import FINAL_REFUSALS

QUOTA = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
TOO_LONG = re.compile(r"context.length|maximum context|too many tokens|prompt is too long", re.IGNORECASE)
CONNECT_SECONDS = 30.0


class RateLimited(Exception):
    """Not now: ask again after `retry_after` seconds, or when the pace allows where that is None. No failure."""

    def __init__(self, retry_after: float | None) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after


class TransientError(Exception):
    """Something that may pass: a server's error, a broken connection, a body that is no completion."""


class RequestRejected(Exception):
    """The endpoint will never answer this request; `code` is one of FINAL_REFUSALS where it is the passage's fault."""

    def __init__(self, code: str | None, message: str) -> None:
        super().__init__(message)
        self.code = code


def read_key(config: TeacherConfig, wanted: int) -> str:
    """The key from the environment; UserError where there is none that a header can carry."""
    key = os.environ.get(config.api_key_env, "").strip()
    if not key:
        raise UserError(f"{wanted} answers are to be asked and ${config.api_key_env} holds no key: set it")
    if not key.isascii() or not key.isprintable():
        raise UserError(f"${config.api_key_env} holds characters that no key has: set it anew")
    return key


def no_address(config: TeacherConfig) -> UserError:
    """What is said of a `base_url` that nothing can be sent to."""
    return UserError(f"teacher.base_url {config.base_url!r} is no address: write http(s)://host/v1")


class ChatEndpoint:
    """Chat completions as raw JSON; an async context manager. `certificates` is what TLS trusts, or False for none."""

    def __init__(
        self,
        config: TeacherConfig,
        url: str,
        headers: Mapping[str, str],
        key: str,
        certificates: ssl.SSLContext | bool,
    ) -> None:
        self.config, self.url, self.key, self.certificates = config, url, key, certificates
        self.headers = {**headers, "Content-Type": "application/json"}

    async def __aenter__(self) -> "ChatEndpoint":
        import aiohttp

        self._session = aiohttp.ClientSession(
            # no limit of its own: the callers in flight are counted already
            connector=aiohttp.TCPConnector(limit=0, ssl=self.certificates),
            headers=self.headers,
            timeout=aiohttp.ClientTimeout(total=self.config.timeout, sock_connect=CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=bool(getproxies()),  # it costs a look into the environment, in a thread, for every request
        )
        return self

    async def __aexit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._session.close()

    async def complete(self, body: dict[str, Any]) -> tuple[dict[str, Any], Mapping[str, str]]:
        """The parsed completion and its headers.

        Raises RateLimited, TransientError or RequestRejected, and UserError for what stops a run.

        No redirect is followed: a POST would become a GET, and the key would go to a host nobody named.
        """
        import aiohttp

        content = json.dumps(body).encode()
        try:
            async with self._session.post(self.url, data=content, allow_redirects=False) as response:
                answer, headers, status = await response.read(), response.headers, response.status
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
            raise no_address(self.config) from None
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise TransientError(self._clean(str(error) or f"no answer within {self.config.timeout:g} s")) from None
        if status == 200:
            try:
                return json.loads(answer), headers
            except (ValueError, RecursionError):
                raise TransientError(f"no JSON: {self._clean(answer[:60].decode('utf-8', 'replace'))!r}") from None
        raise self._explain(status, headers, answer)

    def _explain(self, status: int, headers: Mapping[str, str], answer: bytes) -> Exception:
        """What an answer that is no completion asks of us."""
        code, message = read_error(answer)
        message = self._clean(message or f"status {status}")
        wait = retry_after(headers)
        if code in QUOTA or status == 402:
            return UserError(f"the account's quota is used up: {message}")
        if status == 429 or (status == 503 and wait is not None):
            return RateLimited(wait)
        if status in (401, 403, 404):
            return UserError(
                f"{self.url} refuses model {self.config.model!r} or the key in ${self.config.api_key_env}: {message}"
            )
        if 300 <= status < 400:
            return UserError(f"{self.url} moved to {headers.get('Location', '?')!r:.200}: set teacher.base_url")
        if status < 400 or status >= 500 or status in (408, 409):
            return TransientError(f"status {status}: {message}")
        if code not in FINAL_REFUSALS:
            code = "context_length_exceeded" if TOO_LONG.search(message) else None
        return RequestRejected(code, message)

    def _clean(self, message: str) -> str:
        """One line without the key, should a server repeat it."""
        return " ".join(message.replace(self.key, "***").split())[:300]


def read_error(answer: bytes) -> tuple[str | None, str]:
    """`(code, message)` of an error body: the API's own form, a bare message, or a proxy's page."""
    try:
        data = json.loads(answer)
    except (ValueError, RecursionError):
        return None, answer[:120].decode("utf-8", "replace")
    error = data.get("error", data) if isinstance(data, dict) else data
    if not isinstance(error, dict):
        return None, str(error)
    code = error.get("code")
    return code if isinstance(code, str) else None, str(error.get("message") or error.get("detail") or error)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait as the headers say it: in milliseconds, in seconds, or as a date; None where they do not."""
    for name, scale in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            return max(0.0, float(headers[name]) / scale)
        except (KeyError, ValueError):
            continue
    try:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    except (KeyError, ValueError, TypeError):
        return None


def backoff(faults: int) -> float:
    """Seconds before the next try, doubled each time up to half a minute, with jitter."""
    return min(30.0, 0.5 * 2**faults) * (0.5 + random.random())
