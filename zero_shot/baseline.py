"""A baseline is one YAML under recipes/eval/baselines/: a model, its prompts, and how its replies are read."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from command_line.pretrained import load_or_explain
from command_line.recipes import option
from ner_sets.benchmarks import BenchmarkPassage, Query
from open_ner.conversation import find_spans, order_strings, write_answer
from open_ner.tools.errors import UserError

from .predict import Line, Todo, wording_of
from .suite import SuiteConfig

Message = dict[str, str]
BATCH = 8  # prompts in one generate()


@dataclass
class BaselineConfig:
    """One baseline. Templates are Jinja with `text`, `types`, and for a request per query also `type`."""

    name: str = option(..., "name in results")
    model: str = option(..., "the model's name at the endpoint, or its folder or Hub id in process")
    user: str = option(..., "template of the user's message")
    verified_in: str = option(..., "where the prompt and the form of the reply were read, or that they were not")
    where: Literal["endpoint", "causal", "seq2seq"] = option(
        "endpoint", "an OpenAI-compatible endpoint, or in process: a causal or a sequence-to-sequence language model"
    )
    per: Literal["query", "passage"] = option("query", "what one request asks: one type of a passage, or all of them")
    system: str | None = option(None, "template of the system message; of the prompt's beginning in process")
    reply: Literal["list", "tuples", "lines"] = option(
        "list", 'form of a reply: ["span", ...]; [("span", "type"), ...]; type: span; type: span'
    )


@dataclass
class Reading:
    """Strings by asked type, None where the reply could not be read, and answers of types that were not asked."""

    strings: dict[str, list[str]] | None
    not_asked: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


def render(config: BaselineConfig, text: str, types: Sequence[str]) -> list[Message]:
    """The messages of one request. The passage is data: it is put into the template and never read as one."""
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    given = {"text": text, "types": list(types), **({"type": types[0]} if config.per == "query" else {})}
    parts = [("system", config.system), ("user", config.user)]
    try:
        return [{"role": role, "content": environment.from_string(t).render(given)} for role, t in parts if t]
    except TemplateError as error:
        raise UserError(
            f"baseline {config.name}: template: {error}; it may use text, types and, per query, type"
        ) from None


def read(config: BaselineConfig, reply: str, finish_reason: str, text: str, types: Sequence[str]) -> Reading:
    """A reply to a request about `types`; types are matched by name, whatever their case."""
    if config.reply == "list":
        strings = _first_list(reply)
        return Reading(None if strings is None else {types[0]: strings})
    pairs = _tuples(reply, finish_reason, text) if config.reply == "tuples" else _lines(reply)
    if pairs is None:
        return Reading(None)
    asked = {name.casefold(): name for name in types}
    found: dict[str, list[str]] = {name: [] for name in types}
    not_asked = 0
    for span, name in pairs:
        if name.strip().casefold() in asked:
            found[asked[name.strip().casefold()]].append(span)
        else:
            not_asked += 1
    return Reading(found, not_asked)


def to_lines(
    config: BaselineConfig, name: str, passage: BenchmarkPassage, queries: Sequence[Query], reading: Reading,
    reply: str, suite: SuiteConfig,
) -> list[Line]:  # fmt: skip
    """Lines of predictions.jsonl of the queries that one reply answers.

    `raw` is what the official scorer reads: the reply itself where it is a list, else the strings read from it, which
    a scorer of lists could not see. The reply is kept beside it.
    """
    lines = []
    for query in queries:
        strings = None if reading.strings is None else list(dict.fromkeys(reading.strings[query.type]))
        spans = {span for string in strings or [] for span in find_spans(passage.text, string, suite.occurrences)}
        verbatim = config.reply == "list" or strings is None
        lines.append({
            "benchmark": name,
            "passage_id": passage.id,
            "text": passage.text,
            "type": query.type,
            **wording_of(query),
            "raw": reply if verbatim else write_answer(_in_order(passage.text, strings)),
            **({} if verbatim else {"reply": reply}),
            "parse_failure": strings is None,
            "spans": [{"start": start, "end": end, "score": None} for start, end in sorted(spans)],
            "gold": query.gold,
            "gold_spans": query.gold_spans,
        })  # fmt: skip
    return lines


class LocalBaseline:
    """A baseline in process: prompts as plain text, `generate()` in batches of alike lengths, greedy."""

    shared = True

    def __init__(self, config: BaselineConfig) -> None:
        from .student import fingerprint

        self.config, self.name, self.loaded = config, config.name, None
        revision = fingerprint(config.model)
        self.model = {"id": config.model, "revision": revision, "kind": "baseline", "baseline": config.name}

    def ask(self, todo: Todo, suite: SuiteConfig) -> Iterator[list[Line]]:
        """The lines of each passage; see `Asker`."""
        rendered = [
            render(self.config, passage.text, [query.asked for query in queries])
            for _, passage in todo
            for queries in requests_of(self.config, passage)
        ]
        prompts = ["".join(message["content"] for message in messages) for messages in rendered]
        batches = [prompts[begin : begin + BATCH] for begin in range(0, len(prompts), BATCH)]
        replies = (reply for batch in batches for reply in self._generate(batch, suite))
        for benchmark, passage in todo:
            lines = []
            for queries in requests_of(self.config, passage):
                reply, finish = next(replies)
                reading = read(self.config, reply, finish, passage.text, [query.type for query in queries])
                lines += to_lines(self.config, benchmark.config.name, passage, queries, reading, reply, suite)
            yield lines

    def _generate(self, prompts: list[str], suite: SuiteConfig) -> list[tuple[str, str]]:
        import torch

        tokenizer, model = self.loaded = self.loaded or self._load()
        inputs = tokenizer(prompts, padding=True, return_tensors="pt").to(model.device)
        window = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        room = inputs["input_ids"].shape[1] + (suite.max_new_tokens if self.config.where == "causal" else 0)
        if self.config.where == "causal" and window and room > window:
            raise UserError(f"{self.name}: a prompt and its reply need {room} tokens, the model's window is {window}")
        with torch.inference_mode():
            output = model.generate(**inputs, max_new_tokens=suite.max_new_tokens, do_sample=False)
        begin = inputs["input_ids"].shape[1] if self.config.where == "causal" else 0
        ends = model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends])
        written = [line[begin:].tolist() for line in output]
        return [
            (tokenizer.decode(ids, skip_special_tokens=True).strip(), "stop" if ends & set(ids) else "length")
            for ids in written
        ]

    def _load(self) -> tuple[Any, Any]:
        import torch
        from accelerate import PartialState
        from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

        device = PartialState().device
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        kind = AutoModelForCausalLM if self.config.where == "causal" else AutoModelForSeq2SeqLM
        tokenizer = load_or_explain(AutoTokenizer, self.config.model, padding_side="left")
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        return tokenizer, load_or_explain(kind, self.config.model, dtype=dtype).to(device).eval()


def requests_of(config: BaselineConfig, passage: BenchmarkPassage) -> list[list[Query]]:
    """The queries of a passage, by request."""
    if config.per == "passage" and any(query.wording for query in passage.queries):
        raise UserError(f"baseline {config.name} asks all types at once: it has no other wordings to try")
    return [[query] for query in passage.queries] if config.per == "query" else [passage.queries]


def _in_order(text: str, strings: list[str]) -> list[str]:
    """Strings in the order of an answer; those that do not occur come last."""
    return order_strings((text.find(string) if string in text else len(text), string) for string in strings)


def _first_list(reply: str) -> list[str] | None:
    """The first JSON list of strings in a reply, amid whatever prose; None where there is none."""
    begin = reply.find("[")
    while begin >= 0:
        try:
            value, _ = json.JSONDecoder().raw_decode(reply, begin)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return value
        begin = reply.find("[", begin + 1)
    return None


def _tuples(reply: str, finish_reason: str, text: str) -> list[tuple[str, str]] | None:
    from dataset_builder.teacher.parse import parse_reply

    pairs = parse_reply(reply, finish_reason, text)
    if pairs == "no_entities":
        return []
    return None if isinstance(pairs, str) else [(pair[0], pair[1]) for pair in pairs]


def _lines(reply: str) -> list[tuple[str, str]] | None:
    """`type: span; type: span`, as InstructUIE writes it; None where no part has a colon. "None" means no entity."""
    if reply.strip().rstrip(".").casefold() == "none":
        return []
    pairs = []
    for part in reply.split(";"):
        name, colon, span = part.partition(":")
        if colon and span.strip():
            pairs.append((span.strip(), name))
    return pairs or None
