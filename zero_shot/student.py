"""A student, or any chat model, asked in process in the dialogue: all types of a passage in one reading of it."""

import hashlib
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from command_line.pretrained import load_or_explain
from hub.records import ModelRecord
from ner_sets.benchmarks import BenchmarkPassage, Query
from open_ner.conversation import Occurrences, order_strings, read_answer, write_answer
from open_ner.tools.errors import UserError
from open_ner.tools.files import write_atomic

from .predict import Todo
from .records import PredictedSpan, PredictionLine, make_line
from .suite import SuiteConfig

if TYPE_CHECKING:
    import torch

    from open_ner.answers import Answer, Entity
    from open_ner.decoding import Decoder
    from open_ner.long_texts import Window
    from open_ner.selection import Selection

SELECTION = ("threshold", "overlaps", "temperature", "bias", "presence_bias")  # saved options of the decoding `flat`
# the files of a folder that decide an answer: weights, tokenizer, template, generation config
DECISIVE = re.compile(
    r".+\.(?:safetensors|bin|pth?|model|jinja|txt|tiktoken)|(?:generation_|adapter_)?config\.json"
    r"|.*(?:token|vocab|merges|index|template).*\.json"
)


class Student:
    """A model folder or Hub id whose tokenizer has a chat template; an `EvaluatedModel`."""

    in_process = True

    def __init__(self, name: str, decoding: str = "free") -> None:
        from transformers import AutoConfig

        from open_ner.pipeline import saved_defaults

        self.name, self.replies = name, Counter[str]()
        self.decoder: Decoder | None = None
        self.record: ModelRecord = {"id": name, "revision": fingerprint(name), "kind": "student"}
        self.flat: dict[str, Any] = {}
        if decoding == "flat":
            saved = saved_defaults(load_or_explain(AutoConfig, name))
            self.flat = self.record["selection"] = {name: saved[name] for name in SELECTION}

    def ask(self, todo: Todo, suite: SuiteConfig) -> Iterator[list[PredictionLine]]:
        """Yield the lines of each passage, in order; raises UserError if a query leaves no room for a passage."""
        from open_ner.decoding import Request
        from open_ner.selection import Selection

        self.decoder = self.decoder or self._load()
        windows = [self._windows(passage, suite) for _, passage in todo]
        requests = [
            Request(passage.text[window.start : window.end], [query.asked for query in passage.queries])
            for (_, passage), own in zip(todo, windows, strict=True)
            for window in own
        ]
        answers = self.decoder.answer(
            requests, free=not self.flat, presence_bias=self.flat.get("presence_bias"),
            max_new_tokens=suite.max_new_tokens, token_budget=suite.token_budget,
        )  # fmt: skip
        for (benchmark, passage), own in zip(todo, windows, strict=True):
            try:
                answered = list(zip(own, [next(answers) for _ in own], strict=True))
            except ValueError as error:
                raise UserError(f"{self.name}: {error}") from None
            if self.flat:
                kept = {key: value for key, value in self.flat.items() if key != "presence_bias"}
                selection = Selection(**kept, occurrences=suite.occurrences)
                yield flat_lines(benchmark.config.name, passage, answered, selection)
                continue
            yield [
                to_line(benchmark.config.name, passage, query, parts, suite.occurrences, own)
                for query, *parts in zip(passage.queries, *(answers for _, answers in answered), strict=True)
            ]

    def _windows(self, passage: BenchmarkPassage, suite: SuiteConfig) -> "list[Window]":
        """Return the passage as one window, or cut as in the pipeline if the model's positions cannot hold it."""
        from open_ner.long_texts import cut, fitting_window, token_counter

        assert self.decoder is not None
        model, tokenizer, special = self.decoder.model, self.decoder.tokenizer, self.decoder.special_tokens
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        asked = [query.asked for query in passage.queries]
        limit = fitting_window(sys.maxsize, positions, tokenizer, special, asked, None, suite.max_new_tokens)
        return list(cut(passage.text, token_counter(tokenizer, special), limit))

    def _load(self) -> "Decoder":
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from open_ner.decoding import Decoder

        tokenizer = load_or_explain(AutoTokenizer, self.name)
        if tokenizer.chat_template is None:
            raise UserError(f"{self.name} has no chat template: it cannot be asked in the dialogue")
        try:
            return Decoder(load_model(AutoModelForCausalLM, self.name), tokenizer)
        except ValueError as error:  # an architecture whose layers cannot share a passage among queries
            raise UserError(f"{self.name}: {error}") from None


