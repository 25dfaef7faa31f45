"""The annotation stage: write a reply per question to the journal.

Replies come from the files of `teacher.recorded`, or from the teacher.
"""

import random
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from ..config import TeacherConfig
from ..corpus.cutting import Passage
from ..corpus.sources import text_sha256
from .client import TeacherClient
from .journal import Journal
from .questions import RECORDED, Questioner, RecordedReply, load_recorded, questions
from .records import ReplyCounts, make_record, reply_cost
from .requests import Question


def fetch_replies(
    passages: Collection[Passage], journal: Journal, config: TeacherConfig, most: int | None = None
) -> ReplyCounts:
    """Bring the journal up to date for these passages; can be resumed at any point, and pays for nothing twice.

    `passages` is read as replies arrive and never held in memory. With `most`, ask only a seeded sample of this many
    open questions: the pilot of a dry run.
    """
    client = TeacherClient(config if most is None else replace(config, batch=False), journal)
    todo, total = _take_recorded(passages, journal, config, client.counts), len(passages) * len(config.variants)
    if most is not None:
        keys = sorted({question.key for question in todo if question.key not in journal})
        sample = set(random.Random(0).sample(keys, min(most, len(keys))))
        todo = (question for question in questions(passages, config) if question.key in sample)
        total = len(sample) + client.counts.recorded
    client.fetch(todo, total)
    return client.counts


def estimate(passages: Iterable[Passage], journal: Journal, config: TeacherConfig) -> tuple[int, float]:
    """Requests still to be sent, and an upper bound of their cost in dollars."""
    todo = (question for question, reply in _with_recorded(passages, config) if reply is None)
    return TeacherClient(config, journal).plan(todo)


def open_questions(passages: Iterable[Passage], journal: Journal, config: TeacherConfig) -> Iterator[Question]:
    """The questions that have neither a reply in the journal nor a recorded one."""
    return (q for q, reply in _with_recorded(passages, config) if reply is None and q.key not in journal)


def _with_recorded(
    passages: Iterable[Passage], config: TeacherConfig
) -> Iterator[tuple[Question, RecordedReply | None]]:
    """Every question, with its recorded reply if there is one."""
    recorded, questioner = load_recorded(config), Questioner(config)
    for passage in passages:
        digest = text_sha256(passage.text) if recorded else ""
        for question in questioner.about(passage):
            yield question, recorded.get((question.variant, digest))


def _take_recorded(
    passages: Iterable[Passage], journal: Journal, config: TeacherConfig, counts: ReplyCounts
) -> Iterator[Question]:
    """Journal new and changed replies of the recorded files; yield all other questions, answered ones included."""
    for question, reply in _with_recorded(passages, config):
        known = journal.get(question.key) if reply else None
        corrected = known and known["model"] == RECORDED and (known["reply"], known["finish_reason"]) != reply
        if reply and (corrected or not known):
            journal.append(make_record(question, *reply, RECORDED))
            counts.recorded += 1
        else:
            yield question


@dataclass
class Expectation:
    """Expected dollars and seconds of the remaining requests, each with half the width of its 95 % interval."""

    cost: float
    cost_margin: float
    seconds: float
    seconds_margin: float


def extrapolate(
    passages: Iterable[Passage], journal: Journal, config: TeacherConfig, remaining: int
) -> Expectation | None:
    """Return expected dollars and seconds of the remaining requests, from the replies to the recipe's other questions.

    The dollars are those at the recipe's prices. The time assumes `concurrency` requests in flight, or the recipe's
    rate limit if that is slower. None if the teacher has replied to no question of the recipe.
    """
    costs, latencies = list[float](), list[float]()
    for question in questions(passages, config):
        record = journal.get(question.key)
        if record is None or record["model"] == RECORDED:
            continue
        costs.append(reply_cost(question, record, config) if "cost" in record else 0.0)  # a rejection costs nothing
        if "seconds" in record:
            latencies.append(record["seconds"])
    if not costs:
        return None
    cost, cost_margin = _total(costs, remaining)
    seconds, margin = (value / config.concurrency for value in _total(latencies, remaining))
    duration = max(seconds, 60 * remaining / config.requests_per_minute if config.requests_per_minute else 0.0)
    return Expectation(cost, cost_margin, duration, margin)


def _total(values: list[float], remaining: int) -> tuple[float, float]:
    """Expected sum of `remaining` more values, and half the width of its 95 % interval."""
    if not values:
        return 0.0, 0.0
    spread = stdev(values) if len(values) > 1 else 0.0
    # variance of a sum of `remaining` draws, plus that of the estimated mean
    return remaining * fmean(values), 1.96 * spread * (remaining + remaining**2 / len(values)) ** 0.5
