"""Passages to the journal: recorded answers at no cost, everything else from an OpenAI-compatible endpoint."""

import asyncio
import os
import random
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from open_ner.cli import UserError

from .config import TeacherConfig
from .journal import Journal
from .pacing import Pacer
from .passages import Passage, text_sha256
from .questions import RECORDED, Question, load_recorded, questions, request_parameters

FINAL_REFUSALS = ("content_filter", "context_length_exceeded")  # codes of a 400 that is about one passage alone
PLAIN_LINE_SECONDS = 15.0  # between progress lines where the output is no terminal


@dataclass
class Tally:
    """What a run of the teacher did. `known` were in the journal already, `unanswered` still are not; costs in $."""

    known: int = 0
    recorded: int = 0
    asked: int = 0
    failed: int = 0
    unanswered: dict[str, int] = field(default_factory=dict)
    prompt_tokens: int = 0
    reply_tokens: int = 0
    cost: float = 0.0
    cost_before: float = 0.0

    def __str__(self) -> str:
        taken = f"{self.known + self.recorded} answers came from the journal and recorded files"
        paid = f"{self.asked} were paid for (${self.cost:.4f})" if self.asked else "nothing was paid"
        paid += f", ${self.cost_before:.4f} in earlier runs" if self.cost_before else ""
        rest = f"; {self.failed} failed" if self.failed else ""
        rest += "".join(f"; {n} passages have no {variant} answer" for variant, n in self.unanswered.items())
        return f"{taken}, {paid}{rest}"


def annotate(passages: Iterable[Passage], journal: Journal, config: TeacherConfig, most: int | None = None) -> Tally:
    """Bring the journal up to date for these passages; resumable at any point, nothing is paid twice.

    `most` bounds the questions asked, a seeded sample of those that are open: the pilot of a dry run.
    """
    tally, recorded = Tally(), load_recorded(config)
    journaled = {}  # a recorded answer may be corrected in its file; what was paid for never changes
    for record in journal.records():
        tally.cost_before += record_cost(record, config)
        if recorded and record["model"] == RECORDED:
            journaled[record["key"]] = {name: record[name] for name in ("reply", "finish_reason")}
    open_questions: dict[str, Question] = {}
    for question in questions(passages, config):
        answer = recorded.get((question.variant, text_sha256(question.passage.text)))
        corrected = answer and journaled.get(question.key, answer) != answer
        if (question.key in journal.keys and not corrected) or question.key in open_questions:
            tally.known += 1
        elif answer:
            usage = {"prompt_tokens": 0, "completion_tokens": 0}
            journal.append(make_record(question, answer["reply"], answer["finish_reason"], usage, RECORDED))
            tally.recorded += 1
        else:
            open_questions[question.key] = question
    if config.model and open_questions:
        todo = list(open_questions.values())
        if most is not None and most < len(todo):
            todo = random.Random(0).sample(todo, most)
        if config.batch and most is None:
            from .batch_api import annotate_batch

            annotate_batch(todo, journal, config, journal.path.parent / "batches", tally, config.batch_poll_seconds)
        else:
            asyncio.run(_Asking(todo, journal, config, tally).run())
    tally.unanswered = dict(Counter(q.variant for key, q in open_questions.items() if key not in journal.keys))
    return tally


def estimate(passages: Iterable[Passage], journal: Journal, config: TeacherConfig) -> tuple[int, float]:
    """Requests still to be sent, and an upper bound of their cost in dollars."""
    recorded = load_recorded(config)
    todo = {
        question.key: question
        for question in questions(passages, config)
        if question.key not in journal.keys and (question.variant, text_sha256(question.passage.text)) not in recorded
    }
    return len(todo), sum(request_ceiling(question, config) for question in todo.values())


def extrapolate(journal: Journal, config: TeacherConfig, remaining: int) -> tuple[float, float]:
    """Expected dollars of the remaining requests and half the width of its 95 % interval, from the paid answers."""
    costs = [record_cost(record, config) for record in journal.records() if record["model"] != RECORDED]
    if not costs:
        return 0.0, 0.0
    mean = sum(costs) / len(costs)
    spread = (sum((cost - mean) ** 2 for cost in costs) / max(1, len(costs) - 1)) ** 0.5
    # of a sum of `remaining` draws around a mean that is itself estimated
    return remaining * mean, 1.96 * spread * (remaining + remaining**2 / len(costs)) ** 0.5


