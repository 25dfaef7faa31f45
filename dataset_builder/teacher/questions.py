"""Turn passages into questions by prompts, and read files of recorded replies."""

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from open_ner.conversation import Message
from open_ner.tools.errors import UserError

from ..config import TeacherConfig
from ..corpus.cutting import Passage
from .requests import Question, request_key, request_parameters

if TYPE_CHECKING:
    from jinja2 import Template

PROMPTS = Path(__file__).parent / "prompts"
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


def build_messages(prompt: str, text: str) -> list[Message]:
    """Build the messages of a prompt: `system`, if the prompt has that block, and `user`.

    `prompt` is the name of a shipped prompt or a path. The text is inserted as it is, never read as a template.
    """
    from jinja2 import TemplateError

    template = _template(prompt)
    try:
        context = template.new_context({"passage": text})
        roles = [role for role in ("system", "user") if role in template.blocks]
        return [{"role": role, "content": "".join(template.blocks[role](context))} for role in roles]
    except TemplateError as error:
        raise UserError(f"prompt {prompt!r}: {error}; the only variable is `passage`") from None


def prompt_hash(prompt: str) -> str:
    """First 16 hex digits of the SHA-256 of a prompt's messages around an empty passage."""
    return hashlib.sha256(json.dumps(build_messages(prompt, "")).encode()).hexdigest()[:16]


def questions(passages: Iterable[Passage], config: TeacherConfig) -> Iterator[Question]:
    """One question per passage and variant, in the order of the passages."""
    parameters = request_parameters(config)
    for passage in passages:
        for variant in config.variants:
            messages = build_messages(config.prompts.get(variant, variant), passage.text)
            yield Question(request_key(config.model or RECORDED, parameters, messages), variant, passage.id, messages)


def load_recorded(config: TeacherConfig) -> dict[tuple[str, str], RecordedReply]:
    """Recorded replies by `(variant, text_sha256)`."""
    files = {"type": config.recorded} if isinstance(config.recorded, str) else config.recorded or {}
    replies: dict[tuple[str, str], RecordedReply] = {}
    for variant, name in files.items():
        path = Path(name)
        if not path.exists():
            raise UserError(f"{path}: file of recorded replies not found: set teacher.recorded")
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    row = json.loads(line)
                except ValueError:
                    row = None
                names = ("text_sha256", "reply", "finish_reason")
                if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in names):
                    raise UserError(f"{path}: line {number} is not a recorded reply with the strings {names}")
                replies[variant, row["text_sha256"]] = (row["reply"], row["finish_reason"])
    return replies
