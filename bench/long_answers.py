"""Compare the seconds of free answers when the long ones of several batches are finished together, and in their batch.

    python bench/long_answers.py --model runs/quickstart/model [--data PASSAGES] [--output FILE.json]

PASSAGES is a JSONL file of rows with `text` and `types`; by default those of the embedded sample that the quick-start
is scored on. Both ways answer the same seeded sample, in turns.
"""

import argparse
import random
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from bench.parts.provenance import provenance  # noqa: E402
from open_ner import decoding  # noqa: E402
from open_ner.decoding import Decoder, Request  # noqa: E402
from open_ner.tools.files import read_jsonl, write_json  # noqa: E402
from zero_shot.predict import PASSAGES_AT_A_TIME  # noqa: E402

WAYS = {"in their batch": 0.0, "together": decoding.FEW}  # values of FEW
RUNS = 2


def main() -> None:
    """Answer in both ways, compare, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "models" / "smollm2-135m-instruct"))
    parser.add_argument("--data", type=Path, default=ROOT / "dataset_builder" / "sample" / "held_out.jsonl")
    parser.add_argument("--passages", type=int, default=PASSAGES_AT_A_TIME)
    parser.add_argument("--max_new_tokens", type=int, default=256)
    parser.add_argument("--output", type=Path, help="JSON file for all numbers")
    args = parser.parse_args()
    dtype, device = (torch.bfloat16, "cuda") if torch.cuda.is_available() else (torch.float32, "cpu")
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype, device_map=device)
    decoder = Decoder(model, AutoTokenizer.from_pretrained(args.model))
    rows = list(read_jsonl(args.data))
    rows = random.Random(42).sample(rows, min(args.passages, len(rows)))
    rows = sorted(rows, key=lambda row: len(row["text"]))  # as in an evaluation
    requests = [Request(row["text"], row["types"]) for row in rows]
    passes = 0

    def count(*_: Any) -> None:
        nonlocal passes
        passes += 1

    model.register_forward_pre_hook(count)
    ways: dict[str, dict[str, Any]] = {way: {"seconds": []} for way in WAYS}
    answers: dict[str, list[list[int]]] = {}
    for _ in range(RUNS):
        for way, few in WAYS.items():
            decoding.FEW, passes, started = few, 0, time.perf_counter()
            found = decoder.answer(requests, free=True, max_new_tokens=args.max_new_tokens)
            answers[way] = [answer.tokens for row in found for answer in row]
            ways[way]["seconds"].append(round(time.perf_counter() - started, 1))
            ways[way]["passes"] = passes
            print(way, ways[way], flush=True)
    base, together = answers.values()
    alone, shared = (median(row["seconds"]) for row in ways.values())
    results = {
        **provenance(args.data), "queries": len(base), "max_new_tokens": args.max_new_tokens,
        "unfinished": sum(len(tokens) == args.max_new_tokens for tokens in base),
        "identical": sum(one == other for one, other in zip(base, together, strict=True)),
        "times faster": round(alone / shared, 2), "ways": ways,
    }  # fmt: skip
    print(results)
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.output, results)


if __name__ == "__main__":
    main()
