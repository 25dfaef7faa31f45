"""A benchmark is one YAML under recipes/eval/benchmarks/; a suite is a list of them. Both become queries here."""

import dataclasses
import hashlib
import json
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from dataset_builder.config import TeacherConfig
from open_ner.cli import UserError, option, read_recipe
from open_ner.conversation import OCCURRENCES, Occurrences

Spans = list[tuple[int, int]]


@dataclass
class BenchmarkConfig:
    """One benchmark. A local path is relative to the suite's `data_dir`."""

    name: str = option(..., "name in results")
    path: str = option(..., "file or pattern below data_dir, or the Hub id of a dataset")
    format: Literal["official", "offsets", "tags", "conll", "conversations"] = option(
        ...,
        "official: the UniversalNER authors' JSON; offsets: text and entities; tags: columns of tokens and BIO, IOB, "
        "BIOES or bare tags; conll: a text file; conversations: a dataset of this project, with `messages`",
    )
    version: int = option(1, "raised when anything here changes a score")
    config: str | None = option(None, "the dataset's config, for a Hub id")
    split: str = option("test", "the dataset's split, for a Hub id")
    data_files: str | None = option(None, "pattern of the files to read of a Hub dataset, instead of config and split")
    revision: str | None = option(None, "commit, tag or branch of a Hub dataset; the result says which commit it was")
    spans: str | None = option(None, "offsets of an `official` file's texts, joined by text; absent: no strict score")
    types: list[str] | None = option(None, "types asked of each passage; absent: the row's own, else all that occur")
    drop: list[str] = option(list, "labels that are not asked")
    verbalise: dict[str, str] = option(dict, "label -> the words the query uses")
    protocols: dict[str, dict[str, Any]] = option(dict, "options that another protocol changes, by its name")
    wordings: dict[str, list[str]] = option(dict, "other wordings of a type, for the paraphrase suite")
    id_column: str = option("id", "column with the id")
    text_column: str = option("text", "offsets: column with the text")
    entities_column: str = option("entities", "offsets: column with a list of {start, end, type}")
    tokens_column: str = option("tokens", "tags: column with the tokens; the text is the tokens joined by spaces")
    tags_column: str = option("ner_tags", "tags: column with the tags, strings or numbers")
    tag_names: list[str] = option(list, "names of numbered tags, where the dataset's features do not give them")
    tag_column: int = option(-1, "conll: column of the tag; 0 is the token, -1 the last")
    comment: str = option("", "conll: what a comment line starts with")
    domain: str = option("", "domain, as the paper groups them")
    licence: str = option("", "what the source says of its licence")
    verified_in: str = option("", "public page that names the Hub id, its splits and its labels")


@dataclass
class SuiteConfig:
    """One evaluation run."""

    name: str = option(..., "name in the results' folder")
    benchmarks: list[str] = option(..., "names under recipes/eval/benchmarks/, or paths of .yaml files")
    protocol: str = option(..., "which labels are asked and how they are worded: uniner, instructuie, sample, ...")
    decoding: Literal["free", "grounded"] = option("free", "free beside published numbers; grounded never mis-parses")
    occurrences: Occurrences = option(OCCURRENCES, "spans of an answered string: all of its places, or the first")
    wordings: bool = option(False, "ask each type under its other wordings too")
    data_dir: str = option(".", "folder the benchmarks' paths start from")
    max_new_tokens: int = option(256, "longest answer, in tokens")
    token_budget: int = option(16384, "tokens of cache in one batch")
    limit: int | None = option(None, "passages a benchmark, a seeded sample; absent: all")
    seed: int = option(42, "seed of the sample and of the bootstrap")
    output_dir: str = option("results", "where results go")
    endpoint: TeacherConfig = option(TeacherConfig, "how models behind an address are asked")


@dataclass
class Query:
    """One type asked of one passage. `gold` is a reply's text; `gold_spans` is None where no offsets are known.

    `wording` counts the wordings of a type; 0 is its own name, the words asked are `asked`.
    """

    type: str
    gold: str
    gold_spans: Spans | None
    asked: str = ""
    wording: int = 0

    def __post_init__(self) -> None:
        self.asked = self.asked or self.type


@dataclass
class EvalPassage:
    """A passage of a benchmark with its queries."""

    id: str
    text: str
    queries: list[Query]


@dataclass
class Benchmark:
    """A loaded benchmark: passages, the size before sampling, and what was skipped by reason.

    `digest` is a hash of all its texts and queries, `revision` the commit of a dataset of the Hub.
    """

    config: BenchmarkConfig
    passages: list[EvalPassage]
    size: int
    skipped: dict[str, int] = field(default_factory=dict)
    digest: str = ""
    revision: str | None = None

    @property
    def hub_id(self) -> str | None:
        """The dataset's id, where it came from the Hub."""
        return self.config.path if self.revision else None


def load_benchmark(recipe: Path, suite: SuiteConfig) -> Benchmark:
    """Read one benchmark into passages; raises UserError for a missing, broken or empty one."""
    from .formats import read_passages

    config = read_recipe(BenchmarkConfig, recipe)
    config = _under_protocol(config, suite.protocol, recipe)
    skipped: Counter[str] = Counter()
    passages, revision = read_passages(config, suite.data_dir, skipped)
    passages = _with_unique_ids([passage for passage in passages if passage.queries])
    if not passages:
        raise UserError(
            f"{config.path}: benchmark {config.name} has no passage to ask; skipped: {dict(skipped) or 'nothing'}"
        )
    rows = [[p.text, [dataclasses.astuple(query) for query in p.queries]] for p in passages]
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]
    size = len(passages)
    if suite.limit and suite.limit < size:
        chosen = sorted(random.Random(suite.seed).sample(range(size), suite.limit))
        passages = [passages[i] for i in chosen]
    if suite.wordings:
        passages = [replace(passage, queries=_reworded(passage.queries, config.wordings)) for passage in passages]
        digest += "+wordings:" + hashlib.sha256(json.dumps(config.wordings).encode()).hexdigest()[:8]
    return Benchmark(config, passages, size, dict(skipped), digest, revision)


def _under_protocol(config: BenchmarkConfig, protocol: str, recipe: Path) -> BenchmarkConfig:
    """The benchmark as a protocol has it."""
    changes = config.protocols.get(protocol, {})
    known = {one.name for one in dataclasses.fields(BenchmarkConfig)} - {"name", "protocols"}
    for name in changes:
        if name not in known:
            raise UserError(f"{recipe}: protocols.{protocol}.{name} is no option of a benchmark")
    return replace(config, **changes)


def _with_unique_ids(passages: list[EvalPassage]) -> list[EvalPassage]:
    """Ids that a file gives twice are told apart by a number."""
    seen: Counter[str] = Counter()
    for passage in passages:
        seen[passage.id] += 1
        if seen[passage.id] > 1:
            passage.id = f"{passage.id}~{seen[passage.id]}"
    return passages


def _reworded(queries: list[Query], wordings: dict[str, list[str]]) -> list[Query]:
    """Each query, and after it the same under the type's other wordings."""
    return [
        replace(query, asked=words, wording=number)
        for query in queries
        for number, words in enumerate([query.type, *wordings.get(query.type, [])])
    ]