class _Asking:
    """One run of questions against an endpoint: workers, pacing, budget, progress, interruption."""

    def __init__(self, todo: list[Question], journal: Journal, config: TeacherConfig, tally: Tally) -> None:
        self.todo, self.total = deque(todo), len(todo)
        self.journal, self.config, self.tally = journal, config, tally
        self.pacer = Pacer(config.requests_per_minute, config.tokens_per_minute)
        self.in_flight: dict[str, float] = {}
        self.interrupted = False
        self.first_answer = asyncio.Event()

    async def run(self) -> None:
        """Ask everything; raises UserError for what no retry can mend, KeyboardInterrupt after Ctrl-C."""
        import openai

        key = os.environ.get(self.config.api_key_env)
        if not key:
            raise UserError(
                f"{self.total} answers are to be asked and ${self.config.api_key_env} holds no key: set it"
            )
        self.progress = _Progress(self)
        # aiohttp's pool stays fast with many connections; the client's own retries pay for answers nobody records
        transport = openai.DefaultAioHttpClient(event_hooks={"response": [self._learn]}, timeout=self.config.timeout)
        client = openai.AsyncOpenAI(
            api_key=key,
            base_url=self.config.base_url,
            max_retries=0,
            timeout=self.config.timeout,
            http_client=transport,
        )
        async with client:
            count = min(self.config.concurrency, self.total)
            workers = [asyncio.create_task(self._work(client, first=number == 0)) for number in range(count)]
            ticker = asyncio.create_task(self.progress.keep_showing())
            self._catch_interrupts(workers)
            try:
                await asyncio.gather(*workers)
            except asyncio.CancelledError:
                raise KeyboardInterrupt from None
            finally:
                for task in [*workers, ticker]:
                    task.cancel()
                self.progress.close()
        if self.interrupted:
            raise KeyboardInterrupt
        if self.tally.failed and not self.tally.asked:
            where = self.config.base_url or "the endpoint"
            raise UserError(f"{where} gave no usable answer to {self.tally.failed} requests")
        if self.todo:
            print(f"stopped below max_cost ${self.config.max_cost}: raise teacher.max_cost and run again to go on")

    def _catch_interrupts(self, workers: list[asyncio.Task]) -> None:
        """Ctrl-C once: finish what is in flight. Twice: stop at once."""

        def stop() -> None:
            if self.interrupted:
                for worker in workers:
                    worker.cancel()
                return
            self.interrupted = True
            print(f"\nfinishing {len(self.in_flight)} requests in flight; Ctrl-C again stops at once", file=sys.stderr)

        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop)

    async def _learn(self, response: Any) -> None:
        self.pacer.learn(response.headers)

    async def _work(self, client: Any, first: bool) -> None:
        """Ask question after question. One worker goes ahead: its answer shows the limits, a wrong key or model."""
        if not first:
            await self.first_answer.wait()
        try:
            while self.todo and not self.interrupted and self._affordable(self.todo[0]):
                question = self.todo.popleft()
                self.in_flight[question.key] = request_ceiling(question, self.config)
                try:
                    await self._ask(client, question)
                finally:
                    del self.in_flight[question.key]
                    self.first_answer.set()
        finally:
            self.first_answer.set()

    def _affordable(self, question: Question) -> bool:
        """Whether the cap holds even if this request and all in flight cost the most they can.

        Near the cap workers leave one by one, and the last ones go on as long as what is left suffices.
        """
        if self.config.max_cost is None:
            return True
        spent = self.tally.cost_before + self.tally.cost + sum(self.in_flight.values())
        return spent + request_ceiling(question, self.config) <= self.config.max_cost

    async def _ask(self, client: Any, question: Question) -> None:
        """Ask until answered, a fault that will not pass, or out of tries."""
        import openai

        body = {"model": self.config.model, "messages": question.messages, **request_parameters(self.config)}
        tokens = sum(len(message["content"]) for message in question.messages) // 4 + self.config.max_answer_tokens
        faults = 0
        while True:
            await self.pacer.turn(tokens)
            try:
                # the typed `chat.completions.create` builds models of every field, at several times the CPU
                response = await client.post("/chat/completions", body=body, cast_to=object)
                record = read_completion(question, response)
            except openai.RateLimitError as error:
                if getattr(error, "code", None) == "insufficient_quota":
                    raise UserError(f"the account's quota is used up: {error}") from None
                self.pacer.refuse(_retry_after(error))  # no failure: wait and ask again
                continue
            except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
                raise UserError(f"the endpoint refuses model {self.config.model!r} or the key: {error}") from None
            except openai.BadRequestError as error:
                if error.code not in FINAL_REFUSALS:
                    raise UserError(f"the endpoint rejects the request: {error}") from None
                # this passage will never be answered: that is its answer, and the others go on
                nothing = {"prompt_tokens": 0, "completion_tokens": 0}
                record = make_record(question, "", error.code, nothing, self.config.model)
            except (openai.APIError, ValueError):  # a fault that may pass, or a body that is no completion
                faults += 1
                if faults > self.config.max_retries:
                    self.tally.failed += 1
                    return
                await asyncio.sleep(_backoff(faults))
                continue
            break
        self.journal.append(record)
        self.pacer.answered()
        count_answer(self.tally, record, self.config)


