"""The teacher's replies as journal records, what they cost, and the counts of a run."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NotRequired, TypedDict

from ..config import TeacherConfig
from .requests import Question, price


class Usage(TypedDict):
    """Tokens that a reply was billed for."""

    prompt_tokens: int
    completion_tokens: int


class JournalRecord(TypedDict):
    """A line of the journal: one reply of the teacher, verbatim. The journal itself adds and checks the checksum."""

    key: str
    passage_id: str
    variant: str
    reply: str
    finish_reason: str
    usage: Usage
    model: str | None  # as the endpoint names it
    seconds: NotRequired[float]  # from request to reply
    time: NotRequired[str]  # UTC, ISO 8601; the journal sets it when the record is written


@dataclass
class ReplyCounts:
    """Counts of one run of the teacher, and its cost in dollars."""

    total: int = 0  # questions
    known: int = 0  # replies that were in the journal already
    recorded: int = 0  # replies from recorded files
    asked: int = 0  # replies paid for
    failed: int = 0  # questions without a reply after all retries
    unanswered: Counter[str] = field(default_factory=Counter)  # questions still without a reply, by variant
    prompt_tokens: int = 0
    reply_tokens: int = 0
    cost: float = 0.0
    cost_before: float = 0.0  # of the replies that were in the journal already
    last_fault: str = ""  # why the last failed question got no reply

    @property
    def to_ask(self) -> int:
        """Questions that the teacher must be asked, as far as they have been read: the others count."""
        return self.total - self.known - self.recorded

    def __str__(self) -> str:
        taken = f"{self.known + self.recorded} replies came from the journal and recorded files"
        paid = f"{self.asked} were paid for (${self.cost:.4f})" if self.asked else "nothing was paid"
        paid += f", ${self.cost_before:.4f} in earlier runs" if self.cost_before else ""
        rest = f"; {self.failed} failed, the last one: {self.last_fault}" if self.failed else ""
        rest += "".join(f"; {n} passages have no {variant} reply" for variant, n in self.unanswered.items() if n > 0)
        return f"{taken}, {paid}{rest}"

    def count(self, record: JournalRecord, config: TeacherConfig) -> None:
        """Add a reply that was just paid for."""
        self.asked += 1
        self.unanswered[record["variant"]] -= 1
        self.prompt_tokens += record["usage"]["prompt_tokens"]
        self.reply_tokens += record["usage"]["completion_tokens"]
        self.cost += record_cost(record, config)


def read_completion(question: Question, response: Any) -> JournalRecord:
    """Turn the JSON of a chat completion into a journal record; raises ValueError if it is anything else."""
    choices = response.get("choices") if isinstance(response, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise ValueError(f"not a chat completion: {response!r:.100}")
    refusal = message.get("refusal")
    reply = message.get("content") or refusal or ""
    if not isinstance(reply, str):
        raise ValueError(f"the content of the completion is not text: {reply!r:.100}")
    finish_reason = "refusal" if refusal else choice.get("finish_reason") or "stop"
    usage = response.get("usage") or {}
    if not isinstance(usage, dict):
        raise ValueError(f"the usage of the completion is not an object: {usage!r:.100}")
    used: Usage = {"prompt_tokens": 0, "completion_tokens": 0}
    for name in ("prompt_tokens", "completion_tokens"):
        count = usage.get(name) or 0
        if not isinstance(count, int) and not (isinstance(count, float) and count.is_integer()):
            raise ValueError(f"{name} of the completion is not a count: {count!r:.100}")
        used[name] = int(count)
    return make_record(question, reply, finish_reason, response.get("model"), used)


def make_record(
    question: Question, reply: str, finish_reason: str, model: str | None, usage: Usage | None = None
) -> JournalRecord:
    """Build the journal record of one reply; without `usage` it cost nothing."""
    return {
        "key": question.key,
        "passage_id": question.passage_id,
        "variant": question.variant,
        "reply": reply,
        "finish_reason": finish_reason,
        "usage": usage or {"prompt_tokens": 0, "completion_tokens": 0},
        "model": model,
    }


def record_cost(record: JournalRecord, config: TeacherConfig) -> float:
    """Dollars that a journaled reply cost at the recipe's prices; 0 for a recorded one."""
    return price(record["usage"]["prompt_tokens"], record["usage"]["completion_tokens"], config)
