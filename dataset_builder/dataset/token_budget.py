"""The token budget of a conversation: queries are split over several conversations so that nothing is truncated."""

import bisect

from transformers import PreTrainedTokenizerFast

from command_line.pretrained import load_or_explain
from open_ner.conversation import Message, build_conversation, neutralize, passage_turns
from open_ner.prompts import ChatTemplate, special_tokens
from open_ner.tools.errors import UserError

from ..corpus.cutting import load_tokenizer

AnsweredQuery = tuple[str, list[str]]  # a type, or its definition, and the strings of the answer

TURN_TOKENS = 8  # tokens added per message without a chat template; no template known to us needs more


class TokenBudget:
    """A limit in tokens per conversation, counted as in training: by the student's tokenizer and chat template.

    Raises:
        UserError: the tokenizer cannot be loaded, or its chat template rejects the dialogue.
    """

    def __init__(self, tokenizer: str, limit: int) -> None:
        self.limit = limit
        self._tokenizer = load_tokenizer(tokenizer)
        pretrained = load_or_explain(PreTrainedTokenizerFast, tokenizer)
        self._template = ChatTemplate.from_tokenizer(pretrained) if pretrained.chat_template else None
        self._special = set(special_tokens(pretrained))
        self.count(passage_turns("a"))  # fails here if the template rejects the dialogue

    def count(self, messages: list[Message]) -> int:
        """Count the tokens of a conversation; without a chat template this is an upper bound."""
        messages = neutralize(messages, self._special)
        if self._template is None:
            encodings = self._tokenizer.encode_batch_fast([m["content"] for m in messages], add_special_tokens=False)
            return sum(map(len, encodings)) + TURN_TOKENS * len(messages)
        try:
            rendered = self._template.render(messages)
        except ValueError as error:
            raise UserError(str(error)) from None
        return len(self._tokenizer.encode_batch_fast([rendered], add_special_tokens=False)[0])

    def split(
        self, text: str, queries: list[AnsweredQuery], dataset: str | None = None
    ) -> tuple[list[list[AnsweredQuery]], list[AnsweredQuery]]:
        """Split queries into parts that each fit into a conversation with the passage, as few as possible.

        Args:
            text: the passage.
            queries: the queries in the order asked.
            dataset: name in the line `Dataset: {name}`.

        Returns:
            The parts, and the queries that are too long for any.
        """

        def tokens(part: list[AnsweredQuery]) -> int:
            return self.count(build_conversation(text, part, dataset))

        parts, too_long, rest = [], [], list(queries)
        while rest:
            fitting = len(rest)
            if tokens(rest) > self.limit:
                sizes = range(1, len(rest))
                fitting = bisect.bisect_right(sizes, self.limit, key=lambda size: tokens(rest[:size]))
            if fitting < len(rest) and tokens([rest[fitting]]) > self.limit:
                too_long.append(rest.pop(fitting))
            else:
                parts.append(rest[:fitting])
                del rest[:fitting]
        return parts, too_long
