"""What a dataset shares with the benchmarks: word n-grams of the passages, and the types.

Words are the runs of letters and digits in lower case, so that `system 's`, `system's` and `System's` are the same
two words whatever the tokenization. A passage overlaps a benchmark's text when they share an n-gram of words; a text
of fewer words, down to `min_words`, when the passage holds all of it in order. Still shorter texts, such as "show me
comedies", occur anywhere and say nothing: they are not looked for, and counted as `too_short`.
"""

import hashlib
import json
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np

from command_line.recipes import read_recipe
from ner_sets.benchmarks import find_benchmark, read_passages
from ner_sets.config import BenchmarkConfig
from ner_sets.rows import read_json_rows
from open_ner.tools.errors import UserError

from ..annotation.annotate import Annotations
from ..annotation.types import normalize_type
from ..config import ContaminationConfig
from ..corpus.filters import Screen

TEXTS_PER_BATCH = 500
FILTER_BITS = 20
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
INVERSE = np.uint64(pow(int(MULTIPLIER), -1, 2**64))


@dataclass
class BenchmarkContents:
    """Distinct texts and types of a benchmark."""

    name: str
    texts: list[str]
    types: list[str]


@dataclass
class Overlap:
    """A line of the card's table: what the dataset shares with one benchmark."""

    benchmark: str
    texts: int
    too_short: int
    texts_found: int = 0
    passages: int = 0
    removed: int = 0
    types: int = 0
    types_shared: list[str] = field(default_factory=list)


def normalize(text: str) -> str:
    """Text as it is compared: lower case, one form for each character; words are its runs of letters and digits."""
    return (text if text.isascii() else unicodedata.normalize("NFKC", text)).lower()


def load_benchmarks(config: ContaminationConfig) -> list[BenchmarkContents]:
    """The benchmarks of the recipe, by name or by file; raises UserError for one that is not there or empty."""
    loaded = []
    for name in config.benchmarks:
        file = Path(config.data_dir) / name
        is_file = file.exists() and not name.endswith((".yaml", ".yml"))
        benchmark = _of_file(name, file) if is_file else read_recipe(BenchmarkConfig, find_benchmark(name))
        passages, _ = read_passages(benchmark, config.data_dir, Counter())
        if not passages:
            raise UserError(f"{benchmark.path}: benchmark {benchmark.name} has no text")
        types = {normalize_type(query.type) for passage in passages for query in passage.queries}
        texts = list(dict.fromkeys(passage.text for passage in passages))
        loaded.append(BenchmarkContents(benchmark.name, texts, sorted(types)))
    return loaded


def _of_file(name: str, file: Path) -> BenchmarkConfig:
    """The options of a file without a YAML: the authors' conversations, or texts with or without offsets."""
    first = next(read_json_rows(file), {})
    form = "official" if "conversations" in first else "offsets"
    entities = "entities" if "entities" in first else None
    return BenchmarkConfig(Path(name).name.split(".")[0], name, form, entities_column=entities)


