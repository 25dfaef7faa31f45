"""Shared-prefix decoding against one `generate()` per type, same texts, same types, same answers.

    python bench/inference.py [--model models/smollm2-135m-instruct] [--types 12] [--passages 4] [--runs 3]

Prints the median seconds a passage of each way, their ratio, and how many answers are identical.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

sys.path.insert(0, str(Path(__file__).parent.parent))
from open_ner.conversation import build_query  # noqa: E402
from open_ner.decoding import Decoder, Request  # noqa: E402

ROOT = Path(__file__).parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "models" / "smollm2-135m-instruct"))
    parser.add_argument("--types", type=int, default=12)
    parser.add_argument("--passages", type=int, default=4)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--max_new_tokens", type=int, default=16)
    args = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    sample = ROOT / "dataset_builder" / "sample" / "held_out.jsonl"
    rows = [json.loads(line) for line in sample.read_text(encoding="utf-8").splitlines()]
    texts = [row["text"] for row in rows[: args.passages]]
    types = sorted({name for row in rows for name in row["types"]})[: args.types]
    decoder = Decoder(model, tokenizer)

    def shared() -> list[str]:
        answers = decoder.answer(
            [Request(text, types) for text in texts], grounded=False, max_new_tokens=args.max_new_tokens
        )
        return [answer.text for of_passage in answers for answer in of_passage]

    def one_by_one() -> list[str]:
        return [generate(text, name) for text in texts for name in types]

    def generate(text: str, name: str) -> str:
        inputs = tokenizer.apply_chat_template(
            build_query(text, name), add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        output = model.generate(**inputs, max_new_tokens=args.max_new_tokens, do_sample=False)
        return tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    seconds: dict[str, list[float]] = {"one generate() per type": [], "shared prefix": []}
    for _ in range(args.runs):
        answers = []
        for name, way in zip(seconds, (one_by_one, shared), strict=True):
            started = time.perf_counter()
            answers.append(way())
            seconds[name].append(time.perf_counter() - started)
    same = sum(a == b for a, b in zip(*answers, strict=True))
    medians = {name: statistics.median(values) / len(texts) for name, values in seconds.items()}
    for name, median in medians.items():
        print(f"{name:<24} {median:7.2f} s a passage (median of {args.runs})")
    slow, fast = medians.values()
    print(f"ratio {slow / fast:.1f}; identical answers {same} of {len(answers[0])}; {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
