"""Benchmark the overlap of passages with benchmarks: the n-gram index against a set of word tuples.

    python bench/contamination.py [--passages 50000] [--runs 3]

Passages of about 256 tokens (190 words) and 6,446 benchmark texts are drawn from the embedded sample's words by their
frequency. Both ways take turns in one process and must find the same passages; the result is the median CPU time.
"""

import argparse
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from bench.build import compare, sample_words  # noqa: E402
from dataset_builder.dataset.contamination import NgramIndex, normalize  # noqa: E402

NGRAM = 8
WORD = re.compile(r"[^\W_]+")


def make_texts(count: int, words: int, seed: int) -> list[str]:
    """Draw texts of this many words by their frequency in the sample."""
    known, draw = sample_words(), random.Random(seed)
    return [" ".join(draw.choices(known, k=words)) for _ in range(count)]


def find_by_index(texts: list[str], passages: list[str]) -> list[bool]:
    """Build the project's index and look up the passages."""
    return [bool(found) for found in NgramIndex(texts, NGRAM, NGRAM).scan(passages)]


def find_by_tuples(texts: list[str], passages: list[str]) -> list[bool]:
    """Look up the passages in a set of tuples of words."""
    grams = {gram for text in texts for gram in _tuples(text)}
    return [any(gram in grams for gram in _tuples(passage)) for passage in passages]


def _tuples(text: str) -> list[tuple[str, ...]]:
    words = WORD.findall(normalize(text))
    return [tuple(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    texts, passages = make_texts(6_446, 20, 1), make_texts(args.passages, 190, 2)
    planted = random.Random(3).sample(range(args.passages), args.passages // 100)
    for number in planted:
        passages[number] += " " + texts[number % len(texts)]

    def checked(find: Callable[[list[str], list[str]], list[bool]]) -> Callable[[], None]:
        def way() -> None:
            if [number for number, hit in enumerate(find(texts, passages)) if hit] != sorted(planted):
                sys.exit(f"{find.__name__} did not find the planted passages")

        return way

    ours, theirs = compare(
        {"this project": checked(find_by_index), "set of tuples": checked(find_by_tuples)}, args.runs
    )
    print(f"{args.passages:,} passages: {ours / theirs:.2f} x the CPU time of a set of tuples")


if __name__ == "__main__":
    main()
