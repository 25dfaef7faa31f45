"""Read benchmarks in any of their formats as passages with queries. Rejects are counted by reason."""

import glob
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from command_line.recipes import find_recipe
from open_ner.conversation import QUERY, Span, read_answer, read_conversation, write_mentions
from open_ner.tools.errors import UserError

from .config import BenchmarkConfig
from .rows import read_json_rows, readable
from .sets import FILE_SUFFIXES, SetPassage, read_set

RECIPES = Path(__file__).parent.parent / "recipes" / "eval" / "benchmarks"
Spans = list[Span]
Rejects = Counter[str]


@dataclass
class Query:
    """One type asked of one passage."""

    type: str
    gold: str  # text of the right answer
    gold_spans: Spans | None  # None if the benchmark has no offsets for the passage
    asked: str = ""  # the words in the query; default: the type
    wording: int = 0  # index of the wording; 0 is the type itself

    def __post_init__(self) -> None:
        self.asked = self.asked or self.type


@dataclass
class BenchmarkPassage:
    """A passage of a benchmark with its queries."""

    id: str
    text: str
    queries: list[Query]
    dataset: str | None = None  # name in the line `Dataset:` of the dialogue, for students


def find_benchmark(name: str) -> Path:
    """Return the YAML file of a benchmark, given by its path or, if it is a shipped one, by its name.

    Raises UserError for an unknown name.
    """
    return find_recipe(name, RECIPES, "benchmark")


def read_passages(
    config: BenchmarkConfig, data_dir: str, rejects: Rejects, other_texts: list[str] | None = None
) -> tuple[list[BenchmarkPassage], str | None]:
    """Return the passages of a benchmark, and the commit if they come from the Hub.

    Args:
        config: the options of the benchmark.
        data_dir: folder that local paths are relative to; a path that does not exist there is taken as a Hub id.
        rejects: counter to which the rejects are added, by reason.
        other_texts: list to which the texts are added that become no passage: their annotations cannot be read, or
            their type is not asked.

    Raises:
        UserError: the benchmark is missing, not in its `format`, or the Hub cannot be reached.
    """
    local, revision = Path(data_dir) / config.path, None
    others = [] if other_texts is None else other_texts
    if not local.exists() and not glob.glob(str(local)):
        if config.path.count("/") != 1 or "." in config.path.split("/")[0] or config.path.endswith(FILE_SUFFIXES):
            raise UserError(f"{local}: no such file; give the folder that holds the benchmarks by --data_dir")
        from httpx2 import TransportError
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        try:
            revision = HfApi().dataset_info(config.path, revision=config.revision).sha
        except (HfHubHTTPError, OfflineModeIsEnabled, TransportError, OSError, ValueError):
            raise UserError(
                f"{local}: no such file, and the Hub has no dataset {config.path!r} that can be reached: give the "
                "folder that holds the benchmarks by --data_dir, or check the name, the network and $HF_TOKEN"
            ) from None
    if config.format == "official":
        return _read_official(config, local, data_dir, rejects, others), revision
    if config.format == "conversations":
        return _read_conversations(config, local, revision), revision
    passages: list[SetPassage] = []
    for number, passage in enumerate(read_set(replace(config, revision=revision), data_dir), 1):
        if problem := passage.problem or ("" if passage.text.strip() else "empty_text"):
            rejects[problem] += 1
            if passage.text.strip():
                others.append(passage.text)
        else:
            passage.id = passage.id or str(number)
            passages.append(passage)
    labels = {entity["type"] for passage in passages for entity in passage.entities}
    everywhere = sorted(set(_words(config, labels)))
    asked = [
        config.types or (everywhere if passage.types is None else _words(config, passage.types))
        for passage in passages
    ]
    return [_ask(config, *each, rejects) for each in zip(passages, asked, strict=True)], revision


def _words(config: BenchmarkConfig, labels: Iterable[str]) -> list[str]:
    """Return the type names that labels have in queries, without the labels to drop."""
    return [config.verbalize.get(label, label) for label in labels if label not in config.drop]


