"""When to send the next request: stated rate limits are kept, and limits that are not stated are found.

A stated limit is a token bucket that allows no burst. Beside it, additive increase and multiplicative decrease: the
rate grows by a constant with each answer, and falls to half the rate of answers when more requests than usual get a
429. If that does not help, the 429s do not depend on the pace, and that share of them is the usual one from then on.
"""

import asyncio
import math
import time
from collections.abc import Mapping

from .http_errors import LONGEST_WAIT

SHARE = 0.99  # of a stated limit, because clocks differ
SPARE = 0.25  # seconds of unused pace that may be caught up
SAMPLE, SECONDS = 20, 1.0  # requests and seconds from one decision about the rate to the next
KNOWN = 0.95  # share of these requests whose outcome must be known
MARGIN = 0.03  # share of 429s above the usual one that lowers the rate, beside the error of a small sample
UNCHANGED = 0.6  # of the share of 429s before a cut: if more remain after it, they do not depend on the pace
NEAR, SLOW, FAST = 0.2, 0.02, 0.3  # requests a second that an answer adds: slow this near to the last limit found
PAUSE = 8  # 429s after which no worker sends, if no answer came for a second


class Pacer:
    """Waits for the requests to one endpoint. The stated limits are per minute; None means unknown."""

    def __init__(self, requests: float | None = None, tokens: float | None = None) -> None:
        self.requests, self.tokens, self.fixed = requests, tokens, requests is not None
        self.rate: float | None = None  # requests a second, after too many 429s
        self.throttled = self._in_a_row = 0  # 429s: in all, and since the last answer
        self._line, self._answer_time = asyncio.Lock(), time.monotonic()
        self._next = self._next_tokens = self._paused_until = 0.0
        self._used = 1.0  # share of the tokens a request may use that it does use
        self._usual = self._before = 0.0  # shares of 429s: at any pace, and in the sample before the last cut
        self._limit = 0.0  # answers a second in that sample
        self._begin_sample()

    def _begin_sample(self) -> None:
        self._since, self._until = time.monotonic(), math.inf
        self._sent = self._answered = self._limited = 0

    async def turn(self, tokens: int) -> None:
        """Wait until a request may be sent; `tokens` is the most it can use, prompt and reply."""
        async with self._line:
            while self.waiting > 0:
                await asyncio.sleep(min(self.waiting, SPARE))
            now = time.monotonic()
            self._adjust_rate(now)
            self._since = self._since if self._sent else now
            self._sent += now <= self._until
            slot = max(60 / (SHARE * self.requests) if self.requests else 0.0, 1 / self.rate if self.rate else 0.0)
            self._next = max(self._next, now - SPARE) + slot
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
        self._in_a_row, self._answer_time = 0, time.monotonic()
        if self.rate:
            self.rate += min(SLOW if abs(self.rate / self._limit - 1) < NEAR else FAST, self.rate / 20)
        self._answered += self._since <= sent <= self._until

    def rate_limited(self, sent: float, wait: float) -> None:
        """Count a 429 to a request sent at `sent`; after several and no answer, nobody sends for `wait` seconds."""
        self.throttled += 1
        self._in_a_row += sent >= self._paused_until  # those that were in flight before a pause count once
        self._limited += self._since <= sent <= self._until
        now = time.monotonic()
        if self._in_a_row >= PAUSE and now >= self._answer_time + SECONDS:
            self._in_a_row, self._until = 0, min(self._until, now)
            self._paused_until = now + min(LONGEST_WAIT, max(wait, 1.0))

    def failed(self, sent: float) -> None:
        """Count a request that got neither an answer nor a 429."""
        self._sent -= self._since <= sent <= self._until

    def _adjust_rate(self, now: float) -> None:
        """Close the sample when it is large enough; once its outcomes are known, cut the rate or leave it."""
        if self._sent >= SAMPLE and now >= self._since + SECONDS:
            self._until = min(self._until, now)
        count = max(1, self._answered + self._limited)
        if self._until == math.inf or count < KNOWN * self._sent:
            return
        share = self._limited / count
        if share <= self._usual + MARGIN + 2 * (max(self._usual, 0.01) / count) ** 0.5:
            self._usual, self._before = min(self._usual, (self._usual + share) / 2), 0.0
        elif self._before and share > UNCHANGED * self._before:
            self.rate, self._usual, self._before = None, share, 0.0
        else:
            self._limit = self._sent / max(SECONDS, self._until - self._since) * max(0.05, 1 - share)
            self.rate, self._before, self._next = self._limit / 2, share, now
        self._begin_sample()


def _positive(text: str | None) -> float | None:
    try:
        return float(text) if text and float(text) > 0 else None
    except ValueError:
        return None
