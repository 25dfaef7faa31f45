"""Passages to the journal: recorded answers at no cost, everything else from an OpenAI-compatible endpoint."""

import asyncio
import os
import random
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from ..config import TeacherConfig
from ..corpus.passages import Passage
from ..corpus.sources import text_sha256
from .asking import Asking
from .endpoint import ChatEndpoint, no_address, read_key
from .journal import Journal
from .questions import RECORDED, Question, load_recorded, questions
from .records import NO_USAGE, ReplyCounts, make_record, record_cost, request_ceiling

__all__ = [
    "TeacherConfig",
    "annotate",
    "count_open",
    "estimate",
    "extrapolate",
    "open_endpoint",
    "open_questions",
    "unanswered",
]
Recorded = dict[str, str]


def annotate(
    passages: Collection[Passage], journal: Journal, config: TeacherConfig, most: int | None = None
) -> ReplyCounts:
    """Bring the journal up to date for these passages; resumable at any point, nothing is paid twice.

    `passages` is read as answers arrive and never held. `most` bounds the questions asked, a seeded sample of those
    that are open: the pilot of a dry run.
    """
    tally = ReplyCounts(cost_before=sum(record_cost(record, config) for record in journal.records()))
    todo = open_questions(passages, journal, config, tally)
    if most is not None:
        keys = sorted(question.key for question in open_questions(passages, journal, config, ReplyCounts()))
        sample = set(random.Random(0).sample(keys, min(most, len(keys))))
        todo = (question for question in todo if question.key in sample)
    first = next(todo, None) if config.model else None
    if first:
        todo = chain([first], todo)
        key = read_key(config, count_open(passages, config, tally))
        if config.batch and most is None:
            from .batch import annotate_batch

            folder = journal.path.parent / "batches"
            annotate_batch(list(todo), journal, config, folder, tally, config.batch_poll_seconds)
        else:
            count = (lambda: len(sample)) if most is not None else (lambda: count_open(passages, config, tally))
            asyncio.run(Asking(todo, count, journal, config, tally, open_endpoint(config, key)).run())
    for _ in todo:  # what the cap left, or no model asks
        pass
    return tally


def open_questions(
    passages: Iterable[Passage], journal: Journal, config: TeacherConfig, tally: ReplyCounts
) -> Iterator[Question]:
    """Questions that only the endpoint can answer, each once, counted as unanswered; recorded answers are journaled.

    A recorded answer that was corrected in its file is journaled again; what was paid for never changes.
    """
    for question, answer in unanswered(passages, journal, config, tally):
        if answer:
            usage = dict(NO_USAGE)
            journal.append(make_record(question, answer["reply"], answer["finish_reason"], usage, RECORDED))
            tally.recorded += 1
        else:
            tally.unanswered[question.variant] += 1
            yield question


def count_open(passages: Collection[Passage], config: TeacherConfig, tally: ReplyCounts) -> int:
    """Questions to be asked, as far as they have been read: the others count as open."""
    return len(passages) * len(config.variants) - tally.known - tally.recorded


def unanswered(
    passages: Iterable[Passage], journal: Journal, config: TeacherConfig, tally: ReplyCounts | None = None
) -> Iterator[tuple[Question, Recorded | None]]:
    """Questions the journal has no answer to, each once, with the recorded answer where there is one."""
    recorded = load_recorded(config)
    journaled = {}
    if recorded:
        for record in journal.records():
            if record["model"] == RECORDED:
                journaled[record["key"]] = {name: record[name] for name in ("reply", "finish_reason")}
    seen: set[str] = set()
    for question in questions(passages, config):
        answer = recorded.get((question.variant, text_sha256(question.passage.text))) if recorded else None
        corrected = answer is not None and journaled.get(question.key, answer) != answer
        if (question.key in journal.keys and not corrected) or question.key in seen:
            if tally:
                tally.known += 1
            continue
        seen.add(question.key)
        yield question, answer


def open_endpoint(config: TeacherConfig, key: str) -> ChatEndpoint:
    """The endpoint of a recipe, where and with the headers that the `openai` client would use."""
    import httpx2
    import openai

    address = config.base_url or os.environ.get("OPENAI_BASE_URL") or "https:"
    certificates = httpx2.create_ssl_context() if address.startswith("https:") else False
    transport = httpx2.AsyncClient(verify=certificates)
    try:
        client = openai.AsyncOpenAI(api_key=key, base_url=config.base_url, http_client=transport)
    except httpx2.InvalidURL:
        raise no_address(config) from None
    headers = {**client.default_headers, **client.auth_headers}
    headers = {name: value for name, value in headers.items() if isinstance(value, str)}
    return ChatEndpoint(config, f"{client.base_url}chat/completions", headers, key, certificates)


def estimate(passages: Iterable[Passage], journal: Journal, config: TeacherConfig) -> tuple[int, float]:
    """Requests still to be sent, and an upper bound of their cost in dollars."""
    ceilings = [request_ceiling(q, config) for q, answer in unanswered(passages, journal, config) if answer is None]
    return len(ceilings), sum(ceilings)


@dataclass
class Expectation:
    """What the remaining requests should take: dollars and seconds, each with half the width of its 95 % interval."""

    cost: float
    cost_margin: float
    seconds: float
    seconds_margin: float


def extrapolate(journal: Journal, config: TeacherConfig, remaining: int) -> Expectation:
    """Expected dollars and seconds of the remaining requests, from the answers paid so far; zeros without any.

    Time is that of requests which keep `concurrency` in flight, or of the recipe's limits where those are slower.
    """
    paid = [record for record in journal.records() if record["model"] != RECORDED]
    cost, cost_margin = _total([record_cost(record, config) for record in paid], remaining)
    latencies = [record["seconds"] for record in paid if "seconds" in record]
    seconds, margin = (value / config.concurrency for value in _total(latencies, remaining))
    slowest = max(seconds, 60 * remaining / config.requests_per_minute if config.requests_per_minute else 0.0)
    return Expectation(cost, cost_margin, slowest, margin)


def _total(values: list[float], remaining: int) -> tuple[float, float]:
    """Expected sum of `remaining` more values, and half the width of its 95 % interval."""
    if not values:
        return 0.0, 0.0
    mean = sum(values) / len(values)
    spread = (sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)) ** 0.5
    # of a sum of `remaining` draws around a mean that is itself estimated
    return remaining * mean, 1.96 * spread * (remaining + remaining**2 / len(values)) ** 0.5
