"""Load the student's tokenizer for training, with a chat template, and refuse students that cannot be trained."""

import re
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

import open_ner
from command_line.pretrained import load_or_explain
from command_line.students import find_base
from open_ner.packing import attention_kinds
from open_ner.prompts import ChatTemplate
from open_ner.tools.errors import UserError

if TYPE_CHECKING:
    from trl import SFTConfig

UNINER = Path(open_ner.__file__).parent / "chat_templates" / "uniner.jinja"
# tags for `assistant_only_loss` of `trl sft`; inference servers may reject them
GENERATION_MARK = re.compile(r"\{% (end)?generation %\}")
TODAY = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")
DATE = datetime(2024, 7, 26)  # the date in Llama 3.2's template if `strftime_now` is undefined


def load_tokenizer(name: str, revision: str = "main", options: "SFTConfig | None" = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a student with a pad token and a chat template.

    A base model gets the plain-text template of UniversalNER's authors: system text, `USER: `, `ASSISTANT: `, and the
    tokenizer's own end token. A template that writes the current date gets a fixed one, and a template that does
    not support system messages is extended to put their text in the user message.

    Args:
        name: Folder or Hub id of the student.
        revision: Branch, tag or commit of a Hub model.
        options: Training arguments; `chat_template_path`, `eos_token` and `pad_token` override those of the tokenizer.

    Raises:
        UserError: `name` is an adapter, an option names an unknown token or template, or the tokenizer has no
            character offsets or no end token.
    """
    refuse_adapter(name, revision)
    tokenizer = load_or_explain(AutoTokenizer, name, revision=revision)
    if not tokenizer.is_fast:
        raise UserError(f"the tokenizer of {name} has no character offsets: choose a student with a tokenizer.json")
    for option in ("eos_token", "pad_token"):
        if token := options and getattr(options, option):
            if token not in tokenizer.get_vocab():
                raise UserError(f"{option} {token!r} is not in the vocabulary of {name}")
            setattr(tokenizer, option, token)
    if tokenizer.eos_token_id is None:
        raise UserError(f"{name} has no end-of-sequence token, so answers could not end: choose another student")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if path := options and options.chat_template_path:
        tokenizer.chat_template = _read_template(path)
    elif tokenizer.chat_template is None:
        tokenizer.chat_template = GENERATION_MARK.sub("", UNINER.read_text(encoding="utf-8"))
    try:
        source = TODAY.sub(lambda found: repr(DATE.strftime(found[2])), ChatTemplate.from_tokenizer(tokenizer).source)
    except ValueError as error:
        raise UserError(str(error)) from None
    if "strftime_now(" in source:
        raise UserError(f"the chat template of {name} inserts the current date: give another chat_template_path")
    tokenizer.chat_template = source
    return tokenizer


def _read_template(path: str) -> str:
    """Read the template of a Jinja file, or of a tokenizer (folder or Hub id)."""
    if Path(path).is_file():
        return Path(path).read_text(encoding="utf-8")
    template = None if path.endswith((".jinja", ".j2")) else load_or_explain(AutoTokenizer, path).chat_template
    if template is None:
        raise UserError(f"chat_template_path {path}: no file and no tokenizer with a chat template")
    return template


def read_max_positions(name: str, revision: str = "main") -> int | None:
    """Return a student's `max_position_embeddings` from its config.json; None if the config has no such limit.

    Raises UserError if the model's attention is not supported (see `attention_kinds`).
    """
    config = load_or_explain(AutoConfig, name, revision=revision)
    try:
        attention_kinds(config)
    except ValueError as error:
        raise UserError(f"{name}: {error}") from None
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def refuse_adapter(name: str, revision: str = "main") -> None:
    """Raise UserError if `name` is an adapter without a model; the message names the base model to use instead."""
    if base := find_base(name, revision):
        remedy = f"give its base, {base}, as model_name_or_path, or merge the adapter first"
        raise UserError(f"{name} is an adapter, not a model: {remedy}")
