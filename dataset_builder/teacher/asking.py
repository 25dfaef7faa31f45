"""One run of questions against an endpoint: workers, pace, cap, interruption. What is paid for is journaled."""

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from open_ner.tools.errors import UserError

from ..config import TeacherConfig
from .endpoint import ChatEndpoint, RateLimited, RequestRejected, TransientError, backoff
from .journal import Journal
from .pacing import Pacer
from .progress import Progress
from .questions import Question, longest_reply, request_parameters
from .records import NO_USAGE, ReplyCounts, make_record, read_completion, request_ceiling

GIVE_UP = 20  # failures in a row, or one for each request in flight, and the endpoint is taken for down
NEVER_ANSWERED = 3  # failures suffice where it never answered at all


class Asking:
    """Asks the questions of an iterator, `config.concurrency` of them at a time; `count()` says how many there are.

    Whatever ends the run early (a wrong key, no quota, no disk space, Ctrl-C), the requests in flight are waited for
    and journaled, for they are paid; a second Ctrl-C alone leaves them.
    """

    def __init__(
        self,
        todo: Iterator[Question],
        count: Callable[[], int],
        journal: Journal,
        config: TeacherConfig,
        tally: ReplyCounts,
        endpoint: ChatEndpoint,
    ) -> None:
        self.todo, self.count, self.upcoming = todo, count, next(todo, None)
        self.journal, self.config, self.tally, self.endpoint = journal, config, tally, endpoint
        self.parameters = request_parameters(config)
        self.pacer = Pacer(config.requests_per_minute, config.tokens_per_minute)
        self.progress = Progress(tally, count, config.model or "", self._note)
        self.idle: set[asyncio.Task] = set()
        self.in_flight = 0
        self.reserved = 0.0  # the most that the requests in flight can cost, in $
        self.failures = 0  # in a row
        self.stopping = self.interrupted = self.warned = False
        self.error: Exception | None = None  # the first one, which ended the run
        self.first_answer = asyncio.Event()

    async def run(self) -> None:
        """Ask everything; raises UserError for what no retry can mend, KeyboardInterrupt after Ctrl-C."""
        async with self.endpoint:
            count = min(self.config.concurrency, self.count())
            self.workers = [asyncio.create_task(self._work(first=number == 0)) for number in range(count)]
            ticker = asyncio.create_task(self.progress.keep_showing())
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._interrupt)
            try:
                await asyncio.gather(*self.workers, return_exceptions=True)
            finally:
                asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)
                for task in [*self.workers, ticker]:
                    task.cancel()
                self.progress.close()
        if self.interrupted:
            raise KeyboardInterrupt
        if self.error:
            raise self.error
        if self.failures and not self.tally.asked:
            raise self._down()
        if self.upcoming is not None:
            print(f"stopped below max_cost ${self.config.max_cost}: raise teacher.max_cost and run again to go on")

    def _interrupt(self) -> None:
        """Ctrl-C once: finish what is in flight. Twice: leave it."""
        if self.interrupted:
            for worker in self.workers:
                worker.cancel()
            return
        self.interrupted = True
        self._stop()
        self.progress.say(f"finishing {self.in_flight} requests in flight; Ctrl-C again leaves them, paid or not")

    def _stop(self) -> None:
        """Take no more questions; who waits for a turn leaves, who waits for an answer stays."""
        self.stopping = True
        for task in self.idle:
            task.cancel()

    async def _work(self, first: bool) -> None:
        """Ask question after question. One worker goes ahead: its answer shows the limits, a wrong key or model."""
        try:
            if not first:
                with self._waiting():
                    await self.first_answer.wait()
            while taken := self._take():
                question, ceiling = taken
                self.reserved += ceiling
                try:
                    await self._ask(question)
                finally:
                    self.reserved -= ceiling
                    self.first_answer.set()
        except Exception as error:
            self.error = self.error or error
            self._stop()
        finally:
            self.first_answer.set()

    def _take(self) -> tuple[Question, float] | None:
        """The next question and the most it can cost; None when all are taken, the run stops, or the cap may be met.

        The cap holds even if this request and all in flight cost the most they can. Near it workers leave one by one,
        and the last ones go on as long as what is left suffices.
        """
        question, cap = self.upcoming, self.config.max_cost
        if question is None or self.stopping:
            return None
        ceiling = request_ceiling(question, self.config, self.parameters)
        if cap is not None and self.tally.cost_before + self.tally.cost + self.reserved + ceiling > cap:
            return None
        self.upcoming = next(self.todo, None)
        return question, ceiling

    async def _ask(self, question: Question) -> None:
        """Ask until answered, rejected for good, or out of tries."""
        body = {"model": self.config.model, "messages": question.messages, **self.parameters}
        tokens = sum(len(message["content"]) for message in question.messages) // 4 + longest_reply(self.parameters)
        faults = 0
        while True:
            with self._waiting():
                await self.pacer.turn(tokens)
            self.in_flight += 1
            started = time.monotonic()
            try:
                response, headers = await self.endpoint.complete(body)
                self.pacer.learn(headers)
                record = read_completion(question, response)
                record["seconds"] = round(time.monotonic() - started, 3)
                break
            except RateLimited as refusal:
                pause = self.pacer.refuse(refusal.retry_after)
            except RequestRejected as rejection:
                if rejection.code:  # this passage will never be answered: that is its answer, and the others go on
                    record = make_record(question, "", rejection.code, NO_USAGE, self.config.model)
                    break
                if not self.tally.asked:  # nothing was ever answered: it is the request that is wrong, not a passage
                    raise UserError(f"{self.endpoint.url} rejects the request: {rejection}") from None
                return self._fail(str(rejection))
            except (TransientError, ValueError) as fault:  # a fault that may pass, or a body that is no completion
                faults += 1
                if faults > self.config.max_retries:
                    return self._fail(str(fault))
                if not self.tally.asked and not self.warned:
                    self.warned = True
                    self.progress.say(f"{self.endpoint.url}: {fault}; trying again")
                pause = backoff(faults)
            finally:
                self.in_flight -= 1
            with self._waiting():  # in flight no more: nothing is lost by leaving now
                await asyncio.sleep(pause)
        self.journal.append(record)
        self.tally.count(record, self.config)
        self.pacer.answered()
        self.failures = 0

    def _fail(self, why: str) -> None:
        """Count a question that got no answer in this run; UserError when nothing but failures come."""
        self.tally.failed += 1
        self.tally.last_fault = why
        self.failures += 1
        if self.failures >= (max(GIVE_UP, self.config.concurrency) if self.tally.asked else NEVER_ANSWERED):
            raise self._down()

    def _down(self) -> UserError:
        return UserError(
            f"{self.endpoint.url} gave no usable answer to {self.failures} requests in a row, the last one: "
            f"{self.tally.last_fault}; run again to go on from here"
        )

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """Marks this worker as one that may be stopped: nothing of its is being paid for."""
        task: Any = asyncio.current_task()
        self.idle.add(task)
        try:
            yield
        finally:
            self.idle.discard(task)

    def _note(self) -> str:
        refused, waiting = self.pacer.refused, self.pacer.waiting
        note = f", {refused} times over the rate limit" if refused else ""
        return note + (f", waiting {waiting:.0f} s" if waiting > 2 else "")
