"""The prompts of a passage's queries as tokens: what they all begin with once, and what each adds.

The passage is rendered with every query, because a chat template may do what it likes, but it is tokenized once:
a rendering is cut in front of a special token between passage and query, where no token can straddle the cut.
Where no such place is found the renderings are tokenized whole, so that the tokens are always those of
`apply_chat_template`.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from .conversation import LONE_SURROGATE, build_query, neutralize, passage_turns, write_query


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What a text must not hold as it is: each would be read as one token, which may open or close a turn."""
    return [*tokenizer.get_added_vocab(), *tokenizer.all_special_tokens]


def refuse_surrogates(*parts: str) -> None:
    """Raise ValueError where one of the parts holds half of a character."""
    for part in parts:
        if lone := LONE_SURROGATE.search(part):
            raise ValueError(
                f"character {lone.start()} of {part!r:.80} is the lone surrogate {lone[0]!r}, "
                "which no tokenizer reads: replace it before the call"
            )


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
        if tokenizer.chat_template is None:
            raise ValueError("the tokenizer has no chat template: it cannot be asked in the dialogue")
        self.tokenizer = tokenizer
        self.special_tokens = special_tokens(tokenizer)
        # found before anything else is looked at, and without white space around them: the text on their two sides
        # is tokenized independently; slow tokenizers promise less
        plain = [
            re.escape(token.content)
            for token in tokenizer.added_tokens_decoder.values()
            if tokenizer.is_fast and not (token.normalized or token.lstrip or token.rstrip or token.single_word)
        ]
        self.cut = re.compile("|".join(sorted(plain, key=len, reverse=True))) if plain else None

    def encode(
        self, text: str, types: Sequence[str], dataset: str | None = None, longest: int | None = None
    ) -> Prompts:
        """Prompts that ask each of `types` of a passage.

        Raises ValueError for a lone surrogate, and for a first prompt of more than `longest` tokens before the others
        are rendered.
        """
        refuse_surrogates(text, *types, dataset or "")
        if not types:
            return Prompts([], [])
        turns = neutralize(passage_turns(text, dataset), self.special_tokens)
        asked = neutralize([{"role": "user", "content": write_query(name)} for name in types], self.special_tokens)
        first = self._render([*turns, asked[0]])
        [whole] = self._tokenize([first])
        if longest is not None and len(whole) > longest:
            return Prompts(whole[:-1], [whole[-1:]])  # refused by the caller, with its number of tokens
        rendered = [first, *(self._render([*turns, message]) for message in asked[1:])]
        cuts = list(self.cut.finditer(first, 0, first.rfind(asked[0]["content"]))) if self.cut else []
        safe = (cut for cut in reversed(cuts) if all(prompt.startswith(first[: cut.end()]) for prompt in rendered))
        cut = next(safe, None)
        head = first[: cut.start()] if cut else ""
        prefix = self._tokenize([head])[0] if head else []
        if prefix + self._tokenize([first[len(head) :]])[0] != whole:
            head, prefix = "", []
        suffixes = self._tokenize([prompt[len(head) :] for prompt in rendered])
        # every query keeps at least one token of its own
        shared = min(len(os.path.commonprefix(suffixes)), min(map(len, suffixes)) - 1)
        return Prompts(prefix + suffixes[0][:shared], [suffix[shared:] for suffix in suffixes])

    @cached_property
    def ends_in_word(self) -> bool:
        """Whether a prompt ends in a word (`ASSISTANT:`), so that the first token of an answer brings a space."""
        prompt = self._render(build_query("a", "b"))
        return not prompt[-1:].isspace() and not prompt.endswith(tuple(filter(None, self.special_tokens)))

    def _render(self, messages: list[dict[str, str]]) -> str:
        return self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        """As `apply_chat_template` does it: the special tokens are those the template wrote."""
        return self.tokenizer(texts, add_special_tokens=False, padding=False, truncation=False)["input_ids"]
