"""The prompts of a passage's queries as tokens: the prefix they share, and the suffix of each.

A chat template may do anything with its messages, so the passage is rendered with every query. It is tokenized only
once: the renderings are cut before a special token between passage and query, which no other token can span. Without
such a place the renderings are tokenized whole, so the tokens always equal those of `apply_chat_template`.
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

MARKUP = re.compile(r"\s*[^\w\s▁]")  # not white space, which some tokenizers add as tokens, nor a word
# through transformers, because the files that travel with the weights import nothing but torch and transformers;
# its stub allows for a missing jinja2, which torch requires
TemplateError = chat_template_utils.jinja2.TemplateError  # pyright: ignore[reportAttributeAccessIssue]

SYSTEM_TO_USER = (
    "{%- if messages and messages[0]['role'] == 'system' %}{%- set messages = [{'role': 'user', 'content': "
    "messages[0]['content'] + '\\n\\n' + messages[1]['content']}] + messages[2:] %}{%- endif %}"
)


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Strings that may open or close a turn: special tokens, and added ones that begin like markup (`<think>`)."""
    tokens = tokenizer.added_tokens_decoder.values()
    added = [token.content for token in tokens if token.special or MARKUP.match(token.content)]
    return [token for token in (*added, *tokenizer.all_special_tokens) if token.strip()]


def refuse_surrogates(*parts: str) -> None:
    """Raise ValueError if one of the parts contains half of a character."""
    for part in parts:
        if lone := LONE_SURROGATE.search(part):
            raise ValueError(
                f"character {lone.start()} of {part!r:.80} is the lone surrogate {lone[0]!r}, "
                "which no tokenizer reads: replace it before the call"
            )


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template, the special tokens it may name, and the name of its tokenizer for error messages."""

    source: str
    tokens: Mapping[str, str]
    name: str

    @classmethod
    def from_tokenizer(cls, tokenizer: PreTrainedTokenizerBase) -> "ChatTemplate":
        """The template of a loaded tokenizer; raises ValueError if it has none.

        A template that refuses or omits a system turn is extended to write its text in the user turn.
        """
        name = tokenizer.name_or_path or type(tokenizer).__name__
        if tokenizer.chat_template is None:
            raise ValueError(f"{name} has no chat template: it cannot be asked in the dialogue")
        template = cls(tokenizer.get_chat_template(), tokenizer.special_tokens_map, name)
        probe = [{"role": "system", "content": "system text"}, {"role": "user", "content": "user text"}]
        try:
            if "system text" in template.render(probe, prompt=True):
                return template
        except ValueError:
            pass
        return replace(template, source=SYSTEM_TO_USER + template.source)

    def render(self, messages: list[Message], prompt: bool = False) -> str:
        """Render messages as `apply_chat_template` does; `prompt` adds the opening of the assistant's turn.

        Raises ValueError if the template does not accept the messages.
        """
        options: dict[str, Any] = {"add_generation_prompt": prompt, **self.tokens}
        try:
            return chat_template_utils.render_jinja_template([messages], chat_template=self.source, **options)[0][0]
        except TemplateError as error:
            raise ValueError(f"the chat template of {self.name} refuses a conversation: {error}") from None


@dataclass
class Prompts:
    """Tokens of a passage's prompts: `prefix + suffix` is the whole prompt of one query; no suffix is empty."""

    prefix: list[int]
    suffixes: list[list[int]]

    def __len__(self) -> int:
        """Tokens of the longest prompt."""
        return len(self.prefix) + max(map(len, self.suffixes), default=0)


class Encoder:
    """Prompts by one tokenizer's chat template. Special tokens inside passages and types are neutralized."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer, self.template = tokenizer, ChatTemplate.from_tokenizer(tokenizer)
        self.special_tokens = special_tokens(tokenizer)
        # tokens matched before everything else and without the white space around them: the texts on both sides are
        # tokenized independently. Slow tokenizers do not guarantee this
        added = tokenizer.added_tokens_decoder.values() if tokenizer.is_fast else ()
        plain = [re.escape(t.content) for t in added if not (t.normalized or t.lstrip or t.rstrip or t.single_word)]
        self.cut = re.compile("|".join(sorted(plain, key=len, reverse=True))) if plain else None

    def encode(
        self, text: str, types: Sequence[str], dataset: str | None = None, longest: int | None = None
    ) -> Prompts:
        """Encode the prompts that ask for each of `types` in a passage; just one if it has over `longest` tokens.

        Raises ValueError if a text contains a lone surrogate.
        """
        refuse_surrogates(text, *types, dataset or "")
        if not types:
            return Prompts([], [])
        turns = neutralize(passage_turns(text, dataset), self.special_tokens)
        asked = neutralize([{"role": "user", "content": write_query(name)} for name in types], self.special_tokens)
        first = self.template.render([*turns, asked[0]], prompt=True)
        [whole] = self._tokenize([first])
        if longest is not None and len(whole) > longest:
            return Prompts(whole[:-1], [whole[-1:]])
        rendered = [first, *(self.template.render([*turns, message], prompt=True) for message in asked[1:])]
        cuts = list(self.cut.finditer(first, 0, first.rfind(asked[0]["content"]))) if self.cut else []
        same = len(os.path.commonprefix(rendered))
        head = next((first[: cut.start()] for cut in reversed(cuts) if cut.end() <= same), "")
        prefix = self._tokenize([head])[0] if head else []
        if prefix + self._tokenize([first[len(head) :]])[0] != whole:
            head, prefix = "", []
        suffixes = self._tokenize([prompt[len(head) :] for prompt in rendered])
        # every query keeps at least one token for itself
        shared = min(len(os.path.commonprefix(suffixes)), min(map(len, suffixes)) - 1)
        return Prompts(prefix + suffixes[0][:shared], [suffix[shared:] for suffix in suffixes])

    @cached_property
    def ends_in_word(self) -> bool:
        """Whether a prompt ends in a word (`ASSISTANT:`), so that the first token of an answer includes a space."""
        prompt = self.template.render(build_query("a", "b"), prompt=True)
        return not prompt[-1:].isspace() and not prompt.endswith(tuple(filter(None, self.special_tokens)))

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        """Token ids as in `apply_chat_template`: the only special tokens are those the template wrote."""
        return self.tokenizer(texts, add_special_tokens=False, padding=False, truncation=False)["input_ids"]
