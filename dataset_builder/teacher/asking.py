"""One run of questions against an endpoint: workers, pace, cost cap, interruption. Every paid reply is journaled."""

import asyncio
import json
import signal
import time
from collections.abc import Awaitable, Iterator
from contextlib import suppress

from open_ner.tools.errors import UserError

from ..config import TeacherConfig
from .endpoint import ChatEndpoint
from .http_errors import MOST_ALIKE, Forbidden, RateLimited, RequestRejected, TransientError, backoff
from .journal import Journal
from .pacing import Pacer
from .progress import Progress
from .records import JournalRecord, ReplyCounts, make_record, read_completion
from .requests import Question, longest_reply, request_body, request_ceiling, request_parameters

FIRST_SECONDS = 10.0  # longest time that the other workers wait for the first request
# limits per question
MOST_UNREAD = 4  # tries that may have been billed without a readable reply
# 429s after which a question fails: LIMITED if the endpoint has meanwhile answered as many other questions, or none is
# left to ask; ALL_LIMITED if it refuses the others too
LIMITED, ALL_LIMITED = 10, 30
# failed questions in a row that stop the run: GIVE_UP, or `concurrency` if that is more; NEVER_ANSWERED before the
# first reply
GIVE_UP, NEVER_ANSWERED = 20, 3
# before the first reply, the run also stops after NEVER_LIMITED 429s of one question, which take about half a minute,
# and after NEVER_SECONDS with nothing but 429s
NEVER_LIMITED, NEVER_SECONDS = 6, 30.0


