"""A decoded answer, the score of each of its strings, and the spans of the strings in the text."""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TypedDict

from .conversation import Occurrences, find_spans

JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
OPENING, COMMA = re.compile(r"\s*\[\s*"), re.compile(r"\s*,\s*")


class Entity(TypedDict):
    """A typed span of a text: `text[start:end] == word`. The keys are those of transformers' aggregated `ner` results.

    `score` is a probability in [0, 1], or None if a server gives no token probabilities.
    """

    entity_group: str
    word: str
    start: int
    end: int
    score: float | None


@dataclass
class Answer:
    """A decoded answer: the raw text, its tokens with their log-probabilities, and how it ended."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)  # empty if unknown: the strings then have no score
    ends: list[int] = field(default_factory=list)  # for each token, the length of `text` after it
    complete: bool = False  # the answer ended by itself
    presence: float | None = None  # log-odds that the type occurs; see `Decoder.answer`
    cut: bool = False  # the answer was cut at max_new_tokens

    def scored_strings(self) -> list[tuple[str, float | None]]:
        """Return the distinct strings of the answer as `(string, score)`, up to the first fault of its JSON.

        The score, in [0, 1], is a product: the probability of the tokens up to the first quote (`["`, one token or
        two), where the student decides whether the type occurs at all, times the geometric mean of the probabilities
        of the string's own tokens, with its quotes. It is None if there are no log-probabilities. Strings of white
        space are left out.
        """
        scores: dict[str, float | None] = {}
        occurs = sum(self._within(-1, self.text.find('"') + 1))
        place = OPENING.match(self.text)
        while place and (item := JSON_STRING.match(self.text, place.end())):
            try:
                string = json.loads(item[0], strict=False)
            except ValueError:  # a broken escape
                break
            own = self._within(*item.span())
            if string.strip():
                scores.setdefault(string, math.exp(occurs + sum(own) / len(own)) if own else None)
            place = COMMA.match(self.text, item.end())
        return list(scores.items())

    def _within(self, start: int, end: int) -> list[float]:
        """The log-probabilities of the tokens that write any part of `text[start:end]`; none if they are unknown."""
        spans = zip(self.logprobs, [0, *self.ends], self.ends, strict=False)  # none without log-probabilities
        return [value for value, a, b in spans if a < end and b > start]


def to_entities(
    text: str, entity_type: str, answer: Answer, occurrences: Occurrences, temperature: float = 1.0, bias: float = 0.0
) -> list[Entity]:
    """Return the spans of one answer; a string that does not occur in the text gives none."""
    return [
        {"entity_group": entity_type, "word": text[start:end], "start": start, "end": end, "score": score}
        for string, raw in answer.scored_strings()
        for score in [None if raw is None else calibrate(raw, temperature, bias)]
        for start, end in find_spans(text, string, occurrences)
    ]


def end_of_repeat(written: str) -> int | None:
    """Return the end of the first repeated string, or None; an answer ends there, because it would go on repeating."""
    seen: set[str] = set()
    for string in JSON_STRING.finditer(written):
        if string[0] in seen:
            return string.end()
        seen.add(string[0])
    return None


def token_ends(pieces: Iterable[bytes]) -> list[int]:
    """Return how many characters have begun by the end of each token; `pieces` are the bytes of the tokens."""
    return list(accumulate(sum(byte & 0xC0 != 0x80 for byte in piece) for piece in pieces))


def calibrate(score: float, temperature: float = 1.0, bias: float = 0.0) -> float:
    """Turn a score in [0, 1] into the probability that its span is right: its logit over `temperature`, plus `bias`.

    Both are fitted on held-out data (`python -m zero_shot.calibration`). The order of scores does not change.
    """
    if not 0 < score < 1 or (temperature, bias) == (1.0, 0.0):
        return score
    logit = math.log(score) - math.log1p(-score)
    return 0.5 * (1 + math.tanh((logit / temperature + bias) / 2))  # the logistic function, without overflow
