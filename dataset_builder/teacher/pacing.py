"""When to send: the limits an endpoint states are kept, and those that it does not state are found by its refusals.

Every stated limit is a token bucket without a burst. Beside it, a rate grows with each answer, and falls to the rate
of the answers when refusals (429) rise with the pace. Refusals that a lower pace does not lessen do not count.
"""

import asyncio
import math
import time
from collections.abc import Mapping

from .http_errors import LONGEST_WAIT

SHARE = 0.99  # of a stated limit: clocks differ, and exceeding it costs more than the rest is worth
SPARE = 0.25  # seconds of unused pace that may be caught up
JUDGED, SECONDS = 20, 1.0  # outcomes and seconds after which the rate is judged
LOWER = 0.97  # of the rate of answers, after refusals
TEST = 0.6  # of the pace, after two cuts in a row, to see whether the refusals depend on it
NEAR, SLOW, FAST = 1.15, 0.02, 0.2  # growth with each answer: slow up to NEAR times the rate last answered by a 429
UNCHANGED = 0.6  # of the earlier share of refusals: if a test does not get below it, the pace is not the cause
KNOWN = 0.95  # of the outcomes, before the rate is judged
PAUSE = 8  # refusals in a row after which nobody sends


class Pacer:
    """Turns for the requests to one endpoint. The stated limits are per minute; None means unknown.

    The rate is judged by the requests sent within a second or more, once their outcomes are known.
    """

    def __init__(self, requests: float | None = None, tokens: float | None = None) -> None:
        self.requests, self.tokens, self.fixed = requests, tokens, requests is not None
        self.rate: float | None = None  # requests a second, after refusals
        self.refusals = 0  # in all
        self._line = asyncio.Lock()
        self._next = self._next_tokens = self._paused_until = 0.0
        self._used = 1.0  # share of the tokens a request may use that it does use
        self.pauses = self._row = self._cuts = 0  # pauses, refusals and cuts in a row
        self._share = self._usual = 0.0  # of refusals: at the last cut, and at any pace
        self._limit = 1.0  # answers a second at the last cut
        self._begin()

    def _begin(self) -> None:
        self._since, self._until = time.monotonic(), math.inf
        self._sent = self._answered = self._limited = 0

    async def turn(self, tokens: int) -> None:
        """Wait until a request may be sent; `tokens` is the most it can use, prompt and reply."""
        async with self._line:
            while self.waiting > 0:
                await asyncio.sleep(min(self.waiting, SPARE))
            now = time.monotonic()
            if self._until == math.inf:
                self._since = self._since if self._sent else now
                self._sent += 1
                if self._sent >= JUDGED and now >= self._since + SECONDS:
                    self._until = now
            slots = (60 / (SHARE * self.requests) if self.requests else 0.0, 1 / self.rate if self.rate else 0.0)
            self._next = max(self._next, now - SPARE) + max(slots)
            if self.tokens:
                slot = 60 * tokens * self._used / (SHARE * self.tokens)
                self._next_tokens = max(self._next_tokens, now - SPARE) + slot

    @property
    def waiting(self) -> float:
        """Seconds until the next turn."""
        return max(0.0, max(self._next, self._next_tokens, self._paused_until) - time.monotonic())

    def learn(self, headers: Mapping[str, str]) -> None:
        """Adopt the limits that an endpoint states in a response."""
        if not self.fixed:
            self.requests = _positive(headers.get("x-ratelimit-limit-requests")) or self.requests
        self.tokens = _positive(headers.get("x-ratelimit-limit-tokens")) or self.tokens

    def answered(self, sent: float, used: float = 1.0) -> None:
        """Count an answer to a request sent at `sent`, which used this share of the tokens it might have used."""
        self._used += (used - self._used) * (0.1 if self._used < 1 else 1)
        self._row = self.pauses = 0
        if self.rate and self._cuts < 2:  # it stays during a test
            self.rate += SLOW if 1 / NEAR < self.rate / self._limit < NEAR else FAST
        if self._since <= sent <= self._until:
            self._answered += 1
            self._judge()

    def rate_limited(self, sent: float, wait: float) -> None:
        """Count a 429 to a request sent at `sent`; after several in a row, nobody sends for `wait` seconds."""
        self.refusals += 1
        self._row += sent >= self._paused_until  # those that were in flight before a pause count once
        if self._row >= PAUSE:
            self._row, self.pauses, now = 0, self.pauses + 1, time.monotonic()
            self._paused_until = now + min(LONGEST_WAIT, max(wait, 0.25 * 2 ** min(self.pauses, 8)))
            self._until = min(self._until, now)
        if self._since <= sent <= self._until:
            self._limited += 1
            self._judge()

    def failed(self, sent: float) -> None:
        """Count a request that got neither an answer nor a 429."""
        self._sent -= self._since <= sent <= self._until

    def _judge(self) -> None:
        """Lower the rate if more requests get a 429 than usual, unless lowering it did not help before."""
        count = self._answered + self._limited
        if self._until == math.inf or count < KNOWN * self._sent:
            return
        share = self._limited / count
        if share <= self._usual + 0.01 + 2 * (max(self._usual, 0.01) / count) ** 0.5:
            self._cuts = 0
            self._usual = (self._usual + share) / 2 if self._usual > 0.01 else 0.0
        elif self._cuts == 2 and share > UNCHANGED * self._share:
            self.rate, self._usual, self._cuts = None, share, 0
        else:
            pace = self._sent / max(SECONDS, self._until - self._since)
            self._limit, self._share = pace * max(0.05, 1 - share), share
            self.rate = LOWER * self._limit / (1 - min(self._usual, 0.9))
            self._cuts = self._cuts % 2 + 1
            if self._cuts == 2:
                self.rate = min(self.rate, TEST * pace)
            self._next = time.monotonic()
        self._begin()


def _positive(text: str | None) -> float | None:
    try:
        return float(text) if text and float(text) > 0 else None
    except ValueError:
        return None
