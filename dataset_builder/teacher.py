"""Passages to the journal: recorded answers at no cost, everything else from an OpenAI-compatible endpoint."""

import asyncio
import gzip
import hashlib
import json
import os
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from open_ner.cli import UserError

from .config import TeacherConfig
from .journal import Journal, request_key
from .passages import Passage, text_sha256

PROMPTS = Path(__file__).parent / "prompts"
RECORDED = "recorded"
FINAL_REFUSALS = ("content_filter", "context_length_exceeded")  # codes of a 400 that is about one passage alone


@dataclass
class Question:
    """One prompt about one passage, with its journal key."""

    key: str
    variant: str
    passage: Passage
    messages: list[dict[str, str]]


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


@cache
def _template(variant: str) -> Any:
    from jinja2 import Environment

    return Environment(autoescape=False).from_string((PROMPTS / f"{variant}.jinja").read_text(encoding="utf-8"))


def build_messages(variant: str, passage: str) -> list[dict[str, str]]:
    """System and user message of a prompt; the passage is data and stands in the user message alone."""
    template = _template(variant)
    context = template.new_context({"passage": passage})
    return [{"role": role, "content": "".join(template.blocks[role](context))} for role in ("system", "user")]


def prompt_hash(variant: str) -> str:
    """First 16 hex digits of the SHA-256 of a prompt's messages around an empty passage."""
    return hashlib.sha256(json.dumps(build_messages(variant, "")).encode()).hexdigest()[:16]


def questions(passages: Iterable[Passage], config: TeacherConfig) -> Iterator[Question]:
    """Every prompt of the recipe for every passage."""
    parameters = {"temperature": config.temperature, "max_tokens": config.max_answer_tokens}
    for passage in passages:
        for variant in config.variants:
            messages = build_messages(variant, passage.text)
            yield Question(request_key(config.model or RECORDED, parameters, messages), variant, passage, messages)


def annotate(passages: Iterable[Passage], journal: Journal, config: TeacherConfig) -> Tally:
    """Bring the journal up to date for these passages; resumable at any point, nothing is paid twice."""
    tally = Tally(cost_before=sum(record_cost(record, config) for record in journal.records()))
    recorded = load_recorded(config)
    # a recorded answer may be corrected in its file; what was paid for never changes
    journaled = {}
    if recorded:
        records = (record for record in journal.records() if record["model"] == RECORDED)
        journaled = {record["key"]: {name: record[name] for name in ("reply", "finish_reason")} for record in records}
    open_questions: dict[str, Question] = {}
    for question in questions(passages, config):
        answer = recorded.get((question.variant, text_sha256(question.passage.text)))
        corrected = answer and journaled.get(question.key, answer) != answer
        if (question.key in journal.keys and not corrected) or question.key in open_questions:
            tally.known += 1
        elif answer:
            usage = {"prompt_tokens": 0, "completion_tokens": 0}
            journal.append(_record(question, answer["reply"], answer["finish_reason"], usage, RECORDED))
            tally.recorded += 1
        else:
            open_questions[question.key] = question
    if config.model:
        asyncio.run(_ask_all(list(open_questions.values()), journal, config, tally))
    tally.unanswered = dict(Counter(q.variant for key, q in open_questions.items() if key not in journal.keys))
    return tally


def estimate(passages: Iterable[Passage], journal: Journal, config: TeacherConfig) -> tuple[int, float]:
    """Requests still to be sent, and a cautious guess of their cost in dollars."""
    recorded = load_recorded(config)
    todo = [
        question
        for question in questions(passages, config)
        if question.key not in journal.keys and (question.variant, text_sha256(question.passage.text)) not in recorded
    ]
    return len(todo), sum(_ceiling(question, config) for question in todo)


def load_recorded(config: TeacherConfig) -> dict[tuple[str, str], dict[str, str]]:
    """Recorded answers by `(variant, text_sha256)`."""
    files = {"type": config.recorded} if isinstance(config.recorded, str) else config.recorded or {}
    answers = {}
    for variant, name in files.items():
        path = Path(name)
        if not path.exists():
            raise UserError(f"{path}: no such file of recorded answers: set teacher.recorded")
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    row = json.loads(line)
                    answers[variant, row["text_sha256"]] = {key: row[key] for key in ("reply", "finish_reason")}
                except (ValueError, KeyError, TypeError) as error:
                    raise UserError(f"{path}: line {number} is no recorded answer: {error!r:.100}") from None
    return answers


