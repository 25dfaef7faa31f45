"""Passages against benchmarks: the n-gram index beside a plain set of word tuples.

    python bench/contamination.py [--passages 50000] [--runs 3]

Passages of about 256 tokens (190 words) and 6,446 benchmark texts are made of the embedded sample's words, by their
frequency. Both look up the same passages in turns in one process and must find the same; CPU seconds, medians.
"""

import argparse
import json
import random
import re
import resource
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from dataset_builder.dataset.contamination import NgramIndex, normalize  # noqa: E402

NGRAM = 8
WORD = re.compile(r"[^\W_]+")


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def make_texts(count: int, words: int, seed: int) -> list[str]:
    """Texts of so many words, drawn by their frequency in the sample; capitals and punctuation stay."""
    lines = (ROOT / "dataset_builder" / "sample" / "passages.jsonl").read_text(encoding="utf-8").splitlines()
    known = [word for line in lines for word in json.loads(line)["text"].split()]
    draw = random.Random(seed)
    return [" ".join(draw.choices(known, k=words)) for _ in range(count)]


def index(texts: list[str], passages: list[str]) -> list[bool]:
    """The project's index, its making included."""
    return [bool(found) for found in NgramIndex(texts, NGRAM, NGRAM).scan(passages)]


def plain(texts: list[str], passages: list[str]) -> list[bool]:
    """What people write: a set of tuples of words."""
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
    ways: dict[str, Callable] = {"this project": index, "set of tuples": plain}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.runs):
        for name, way in ways.items():
            started, before = cpu_seconds(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            found = way(texts, passages)
            seconds[name].append(cpu_seconds() - started)
            more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            if [number for number, hit in enumerate(found) if hit] != sorted(planted):
                sys.exit(f"{name} did not find the planted passages")
            print(f"{name:<14} {seconds[name][-1]:6.2f} CPU s, peak raised by {more:.0f} MiB")
    ours, theirs = (statistics.median(values) for values in seconds.values())
    print(f"{args.passages:,} passages: {ours:.2f} CPU s, {ours / theirs:.2f} x a set of tuples ({theirs:.2f} CPU s)")


if __name__ == "__main__":
    main()
