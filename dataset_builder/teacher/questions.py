"""Turn passages into questions by prompts, and read files of recorded replies."""

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ner_sets.rows import read_json_rows
from open_ner.conversation import Message
from open_ner.tools.errors import UserError

from ..config import ENGLISH, TeacherConfig
from ..corpus.cutting import Passage
from .requests import Question, request_key, request_parameters
from .type_set import load_type_set

if TYPE_CHECKING:
    from jinja2 import Template

PROMPTS = Path(__file__).parent / "prompts"
ROLES = ("system", "user")
RECORDED = "recorded"  # model of a recorded reply in the journal
RecordedReply = tuple[str, str]  # the teacher's words and the finish reason


@cache
def _template(prompt: str) -> "Template":
    from jinja2 import DictLoader, StrictUndefined, TemplateError
    from jinja2.sandbox import SandboxedEnvironment  # a prompt file may come from anybody

    path = PROMPTS / f"{prompt}.jinja" if "." not in prompt and "/" not in prompt else Path(prompt)
    try:
        source = path.read_text(encoding="utf-8")
        template = SandboxedEnvironment(undefined=StrictUndefined, loader=DictLoader({})).from_string(source)
    except (OSError, UnicodeDecodeError, TemplateError) as error:
        raise UserError(f"prompt {prompt!r} cannot be read: {error}") from None
    if "user" not in template.blocks:
        raise UserError(f"prompt {prompt!r} needs a block `user`, and perhaps a block `system`, as in `type.jinja`")
    return template


def build_messages(prompt: str, text: str, variables: Mapping[str, Any] | None = None) -> list[Message]:
    """Build the messages of a prompt: `system`, if the prompt has that block, and `user`.

    Args:
        prompt: the name of a shipped prompt or a path.
        text: the passage. Like all variables it is inserted as it is, never read as a template.
        variables: the variables beside `passage`, as from `prompt_variables`.

    Raises:
        UserError: the prompt cannot be read, uses a variable that does not exist, or fails.
    """
    template = _template(prompt)
    known = {"passage": text, "type_language": None, **(variables or {})}
    try:
        context = template.new_context(known)
        turns = {role: "".join(block(context)) for role, block in template.blocks.items() if role in ROLES}
        if "system" in turns:
            turns["system"] = sys.intern(turns["system"])  # the same for all passages: one copy of it in memory
        return [{"role": role, "content": turns[role]} for role in ROLES if role in turns]
    except Exception as error:  # a template runs code, which may raise anything
        names = ", ".join(f"`{name}`" for name in known)
        raise UserError(f"prompt {prompt!r}: {error}; the variables are {names}") from None


def prompt_variables(config: TeacherConfig) -> dict[str, Any]:
    """Return what the prompts of a recipe may use beside `passage`: `type_language`, or the fields of a `TypeSet`."""
    types = load_type_set(config)
    if types is None:
        return {"type_language": config.type_language}
    named = [{"name": name, "definition": definition} for name, definition in types.definitions.items()]
    return {
        "types": named, "guidelines": types.guidelines, "examples": types.examples, "overlaps": types.overlaps
    }  # fmt: skip


def prompt_hash(variant: str, config: TeacherConfig) -> str:
    """First 16 hex digits of the SHA-256 of a variant's messages around an empty passage."""
    messages = build_messages(config.prompts.get(variant, variant), "", prompt_variables(config))
    return hashlib.sha256(json.dumps(messages).encode()).hexdigest()[:16]


class Questioner:
    """Turns a passage into its questions, one per variant of the recipe."""

    def __init__(self, config: TeacherConfig) -> None:
        self.model = config.model or RECORDED
        self.prompts = {variant: config.prompts.get(variant, variant) for variant in config.variants}
        self.parameters, self.variables = request_parameters(config), prompt_variables(config)
        for variant, prompt in self.prompts.items():
            if unused := self._find_unused(prompt):
                how = f"use it as `{variant}.jinja` does"
                how += f", or remove teacher.{unused}" if unused in ("guidelines", "examples") else ""
                raise UserError(f"prompt {prompt!r} does not use the variable `{unused}`: {how}")

    def _find_unused(self, prompt: str) -> str | None:
        """Return the first variable with a value that a prompt must use but does not."""
        given = {"passage": "Ada", **self.variables}
        messages = build_messages(prompt, "", given)
        words = " ".join(message["content"] for message in messages).casefold()
        for name in ("passage", "type_language", "types", "guidelines", "examples"):
            value = given.get(name)
            by_hand = name == "types" and all(one["name"].casefold() in words for one in value or ())
            if not value or value == ENGLISH or by_hand:  # a prompt in English need not name the language
                continue
            with suppress(UserError):  # a prompt that fails without a value, as with types[0], uses it
                if build_messages(prompt, "", {**given, name: type(value)()}) == messages:
                    return name
        return None

    def about(self, passage: Passage) -> Iterator[Question]:
        """Yield the questions about one passage."""
        for variant, prompt in self.prompts.items():
            messages = build_messages(prompt, passage.text, self.variables)
            yield Question(request_key(self.model, self.parameters, messages), variant, passage.id, messages)


def questions(passages: Iterable[Passage], config: TeacherConfig) -> Iterator[Question]:
    """One question per passage and variant, in the order of the passages."""
    questioner = Questioner(config)
    for passage in passages:
        yield from questioner.about(passage)


def load_recorded(config: TeacherConfig) -> dict[tuple[str, str], RecordedReply]:
    """Recorded replies by `(variant, text_sha256)`."""
    files = {config.variants[0]: config.recorded} if isinstance(config.recorded, str) else config.recorded or {}
    replies: dict[tuple[str, str], RecordedReply] = {}
    for variant, name in files.items():
        path = Path(name)
        if not path.exists():
            raise UserError(f"{path}: file of recorded replies not found: set teacher.recorded")
        names = ("text_sha256", "reply", "finish_reason")
        for number, row in enumerate(read_json_rows(path), 1):
            if not all(isinstance(row.get(name), str) for name in names):
                raise UserError(f"{path}: row {number} is not a recorded reply with the strings {names}")
            replies[variant, row["text_sha256"]] = (row["reply"], row["finish_reason"])
    return replies
