"""A student, or any chat model, asked in process in the dialogue: all types of a passage over one reading of it."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from command_line.pretrained import load_or_explain
from ner_sets.benchmarks import BenchmarkPassage, Query
from open_ner.conversation import Occurrences, find_spans
from open_ner.tools.errors import UserError

from .predict import Line, Todo, wording_of
from .suite import SuiteConfig

if TYPE_CHECKING:
    from open_ner.answers import Answer

ENDS = 1 << 20  # bytes at each end of a weights file that tell it from others


class Student:
    """A folder or Hub id whose tokenizer has a chat template. Raises UserError where it cannot be loaded."""

    shared = True

    def __init__(self, name: str) -> None:
        self.name, self.decoder = name, None
        self.model = {"id": name, "revision": fingerprint(name), "kind": "student"}

    def ask(self, todo: Todo, suite: SuiteConfig) -> Iterator[list[Line]]:
        """The lines of each passage; see `Asker`."""
        from open_ner.decoding import Request

        self.decoder = self.decoder or self._load()
        requests = [Request(passage.text, [query.asked for query in passage.queries]) for _, passage in todo]
        answers = self.decoder.answer(
            requests,
            grounded=suite.decoding == "grounded",
            max_new_tokens=suite.max_new_tokens,
            token_budget=suite.token_budget,
        )
        for (benchmark, passage), of_passage in zip(todo, self._or_explain(answers), strict=True):
            yield [
                to_line(benchmark.config.name, passage, query, answer, suite.occurrences)
                for query, answer in zip(passage.queries, of_passage, strict=True)
            ]

    def _load(self) -> Any:
        import torch
        from accelerate import PartialState
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from open_ner.decoding import Decoder

        device = PartialState().device
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        tokenizer = load_or_explain(AutoTokenizer, self.name)
        if tokenizer.chat_template is None:
            raise UserError(f"{self.name} has no chat template: it cannot be asked in the dialogue")
        model = load_or_explain(AutoModelForCausalLM, self.name, dtype=dtype).to(device).eval()
        try:
            return Decoder(model, tokenizer)
        except ValueError as error:  # layers that cannot share a passage
            raise UserError(f"{self.name}: {error}") from None

    def _or_explain(self, answers: Iterator[list[Any]]) -> Iterator[list[Any]]:
        """The answers; a passage the model cannot read, such as one beyond its window, ends the run in one line."""
        try:
            yield from answers
        except ValueError as error:
            raise UserError(f"{self.name}: {error}") from None


def to_line(name: str, passage: BenchmarkPassage, query: Query, answer: "Answer", occurrences: Occurrences) -> Line:
    """A line of predictions.jsonl. Scores are the student's own, before any calibration; None where it told none."""
    strings = answer.scored_strings()
    return {
        "benchmark": name,
        "passage_id": passage.id,
        "text": passage.text,
        "type": query.type,
        **wording_of(query),
        "raw": answer.text,
        "parse_failure": strings is None,
        "spans": [
            {"start": start, "end": end, "score": None if score is None else round(score, 6)}
            for string, score in strings or []
            for start, end in find_spans(passage.text, string, occurrences)
        ],
        "gold": query.gold,
        "gold_spans": query.gold_spans,
    }


def fingerprint(name: str) -> str:
    """The commit of a Hub model, or for a folder a hash of its config and of both ends of its weights' files."""
    folder = Path(name)
    if folder.is_dir():
        digest = hashlib.sha256()
        config = folder / "config.json"
        settings = json.loads(config.read_text(encoding="utf-8")) if config.exists() else {}
        settings.pop("open_ner", None)  # defaults and calibration of the pipeline: they change no answer
        digest.update(json.dumps(settings, sort_keys=True).encode())
        for path in sorted(folder.glob("*.safetensors")):
            size = path.stat().st_size
            with path.open("rb") as file:
                digest.update(f"{path.name} {size}".encode() + file.read(ENDS))
                file.seek(max(ENDS, size - ENDS))
                digest.update(file.read())
        return digest.hexdigest()[:16]
    from transformers import AutoConfig

    return getattr(load_or_explain(AutoConfig, name), "_commit_hash", None) or "unknown"
