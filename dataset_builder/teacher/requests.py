"""A question as it is sent: its messages with the recipe's parameters, its journal key, and the most it can cost."""

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from command_line.public import public_url
from open_ner.conversation import Message
from open_ner.tools.errors import UserError

from ..config import TeacherConfig

Parameters = dict[str, Any]  # of a request, as JSON; the recipe may add any
LIMITS = ("max_tokens", "max_completion_tokens")
WRAPPING_TOKENS = 16  # more than the 10 or so tokens that a chat format adds around two messages


def _object_schema(**properties: Any) -> Any:
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


def entities_schema(types: Collection[str] = ()) -> Any:
    """The schema of a reply in JSON: a list of entities with their types, which are among `types` if there are any."""
    kind = {"type": "string", "enum": [*types]} if types else {"type": "string"}
    pairs = {"type": "array", "items": _object_schema(entity={"type": "string"}, type=kind)}
    return {"name": "entities", "strict": True, "schema": _object_schema(entities=pairs)}  # the root must be an object


@dataclass
class Question:
    """What a teacher is asked about one passage, with its journal key."""

    key: str
    variant: str
    passage_id: str
    messages: list[Message]


def request_key(model: str, parameters: Parameters, messages: list[Message]) -> str:
    """SHA-256 of model, parameters and messages: the identity of a request in the journal."""
    canonical = json.dumps([model, parameters, messages], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def request_parameters(config: TeacherConfig) -> Parameters:
    """Parameters sent with the messages; `teacher.parameters` override the others, and null removes one.

    Raises UserError if they do not limit the reply's length, because its cost would have no bound, if they ask for
    several replies, or if they set what the recipe sets elsewhere.
    """
    parameters = {"temperature": config.temperature, "max_tokens": config.max_answer_tokens}
    if config.response_format == "json_schema":
        parameters |= {"response_format": {"type": "json_schema", "json_schema": entities_schema(config.definitions)}}
    parameters = {name: value for name, value in (parameters | config.parameters).items() if value is not None}
    longest_reply(parameters)
    for name, only in (("n", 1), ("best_of", 1), ("stream", False), ("model", None), ("messages", None)):
        if parameters.get(name, only) != only:
            raise UserError(f"teacher.parameters: {name} is {parameters[name]!r}: not supported here; remove it")
    return parameters


def request_body(question: Question, config: TeacherConfig) -> Parameters:
    """The JSON body of a chat completion request."""
    return {"model": config.model, "messages": question.messages, **request_parameters(config)}


def longest_reply(parameters: Parameters) -> int:
    """Maximum number of tokens in a reply to a request with these parameters."""
    limits = [parameters[name] for name in LIMITS if name in parameters]
    if not limits:
        raise UserError("teacher.parameters set no limit for the length of a reply: set max_completion_tokens")
    if wrong := [limit for limit in limits if type(limit) is not int or limit < 1]:
        given = f"teacher.max_answer_tokens or teacher.parameters give {wrong[0]!r} as the limit of a reply"
        raise UserError(f"{given}: give a whole number of at least 1")
    return max(limits)


def request_ceiling(question: Question, config: TeacherConfig, parameters: Parameters | None = None) -> float:
    """Upper bound of a request's cost in dollars: one prompt token per byte and a reply of maximum length.

    `parameters` are those that were sent, if they differ from the recipe's current ones.
    """
    parameters = parameters or request_parameters(config)
    size = sum(len(message["content"].encode("utf-8", "surrogatepass")) for message in question.messages)
    schema = len(json.dumps(parameters["response_format"])) if "response_format" in parameters else 0
    return price(size + schema + WRAPPING_TOKENS, longest_reply(parameters), config)


def price(prompt_tokens: int, completion_tokens: int, config: TeacherConfig) -> float:
    """Dollars for these tokens at the recipe's prices."""
    return (prompt_tokens * config.price_input + completion_tokens * config.price_output) / 1e6


def address(config: TeacherConfig) -> str:
    """The endpoint's address without credentials, spelled without a slash at its end."""
    given = config.base_url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
    return public_url(given).rstrip("/")


def other_keys(question: Question, config: TeacherConfig, limits: Iterable[dict[str, int]]) -> Iterator[str]:
    """The question's keys under other limits of the reply's length."""
    rest = {name: value for name, value in request_parameters(config).items() if name not in LIMITS}
    return (request_key(config.model or "", {**rest, **limit}, question.messages) for limit in limits)
