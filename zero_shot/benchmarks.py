"""A benchmark is one YAML under recipes/eval/benchmarks/; a suite is a list of them. Both become queries here."""

import gzip
import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from open_ner.cli import UserError, option, read_recipe
from open_ner.conversation import OCCURRENCES, QUESTION, Occurrences, order_strings, read_answer, write_answer

Spans = list[tuple[int, int]]


@dataclass
class BenchmarkConfig:
    """One benchmark. Paths are relative to the suite's `data_dir`."""

    name: str = option(..., "name in results")
    path: str = option(..., "file with the queries")
    format: Literal["offsets", "official"] = option(..., "JSONL with offsets, or the authors' conversations")
    version: int = option(1, "raised when anything here changes a score")
    spans: str | None = option(None, "offsets of an `official` file's texts, joined by text; absent: no strict score")
    types: list[str] | None = option(None, "types asked of each passage; absent: the row's own `types`")
    drop: list[str] = option(list, "labels that are not asked")
    verbalise: dict[str, str] = option(dict, "label in `spans` -> the words the query uses")
    domain: str = option("", "domain, as the paper groups them")
    licence: str = option("", "what the source says of its licence")


@dataclass
class SuiteConfig:
    """One evaluation run."""

    name: str = option(..., "name in the results' folder")
    benchmarks: list[str] = option(..., "files under recipes/eval/benchmarks/, without .yaml")
    protocol: str = option(..., "which labels are asked and how they are worded: uniner, sample, ...")
    decoding: Literal["free", "grounded"] = option("free", "free beside published numbers; grounded never mis-parses")
    occurrences: Occurrences = option(OCCURRENCES, "spans of an answered string: all of its places, or the first")
    data_dir: str = option(".", "folder the benchmarks' paths start from")
    max_new_tokens: int = option(256, "longest answer, in tokens")
    token_budget: int = option(16384, "tokens of cache in one batch")
    limit: int | None = option(None, "passages a benchmark, a seeded sample; absent: all")
    seed: int = option(42, "seed of the sample and of the bootstrap")
    output_dir: str = option("results", "where results go")


@dataclass
class Query:
    """One type asked of one passage. `gold` is a reply's text; `gold_spans` is None where no offsets are known."""

    type: str
    gold: str
    gold_spans: Spans | None


@dataclass
class EvalPassage:
    """A passage of a benchmark with its queries."""

    id: str
    text: str
    queries: list[Query]


@dataclass
class Benchmark:
    """A loaded benchmark: passages, the size before sampling, and what was skipped by reason."""

    config: BenchmarkConfig
    passages: list[EvalPassage]
    size: int
    skipped: dict[str, int] = field(default_factory=dict)
    digest: str = ""


def load_benchmark(recipe: Path, suite: SuiteConfig) -> Benchmark:
    """Read one benchmark's file into passages; raises UserError for a missing, broken or empty one."""
    config = read_recipe(BenchmarkConfig, recipe)
    path = Path(suite.data_dir) / config.path
    skipped: dict[str, int] = {}

    def skip(reason: str) -> None:
        skipped[reason] = skipped.get(reason, 0) + 1

    try:
        passages = (_read_offsets if config.format == "offsets" else _read_official)(config, path, suite, skip)
    except (ValueError, KeyError, TypeError, IndexError, EOFError, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: not in the format {config.format!r} ({error!r:.120})") from None
    if not passages:
        raise UserError(f"{path}: benchmark {config.name} has no passage; skipped: {skipped or 'nothing'}")
    size = len(passages)
    if suite.limit and suite.limit < size:
        chosen = sorted(random.Random(suite.seed).sample(range(size), suite.limit))
        passages = [passages[i] for i in chosen]
    return Benchmark(config, passages, size, skipped, hashlib.sha256(path.read_bytes()).hexdigest()[:16])


def _read_offsets(
    config: BenchmarkConfig, path: Path, suite: SuiteConfig, skip: Callable[[str], None]
) -> list[EvalPassage]:
    passages = []
    for row in _rows(path):
        text, queries = row["text"], []
        wrong = [e for e in row["entities"] if text[e["start"] : e["end"]] != e["text"]]
        for _ in wrong:
            skip("gold_span_not_in_text")
        mentions: dict[str, list[tuple[int, int]]] = {}
        for entity in row["entities"]:
            if entity not in wrong:
                label = config.verbalise.get(entity["type"], entity["type"])
                mentions.setdefault(label, []).append((entity["start"], entity["end"]))
        asked = [name for name in config.types or row["types"] if name not in config.drop]
        for label in set(mentions) - set(asked) - set(config.drop):
            skip(f"label_not_asked: {label}")
        for name in asked:
            spans = sorted(mentions.get(name, []))
            gold = write_answer(order_strings((start, text[start:end]) for start, end in spans))
            queries.append(Query(name, gold, spans))
        passages.append(EvalPassage(row["id"], text, queries))
    return passages


def _read_official(
    config: BenchmarkConfig, path: Path, suite: SuiteConfig, skip: Callable[[str], None]
) -> list[EvalPassage]:
    """The authors' files: one element per (sentence, type); a sentence that occurs twice is two passages."""
    offsets = _read_spans(Path(suite.data_dir) / config.spans, config) if config.spans else None
    passages: list[EvalPassage] = []
    for element in _rows(path):
        turns = [turn["value"] for turn in element["conversations"]]
        text, name, gold = turns[0].removeprefix("Text: "), QUESTION.fullmatch(turns[2])["type"], turns[3]
        if name in config.drop:
            continue
        current = passages[-1] if passages else None
        if current is None or current.text != text or any(query.type == name for query in current.queries):
            current = EvalPassage(element["id"], text, [])
            passages.append(current)
            if offsets is not None and text not in offsets:
                skip("text_without_offsets")
        spans = None
        if offsets is not None and text in offsets:
            spans = sorted(offsets[text].get(name, []))
            if {text[a:b] for a, b in spans} != set(read_answer(gold) or []):
                skip("official_gold_differs_from_offsets")
        current.queries.append(Query(name, gold, spans))
    return passages


def _read_spans(path: Path, config: BenchmarkConfig) -> dict[str, dict[str, Spans]]:
    offsets: dict[str, dict[str, Spans]] = {}
    for row in _rows(path):
        by_type = offsets.setdefault(row["text"], {})
        for entity in row["entities"]:
            name = config.verbalise.get(entity["type"], entity["type"])
            span = (entity["start"], entity["end"])
            if span not in by_type.setdefault(name, []):
                by_type[name].append(span)
    return offsets


def _rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON list or of JSONL, gzipped or not."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            content = file.read()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give the folder that holds the benchmarks by --data_dir") from None
    if content.lstrip().startswith("["):
        return json.loads(content)
    return [json.loads(line) for line in content.splitlines() if line.strip()]
