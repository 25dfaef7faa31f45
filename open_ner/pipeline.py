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
from .long_texts import Window, cut, fitting_window, merge, token_counter

TASK = "open-ner"
DEFAULTS: dict[str, Any] = {
    "types": ["person", "organization", "location", "date", "event", "product"],
    "threshold": 0.0,
    "occurrences": OCCURRENCES,
    "temperature": 1.0,
    "bias": 0.0,
    "grounded": True,
    "window": 256,
    "max_new_tokens": 256,
    "token_budget": 16384,
}
WINDOW_OPTIONS = ("window", "dataset", "max_new_tokens")
DECODING_OPTIONS = ("dataset", "grounded", "max_new_tokens", "token_budget")
SPAN_OPTIONS = ("threshold", "occurrences", "return_raw")
QUERIES_AT_A_TIME = 1024  # for the decoder to batch by its token budget, and answers held


class OpenNERPipeline(Pipeline):
    """Named-entity recognition with types of the caller's choice, by a student tuned on the open-NER dialogue.

    Call it with one text, a list, a generator or a `datasets` column. Options:
        types: names, or `{name: definition}` to ask by definition; absent, the set saved with the model.
        dataset: the `Dataset:` line of students tuned on several human-annotated sets.
        threshold: keep spans whose score is at least this, in [0, 1].
        occurrences: "all" maps an answer to each of its occurrences on word boundaries, "first" to the first; of a
            text beyond the window, in each of its windows.
        grounded: allow only answers that are lists of substrings of the text, and drop those the student was forced
            to (`Answer.drop_forced`); False decodes freely.
        return_raw: return `{"entities": [...], "raw": {type: answer}}` per text instead of the list; for a text beyond
            the window, lists of answers, one for each of its `"windows": [(start, end), ...]`.
        window: tokens of text asked at once, those the student was trained on; a longer text is cut (windows.py).
        max_new_tokens, token_budget: bounds of one answer and of one batch's cache, in tokens.
    Raises ValueError for an empty list of types, a text that is no string, or questions beyond the model's positions.
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
        self.count = token_counter(self.tokenizer, self.decoder.special_tokens)

    def _sanitize_parameters(self, types: Any = None, **options: Any) -> tuple[dict, dict, dict]:
        known = {*WINDOW_OPTIONS, *DECODING_OPTIONS, *SPAN_OPTIONS}
        if unknown := set(options) - known:
            raise ValueError(f"unknown option {sorted(unknown)[0]!r}: choose from {sorted(known)}")
        if options.get("occurrences", "all") not in ("all", "first"):
            raise ValueError(f"occurrences={options['occurrences']!r}: choose 'all' or 'first'")
        given = {key: value for key, value in options.items() if value is not None}
        if not 0 <= given.get("threshold", 0) <= 1:
            raise ValueError(f"threshold={given['threshold']!r}: scores lie in [0, 1]")
        for name in ("window", "max_new_tokens", "token_budget"):
            if given.get(name, 1) < 1:
                raise ValueError(f"{name}={given[name]!r}: give at least 1")
        queries = {} if types is None else {"queries": to_queries(types)}
        return (
            queries | {key: given[key] for key in WINDOW_OPTIONS if key in given},
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

    def preprocess(self, text: Any, queries: Mapping[str, str] | None = None, **options: Any) -> dict[str, Any]:
        """A text, its windows, and the questions asked of it: `{entity group: what the question names}`."""
        if not isinstance(text, str):
            raise ValueError(f"open-ner reads strings, not {type(text).__name__}: {text!r:.80}")
        queries = to_queries(self.defaults["types"]) if queries is None else queries
        limit = fitting_window(
            tokenizer=self.tokenizer,
            special_tokens=self.decoder.special_tokens,
            positions=getattr(self.model.config, "max_position_embeddings", None),
            wordings=list(queries.values()),
            **{key: options.get(key, self.defaults.get(key)) for key in WINDOW_OPTIONS},
        )
        return {"text": text, "queries": queries, "windows": cut(text, self.count, limit)}

    def _forward(self, items: Any, **options: Any) -> list[dict[str, Any]]:
        items = items if isinstance(items, list) else [items]
        settings = {key: self.defaults[key] for key in DECODING_OPTIONS if key in self.defaults} | options
        answers = self._answer(items, settings)
        return [{"text": item["text"], "answers": up_to_last_window(answers)} for item in items]

    def _answer(
        self, items: list[dict[str, Any]], settings: Mapping[str, Any]
    ) -> Iterator[tuple[Window, dict[str, Answer]]]:
        """Each window of the items with its answers by entity group; a few windows are asked, and held, at a time."""
        windows = ((item, window) for item in items for window in item["windows"])
        size = max(1, QUERIES_AT_A_TIME // len(items[0]["queries"]))
        while group := list(islice(windows, size)):
            requests = [
                Request(item["text"][window.start : window.end], list(item["queries"].values()))
                for item, window in group
            ]
            with self.device_placement():
                answers = list(self.decoder.answer(requests, **settings))
            for (item, window), row in zip(group, answers, strict=True):
                yield window, dict(zip(item["queries"], row, strict=True))

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
        return read_answers(output["text"], output["answers"], floor, policy, return_raw, calibration)

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
        for score in [raw if raw is None else calibrate(raw, temperature, bias)]
        for start, end in find_spans(text, string, occurrences)
    ]


def read_answers(
    text: str,
    answered: Iterable[tuple[Window, Mapping[str, Answer]]],
    threshold: float,
    occurrences: str,
    return_raw: bool,
    calibration: tuple[float, float] = (1.0, 0.0),
) -> list[dict[str, Any]] | dict[str, Any]:
    """What a call returns of a text, from the answers by entity group to each of its windows.

    `calibration` holds temperature and bias, as `answers.calibrate` takes them.
    """
    raw: list[tuple[Window, dict[str, str]]] = []

    def found() -> Iterator[tuple[Window, list[dict[str, Any]]]]:
        for window, answers in answered:
            part = text[window.start : window.end]
            spans = [
                span
                for name, answer in answers.items()
                for span in to_entities(part, name, answer, occurrences, *calibration)
            ]
            yield window, [span for span in spans if span["score"] is None or span["score"] >= threshold]
            if return_raw:
                raw.append((window, {name: answer.text for name, answer in answers.items()}))

    entities = merge(found())
    if not return_raw:
        return entities
    if len(raw) == 1:
        return {"entities": entities, "raw": raw[0][1]}
    answers = {name: [texts[name] for _, texts in raw] for name in raw[0][1]}
    return {"entities": entities, "raw": answers, "windows": [(window.start, window.end) for window, _ in raw]}


def up_to_last_window(answers: Iterator[tuple[Window, Any]]) -> Iterator[tuple[Window, Any]]:
    """The part of a stream that belongs to one text; the rest stays in the stream."""
    for window, answer in answers:
        yield window, answer
        if window.after is None:
            return


def to_queries(types: Any) -> dict[str, str]:
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
