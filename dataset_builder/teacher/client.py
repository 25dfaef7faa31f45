"""The client of a teacher: it asks questions at the endpoint's pace, below the cost cap, and pays no reply twice."""

import asyncio
from collections.abc import Iterable, Iterator
from itertools import chain

from ..config import TeacherConfig
from .asking import Asking
from .endpoint import open_endpoint, read_key
from .journal import Journal
from .records import JournalRecord, ReplyCounts, record_cost
from .requests import Question, request_ceiling

__all__ = ["TeacherClient", "TeacherConfig"]


class TeacherClient:
    """Asks the teacher of a recipe what its journal does not hold yet.

    Args:
        config: The recipe's teacher; without a model nothing is asked.
        journal: An open journal, which receives every reply when it arrives.

    Attributes:
        counts: Counts and costs of everything asked through this client.
    """

    def __init__(self, config: TeacherConfig, journal: Journal) -> None:
        self.config, self.journal = config, journal
        self.counts = ReplyCounts(cost_before=sum(record_cost(record, config) for record in journal.records()))

    def plan(self, questions: Iterable[Question]) -> tuple[int, float]:
        """Requests that asking these questions would send, and the most they can cost in dollars. Sends nothing."""
        ceilings = [request_ceiling(question, self.config) for question in self._open(questions, ReplyCounts())]
        return len(ceilings), sum(ceilings)

    def ask(self, questions: Iterable[Question], total: int) -> dict[str, JournalRecord]:
        """Ask questions and return the replies by key; questions that got none are counted in `counts`.

        Args:
            questions: The questions; read as replies arrive.
            total: How many there are.

        Raises:
            UserError: nothing can be asked: a wrong key, no quota, an unknown model, an endpoint that is down.
        """
        keys: set[str] = set()

        def noted() -> Iterator[Question]:
            for question in questions:
                keys.add(question.key)
                yield question

        self.fetch(noted(), total)
        return {record["key"]: record for record in self.journal.records() if record["key"] in keys}

    def fetch(self, questions: Iterable[Question], total: int) -> None:
        """Like `ask`, but leave the replies in the journal: neither questions nor replies are held in memory."""
        todo = self._open(questions, self.counts)
        first = next(todo, None) if self.config.model else None
        if first:
            todo = chain([first], todo)

            def count() -> int:  # questions not read yet count as open
                return total - self.counts.known - self.counts.recorded

            key = read_key(self.config, count())
            if self.config.batch:
                from .batch import annotate_batch

                annotate_batch(list(todo), self.journal, self.config, self.counts)
            else:
                endpoint = open_endpoint(self.config, key)
                asyncio.run(Asking(todo, count, self.journal, self.config, self.counts, endpoint).run())
        for _ in todo:  # count what stays open: the cap was met, or there is no model
            pass

    def _open(self, questions: Iterable[Question], counts: ReplyCounts) -> Iterator[Question]:
        """The questions without a journaled reply, each key once."""
        seen: set[str] = set()
        for question in questions:
            if question.key in self.journal.keys or question.key in seen:
                counts.known += 1
            else:
                seen.add(question.key)
                counts.unanswered[question.variant] += 1
                yield question
