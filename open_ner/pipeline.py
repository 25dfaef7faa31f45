"""The `open-ner` task: `pipeline("open-ner", model=..., trust_remote_code=True)(text, types=[...])`.

The shape of the result is that of transformers' `ner` pipeline with aggregation: a list of
`{"entity_group", "word", "start", "end", "score"}` per text, with `text[start:end] == word`. This file and the ones it
imports travel to the Hub with the weights.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from transformers import AutoModelForCausalLM, Pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from .answers import Answer, calibrate
from .conversation import OCCURRENCES, find_spans
from .decoding import Decoder, Request

TASK = "open-ner"
DEFAULTS: dict[str, Any] = {
    "types": ["person", "organization", "location", "date", "event", "product"],
    "threshold": 0.0,
    "occurrences": OCCURRENCES,
    "temperature": 1.0,
    "bias": 0.0,
    "grounded": True,
    "max_new_tokens": 256,
    "token_budget": 16384,
}
DECODING_OPTIONS = ("dataset", "grounded", "max_new_tokens", "token_budget")
SPAN_OPTIONS = ("threshold", "occurrences", "return_raw")


class OpenNERPipeline(Pipeline):
    """Named-entity recognition with types of the caller's choice, by a student tuned on the open-NER dialogue.

    Call it with one text, a list, a generator or a `datasets` column. Options:
        types: names, or `{name: definition}` to ask by definition; absent, the set saved with the model.
        dataset: the `Dataset:` line of students tuned on several human-annotated sets.
        threshold: keep spans whose score is at least this, in [0, 1].
        occurrences: "all" maps an answer to each of its occurrences on word boundaries, "first" to the first.
        grounded: allow only answers that are lists of substrings of the text; False decodes freely.
        return_raw: return `{"entities": [...], "raw": {type: answer}}` per text instead of the list.
        max_new_tokens, token_budget: bounds of one answer and of one batch's cache, in tokens.
    Raises ValueError for an empty list of types, a text that is no string, or one beyond the model's window.
    """

    _load_tokenizer = True
    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False
    _pipeline_calls_generate = False  # True would swallow `max_new_tokens` given at construction

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.defaults = {**DEFAULTS, **(getattr(self.model.config, "open_ner", None) or {})}
        self.decoder = Decoder(self.model, self.tokenizer)

    def _sanitize_parameters(self, types: Any = None, **options: Any) -> tuple[dict, dict, dict]:
        unknown = set(options) - {*DECODING_OPTIONS, *SPAN_OPTIONS}
        if unknown:
            raise ValueError(f"unknown option {sorted(unknown)[0]!r}: choose from {DECODING_OPTIONS + SPAN_OPTIONS}")
        if options.get("occurrences", "all") not in ("all", "first"):
            raise ValueError(f"occurrences={options['occurrences']!r}: choose 'all' or 'first'")
        given = {key: value for key, value in options.items() if value is not None}
        if not 0 <= given.get("threshold", 0) <= 1:
            raise ValueError(f"threshold={given['threshold']!r}: scores lie in [0, 1]")
        for name in ("max_new_tokens", "token_budget"):
            if given.get(name, 1) < 1:
                raise ValueError(f"{name}={given[name]!r}: give at least 1")
        queries = {} if types is None else {"queries": _queries(types)}
        return (
            queries,
            {key: given[key] for key in DECODING_OPTIONS if key in given},
            {key: given[key] for key in SPAN_OPTIONS if key in given},
        )

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Entities of one text, of each text of a list or a column, or lazily of a generator's."""
        if isinstance(inputs, (list, tuple)) and not inputs:
            return []
        if isinstance(inputs, Sequence) and not isinstance(inputs, (str, bytes)):
            inputs = list(inputs)  # a column of `datasets` is a sequence but no list
        if self._batch_size is None:
            kwargs.setdefault("batch_size", 32)  # texts the decoder gets at a time; its token budget does the rest
        return super().__call__(inputs, *args, **kwargs)

    def preprocess(self, text: Any, queries: Mapping[str, str] | None = None) -> dict[str, Any]:
        """A text and the questions asked of it: `{entity group: what the question names}`."""
        if not isinstance(text, str):
            raise ValueError(f"open-ner reads strings, not {type(text).__name__}: {text!r:.80}")
        return {"text": text, "queries": _queries(self.defaults["types"]) if queries is None else queries}

    def _forward(self, items: Any, **options: Any) -> list[dict[str, Any]]:
        items = items if isinstance(items, list) else [items]
        settings = {key: self.defaults[key] for key in DECODING_OPTIONS if key in self.defaults} | options
        requests = [Request(item["text"], list(item["queries"].values())) for item in items]
        answers = self.decoder.answer(requests, **settings)
        return [
            {"text": item["text"], "answers": dict(zip(item["queries"], row, strict=True))}
            for item, row in zip(items, answers, strict=True)
        ]

    def postprocess(
        self,
        output: Any,
        threshold: float | None = None,
        occurrences: str | None = None,
        return_raw: bool = False,
    ) -> list[dict[str, Any]] | dict[str, Any]:
        """Spans of one text, in order of start; longer first where two begin together."""
        output = output[0] if isinstance(output, list) else output
        policy = occurrences or self.defaults["occurrences"]
        floor = self.defaults["threshold"] if threshold is None else threshold
        calibration = self.defaults["temperature"], self.defaults["bias"]
        entities = [
            entity
            for entity_type, answer in output["answers"].items()
            for entity in to_entities(output["text"], entity_type, answer, policy, *calibration)
            if entity["score"] >= floor
        ]
        entities.sort(key=lambda entity: (entity["start"], -entity["end"]))
        if return_raw:
            return {"entities": entities, "raw": {name: answer.text for name, answer in output["answers"].items()}}
        return entities

    def get_iterator(
        self,
        inputs: Iterable[Any],
        num_workers: int,
        batch_size: int,
        preprocess: dict,
        forward: dict,
        postprocess: dict,
    ) -> Iterator[Any]:
        """Hand texts to the decoder `batch_size` at a time; there are no tensors to collate."""
        stream = iter(inputs)
        while chunk := [self.preprocess(text, **preprocess) for text in islice(stream, batch_size)]:
            for output in self.forward(chunk, **forward):
                yield self.postprocess(output, **postprocess)


def to_entities(
    text: str, entity_type: str, answer: Answer, occurrences: str, temperature: float = 1.0, bias: float = 0.0
) -> list[dict[str, Any]]:
    """The spans of one answer; strings that do not occur in the text give none."""
    return [
        {"entity_group": entity_type, "word": text[start:end], "start": start, "end": end, "score": score}
        for string, raw in answer.scored_strings() or []
        for score in [calibrate(raw, temperature, bias)]
        for start, end in find_spans(text, string, occurrences)
    ]


def _queries(types: Any) -> dict[str, str]:
    """`{entity group: what the question names}` of a list of names or a mapping from names to definitions."""
    if isinstance(types, str) or not isinstance(types, Iterable):
        raise ValueError(f"types={types!r}: give a list of names, or {{name: definition}}")
    queries = list(types.items()) if isinstance(types, Mapping) else [(name, name) for name in types]
    if not queries:
        raise ValueError("types is empty: name at least one entity type")
    for name, wording in queries:
        if not all(isinstance(part, str) and part.strip() for part in (name, wording)):
            raise ValueError(f"types holds {name!r}: {wording!r}; every type and definition is a non-empty string")
    return dict(queries)


PIPELINE_REGISTRY.register_pipeline(
    TASK, pipeline_class=OpenNERPipeline, pt_model=AutoModelForCausalLM, default=None, type="text"
)
