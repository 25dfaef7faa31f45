"""The token budget of a conversation: queries are split over several conversations so that nothing is truncated."""

import bisect
from itertools import chain, islice

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
        return self.count_all([messages])[0]

    def count_all(self, conversations: list[list[Message]]) -> list[int]:
        """Count the tokens of several conversations, on all cores."""
        neutral = [neutralize(messages, self._special) for messages in conversations]
        try:
            texts = [self._render(messages) for messages in neutral]
        except ValueError as error:
            raise UserError(str(error)) from None
        encodings = self._tokenizer.encode_batch_fast(list(chain(*texts)), add_special_tokens=False)
        lengths = map(len, encodings)
        marks = 0 if self._template else TURN_TOKENS
        return [sum(islice(lengths, len(own))) + marks * len(own) for own in texts]

    def _render(self, messages: list[Message]) -> list[str]:
        """Return the text of a conversation, or that of each message without a chat template."""
        return [self._template.render(messages)] if self._template else [message["content"] for message in messages]

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