class NgramIndex:
    """Hashes of the texts' n-grams, and of the whole of shorter texts, made once; `scan` looks passages up in them.

    Characters, words and runs of words are numbers in numpy arrays, a batch of passages at a time: Python meets only
    what was found. Two different runs have the same 64-bit hash once in some 10 million builds of 10 million runs.
    """

    def __init__(self, texts: list[str], ngram: int, min_words: int) -> None:
        if not 1 <= min_words <= ngram:
            raise UserError(f"contamination.min_words {min_words} must lie between 1 and ngram ({ngram})")
        words, owners = hash_words(texts)
        sizes = np.bincount(owners, minlength=len(texts))
        self.too_short = np.flatnonzero(sizes < min_words).tolist()
        self.by_length: dict[int, tuple[np.ndarray, list[list[int]]]] = {}  # hashes in order, and the texts of each
        self.filter = np.zeros(2**FILTER_BITS, dtype=bool)  # whether any hash has these first bits
        sums = _running_sums(words)
        for length in range(min_words, ngram + 1):
            hashes, places = hash_runs(sums, owners, length)
            wanted = sizes[owners[places]] == length if length < ngram else np.ones(len(places), dtype=bool)
            known, firsts = np.unique(hashes[wanted], return_inverse=True)
            holders: list[list[int]] = [[] for _ in known]
            for place, text in dict.fromkeys(zip(firsts.tolist(), owners[places[wanted]].tolist(), strict=True)):
                holders[place].append(text)
            if holders:
                self.by_length[length] = known, holders
                self.filter[known >> np.uint64(64 - FILTER_BITS)] = True

    def scan(self, passages: Iterable[str]) -> Iterator[set[int]]:
        """For each passage, the numbers of the texts it overlaps; in batches, so that a stream stays a stream."""
        passages = iter(passages)
        while batch := list(islice(passages, TEXTS_PER_BATCH)):
            found: list[set[int]] = [set() for _ in batch]
            words, owners = hash_words(batch)
            sums = _running_sums(words)
            for length, (known, holders) in self.by_length.items():
                hashes, places = hash_runs(sums, owners, length)
                likely = np.flatnonzero(self.filter[hashes >> np.uint64(64 - FILTER_BITS)])
                near = np.minimum(np.searchsorted(known, hashes[likely]), len(known) - 1)
                hits = known[near] == hashes[likely]
                for owner, place in zip(owners[places[likely[hits]]].tolist(), near[hits].tolist(), strict=True):
                    found[owner].update(holders[place])
            yield from found


