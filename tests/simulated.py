"""A clock that tests move and an endpoint on it: no test waits for a rate limit, or depends on the machine's speed."""

import asyncio
import json
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any

Simulated = Callable[[dict[str, Any]], Awaitable[tuple[dict[str, Any], dict[str, str]]]]


class Clock:
    """A clock that an event loop moves instead of sleeping."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def run(self, main: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine like `asyncio.run`, with this clock as the loop's time."""
        clock = self

        class Selector(selectors.SelectSelector):
            def select(self, timeout: float | None = None) -> Any:
                clock.now += timeout or 0.0
                return super().select(0)

        loop = asyncio.SelectorEventLoop(Selector())
        loop.time = self.monotonic
        try:
            loop.run_until_complete(main)
        finally:
            loop.close()


class SimulatedEndpoint:
    """Stands for `ChatEndpoint`: `answer` returns the JSON of a completion and its headers, or raises.

    `sent` holds the time of each request.
    """

    address = "http://simulated/v1/chat/completions"

    def __init__(self, clock: Clock, answer: Simulated) -> None:
        self.clock, self.answer, self.sent = clock, answer, list[float]()

    async def __aenter__(self) -> "SimulatedEndpoint":
        return self

    async def __aexit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    async def complete(self, body: bytes) -> tuple[dict[str, Any], dict[str, str]]:
        self.sent.append(self.clock.now)
        return await self.answer(json.loads(body))
