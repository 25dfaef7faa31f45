"""Entity F1 for open named entity recognition: the published scorer, and a strict one over character offsets.

This file imports nothing of the project, so `evaluate.load` can load it from its folder or from a Hub Space. Imports
of packages stay on lines of their own, because `evaluate` looks for dependencies line by line.
"""

import json
import re
import string
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import datasets
import evaluate

_DESCRIPTION = """\
Entity-level micro precision, recall and F1 for named entity recognition with an open set of types.

"strict" (the default) compares exact character spans and types, as sets, passage by passage.
"official" compares two reply strings, each a JSON list of mentions, query by query (one passage and one type). It
returns the numbers of the UniversalNER authors' scorer, including its defects, so results can be compared with theirs.
"partial" ignores types and gives half a credit for a span that only overlaps a gold one; "type-only" accepts any
overlap with the right type; "boundary-only" accepts the exact span with any type. They are nervaluate's schemes
partial, ent_type and exact, except that each gold entity matches at most one prediction.
"""

_CITATION = """\
@inproceedings{zhou2024universalner,
    title={Universal{NER}: Targeted Distillation from Large Language Models for Open Named Entity Recognition},
    author={Wenxuan Zhou and Sheng Zhang and Yu Gu and Muhao Chen and Hoifung Poon},
    booktitle={The Twelfth International Conference on Learning Representations},
    year={2024},
    eprint={2308.03279},
    archivePrefix={arXiv},
    url={https://arxiv.org/abs/2308.03279}
}
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: for each passage, a list of `{"start", "end", "type"}`, offsets in characters, `end` exclusive; `[]`
        for a passage without entities. "official": for each query, the reply as the model wrote it.
    references: the gold, in the same form and order.

Returns:
    precision, recall, f1: between 0 and 1, micro-averaged over all passages or queries; 0.0 if a ratio is undefined.
        "official" adds 1e-10 to every denominator instead, so its f1 never reaches 1.
    tp, n_pred, n_gold: the counts behind them; tp of "partial" is a multiple of 0.5.

Examples:
    >>> import evaluate
    >>> metric = evaluate.load("metrics/entity_f1")
    >>> paris = {"start": 0, "end": 5, "type": "city"}
    >>> rome = {"start": 10, "end": 14, "type": "city"}
    >>> metric.compute(predictions=[[paris], []], references=[[paris, rome], []])
    {'precision': 1.0, 'recall': 0.5, 'f1': 0.6666666666666666, 'tp': 1, 'n_pred': 1, 'n_gold': 2}

    >>> metric = evaluate.load("metrics/entity_f1", "official")
    >>> scores = metric.compute(predictions=['["paris"]', "[]"], references=['["Paris", "Rome"]', "[]"])
    >>> {name: round(score, 4) for name, score in scores.items()}
    {'precision': 1.0, 'recall': 0.5, 'f1': 0.6667, 'tp': 1, 'n_pred': 1, 'n_gold': 2}
"""

CONFIGS = ("strict", "official", "partial", "type-only", "boundary-only")

Entities = Iterable[Mapping[str, int | str]]
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_FIRST_LIST = re.compile(r"\[.*?\]")  # lazy and without DOTALL: ends at the first `]`, on one line


@dataclass(frozen=True)
class Counts:
    """Numbers of correct (`tp`), predicted and gold entities; `sum(several, Counts())` adds them up."""

    tp: float = 0
    n_pred: int = 0
    n_gold: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        """Add two counts, as in micro-averaging."""
        return Counts(self.tp + other.tp, self.n_pred + other.n_pred, self.n_gold + other.n_gold)


def official_counts(prediction: str, reference: str) -> Counts:
    """Count the mentions of one (passage, type) query as the UniversalNER authors do.

    Only the prediction is stripped, as in their code. A reply that their parser cannot read counts as `[]`.
    """
    predicted, gold = _official_mentions(prediction.strip()), _official_mentions(reference)
    return Counts(len(predicted & gold), len(predicted), len(gold))


def strict_counts(prediction: Entities, reference: Entities) -> Counts:
    """Count the entities of one passage; an entity is correct if a gold one has the same start, end and type.

    Each entity has `start` and `end` (characters, `end` exclusive) and `type`; `compute` rejects other keys. Repeated
    entities count once.
    """
    predicted, gold = _spans(prediction), _spans(reference)
    return Counts(len(predicted & gold), len(predicted), len(gold))