def hash_words(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """A 64-bit hash of each word of the texts, in order, and the number of the text it stands in."""
    alphanumeric, values = _characters()
    folded = [normalize(text) for text in texts]
    codes = np.frombuffer("\n".join(folded).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    edges = np.flatnonzero(np.diff(alphanumeric[codes], prepend=False, append=False))
    starts, ends = edges[::2], edges[1::2]
    words = _hash_slices(_running_sums(values[codes]), starts, ends)
    words ^= words >> np.uint64(32)
    text_ends = np.cumsum([len(text) + 1 for text in folded])
    return words * MULTIPLIER, np.searchsorted(text_ends, starts, side="right")


def hash_runs(sums: np.ndarray, owners: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """A hash of each run of `length` words within one text, and the place of its first word; `sums` are the words'."""
    last = len(owners) - length + 1
    places = np.flatnonzero(owners[:last] == owners[length - 1 :]) if last > 0 else np.zeros(0, dtype=np.int64)
    return _hash_slices(sums, places, places + length), places


def _running_sums(values: np.ndarray) -> np.ndarray:
    """Of each beginning of the values, the polynomial hash modulo 2**64."""
    powers, _ = _powers(len(values).bit_length())
    sums = np.zeros(len(values) + 1, dtype=np.uint64)
    np.cumsum(values * powers[: len(values)], out=sums[1:])
    return sums


def _hash_slices(sums: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The hash of each slice `start:end` of the values that `sums` are of, wherever it stands."""
    _, inverses = _powers(len(sums).bit_length())
    return (sums[ends] - sums[starts]) * inverses[starts]


@cache
def _powers(bits: int) -> tuple[np.ndarray, np.ndarray]:
    """The first 2**bits powers of the multiplier, and of its inverse."""
    return tuple(np.multiply.accumulate(np.full(2**bits, base)) for base in (MULTIPLIER, INVERSE))


@cache
def _characters() -> tuple[np.ndarray, np.ndarray]:
    """Whether each code point is a letter or digit, and a random number for it."""
    alphanumeric = np.fromiter((chr(code).isalnum() for code in range(sys.maxunicode + 1)), dtype=bool)
    return alphanumeric, np.random.default_rng(0).integers(1, 2**63, sys.maxunicode + 1, dtype=np.uint64)


class Decontaminator:
    """Looks passages and types up in the benchmarks, says what the recipe removes, and remembers the overlap.

    A removed passage has the reason `contaminated: <benchmark>`, the first that it overlaps; a removed entity,
    `type_of_benchmark: <benchmark>`; a passage that has no other entity, `no_entities_left`. A text that is looked up
    several times counts once.
    """

    def __init__(self, config: ContaminationConfig) -> None:
        self.config = config
        self.benchmarks = load_benchmarks(config)
        texts = [text for benchmark in self.benchmarks for text in benchmark.texts]
        self.owners = [number for number, benchmark in enumerate(self.benchmarks) for _ in benchmark.texts]
        self.index = NgramIndex(texts, config.ngram, config.min_words)
        self.labels = {name: benchmark.name for benchmark in reversed(self.benchmarks) for name in benchmark.types}
        self.found: dict[str, set[int]] = {}  # passage -> texts it overlaps
        self.removed: set[str] = set()
        self.types: set[str] = set()  # labels of the benchmarks that the dataset has

    def screen(self) -> Screen | None:
        """A filter for the passages stage, None where it would drop nothing; it remembers nothing."""
        if not self.benchmarks or self.config.passages != "remove":
            return None
        known = [(benchmark.name, benchmark.texts) for benchmark in self.benchmarks]
        options = json.dumps([known, self.config.ngram, self.config.min_words])
        name = f"contamination {hashlib.sha256(options.encode()).hexdigest()[:16]}"
        return Screen(name, lambda text: self._reason(*self.index.scan([text])))

    def look_up(self, passages: Iterable[tuple[str, str]]) -> dict[str, str]:
        """Of passages `(id, text)` those that are removed, each with its reason; all overlaps are remembered."""
        unwanted: dict[str, str] = {}
        passages = iter(passages if self.benchmarks else ())
        while batch := list(islice(passages, TEXTS_PER_BATCH)):
            for (name, text), numbers in zip(batch, self.index.scan(text for _, text in batch), strict=True):
                if numbers:
                    self.found[text] = numbers
                if numbers and self.config.passages == "remove":
                    self.removed.add(text)
                    unwanted[name] = self._reason(numbers)
        return unwanted

    def why_not_type(self, name: str) -> str | None:
        """The reason to leave an entity of this type out, or None; a type that a benchmark asks is remembered."""
        name = normalize_type(name)
        if name not in self.labels:
            return None
        self.types.add(name)
        return f"type_of_benchmark: {self.labels[name]}" if self.config.types == "remove" else None

    def clean(self, part: Annotations) -> Annotations:
        """A human-annotated set without what is removed; its counts stay in step with its rows."""
        unwanted = self.look_up((row["id"], row["text"]) for row in part.rows)
        result = Annotations(rejects=list(part.rejects), counts=part.counts.copy())
        for row in part.rows:
            if row["id"] in unwanted:
                result.reject(unwanted[row["id"]], row["id"])
                result.counts["entities_kept"] -= len(row["entities"])
                result.counts["entities_of_rejected_passages"] += len(row["entities"])
                continue
            entities = []
            for entity in row["entities"]:
                reason = self.why_not_type(entity["type"])
                if reason:
                    result.reject(reason, row["id"], entity["text"], entity["type"], json.dumps(entity))
                    result.counts["entities_kept"] -= 1
                else:
                    entities.append(entity)
            if row["entities"] and not entities:
                result.reject("no_entities_left", row["id"])
            else:
                result.rows.append({**row, "entities": entities})
        return result

    def overlaps(self) -> list[Overlap]:
        """What everything looked up so far shares with each benchmark, before anything was removed."""
        owned = [self._owners(numbers) for numbers in self.found.values()]
        first = Counter(self._owners(self.found[text])[0] for text in self.removed)
        texts = Counter(self.owners[text] for text in set().union(*self.found.values()))
        too_short = Counter(self.owners[text] for text in self.index.too_short)
        return [
            Overlap(
                benchmark=benchmark.name,
                texts=len(benchmark.texts),
                too_short=too_short[number],
                texts_found=texts[number],
                passages=sum(number in numbers for numbers in owned),
                removed=first[number],
                types=len(benchmark.types),
                types_shared=sorted(self.types & set(benchmark.types)),
            )
            for number, benchmark in enumerate(self.benchmarks)
        ]

    def _owners(self, texts: set[int]) -> list[int]:
        return sorted({self.owners[text] for text in texts})

    def _reason(self, texts: set[int]) -> str | None:
        return f"contaminated: {self.benchmarks[self._owners(texts)[0]].name}" if texts else None
