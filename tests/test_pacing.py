"""The pacer: shared slots, limits learned from headers or from 429s; time is simulated."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from dataset_builder.teacher import pacing
from dataset_builder.teacher.pacing import SHARE, Pacer


class Clock:
    """A clock that sleeping moves: tests neither wait nor depend on the machine."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        await self.real_sleep(0)  # let the others run
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pacing, "time", clock)
    clock.real_sleep = asyncio.sleep
    monkeypatch.setattr(pacing.asyncio, "sleep", clock.sleep)
    return clock


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner() as runner:
        runner.run(coroutine)


async def send(pacer: Pacer, clock: Clock, count: int, tokens: int = 0) -> list[float]:
    times = []
    for _ in range(count):
        await pacer.turn(tokens)
        times.append(clock.now)
    return times


def test_a_known_limit_spreads_requests_evenly_below_it(clock: Clock) -> None:
    async def main() -> None:
        times = await send(Pacer(requests=600), clock, 101)
        assert times[-1] - times[0] == pytest.approx(100 / (10 * SHARE))

    run(main())


def test_tokens_a_minute_count_too(clock: Clock) -> None:
    async def main() -> None:
        times = await send(Pacer(tokens=60_000), clock, 11, tokens=1000)
        assert times[-1] - times[0] == pytest.approx(10 / SHARE)

    run(main())


def test_without_any_limit_nobody_waits(clock: Clock) -> None:
    async def main() -> None:
        assert len(set(await send(Pacer(), clock, 50))) == 1

    run(main())


def test_limits_are_learned_from_headers_and_rubbish_is_passed_over(clock: Clock) -> None:
    pacer = Pacer()
    for value in ("", "many", "-1", "0", "nan"):
        pacer.learn({"x-ratelimit-limit-requests": value, "x-ratelimit-limit-tokens": value})
        assert pacer.requests is None and pacer.tokens is None
    pacer.learn({"x-ratelimit-limit-requests": "6000", "x-ratelimit-limit-tokens": "90000"})
    assert (pacer.requests, pacer.tokens) == (6000 * SHARE, 90000 * SHARE)
    fixed = Pacer(requests=60)
    fixed.learn({"x-ratelimit-limit-requests": "6000"})
    assert fixed.requests == 60 * SHARE


@pytest.mark.parametrize("seconds", [3.0, 300.0])
def test_retry_after_holds_everyone_and_they_do_not_wake_at_once(seconds: float, clock: Clock) -> None:
    async def main() -> None:
        pacer = Pacer(requests=600)
        await send(pacer, clock, 3)
        before = clock.now
        pacer.rate_limited(seconds)
        times = await send(pacer, clock, 5)
        assert times[0] - before >= seconds
        assert all(b - a == pytest.approx(0.1 / SHARE) for a, b in zip(times, times[1:], strict=False))

    run(main())


def test_an_unknown_limit_is_guessed_from_the_pace_of_replies_and_recovers(clock: Clock) -> None:
    pacer = Pacer()
    for _ in range(20):
        clock.now += 0.1
        pacer.answered()
    pacer.rate_limited(None)
    guessed = pacer.requests
    assert guessed is not None and 400 < guessed < 640  # ten answers a second, a little less
    for _ in range(40):
        pacer.rate_limited(None)  # of requests that were under way together: no further drop
    assert pacer.requests == guessed
    for _ in range(100):
        clock.now += 0.1
        pacer.answered()
    assert guessed < pacer.requests < 1.5 * guessed


def test_one_429_among_replies_pauses_only_its_request(clock: Clock) -> None:
    async def main() -> None:
        pacer = Pacer(requests=6000)
        for _ in range(20):
            pacer.answered()
        assert pacer.rate_limited(1.0) == 1.0
        before = clock.now
        assert (await send(pacer, clock, 2))[0] - before < 0.1
        for _ in range(5):
            pacer.rate_limited(1.0)
        assert (await send(pacer, clock, 1))[0] - before >= 1.0

    run(main())


def test_who_holds_a_slot_when_all_are_paused_takes_another(clock: Clock) -> None:
    """Without that, those who wait would all meet the limit again within the time they were told to wait."""
    pacer, sent = Pacer(requests=60), []

    async def sender() -> None:
        await pacer.turn(0)
        sent.append(clock.now)

    async def main() -> None:
        await sender()
        waiting = asyncio.ensure_future(sender())
        await real_sleep(0)  # it has taken the slot a second ahead, and sleeps
        pacer.rate_limited(100.0)
        await waiting

    real_sleep = clock.real_sleep
    run(main())
    assert sent[1] - sent[0] >= 100.0


def test_slots_that_went_by_before_the_limit_was_known_are_made_up_for(clock: Clock) -> None:
    async def main() -> None:
        pacer = Pacer()
        await send(pacer, clock, 1)
        clock.now += 0.2
        pacer.learn({"x-ratelimit-limit-requests": "6000"})
        times = await send(pacer, clock, 101)
        assert sum(moment == times[0] for moment in times) in (20, 21)  # a fifth of a second's
        assert times[-1] - times[0] == pytest.approx(1 / SHARE - 0.2, abs=0.02)

    run(main())