class Asking:
    """Asks the questions of an iterator, up to `config.concurrency` at a time.

    Whatever ends the run early (a wrong key, no quota, a full disk, Ctrl-C, SIGTERM), it waits for the requests in
    flight and journals their replies, because they are paid. A second Ctrl-C cancels them.
    """

    def __init__(
        self, todo: Iterator[Question], journal: Journal, config: TeacherConfig, counts: ReplyCounts,
        endpoint: ChatEndpoint,
    ) -> None:  # fmt: skip
        self.todo, self.upcoming = todo, next(todo, None)
        self.journal, self.config, self.counts, self.endpoint = journal, config, counts, endpoint
        self.parameters = request_parameters(config)
        self.pacer = Pacer(config.requests_per_minute, config.tokens_per_minute)
        self.progress = Progress(counts, config.model or "", self.pacer)
        self.workers: list[asyncio.Task[None]] = []
        self.idle: set[asyncio.Task[None]] = set()  # workers without a request in flight
        self.first_outcome = asyncio.Event()
        # maximum cost of the requests in flight: now, and its peak, which is written to the journal
        self.reserved = self.peak_reserved = 0.0
        self.overrun = 1.0  # largest cost of a reply as a multiple of its upper bound
        self.requests_sent = 0  # requests without a response yet
        self.unusable = 0  # unusable replies before the first usable one
        self.failures, self.failing_since = 0, 0.0  # failed questions in a row, and when the first of them failed
        self.rejections: list[tuple[float, Question, Exception]] = []  # in a row, with their times
        self.warned: set[type] = set()  # kinds of faults already shown
        self.stopping = self.interrupted = self.abandoned = self.cap_reached = False
        self.error: Exception | None = None  # the first one; it ends the run

    async def run(self) -> None:
        """Ask everything; raises UserError if a retry cannot help, KeyboardInterrupt after Ctrl-C."""
        loop, signals = asyncio.get_running_loop(), [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # not under nohup, which ignores it
            signals.append(signal.SIGHUP)
        async with self.endpoint:
            count = min(self.config.concurrency, self.counts.to_ask)
            self.workers = [asyncio.create_task(self._work(first=number == 0)) for number in range(count)]
            ticker = asyncio.create_task(self.progress.keep_showing())
            for number in signals:
                loop.add_signal_handler(number, self._interrupt, number)
            try:
                await asyncio.gather(*self.workers, return_exceptions=True)
            finally:
                for number in signals:
                    loop.remove_signal_handler(number)
                for task in [*self.workers, ticker]:
                    task.cancel()
                self.progress.close()
        if self.peak_reserved and not self.abandoned:
            self.journal.note({"in_flight": 0.0})
        if self.interrupted:
            raise KeyboardInterrupt
        if self.error:
            raise self.error
        if self.rejections and self.counts.accepts_parameters:
            self._settle_rejections()
        elif self.rejections:
            raise self._rejected_error()
        if self.failures and not self.counts.paid:
            raise self._down_error()
        if self.cap_reached:
            print(f"stopped below max_cost ${self.config.max_cost:g}: raise teacher.max_cost and run again to go on")

    def _interrupt(self, number: int) -> None:
        """On the first Ctrl-C or SIGTERM, finish the requests in flight; on a second Ctrl-C, abandon them."""
        if not self.interrupted:
            self.interrupted = True
            self._stop()
            self.progress.say(f"finishing {self.requests_sent} requests; Ctrl-C again abandons them, paid or not")
        elif number == signal.SIGINT:
            self.abandoned = True
            for worker in self.workers:
                worker.cancel()

    def _stop(self) -> None:
        """Take no more questions; end the workers that have no request in flight."""
        self.stopping = True
        for task in self.idle:
            task.cancel()

    async def _wait(self, event: Awaitable[object]) -> None:
        """Wait for an event; meanwhile the worker has no request in flight and can be cancelled."""
        task = asyncio.current_task()
        assert task is not None
        self.idle.add(task)
        try:
            await event
        finally:
            self.idle.discard(task)

    async def _work(self, first: bool) -> None:
        """Ask questions; all but the first worker wait for its first outcome, which shows limits or a wrong key."""
        try:
            if not first:
                with suppress(TimeoutError):
                    await self._wait(asyncio.wait_for(self.first_outcome.wait(), FIRST_SECONDS))
            while taken := self._take():
                try:
                    await self._ask(*taken)
                finally:
                    self.reserved -= taken[1]
        except Exception as error:
            self.error = self.error or error
            self.abandoned |= isinstance(error, OSError)  # a reply that could not be journaled
            self._stop()
        finally:
            self.first_outcome.set()

    def _take(self) -> tuple[Question, float] | None:
        """The next question and its maximum cost; None at the end, on a stop, or if the cap could be exceeded."""
        question = self.upcoming
        if question is None or self.stopping:
            return None
        ceiling = request_ceiling(question, self.config, self.parameters) * self.overrun
        if not self._cap_allows(ceiling):
            return None
        self.upcoming = next(self.todo, None)
        self.reserved += ceiling
        if self.reserved > self.peak_reserved:  # counted as spent by the next run if this one is killed
            self.peak_reserved = self.reserved
            self.journal.note({"in_flight": self.peak_reserved})
        return question, ceiling

    def _cap_allows(self, dollars: float) -> bool:
        """Whether the cap holds even if this and all requests in flight cost their maximum."""
        spent, cap = self.counts.cost_before + self.counts.cost, self.config.max_cost
        allowed = cap is None or spent + self.reserved + dollars <= cap + 1e-9
        self.cap_reached |= not allowed
        return allowed

    async def _ask(self, question: Question, ceiling: float) -> None:
        """Ask until there is a reply, the request is rejected, the cost cap is reached, or the tries are used up."""
        body = json.dumps(request_body(question, self.config)).encode()
        tokens = sum(len(message["content"]) for message in question.messages) // 4 + longest_reply(self.parameters)
        faults = unreadable = limited = 0
        answered = self.counts.paid
        while True:
            await self._wait(self.pacer.turn(tokens))
            sent = time.monotonic()
            self.requests_sent += 1
            try:
                response, headers = await self.endpoint.complete(body)
                self.pacer.learn(headers)
                record = read_completion(question, response, self.endpoint.address, self.config)
                record["seconds"] = round(time.monotonic() - sent, 3)
                return self._accept(record, sent, tokens, ceiling)
            except RateLimited as limit:
                self.pacer.rate_limited(sent, limit.retry_after or 0.0)
                limited += 1
                self._check_limits(limit, limited)
                others = self.upcoming is None or self.counts.paid - answered >= LIMITED
                if limited >= (LIMITED if others else ALL_LIMITED):
                    return self._fail(str(limit))
                self._warn(limit, "waiting, at most a minute each time")
                pause = limit.retry_after
                if not self.counts.paid:
                    pause = max(pause or 0.0, backoff(limited))
                elif pause is None:
                    pause = backoff(limited) / 5
            except (RequestRejected, Forbidden) as rejection:
                if isinstance(rejection, RequestRejected) and rejection.code:
                    record = make_record(question, "", rejection.code, self.config.model)
                    return self._accept(record, sent, tokens, ceiling)
                self.pacer.failed(sent)
                return self._reject(question, rejection)
            except TransientError as fault:
                self.pacer.failed(sent)
                faults, unreadable = faults + 1, unreadable + fault.billed
                if fault.billed and not self._pay_unread(ceiling, fault):
                    return None
                if faults > self.config.max_retries or unreadable >= MOST_UNREAD:
                    return self._fail(str(fault))
                self._warn(fault, "trying again")
                pause = backoff(faults)
            finally:
                self.requests_sent -= 1
                self.first_outcome.set()
            if self.stopping:  # the next run asks again
                return None
            await self._wait(asyncio.sleep(pause))

    def _accept(self, record: JournalRecord, sent: float, tokens: int, ceiling: float) -> None:
        """Journal a reply to a request sent at `sent`, for which `tokens` and `ceiling` dollars were reserved."""
        self._keep(record)
        used = sum(record["usage"].values()) or tokens
        self.pacer.answered(sent, min(1.0, used / tokens))
        if ceiling:
            self.overrun = max(self.overrun, self.overrun * record.get("cost", 0.0) / ceiling)
        # a late reply to a request sent before the endpoint began to fail does not show that it works again
        if sent >= self.failing_since:
            self.failures = 0
        if self.rejections and sent >= self.rejections[-1][0]:
            self._settle_rejections()

    def _keep(self, record: JournalRecord) -> None:
        self.journal.append(record)
        self.counts.count(record)

    def _warn(self, fault: Exception, then: str) -> None:
        """Show the endpoint's words, for the first fault of each kind."""
        if type(fault) not in self.warned and (isinstance(fault, RateLimited) or not self.counts.paid):
            self.warned.add(type(fault))
            self.progress.say(f"{self.endpoint.address}: {fault}; {then}")

    def _check_limits(self, limit: RateLimited, limited: int) -> None:
        """Raise UserError if the endpoint has answered nothing but 429s for too long."""
        seconds = time.monotonic() - self.progress.started
        too_long = seconds > NEVER_SECONDS and self.pacer.throttled > MOST_ALIKE
        if not self.counts.paid and (too_long or limited >= NEVER_LIMITED):
            raise UserError(f"{self.endpoint.address} sends only status 429: {limit}; run again later")

    def _pay_unread(self, ceiling: float, fault: TransientError) -> bool:
        """Count a request that may be billed although its reply cannot be read; return whether the cap allows more."""
        if ceiling:
            self.journal.note({"unread": ceiling})
        self.counts.count_unread(ceiling)
        self.unusable += not self.counts.paid
        if self.unusable >= MOST_ALIKE and not self.counts.paid:
            raise UserError(f"none of the first {self.unusable} replies of {self.endpoint.address} is usable: {fault}")
        return self._cap_allows(0.0)

    def _reject(self, question: Question, why: RequestRejected | Forbidden) -> None:
        """Collect a rejection; it is journaled as final once the endpoint answers a later request.

        If the endpoint is known to accept the parameters, it is also journaled at the end of the run.
        """
        self.rejections.append((time.monotonic(), question, why))
        if len(self.rejections) >= MOST_ALIKE or not self.counts.has_answer:
            raise self._rejected_error()

    def _rejected_error(self) -> UserError:
        *_, why = self.rejections[-1]
        return why if isinstance(why, Forbidden) else UserError(f"{self.endpoint.address} rejects the request: {why}")

    def _settle_rejections(self) -> None:
        """Journal the rejections as replies, so that these passages are not asked again."""
        for _, question, why in self.rejections:
            self._keep(make_record(question, str(why), "refusal", self.config.model))
            self.counts.rejected += 1
            self.counts.last_rejection = str(why)
        self.rejections.clear()

    def _fail(self, why: str) -> None:
        """Count a question without a reply; raises UserError after too many in a row."""
        self.counts.failed += 1
        self.counts.last_fault = why
        if not self.failures:
            self.failing_since = time.monotonic()
        self.failures += 1
        if self.failures >= (max(GIVE_UP, self.config.concurrency) if self.counts.paid else NEVER_ANSWERED):
            raise self._down_error()

    def _down_error(self) -> UserError:
        why = f"gave no usable answer to {self.failures} requests in a row, the last one: {self.counts.last_fault}"
        return UserError(f"{self.endpoint.address} {why}; run again to go on from here")
