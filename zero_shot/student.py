"""A student, or any chat model, that runs in this process; a passage is encoded once for all its types."""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import cached_file

from command_line.hardware import inference_dtype
from command_line.pretrained import load_or_explain
from command_line.students import find_base, load_config, revision_of
from hub.records import ModelRecord
from ner_sets.benchmarks import BenchmarkPassage
from open_ner.answers import Answer, Entity
from open_ner.conversation import read_answer, write_answer, write_mentions
from open_ner.decoding import Decoder, Request
from open_ner.long_texts import Window, cut, fitting_window, read_entities, token_counter
from open_ner.pipeline import saved_defaults
from open_ner.selection import Selection
from open_ner.tools.errors import UserError

from .predict import Todo
from .records import PredictionLine, make_line
from .suite import SuiteConfig

SELECTION = ("threshold", "overlaps", "temperature", "bias")  # saved options that the decoding `flat` uses


class Student:
    """An `EvaluatedModel` from a folder or Hub id; its tokenizer must have a chat template."""

    in_process = True

    def __init__(self, name: str, decoding: str = "free") -> None:
        name = str(Path(name)) if Path(name).is_dir() else name  # runs/model/ and runs/model are the same run
        self.name, self.faults = name, Counter[str]()
        self.decoder: Decoder | None = None
        self.record: ModelRecord = {"id": name, "revision": revision_of(name), "kind": "student"}
        self.types_compete = decoding == "flat"
        self.presence_bias, self.selection = None, Selection(overlaps="all")
        if self.types_compete:
            defaults: Any = saved_defaults(load_config(name))
            saved = {option: defaults[option] for option in SELECTION}
            self.presence_bias, self.selection = defaults["presence_bias"], Selection(**saved)
            self.record["selection"] = {**saved, "presence_bias": self.presence_bias}

    def ask(self, todo: Todo, suite: SuiteConfig) -> Iterator[list[PredictionLine]]:
        """Yield the lines of each passage, in order; raises UserError if a query leaves no room for a passage."""
        decoder = self.decoder = self.decoder or self._load(suite.dtype)
        windows = [self._windows(decoder, passage, suite) for _, passage in todo]
        requests = [
            Request(
                passage.text[window.start : window.end], [query.asked for query in passage.queries], passage.dataset
            )
            for (_, passage), own in zip(todo, windows, strict=True)
            for window in own
        ]
        answers = decoder.answer(
            requests, free=not self.types_compete, presence_bias=self.presence_bias,
            max_new_tokens=suite.max_new_tokens, token_budget=suite.token_budget,
        )  # fmt: skip
        selection = replace(self.selection, occurrences=suite.occurrences)
        for (benchmark, passage), own in zip(todo, windows, strict=True):
            try:
                answered = [(window, next(answers)) for window in own]
            except ValueError as error:
                raise UserError(f"{self.name}: {error}") from None
            yield passage_lines(benchmark.config.name, passage, answered, selection, self.types_compete)

    def _windows(self, decoder: Decoder, passage: BenchmarkPassage, suite: SuiteConfig) -> list[Window]:
        """Return the passage as one window, or cut as in the pipeline if the model's positions cannot hold it."""
        asked = [query.asked for query in passage.queries]
        limit = fitting_window(sys.maxsize, decoder, asked, passage.dataset, suite.max_new_tokens)
        return list(cut(passage.text, token_counter(decoder.tokenizer, decoder.special_tokens), limit))

    def _load(self, dtype: str | None) -> Decoder:
        tokenizer = load_tokenizer(self.name)
        if tokenizer.chat_template is None:
            raise UserError(f"{self.name} has no chat template: it cannot be asked in the dialogue")
        try:
            return Decoder(load_model(AutoModelForCausalLM, self.name, dtype), tokenizer)
        except ValueError as error:  # an architecture whose layers cannot share a passage among queries
            raise UserError(f"{self.name}: {error}") from None


def passage_lines(
    benchmark: str, passage: BenchmarkPassage, answered: Sequence[tuple[Window, Sequence[Answer]]],
    selection: Selection, types_compete: bool = False,
) -> list[PredictionLine]:  # fmt: skip
    """Make the lines of a passage from its windows, each with an answer to every query.

    If types compete, the official scorer reads the list of the selected spans. Otherwise it reads the answers as they
    are, and an answer that cannot be parsed is a parse failure. Scores are None without token probabilities.
    """
    found: dict[int, list[Entity]] = {}
    for wording in {query.wording for query in passage.queries}:  # a type does not compete with its other wordings
        asked = [(number, query.type) for number, query in enumerate(passage.queries) if query.wording == wording]
        parts = [(window, {name: answers[number] for number, name in asked}) for window, answers in answered]
        found[wording] = read_entities(passage.text, parts, selection)
    lines = []
    for query, *answers in zip(passage.queries, *(answers for _, answers in answered), strict=True):
        entities = [entity for entity in found[query.wording] if entity["entity_group"] == query.type]
        parsed = [read_answer(answer.text) for answer in answers]
        if types_compete:
            raw = write_mentions((entity["start"], entity["word"]) for entity in entities)
        elif len(answers) == 1:
            raw = answers[0].text
        else:
            raw = write_answer(list(dict.fromkeys(string for strings in parsed for string in strings or [])))
        failed = not types_compete and None in parsed
        presence = max((each.presence for each in answers if each.presence is not None), default=None)
        lines.append(make_line(benchmark, passage, query, raw, None if failed else entities, presence=presence))
    return lines


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a student; an adapter without one has that of its base model."""
    base = find_base(name)
    if base and cached_file(name, "tokenizer_config.json", _raise_exceptions_for_missing_entries=False):
        base = None
    return load_or_explain(AutoTokenizer, base or name)


def load_model(kind: type, name: str, dtype: str | None = None) -> Any:
    """Load a model for inference on this process's device; `dtype` is that of the suite."""
    return load_or_explain(kind, name, dtype=inference_dtype(dtype)).to(PartialState().device).eval()
