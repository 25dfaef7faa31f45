"""Chat completions of one OpenAI-compatible endpoint over one pool of connections.

The `openai` client gives the address and the headers (key, organization, project, the OPENAI_* variables); requests go
through aiohttp, because building the client's own request objects costs three times the CPU of the rest.
"""

import base64
import json
import os
import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from command_line.public import public_url
from open_ner.tools.errors import UserError

from ..config import TeacherConfig
from .http_errors import TransientError, exception_of, mask, read_error

CONNECT_SECONDS = 30.0
LARGEST = 2**25  # bytes of a response; a reply has a few thousand


def read_key(config: TeacherConfig, wanted: int) -> str:
    """Read the API key from the environment; raises UserError if it is missing or not valid in a header."""
    key = os.environ.get(config.api_key_env, "").strip()
    if not key:
        raise UserError(
            f"{wanted} questions are to be asked, but ${config.api_key_env} is not set: "
            "set it (any text, if the server needs no key)"
        )
    if not key.isascii() or not key.isprintable():
        raise UserError(f"${config.api_key_env} contains characters that are not valid in an API key; set it again")
    return key


def open_endpoint(config: TeacherConfig, key: str) -> "ChatEndpoint":
    """Build the endpoint of a recipe, with the address and headers that the `openai` client would use."""
    import httpx2
    import openai

    builder = httpx2.AsyncClient(verify=False)  # it only builds headers and never sends anything
    try:
        client = openai.AsyncOpenAI(api_key=key, base_url=config.base_url, http_client=builder)
    except httpx2.InvalidURL:
        raise _invalid_address(config) from None
    headers = {**client.default_headers, **client.auth_headers}
    headers = {name: value for name, value in headers.items() if isinstance(value, str)}
    # the parsed scheme is in lower case, however the address is spelled
    certificates = False if client.base_url.scheme == "http" else httpx2.create_ssl_context()
    parts = urlsplit(str(client.base_url))
    if parts.username is not None:  # as the `openai` client does
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    url = parts._replace(netloc=parts.netloc.rpartition("@")[2], path=f"{parts.path}chat/completions").geturl()
    return ChatEndpoint(config, url, headers, certificates)


def _invalid_address(config: TeacherConfig) -> UserError:
    given = public_url(config.base_url or os.environ.get("OPENAI_BASE_URL") or "")
    return UserError(f"teacher.base_url {given!r} is not a valid address: write http(s)://host/v1")


class ChatEndpoint:
    """Chat completions as raw JSON; an async context manager.

    Args:
        certificates: The certificates that TLS trusts; False for plain HTTP only.

    Messages show the key as *** and name the endpoint by its `address`, without credentials.
    """

    def __init__(
        self, config: TeacherConfig, url: str, headers: dict[str, str], certificates: ssl.SSLContext | bool
    ) -> None:
        self.config, self.url, self.certificates = config, url, certificates
        self.headers = {**headers, "Content-Type": "application/json"}
        self.address = public_url(url)

    async def __aenter__(self) -> "ChatEndpoint":
        import aiohttp

        try:
            parts, proxies = urlsplit(self.url), getproxies()
        except ValueError:
            raise _invalid_address(self.config) from None
        self._session = aiohttp.ClientSession(
            # unlimited: the callers limit the requests in flight
            connector=aiohttp.TCPConnector(limit=0, ssl=self.certificates),
            headers=self.headers,
            timeout=aiohttp.ClientTimeout(total=self.config.timeout, sock_connect=CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            # with trust_env, aiohttp would also read ~/.netrc, and reject the key beside it
            proxy=None if proxy_bypass(parts.netloc) else proxies.get(parts.scheme) or proxies.get("all"),
        )
        return self

    async def __aexit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._session.close()

    async def complete(self, body: bytes) -> tuple[Any, Mapping[str, str]]:
        """Send a request and return the parsed JSON of the response, unchecked, with its headers.

        Raises the exceptions of `http_errors`, and UserError if every request would fail. Redirects are not followed:
        a POST would become a GET, and the key would go to a host the user did not name.
        """
        import aiohttp

        reply, connecting = b"", (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)
        try:
            async with self._session.post(self.url, data=body, allow_redirects=False) as response:
                async for chunk in response.content.iter_any():
                    reply += chunk
                    if len(reply) > LARGEST:
                        raise TransientError(f"a response of more than {LARGEST:,} bytes", billed=True)
                headers, status = response.headers, response.status
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
            raise _invalid_address(self.config) from None
        except aiohttp.ClientConnectorCertificateError as error:
            said = mask(str(error), self.config)
            raise UserError(f"{self.address} has a certificate that is not trusted: {said}") from None
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            said = mask(str(error) or f"no answer within {self.config.timeout:g} s", self.config)
            raise TransientError(said, billed=not isinstance(error, connecting)) from None
        if status == 200:
            try:
                return json.loads(reply), headers
            except (ValueError, RecursionError):
                said = f"not JSON: {mask(reply[:2000].decode('utf-8', 'replace'), self.config)[:60]!r}"
                raise TransientError(said, billed=True) from None
        raise exception_of(status, read_error(reply), headers, self.address, self.config)
