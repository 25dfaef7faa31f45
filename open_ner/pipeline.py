"""The `open-ner` task: `pipeline("open-ner", model=..., trust_remote_code=True)(text, types=[...])`.

The result has the shape of transformers' aggregated `ner` pipeline: a list of `Entity` per text. This file and its
imports travel to the Hub with the weights; `open_ner.load` runs the same code from the installed package instead.
"""

import logging
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Sized
from itertools import islice
from numbers import Integral
from typing import Any, NamedTuple

from torch.utils.data import Dataset
from transformers import AutoModelForCausalLM, Pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from .answers import Entity
from .conversation import OCCURRENCES
from .decoding import Decoder, Request
from .long_texts import Answered, RawResult, Window, cut, fitting_window, read_entities, read_raw, token_counter
from .selection import Selection

logger = logging.getLogger(__name__)

TASK = "open-ner"
DEFAULTS: dict[str, Any] = {  # `config.open_ner` of a model overrides them, and may add a `dataset`
    "types": ["person", "organization", "location", "date", "event", "product"],
    "threshold": 0.0,
    "overlaps": "flat",
    "occurrences": OCCURRENCES,
    "temperature": 1.0,  # this and `bias` calibrate scores (`answers.calibrate`)
    "bias": 0.0,
    "presence_bias": None,  # added to the log-odds that a type occurs; None: greedy decoding decides
    "present_share": 0.5,  # share of the training queries whose type occurs in the passage
    "window": 256,
    "max_new_tokens": 256,
    "token_budget": 16384,
}
WINDOW_OPTIONS = ("window", "dataset", "max_new_tokens")
DECODING_OPTIONS = ("dataset", "expected_present", "max_new_tokens", "token_budget")
SPAN_OPTIONS = ("threshold", "overlaps", "best", "occurrences")  # fields of `Selection`
QUERIES_AT_A_TIME = 1024  # given to the decoder in one call, which batches them by its token budget


# a text, what to ask of it as `{entity group: type or definition}`, and its windows
WindowedText = tuple[str, Mapping[str, str], Iterator[Window]]
AnsweredText = tuple[str, list[Answered]]  # a text, and its windows with their answers


class _TypedText(NamedTuple):
    """A text with what to ask of it; not a plain tuple, because a caller may pass tuples by mistake."""

    text: Any
    queries: Mapping[str, str]