def overlap_counts(prediction: Entities, reference: Entities) -> dict[str, Counts]:
    """Count one passage under "partial", "type-only" and "boundary-only"; entities are as in `strict_counts`.

    Predictions are matched to gold entities one to one, best matches first: same span and type, same span, overlap
    with the same type, any overlap. A second prediction of the same gold entity is wrong, because open NER asks type
    by type and often returns one span for several types.
    """
    predicted, gold = sorted(_spans(prediction)), sorted(_spans(reference))
    n_pred, n_gold = len(predicted), len(gold)
    tp = dict.fromkeys(("partial", "type-only", "boundary-only"), 0.0)
    for same_span, same_type in ((True, True), (True, False), (False, True), (False, False)):
        for entity in list(predicted):
            start, end, kind = entity
            for other in gold:
                matches = other[:2] == (start, end) if same_span else other[0] < end and start < other[1]
                if matches and (other[2] == kind or not same_type):
                    predicted.remove(entity)
                    gold.remove(other)
                    tp["partial"] += 1.0 if same_span else 0.5
                    tp["type-only"] += other[2] == kind
                    tp["boundary-only"] += same_span
                    break
    return {scheme: Counts(value, n_pred, n_gold) for scheme, value in tp.items()}


def f1_official(counts: Counts) -> dict[str, float]:
    """Compute precision, recall and f1 with the authors' 1e-10 in every denominator, so f1 is always below 1."""
    precision, recall = counts.tp / (counts.n_pred + 1e-10), counts.tp / (counts.n_gold + 1e-10)
    f1 = 2 * precision * recall / (precision + recall + 1e-10)
    return {"precision": precision, "recall": recall, "f1": f1, **asdict(counts)}


def f1_strict(counts: Counts) -> dict[str, float]:
    """Compute precision, recall and f1; a ratio with denominator 0 is 0.0."""
    precision = counts.tp / counts.n_pred if counts.n_pred else 0.0
    recall = counts.tp / counts.n_gold if counts.n_gold else 0.0
    f1 = 2 * counts.tp / (counts.n_pred + counts.n_gold) if counts.n_pred + counts.n_gold else 0.0
    return {"precision": precision, "recall": recall, "f1": f1, **asdict(counts)}


def _official_mentions(reply: str) -> set[str]:
    """Return the distinct normalized mentions of a reply; none if the list is not JSON or an item is not a string."""
    match = _FIRST_LIST.match(reply)
    try:
        items = json.loads(match[0]) if match else []
    except (ValueError, RecursionError):
        return set()
    if not all(isinstance(item, str) for item in items):
        return set()
    # lower-case, remove ASCII punctuation, remove articles, merge spaces, in this order; the result may be empty
    return {" ".join(_ARTICLES.sub(" ", item.lower().translate(_PUNCTUATION)).split()) for item in items}


def _spans(entities: Entities) -> set[tuple]:
    return {(entity["start"], entity["end"], entity["type"]) for entity in entities}


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class EntityF1(evaluate.Metric):
    """Entity F1 in the configurations of CONFIGS."""

    def __init__(self, config_name: str | None = None, **kwargs):
        """Use "strict" by default."""
        super().__init__(config_name or "strict", **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in CONFIGS:
            known = ", ".join(map(repr, CONFIGS))
            raise ValueError(f"entity_f1 has no configuration {self.config_name!r}: choose one of {known}.")
        entity = {"start": datasets.Value("int64"), "end": datasets.Value("int64"), "type": datasets.Value("string")}
        column = datasets.Value("string") if self.config_name == "official" else datasets.List(entity)
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": column, "references": column}),
            license="apache-2.0",
            codebase_urls=["https://github.com/universal-ner/universal-ner"],
            reference_urls=["https://arxiv.org/abs/2308.03279"],
        )

    def _compute(self, predictions: list, references: list) -> dict[str, float]:
        if self.config_name == "official":
            return f1_official(sum(map(official_counts, predictions, references), Counts()))
        if self.config_name == "strict":
            return f1_strict(sum(map(strict_counts, predictions, references), Counts()))
        counted = map(overlap_counts, predictions, references)
        return f1_strict(sum((counts[self.config_name] for counts in counted), Counts()))
