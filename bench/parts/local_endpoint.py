"""An OpenAI-compatible endpoint on 127.0.0.1 for the benches, with a fixed latency, a rate limit and faults.

It uses only asyncio protocols, because HTTP frameworks are slower than the clients here. `GET /stats` returns counts.
"""

import asyncio
import hashlib
import json
import multiprocessing
import random
import time
from collections import Counter
from types import TracebackType
from typing import Any

REPLY = '[("Ada Lovelace", "person"), ("London", "city"), ("Analytical Engine", "invention")]'
FAULTS = ("429", "500", "reset mid-body", "hang", "truncated body")  # the first request of one prompt in four gets one


class LocalEndpoint:
    """The endpoint runs in its own process inside the `with` block; `base_url` is its address.

    Args:
        latency: Seconds before each reply.
        per_minute: Rate limit, a token bucket of one second; a request above it gets a 429 with `Retry-After: 1`.
        headers: Whether the replies state that limit.
        faults: Some of FAULTS; the first request of one prompt in four gets one of them.
        random_share: Share of all requests that get a 429 without `Retry-After`.
        names: Entities with their types: a reply lists those that the passage has. Without them all replies are equal.
    """

    def __init__(self, latency: float, **settings: Any) -> None:
        self._settings = {"latency": latency, **settings}

    def __enter__(self) -> "LocalEndpoint":
        port: multiprocessing.Queue[int] = multiprocessing.Queue()
        self._process = multiprocessing.Process(target=_serve, args=(port, self._settings), daemon=True)
        self._process.start()
        self.base_url = f"http://127.0.0.1:{port.get()}/v1"
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.join()

    def stats(self) -> dict[str, Any]:
        """Return counts: requests, 429s, billed replies (arrived or not); by prompt, requests and complete replies."""
        from urllib.request import urlopen

        with urlopen(self.base_url.removesuffix("/v1") + "/stats") as response:
            return json.load(response)


class _State:
    def __init__(
        self, latency: float, per_minute: float | None = None, headers: bool = True, faults: tuple[str, ...] = (),
        random_share: float = 0.0, names: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.latency, self.rate, self.faults, self.share = latency, (per_minute or 0) / 60, faults, random_share
        self.headers = f"x-ratelimit-limit-requests: {per_minute:g}\r\n" if per_minute and headers else ""
        self.requests = self.rate_limited = self.billed = 0
        self.asked: Counter[str] = Counter()
        self.delivered: Counter[str] = Counter()
        self.names = names
        self.met: set[str] = set()
        self.bucket, self.filled = self.rate, time.monotonic()

    def over_the_limit(self) -> bool:
        """Take a token from the bucket; return whether it was empty."""
        now = time.monotonic()
        self.bucket, self.filled = min(self.rate, self.bucket + (now - self.filled) * self.rate), now
        empty = self.rate > 0 and self.bucket < 1
        self.bucket -= not empty
        return empty

    def fault(self, prompt: str) -> str | None:
        """Return the fault of a prompt's first request, or None."""
        number = int(prompt[:8], 16)
        if not self.faults or number % 4 or prompt in self.met:
            return None
        self.met.add(prompt)
        return self.faults[number // 4 % len(self.faults)]


class _Connection(asyncio.Protocol):
    """One connection: a request, its reply after the latency, the next request."""

    def __init__(self, state: _State) -> None:
        self.state, self.buffer = state, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        lower = head.lower()
        length = int(lower.split(b"content-length:")[1].split(b"\r\n")[0]) if b"content-length:" in lower else 0
        if len(body) < length:
            return
        self.buffer = body[length:]
        if b"/stats" in head.split(b"\r\n")[0]:
            names = ("requests", "rate_limited", "billed", "asked", "delivered")
            self.send(200, json.dumps({name: getattr(self.state, name) for name in names}))
        elif b"chat/completions" not in head.split(b"\r\n")[0]:
            self.send(404, '{"error": {"message": "no such address"}}')
        else:
            self.answer(body[:length])

    def answer(self, body: bytes) -> None:
        self.state.requests += 1
        passage = body[body.rfind(b"Passage: ") :].split(b'"')[0]
        prompt = hashlib.sha256(passage).hexdigest()
        self.state.asked[prompt] += 1
        fault = self.state.fault(prompt)
        if fault == "429" or self.state.over_the_limit():
            self.state.rate_limited += 1
            self.send(429, '{"error": {"message": "slow down", "code": "rate_limit_exceeded"}}', "Retry-After: 1\r\n")
        elif random.random() < self.state.share:
            self.state.rate_limited += 1
            self.send(429, '{"error": {"message": "busy"}}')
        elif fault == "500":
            self.send(500, '{"error": {"message": "internal"}}')
        else:
            self.state.billed += 1
            if fault == "hang":
                return
            reply = REPLY
            if self.state.names is not None:
                reply = str([(name, kind) for name, kind in self.state.names.items() if name.encode() in passage])
            asyncio.get_running_loop().call_later(self.state.latency, self.complete, prompt, reply, fault)

    def complete(self, prompt: str, reply: str, fault: str | None) -> None:
        """Send a completion, or a part of it as the fault demands; a whole one counts as delivered."""
        if self.transport.is_closing():
            return
        choice = {"index": 0, "message": {"role": "assistant", "content": reply}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 200, "completion_tokens": 40, "total_tokens": 240}
        answer = {"id": "x", "object": "chat.completion", "created": 0, "model": "bench", "choices": [choice]}
        content = json.dumps({**answer, "usage": usage})
        if fault == "truncated body":
            self.send(200, content[:-40])
        elif fault == "reset mid-body":
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
            self.transport.write(head.encode() + content[:100].encode())
            self.transport.abort()
        else:
            self.send(200, content)
            self.state.delivered[prompt] += 1

    def send(self, status: int, content: str, headers: str = "") -> None:
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{self.state.headers}{headers}"
        self.transport.write(f"{head}Content-Length: {len(content)}\r\n\r\n{content}".encode())


def _serve(port: "multiprocessing.Queue[int]", settings: dict[str, Any]) -> None:
    async def main() -> None:
        state, loop = _State(**settings), asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Connection(state), "127.0.0.1", 0, backlog=1024)
        port.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())