async def _ask_all(todo: list[Question], journal: Journal, config: TeacherConfig, tally: Tally) -> None:
    """Workers take questions from one queue; each answer is in the journal before the next is asked."""
    import openai
    from tqdm import tqdm

    key = os.environ.get(config.api_key_env)
    if not todo:
        return
    if not key:
        raise UserError(f"{len(todo)} answers are to be asked and ${config.api_key_env} holds no key: set it")
    queue = iter(todo)
    in_flight: dict[str, float] = {}
    bar = tqdm(total=len(todo), unit=" answers", desc=f"asking {config.model}")
    # the client's own retries are off: they pay for answers that nobody records
    client = openai.AsyncOpenAI(api_key=key, base_url=config.base_url, max_retries=0, timeout=config.timeout)
    capped = False

    async def work() -> None:
        nonlocal capped
        for question in queue:
            ceiling = _ceiling(question, config)
            spent = tally.cost_before + tally.cost + sum(in_flight.values())
            if config.max_cost is not None and spent + ceiling > config.max_cost:
                capped = True
                return
            in_flight[question.key] = ceiling
            try:
                await _ask(client, question, journal, config, tally)
            finally:
                del in_flight[question.key]
            bar.update()
            bar.set_postfix_str(f"${tally.cost:.4f}, {tally.failed} failed")

    async with client:
        workers = [asyncio.create_task(work()) for _ in range(min(config.concurrency, len(todo)))]
        try:
            await asyncio.gather(*workers)
        except BaseException:
            for worker in workers:
                worker.cancel()
            raise
        finally:
            bar.close()
    if tally.failed and not tally.asked:
        raise UserError(f"{config.base_url or 'the endpoint'} gave no usable answer to {tally.failed} requests")
    if capped:
        print(f"stopped below max_cost ${config.max_cost}: raise teacher.max_cost and run again to go on")


async def _ask(client: Any, question: Question, journal: Journal, config: TeacherConfig, tally: Tally) -> None:
    """Ask until answered, a fault that will not pass, or out of tries; counts into the tally."""
    import openai

    attempt = 0
    while True:
        try:
            response = await client.chat.completions.create(
                model=config.model,
                messages=question.messages,
                temperature=config.temperature,
                max_tokens=config.max_answer_tokens,
            )
            choice, usage = response.choices[0], response.usage
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise UserError(f"the endpoint refuses model {config.model!r} or the key: {error}") from None
        except openai.BadRequestError as error:
            if error.code not in FINAL_REFUSALS:
                raise UserError(f"the endpoint rejects the request: {error}") from None
            # this passage will never be answered: that is its answer, and the others go on
            usage = {"prompt_tokens": 0, "completion_tokens": 0}
            journal.append(_record(question, "", error.code, usage, config.model))
            tally.asked += 1
            return
        except openai.RateLimitError as error:
            if getattr(error, "code", None) == "insufficient_quota":
                raise UserError(f"the account's quota is used up: {error}") from None
            await asyncio.sleep(_retry_after(error) or _backoff(attempt))
            attempt = min(attempt + 1, 6)  # a rate limit is no failure: wait and ask again
            continue
        except (
            openai.APIError,
            AttributeError,
            IndexError,
            TypeError,
            ValueError,
        ):  # a fault, or a body that is no completion
            attempt += 1
            if attempt > config.max_retries:
                tally.failed += 1
                return
            await asyncio.sleep(_backoff(attempt))
            continue
        break
    used = {
        "prompt_tokens": getattr(usage, "prompt_tokens", 0) or 0,
        "completion_tokens": getattr(usage, "completion_tokens", 0) or 0,
    }
    finish = "refusal" if getattr(choice.message, "refusal", None) else choice.finish_reason or "stop"
    reply = choice.message.content or getattr(choice.message, "refusal", None) or ""
    journal.append(_record(question, reply, finish, used, response.model))
    tally.asked += 1
    tally.prompt_tokens += used["prompt_tokens"]
    tally.reply_tokens += used["completion_tokens"]
    tally.cost += _price(used["prompt_tokens"], used["completion_tokens"], config)


def _record(question: Question, reply: str, finish: str, usage: dict[str, int], model: str | None) -> dict[str, Any]:
    return {
        "key": question.key,
        "passage_id": question.passage.id,
        "variant": question.variant,
        "reply": reply,
        "finish_reason": finish,
        "usage": usage,
        "model": model,
    }


def record_cost(record: dict[str, Any], config: TeacherConfig) -> float:
    """Dollars a journaled answer cost at the recipe's prices; 0 for a recorded one."""
    return _price(record["usage"]["prompt_tokens"], record["usage"]["completion_tokens"], config)


def _price(prompt_tokens: int, reply_tokens: int, config: TeacherConfig) -> float:
    return (prompt_tokens * config.price_input + reply_tokens * config.price_output) / 1e6


def _ceiling(question: Question, config: TeacherConfig) -> float:
    """The most a request can cost: no tokenizer makes more tokens than bytes, and the reply at its longest."""
    size = sum(len(message["content"].encode("utf-8", "surrogatepass")) for message in question.messages)
    return _price(size + 16, config.max_answer_tokens, config)


def _retry_after(error: Any) -> float | None:
    try:
        return float(error.response.headers["retry-after"])
    except (KeyError, ValueError):
        return None


def _backoff(attempt: int) -> float:
    return min(30.0, 0.5 * 2**attempt) * (0.5 + random.random())
