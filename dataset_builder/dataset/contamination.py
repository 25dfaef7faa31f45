"""What a dataset shares with the benchmarks: word n-grams of the passages, and the types.

Words are runs of letters and digits in lower case, so tokenization and punctuation make no difference. In scripts
without spaces they are characters, and an n-gram of `ngram` words has twice as many of them. A passage
overlaps a benchmark's text if they share an n-gram of words. A shorter text of at least `min_words` words overlaps a
passage that contains all of it. Even shorter texts are only counted, as `too_short`, because they match by chance.
"""

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from command_line.build_statistics import Overlap
from command_line.recipes import read_recipe
from ner_sets.benchmarks import find_benchmark, read_passages
from ner_sets.config import BenchmarkConfig
from ner_sets.rows import read_json_rows
from ner_sets.sets import WITHOUT_ANNOTATIONS, WITHOUT_TEXT
from open_ner.tools.errors import UserError

from ..annotation.annotate import AnnotationRow, Annotations
from ..annotation.types import normalize_type
from ..config import ContaminationConfig
from ..corpus.filters import Screen
from ..corpus.sources import text_sha256
from ..languages import split_words, words_in_units


def make_screen(config: ContaminationConfig) -> Screen | None:
    """Return the filter that rejects passages of benchmarks before the teacher is paid, or None without benchmarks."""
    return Decontaminator(config).screen() if config.benchmarks else None


class BenchmarkContents(NamedTuple):
    """The distinct texts and types of a benchmark.

    `unread` counts the rows, by reason, whose annotations cannot be read: their texts are among `texts`, but the types
    that only they have are missing in `types`.
    """

    name: str
    texts: list[str]
    types: list[str]
    unread: dict[str, int]


def normalize(text: str) -> str:
    """Normalize a text for comparison: lower case, compatibility forms, underscores as spaces."""
    return (text if text.isascii() else unicodedata.normalize("NFKC", text)).lower().replace("_", " ")


def load_benchmarks(config: ContaminationConfig) -> list[BenchmarkContents]:
    """Load the benchmarks of the recipe, by name or file.

    Raises UserError if one is missing or has no text, or if the text of some rows cannot be read.
    """
    loaded = []
    for name in config.benchmarks:
        file = Path(config.data_dir) / name
        is_file = file.is_file() and not name.endswith((".yaml", ".yml"))
        benchmark = _of_file(name, file) if is_file else read_recipe(BenchmarkConfig, find_benchmark(name))
        problems: Counter[str] = Counter()
        others: list[str] = []
        passages, _ = read_passages(benchmark, config.data_dir, problems, others)
        if lost := {reason: problems[reason] for reason in WITHOUT_TEXT if problems[reason]}:
            why = f"the text of some rows cannot be read: {lost}; correct or remove these rows"
            raise UserError(f"{benchmark.path}: benchmark {benchmark.name}: {why}")
        texts = list(dict.fromkeys([*(passage.text for passage in passages), *others]))
        if not texts:
            raise UserError(f"{benchmark.path}: benchmark {benchmark.name} has no text")
        types = {normalize_type(query.type) for passage in passages for query in passage.queries}
        unread = {reason: problems[reason] for reason in WITHOUT_ANNOTATIONS if problems[reason]}
        loaded.append(BenchmarkContents(benchmark.name, texts, sorted(types), unread))
    return loaded


def _of_file(name: str, file: Path) -> BenchmarkConfig:
    """Infer the options of a benchmark file: conversations of UniversalNER, or texts with or without mentions."""
    first = next(read_json_rows(file), {})
    form = "official" if "conversations" in first else "offsets"
    entities = "entities" if "entities" in first else None
    return BenchmarkConfig(Path(name).name.split(".")[0], name, form, entities_column=entities)


class NgramIndex:
    """The word n-grams of texts; a shorter text of at least `min_words` words is indexed as a whole.

    Attributes:
        too_short: numbers of the texts with fewer words, which are not searched for.
    """

    def __init__(self, texts: list[str], ngram: int, min_words: int) -> None:
        if not 1 <= min_words <= ngram:
            raise UserError(f"contamination.min_words {min_words} must be between 1 and ngram ({ngram})")
        self.too_short: list[int] = []
        self._texts: dict[int, dict[tuple[str, ...], set[int]]] = {}  # by the number of words, then by the words
        for number, text in enumerate(texts):
            words = split_words(normalize(text))
            if len(words) < words_in_units(words, min_words):
                self.too_short.append(number)
                continue
            length = min(words_in_units(words, ngram), len(words))
            for gram in _ngrams(words, length):
                self._texts.setdefault(length, {}).setdefault(gram, set()).add(number)

    def overlaps(self, passage: str) -> set[int]:
        """Return the numbers of the texts that a passage overlaps."""
        words = split_words(normalize(passage))
        found = [texts.get(gram, ()) for length, texts in self._texts.items() for gram in _ngrams(words, length)]
        return set().union(*found)


