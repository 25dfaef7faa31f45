"""A baseline is one YAML under recipes/eval/baselines/: a model, its prompts, and the form of its replies."""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import SandboxedEnvironment
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from command_line.pretrained import load_or_explain
from command_line.recipes import option
from command_line.students import revision_of
from dataset_builder.teacher.parse import parse_reply, without_thoughts
from hub.records import ModelRecord
from ner_sets.benchmarks import BenchmarkPassage, Query
from open_ner.conversation import Message, find_spans, read_answer, write_answer, write_mentions
from open_ner.tools.errors import UserError

from .predict import Todo
from .records import PredictedSpan, PredictionLine, make_line
from .student import load_model
from .suite import SuiteConfig

BATCH = 8  # prompts in one generate()


@dataclass
class BaselineConfig:
    """One baseline. Its Jinja templates may use `text` and `types`, and `type` if a request asks one query."""

    name: str = option(..., "name in results")
    model: str = option(..., "the model's name at the endpoint, or its folder or Hub id in process")
    user: str = option(..., "template of the user's message")
    verified_in: str = option(..., "source of the prompt and of the reply's form, or a note that none was found")
    where: Literal["endpoint", "causal", "seq2seq"] = option(
        "endpoint", "an OpenAI-compatible endpoint, or in process: a causal or a sequence-to-sequence language model"
    )
    per: Literal["query", "passage"] = option("query", "what one request asks: one type of a passage, or all of them")
    system: str | None = option(None, "template of the system message; in process, of the beginning of the prompt")
    reply: Literal["list", "tuples", "lines"] = option(
        "list",
        'form of a reply: list: ["span", ...], tuples: [("span", "type"), ...], lines: "type: span; type: span"',
    )

    def __post_init__(self) -> None:
        if self.per == "passage" and self.reply == "list":
            raise UserError(f"baseline {self.name}: a list names no types: set reply: tuples or lines, or per: query")


def render(config: BaselineConfig, text: str, types: Sequence[str]) -> list[Message]:
    """Render the messages of one request. The passage is inserted as data and is never read as a template."""
    environment = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    given = {"text": text, "types": list(types), **({"type": types[0]} if config.per == "query" else {})}
    parts = [("system", config.system), ("user", config.user)]
    try:
        return [{"role": role, "content": environment.from_string(t).render(given)} for role, t in parts if t]
    except TemplateError as error:
        allowed = "it may use text, types and, per query, type"
        raise UserError(f"baseline {config.name}: template: {error}; {allowed}") from None


def read(
    config: BaselineConfig, reply: str, finish_reason: str, text: str, types: Sequence[str]
) -> tuple[dict[str, list[str]] | None, int]:
    """Read a reply to a request about `types`.

    Returns:
        The strings of each type, matched by name ignoring case, or None if the reply cannot be read; and the number
        of spans of types that were not asked.
    """
    reply = without_thoughts(reply)
    if config.reply == "list":
        strings = _first_list(reply)
        return None if strings is None else {types[0]: strings}, 0
    if config.reply == "tuples":
        parsed = parse_reply(reply, finish_reason, text)
        pairs = [] if parsed == "no_entities" else parsed
    elif reply.strip().rstrip(".").casefold() == "none":  # InstructUIE's empty list
        pairs = []
    else:
        parts = (part.partition(":") for part in reply.split(";"))
        pairs = [(span.strip(), name) for name, _, span in parts if span.strip()] or None
    if pairs is None or isinstance(pairs, str):
        return None, 0
    asked = {name.casefold(): name for name in types}
    found: dict[str, list[str]] = {name: [] for name in types}
    for pair in pairs:
        if (name := asked.get(pair[1].strip().casefold())) is not None:
            found[name].append(pair[0])
    return found, len(pairs) - sum(map(len, found.values()))


