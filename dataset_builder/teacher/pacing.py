"""When to send: one schedule of slots that keeps requests and tokens per minute below an endpoint's limits.

Releasing all workers at once after a pause would hit the limit again. Here every worker takes the next free slot of
one schedule, so that requests stay spread out after a pause. The limits come from the recipe, from the endpoint's
`x-ratelimit-*` headers, or, if neither gives them, from the rate of replies before the first 429.
"""

import asyncio
import time
from collections import deque
from collections.abc import Mapping

SHARE = 0.99  # of a stated limit: clocks differ, and exceeding it costs more than the rest is worth
SPARE = 0.25  # seconds of unused slots that may be caught up once the limit is known: any token bucket holds them
BACK_OFF = 0.9  # factor on the rate at which a 429 came
RECOVERY, PROBING = 1.05, 1.02  # growth of a guessed rate per second, below and above the rate of the last 429
TOLERATED = 0.2  # share of 429s among the last outcomes up to which only the limited request waits
EVIDENCE = 20  # outcomes considered, and replies needed to estimate a rate
LONG_WAIT = 2.0  # seconds; a Retry-After this long pauses all workers, not just one
RATE_SECONDS = 3.0  # period over which the rate of replies is measured
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0  # seconds, after a 429 without Retry-After


class Pacer:
    """Time slots for the requests to one endpoint. Limits are per minute; None means unknown."""

    def __init__(self, requests: float | None = None, tokens: float | None = None) -> None:
        self.requests = requests * SHARE if requests else None
        self.tokens = tokens * SHARE if tokens else None
        self.fixed = requests is not None
        self.rate_limits = 0  # 429s so far
        self._guessed = False
        self._next = 0.0  # next free slot
        self._sent_until = 0.0  # next free slot if only the requests already sent had taken slots
        self._paused_until, self._pauses = 0.0, 0
        self._spare = self._first = 0.0
        self._changed = self._lowered = 0.0  # when the guessed rate was last changed, and last lowered
        self._limited_rate = 0.0  # guessed rate at the last 429
        self._outcomes: deque[bool] = deque(maxlen=EVIDENCE)
        self._waits = 0
        self._replies: deque[float] = deque()

    async def turn(self, tokens: int) -> None:
        """Wait for the next free slot; a slot taken before a pause is exchanged for one after it.

        `tokens` is the maximum of the request, prompt and reply.
        """
        while True:
            pauses = self._pauses
            start = max(time.monotonic() - self._spare, self._next)
            self._first = self._first or time.monotonic()
            end = start + max(
                60 / self.requests if self.requests else 0.0, 60 * tokens / self.tokens if self.tokens else 0.0
            )
            self._next = end
            while (wait := start - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            if pauses == self._pauses:
                break
        self._sent_until = max(self._sent_until, end)

    @property
    def waiting(self) -> float:
        """Seconds until the next free slot."""
        return max(0.0, self._next - time.monotonic())

    def learn(self, headers: Mapping[str, str]) -> None:
        """Adopt the limits that an endpoint states in a response."""
        if not self.fixed and (limit := _positive(headers.get("x-ratelimit-limit-requests"))):
            if self.requests is None:  # slots that passed while the first reply was awaited may still be used
                self._spare = min(SPARE, time.monotonic() - self._first)
                self._next = max(self._next, time.monotonic()) - self._spare
            self.requests, self._guessed = limit * SHARE, False
        if limit := _positive(headers.get("x-ratelimit-limit-tokens")):
            self.tokens = limit * SHARE

    def answered(self) -> None:
        """Count a reply; a guessed rate grows until the next 429, slowly above the rate of the last one."""
        now = time.monotonic()
        self._waits = 0
        self._outcomes.append(True)
        self._replies.append(now)
        while self._replies[0] < now - RATE_SECONDS:
            self._replies.popleft()
        if self.requests is not None and self._guessed:
            growth = RECOVERY if self.requests < self._limited_rate else PROBING
            self.requests *= growth ** min(1.0, now - self._changed)
            self._changed = now

    def rate_limited(self, retry_after: float | None) -> float:
        """Count a 429 and lower the rate if it was guessed or unknown.

        A single 429 among many replies shows that the rate is slightly too high: only this request waits. Several, or
        a long Retry-After, show that no request is accepted now: all workers pause, and the 429s of requests that were
        in flight together count once.

        Returns:
            Seconds that this request should wait; 0 if all workers pause.
        """
        self.rate_limits += 1
        self._outcomes.append(False)
        now = time.monotonic()
        wait = retry_after if retry_after is not None else min(LONGEST_WAIT, FIRST_WAIT * 2**self._waits)
        few = self._outcomes.count(False) <= TOLERATED * max(EVIDENCE, len(self._outcomes))
        if now >= self._lowered + 1.0 and not (few and len(self._replies) < EVIDENCE):
            self._lower(now)
        if few and wait < LONG_WAIT:
            return wait
        if retry_after is None and now < self._paused_until:
            return 0.0
        self._waits += 1
        if now + wait > self._paused_until:
            self._paused_until = now + wait
            self._pauses += 1
            self._next = max(self._sent_until, self._paused_until)
        return 0.0

    def _lower(self, now: float) -> None:
        """Guess the rate from that of the replies, or lower the guess; a stated limit is kept."""
        if self.requests is None:
            span = max(0.2, now - self._replies[0]) if self._replies else 1.0
            self.requests, self._guessed = 60 * max(1, len(self._replies)) / span, True
        if self._guessed:
            self._limited_rate = self.requests
            self.requests *= BACK_OFF
        self._changed = self._lowered = now


def _positive(text: str | None) -> float | None:
    try:
        return float(text) if text and float(text) > 0 else None
    except ValueError:
        return None
