"""The teacher's replies as journal records, what they cost, and the counts of a run."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NotRequired, TypedDict

from ..config import TeacherConfig
from .http_errors import TransientError, exception_of, find_error
from .parse import FINAL, PASSAGE_CODES, plain_reason
from .questions import RECORDED
from .requests import Question, address, price, request_ceiling

MOST_TOKENS = 10**9  # larger token counts in a reply's usage are ignored as nonsense


class JournalRecord(TypedDict):
    """A line of the journal: one reply of the teacher, verbatim. The journal itself adds and checks the checksum."""

    key: str
    passage_id: str
    variant: str
    reply: str
    finish_reason: str
    usage: dict[str, int]  # prompt_tokens and completion_tokens that were billed
    model: str | None  # as the endpoint names it, or the recipe, if the endpoint does not name it
    cost: NotRequired[float]  # dollars, at the prices when it was paid; a reply without it cost nothing
    address: NotRequired[str]  # of the endpoint, without credentials
    copy_of: NotRequired[str]  # key of the reply that this one repeats, asked with another limit of its length
    seconds: NotRequired[float]  # from request to reply
    time: NotRequired[str]  # UTC, ISO 8601; the journal sets it when the record is written


@dataclass
class Spent:
    """What the replies of a journal cost."""

    paid: int = 0  # number of replies that were paid for
    cost: float = 0.0  # dollars
    bound: float = 0.0  # the part of `cost` that is an upper bound, because the endpoint did not state the tokens
    addresses: Counter[str] = field(default_factory=Counter)  # completions that were paid for, by endpoint

    def add(self, record: JournalRecord) -> None:
        """Add a reply."""
        self.paid += record["model"] != RECORDED and "copy_of" not in record
        if is_completion(record):
            self.addresses[record.get("address", "")] += 1
        if "cost" in record:
            self.cost += record["cost"]
            self.bound += record_bound(record)


@dataclass
class ReplyCounts:
    """Counts of one run of the teacher, and its cost in dollars."""

    total: int = 0  # questions
    known: int = 0  # replies that were in the journal already
    recorded: int = 0  # replies from recorded files
    paid: int = 0  # number of replies that were paid for
    paid_before: int = 0  # completions at this address in the journal, if earlier runs asked this model there
    answered_before: bool = False  # whether this address has completed one of the `known` questions
    failed: int = 0  # questions without a reply after all retries
    rejected: int = 0  # passages that the endpoint rejects for good; the rejections count as replies
    unanswered: Counter[str] = field(default_factory=Counter)  # questions still without a reply, by variant
    prompt_tokens: int = 0
    reply_tokens: int = 0
    cost: float = 0.0
    cost_before: float = 0.0  # dollars spent before this run, by the journal
    bound: float = 0.0  # the part of `cost` and `cost_before` that is an upper bound, not the exact cost
    last_fault: str = ""  # why the last failed question got no reply
    last_rejection: str = ""  # why the endpoint rejected the last rejected passage

    @property
    def has_answer(self) -> bool:
        """Whether the endpoint has answered a question of this run, now or before, or this model in earlier runs."""
        return bool(self.paid or self.paid_before or self.known)

    @property
    def accepts_parameters(self) -> bool:
        """Whether the endpoint has answered with these parameters, so that a rejection is about its passage.

        Completions of `known` questions were asked with the same parameters, those of `paid_before` perhaps with
        others. The latter are enough to go on after the first rejection, since the questions that are known may come
        later.
        """
        return bool(self.paid or self.answered_before)

    @property
    def missing(self) -> int:
        """Number of questions that still have no reply."""
        return sum(number for number in self.unanswered.values() if number > 0)

    @property
    def to_ask(self) -> int:
        """Number of questions for the teacher; a question counts until its reply is found in the journal or a file."""
        return self.total - self.known - self.recorded

    def __str__(self) -> str:
        taken = f"{self.known + self.recorded} replies came from the journal and recorded files"
        paid = f"{self.paid} were paid for (${self.cost:.4f})" if self.paid or self.cost else "nothing was paid"
        paid += f", ${self.cost_before:.4f} in earlier runs" if self.cost_before else ""
        paid += f" (${self.bound:.4f} of it is an upper bound: unread replies, unstated tokens)" if self.bound else ""
        rejected = f"; {self.rejected} rejected by the endpoint, the last one: {self.last_rejection}"
        rest = rejected if self.rejected else ""
        rest += f"; {self.failed} failed, the last one: {self.last_fault}" if self.failed else ""
        rest += "".join(f"; {n} passages have no {variant} reply" for variant, n in self.unanswered.items() if n > 0)
        return f"{taken}, {paid}{rest}"

    def count(self, record: JournalRecord) -> None:
        """Add a reply that was just paid for."""
        self.paid += 1
        self.unanswered[record["variant"]] -= 1
        self.prompt_tokens += record["usage"]["prompt_tokens"]
        self.reply_tokens += record["usage"]["completion_tokens"]
        self.cost += record.get("cost", 0.0)
        self.bound += record_bound(record)

    def count_unread(self, dollars: float) -> None:
        """Add the maximum cost of requests that may be billed although their replies cannot be read."""
        self.cost += dollars
        self.bound += dollars


def read_completion(question: Question, response: Any, url: str, config: TeacherConfig) -> JournalRecord:
    """Turn the JSON of a chat completion into a journal record, with the finish reason of `plain_reason`.

    Raises the exceptions of `exception_of` for an error in the body, and TransientError for anything else that is not
    an answer to the passage, such as an empty completion. A TransientError is marked as billed.
    """
    body = response if isinstance(response, dict) else {}
    choices, usage, model = body.get("choices"), body.get("usage"), body.get("model")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    message, given, fault = choice.get("message"), choice.get("finish_reason"), ""
    finish_reason = plain_reason("stop" if given is None else str(given))
    if not isinstance(message, dict):
        message, fault = {}, "" if finish_reason == "content_filter" else f"not a chat completion: {response!r:.2000}"
    finish_reason = "refusal" if message.get("refusal") else finish_reason
    reply = message.get("content") or message.get("refusal") or ""
    if isinstance(reply, list):  # a list of parts, some of which may be the model's thoughts
        texts = [part.get("text") for part in reply if isinstance(part, dict) and part.get("type", "text") == "text"]
        reply = "".join(text for text in texts if isinstance(text, str))
    if not isinstance(reply, str):
        fault = f"the content of the completion is not text: {reply!r:.2000}"
    elif finish_reason == "endpoint_error":
        fault = f"the completion ended with {given!r}"
    elif not fault and not reply.strip() and finish_reason not in (*FINAL, "length"):
        thoughts = " after reasoning" if message.get("reasoning_content") or message.get("reasoning") else ""
        fault = f"the completion is empty{thoughts}, finish_reason {given!r}"
    if fault:
        # the code of an error in a response with status 200 may be the status of an HTTP error
        error = choice.get("error") or body.get("error") or fault
        found, number = find_error(error), str(error.get("code") if isinstance(error, dict) else "")
        status = int(number) if number.isdecimal() else 400 if found[0] in PASSAGE_CODES else 0
        why = exception_of(status, found, {}, url, config)
        if isinstance(why, TransientError):
            why.billed = True
        raise why
    usage = usage if isinstance(usage, dict) else {}
    used = {"prompt_tokens": 0, "completion_tokens": 0}
    for name in ("prompt_tokens", "completion_tokens"):
        count = usage.get(name)
        if isinstance(count, int | float) and 0 <= count < MOST_TOKENS:  # ignore inf and NaN, but keep the paid reply
            used[name] = int(count)
    served = model if isinstance(model, str) and model else config.model  # some servers do not name the model
    record = make_record(question, reply, finish_reason, served, used)
    total = usage.get("total_tokens")
    if isinstance(total, int | float) and 0 <= total < MOST_TOKENS:  # thoughts may be missing in completion_tokens
        used["completion_tokens"] = max(used["completion_tokens"], int(total) - used["prompt_tokens"])
    record["cost"] = reply_cost(question, record, config)
    record["address"] = address(config)
    return record


def reply_cost(question: Question, record: JournalRecord, config: TeacherConfig) -> float:
    """Dollars of a completion at the recipe's prices; its upper bound if the endpoint did not state the tokens."""
    return price(**record["usage"], config=config) if _states_tokens(record) else request_ceiling(question, config)


