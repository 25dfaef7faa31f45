r"""Tokenize the prompts of a passage: one per query, with the tokens that all of them begin with split off.

A prompt is what the chat template renders for the passage and one query, up to where the student answers:

    ...user\nText: The cat sat<|im_end|>\n...user\nWhat describes  person in the text?<|im_end|>\n...assistant\n
    ...user\nText: The cat sat<|im_end|>\n...user\nWhat describes  animal in the text?<|im_end|>\n...assistant\n
    |----------------------- prefix ----------------------------|  |---------------- suffix ------------------|

`packing.py` reads the prefix only once. Each prompt is tokenized as a whole before it is split, so `prefix + suffix`
are the tokens of `apply_chat_template`, whatever the template does with its messages.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils import chat_template_utils

from .conversation import LONE_SURROGATE, Message, build_query, neutralize, passage_turns, write_query

MARKUP = re.compile(r"\s*[^\w\s▁]")  # first visible character is neither a letter nor a digit, as in `<think>`
# jinja2's error, taken from transformers, because the files saved with a model may import only torch and transformers
TemplateError = chat_template_utils.jinja2.TemplateError  # pyright: ignore[reportAttributeAccessIssue]

SYSTEM_TO_USER = (
    "{%- if messages and messages[0]['role'] == 'system' %}{%- set messages = [{'role': 'user', 'content': "
    "messages[0]['content'] + '\\n\\n' + messages[1]['content']}] + messages[2:] %}{%- endif %}"
)


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the tokens that may open or close a turn: special ones, and added ones that look like markup."""
    tokens = tokenizer.added_tokens_decoder.values()
    added = [token.content for token in tokens if token.special or MARKUP.match(token.content)]
    return [token for token in (*added, *tokenizer.all_special_tokens) if token.strip()]


def refuse_surrogates(*texts: str) -> None:
    """Raise ValueError if a text contains half of a surrogate pair."""
    for text in texts:
        if lone := LONE_SURROGATE.search(text):
            raise ValueError(
                f"character {lone.start()} of {text!r:.80} is the lone surrogate {lone[0]!r}, "
                "which no tokenizer reads: replace it before the call"
            )


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template with the special tokens that it uses, and the tokenizer's name for error messages."""

    source: str
    tokens: Mapping[str, str]
    name: str

    @classmethod
    def from_tokenizer(cls, tokenizer: PreTrainedTokenizerBase) -> "ChatTemplate":
        """Return the template of a tokenizer.

        A template that fails on system turns or ignores them is extended to put their text before the user's.

        Raises:
            ValueError: the tokenizer has no chat template.
        """
        name = tokenizer.name_or_path or type(tokenizer).__name__
        if tokenizer.chat_template is None:
            raise ValueError(f"{name} has no chat template, which the dialogue of open NER needs")
        template = cls(tokenizer.get_chat_template(), tokenizer.special_tokens_map, name)
        probe = [{"role": "system", "content": "system text"}, {"role": "user", "content": "user text"}]
        try:
            if "system text" in template.render(probe, prompt=True):
                return template
        except ValueError:
            pass
        return replace(template, source=SYSTEM_TO_USER + template.source)

    def render(self, messages: list[Message], prompt: bool = False) -> str:
        """Render messages as `apply_chat_template` does; `prompt` adds the start of the assistant's turn.

        Raises:
            ValueError: the template raises an error for them.
        """
        options: dict[str, Any] = {"add_generation_prompt": prompt, **self.tokens}
        try:
            return chat_template_utils.render_jinja_template([messages], chat_template=self.source, **options)[0][0]
        except TemplateError as error:
            raise ValueError(f"the chat template of {self.name} cannot render a conversation: {error}") from None


@dataclass
class Prompts:
    """Token ids of a passage's prompts: that of each query is `prefix` and its suffix, which is never empty."""

    prefix: list[int]
    suffixes: list[list[int]]

    def __len__(self) -> int:
        """Return the number of tokens of the longest prompt."""
        return len(self.prefix) + max(map(len, self.suffixes), default=0)


class Encoder:
    """Make prompts with a tokenizer and its chat template; special tokens in passages and types are neutralized."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer, self.template = tokenizer, ChatTemplate.from_tokenizer(tokenizer)
        self.special_tokens = special_tokens(tokenizer)

    def encode(
        self, text: str, types: Sequence[str], dataset: str | None = None, longest: int | None = None
    ) -> Prompts:
        """Return the prompts that ask for each of `types` in a passage.

        Args:
            text: the passage.
            types: the entity types, or their definitions.
            dataset: the human-annotated set named in the prompt (see `passage_turns`).
            longest: maximum tokens of a prompt; if the first prompt has more, only that one is returned.

        Raises:
            ValueError: a string contains a lone surrogate, or the template does not support the dialogue.
        """
        refuse_surrogates(text, *types, dataset or "")
        turns = neutralize(passage_turns(text, dataset), self.special_tokens)
        asked = neutralize([{"role": "user", "content": write_query(name)} for name in types], self.special_tokens)
        if not asked:
            return Prompts([], [])
        if longest is not None:
            [first] = self._tokenize([[*turns, asked[0]]])
            asked = asked[: 1 if len(first) > longest else None]
        prompts = self._tokenize([[*turns, query] for query in asked])
        # at least one token stays in each suffix: the answer starts from the output at the last token of the query
        shared = min(len(os.path.commonprefix(prompts)), min(map(len, prompts)) - 1)
        return Prompts(prompts[0][:shared], [prompt[shared:] for prompt in prompts])

    @cached_property
    def ends_in_word(self) -> bool:
        """Whether a prompt ends in a word (`ASSISTANT:`), so that the first token of an answer includes a space."""
        prompt = self.template.render(build_query("a", "b"), prompt=True)
        return not prompt[-1:].isspace() and not prompt.endswith(tuple(filter(None, self.special_tokens)))

    def _tokenize(self, prompts: list[list[Message]]) -> list[list[int]]:
        """Return the token ids of each prompt; the only special tokens are those of the template."""
        rendered = [self.template.render(messages, prompt=True) for messages in prompts]
        return self.tokenizer(rendered, add_special_tokens=False, padding=False, truncation=False)["input_ids"]
