"""An answer as it was decoded, and how sure the student was of each string in it."""

import json
import math
import re
from dataclasses import dataclass, field

from .conversation import read_answer, write_answer

JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
FORCED = 0.5  # chosen by strict F1 on held-out distilled passages; bounds from 0.25 to 0.6 differ little there


@dataclass
class Answer:
    """A decoded answer: the raw text, its tokens with their log-probabilities, and whether it came to its own end."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)  # characters of `text` written when each token was
    complete: bool = False
    deficits: list[float] = field(default_factory=list)  # grounded: of each token, from the student's own best choice
    own: list[tuple[str, float]] | None = None  # `scored_strings`, once forced ones were taken out of the text

    def scored_strings(self) -> list[tuple[str, float]] | None:
        """`(string, score)` for each string of the answer, or None when the answer is no JSON list of strings.

        The score, in [0, 1], is the probability of the tokens up to the first quote (`["`, one token or two: here the
        student decides whether the type occurs at all) times the geometric mean of the probabilities of the string's
        own tokens, its quotes included. White space alone is no entity.
        """
        if self.own is not None:
            return self.own
        strings = read_answer(self.text)
        if strings is None:
            return None
        scores: dict[str, float] = {}
        for match in JSON_STRING.finditer(self.text):
            string = json.loads(match[0])
            scores.setdefault(string, self._score(*match.span()))
        return [(string, scores.get(string, 0.0)) for string in strings if string.strip()]

    def drop_forced(self) -> None:
        """Take out of a grounded answer the strings that the grammar forced on the student.

        A student that begins a string which the passage does not hold can only go on with one that it does. What it
        writes then is less likely than what it would have written: the ratio of the two, token by token, is in the
        geometric mean below `FORCED`. Of a string that it chose itself the ratio is 1; "italian" for "Italian" stays.
        """
        forced = {json.loads(m[0]) for m in JSON_STRING.finditer(self.text) if self._ratio(*m.span()) < FORCED}
        if forced:
            self.own = [(string, score) for string, score in self.scored_strings() or [] if string not in forced]
            self.text = write_answer([string for string, _ in self.own])

    def _score(self, start: int, end: int) -> float:
        occurs = self._within(self.logprobs, -1, self.text.find('"') + 1)
        own = self._within(self.logprobs, start, end)
        return math.exp(sum(occurs) + sum(own) / len(own)) if own else 0.0

    def _ratio(self, start: int, end: int) -> float:
        own = self._within(self.deficits, start, end)
        return math.exp(-sum(own) / len(own)) if own else 1.0

    def _within(self, values: list[float], start: int, end: int) -> list[float]:
        """The values of the tokens that write any of `text[start:end]`."""
        spans = zip(values, [0, *self.ends[:-1]], self.ends, strict=True)
        return [value for value, a, b in spans if a < end and b > start]


def calibrate(score: float, temperature: float = 1.0, bias: float = 0.0) -> float:
    """A score in [0, 1] as the probability that its span is right: its logit over `temperature`, plus `bias`.

    Both are fitted on held-out data (`python -m zero_shot.calibration`). The order of scores stays as it is; without
    them a score is what the student's own tokens say.
    """
    if not 0 < score < 1 or (temperature, bias) == (1.0, 0.0):
        return score
    logit = math.log(score) - math.log1p(-score)
    return 0.5 * (1 + math.tanh((logit / temperature + bias) / 2))  # the logistic function, without overflow