def baseline_lines(
    config: BaselineConfig, benchmark: str, passage: BenchmarkPassage, replies: Sequence[tuple[str, str]],
    counts: Counter[str], suite: SuiteConfig,
) -> list[PredictionLine]:  # fmt: skip
    """Make the lines of a passage from the replies to its requests.

    `replies` are pairs of text and finish reason, in the order of `requests_of`; `counts` counts what went wrong, by
    reason. The official scorer reads `raw`, which must be a list. If a reply has another form, `raw` is the list of
    the strings in it, and `reply` keeps the reply itself.
    """
    lines, text = [], passage.text
    for queries, (reply, finish) in zip(requests_of(config, passage), replies, strict=True):
        if finish != "stop":
            counts[finish] += 1
        by_type, not_asked = read(config, reply, finish, text, [query.type for query in queries])
        counts["type_not_asked"] += not_asked
        for query in queries:
            if by_type is None:
                lines.append(make_line(benchmark, passage, query, reply, None))
                continue
            strings = list(dict.fromkeys(by_type[query.type]))
            places = sorted({span for string in strings for span in find_spans(text, string, suite.occurrences)})
            spans: list[PredictedSpan] = [{"start": start, "end": end, "score": None} for start, end in places]
            if config.reply == "list" and read_answer(reply.strip()) is not None:
                lines.append(make_line(benchmark, passage, query, reply, spans))
            elif config.reply == "list":  # in a code fence, after thoughts or in prose
                lines.append(make_line(benchmark, passage, query, write_answer(strings), spans, reply))
            else:  # strings that do not occur in the text come last
                found = [(text.find(string) if string in text else len(text), string) for string in strings]
                lines.append(make_line(benchmark, passage, query, write_mentions(found), spans, reply))
    return lines


class LocalBaseline:
    """An `EvaluatedModel` for a baseline in process: plain-text prompts, greedy `generate()` in batches."""

    in_process = True

    def __init__(self, config: BaselineConfig, dtype: str | None = None) -> None:
        self.config, self.name, self.faults, self.dtype = config, config.name, Counter[str](), dtype
        self.record: ModelRecord = {
            "id": config.model, "revision": revision_of(config.model), "kind": "baseline", "baseline": config.name,
            "prompt": [config.system, config.user, config.per, config.reply, config.where],
        }  # fmt: skip

    def ask(self, todo: Todo, suite: SuiteConfig) -> Iterator[list[PredictionLine]]:
        """Yield the lines of each passage, in order; a prompt too long for the model is a parse failure."""
        tokenizer, model = self._loaded
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        room = positions - suite.max_new_tokens if positions and self.config.where == "causal" else sys.maxsize
        prompts = [
            "".join(message["content"] for message in render(self.config, passage.text, [q.asked for q in queries]))
            for _, passage in todo
            for queries in requests_of(self.config, passage)
        ]
        fitting = [prompt for prompt in prompts if len(tokenizer(prompt, verbose=False)["input_ids"]) <= room]
        batches = [fitting[begin : begin + BATCH] for begin in range(0, len(fitting), BATCH)]
        generated, held = (reply for batch in batches for reply in self._generate(batch, suite)), set(fitting)
        replies = (next(generated) if prompt in held else ("", "too_long") for prompt in prompts)
        for benchmark, passage in todo:
            own = [next(replies) for _ in requests_of(self.config, passage)]
            yield baseline_lines(self.config, benchmark.config.name, passage, own, self.faults, suite)

    def _generate(self, prompts: list[str], suite: SuiteConfig) -> list[tuple[str, str]]:
        """Return the reply and the finish reason of each prompt."""
        tokenizer, model = self._loaded
        inputs = tokenizer(prompts, padding=True, return_tensors="pt").to(model.device)
        begin = inputs["input_ids"].shape[1] if self.config.where == "causal" else 0
        with torch.no_grad():
            output = model.generate(**inputs, max_new_tokens=suite.max_new_tokens, do_sample=False)
        ends = model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends])
        return [
            (tokenizer.decode(ids, skip_special_tokens=True).strip(), "stop" if ends & set(ids) else "length")
            for ids in output[:, begin:].tolist()
        ]

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """The tokenizer and the model."""
        kind = AutoModelForCausalLM if self.config.where == "causal" else AutoModelForSeq2SeqLM
        tokenizer = load_or_explain(AutoTokenizer, self.config.model, padding_side="left")
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        return tokenizer, load_model(kind, self.config.model, self.dtype)


def requests_of(config: BaselineConfig | None, passage: BenchmarkPassage) -> list[list[Query]]:
    """Group the queries of a passage by request; without a baseline, each query is one request."""
    if config is None or config.per == "query":
        return [[query] for query in passage.queries]
    if any(query.wording for query in passage.queries):
        raise UserError(f"baseline {config.name} asks all types at once, so it cannot be asked other wordings")
    return [passage.queries]


def _first_list(reply: str) -> list[str] | None:
    """Return the first JSON list of strings in a reply, ignoring the text around it; None if there is no list."""
    for begin in (place for place, character in enumerate(reply) if character == "["):
        with suppress(ValueError, RecursionError):
            value, _ = json.JSONDecoder().raw_decode(reply, begin)
            if all(isinstance(item, str) for item in value):
                return value
    return None
