"""Ask questions through the provider's Batch API, which replies within a day, usually at half the price.

As with single requests, a reply is journaled once and never paid twice. Every batch carries two names as metadata:
the run (hash of the journal's header) and the part (hash of its keys). If the process dies before it records a new
batch, the next run finds it in the provider's list. `state.json` records which batches are collected, after their
replies are in the journal.

The costs use the recipe's `price_input` and `price_output`: set the prices of the Batch API there.
"""

import hashlib
import json
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from open_ner.tools.errors import UserError

from ..config import TeacherConfig
from .batch_files import BatchFolder, folder_of
from .batch_provider import Provider, read_result
from .http_errors import MOST_ALIKE, Forbidden, RateLimited, RequestRejected, TransientError, mask
from .journal import Journal
from .records import JournalRecord, ReplyCounts, make_record
from .requests import Question, other_keys, request_ceiling

if TYPE_CHECKING:
    from openai import types

# https://platform.openai.com/docs/guides/batch: limits of one input file
PART_REQUESTS = 50_000
PART_BYTES = 200_000_000
SMALLEST_PART = 100  # requests; the run ends if the account's queue has no room for these
ROUNDS = 3  # tries of a question before it counts as failed; also, how often the cap may end the submission
ENDED = ("completed", "expired", "cancelled", "failed")
QUEUE_FULL = "token_limit_exceeded"  # error code of a batch for which the account's queue had no room


@dataclass
class Batch:
    """A batch under way: its questions, the most they can still cost, and how many the provider has answered."""

    id: str
    part: str
    questions: dict[str, Question]
    ceiling: float
    done: int = 0
    ceilings: dict[str, float] = field(default_factory=dict)  # by key, in batches of earlier runs, with their limits


