"""What a dataset shares with the benchmarks: word n-grams of the passages, and the types.

Words are the runs of letters and digits in lower case, so that `system 's`, `system's` and `System's` are the same
two words whatever the tokenization. A passage overlaps a benchmark's text when they share an n-gram of words; a text
of fewer words, down to `min_words`, when the passage holds all of it in order. Still shorter texts, such as "show me
comedies", occur anywhere and say nothing: they are not looked for, and counted as `too_short`.
"""

import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from open_ner.cli import UserError, read_yaml
from open_ner.conversation import passage_turns, question

from .annotated_sets import read_json_rows
from .annotations import Annotations, Reject
from .config import ContaminationConfig
from .filters import normalise_type

ROOT = Path(__file__).parent.parent
TEXTS_PER_BATCH = 500
FILTER_BITS = 20
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
INVERSE = np.uint64(pow(int(MULTIPLIER), -1, 2**64))
HEADER = passage_turns("")[1]["content"]
BEFORE, AFTER = question("\0").split("\0")


@dataclass
class Benchmark:
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


def normalise(text: str) -> str:
    """Text as it is compared: lower case, one form for each character; words are its runs of letters and digits."""
    return (text if text.isascii() else unicodedata.normalize("NFKC", text)).lower()


def load_benchmarks(config: ContaminationConfig) -> list[Benchmark]:
    """The benchmarks of the recipe, by name or by file; raises UserError for one that is not there or empty."""
    loaded = []
    for name in config.benchmarks:
        recipe = ROOT / "recipes" / "eval" / "benchmarks" / f"{name}.yaml"
        if not recipe.exists() and not (Path(config.data_dir) / name).exists():
            known = ", ".join(sorted(path.stem for path in recipe.parent.glob("*.yaml")))
            raise UserError(f"contamination.benchmarks: {name!r} is neither a file nor one of {known}")
        options = read_yaml(recipe) if recipe.exists() else {"name": Path(name).name.split(".")[0], "path": name}
        path = Path(config.data_dir) / options["path"]
        try:
            texts, types = _texts_and_types(read_json_rows(path), options)
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: neither texts with offsets nor conversations ({error!r:.100})") from None
        if not texts:
            raise UserError(f"{path}: benchmark {options['name']} has no text")
        loaded.append(Benchmark(options["name"], texts, types))
    return loaded


