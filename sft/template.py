"""A chat template as training uses it: the text of a conversation, and which characters of it are learned.

Inference renders the turns before an answer with `add_generation_prompt=True` and reads up to the end token
(open_ner/decoding.py). Training therefore learns what the template writes from the end of that prompt to the end of
that token. A template may render the last answer of a conversation differently (Qwen3 adds an empty think block, which
is in no prompt). A user turn is therefore appended before rendering and cut off afterwards.
"""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from open_ner.conversation import Message, Span, build_conversation
from open_ner.prompts import ChatTemplate, special_tokens
from open_ner.tools.errors import UserError

PROBE = build_conversation("a", [("b", ["c"])])
NEXT = {"role": "user", "content": "next"}


@dataclass(frozen=True)
class Layout:
    """What a template writes around the contents of a conversation, for one sequence of roles.

    `before[i]` is the text before content i. Answer i includes the last `lead[i]` characters of that text and the
    first `tail[i]` characters after the content (white space, end token).
    """

    before: list[str]
    lead: dict[int, int]
    tail: dict[int, int]
    closing: str

    def apply(self, messages: list[Message]) -> tuple[str, list[Span]]:
        """Return the text of a conversation with these roles, and the spans of its answers."""
        parts, spans, length = [], [], 0
        for index, (before, message) in enumerate(zip(self.before, messages, strict=True)):
            parts += [before, message["content"]]
            begin = length + len(before)
            length = begin + len(message["content"])
            if index in self.lead:
                spans.append((begin - self.lead[index], length + self.tail[index]))
        return "".join([*parts, self.closing]), spans


class Template:
    """The chat template of a tokenizer. Raises UserError if training on it would differ from inference."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer, self.name = tokenizer, tokenizer.name_or_path
        if tokenizer.chat_template is None:
            raise UserError(f"{self.name} has no chat template: load it by sft.tokenizer.load_tokenizer")
        self.template = ChatTemplate.from_tokenizer(tokenizer)
        self.special_tokens = set(special_tokens(tokenizer))
        self._layouts: dict[tuple[str, ...], Layout | None] = {}
        content, prompt = PROBE[-1]["content"], self.render(PROBE[:-1], prompt=True)
        text = self.render([*PROBE, NEXT])
        begin = text.rfind(content)
        if begin < 0:
            raise UserError(f"the chat template of {self.name} writes {text[-60:]!r} where {content!r} stands")
        self.closing = self._closing(text[begin + len(content) :])
        # white space that the prompt lacks, as after `ASSISTANT:`; other text (a channel, thoughts) is not generated
        between = text[len(prompt) : begin] if text.startswith(prompt) else ""
        self.lead = "" if between.strip() else between
        self._check_tokens(*self.single(PROBE))

    def render(self, messages: list[Message], prompt: bool = False) -> str:
        """Return the text of the messages; `prompt` adds the opening of an assistant turn."""
        try:
            return self.template.render(messages, prompt)
        except ValueError as error:
            raise UserError(str(error)) from None

    def single(self, messages: list[Message]) -> tuple[str, list[Span]]:
        """Return inference's prompt, the answer and its end token for a conversation with one query; any template."""
        prompt = self.render(messages[:-1], prompt=True)
        text = prompt + self.lead + messages[-1]["content"] + self.closing
        return text, [(len(prompt), len(text))]

    def spans(self, messages: list[Message]) -> tuple[str, list[Span]]:
        """Return the text of a valid conversation up to its last end token, and the spans of its answers.

        This takes one rendering if the template writes contents unchanged, which is verified, else one per answer.
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
                    f"the chat template of {self.name} renders an answer's prompt differently if turns follow it: "
                    "a conversation with several answers cannot be trained on; set branches: true"
                )
            answer = text[len(prompt) :].lstrip()
            if not answer.startswith(content):
                raise UserError(
                    f"the chat template of {self.name} writes {answer[:40]!r} where {content!r:.40} stands"
                )
            begin = len(text) - len(answer) + len(content)
            spans.append((len(prompt), begin + len(self._closing(text[begin:]))))
        return text[: spans[-1][1]] if spans else text, spans

    def _closing(self, tail: str) -> str:
        """Return what ends an answer: the beginning of `tail`, the text after it, through the end token."""
        rest = tail.lstrip()
        ends = [token for token in self.special_tokens if token and rest.startswith(token)]
        if not ends:
            raise UserError(f"the chat template of {self.name} writes no end token after an answer, but {rest[:40]!r}")
        return tail[: len(tail) - len(rest) + max(map(len, ends))]

    @property
    def end_token_id(self) -> int:
        """Id of the token that ends an answer; it may differ from the tokenizer's `eos_token` (Gemma)."""
        token_id = self.tokenizer.convert_tokens_to_ids(self.closing.lstrip())
        assert isinstance(token_id, int)
        return token_id

    def _layout(self, roles: tuple[str, ...]) -> Layout | None:
        """Find the layout for these roles by rendering distinct contents; None if the template changes contents."""
        contents = [f'["content-{index}."]' for index in range(len(roles))]
        messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
        text, spans = self._spans_by_prompts(messages)
        self._check_tokens(text, spans)
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

    def _check_tokens(self, text: str, spans: list[Span]) -> None:
        """Raise UserError if the tokens of a prompt depend on the answer after it: inference would see others."""
        ids = self.ids(text)
        for begin, _ in spans:
            prompt = self.ids(text[:begin])
            if ids[: len(prompt)] != prompt:
                raise UserError(
                    f"the tokenizer of {self.name} reads the end of a prompt {text[:begin][-20:]!r} differently when "
                    "an answer follows: its chat template cannot be trained exactly"
                )

    def ids(self, text: str) -> list[int]:
        """Token ids of a rendered text, which contains its special tokens."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]


def _answers(messages: list[Message]) -> range:
    """Indices of the answers: every assistant turn but the first, which acknowledges the passage."""
    return range(4 if messages[0]["role"] == "system" else 3, len(messages), 2)
