"""Load the student's tokenizer for training; a base model without a chat template gets the paper's."""

import json
import re
from pathlib import Path

from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import cached_file

import open_ner
from command_line.pretrained import load_or_explain
from open_ner.tools.errors import UserError

UNINER = Path(open_ner.__file__).parent / "chat_templates" / "uniner.jinja"
GENERATION_MARK = re.compile(r"\{% (end)?generation %\}")  # read by TRL's own command line; servers may reject it


def load_tokenizer(name: str, revision: str = "main") -> PreTrainedTokenizerBase:
    """Load the tokenizer of a student (folder or Hub id) with a pad token and a chat template.

    A base model gets the plain-text template of UniversalNER's authors: system text, `USER: `, `ASSISTANT: `, and the
    tokenizer's own end token. Raises UserError for an adapter, and for a tokenizer without character offsets or an end
    token.
    """
    refuse_adapter(name, revision)
    tokenizer = load_or_explain(AutoTokenizer, name, revision=revision)
    if not tokenizer.is_fast:
        raise UserError(f"the tokenizer of {name} has no character offsets: choose a student with a tokenizer.json")
    if tokenizer.eos_token_id is None:
        raise UserError(f"{name} has no end-of-sequence token, so answers could not end: choose another student")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.chat_template is None:
        tokenizer.chat_template = GENERATION_MARK.sub("", UNINER.read_text(encoding="utf-8"))
    return tokenizer


def read_max_positions(name: str, revision: str = "main") -> int | None:
    """Read a student's `max_position_embeddings` from its config.json; None if the config has no such limit."""
    config = load_or_explain(AutoConfig, name, revision=revision)
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def refuse_adapter(name: str, revision: str = "main") -> None:
    """Raise UserError if `name` is an adapter without a model; the message names the base model to use instead."""

    def find(file: str) -> str | None:
        try:
            return cached_file(
                name,
                file,
                revision=revision,
                _raise_exceptions_for_gated_repo=False,
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
            )
        except OSError:  # the folder or repository does not exist: loading it gives the better message
            return None

    adapter = find("adapter_config.json")
    if adapter is None or find("config.json"):
        return
    base = json.loads(Path(adapter).read_text(encoding="utf-8")).get("base_model_name_or_path")
    raise UserError(
        f"{name} is an adapter, not a model: give its base, {base}, as model_name_or_path, or merge the adapter first"
    )
