"""An answer as it was decoded, and how sure the student was of each string in it."""

import json
import math
import re
from dataclasses import dataclass, field

from .conversation import read_answer

JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


@dataclass
class Answer:
    """A decoded answer: the raw text, its tokens with their log-probabilities, and whether it came to its own end."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)  # characters of `text` written when each token was
    complete: bool = False

    def scored_strings(self) -> list[tuple[str, float]] | None:
        """`(string, score)` for each string of the answer, or None when the answer is no JSON list of strings.

        The score, in [0, 1], is the probability of the tokens up to the first quote (`["`, one token or two: here the
        student decides whether the type occurs at all) times the geometric mean of the probabilities of the string's
        own tokens, its quotes included. White space alone is no entity.
        """
        strings = read_answer(self.text)
        if strings is None:
            return None
        scores: dict[str, float] = {}
        for match in JSON_STRING.finditer(self.text):
            string = json.loads(match[0])
            scores.setdefault(string, self._score(*match.span()))
        return [(string, scores.get(string, 0.0)) for string in strings if string.strip()]

    def _score(self, start: int, end: int) -> float:
        begins = [0, *self.ends[:-1]]
        occurs = [p for p, begin in zip(self.logprobs, begins, strict=True) if begin <= self.text.find('"')]
        own = [p for p, a, b in zip(self.logprobs, begins, self.ends, strict=True) if a < end and b > start]
        return math.exp(sum(occurs) + sum(own) / len(own)) if own else 0.0


def calibrate(score: float, temperature: float = 1.0, bias: float = 0.0) -> float:
    """A score in [0, 1] as the probability that its span is right: its logit over `temperature`, plus `bias`.

    Both are fitted on held-out data (`python -m zero_shot.calibration`). The order of scores stays as it is; without
    them a score is what the student's own tokens say.
    """
    if not 0 < score < 1 or (temperature, bias) == (1.0, 0.0):
        return score
    logit = math.log(score) - math.log1p(-score)
    return 0.5 * (1 + math.tanh((logit / temperature + bias) / 2))  # the logistic function, without overflow
