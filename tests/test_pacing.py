"""The pacer: stated limits are kept, others are found by refusals; time is simulated."""

import asyncio
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dataset_builder.config import TeacherConfig
from dataset_builder.teacher import asking, client, pacing, progress
from dataset_builder.teacher.http_errors import RateLimited
from dataset_builder.teacher.journal import Journal
from dataset_builder.teacher.pacing import Pacer
from dataset_builder.teacher.records import ReplyCounts
from dataset_builder.teacher.stage import fetch_replies
from fake_teacher import completion
from made_up import passages
from simulated import Clock, SimulatedEndpoint

HEADERS = {"x-ratelimit-limit-requests": "6000"}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pacing, "time", clock)
    return clock


@dataclass
class Endpoint:
    """A simulated endpoint with a token bucket of one second, which also refuses a share of all requests."""

    clock: Clock
    per_second: float = 1e9
    random_share: float = 0.0
    latency: float = 0.2
    headers: dict[str, str] = field(default_factory=dict)
    refused: int = 0
    most_tries: int = 0

    def __post_init__(self) -> None:
        self.bucket, self.filled, self.rng = self.per_second, self.clock.now, random.Random(0)

    def refuses(self) -> bool:
        if self.rng.random() < self.random_share:
            return True
        now = self.clock.now
        self.bucket = min(self.per_second, self.bucket + (now - self.filled) * self.per_second)
        self.filled = now
        if self.bucket < 1:
            return True
        self.bucket -= 1
        return False


def ask(endpoint: Endpoint, count: int, workers: int = 64, wait: Callable[[int], float] = lambda tries: 1.0) -> float:
    """Seconds that a run takes, as in `asking`; every question is answered at last."""
    clock, pacer, questions = endpoint.clock, Pacer(), itertools.count()

    async def work(opened: asyncio.Event, first: bool) -> None:
        if not first:
            await opened.wait()
        while next(questions) < count:
            tries = 1
            while True:
                await pacer.turn(0)
                sent = clock.now
                refused = endpoint.refuses()
                await asyncio.sleep(0.005 if refused else endpoint.latency)
                pacer.learn(endpoint.headers)
                opened.set()
                if not refused:
                    pacer.answered(sent)
                    break
                endpoint.refused += 1
                endpoint.most_tries = max(endpoint.most_tries, tries := tries + 1)
                pacer.rate_limited(sent, wait(tries))
                await asyncio.sleep(wait(tries))

    async def main() -> None:
        opened = asyncio.Event()
        await asyncio.gather(*[work(opened, number == 0) for number in range(workers)])

    started = clock.now
    clock.run(main())
    return clock.now - started


async def send(pacer: Pacer, clock: Clock, count: int, tokens: int = 0) -> list[float]:
    times = []
    for _ in range(count):
        await pacer.turn(tokens)
        times.append(clock.now)
    return times


@pytest.mark.parametrize(("limits", "tokens"), [({"requests": 600}, 0), ({"tokens": 600_000}, 1000)])
def test_a_known_limit_spreads_requests_evenly_below_it(limits: dict, tokens: int, clock: Clock) -> None:
    async def main() -> None:
        times = await send(Pacer(**limits), clock, 201, tokens)
        assert 200 / 10 - 0.3 <= times[-1] - times[0] <= 200 / 9.8  # a quarter of a second may be caught up
        assert sum(time < times[0] + 1 for time in times) <= 13  # no burst

    clock.run(main())


def test_without_any_limit_nobody_waits(clock: Clock) -> None:
    async def main() -> None:
        assert len(set(await send(Pacer(), clock, 50))) == 1

    clock.run(main())


def test_limits_are_learned_from_headers_and_rubbish_is_passed_over(clock: Clock) -> None:
    pacer = Pacer()
    for value in ("", "many", "-1", "0", "nan"):
        pacer.learn({"x-ratelimit-limit-requests": value, "x-ratelimit-limit-tokens": value})
        assert pacer.requests is None and pacer.tokens is None
    pacer.learn({"x-ratelimit-limit-requests": "6000", "x-ratelimit-limit-tokens": "90000"})
    assert (pacer.requests, pacer.tokens) == (6000, 90000)
    fixed = Pacer(requests=60)
    fixed.learn({"x-ratelimit-limit-requests": "6000"})
    assert fixed.requests == 60


@pytest.mark.parametrize("workers", [64, 256])
@pytest.mark.parametrize("stated", [None, "60000"], ids=["not-stated", "ten-times-too-high"])
def test_a_limit_that_is_not_stated_is_found_and_kept(stated: str | None, workers: int, clock: Clock) -> None:
    headers = {"x-ratelimit-limit-requests": stated} if stated else {}
    endpoint = Endpoint(clock, per_second=100, headers=headers)
    seconds = ask(endpoint, 3000, workers)
    assert 3000 / seconds >= 0.9 * 100 and endpoint.refused < 300 and endpoint.most_tries <= 4


