"""A chat template as training sees it: the text of a conversation, and which characters of it are learned.

Inference asks each question by `render(messages, add_generation_prompt=True)` and reads up to the end token
(open_ner/decoding.py). So what is learned of a conversation is what the template writes between that prompt and the
end of that token. A template may write its last answer differently from the ones before (Qwen3 puts an empty think
block there, which no prompt asks for): a user turn is appended before rendering and cut off afterwards, so that every
answer is an earlier one.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from transformers import PreTrainedTokenizerBase

from open_ner.conversation import Message, build_conversation
from open_ner.prompts import ChatTemplate, special_tokens
from open_ner.tools.errors import UserError

PROBE = build_conversation("a", [("b", ["c"]), ("d", [])])
NEXT = {"role": "user", "content": "next"}
Span = tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """What a template writes around the contents of a conversation, for one sequence of roles.

    `before[i]` stands before content i; `lead[i]` of its last characters belong to answer i, as do the `tail[i]` ones
    after the content (white space, end token).
    """

    before: list[str]
    lead: dict[int, int]
    tail: dict[int, int]
    closing: str

    def apply(self, messages: list[Message]) -> tuple[str, list[Span]]:
        """The text of a conversation with these roles, and the spans learned of it."""
        parts, spans, length = [], [], 0
        for index, (before, message) in enumerate(zip(self.before, messages, strict=True)):
            parts += [before, message["content"]]
            begin = length + len(before)
            length = begin + len(message["content"])
            if index in self.lead:
                spans.append((begin - self.lead[index], length + self.tail[index]))
        return "".join([*parts, self.closing]), spans


class Template:
    """The chat template of one tokenizer. Raises UserError, when made, for one that cannot be trained on exactly."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer, self.name = tokenizer, tokenizer.name_or_path
        if tokenizer.chat_template is None:
            raise UserError(f"{self.name} has no chat template: load it by sft.tokenizer.load_tokenizer")
        self.template = ChatTemplate.from_tokenizer(tokenizer)
        self.special_tokens = set(special_tokens(tokenizer))
        self._layouts: dict[tuple[str, ...], Layout | None] = {}
        self._check_tokens()

    def render(self, messages: list[Message], prompt: bool = False) -> str:
        """The template's text of the messages; `prompt` asks for an answer to them."""
        try:
            return self.template.render(messages, prompt)
        except ValueError as error:
            raise UserError(str(error)) from None

    def spans(self, messages: list[Message]) -> tuple[str, list[Span]]:
        """The text of a checked conversation up to its last end token, and the spans `(begin, end)` of its answers.

        One rendering where the template puts contents in as they are, which is verified; else one for each answer.
        """
        roles = tuple(message["role"] for message in messages)
        if roles not in self._layouts:
            self._layouts[roles] = self._layout(roles)
        layout = self._layouts[roles]
        if layout:
            text, spans = layout.apply(messages)
            if self.render([*messages, NEXT]).startswith(text):
                return text, spans
        return self._spans_by_prompts(messages)

    def _spans_by_prompts(self, messages: list[Message]) -> tuple[str, list[Span]]:
        text = self.render([*messages, NEXT])
        spans = []
        for index in _answers(messages):
            prompt, content = self.render(messages[:index], prompt=True), messages[index]["content"]
            if not text.startswith(prompt):
                raise UserError(
                    f"the chat template of {self.name} renders an answer's prompt differently once turns follow: "
                    "one conversation cannot train several answers of it"
                )
            rest = text[len(prompt) :]
            answer = rest.lstrip()
            if not answer.startswith(content):
                raise UserError(
                    f"the chat template of {self.name} writes {answer[:40]!r} where {content!r:.40} stands"
                )
            tail = answer[len(content) :]
            token = self._end_token(tail.lstrip())
            spans.append((len(prompt), len(text) - len(tail.lstrip()) + len(token)))
        return text[: spans[-1][1]] if spans else text, spans

    def _end_token(self, text: str) -> str:
        found = [token for token in self.special_tokens if token and text.startswith(token)]
        if not found:
            raise UserError(
                f"the chat template of {self.name} puts no end token after an answer: {text[:40]!r} follows"
            )
        return max(found, key=len)

    @cached_property
    def end_token(self) -> str:
        """The token after which an answer is over; of Gemma, say, not the tokenizer's `eos_token`."""
        text, spans = self._spans_by_prompts(PROBE)
        end = spans[-1][1]
        return max((token for token in self.special_tokens if token and text[:end].endswith(token)), key=len)

    @property
    def end_token_id(self) -> int:
        """Its id."""
        return self.tokenizer.convert_tokens_to_ids(self.end_token)

    def _layout(self, roles: tuple[str, ...]) -> Layout | None:
        """The layout of these roles, from contents that are told apart; None where the template changes contents."""
        contents = [f'["content-{index}."]' for index in range(len(roles))]
        messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
        text, spans = self._spans_by_prompts(messages)
        before, place = [], 0
        for content in contents:
            if text.count(content) != 1 or (begin := text.find(content)) < place:
                return None
            before.append(text[place:begin])
            place = begin + len(content)
        lead, tail = {}, {}
        for index, (begin, end) in zip(_answers(messages), spans, strict=True):
            start = text.index(contents[index])
            lead[index], tail[index] = start - begin, end - start - len(contents[index])
        return Layout(before, lead, tail, text[place:])

    def _check_tokens(self) -> None:
        """Raise UserError where a prompt's tokens depend on the answer after it: inference would meet others."""
        text, spans = self._spans_by_prompts(PROBE)
        ids = self.ids(text)
        for begin, _ in spans:
            prompt = self.ids(text[:begin])
            if ids[: len(prompt)] != prompt:
                raise UserError(
                    f"the tokenizer of {self.name} reads the end of a prompt {text[:begin][-20:]!r} differently when "
                    "an answer follows: its chat template cannot be trained exactly"
                )

    def ids(self, text: str) -> list[int]:
        """Token ids of a rendered text, which has its special tokens in it."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]


def _answers(messages: list[Any]) -> range:
    """Indices of the answers: every assistant turn but the first, which acknowledges the passage."""
    return range(4 if messages[0]["role"] == "system" else 3, len(messages), 2)
