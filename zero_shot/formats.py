"""The forms benchmarks come in, as passages with queries. What does not fit is left out and counted by its reason."""

import gzip
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path

from dataset_builder.annotated_sets import RawPassage, from_offsets, read_json_rows, read_set
from dataset_builder.config import AnnotatedSetConfig
from open_ner.cli import UserError
from open_ner.conversation import QUESTION, order_strings, read_answer, read_conversation, write_answer

from .benchmarks import BenchmarkConfig, EvalPassage, Query, Spans

JSON = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
Skipped = Counter[str]


def read_passages(config: BenchmarkConfig, data_dir: str, skipped: Skipped) -> tuple[list[EvalPassage], str | None]:
    """All passages of a benchmark, and the commit where it came from the Hub."""
    local = Path(data_dir) / config.path
    revision = None
    if _on_the_hub(config, local):
        revision = _commit(config)
        if not revision:
            raise UserError(
                f"{local}: no such file, and the Hub has no dataset {config.path!r} that can be reached: give the "
                "folder that holds the benchmarks by --data_dir, or check the name, the network and $HF_TOKEN"
            )
    try:
        if config.format == "official":
            return _read_official(config, local, data_dir, skipped), revision
        if config.format == "conversations":
            return _read_conversations(config, local, revision), revision
        return _read_annotated(config, local, data_dir, revision, skipped), revision
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, EOFError, gzip.BadGzipFile) as error:
        raise UserError(f"{local}: not in the format {config.format!r} ({error!r:.120})") from None


def _on_the_hub(config: BenchmarkConfig, local: Path) -> bool:
    """Whether a path that is no local file may be a dataset's id."""
    is_id = config.path.count("/") == 1 and "." not in config.path.split("/")[0] and not config.path.endswith(JSON)
    if not local.exists() and not is_id and not list(local.parent.glob(local.name)):
        raise UserError(f"{local}: no such file; give the folder that holds the benchmarks by --data_dir")
    return is_id and not local.exists()


