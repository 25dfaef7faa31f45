"""Benchmarks in every form they come in, as passages with queries. A reject is counted by its reason."""

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from open_ner.conversation import QUERY, order_strings, read_answer, read_conversation, write_answer
from open_ner.tools.errors import UserError

from .config import BenchmarkConfig
from .rows import read_json_rows
from .sets import SetPassage, read_set

RECIPES = Path(__file__).parent.parent / "recipes" / "eval" / "benchmarks"
JSON = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
Spans = list[tuple[int, int]]
Rejects = Counter[str]


@dataclass
class Query:
    """One type asked of one passage."""

    type: str
    gold: str  # the right answer's text
    gold_spans: Spans | None  # None if the benchmark has no offsets for this text
    asked: str = ""  # the words of the query; the type's name unless another wording is tried
    wording: int = 0  # number of that wording; 0 is the type's own name

    def __post_init__(self) -> None:
        self.asked = self.asked or self.type


@dataclass
class BenchmarkPassage:
    """A passage of a benchmark with its queries."""

    id: str
    text: str
    queries: list[Query]


def find_benchmark(name: str) -> Path:
    """The YAML of a benchmark: a path as it is, a shipped one by its name. Raises UserError for an unknown name."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else RECIPES / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(sorted(recipe.stem for recipe in RECIPES.glob("*.yaml")))
        raise UserError(f"benchmark {name!r} is neither a file nor one of {known}")
    return path


def read_passages(
    config: BenchmarkConfig, data_dir: str, rejects: Rejects
) -> tuple[list[BenchmarkPassage], str | None]:
    """All passages of a benchmark, and the commit where it came from the Hub."""
    local, revision = Path(data_dir) / config.path, None
    is_id = config.path.count("/") == 1 and "." not in config.path.split("/")[0] and not config.path.endswith(JSON)
    if not local.exists() and not is_id and not list(local.parent.glob(local.name)):
        raise UserError(f"{local}: no such file; give the folder that holds the benchmarks by --data_dir")
    if is_id and not local.exists():
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        with suppress(HfHubHTTPError, OfflineModeIsEnabled, OSError, ValueError):
            revision = HfApi().dataset_info(config.path, revision=config.revision).sha
        if not revision:
            raise UserError(
                f"{local}: no such file, and the Hub has no dataset {config.path!r} that can be reached: give the "
                "folder that holds the benchmarks by --data_dir, or check the name, the network and $HF_TOKEN"
            )
    if config.format == "official":
        return _read_official(config, local, data_dir, rejects), revision
    if config.format == "conversations":
        return _read_conversations(config, local, revision), revision
    return _read_annotated(config, data_dir, revision, rejects), revision


def _read_annotated(
    config: BenchmarkConfig, data_dir: str, revision: str | None, rejects: Rejects
) -> list[BenchmarkPassage]:
    """Passages with offsets or tags: queries are the row's own types, the benchmark's, or all that occur."""
    passages: list[SetPassage] = []
    for number, passage in enumerate(read_set(replace(config, revision=revision), data_dir), 1):
        if problem := passage.problem or ("" if passage.text.strip() else "empty_text"):
            rejects[problem] += 1
        else:
            passage.id = passage.id or str(number)
            passages.append(passage)
    labels = {entity["type"] for passage in passages for entity in passage.entities} - set(config.drop)
    everywhere = sorted({config.verbalize.get(label, label) for label in labels})
    return [_ask(config, passage, config.types or passage.types or everywhere, rejects) for passage in passages]


def _ask(config: BenchmarkConfig, passage: SetPassage, types: list[str], rejects: Rejects) -> BenchmarkPassage:
    """A passage with its queries; gold spans that are not in the text and repeated ones are rejects."""
    asked = [name for name in types if name not in config.drop]
    by_type: dict[str, Spans] = {}
    for entity in passage.entities:
        start, end, label = entity["start"], entity["end"], entity["type"]
        word = passage.text[start:end]
        if not 0 <= start < end <= len(passage.text) or word != entity.get("text", word):
            rejects["gold_span_not_in_text"] += 1
            continue
        name = config.verbalize.get(label, label)
        if label in config.drop or name in config.drop:
            continue
        spans = by_type.setdefault(name, [])
        if name not in asked:
            rejects[f"label_not_asked: {label}"] += 1
        elif (start, end) in spans:
            rejects["gold_span_given_twice"] += 1
        else:
            if any(a < end and start < b for a, b in spans):
                rejects["overlapping_gold_spans_kept"] += 1
            spans.append((start, end))
    queries = []
    for name in dict.fromkeys(asked):
        spans = sorted(by_type.get(name, []))
        gold = write_answer(order_strings((start, passage.text[start:end]) for start, end in spans))
        queries.append(Query(name, gold, spans))
    return BenchmarkPassage(passage.id, passage.text, queries)


def _read_conversations(config: BenchmarkConfig, local: Path, revision: str | None) -> list[BenchmarkPassage]:
    """A split of a dataset of this project: the queries are those of its conversations, the gold its answers."""
    from datasets import load_dataset

    source = config.path if revision else str(local)
    try:
        rows = load_dataset(source, config.config, split=config.split, revision=revision)
    except Exception as error:  # `datasets` raises dozens of kinds for a source it cannot read
        raise UserError(f"benchmark {config.name}: {source!r} cannot be read: {str(error):.200}") from None
    if missing := {"id", "messages", "entities"} - set(rows.column_names):
        raise UserError(f"{source}: has no column {sorted(missing)[0]!r}: not in the format 'conversations'")
    passages = []
    for row in rows.to_list():
        try:
            text, _, pairs = read_conversation(row["messages"])
        except ValueError as error:
            raise UserError(f"{source}: row {row['id']!r}: {error}") from None
        spans: dict[str, Spans] = {}
        for entity in row["entities"]:
            spans.setdefault(entity["type"], []).append((entity["start"], entity["end"]))
        queries = [Query(name, gold, sorted(spans.get(name, []))) for name, gold in pairs if name not in config.drop]
        passages.append(BenchmarkPassage(row["id"], text, queries))
    return passages


def _read_official(config: BenchmarkConfig, local: Path, data_dir: str, rejects: Rejects) -> list[BenchmarkPassage]:
    """The authors' files: one element per (sentence, type); a sentence that occurs twice is two passages."""
    offsets = _read_spans(config, data_dir) if config.spans else None
    passages: list[BenchmarkPassage] = []
    for number, element in enumerate(read_json_rows(local), 1):
        turns = element.get("conversations")  # passage, acknowledgement, query, answer
        values = [turn.get("value") for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []
        strings = [value for value in values if isinstance(value, str)]
        asked = QUERY.fullmatch(strings[2]) if len(strings) == len(values) > 3 else None
        if asked is None:
            raise UserError(f"{local}: element {number} is not in the format 'official': {element!r:.80}")
        text, name, gold = strings[0].removeprefix("Text: "), asked["type"], strings[3]
        if name in config.drop:
            continue
        current = passages[-1] if passages else None
        if current is None or current.text != text or any(query.type == name for query in current.queries):
            current = BenchmarkPassage(str(element.get("id", number)), text, [])
            passages.append(current)
            if offsets is not None and text not in offsets:
                rejects["text_without_offsets"] += 1
        spans = None
        if offsets is not None and text in offsets:
            spans = sorted(offsets[text].get(name, []))
            if {text[a:b] for a, b in spans} != set(read_answer(gold) or []):
                rejects["official_gold_differs_from_offsets"] += 1
        current.queries.append(Query(name, gold, spans))
    return passages


def _read_spans(config: BenchmarkConfig, data_dir: str) -> dict[str, dict[str, Spans]]:
    """Spans by type of each text of the file with offsets."""
    offsets: dict[str, dict[str, Spans]] = {}
    for passage in read_set(replace(config, path=config.spans or "", format="offsets"), data_dir):
        by_type = offsets.setdefault(passage.text, {})
        for entity in passage.entities:
            spans = by_type.setdefault(config.verbalize.get(entity["type"], entity["type"]), [])
            if (entity["start"], entity["end"]) not in spans:
                spans.append((entity["start"], entity["end"]))
    return offsets
