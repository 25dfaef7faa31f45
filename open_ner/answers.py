"""A decoded answer, the student's confidence in each of its strings, and the spans that the strings stand for."""

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TypedDict

from .conversation import Occurrences, find_spans

JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
OPENING, COMMA = re.compile(r"\s*\[\s*"), re.compile(r"\s*,\s*")
ScoredStrings = list[tuple[str, float | None]]  # None if the server gave no token probabilities


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
    """A decoded answer: the raw text, its tokens with their log-probabilities, and whether it ended by itself."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)  # empty if unknown: the strings then have no score
    ends: list[int] = field(default_factory=list)  # for each token, the length of `text` after it
    complete: bool = False
    presence: float | None = None  # log-odds that the type occurs: 1 minus the probability of the empty answer

    def scored_strings(self) -> ScoredStrings:
        """Return the distinct strings of the answer as `(string, score)`; of a list that was cut, the whole ones.

        The score, in [0, 1], is a product: the probability of the tokens up to the first quote (`["`, one token or
        two), where the student decides whether the type occurs at all, times the geometric mean of the probabilities
        of the string's own tokens, with its quotes. Strings of white space are left out.
        """
        scores: dict[str, float | None] = {}
        occurs = sum(self._within(-1, self.text.find('"') + 1))
        for string, start, end in read_items(self.text):
            own = self._within(start, end)
            if string.strip():
                scores.setdefault(string, math.exp(occurs + sum(own) / len(own)) if own else None)
        return list(scores.items())

    def _within(self, start: int, end: int) -> list[float]:
        """The log-probabilities of the tokens that write any part of `text[start:end]`; none if they are unknown."""
        if not self.logprobs:
            return []
        spans = zip(self.logprobs, [0, *self.ends[:-1]], self.ends, strict=True)
        return [value for value, a, b in spans if a < end and b > start]


def read_items(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield the strings of a JSON list with their places in `text`, quotes included, up to the first fault."""
    place = OPENING.match(text)
    while place and (item := JSON_STRING.match(text, place.end())):
        try:
            string = json.loads(item[0], strict=False)
        except ValueError:  # a broken escape
            return
        yield string, *item.span()
        place = COMMA.match(text, item.end())


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


def token_ends(pieces: Iterable[bytes]) -> list[int]:
    """Return how many characters have begun after each token, from the tokens' bytes: one may end in a character."""
    return list(accumulate(sum(byte & 0xC0 != 0x80 for byte in piece) for piece in pieces))


def calibrate(score: float, temperature: float = 1.0, bias: float = 0.0) -> float:
    """Turn a score in [0, 1] into the probability that its span is right: its logit over `temperature`, plus `bias`.

    Both are fitted on held-out data (`python -m zero_shot.calibration`). The order of scores does not change.
    """
    if not 0 < score < 1 or (temperature, bias) == (1.0, 0.0):
        return score
    logit = math.log(score) - math.log1p(-score)
    return 0.5 * (1 + math.tanh((logit / temperature + bias) / 2))  # the logistic function, without overflow
