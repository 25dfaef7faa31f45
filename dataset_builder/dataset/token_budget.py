"""The token budget of a conversation: count its tokens, and split its queries so that nothing is truncated."""

from transformers import PreTrainedTokenizerFast

from command_line.pretrained import load_or_explain
from open_ner.conversation import Message, build_conversation, neutralize, passage_turns, write_answer, write_query
from open_ner.prompts import ChatTemplate, special_tokens
from open_ner.tools.errors import UserError

from ..corpus.cutting import load_tokenizer

AnsweredQuery = tuple[str, list[str]]  # a type, or its definition, and the strings of the answer

TURN_TOKENS = 8  # tokens around one message if there is no chat template; no template known to us needs more
SLACK = 8  # tokens by which the sum of the parts may differ from the whole, as tokens merge at the passage's edges
TURN_SLACK = 4  # the same for each query, if the template's markers are not tokens of their own
PROBES = [("U.S. state", ["Éire", "x y"]), ("c++", ["''"]), ("person", []), ("数", ["a", "b", '"'])]
REMEMBERED = 300_000  # contents whose count is cached


class TokenBudget:
    """At most `limit` tokens per conversation, counted with the student's tokenizer and chat template.

    The sum of the parts decides while it is well below the limit. Close to the limit the whole conversation is
    rendered and counted as in training: neutralize special tokens, apply the template, tokenize.
    """

    def __init__(self, tokenizer: str, limit: int) -> None:
        self.name, self.limit = tokenizer, limit
        self._tokenizer = load_tokenizer(tokenizer)
        pretrained = load_or_explain(PreTrainedTokenizerFast, tokenizer)
        self._template = ChatTemplate.from_tokenizer(pretrained) if pretrained.chat_template else None
        self.special = sorted(set(special_tokens(pretrained)))
        self._counts: dict[str, int] = {}
        first = self.exact(passage_turns("a"))
        self.opening = first - self.counts(["a"])[0]
        self.pair = 0
        around = [self.exact(build_conversation("a", [probe])) - first - self._cost(probe) for probe in PROBES]
        self.pair = max(around)
        whole = self.exact(build_conversation("a", PROBES))
        additive = len(set(around)) == 1 and whole == first + sum(map(self._cost, PROBES))
        self.turn_slack = 0 if additive else TURN_SLACK

    def counts(self, contents: list[str]) -> list[int]:
        """Count the tokens of each content by itself, with a cache."""
        new = list(dict.fromkeys(content for content in contents if content not in self._counts))
        if len(self._counts) + len(new) > REMEMBERED:
            self._counts.clear()
            new = list(dict.fromkeys(contents))
        safe = [message["content"] for message in neutralize([{"content": text} for text in new], self.special)]
        encodings = self._tokenizer.encode_batch_fast(safe, add_special_tokens=False)
        self._counts.update(zip(new, map(len, encodings), strict=True))
        return [self._counts[content] for content in contents]

    def _cost(self, query: AnsweredQuery) -> int:
        return sum(self.counts([write_query(query[0]), write_answer(query[1])])) + self.pair

    def exact(self, messages: list[Message]) -> int:
        """Count the tokens of a whole conversation as in training; UserError if the chat template refuses it."""
        messages = neutralize(messages, self.special)
        if self._template is None:
            encodings = self._tokenizer.encode_batch_fast([m["content"] for m in messages], add_special_tokens=False)
            return sum(map(len, encodings)) + TURN_TOKENS * len(messages)
        try:
            rendered = self._template.render(messages)
        except ValueError as error:
            raise UserError(str(error)) from None
        return len(self._tokenizer.encode(rendered, add_special_tokens=False).ids)

    def text_tokens(self, text: str, known: int | None) -> int:
        """Count the tokens of a passage; `known`, the corpus's count, is valid unless the text has special tokens."""
        if known is not None and not any(token in text for token in self.special):
            return known
        (safe,) = neutralize([{"content": text}], self.special)
        return len(self._tokenizer.encode(safe["content"], add_special_tokens=False).ids)

    def spread(
        self, text: str, tokens: int, queries: list[AnsweredQuery], costs: list[int], dataset: str | None = None
    ) -> tuple[list[list[AnsweredQuery]], list[AnsweredQuery]]:
        """Split queries into parts that each fit into a conversation with the passage.

        Args:
            text: the passage.
            tokens: its tokens.
            queries: the queries in the order asked.
            costs: tokens of each query's text and answer, without the template's tokens around the two turns.
            dataset: name in the line `Dataset: {name}`.

        Returns:
            The parts, and the queries that are too long for any.
        """
        header = self.counts([f"Dataset: {dataset}\n"])[0] if dataset else 0
        room = self.limit - self.opening - header - tokens
        costs = [cost + self.pair for cost in costs]
        too_long: set[int] = set()
        while True:
            parts = _pack([i for i in range(len(queries)) if i not in too_long], costs, room)
            excess = 0
            for part in parts:
                estimate = sum(costs[i] for i in part)
                if estimate + SLACK + self.turn_slack * len(part) <= room:
                    continue
                real = self.exact(build_conversation(text, [queries[i] for i in part], dataset))
                if real > self.limit and len(part) == 1:
                    too_long.add(part[0])
                elif real > self.limit:
                    excess = max(excess, room - estimate + 1)
            if not excess:
                fitting = [part for part in parts if part[0] not in too_long]
                return [[queries[i] for i in part] for part in fitting], [queries[i] for i in sorted(too_long)]
            room -= excess


def _pack(order: list[int], costs: list[int], room: int) -> list[list[int]]:
    """Split `order` into runs whose costs sum to at most `room`; an item that costs more gets its own run."""
    parts: list[list[int]] = []
    left = -1
    for i in order:
        if costs[i] > left:
            parts.append([])
            left = room
        parts[-1].append(i)
        left -= costs[i]
    return parts