def test_a_stated_limit_is_hardly_ever_met(clock: Clock) -> None:
    endpoint = Endpoint(clock, per_second=100, headers=HEADERS)
    seconds = ask(endpoint, 3000)
    assert 3000 / seconds >= 0.97 * 100 and endpoint.refused <= 5


def test_refusals_that_do_not_depend_on_the_pace_do_not_lower_it(clock: Clock) -> None:
    possible = 64 / 0.2
    endpoint = Endpoint(clock, random_share=0.1)
    seconds = ask(endpoint, 5000, wait=lambda tries: 0.05 * 2**tries)
    assert 5000 / seconds >= 0.6 * possible and endpoint.most_tries < 8


def test_a_slow_limit_is_found_without_giving_up_any_question(clock: Clock) -> None:
    endpoint = Endpoint(clock, per_second=1)
    seconds = ask(endpoint, 200)
    assert 200 / seconds > 0.6 and endpoint.most_tries < 8


@pytest.mark.parametrize("seconds", [3.0, 1e9, float("inf")])
def test_refusals_in_a_row_hold_everyone_for_a_minute_at_most(seconds: float, clock: Clock) -> None:
    async def main() -> None:
        pacer = Pacer(requests=600)
        sent = await send(pacer, clock, 20)
        for moment in sent:
            pacer.rate_limited(moment, seconds)
        times = await send(pacer, clock, 5)
        assert min(seconds, 60) - 2 <= times[0] - sent[-1] <= 61
        assert all(b > a + 0.05 for a, b in itertools.pairwise(times[3:]))  # they do not wake at once

    clock.run(main())


def test_one_refusal_pauses_only_its_request(clock: Clock) -> None:
    async def main() -> None:
        pacer = Pacer(requests=6000)
        pacer.answered(clock.now)
        pacer.rate_limited(clock.now, 3600.0)
        before = clock.now
        assert (await send(pacer, clock, 2))[-1] - before < 0.1

    clock.run(main())


def test_limits_of_the_recipe_are_not_replaced_by_those_of_the_headers() -> None:
    pacer = Pacer(requests=60.0, tokens=1000.0)
    pacer.learn({"x-ratelimit-limit-requests": "6000", "x-ratelimit-limit-tokens": "90000"})
    assert (pacer.requests, pacer.tokens) == (60.0, 1000.0)


Run = Callable[..., ReplyCounts]


@pytest.fixture
def annotated(clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the stage `annotate` against a simulated endpoint, in simulated time."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    for module in (asking, progress):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(asyncio, "run", clock.run)

    def run(endpoint: SimulatedEndpoint, count: int, **options: Any) -> ReplyCounts:
        monkeypatch.setattr(client, "open_endpoint", lambda config, key: endpoint)
        with Journal(tmp_path / "journal.jsonl") as journal:
            return fetch_replies(passages(count), journal, TeacherConfig(model="m", **options))

    return run


def test_a_run_keeps_the_limit_that_headers_state(clock: Clock, annotated: Run) -> None:
    """A server that allows 3,000 a minute and says so: 64 workers meet it at most as they start."""

    async def answer(request: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        crowded = sum(moment > clock.now - 1 for moment in endpoint.sent) > 60
        await asyncio.sleep(0.2)
        if crowded:
            raise RateLimited(0.2, "slow down")
        return completion("[]", request), {"x-ratelimit-limit-requests": "3000"}

    endpoint = SimulatedEndpoint(clock, answer)
    counts = annotated(endpoint, 150, concurrency=64)
    assert (counts.paid, counts.failed) == (150, 0)
    assert len(endpoint.sent) <= 150 + 5 and 149 / 50 - 0.3 <= endpoint.sent[-1] - endpoint.sent[0] <= 150 / 48


@pytest.mark.parametrize("used", [904, 230])
def test_a_run_keeps_a_limit_of_tokens_a_minute(used: int, clock: Clock, annotated: Run) -> None:
    """4 requests a second of 300 tokens each is what 72,000 tokens a minute allow."""

    async def answer(request: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        await asyncio.sleep(0.01)
        body = completion("[]", request)
        body["usage"]["completion_tokens"] = used
        return body, {}

    endpoint = SimulatedEndpoint(clock, answer)
    counts = annotated(endpoint, 8, tokens_per_minute=72_000, max_answer_tokens=904)
    each = (counts.prompt_tokens + counts.reply_tokens) / 8  # what is reserved and not used is given back
    gaps = [b - a for a, b in itertools.pairwise(endpoint.sent)]
    assert gaps[1:] == pytest.approx([60 * each / (pacing.SHARE * 72_000)] * 6)


def test_short_waits_that_an_endpoint_asks_for_do_not_end_a_run_within_seconds(clock: Clock, annotated: Run) -> None:
    async def answer(request: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        if clock.now < endpoint.sent[0] + 10:
            raise RateLimited(0.1, "loading the model")
        return completion("[]", request), {}

    endpoint = SimulatedEndpoint(clock, answer)
    assert annotated(endpoint, 5).paid == 5