def _commit(config: BenchmarkConfig) -> str | None:
    """The commit of a dataset; None where the Hub does not tell."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        return HfApi().dataset_info(config.path, revision=config.revision).sha
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError, ValueError):
        return None


def _read_annotated(
    config: BenchmarkConfig, local: Path, data_dir: str, revision: str | None, skipped: Skipped
) -> list[EvalPassage]:
    """Passages with offsets or tags: queries are the row's own types, the benchmark's, or all that occur."""
    raws = []
    for raw, types in _raw_passages(config, local, data_dir, revision):
        if problem := raw.problem or ("" if raw.text.strip() else "empty_text"):
            skipped[problem] += 1
        else:
            raws.append((raw, types))
    labels = {entity["type"] for raw, _ in raws for entity in raw.entities} - set(config.drop)
    everywhere = sorted({config.verbalise.get(label, label) for label in labels})
    return [_passage(config, raw, config.types or types or everywhere, skipped) for raw, types in raws]


def _raw_passages(
    config: BenchmarkConfig, local: Path, data_dir: str, revision: str | None
) -> Iterator[tuple[RawPassage, list[str] | None]]:
    """The passages of a set, with the types that a row of its own names."""
    if config.format == "offsets" and local.exists() and local.name.endswith(JSON):
        for number, row in enumerate(read_json_rows(local), 1):
            if config.text_column not in row or config.entities_column not in row:
                raise UserError(f"{local}: row {number} has no {config.text_column!r} or {config.entities_column!r}")
            name = str(row.get(config.id_column, number))
            yield from_offsets(name, row[config.text_column], row[config.entities_column]), row.get("types")
        return
    names = {one.name for one in fields(AnnotatedSetConfig)} & {one.name for one in fields(BenchmarkConfig)}
    given = {name: getattr(config, name) for name in names} | {"revision": revision, "types": None}
    for raw in read_set(AnnotatedSetConfig(**given), data_dir):
        yield raw, None


def _passage(config: BenchmarkConfig, raw: RawPassage, types: list[str], skipped: Skipped) -> EvalPassage:
    """A passage and its queries; gold spans that are not in the text are counted and left out, as are repeats."""
    asked = [name for name in types if name not in config.drop]
    by_type: dict[str, Spans] = {}
    for entity in raw.entities:
        start, end, label = entity["start"], entity["end"], entity["type"]
        if not 0 <= start < end <= len(raw.text) or raw.text[start:end] != entity.get("text", raw.text[start:end]):
            skipped["gold_span_not_in_text"] += 1
            continue
        name = config.verbalise.get(label, label)
        if label in config.drop or name in config.drop:
            continue
        if name not in asked:
            skipped[f"label_not_asked: {label}"] += 1
            continue
        spans = by_type.setdefault(name, [])
        if (start, end) in spans:
            skipped["gold_span_given_twice"] += 1
            continue
        if any(a < end and start < b for a, b in spans):
            skipped["overlapping_gold_spans_kept"] += 1
        spans.append((start, end))
    queries = []
    for name in dict.fromkeys(asked):
        spans = sorted(by_type.get(name, []))
        queries.append(Query(name, _gold(raw.text, spans), spans))
    return EvalPassage(raw.id, raw.text, queries)


def _read_conversations(config: BenchmarkConfig, local: Path, revision: str | None) -> list[EvalPassage]:
    """A split of a dataset of this project: the queries are those of its conversations, the gold its answers."""
    from datasets import load_dataset

    source = config.path if revision else str(local)
    try:
        rows = load_dataset(source, config.config, split=config.split, revision=revision)
    except Exception as error:  # `datasets` raises dozens of kinds for a source it cannot read
        raise UserError(f"benchmark {config.name}: {source!r} cannot be read: {str(error):.200}") from None
    passages = []
    for row in rows:
        text, _, pairs = read_conversation(row["messages"])
        spans: dict[str, Spans] = {}
        for entity in row["entities"]:
            spans.setdefault(entity["type"], []).append((entity["start"], entity["end"]))
        queries = [Query(name, gold, sorted(spans.get(name, []))) for name, gold in pairs if name not in config.drop]
        passages.append(EvalPassage(row["id"], text, queries))
    return passages


def _read_official(config: BenchmarkConfig, local: Path, data_dir: str, skipped: Skipped) -> list[EvalPassage]:
    """The authors' files: one element per (sentence, type); a sentence that occurs twice is two passages."""
    offsets = _read_spans(config, data_dir) if config.spans else None
    passages: list[EvalPassage] = []
    for element in read_json_rows(local):
        turns = [turn["value"] for turn in element["conversations"]]
        text, name, gold = turns[0].removeprefix("Text: "), QUESTION.fullmatch(turns[2])["type"], turns[3]
        if name in config.drop:
            continue
        current = passages[-1] if passages else None
        if current is None or current.text != text or any(query.type == name for query in current.queries):
            current = EvalPassage(element["id"], text, [])
            passages.append(current)
            if offsets is not None and text not in offsets:
                skipped["text_without_offsets"] += 1
        spans = None
        if offsets is not None and text in offsets:
            spans = sorted(offsets[text].get(name, []))
            if {text[a:b] for a, b in spans} != set(read_answer(gold) or []):
                skipped["official_gold_differs_from_offsets"] += 1
        current.queries.append(Query(name, gold, spans))
    return passages


def _read_spans(config: BenchmarkConfig, data_dir: str) -> dict[str, dict[str, Spans]]:
    path = Path(data_dir) / config.spans
    offsets: dict[str, dict[str, Spans]] = {}
    for row in read_json_rows(path):
        by_type = offsets.setdefault(row["text"], {})
        for entity in row["entities"]:
            name = config.verbalise.get(entity["type"], entity["type"])
            span = (entity["start"], entity["end"])
            if span not in by_type.setdefault(name, []):
                by_type[name].append(span)
    return offsets


def _gold(text: str, spans: Iterable[tuple[int, int]]) -> str:
    return write_answer(order_strings((start, text[start:end]) for start, end in spans))
