"""Predictions of one model: every query of a suite asked in process, written as they come, resumed after a kill."""

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from open_ner.cli import UserError, load_or_explain
from open_ner.conversation import Occurrences, find_spans

from .benchmarks import Benchmark, EvalPassage, Query, SuiteConfig

if TYPE_CHECKING:
    from open_ner.answers import Answer

PASSAGES_AT_A_TIME = 64


def predict(
    name: str, benchmarks: list[Benchmark], suite: SuiteConfig, folder: Path
) -> tuple[list[dict[str, Any]], float, str]:
    """Predictions of one model, its seconds and its revision; continues a partial predictions file of the same run."""
    folder.mkdir(parents=True, exist_ok=True)
    revision = fingerprint(name)
    options = [suite.limit, suite.seed, suite.max_new_tokens, suite.occurrences]
    identity = json.dumps([revision, [b.digest for b in benchmarks], *options])
    partial = folder / "predictions.partial.jsonl"
    lines, seconds = _resume(partial, identity)
    done = {(line["benchmark"], line["passage_id"]) for line in lines}
    todo = [(b, p) for b in benchmarks for p in b.passages if (b.config.name, p.id) not in done]
    if done:
        print(f"{name}: {len(done)} passages were scored before")
    if todo:
        with partial.open("a" if lines else "w", encoding="utf-8") as file:
            if not lines:
                print(json.dumps({"run": identity}), file=file)
            for line in _answer(name, todo, suite, seconds):
                lines.append(line)
                print(json.dumps(line, ensure_ascii=False), file=file, flush=True)
                seconds = line["seconds"]
    order = {
        (b.config.name, p.id): number for number, (b, p) in enumerate((b, p) for b in benchmarks for p in b.passages)
    }
    lines.sort(key=lambda line: order[line["benchmark"], line["passage_id"]])
    final = folder / "predictions.jsonl"
    with final.open("w", encoding="utf-8") as file:
        for line in lines:
            kept = {key: value for key, value in line.items() if key != "seconds"}
            print(json.dumps(kept, ensure_ascii=False), file=file)
    partial.unlink(missing_ok=True)
    return lines, seconds, revision


def _resume(partial: Path, identity: str) -> tuple[list[dict[str, Any]], float]:
    """Lines of a partial file of the same run, whole passages only."""
    if not partial.exists():
        return [], 0.0
    lines = []
    for number, text in enumerate(partial.read_text(encoding="utf-8").splitlines()):
        try:
            line = json.loads(text)
        except ValueError:
            break  # torn by a kill
        if number == 0:
            if line.get("run") != identity:
                return [], 0.0
        else:
            lines.append(line)
    if lines:  # the last passage may lack some of its queries
        last = lines[-1]["benchmark"], lines[-1]["passage_id"]
        lines = [line for line in lines if (line["benchmark"], line["passage_id"]) != last]
    with partial.open("w", encoding="utf-8") as file:
        for line in [{"run": identity}, *lines]:
            print(json.dumps(line, ensure_ascii=False), file=file)
    return lines, lines[-1]["seconds"] if lines else 0.0


def _answer(name: str, todo: list, suite: SuiteConfig, seconds: float) -> Iterator[dict[str, Any]]:
    """Ask a model every query of the passages that remain; yields a predictions.jsonl line for each."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from open_ner.decoding import Decoder, Request

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    tokenizer = load_or_explain(AutoTokenizer, name)
    if tokenizer.chat_template is None:
        raise UserError(f"{name} has no chat template: it cannot be asked in the dialogue")
    model = load_or_explain(AutoModelForCausalLM, name, dtype=dtype).to(device).eval()
    try:
        decoder = Decoder(model, tokenizer)
    except ValueError as error:  # layers that cannot share a passage
        raise UserError(f"{name}: {error}") from None
    # alike lengths go through together, and little is padded
    todo = sorted(todo, key=lambda item: len(item[1].text))
    bar = tqdm(total=sum(len(passage.queries) for _, passage in todo), desc=name, unit=" queries")
    for begin in range(0, len(todo), PASSAGES_AT_A_TIME):
        part = todo[begin : begin + PASSAGES_AT_A_TIME]
        requests = [Request(passage.text, [query.type for query in passage.queries]) for _, passage in part]
        started = time.monotonic()
        answers = decoder.answer(
            requests,
            grounded=suite.decoding == "grounded",
            max_new_tokens=suite.max_new_tokens,
            token_budget=suite.token_budget,
        )
        for (benchmark, passage), of_passage in zip(part, _or_explain(answers, name), strict=True):
            seconds += time.monotonic() - started
            started = time.monotonic()
            for query, answer in zip(passage.queries, of_passage, strict=True):
                line = to_line(benchmark.config.name, passage, query, answer, suite.occurrences)
                yield {**line, "seconds": round(seconds, 2)}
                bar.update()
    bar.close()


def to_line(
    name: str, passage: EvalPassage, query: Query, answer: "Answer", occurrences: Occurrences
) -> dict[str, Any]:
    """A line of predictions.jsonl. Scores are the student's own, before any calibration."""
    strings = answer.scored_strings()
    return {
        "benchmark": name,
        "passage_id": passage.id,
        "text": passage.text,
        "type": query.type,
        "raw": answer.text,
        "parse_failure": strings is None,
        "spans": [
            {"start": start, "end": end, "score": round(score, 6)}
            for string, score in strings or []
            for start, end in find_spans(passage.text, string, occurrences)
        ],
        "gold": query.gold,
        "gold_spans": query.gold_spans,
    }


def _or_explain(answers: Iterator[list[Any]], name: str) -> Iterator[list[Any]]:
    """The answers; a passage the model cannot read, such as one beyond its window, ends the run in one line."""
    try:
        yield from answers
    except ValueError as error:
        raise UserError(f"{name}: {error}") from None


def read_calibration(name: str) -> dict[str, float]:
    """The temperature and bias that are saved with a model, those of no calibration where it has none."""
    from transformers import AutoConfig

    saved = getattr(load_or_explain(AutoConfig, name), "open_ner", None) or {}
    return {"temperature": saved.get("temperature", 1.0), "bias": saved.get("bias", 0.0)}


def fingerprint(name: str) -> str:
    """The commit of a Hub model, or for a folder a hash over the sizes and times of its weights and its config."""
    folder = Path(name)
    if folder.is_dir():
        state = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in sorted(folder.glob("*.safetensors"))]
        config = folder / "config.json"
        return hashlib.sha256(repr(state).encode() + (config.read_bytes() if config.exists() else b"")).hexdigest()[
            :16
        ]
    from transformers import AutoConfig

    return getattr(load_or_explain(AutoConfig, name), "_commit_hash", None) or "unknown"
