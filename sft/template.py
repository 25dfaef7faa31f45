"""A chat template as training uses it: the text of a conversation, and which characters of it are learned.

Inference renders the turns before an answer with `add_generation_prompt=True` and generates up to the end token
(open_ner/decoding.py). Training therefore learns what the template writes from the end of that prompt to the end of
that token. A template may render the last answer of a conversation differently: Qwen3 adds an empty think block, which
no prompt contains. A user turn is therefore appended before rendering and cut off afterwards.
"""

from transformers import PreTrainedTokenizerBase

from open_ner.conversation import Message, Span, build_conversation
from open_ner.prompts import ChatTemplate, special_tokens
from open_ner.tools.errors import UserError

PROBE = build_conversation("a", [("b", ["c"])])
NEXT = {"role": "user", "content": "next"}


class Template:
    """The chat template of a tokenizer. Raises UserError if training on it would differ from inference."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer, self.name = tokenizer, tokenizer.name_or_path
        if tokenizer.chat_template is None:
            raise UserError(f"{self.name} has no chat template: load it by sft.tokenizer.load_tokenizer")
        self.template = ChatTemplate.from_tokenizer(tokenizer)
        self.special_tokens = set(special_tokens(tokenizer))
        content, prompt = PROBE[-1]["content"], self.render(PROBE[:-1], prompt=True)
        text = self.render([*PROBE, NEXT])
        begin = text.rfind(content)
        if begin < 0:
            raise UserError(f"the chat template of {self.name} writes {text[-60:]!r} where {content!r} stands")
        self.closing = self._closing(text[begin + len(content) :])
        # white space between prompt and answer, as after `ASSISTANT:`; other text (a channel, thoughts) is left out
        between = text[len(prompt) : begin] if text.startswith(prompt) else ""
        self.lead = "" if between.strip() else between
        whole, ids = (
            tokenizer(part, add_special_tokens=False)["input_ids"] for part in (self.single(PROBE)[0], prompt)
        )
        if whole[: len(ids)] != ids:
            raise UserError(
                f"the tokenizer of {self.name} reads the end of a prompt {prompt[-20:]!r} differently when an answer "
                "follows: its chat template cannot be trained exactly"
            )

    def render(self, messages: list[Message], prompt: bool = False) -> str:
        """Return the text of the messages; `prompt` adds the opening of an assistant turn."""
        try:
            return self.template.render(messages, prompt)
        except ValueError as error:
            raise UserError(str(error)) from None

    def single(self, messages: list[Message]) -> tuple[str, list[Span]]:
        """Return the text of a conversation with one query, and the span of its answer; works with any template.

        The text is the prompt of inference, the answer and its end token.
        """
        prompt = self.render(messages[:-1], prompt=True)
        text = prompt + self.lead + messages[-1]["content"] + self.closing
        return text, [(len(prompt), len(text))]

    def spans(self, messages: list[Message]) -> tuple[str, list[Span]]:
        """Return the text of a valid conversation up to its last end token, and the spans of its answers."""
        text = self.render([*messages, NEXT])
        spans = []
        for index in range(4 if messages[0]["role"] == "system" else 3, len(messages), 2):
            prompt, content = self.render(messages[:index], prompt=True), messages[index]["content"]
            if not text.startswith(prompt):
                raise UserError(
                    f"the chat template of {self.name} renders an answer's prompt differently if turns follow it: "
                    "a conversation with several answers cannot be trained on; set branches: true"
                )
            begin = text.find(content, len(prompt)) + len(content)
            if text[len(prompt) : begin].strip() != content:
                raise UserError(f"the chat template of {self.name} changes {content!r:.40}: set branches: true")
            spans.append((len(prompt), begin + len(self._closing(text[begin:]))))
        return text[: spans[-1][1]] if spans else text, spans

    def _closing(self, tail: str) -> str:
        """Return the beginning of `tail`, the text after an answer, up to and including the end token."""
        rest = tail.lstrip()
        ends = [token for token in self.special_tokens if token and rest.startswith(token)]
        if not ends:
            raise UserError(f"the chat template of {self.name} writes no end token after an answer, but {rest[:40]!r}")
        return tail[: len(tail) - len(rest) + max(map(len, ends))]

    @property
    def end_token_id(self) -> int:
        """The id of the token that ends an answer; it may differ from the tokenizer's `eos_token` (Gemma)."""
        token_id = self.tokenizer.convert_tokens_to_ids(self.closing.lstrip())
        assert isinstance(token_id, int)
        return token_id