def _texts_and_types(rows: Iterable[dict[str, Any]], options: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Distinct texts, and the types asked, of rows with offsets or of the authors' conversations."""
    texts: dict[str, None] = {}
    types: dict[str, None] = dict.fromkeys(options.get("types") or [])
    words = options.get("verbalise") or {}
    for row in rows:
        if "conversations" in row:
            turns = [turn["value"] for turn in row["conversations"]]
            texts[turns[0].removeprefix(HEADER)] = None
            types[turns[2].removeprefix(BEFORE).removesuffix(AFTER)] = None
        else:
            texts[row["text"]] = None
            if not options.get("types"):
                types |= dict.fromkeys([*(row.get("types") or []), *(e["type"] for e in row.get("entities") or [])])
    asked = [words.get(name, name) for name in types if name not in (options.get("drop") or [])]
    return list(texts), sorted({normalise_type(name) for name in asked})


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
        for length in range(min_words, ngram + 1):
            hashes, places = hash_runs(words, owners, length)
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
            for length, (known, holders) in self.by_length.items():
                hashes, places = hash_runs(words, owners, length)
                likely = np.flatnonzero(self.filter[hashes >> np.uint64(64 - FILTER_BITS)])
                near = np.minimum(np.searchsorted(known, hashes[likely]), len(known) - 1)
                hits = known[near] == hashes[likely]
                for owner, place in zip(owners[places[likely[hits]]].tolist(), near[hits].tolist(), strict=True):
                    found[owner].update(holders[place])
            yield from found


def hash_words(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """A 64-bit hash of each word of the texts, in order, and the number of the text it stands in."""
    alphanumeric, values = _characters()
    folded = [normalise(text) for text in texts]
    codes = np.frombuffer("\n".join(folded).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    edges = np.flatnonzero(np.diff(alphanumeric[codes], prepend=False, append=False))
    starts, ends = edges[::2], edges[1::2]
    words = _sums(values[codes], starts, ends)
    words ^= words >> np.uint64(32)
    text_ends = np.cumsum([len(text) + 1 for text in folded])
    return words * MULTIPLIER, np.searchsorted(text_ends, starts, side="right")


def hash_runs(words: np.ndarray, owners: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """A hash of each run of `length` words within one text, and the place of its first word."""
    last = len(words) - length + 1
    places = np.flatnonzero(owners[:last] == owners[length - 1 :]) if last > 0 else np.zeros(0, dtype=np.int64)
    return _sums(words, places, places + length), places


def _sums(values: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The polynomial hash of each `values[start:end]`, modulo 2**64: a difference of two running sums."""
    powers = np.multiply.accumulate(np.full(len(values), MULTIPLIER))
    inverses = np.multiply.accumulate(np.full(len(values), INVERSE))
    sums = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(values * powers)])
    return (sums[ends] - sums[starts]) * inverses[starts]


@cache
def _characters() -> tuple[np.ndarray, np.ndarray]:
    """Whether each code point is a letter or digit, and a random number for it."""
    alphanumeric = np.fromiter((chr(code).isalnum() for code in range(sys.maxunicode + 1)), dtype=bool)
    return alphanumeric, np.random.default_rng(0).integers(1, 2**63, sys.maxunicode + 1, dtype=np.uint64)


class Decontaminator:
    """Looks every part of a dataset up in the benchmarks, removes what the recipe removes, and remembers the overlap.

    A removed passage is a reject with the reason `contaminated: <benchmark>`, the first that it overlaps; a removed
    mention, `type_of_benchmark: <benchmark>`, and a passage that has no other, `no_entities_left`. A part may come in
    blocks. A passage that several parts have counts once.
    """

    def __init__(self, config: ContaminationConfig) -> None:
        self.config = config
        self.benchmarks = load_benchmarks(config)
        texts = [text for benchmark in self.benchmarks for text in benchmark.texts]
        self.owners = [number for number, benchmark in enumerate(self.benchmarks) for _ in benchmark.texts]
        self.index = NgramIndex(texts, config.ngram, config.min_words)
        self.labels = {name: benchmark.name for benchmark in reversed(self.benchmarks) for name in benchmark.types}
        self.found: dict[str, set[int]] = {}  # passage -> texts it overlaps
        self.types: set[str] = set()  # labels of the benchmarks that the dataset has

    def clean(self, part: Annotations) -> Annotations:
        """The part without what is removed; its counts of earlier stages stay as they are."""
        if not self.benchmarks:
            return part
        texts = [row["text"] for row in part.rows]
        hits = {text: numbers for text, numbers in zip(texts, self.index.scan(texts), strict=True) if numbers}
        self.found |= hits
        self.types |= {e["type"] for row in part.rows for e in row["entities"]} & self.labels.keys()
        contaminated = {text: self.benchmarks[self._owners(numbers)[0]].name for text, numbers in hits.items()}
        return _clean(
            part,
            contaminated if self.config.passages == "remove" else {},
            self.labels if self.config.types == "remove" else {},
        )

    def overlaps(self) -> list[Overlap]:
        """What all parts cleaned so far shared with each benchmark, before anything was removed."""
        owned = [self._owners(numbers) for numbers in self.found.values()]
        texts = Counter(self.owners[text] for text in set().union(*self.found.values()))
        too_short = Counter(self.owners[text] for text in self.index.too_short)
        remove = self.config.passages == "remove"
        return [
            Overlap(
                benchmark=benchmark.name,
                texts=len(benchmark.texts),
                too_short=too_short[number],
                texts_found=texts[number],
                passages=sum(number in numbers for numbers in owned),
                removed=sum(number == numbers[0] for numbers in owned) if remove else 0,
                types=len(benchmark.types),
                types_shared=sorted(self.types & set(benchmark.types)),
            )
            for number, benchmark in enumerate(self.benchmarks)
        ]

    def _owners(self, texts: set[int]) -> list[int]:
        return sorted({self.owners[text] for text in texts})


def _clean(part: Annotations, contaminated: dict[str, str], labels: dict[str, str]) -> Annotations:
    """A part without the passages and the types that a benchmark has; both map to the benchmark's name."""
    result = Annotations(rejects=list(part.rejects), counts=part.counts.copy())

    def reject(row: dict[str, Any], reason: str, span: str = "", kind: str = "") -> None:
        result.counts[reason] += 1
        result.rejects.append(Reject(row["id"], reason, span, kind, ""))

    for row in part.rows:
        if row["text"] in contaminated:
            reject(row, f"contaminated: {contaminated[row['text']]}")
            continue
        for entity in row["entities"]:
            if entity["type"] in labels:
                reject(row, f"type_of_benchmark: {labels[entity['type']]}", entity["text"], entity["type"])
        entities = [entity for entity in row["entities"] if entity["type"] not in labels]
        if row["entities"] and not entities:
            reject(row, "no_entities_left")
            continue
        result.rows.append({**row, "entities": entities} if len(entities) < len(row["entities"]) else row)
    return result