def _is_asked(config: BenchmarkConfig, name: str) -> bool:
    """Return whether a query of the file is asked, under the options `drop` and `types`."""
    return name not in config.drop and (not config.types or name in config.types)


def _ask(config: BenchmarkConfig, passage: SetPassage, types: list[str], rejects: Rejects) -> BenchmarkPassage:
    """Return a passage with a query per type; gold spans that are repeated or not in the text are rejects."""
    asked = dict.fromkeys(name for name in types if name not in config.drop)
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
            rejects["overlapping_gold_spans_kept"] += any(a < end and start < b for a, b in spans)
            spans.append((start, end))
    queries = []
    for name in asked:
        spans = sorted(by_type.get(name, []))
        gold = write_mentions((start, passage.text[start:end]) for start, end in spans)
        queries.append(Query(name, gold, spans))
    return BenchmarkPassage(passage.id, passage.text, queries)


def _read_conversations(config: BenchmarkConfig, local: Path, revision: str | None) -> list[BenchmarkPassage]:
    """Read a split of a dataset of this project; queries and gold are those of its conversations."""
    from datasets import load_dataset

    if config.verbalize:
        what = "a conversation has the words of its queries already"
        raise UserError(f"benchmark {config.name}: {what}: remove `verbalize`, or choose another format")
    source = config.path if revision else str(local)
    with readable(f"benchmark {config.name}: {source!r}"):
        rows = load_dataset(source, config.config, split=config.split, revision=revision)
    if missing := {"id", "messages", "entities"} - set(rows.column_names):
        raise UserError(f"{source}: has no column {sorted(missing)[0]!r}: not in the format 'conversations'")
    passages = []
    for row in rows.to_list():
        try:
            text, dataset, pairs = read_conversation(row["messages"])
        except ValueError as error:
            raise UserError(f"{source}: row {row['id']!r}: {error}") from None
        spans: dict[str, Spans] = defaultdict(list)
        for entity in row["entities"]:
            spans[entity["type"]].append((entity["start"], entity["end"]))
        queries = [Query(name, gold, sorted(spans[name])) for name, gold in pairs if _is_asked(config, name)]
        passages.append(BenchmarkPassage(row["id"], text, queries, dataset))
    return passages


def _read_official(
    config: BenchmarkConfig, local: Path, data_dir: str, rejects: Rejects, others: list[str]
) -> list[BenchmarkPassage]:
    """Read a file of the UniversalNER authors, which has one element per (sentence, type).

    The elements of a sentence are consecutive; a repeated type starts another passage with the same text. `others`
    receives the texts of elements whose type is not asked.
    """
    offsets: dict[str, dict[str, set[Span]]] = {}  # spans by text and type, from another file
    if config.spans:
        for annotated in read_set(replace(config, path=config.spans, format="offsets"), data_dir):
            by_type = offsets.setdefault(annotated.text, defaultdict(set))
            for entity in annotated.entities:
                by_type[config.verbalize.get(entity["type"], entity["type"])].add((entity["start"], entity["end"]))
    passages: list[BenchmarkPassage] = []
    for number, element in enumerate(read_json_rows(local), 1):
        turns = element.get("conversations")  # passage, acknowledgement, query, answer
        values = [turn.get("value") for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []
        strings = [value for value in values if isinstance(value, str)]
        asked = QUERY.fullmatch(strings[2]) if len(strings) == len(values) > 3 else None
        if asked is None:
            raise UserError(f"{local}: element {number} is not in the format 'official': {element!r:.80}")
        text, name, gold = strings[0].removeprefix("Text: "), asked["type"], strings[3]
        if not _is_asked(config, name):
            others.append(text)
            continue
        if not passages or passages[-1].text != text or any(query.type == name for query in passages[-1].queries):
            passages.append(BenchmarkPassage(str(element.get("id", number)), text, []))
            rejects["text_without_offsets"] += bool(config.spans) and text not in offsets
        spans = None
        if text in offsets:
            spans = sorted(offsets[text][name])
            found = {text[start:end] for start, end in spans}
            rejects["official_gold_differs_from_offsets"] += found != set(read_answer(gold) or [])
        passages[-1].queries.append(Query(name, gold, spans))
    return passages
