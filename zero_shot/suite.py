"""A suite is a list of benchmarks and the options under which they are asked."""

import dataclasses
import difflib
import hashlib
import json
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from command_line.recipes import option, read_recipe
from dataset_builder.config import TeacherConfig
from ner_sets.benchmarks import BenchmarkPassage, find_benchmark, read_passages
from ner_sets.config import BenchmarkConfig
from open_ner.conversation import LONE_SURROGATE, OCCURRENCES, Occurrences
from open_ner.tools.errors import UserError

PUBLISHED = ("uniner", "instructuie")  # protocols of published numbers; a benchmark need not list them


@dataclass
class SuiteConfig:
    """The options of an evaluation run."""

    name: str = option(..., "name in the results' folder")
    benchmarks: list[str] = option(..., "names under recipes/eval/benchmarks/, or paths of .yaml files")
    protocol: str = option(..., "which labels are asked and how they are worded: uniner, instructuie, sample, ...")
    decoding: Literal["free", "flat"] = option(
        "free",
        "free: each type by itself, as in published results; flat: the types of a passage compete for its spans",
    )
    occurrences: Occurrences = option(OCCURRENCES, "spans of an answered string: all its occurrences, or the first")
    wordings: bool = option(False, "ask each type under its other wordings too")
    data_dir: str = option(".", "folder that the benchmarks' paths are relative to")
    max_new_tokens: int = option(256, "longest answer, in tokens")
    token_budget: int = option(16384, "key/value cache of one batch, in tokens")
    dtype: Literal["float32", "bfloat16"] | None = option(
        None, "type of the weights of a model in this program; default: bfloat16 on a GPU, float32 on a CPU"
    )
    limit: int | None = option(None, "seeded sample of this many passages per benchmark; default: all")
    seed: int = option(42, "seed of the sample and of the bootstrap")
    output_dir: str = option("runs/evaluation", "folder of the results")
    endpoint: TeacherConfig = option(TeacherConfig, "options of models at an endpoint")

    def __post_init__(self) -> None:
        for name in ("limit", "max_new_tokens", "token_budget"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UserError(f"--{name} {value}: give at least 1")


@dataclass
class Benchmark:
    """A loaded benchmark, with its options under the suite's protocol."""

    config: BenchmarkConfig
    passages: list[BenchmarkPassage]
    size: int  # passages before sampling
    rejects: dict[str, int] = field(default_factory=dict)  # number by reason
    digest: str = ""  # hash of all texts and queries
    revision: str | None = None  # commit of a Hub dataset

    @property
    def hub_id(self) -> str | None:
        """The dataset's id if it was read from the Hub."""
        return self.config.path if self.revision else None


def load_benchmarks(suite: SuiteConfig) -> list[Benchmark]:
    """Read the suite's benchmarks; raises UserError if two share a name, because predictions are kept by name."""
    benchmarks = [load_benchmark(find_benchmark(name), suite) for name in suite.benchmarks]
    names = Counter(benchmark.config.name for benchmark in benchmarks)
    if twice := [name for name, number in names.items() if number > 1]:
        raise UserError(f"suite {suite.name}: two benchmarks have the name {twice[0]!r}: rename one of them")
    return benchmarks


def load_benchmark(recipe: Path, suite: SuiteConfig) -> Benchmark:
    """Read one benchmark; raises UserError if it is missing, broken or empty, or if the protocol seems misspelt."""
    config = read_recipe(BenchmarkConfig, recipe)
    protocols = dict.fromkeys(PUBLISHED, {}) | config.protocols
    near = difflib.get_close_matches(suite.protocol, protocols, 1, cutoff=0.7)
    if near and not suite.protocol.startswith(tuple(protocols)):
        hint = f"did you mean {near[0]}? If not, add `{suite.protocol}: {{}}` to the protocols of {recipe}"
        raise UserError(f"--protocol {suite.protocol}: {hint}")
    changes = protocols.get(suite.protocol, {})
    known = {one.name for one in dataclasses.fields(BenchmarkConfig)} - {"name", "protocols"}
    if unknown := [name for name in changes if name not in known]:
        raise UserError(f"{recipe}: protocols.{suite.protocol}.{unknown[0]} is not an option of a benchmark")
    config = read_recipe(BenchmarkConfig, recipe, changes)  # this checks the types of the changed values
    rejects: Counter[str] = Counter()
    passages, revision = read_passages(config, suite.data_dir, rejects)
    if passages and not any(passage.queries for passage in passages):
        raise UserError(f"{recipe}: benchmark {config.name} has no type to ask: set its `types`, as in [person, city]")
    for passage in passages:
        passage.dataset = passage.dataset or config.dataset or None
    rejects["no_type_to_ask"] += sum(not passage.queries for passage in passages)
    passages, seen = [passage for passage in passages if passage.queries], Counter[str]()
    for passage in passages:
        seen[passage.id] += 1
        if seen[passage.id] > 1:
            passage.id = f"{passage.id}~{seen[passage.id]}"
    # tokenizers do not accept lone surrogates (half of a character) in a text or a type
    asked = [p for p in passages if not any(LONE_SURROGATE.search(t) for t in (p.text, *(q.type for q in p.queries)))]
    rejects["lone_surrogate"] += len(passages) - len(asked)
    passages, rejects = asked, +rejects
    if not passages:
        found = f"rejects: {dict(rejects) or 'none'}"
        raise UserError(f"{config.path}: benchmark {config.name} has no passage to ask; {found}")
    rows = [
        [p.text, [dataclasses.astuple(q) for q in p.queries], *([p.dataset] if p.dataset else [])] for p in passages
    ]
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]
    size = len(passages)
    if suite.limit and suite.limit < size:
        chosen = sorted(random.Random(suite.seed).sample(range(size), suite.limit))
        passages = [passages[i] for i in chosen]
    if suite.wordings:
        for passage in passages:  # each query is followed by the same query in the type's other wordings
            passage.queries = [
                replace(query, asked=words, wording=number)
                for query in passage.queries
                for number, words in enumerate([query.type, *config.wordings.get(query.type, [])])
            ]
        digest += "+wordings:" + hashlib.sha256(json.dumps(config.wordings).encode()).hexdigest()[:8]
    return Benchmark(config, passages, size, dict(rejects), digest, revision)