def to_line(
    name: str,
    passage: BenchmarkPassage,
    query: Query,
    answers: "Sequence[Answer]",
    occurrences: Occurrences,
    windows: "Sequence[Window]" = (),
) -> PredictionLine:
    """Make the line of the answers of a passage's windows, or of one answer; any that cannot be parsed is a failure.

    Scores are not calibrated, and None if the server gave no probabilities.
    """
    from open_ner.long_texts import Window, read_entities
    from open_ner.selection import Selection

    text, parsed = passage.text, [read_answer(answer.text) for answer in answers]
    answered = [
        (window, {query.type: answer})
        for window, answer in zip(windows or [Window(0, len(text))], answers, strict=True)
    ]
    found = read_entities(text, answered, Selection(overlaps="all", occurrences=occurrences))
    together = write_answer(list(dict.fromkeys(string for own in parsed for string in own or [])))
    raw = answers[0].text if len(answers) == 1 else together
    return make_line(name, passage, query, raw, None if None in parsed else to_spans(found), presence=of_all(answers))


def flat_lines(
    name: str, passage: BenchmarkPassage, answered: "Sequence[tuple[Window, list[Answer]]]", selection: "Selection"
) -> list[PredictionLine]:
    """Make the lines of a passage whose types compete for its spans, with calibrated scores.

    The answer that the official scorer reads is the list of the remaining spans.
    """
    from open_ner.long_texts import read_entities

    lines: dict[int, PredictionLine] = {}
    for wording in {query.wording for query in passage.queries}:  # a type does not compete with its other wordings
        own = [(number, query) for number, query in enumerate(passage.queries) if query.wording == wording]
        parts = [(window, {query.type: answers[number] for number, query in own}) for window, answers in answered]
        found = read_entities(passage.text, parts, selection)
        for number, query in own:
            spans = [entity for entity in found if entity["entity_group"] == query.type]
            raw = write_answer(order_strings((entity["start"], entity["word"]) for entity in spans))
            presence = of_all([answers[number] for _, answers in answered])
            lines[number] = make_line(name, passage, query, raw, to_spans(spans), presence=presence)
    return [lines[number] for number in range(len(passage.queries))]


def to_spans(entities: "Iterable[Entity]") -> list[PredictedSpan]:
    """Return entities of one type as spans, with scores of six decimals."""
    return [
        {"start": each["start"], "end": each["end"], "score": each["score"] and round(each["score"], 6)}
        for each in entities
    ]


def of_all(answers: "Sequence[Answer]") -> float | None:
    """Return the log-odds that a type occurs in a passage: those of its surest window."""
    known = [answer.presence for answer in answers if answer.presence is not None]
    return round(max(known), 4) if known else None


def load_model(kind: type, name: str) -> Any:
    """Load a model for inference on this process's device, in bfloat16 on a GPU and in float32 on a CPU."""
    from accelerate import PartialState

    return load_or_explain(kind, name, dtype=inference_dtype()).to(PartialState().device).eval()


def inference_dtype() -> "torch.dtype":
    """Return the type of the weights that `load_model` loads on this machine."""
    import torch
    from accelerate import PartialState

    device = PartialState().device
    assert device is not None  # PartialState() sets it
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def fingerprint(name: str) -> str:
    """Return the commit of a Hub model, or a hash of all files of a folder that decide an answer."""
    folder = Path(name)
    if not folder.is_dir():
        from transformers import AutoConfig

        return getattr(load_or_explain(AutoConfig, name), "_commit_hash", None) or "unknown"
    parts: list[str] = []
    for path in sorted(path for path in folder.iterdir() if DECISIVE.fullmatch(path.name)):
        if path.name in ("config.json", "adapter_config.json"):
            settings = json.loads(path.read_bytes())
            settings.pop("open_ner", None)  # the pipeline's defaults and calibration do not change an answer
            base = settings.get("base_model_name_or_path") or "no folder"
            parts += [path.name, json.dumps(settings, sort_keys=True)]
            parts += [fingerprint(base)] if Path(base).is_dir() else []
        elif path.name not in ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt"):
            parts += [path.name, _digest(path)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _digest(path: Path) -> str:
    """Hash a file; the hash is kept in the user's cache until the file's size or times change."""
    stat = path.stat()
    key = json.dumps([str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns])
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept = root / "open-ner" / "hashes" / hashlib.sha256(key.encode()).hexdigest()
    with suppress(OSError):
        if known := kept.read_text(encoding="ascii", errors="replace"):
            return known
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(kept, digest)
    return digest