def _ngrams(words: list[str], length: int) -> Iterator[tuple[str, ...]]:
    return zip(*(words[start:] for start in range(length)), strict=False)


class Decontaminator:
    """Compares passages and types with the benchmarks, rejects what the recipe removes, and counts the overlap.

    Reasons of rejects: `contaminated: <benchmark>` for a passage, with the first benchmark that it overlaps;
    `type_of_benchmark: <benchmark>` for a mention; `no_entities_left` for a passage whose mentions were all
    rejected. A text that is looked up several times counts once.
    """

    def __init__(self, config: ContaminationConfig) -> None:
        self.config = config
        self.benchmarks = load_benchmarks(config)
        texts = [text for benchmark in self.benchmarks for text in benchmark.texts]
        self.owners = [number for number, benchmark in enumerate(self.benchmarks) for _ in benchmark.texts]
        self.index = NgramIndex(texts, config.ngram, config.min_words)
        self.labels = {name: benchmark.name for benchmark in reversed(self.benchmarks) for name in benchmark.types}
        self.found: dict[str, set[int]] = {}  # text of a passage -> numbers of the texts that it overlaps
        self.removed: set[str] = set()
        self.types: set[str] = set()  # types that the dataset shares with the benchmarks

    def screen(self) -> Screen | None:
        """Return a filter for the stage `passages`, which does not count overlap; None if nothing is to be removed."""
        if not self.benchmarks or self.config.passages != "remove":
            return None
        known = [(benchmark.name, benchmark.texts) for benchmark in self.benchmarks]
        options = json.dumps([known, self.config.ngram, self.config.min_words])

        def why_reject(text: str) -> str | None:
            numbers = self.index.overlaps(text)
            return self._reason(numbers) if numbers else None

        return Screen(f"contamination {text_sha256(options)[:16]}", why_reject)

    def look_up(self, passages: Iterable[tuple[str, str]]) -> dict[str, str]:
        """Count the overlap of passages `(id, text)`, and return the reasons to reject some of them, by id."""
        rejected: dict[str, str] = {}
        for name, text in passages if self.benchmarks else ():
            if numbers := self.index.overlaps(text):
                self.found[text] = numbers
                if self.config.passages == "remove":
                    self.removed.add(text)
                    rejected[name] = self._reason(numbers)
        return rejected

    def why_not_type(self, name: str) -> str | None:
        """Return the reason to reject the mentions of a type, or None; a type of a benchmark is counted."""
        name = normalize_type(name)
        if name not in self.labels:
            return None
        self.types.add(name)
        return f"type_of_benchmark: {self.labels[name]}" if self.config.types == "remove" else None

    def clean(self, part: Annotations) -> Annotations:
        """Return a human-annotated set without contaminated passages and types, with updated counts."""
        rejected = self.look_up((row["id"], row["text"]) for row in part.rows)
        result = Annotations(rejects=list(part.rejects), counts=part.counts.copy())
        for row in part.rows:
            if row["id"] in rejected:
                result.reject(rejected[row["id"]], row["id"])
                result.counts["entities_kept"] -= len(row["entities"])
                result.counts["entities_of_rejected_passages"] += len(row["entities"])
                continue
            mentions = []
            for mention in row["entities"]:
                if reason := self.why_not_type(mention["type"]):
                    result.reject(reason, row["id"], mention["text"], mention["type"], json.dumps(mention))
                    result.counts["entities_kept"] -= 1
                else:
                    mentions.append(mention)
            if row["entities"] and not mentions:
                result.reject("no_entities_left", row["id"])
            else:
                kept: AnnotationRow = {**row, "entities": mentions}
                if "types" in row:  # a removed type must not be asked either: its mentions would be missed
                    kept["types"] = [name for name in row["types"] if not self.why_not_type(name)]
                result.rows.append(kept)
        return result

    def overlaps(self) -> list[Overlap]:
        """Return what all passages and types looked up so far share with each benchmark, before any removal."""
        owned = [self._owners(numbers) for numbers in self.found.values()]
        first = Counter(self._owners(self.found[text])[0] for text in self.removed)
        texts = Counter(self.owners[text] for text in set().union(*self.found.values()))
        too_short = Counter(self.owners[text] for text in self.index.too_short)
        return [
            {
                "benchmark": benchmark.name, "texts": len(benchmark.texts), "too_short": too_short[number],
                "texts_found": texts[number],
                "passages": sum(number in numbers for numbers in owned), "removed": first[number],
                "types": len(benchmark.types), "types_shared": sorted(self.types & set(benchmark.types)),
            }
            for number, benchmark in enumerate(self.benchmarks)
        ]  # fmt: skip

    def _owners(self, texts: set[int]) -> list[int]:
        return sorted({self.owners[text] for text in texts})

    def _reason(self, texts: set[int]) -> str:
        return f"contaminated: {self.benchmarks[self._owners(texts)[0]].name}"