class AskingInBatches:
    """Asks the open questions in batches; can be resumed at any point.

    Batches of earlier runs of this journal are collected first. The folder `batches` beside the journal holds the
    state and the input files of the batches under way. Questions that stay open because of the cap or after `ROUNDS`
    are reported and left to the next run. `reuse` journals a copy of a question's reply under another limit of its
    length, and returns whether there is one.
    """

    def __init__(
        self, todo: Iterable[Question], journal: Journal, config: TeacherConfig, counts: ReplyCounts, key: str,
        reuse: Callable[[Question], bool],
    ) -> None:  # fmt: skip
        self.todo = {question.key: question for question in todo}
        self.journal, self.config, self.counts, self.reuse = journal, config, counts, reuse
        with journal.path.open("rb") as lines:
            self.provider = Provider(config, key, run=hashlib.sha256(lines.readline()).hexdigest()[:32])
        self.folder = BatchFolder(folder_of(journal.path))
        self.open: list[Batch] = []
        self.queue: dict[str, Question] = {}
        self.tries: Counter[str] = Counter()
        self.part_requests = PART_REQUESTS
        self.most_open: float = math.inf  # maximum batches under way; lowered when the account's queue was full
        self.cuts = 0  # times the cap ended the submission
        self.last_line = ""

    def run(self) -> None:
        """Adopt the batches under way, then submit, wait and collect; raises UserError if a retry cannot help."""
        self.adopt()
        under_way = {key for batch in self.open for key in batch.questions}
        self.queue = {key: question for key, question in self.todo.items() if key not in under_way}
        self.await_other_limits(under_way)
        while self.cuts <= ROUNDS:
            self.submit()
            if not self.open:
                break
            self.wait()
        if self.counts.failed:
            failed = f"{self.counts.failed} requests got no usable answer, the last one: {self.counts.last_fault}"
            if not self.counts.paid:
                raise UserError(failed)
            print(failed)
        if self.queue:
            cap = f"stopped below max_cost ${self.config.max_cost:g}: {len(self.queue)} requests are not submitted"
            print(f"{cap}; raise teacher.max_cost and run again to go on")

    def adopt(self) -> None:
        """Take over the batches of earlier runs, listed in the state or only at the provider."""
        state = self.folder.state
        listed = {batch.id: batch for batch in self.provider.listed()}
        for name in [name for name, entry in state.items() if not entry["collected"] and name not in listed]:
            listed[name] = self.provider.retrieve(name)
        for batch in listed.values():
            entry = state.get(batch.id)
            if (entry and entry["collected"]) or (not entry and batch.status == "failed"):
                continue
            part = entry["part"] if entry else (batch.metadata or {})["part"]
            self.open.append(self.read_part(batch.id, part, batch.input_file_id))
            self.folder.remember(batch.id, part)
        kept = {self.folder.part_path(batch.part) for batch in self.open}
        for path in self.folder.path.glob("part-*"):
            if path not in kept:  # written by a run that stopped before it created its batch
                path.unlink()

    def await_other_limits(self, under_way: set[str]) -> None:
        """If queued questions are in a batch with another limit of the reply's length, wait and use its replies."""
        limits = [teacher["limits"] for teacher in self.journal.teachers]
        late = [q for q in self.queue.values() if not under_way.isdisjoint(other_keys(q, self.config, limits))]
        if late:
            self.wait()
        for question in late:
            if self.reuse(question):
                self.counts.unanswered[question.variant] -= 1
                del self.queue[question.key]

    def read_part(self, name: str, part: str, file_id: str) -> Batch:
        """Build a batch of an earlier run from its input file; some of its questions may not be asked in this run."""
        if not self.folder.part_path(part).exists():
            self.provider.download(file_id, self.folder.part_path(part))
        batch = Batch(name, part, {}, 0.0)
        with self.folder.part_path(part).open("rb") as lines:
            for row in map(json.loads, lines):
                # the file names neither variant nor passage
                question = Question(row["custom_id"], "", "", row["body"]["messages"])
                batch.questions[question.key] = self.todo.get(question.key, question)
                batch.ceilings[question.key] = request_ceiling(question, self.config, row["body"])
                if question.key not in self.journal:
                    batch.ceiling += batch.ceilings[question.key]
        return batch

    def submit(self) -> None:
        """Create batches of the queued questions, as many as the cap and the account's queue allow."""
        self.queue = {key: question for key, question in self.queue.items() if key not in self.journal}
        while self.queue and len(self.open) < self.most_open:
            spent = self.counts.cost_before + self.counts.cost + sum(batch.ceiling for batch in self.open)
            room = math.inf if self.config.max_cost is None else self.config.max_cost - spent
            written = self.folder.write_part(self.queue.values(), self.config, room, self.part_requests, PART_BYTES)
            if not written:
                self.cuts += 1
                return
            part, questions, ceiling = written
            name = self.provider.create(part, self.folder.part_path(part), self.folder.state)
            self.folder.remember(name, part)
            self.open.append(Batch(name, part, questions, ceiling))
            self.queue = {key: question for key, question in self.queue.items() if key not in questions}

    def wait(self) -> None:
        """Poll until every batch under way has ended; collect each when it ends."""
        accepted = 0
        put_back: list[tuple[int, str]] = []
        while self.open:
            for batch in list(self.open):
                found = self.provider.retrieve(batch.id)
                if found.status not in ENDED:
                    batch.done = found.request_counts.completed if found.request_counts else 0
                elif found.status == "failed":
                    put_back.append((len(batch.questions), self.put_back(batch, found)))
                else:
                    accepted += 1
                    self.collect(batch, found)
            self.report()
            if self.open:
                time.sleep(self.config.batch_poll_seconds)
        if put_back and accepted:
            self.most_open = accepted
        elif put_back:
            largest, message = max(put_back)
            if largest <= SMALLEST_PART:
                raise UserError(f"the account's queue of batches has no room for even {largest} requests: {message}")
            self.most_open, self.part_requests = 1, largest // 2

    def put_back(self, batch: Batch, found: "types.Batch") -> str:
        """Queue the questions of a batch again if the account's queue was full; UserError for any other reason."""
        self.close(batch)
        errors = (found.errors and found.errors.data) or []
        message = mask("; ".join(f"{error.message} (line {error.line or '-'})" for error in errors[:3]), self.config)
        if not any(error.code == QUEUE_FULL for error in errors):
            raise UserError(f"the provider refuses batch {batch.id}: {message or 'it gives no reason'}")
        self.queue |= {key: question for key, question in batch.questions.items() if key in self.todo}
        return message

    def collect(self, batch: Batch, found: "types.Batch") -> None:
        """Journal the replies of a batch that has ended; queue unanswered questions again, or count them as failed."""
        faults: dict[str, Exception] = {}
        path = self.folder.path / "answers.jsonl"
        for file_id in (found.output_file_id, found.error_file_id):
            if file_id:
                self.provider.download(file_id, path)
                with path.open("rb") as lines:
                    faults |= self.journal_replies(lines, batch)
                path.unlink()
        self.count_unread(batch, faults)
        self.journal_rejections(batch, faults)
        self.close(batch)
        left = [key for key in batch.questions if key in self.todo and key not in self.journal]
        for key in left:
            fault = faults.get(key) or TransientError(f"no answer in a batch that {found.status}")
            if isinstance(fault, UserError):  # every other request would meet it too
                raise fault
            self.tries[key] += 1
            # a user who cancels a batch does not want it asked again at once
            if isinstance(fault, RequestRejected) or found.status == "cancelled" or self.tries[key] == ROUNDS:
                self.counts.failed += 1
                self.counts.last_fault = str(fault)
            else:
                self.queue[key] = self.todo[key]

    def journal_replies(self, lines: Iterable[bytes], batch: Batch) -> dict[str, Exception]:
        """Journal every new reply of an output or error file; returns the faults of the other lines by key."""
        faults: dict[str, Exception] = {}
        for line in filter(bytes.strip, lines):
            row = json.loads(line)
            question = batch.questions.get(row["custom_id"])
            if question is None or question.key in self.journal:
                continue
            try:
                record = read_result(row, question, self.config)
            except (RequestRejected, UserError, RateLimited, TransientError, ValueError) as fault:
                if not isinstance(fault, RequestRejected) or not fault.code:
                    faults[question.key] = fault
                    continue
                # the endpoint will never answer this passage: journal the reason as its reply
                record = make_record(question, "", fault.code, self.config.model)
            self.keep(record)
        return faults

    def count_unread(self, batch: Batch, faults: dict[str, Exception]) -> None:
        """Count billed lines without a usable reply, only once even if the batch is collected again after a kill."""
        unreadable = [key for key, fault in faults.items() if isinstance(fault, TransientError) and fault.billed]
        if unreadable and batch.id not in self.journal.counted_batches:
            ceilings = {key: request_ceiling(batch.questions[key], self.config) for key in unreadable} | batch.ceilings
            dollars = sum(ceilings[key] for key in unreadable)
            self.journal.note({"unread": dollars, "batch": batch.id})
            self.counts.count_unread(dollars)

    def journal_rejections(self, batch: Batch, faults: dict[str, Exception]) -> None:
        """Journal rejected requests as their passages' answers, unless the endpoint rejects all or many in a row."""
        rejected = {key for key, fault in faults.items() if isinstance(fault, RequestRejected | Forbidden)}
        rows = (len([*keys]) for found, keys in groupby(batch.questions, rejected.__contains__) if found)
        if max(rows, default=0) < MOST_ALIKE and self.counts.accepts_parameters:
            for key in rejected:
                self.counts.rejected += 1
                self.counts.last_rejection = str(faults[key])
                self.keep(make_record(batch.questions[key], str(faults[key]), "refusal", self.config.model))

    def keep(self, record: JournalRecord) -> None:
        """Journal a reply and count it."""
        self.journal.append(record)
        self.counts.count(record)

    def close(self, batch: Batch) -> None:
        """Record that a batch is collected, once all its replies are on disk."""
        with self.journal.path.open("rb") as file:
            os.fsync(file.fileno())
        self.folder.remember(batch.id, batch.part, collected=True)
        self.open.remove(batch)
        self.folder.part_path(batch.part).unlink(missing_ok=True)

    def report(self) -> None:
        """Print the progress of the batches if it has changed; on a terminal, on the same line as before."""
        collected = sum(key in self.journal for key in self.todo)
        answered = collected + sum(batch.done for batch in self.open)
        line = f"{answered} of {len(self.todo)} answered, {collected} of them collected, {len(self.open)} batches "
        line += f"under way, {self.counts.failed} failed, ${self.counts.cost:.4f}"
        if line != self.last_line:
            end = "   \r" if sys.stderr.isatty() and self.open else "\n"
            print(line, file=sys.stderr, flush=True, end=end)
            self.last_line = line
