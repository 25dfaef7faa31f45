"""One run of questions against an endpoint: workers, pace, cost cap, interruption. Every paid reply is journaled."""

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from open_ner.tools.errors import UserError

from ..config import TeacherConfig
from .endpoint import ChatEndpoint
from .http_errors import RateLimited, RequestRejected, TransientError, backoff
from .journal import Journal
from .pacing import Pacer
from .progress import Progress
from .records import ReplyCounts, make_record, read_completion
from .requests import Question, longest_reply, request_body, request_ceiling, request_parameters

GIVE_UP = 20  # failures in a row, or one per request in flight if that is more: the endpoint is considered down
NEVER_ANSWERED = 3  # failures in a row, if the endpoint has not answered at all


class Asking:
    """Asks the questions of an iterator, up to `config.concurrency` at a time.

    Whatever ends the run early (a wrong key, no quota, a full disk, Ctrl-C), it waits for the requests in flight and
    journals their replies, because they are paid. Only a second Ctrl-C abandons them.
    """

    def __init__(
        self, todo: Iterator[Question], journal: Journal, config: TeacherConfig, counts: ReplyCounts,
        endpoint: ChatEndpoint,
    ) -> None:  # fmt: skip
        self.todo, self.upcoming = todo, next(todo, None)
        self.journal, self.config, self.counts, self.endpoint = journal, config, counts, endpoint
        self.parameters = request_parameters(config)
        self.pacer = Pacer(config.requests_per_minute, config.tokens_per_minute)
        self.progress = Progress(counts, config.model or "", self._note)
        self.workers: list[asyncio.Task[None]] = []
        self.idle: set[asyncio.Task[None]] = set()  # workers that wait without a request in flight
        self.in_flight = 0
        self.reserved = 0.0  # dollars; upper bound of the cost of the requests in flight
        self.failures = 0  # in a row
        self.failing_since = 0.0  # when the first of them failed
        self.stopping = self.interrupted = self.warned = False
        self.error: Exception | None = None  # the first one; it ended the run
        self.first_reply = asyncio.Event()

    async def run(self) -> None:
        """Ask everything; raises UserError if a retry cannot help, KeyboardInterrupt after Ctrl-C."""
        async with self.endpoint:
            count = min(self.config.concurrency, self.counts.to_ask)
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
        if self.failures and not self.counts.asked:
            raise self._down()
        if self.upcoming is not None:
            print(f"stopped below max_cost ${self.config.max_cost}: raise teacher.max_cost and run again to go on")

    def _interrupt(self) -> None:
        """On the first Ctrl-C, finish the requests in flight; on the second, abandon them."""
        if self.interrupted:
            for worker in self.workers:
                worker.cancel()
            return
        self.interrupted = True
        self._stop()
        self.progress.say(f"finishing {self.in_flight} requests in flight; Ctrl-C again leaves them, paid or not")

    def _stop(self) -> None:
        """Take no more questions; end the workers that have no request in flight."""
        self.stopping = True
        for task in self.idle:
            task.cancel()

    async def _work(self, first: bool) -> None:
        """Ask one question after another.

        The others wait for the first worker's first reply: it shows the rate limits, or that key or model are wrong.
        """
        try:
            if not first:
                with self._waiting():
                    await self.first_reply.wait()
            while taken := self._take():
                question, ceiling = taken
                self.reserved += ceiling
                try:
                    await self._ask(question)
                finally:
                    self.reserved -= ceiling
                    self.first_reply.set()
        except Exception as error:
            self.error = self.error or error
            self._stop()
        finally:
            self.first_reply.set()

    def _take(self) -> tuple[Question, float] | None:
        """The next question and its maximum cost; None at the end, if the run stops, or if the cap could be exceeded.

        The cap holds even if this request and all in flight cost their maximum. Near the cap, workers leave one by
        one, and the last ones continue while the remainder suffices.
        """
        question, cap = self.upcoming, self.config.max_cost
        if question is None or self.stopping:
            return None
        ceiling = request_ceiling(question, self.config, self.parameters)
        if cap is not None and self.counts.cost_before + self.counts.cost + self.reserved + ceiling > cap:
            return None
        self.upcoming = next(self.todo, None)
        return question, ceiling

    async def _ask(self, question: Question) -> None:
        """Ask until there is a reply, the request is rejected, or the retries are used up."""
        body = json.dumps(request_body(question, self.config)).encode()
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
                record = read_completion(question, response, self.endpoint.url, self.config)
                record["seconds"] = round(time.monotonic() - started, 3)
                break
            except RateLimited as limit:
                pause = self.pacer.rate_limited(limit.retry_after)
            except RequestRejected as rejection:
                if rejection.code:  # the endpoint will never answer this passage: journal the reason as its reply
                    record = make_record(question, "", rejection.code, self.config.model)
                    break
                if not self.counts.asked:  # no request was ever accepted: the recipe is wrong, not this passage
                    raise UserError(f"{self.endpoint.url} rejects the request: {rejection}") from None
                return self._fail(str(rejection))
            except (TransientError, ValueError) as fault:  # ValueError: the body is not a completion
                faults += 1
                if faults > self.config.max_retries:
                    return self._fail(str(fault))
                if not self.counts.asked and not self.warned:
                    self.warned = True
                    self.progress.say(f"{self.endpoint.url}: {fault}; trying again")
                pause = backoff(faults)
            finally:
                self.in_flight -= 1
            with self._waiting():
                await asyncio.sleep(pause)
        self.journal.append(record)
        self.counts.count(record, self.config)
        self.pacer.answered()
        # a late reply to a request sent before the endpoint began to fail does not show that it works again
        if started >= self.failing_since:
            self.failures = 0

    def _fail(self, why: str) -> None:
        """Count a question without a reply; raises UserError after too many in a row."""
        self.counts.failed += 1
        self.counts.last_fault = why
        if not self.failures:
            self.failing_since = time.monotonic()
        self.failures += 1
        if self.failures >= (max(GIVE_UP, self.config.concurrency) if self.counts.asked else NEVER_ANSWERED):
            raise self._down()

    def _down(self) -> UserError:
        return UserError(
            f"{self.endpoint.url} gave no usable answer to {self.failures} requests in a row, the last one: "
            f"{self.counts.last_fault}; run again to go on from here"
        )

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """Mark the current worker as idle: it can be stopped without losing a paid reply."""
        task = asyncio.current_task()
        assert task is not None
        self.idle.add(task)
        try:
            yield
        finally:
            self.idle.discard(task)

    def _note(self) -> str:
        note = f", {self.pacer.rate_limits} times over the rate limit" if self.pacer.rate_limits else ""
        return note + (f", waiting {self.pacer.waiting:.0f} s" if self.pacer.waiting > 2 else "")