class _Progress:
    """A bar on a terminal, a plain line now and then elsewhere: done, failed, tokens, cost, rate, time left."""

    def __init__(self, asking: _Asking) -> None:
        self.asking, self.started = asking, time.monotonic()
        self.terminal = sys.stderr.isatty()
        self.bar = tqdm(total=asking.total, unit=" answers", desc=asking.config.model, disable=not self.terminal)

    async def keep_showing(self) -> None:
        """Renew the display until cancelled."""
        while True:
            await asyncio.sleep(0.5 if self.terminal else PLAIN_LINE_SECONDS)
            self.show()

    def show(self) -> None:
        """Show where the run stands."""
        tally, waiting = self.asking.tally, self.asking.pacer.waiting
        tokens = tally.prompt_tokens + tally.reply_tokens
        state = f"{tokens:,} tokens, ${tally.cost_before + tally.cost:.4f}, {tally.failed} failed"
        state += f", {self.asking.pacer.refused} times over the rate limit" if self.asking.pacer.refused else ""
        state += f", waiting {waiting:.0f} s" if waiting > 2 else ""
        if self.terminal:
            self.bar.set_postfix_str(state, refresh=False)
            self.bar.update(tally.asked + tally.failed - self.bar.n)
            return
        done = tally.asked + tally.failed
        rate = done / max(1e-9, time.monotonic() - self.started)
        left = f"{(self.asking.total - done) / rate:.0f} s left" if rate else "no answer yet"
        print(f"{done}/{self.asking.total} answers, {rate:.1f} a second, {left}; {state}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Show the end."""
        self.show()
        self.bar.close()


def read_completion(question: Question, response: Any) -> dict[str, Any]:
    """The journal record of a chat completion's JSON; raises ValueError for anything else."""
    try:
        choice = response["choices"][0]
        message, usage = choice["message"], response.get("usage") or {}
        refusal = message.get("refusal")
        reply = message.get("content") or refusal or ""
        used = {name: int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")}
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"no chat completion: {error!r}") from None
    if not isinstance(reply, str):
        raise ValueError("the content of the completion is no text")
    finish = "refusal" if refusal else choice.get("finish_reason") or "stop"
    return make_record(question, reply, finish, used, response.get("model"))


def make_record(
    question: Question, reply: str, finish_reason: str, usage: dict[str, int], model: str | None
) -> dict[str, Any]:
    """A journal record of one answer."""
    return {
        "key": question.key,
        "passage_id": question.passage.id,
        "variant": question.variant,
        "reply": reply,
        "finish_reason": finish_reason,
        "usage": usage,
        "model": model,
    }


def count_answer(tally: Tally, record: dict[str, Any], config: TeacherConfig) -> None:
    """Add a paid answer to the tally."""
    tally.asked += 1
    tally.prompt_tokens += record["usage"]["prompt_tokens"]
    tally.reply_tokens += record["usage"]["completion_tokens"]
    tally.cost += record_cost(record, config)


def record_cost(record: dict[str, Any], config: TeacherConfig) -> float:
    """Dollars a journaled answer cost at the recipe's prices; 0 for a recorded one."""
    return _price(record["usage"]["prompt_tokens"], record["usage"]["completion_tokens"], config)


def request_ceiling(question: Question, config: TeacherConfig) -> float:
    """The most a request can cost: no tokenizer makes more tokens than bytes, and the reply at its longest."""
    size = sum(len(message["content"].encode("utf-8", "surrogatepass")) for message in question.messages)
    return _price(size + 16, config.max_answer_tokens, config)


def _price(prompt_tokens: int, reply_tokens: int, config: TeacherConfig) -> float:
    return (prompt_tokens * config.price_input + reply_tokens * config.price_output) / 1e6


def _retry_after(error: Any) -> float | None:
    try:
        return float(error.response.headers["retry-after"])
    except (KeyError, ValueError):
        return None


def _backoff(faults: int) -> float:
    return min(30.0, 0.5 * 2**faults) * (0.5 + random.random())
