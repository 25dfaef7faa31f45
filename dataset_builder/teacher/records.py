"""The teacher's answers as journal records, and what they cost."""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NotRequired, TypedDict

from ..config import TeacherConfig
from .questions import Question, longest_reply, request_parameters

# codes of a refusal that is about one passage alone: that is its answer, and it is not asked again
FINAL_REFUSALS = ("content_filter", "context_length_exceeded")
NO_USAGE = {"prompt_tokens": 0, "completion_tokens": 0}
MARKERS = 16  # tokens with which an endpoint wraps two messages; the usual chat formats need 10


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
    """What a run of the teacher did. `known` were in the journal already, `unanswered` still are not; costs in $."""

    known: int = 0
    recorded: int = 0
    asked: int = 0
    failed: int = 0
    unanswered: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    reply_tokens: int = 0
    cost: float = 0.0
    cost_before: float = 0.0
    last_fault: str = ""

    def __str__(self) -> str:
        taken = f"{self.known + self.recorded} answers came from the journal and recorded files"
        paid = f"{self.asked} were paid for (${self.cost:.4f})" if self.asked else "nothing was paid"
        paid += f", ${self.cost_before:.4f} in earlier runs" if self.cost_before else ""
        rest = f"; {self.failed} failed, the last one: {self.last_fault}" if self.failed else ""
        rest += "".join(f"; {n} passages have no {variant} answer" for variant, n in self.unanswered.items() if n > 0)
        return f"{taken}, {paid}{rest}"

    def count(self, record: dict[str, Any], config: TeacherConfig) -> None:
        """Add an answer that was just paid for."""
        self.asked += 1
        self.unanswered[record["variant"]] -= 1
        self.prompt_tokens += record["usage"]["prompt_tokens"]
        self.reply_tokens += record["usage"]["completion_tokens"]
        self.cost += record_cost(record, config)


def read_completion(question: Question, response: Any) -> dict[str, Any]:
    """The journal record of a chat completion's JSON; raises ValueError for anything else."""
    try:
        choice = response["choices"][0]
        message, usage = choice["message"], response.get("usage") or {}
        refusal = message.get("refusal")
        reply = message.get("content") or refusal or ""
        used = {name: int(usage.get(name) or 0) for name in NO_USAGE}
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


def record_cost(record: dict[str, Any], config: TeacherConfig) -> float:
    """Dollars a journaled answer cost at the recipe's prices; 0 for a recorded one."""
    return _price(record["usage"]["prompt_tokens"], record["usage"]["completion_tokens"], config)


def request_ceiling(question: Question, config: TeacherConfig, parameters: dict[str, Any] | None = None) -> float:
    """The most a request can cost: no tokenizer makes more tokens than bytes, and the reply at its longest.

    `parameters` are those it was sent with, where they are not the recipe's of today.
    """
    parameters = parameters or request_parameters(config)
    size = sum(len(message["content"].encode("utf-8", "surrogatepass")) for message in question.messages)
    schema = len(json.dumps(parameters["response_format"])) if "response_format" in parameters else 0
    return _price(size + schema + MARKERS, longest_reply(parameters), config)


def _price(prompt_tokens: int, reply_tokens: int, config: TeacherConfig) -> float:
    return (prompt_tokens * config.price_input + reply_tokens * config.price_output) / 1e6
