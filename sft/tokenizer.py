"""The student's tokenizer, ready to train: its chat template, or the paper's where a base model has none."""

import json
import re
from pathlib import Path

from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import cached_file

import open_ner
from command_line.pretrained import load_or_explain
from open_ner.tools.errors import UserError

UNINER = Path(open_ner.__file__).parent / "chat_templates" / "uniner.jinja"
GENERATION_MARK = re.compile(r"\{% (end)?generation %\}")  # for TRL's own command line; servers may not know them


def load_tokenizer(name: str, revision: str = "main") -> PreTrainedTokenizerBase:
    """The tokenizer of a student (folder or Hub id), with a pad token and a chat template.

    A base model gets the plain-text one of UniversalNER's authors: system, `USER: `, `ASSISTANT: `, and the
    tokenizer's own end token. Raises UserError for an adapter, and for a tokenizer that could not end an answer.
    """
    refuse_adapter(name, revision)
    tokenizer = load_or_explain(AutoTokenizer, name, revision=revision)
    if not tokenizer.is_fast:
        raise UserError(f"the tokenizer of {name} gives no character offsets: choose a student with a tokenizer.json")
    if tokenizer.eos_token_id is None:
        raise UserError(f"{name} has no end-of-sequence token, so an answer could not end: choose another student")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.chat_template is None:
        tokenizer.chat_template = GENERATION_MARK.sub("", UNINER.read_text(encoding="utf-8"))
    return tokenizer


def read_window(name: str, revision: str = "main") -> int | None:
    """Positions of the student (folder or Hub id) by its config.json, in tokens; None where it names no limit."""
    config = load_or_explain(AutoConfig, name, revision=revision)
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def refuse_adapter(name: str, revision: str = "main") -> None:
    """Raise UserError where `name` holds an adapter and no model, naming the base model to give instead."""
    adapter = _file(name, "adapter_config.json", revision)
    if adapter is None or _file(name, "config.json", revision):
        return
    base = json.loads(Path(adapter).read_text(encoding="utf-8")).get("base_model_name_or_path")
    raise UserError(
        f"{name} is an adapter, not a model: give its base, {base}, as model_name_or_path, or merge the adapter first"
    )


def _file(name: str, file: str, revision: str) -> str | None:
    try:
        return cached_file(
            name,
            file,
            revision=revision,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except OSError:  # no such folder or repository: loading it says so better
        return None