class OpenNERPipeline(Pipeline):
    """Named-entity recognition with types of the caller's choice, by a student tuned on the open-NER dialogue.

    Call it with one text, a list, a generator or a `datasets` column. The options can be given to the call or when the
    pipeline is created; the defaults are those saved with the model.

    Args:
        types: names, or `{name: definition}` to ask a student that was trained on definitions. A list of these, one
            for each text of a list, asks each text its own types.
        dataset: the `Dataset:` line of students tuned on several human-annotated sets.
        threshold: keep spans whose score is at least this, in [0, 1]; or `{type: number}`, where the other
            types keep the saved threshold. A text ignores those of types that only other texts are asked.
        overlaps: "flat" lets types compete: no two spans share a character, the surest one is kept. "nested": types
            compete only for the very same span. "all": every span is kept.
        best: return only the surest span of each type.
        occurrences: "all" maps an answered string to each of its occurrences on word boundaries, "first" to the first
            one in each window.
        expected_present: the share of the asked types that you expect in a text, in (0, 1). Replaces the saved
            presence bias by `logit(expected_present) - logit(present_share)`, which is added to the log-odds that a
            type occurs; `present_share` is the share in the student's training data.
        return_raw: return `{"entities": [...], "raw": {type: answer}}` per text instead of the list. A text of several
            windows has lists of answers, one for each of its `"windows": [(start, end), ...]`.
        window: tokens of text read at once, as many as in training; a longer text is cut (`long_texts.py`).
        max_new_tokens: bound of one answer, in tokens. A warning tells how many answers were cut there.
        token_budget: bound of a batch's key/value cache, in tokens.

    Raises:
        ValueError: the list of types is empty or names a type twice, a text is not a string, an option is out of
            range, a threshold is for a type that no text is asked, or queries need more positions than the model has.
    """

    _load_tokenizer = True
    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False
    _pipeline_calls_generate = False  # True would swallow `max_new_tokens` given at construction

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_positive(batch_size=self._batch_size)
        self._prepare()

    def _prepare(self) -> None:
        """Make the decoder, again if the caller has replaced the model or the tokenizer."""
        decoder = getattr(self, "decoder", None)
        if decoder is None or decoder.model is not self.model or decoder.tokenizer is not self.tokenizer:
            assert self.tokenizer is not None, "_load_tokenizer is set"
            self.defaults = saved_defaults(self.model.config)
            self.decoder = Decoder(self.model, self.tokenizer)
            self.count = token_counter(self.tokenizer, self.decoder.special_tokens)

    def _sanitize_parameters(self, types: Any = None, **options: Any) -> tuple[dict, dict, dict]:
        known = {"types", "return_raw", *WINDOW_OPTIONS, *DECODING_OPTIONS, *SPAN_OPTIONS}
        if unknown := sorted(set(options) - known):
            hint = "give the entity types as types=[...]" if "label" in unknown[0] or "entit" in unknown[0] else ""
            raise ValueError(f"unknown option {unknown[0]!r}: {hint or f'choose from {sorted(known)}'}")
        given = {name: value for name, value in options.items() if value is not None}
        if types is not None:
            given["queries"] = read_queries(types)
        # the next three calls only check: they raise ValueError for a value out of range
        if "expected_present" in given:
            logit(given["expected_present"])
        check_positive(**{name: given[name] for name in ("window", "max_new_tokens", "token_budget") if name in given})
        to_selection(DEFAULTS, {name: given[name] for name in SPAN_OPTIONS if name in given})
        stages = ("queries", *WINDOW_OPTIONS), DECODING_OPTIONS, ("return_raw", *SPAN_OPTIONS)
        preprocess, forward, postprocess = ({name: given[name] for name in own if name in given} for own in stages)
        return preprocess, forward, postprocess

    def __call__(self, inputs: Any, types: Any = None, **kwargs: Any) -> Any:
        """Return the entities of one text, of each text of a list or column, or a generator of them for a generator.

        Options are those of the class; `types` may be the second argument.
        """
        self._prepare()
        check_positive(batch_size=kwargs.get("batch_size"))
        if isinstance(inputs, Iterable) and not isinstance(inputs, (str, bytes, Mapping, Dataset)):
            # a column of `datasets` is a sequence but not a list; a streamed column is not a generator
            inputs = list(inputs) if isinstance(inputs, Sequence) else (each for each in inputs)
        if inputs == []:
            return []
        if isinstance(types, list) and types and all(isinstance(own, list | tuple | Mapping) for own in types):
            if not isinstance(inputs, list) or len(inputs) != len(types):
                size = f"{len(inputs)} texts" if isinstance(inputs, list) else "an input that is not a list of texts"
                raise ValueError(f"types has {len(types)} lists of types for {size}: give one for each text")
            inputs = [_TypedText(text, read_queries(own)) for text, own in zip(inputs, types, strict=True)]
            types = None
            asked: Collection[str] = dict.fromkeys(name for text in inputs for name in text.queries)
        else:
            types = self._preprocess_params.get("queries", self.defaults["types"]) if types is None else types
            types = read_queries(types)
            asked = types
        threshold = kwargs.get("threshold")
        check_thresholds(self._postprocess_params.get("threshold") if threshold is None else threshold, asked)
        if self._batch_size is None:
            kwargs.setdefault("batch_size", 32)  # texts given to the decoder at once, which batches by token budget
        return super().__call__(inputs, types=types, **kwargs)

    def preprocess(self, text: Any, queries: Mapping[str, str] | None = None, **options: Any) -> WindowedText:
        """Cut a text, perhaps with its own queries, into windows that leave room for the queries and answers."""
        if isinstance(text, _TypedText):
            text, queries = text
        if not isinstance(text, str):
            raise ValueError(f"open-ner reads strings, not {type(text).__name__}: {text!r:.80}")
        queries = read_queries(self.defaults["types"]) if queries is None else queries
        chosen = self.defaults | options
        dataset, longest = chosen.get("dataset"), chosen["max_new_tokens"]
        limit = fitting_window(chosen["window"], self.decoder, list(queries.values()), dataset, longest)
        return text, queries, cut(text, self.count, limit)

    def _forward(self, items: WindowedText | list[WindowedText], **options: Any) -> Iterator[AnsweredText]:
        """Yield each text with its answered windows, in order; the windows of all texts are asked some at a time."""
        items = items if isinstance(items, list) else [items]
        saved = {key: value for key, value in self.defaults.items() if key in ("presence_bias", *DECODING_OPTIONS)}
        settings: dict[str, Any] = saved | options
        if expected := settings.pop("expected_present", None):
            share = min(max(self.defaults["present_share"], 0.001), 0.999)  # 1 if it was tuned without absent types
            settings["presence_bias"] = logit(expected) - logit(share)
        dataset = settings.pop("dataset", None)
        asked = ((text, queries, window) for text, queries, windows in items for window in windows)
        size = max(1, QUERIES_AT_A_TIME // len(items[0][1]))
        answers: list[Answered] = []
        while group := list(islice(asked, size)):
            requests = [Request(text[w.start : w.end], list(queries.values()), dataset) for text, queries, w in group]
            with self.device_placement():
                answered = list(self.decoder.answer(requests, **settings))
            if short := sum(answer.cut for row in answered for answer in row):
                what = f"{short} of {sum(map(len, answered))} answers were cut"
                bound = settings["max_new_tokens"]
                logger.warning("%s at max_new_tokens=%d, so spans may be missing: raise it", what, bound)
            for (text, queries, window), row in zip(group, answered, strict=True):
                answers.append((window, dict(zip(queries, row, strict=True))))
                if window.after is None:  # the last one of its text
                    yield text, answers
                    answers = []

    def postprocess(
        self, output: AnsweredText | Iterator[AnsweredText], return_raw: bool = False, **options: Any
    ) -> list[Entity] | RawResult:
        """Return the spans of one text, in order of start, the longer first on a tie."""
        text, answers = next(output) if isinstance(output, Iterator) else output
        return (read_raw if return_raw else read_entities)(text, answers, to_selection(self.defaults, options))

    def get_iterator(
        self, inputs: Any, num_workers: int, batch_size: int, preprocess: dict, forward: dict, postprocess: dict
    ) -> Iterator[list[Entity] | RawResult]:
        """Give texts to the decoder `batch_size` at a time; there are no tensors to collate."""
        stream = iterate(inputs)
        while chunk := [self.preprocess(text, **preprocess) for text in islice(stream, batch_size)]:
            yield from (self.postprocess(output, **postprocess) for output in self._forward(chunk, **forward))


def iterate(inputs: Any) -> Iterator[Any]:
    """Iterate over inputs. Those with a length but no iterator of their own, as torch Datasets, are read by index.

    Python's iterator over these would not stop. What has an iterator is not read by index, because it may have other
    keys than 0, 1, 2, ...: a pandas Series keeps its keys when it is filtered or sorted.
    """
    get = getattr(inputs, "__getitem__", None)
    if get and isinstance(inputs, Sized) and not isinstance(inputs, Iterable):
        return map(get, range(len(inputs)))
    return iter(inputs)


def saved_defaults(config: object) -> dict[str, Any]:
    """Return the defaults saved in a model's config, completed with those of this module."""
    return DEFAULTS | (getattr(config, "open_ner", None) or {})


def to_selection(defaults: Mapping[str, Any], options: Mapping[str, Any]) -> Selection:
    """Return a call's selection: its `SPAN_OPTIONS` in place of the saved defaults."""
    names = ("threshold", "overlaps", "occurrences", "temperature", "bias")
    chosen = {name: defaults[name] for name in names} | dict(options)
    if isinstance(chosen["threshold"], Mapping):
        chosen |= {"threshold": defaults["threshold"], "thresholds": chosen["threshold"]}
    return Selection(**chosen)


def check_positive(**positive: int | None) -> None:
    """Raise ValueError unless each is a whole number of at least 1; None stands for the default."""
    for name, value in positive.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, Integral) or value < 1):
            raise ValueError(f"{name}={value!r}: give a whole number of at least 1")


