"""The student's window: how many tokens a conversation has, and how its queries are spread so that nothing is cut."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from open_ner.conversation import Message, build_conversation, neutralize, passage_turns, write_answer, write_query
from open_ner.tools.errors import UserError

from ..corpus.cutting import load_tokenizer

Query = tuple[str, list[str]]

TURN_TOKENS = 8  # markers around one message where no chat template says how many; none known to us needs more
SLACK = 8  # tokens by which the sum of the parts may miss the whole: a passage may melt into what stands before it
TURN_SLACK = 4  # and for each query, where the markers of the template are no tokens of their own
PROBES = [("U.S. state", ["Éire", "x y"]), ("c++", ["''"]), ("person", []), ("数", ["a", "b", '"'])]
REMEMBERED = 300_000  # contents whose count is kept


class TokenBudget:
    """At most `limit` tokens, as the student's own tokenizer and chat template make them.

    Far from the limit the sum of the parts is enough; near it the whole conversation is rendered and counted, with the
    very steps of training: special tokens in contents neutralized, template, tokenizer.
    """

    def __init__(self, tokenizer: str, limit: int) -> None:
        self.name, self.limit = tokenizer, limit
        self._tokenizer = load_tokenizer(tokenizer)
        self._render, specials = _chat_template(tokenizer)
        added = self._tokenizer.get_added_tokens_decoder().values()
        self.special = sorted({token.content for token in added} | specials)
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
        """Tokens of each content by itself; what is asked often is remembered."""
        new = list(dict.fromkeys(content for content in contents if content not in self._counts))
        if len(self._counts) + len(new) > REMEMBERED:
            self._counts.clear()
            new = list(dict.fromkeys(contents))
        safe = [message["content"] for message in neutralize([{"content": text} for text in new], self.special)]
        encodings = self._tokenizer.encode_batch_fast(safe, add_special_tokens=False)
        self._counts.update(zip(new, map(len, encodings), strict=True))
        return [self._counts[content] for content in contents]

    def _cost(self, query: Query) -> int:
        return sum(self.counts([write_query(query[0]), write_answer(query[1])])) + self.pair

    def exact(self, messages: list[Message]) -> int:
        """Tokens of a whole conversation as it is trained on."""
        messages = neutralize(messages, self.special)
        if self._render is None:
            encodings = self._tokenizer.encode_batch_fast([m["content"] for m in messages], add_special_tokens=False)
            return sum(map(len, encodings)) + TURN_TOKENS * len(messages)
        return len(self._tokenizer.encode(self._render(messages), add_special_tokens=False).ids)

    def text_tokens(self, text: str, known: int | None) -> int:
        """Tokens of a passage; `known` is what its corpus counted, good as long as no special token is in it."""
        if known is not None and not any(token in text for token in self.special):
            return known
        (safe,) = neutralize([{"content": text}], self.special)
        return len(self._tokenizer.encode(safe["content"], add_special_tokens=False).ids)

    def spread(
        self, text: str, tokens: int, queries: list[Query], costs: list[int], dataset: str | None = None
    ) -> tuple[list[list[Query]], list[Query]]:
        """Queries in as many parts as it takes for each to fit with the passage, and those that fit with none.

        `tokens` are the passage's, `costs` the queries' without what stands around their two turns.
        """
        header = self.counts([f"Dataset: {dataset}\n"])[0] if dataset else 0
        budget = self.limit - self.opening - header - tokens
        costs = [cost + self.pair for cost in costs]
        too_long: set[int] = set()
        while True:
            parts = _pack([i for i in range(len(queries)) if i not in too_long], costs, budget)
            excess = 0
            for part in parts:
                estimate = sum(costs[i] for i in part)
                if estimate + SLACK + self.turn_slack * len(part) <= budget:
                    continue
                real = self.exact(build_conversation(text, [queries[i] for i in part], dataset))
                if real > self.limit and len(part) == 1:
                    too_long.add(part[0])
                elif real > self.limit:
                    excess = max(excess, budget - estimate + 1)
            if not excess:
                fitting = [part for part in parts if part[0] not in too_long]
                return [[queries[i] for i in part] for part in fitting], [queries[i] for i in sorted(too_long)]
            budget -= excess


def _pack(order: list[int], costs: list[int], budget: int) -> list[list[int]]:
    """Runs of `order` whose costs sum to `budget` at most; what exceeds it by itself stands alone."""
    parts: list[list[int]] = []
    room = -1
    for i in order:
        if costs[i] > room:
            parts.append([])
            room = budget
        parts[-1].append(i)
        room -= costs[i]
    return parts


def _chat_template(name: str) -> tuple[Callable[[list[Message]], str] | None, set[str]]:
    """What renders messages as the student's chat template does, None where it has none; and its special tokens."""
    config = _read_file(name, "tokenizer_config.json")
    settings: dict[str, Any] = json.loads(config) if config else {}
    named = {key: value for key, value in settings.items() if key.endswith("_token")}
    tokens = {key: value["content"] if isinstance(value, dict) else value for key, value in named.items() if value}
    tokens = {key: value for key, value in tokens.items() if isinstance(value, str)}
    template = _read_file(name, "chat_template.jinja") or settings.get("chat_template")
    if isinstance(template, list):  # several by name
        template = next((entry["template"] for entry in template if entry["name"] == "default"), None)
    if not template:
        return None, set(tokens.values())
    from open_ner.prompts import ChatTemplate  # loads transformers

    chat = ChatTemplate(template, tokens, name)

    def render(messages: list[Message]) -> str:
        try:
            return chat.render(messages)
        except ValueError as error:
            raise UserError(str(error)) from None

    return render, set(tokens.values())


def _read_file(name: str, file: str) -> str | None:
    """A file of the tokenizer, a folder or a Hub id; None where it has no such file."""
    path = Path(name) / file
    if not Path(name).is_dir():
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        try:
            path = Path(hf_hub_download(name, file))
        except (EntryNotFoundError, LocalEntryNotFoundError):
            return None
    return path.read_text(encoding="utf-8") if path.exists() else None
