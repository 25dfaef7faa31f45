"""A student, or any chat model, asked in process in the dialogue: all types of a passage in one reading of it."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from command_line.pretrained import load_or_explain
from hub.records import ModelRecord
from ner_sets.benchmarks import BenchmarkPassage, Query
from open_ner.conversation import Occurrences, find_spans
from open_ner.tools.errors import UserError

from .predict import Todo
from .records import PredictedSpan, PredictionLine, make_line
from .suite import SuiteConfig

if TYPE_CHECKING:
    from open_ner.answers import Answer
    from open_ner.decoding import Decoder

ENDS = 1 << 20  # bytes hashed at each end of a weights file; hashing whole files would take minutes


class Student:
    """A model folder or Hub id whose tokenizer has a chat template; an `EvaluatedModel`."""

    in_process = True

    def __init__(self, name: str) -> None:
        self.name, self.replies = name, Counter[str]()
        self.decoder: Decoder | None = None
        self.record: ModelRecord = {"id": name, "revision": fingerprint(name), "kind": "student"}

    def ask(self, todo: Todo, suite: SuiteConfig) -> Iterator[list[PredictionLine]]:
        """Yield the lines of each passage, in order; raises UserError for a passage that the model cannot hold."""
        from open_ner.decoding import Request

        self.decoder = self.decoder or self._load()
        requests = [Request(passage.text, [query.asked for query in passage.queries]) for _, passage in todo]
        answers = self.decoder.answer(
            requests,
            grounded=suite.decoding == "grounded",
            max_new_tokens=suite.max_new_tokens,
            token_budget=suite.token_budget,
        )
        for benchmark, passage in todo:
            try:
                own = next(answers)
            except ValueError as error:
                raise UserError(f"{self.name}: {error}") from None
            yield [
                to_line(benchmark.config.name, passage, query, answer, suite.occurrences)
                for query, answer in zip(passage.queries, own, strict=True)
            ]

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
    name: str, passage: BenchmarkPassage, query: Query, answer: "Answer", occurrences: Occurrences
) -> PredictionLine:
    """Make the line of one answer; its scores are not calibrated, and None if the server gave no probabilities."""
    strings = answer.scored_strings()
    spans: list[PredictedSpan] = [
        {"start": start, "end": end, "score": None if score is None else round(score, 6)}
        for string, score in strings or []
        for start, end in find_spans(passage.text, string, occurrences)
    ]
    return make_line(name, passage, query, answer.text, None if strings is None else spans)


def load_model(kind: type, name: str) -> Any:
    """Load a model for inference on this process's device, in bfloat16 on a GPU and in float32 on a CPU."""
    import torch
    from accelerate import PartialState

    device = PartialState().device
    assert device is not None  # PartialState() sets it
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    return load_or_explain(kind, name, dtype=dtype).to(device).eval()


def fingerprint(name: str) -> str:
    """Return the commit of a Hub model, or a hash of a folder's config and of both ends of its weights files."""
    folder = Path(name)
    if folder.is_dir():
        digest = hashlib.sha256()
        config = folder / "config.json"
        settings = json.loads(config.read_text(encoding="utf-8")) if config.exists() else {}
        settings.pop("open_ner", None)  # the pipeline's defaults and calibration do not change an answer
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
