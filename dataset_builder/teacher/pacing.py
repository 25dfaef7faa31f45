"""When to send the next request: respect the rate limits that are known, and estimate the others from 429s.

A known limit is a token bucket with a burst of `SPARE` seconds. An unknown one is estimated by additive increase and
multiplicative decrease: the rate grows by a constant with each answer, and falls to half the rate of answers when the
share of 429s rises above its normal level. If that does not reduce the share, the rate limit is removed, and the share
becomes the new normal level.
"""

import asyncio
import math
import time
from collections.abc import Mapping

from .http_errors import LONGEST_WAIT

SHARE = 0.99  # fraction of a known limit to use, because clocks differ
SPARE = 0.25  # seconds of unused rate that a burst may catch up
SAMPLE, SECONDS = 20, 1.0  # minimum requests and seconds of a sample
KNOWN = 0.95  # share of a sample's requests whose outcome must be known
MARGIN = 0.03  # tolerated increase of the share of 429s, in addition to two standard errors
UNCHANGED = 0.6  # a cut has not helped if the share of 429s stays above this fraction of the earlier one
NEAR, SLOW, FAST = 0.2, 0.02, 0.3  # an answer adds SLOW requests/s within a relative NEAR of the last limit, else FAST
PAUSE_AFTER = 8  # consecutive 429s that pause all workers, if no answer came for a second


class Pacer:
    """Delays requests to one endpoint to respect its rate limits.

    The stated limits are per minute; None means unknown.
    """

    def __init__(self, requests: float | None = None, tokens: float | None = None) -> None:
        self.requests, self.tokens = requests, tokens
        self.fixed, self._fixed_tokens = requests is not None, tokens is not None  # set by the user
        self.rate: float | None = None  # requests a second, after too many 429s
        self.throttled = self._in_a_row = 0  # 429s: in all, and since the last answer
        self._line, self._answer_time = asyncio.Lock(), time.monotonic()
        self._next = self._next_tokens = self._paused_until = 0.0
        self._used = 1.0  # average of tokens used / tokens reserved per request
        self._usual = self._before = 0.0  # share of 429s: normal level, and in the sample before the last cut
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
        """Adopt the limits that an endpoint states in a response, where the user has set none."""
        if not self.fixed:
            self.requests = _positive(headers.get("x-ratelimit-limit-requests")) or self.requests
        if not self._fixed_tokens:
            self.tokens = _positive(headers.get("x-ratelimit-limit-tokens")) or self.tokens

    def answered(self, sent: float, used: float = 1.0) -> None:
        """Count an answer to a request sent at `sent`, which used this share of the tokens it might have used."""
        self._used += (used - self._used) * (0.1 if self._used < 1 else 1)
        self._in_a_row, self._answer_time = 0, time.monotonic()
        if self.rate:
            self.rate += min(SLOW if abs(self.rate / self._limit - 1) < NEAR else FAST, self.rate / 20)
        self._answered += self._since <= sent <= self._until

    def rate_limited(self, sent: float, wait: float) -> None:
        """Count a 429 to a request sent at `sent`; PAUSE_AFTER in a row pause all requests.

        The pause takes about `wait` seconds.
        """
        self.throttled += 1
        self._in_a_row += sent >= self._paused_until  # requests sent before a pause cannot cause another one
        self._limited += self._since <= sent <= self._until
        now = time.monotonic()
        if self._in_a_row >= PAUSE_AFTER and now >= self._answer_time + SECONDS:
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
