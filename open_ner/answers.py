"""A decoded answer, the student's confidence in each of its strings, and the spans that the strings stand for."""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TypedDict

from .conversation import Occurrences, find_spans, read_answer, write_answer

JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
FORCED = 0.5  # chosen by strict F1 on held-out distilled passages; bounds from 0.25 to 0.6 differ little there
ScoredStrings = list[tuple[str, float | None]]


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
    deficits: list[float] = field(default_factory=list)  # grounded: for each token, logprob of the best one minus its
    own: ScoredStrings | None = None  # `scored_strings()`, once `drop_forced` has removed strings from the text

    def scored_strings(self) -> ScoredStrings | None:
        """Return `(string, score)` for each string of the answer, or None if it is not a JSON list of strings.

        The score, in [0, 1], is a product: the probability of the tokens up to the first quote (`["`, one token or
        two), where the student decides whether the type occurs at all, times the geometric mean of the probabilities
        of the string's own tokens, with its quotes. Strings of white space are left out.
        """
        strings = read_answer(self.text)
        if self.own is not None or strings is None:
            return self.own
        scores: dict[str, float] = {}
        if self.logprobs:
            occurs = sum(self._within(self.logprobs, -1, self.text.find('"') + 1))
            for match in JSON_STRING.finditer(self.text):
                own = self._within(self.logprobs, *match.span())
                scores.setdefault(json.loads(match[0]), math.exp(occurs + sum(own) / len(own)) if own else 0.0)
        return [(each, scores.get(each, 0.0 if self.logprobs else None)) for each in strings if each.strip()]

    def drop_forced(self) -> None:
        """Remove from a grounded answer the strings that the grammar forced on the student.

        A student that begins a string which is not in the passage must continue with one that is. The tokens it then
        writes are less likely than those it preferred: the geometric mean of their ratios is below `FORCED`. For a
        string that the student chose by itself the ratio is 1; "italian" for "Italian" is kept.
        """
        found = [(match[0], self._within(self.deficits, *match.span())) for match in JSON_STRING.finditer(self.text)]
        forced = {json.loads(string) for string, lost in found if lost and math.exp(-sum(lost) / len(lost)) < FORCED}
        if forced:
            self.own = [(string, score) for string, score in self.scored_strings() or [] if string not in forced]
            self.text = write_answer([string for string, _ in self.own])

    def _within(self, values: list[float], start: int, end: int) -> list[float]:
        """The values of the tokens that write any part of `text[start:end]`."""
        spans = zip(values, [0, *self.ends[:-1]], self.ends, strict=True)
        return [value for value, a, b in spans if a < end and b > start]


def to_entities(
    text: str, entity_type: str, answer: Answer, occurrences: Occurrences, temperature: float = 1.0, bias: float = 0.0
) -> list[Entity]:
    """Return the spans of one answer; a string that does not occur in the text gives none."""
    return [
        {"entity_group": entity_type, "word": text[start:end], "start": start, "end": end, "score": score}
        for string, raw in answer.scored_strings() or []
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
