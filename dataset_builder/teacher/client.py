"""The client of a teacher: it asks questions at the endpoint's pace, below the cost cap, and pays no reply twice."""

import asyncio
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain

from open_ner.tools.errors import UserError

from ..config import TeacherConfig
from .asking import Asking
from .batch_files import folder_of, has_batches
from .endpoint import open_endpoint, read_key
from .journal import Journal, TeacherSettings
from .records import JournalRecord, ReplyCounts, is_completion, is_rejection
from .requests import LIMITS, Question, address, longest_reply, other_keys, request_ceiling, request_parameters

MOST_SEEN = 100_000  # keys in memory, so that no question in flight is asked again


class TeacherClient:
    """Asks a recipe's teacher the questions without a reply in its open journal, and journals each reply on arrival.

    `counts` holds what was asked and paid. Without a model, nothing is asked.
    """

    def __init__(self, config: TeacherConfig, journal: Journal) -> None:
        self.config, self.journal, self.counts = config, journal, ReplyCounts()
        left = journal.unread + journal.in_flight  # `in_flight` is what a killed run left
        self.counts.cost_before += journal.spent.cost + left
        self.counts.bound += journal.spent.bound + left
        self.teacher: TeacherSettings = {
            "model": config.model,
            "address": address(config),
            "limits": {name: limit for name, limit in request_parameters(config).items() if name in LIMITS},
        }
        self.other_limits = [one["limits"] for one in journal.teachers if one["limits"] != self.teacher["limits"]]
        earlier = {one["address"] for one in journal.teachers if one["model"] == config.model}
        if self.teacher["address"] in earlier:
            stores = [journal] if journal.whole is None else [journal, journal.whole]
            self.counts.paid_before = sum(one.spent.addresses[self.teacher["address"]] for one in stores)
        if others := sorted(earlier - {self.teacher["address"]}):
            _say_once(
                f"warning: {journal.path} holds replies of {config.model} at {', '.join(others)} and uses "
                f"them for {self.teacher['address']}: if that is another model, choose another --output_dir"
            )

    def plan(self, questions: Iterable[Question]) -> tuple[int, float]:
        """Number of requests that these questions need, and their maximum cost in dollars. Sends nothing."""
        ceilings = {
            question.key: request_ceiling(question, self.config)
            for question in questions
            if question.key not in self.journal and not self._reply_under_another_limit(question)
        }
        return len(ceilings), sum(ceilings.values())

    def fetch(self, questions: Iterable[Question], total: int) -> None:
        """Ask `total` questions, few in memory at once, and journal the replies; `counts` has those without a reply.

        Raises UserError if further requests would fail too (a wrong key, no quota, an unknown model, an endpoint that
        is down), or if batches are under way whose replies would be paid for again.
        """
        self.counts.total += total
        if self.journal.in_flight:
            self.journal.note({"unread": self.journal.in_flight, "in_flight": 0.0})
        todo = self._open(questions)
        first = next(todo, None) if self.config.model else None
        if first:
            todo = chain([first], todo)
            key = read_key(self.config, self.counts.to_ask)
            if self.teacher not in self.journal.teachers:
                self.journal.note({"asked": self.teacher})
            if self.config.batch:
                from .batch import AskingInBatches

                asking = AskingInBatches(todo, self.journal, self.config, self.counts, key, self._reuse)
                with asking.provider.client:
                    asking.run()
            elif has_batches(self.journal.path):
                raise UserError(
                    f"{folder_of(self.journal.path)}: batches are under way, and their replies are paid: give --batch "
                    "until they are collected, without --preview and --pilot, which send single requests. If the "
                    "provider has no batch of this run, delete the folder's part-*.jsonl"
                )
            else:
                endpoint = open_endpoint(self.config, key)
                asyncio.run(Asking(todo, self.journal, self.config, self.counts, endpoint).run())
        for _ in todo:  # count the questions that stay open because of the cap or without a model
            pass

    def _open(self, questions: Iterable[Question]) -> Iterator[Question]:
        """Count the questions and yield those without a journaled reply, each key once."""
        seen: set[str] = set()
        for question in questions:
            known = question.key in self.journal or question.key in seen or self._reuse(question)
            self.counts.known += known
            if known and self.counts.paid_before and not self.counts.answered_before:
                self.counts.answered_before = self._was_completed(question)
            if not known:
                if len(seen) == MOST_SEEN:  # most have a reply by now
                    seen = {key for key in seen if key not in self.journal}
                seen.add(question.key)
                self.counts.unanswered[question.variant] += 1
                yield question

    def _was_completed(self, question: Question) -> bool:
        """Whether the endpoint at this address has completed the question with these parameters or a higher limit."""
        record = self.journal.get(question.key)
        if record is None or record.get("address") != self.teacher["address"]:
            return False
        longest = longest_reply(self.teacher["limits"])
        higher = [limits for limits in self.other_limits if longest_reply(limits) >= longest]
        return is_completion(record) or record.get("copy_of") in [*other_keys(question, self.config, higher)]

    def _reuse(self, question: Question) -> bool:
        """Journal a copy of the question's reply under another limit of its length; return whether there is one."""
        reply = self._reply_under_another_limit(question)
        if reply:
            self.journal.append({
                **reply, "key": question.key, "copy_of": reply["key"], "cost": 0.0,
                "passage_id": question.passage_id, "variant": question.variant,  # may be empty in a reply of a batch
            })  # fmt: skip
        return reply is not None

    def _reply_under_another_limit(self, question: Question) -> JournalRecord | None:
        """The question's reply under another limit of its length, unless that limit may be the reason for the reply.

        A completion may be cut at its limit, and a request may be rejected because its limit was too high.
        """
        longest = longest_reply(self.teacher["limits"])
        keys = other_keys(question, self.config, self.other_limits)
        for limits, key in zip(self.other_limits, keys, strict=True):
            record = self.journal.get(key)
            if record is None or record["finish_reason"] == "length":
                continue
            if not is_rejection(record) or longest_reply(limits) <= longest:
                return record
        return None


@cache
def _say_once(line: str) -> None:
    """Print a line only once, because a pilot and a preview build two clients of the same journal."""
    print(line)