def check_thresholds(threshold: Any, asked: Collection[str]) -> None:
    """Raise ValueError for the threshold of a type that no text of a call is asked."""
    if isinstance(threshold, Mapping) and (unknown := [name for name in threshold if name not in asked]):
        raise ValueError(f"threshold: {unknown[0]!r} is not one of the types {', '.join(asked)}")


def logit(share: float) -> float:
    """Return the log-odds of a share; raise ValueError outside (0, 1)."""
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
        raise ValueError(f"expected_present={share!r}: give a share between 0 and 1")
    return math.log(share) - math.log1p(-share)


def read_queries(types: Any) -> dict[str, str]:
    """Return `{entity group: type or definition}` for a list of names, or for a mapping from names to definitions."""
    if isinstance(types, str) or not isinstance(types, Iterable):
        raise ValueError(f"types={types!r}: give a list of names, or {{name: definition}}")
    queries = list(types.items()) if isinstance(types, Mapping) else [(name, name) for name in types]
    if not queries:
        raise ValueError("types is empty: name at least one entity type")
    asked: dict[str, str] = {}
    for name, wording in queries:
        if not all(isinstance(part, str) and part.strip() for part in (name, wording)):
            raise ValueError(f"types contains {name!r}: {wording!r}; types and definitions are non-empty strings")
        if wording in asked:
            raise ValueError(f"types asks {wording!r} twice, as {asked[wording]!r} and {name!r}: give each once")
        asked[wording] = name
    return dict(queries)


PIPELINE_REGISTRY.register_pipeline(
    TASK, pipeline_class=OpenNERPipeline, pt_model=AutoModelForCausalLM, default=None, type="text"
)
