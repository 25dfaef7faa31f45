"""When to send: shared slots that keep requests and tokens a minute under an endpoint's limits.

A gate that holds everyone until a time wakes everyone at once and meets the limit again. Here every sender takes the
next free slot of one schedule, so that a wait spreads what follows it. Limits come from the recipe, from the
endpoint's `x-ratelimit-*` headers, or, where neither says them, from the pace of answers before the first refusal.
"""

import asyncio
import time
from collections import deque
from collections.abc import Mapping

SHARE = 0.99  # of a stated limit: clocks differ, and a refusal costs more than the rest
SPARE = 0.25  # seconds of unused slots that may be made up for, once the limit is known: what any bucket holds
BACK_OFF = 0.9  # of the pace that was refused
RECOVERY, PROBING = 1.05, 1.02  # a guessed pace grows by this factor a second, below and above the refused one
TOLERATED = 0.2  # share of refusals among the last answers that holds only the refused
EVIDENCE = 20  # answers from which a pace can be told
LONG_WAIT = 2.0  # seconds: who asks for these refuses everyone
WINDOW = 3.0  # seconds over which the pace of answers is measured
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0  # seconds, after a refusal that names no time


class Pacer:
    """Slots in time for one endpoint. Limits are a minute's; None means that none is known."""

    def __init__(self, requests: float | None = None, tokens: float | None = None) -> None:
        self.requests = requests * SHARE if requests else None
        self.tokens = tokens * SHARE if tokens else None
        self.fixed = requests is not None
        self.refused = 0
        self._guessed = False
        self._next = 0.0  # when the next slot is free
        self._free = 0.0  # when it were, had only those taken one who have sent by now
        self._held_until, self._holds = 0.0, 0
        self._spare = self._first = 0.0
        self._changed = self._dropped = self._refused_at = 0.0
        self._outcomes: deque[bool] = deque(maxlen=EVIDENCE)
        self._waits = 0
        self._answers: deque[float] = deque()

    async def turn(self, tokens: int) -> None:
        """Wait for the next free slot; `tokens` is what the request may use, prompt and reply.

        A slot taken before a refusal is worth nothing after it: who holds one takes another.
        """
        holds = None
        while holds != self._holds:
            holds = self._holds
            start = max(time.monotonic() - self._spare, self._next)
            self._first = self._first or time.monotonic()
            self._next = start + max(
                60 / self.requests if self.requests else 0.0, 60 * tokens / self.tokens if self.tokens else 0.0
            )
            end = self._next
            while (wait := start - time.monotonic()) > 0:
                await asyncio.sleep(wait)
        self._free = max(self._free, end)

    @property
    def waiting(self) -> float:
        """Seconds until the next free slot."""
        return max(0.0, self._next - time.monotonic())

    def learn(self, headers: Mapping[str, str]) -> None:
        """Take the limits an endpoint states with an answer."""
        if not self.fixed and (limit := _number(headers.get("x-ratelimit-limit-requests"))):
            if self.requests is None:  # slots that went by while the first answer was waited for may still be used
                self._spare = min(SPARE, time.monotonic() - self._first)
                self._next = max(self._next, time.monotonic()) - self._spare
            self.requests, self._guessed = limit * SHARE, False
        if limit := _number(headers.get("x-ratelimit-limit-tokens")):
            self.tokens = limit * SHARE

    def answered(self) -> None:
        """Count an answer; a guessed pace recovers while nothing is refused, slowly above where it was refused."""
        now = time.monotonic()
        self._waits = 0
        self._outcomes.append(True)
        self._answers.append(now)
        while self._answers[0] < now - WINDOW:
            self._answers.popleft()
        if self._guessed:
            growth = RECOVERY if self.requests < self._refused_at else PROBING
            self.requests *= growth ** min(1.0, now - self._changed)
            self._changed = now

    def refuse(self, retry_after: float | None) -> float:
        """A 429: the pace drops where it was guessed or unknown. Returns the seconds this request alone should wait.

        One refusal among many answers says that the pace is a little high. Several, or a long wait, say that nobody
        is answered now: then everyone is held, and those under way together count once.
        """
        self.refused += 1
        self._outcomes.append(False)
        now = time.monotonic()
        wait = retry_after if retry_after is not None else min(LONGEST_WAIT, FIRST_WAIT * 2**self._waits)
        few = self._outcomes.count(False) <= TOLERATED * max(EVIDENCE, len(self._outcomes))
        if now >= self._dropped + 1.0 and not (few and len(self._answers) < EVIDENCE):
            self._drop(now)
        if few and wait < LONG_WAIT:
            return wait
        if retry_after is None and now < self._held_until:
            return 0.0
        self._waits += 1
        if now + wait > self._held_until:
            self._held_until = now + wait
            self._holds += 1
            self._next = max(self._free, self._held_until)
        return 0.0

    def _drop(self, now: float) -> None:
        """Guess the pace from that of the answers, or lower the guess; a stated limit stays as it is."""
        if self.requests is None:
            span = max(0.2, now - self._answers[0]) if self._answers else 1.0
            self.requests, self._guessed = 60 * max(1, len(self._answers)) / span, True
        if self._guessed:
            self._refused_at = self.requests
            self.requests *= BACK_OFF
        self._changed = self._dropped = now


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text and float(text) > 0 else None
    except ValueError:
        return None
