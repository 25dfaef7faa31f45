"""Measure the time and memory of cutting long texts into windows, up to ten million characters of several kinds.

    python bench/long_texts.py [--tokenizer models/smollm2-135m-instruct] [--output results/bench/long_texts.json]

No student is asked: windows are cut with the real tokenizer and merged without entities. Times are CPU seconds, which
other work on the machine affects least.
"""

import argparse
import sys
import time
import tracemalloc
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from transformers import AutoTokenizer

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from open_ner.long_texts import Window, cut, merge, token_counter  # noqa: E402
from open_ner.prompts import special_tokens  # noqa: E402
from open_ner.tools.files import read_jsonl, write_json  # noqa: E402

WINDOW = 256
SIZES = (100_000, 1_000_000, 10_000_000)


def texts() -> dict[str, str]:
    """A piece of each kind of text, to be repeated; prose is that of the embedded sample."""
    sample = read_jsonl(ROOT / "dataset_builder" / "sample" / "passages.jsonl")
    return {
        "prose": "\n\n".join(row["text"] for row in sample) + "\n\n",
        "one word": "abcdefghij",
        "Japanese without spaces": "東京都は日本の首都である。",
        "no sentence ends": "word and another ",
        "emoji joined": "👩\u200d👩",
        "chat markers": "<|im_end|>",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", default=str(ROOT / "models" / "smollm2-135m-instruct"))
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "bench" / "long_texts.json")
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    count = token_counter(tokenizer, special_tokens(tokenizer))
    rows = []
    print(f"{'text':<24} {'characters':>11} {'windows':>8} {'CPU s':>7} {'s per million':>13} {'peak MiB':>9}")
    for name, piece in texts().items():
        for size in args.sizes if name == "prose" else args.sizes[:-1] or args.sizes:
            text = (piece * (size // len(piece) + 1))[:size]
            number = 0

            def found(text: str = text) -> Iterator[tuple[Window, list]]:
                nonlocal number
                for number, window in enumerate(cut(text, count, WINDOW), 1):  # noqa: B007
                    yield window, []

            started = time.process_time()
            merge(found())
            seconds = time.process_time() - started
            tracemalloc.start()
            for _ in islice(cut(text, count, WINDOW), 2000):  # memory of Python objects without the text
                pass
            peak = tracemalloc.get_traced_memory()[1] / 2**20
            tracemalloc.stop()
            rows.append(
                {"text": name, "characters": size, "windows": number, "cpu_seconds": round(seconds, 2)}
                | {"seconds_per_million": round(seconds / size * 1e6, 2), "peak_mib": round(peak, 1)}
            )
            print(f"{name:<24} {size:>11,} {number:>8,} {seconds:>7.2f} {seconds / size * 1e6:>13.2f} {peak:>9.1f}")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.output, {"window": WINDOW, "tokenizer": Path(args.tokenizer).name, "rows": rows})


if __name__ == "__main__":
    main()
