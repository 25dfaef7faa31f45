"""What is asked of the teacher: prompts around passages, their journal keys, and answers recorded beforehand."""

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from open_ner.tools.errors import UserError

from ..config import TeacherConfig
from ..corpus.passages import Passage
from .journal import request_key

PROMPTS = Path(__file__).parent / "prompts"
RECORDED = "recorded"
PAIR_SCHEMA = {
    "type": "object",
    "properties": {"entity": {"type": "string"}, "type": {"type": "string"}},
    "required": ["entity", "type"],
    "additionalProperties": False,
}
ENTITIES_SCHEMA = {
    "strict": True,
    "schema": {  # the root of a schema must be an object
        "type": "object",
        "properties": {"entities": {"type": "array", "items": PAIR_SCHEMA}},
        "required": ["entities"],
        "additionalProperties": False,
    },
}


@dataclass
class Question:
    """One prompt about one passage, with its journal key."""

    key: str
    variant: str
    passage: Passage
    messages: list[dict[str, str]]


@cache
def _template(prompt: str) -> Any:
    from jinja2 import Environment, StrictUndefined, TemplateError

    path = PROMPTS / f"{prompt}.jinja" if "." not in prompt and "/" not in prompt else Path(prompt)
    try:
        source = path.read_text(encoding="utf-8")
        template = Environment(autoescape=False, undefined=StrictUndefined).from_string(source)
    except (OSError, UnicodeDecodeError, TemplateError) as error:
        raise UserError(f"prompt {prompt!r} cannot be read: {error}") from None
    if not {"system", "user"} <= set(template.blocks):
        raise UserError(f"prompt {prompt!r} needs a block `system` and a block `user`, as in {PROMPTS / 'type.jinja'}")
    return template


def build_messages(prompt: str, passage: str) -> list[dict[str, str]]:
    """System and user message of a prompt, a shipped one by name or a file of the user's own.

    The passage is data: it is put into the template as it is and never read as one.
    """
    from jinja2 import TemplateError

    template = _template(prompt)
    try:
        context = template.new_context({"passage": passage})
        return [{"role": role, "content": "".join(template.blocks[role](context))} for role in ("system", "user")]
    except TemplateError as error:
        raise UserError(f"prompt {prompt!r}: {error}; the only variable is `passage`") from None


def prompt_hash(prompt: str) -> str:
    """First 16 hex digits of the SHA-256 of a prompt's messages around an empty passage."""
    return hashlib.sha256(json.dumps(build_messages(prompt, "")).encode()).hexdigest()[:16]


def request_parameters(config: TeacherConfig) -> dict[str, Any]:
    """What is sent with the messages; part of an answer's key. The recipe's own parameters have the last word.

    Raises UserError where they leave the reply without a longest length: its cost would have no bound.
    """
    parameters: dict[str, Any] = {"temperature": config.temperature, "max_tokens": config.max_answer_tokens}
    if config.response_format == "json_schema":
        parameters["response_format"] = {"type": "json_schema", "json_schema": {"name": "entities", **ENTITIES_SCHEMA}}
    parameters |= config.parameters
    parameters = {name: value for name, value in parameters.items() if value is not None}
    longest_reply(parameters)
    return parameters


def longest_reply(parameters: dict[str, Any]) -> int:
    """Tokens of the longest reply that a request with these parameters can get."""
    longest = parameters.get("max_tokens", parameters.get("max_completion_tokens"))
    if type(longest) is not int or longest < 1:
        raise UserError(
            f"teacher.parameters leave the reply no longest length ({longest!r}): set max_completion_tokens"
        )
    return longest


def questions(passages: Iterable[Passage], config: TeacherConfig) -> Iterator[Question]:
    """Every prompt of the recipe for every passage."""
    parameters = request_parameters(config)
    for passage in passages:
        for variant in config.variants:
            messages = build_messages(config.prompts.get(variant, variant), passage.text)
            yield Question(request_key(config.model or RECORDED, parameters, messages), variant, passage, messages)


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