def make_record(
    question: Question, reply: str, finish_reason: str, model: str | None, usage: dict[str, int] | None = None
) -> JournalRecord:
    """Build the journal record of one reply; without `usage` it cost nothing."""
    return {
        "key": question.key, "passage_id": question.passage_id, "variant": question.variant, "reply": reply,
        "finish_reason": finish_reason, "usage": usage or {"prompt_tokens": 0, "completion_tokens": 0}, "model": model,
    }  # fmt: skip


def is_completion(record: JournalRecord) -> bool:
    """Whether the endpoint completed this request itself: no rejection, recorded reply or copy."""
    return "address" in record and "copy_of" not in record


def is_rejection(record: JournalRecord) -> bool:
    """Whether the endpoint rejected the request, because of its passage or of its parameters."""
    return "address" not in record and record["finish_reason"] in FINAL


def record_bound(record: JournalRecord) -> float:
    """The cost of a reply if it is an upper bound, because the endpoint did not state its tokens."""
    return 0.0 if _states_tokens(record) else record.get("cost", 0.0)


def _states_tokens(record: JournalRecord) -> bool:
    usage, short = record["usage"], len(record["reply"]) < 16  # the tokens of a reply such as [] may be stated as 0
    return usage["prompt_tokens"] > 0 and (usage["completion_tokens"] > 0 or short)
