"""Compare the seconds per passage of one `generate()` per type, left-padded batches, this decoder and the pipeline.

    python bench/inference.py --model runs/quickstart/model [--types 12 30] [--output results/bench/inference.json]

For each number of types, passages of about 150 tokens are asked for the most frequent types of the embedded sample.
The two ways of `generate()` are measured passage by passage, in turns; the others answer all passages in one call, in
turns too. Medians are over passages or runs. Answers are compared token by token with those of one `generate()` per
type. The student is loaded in bfloat16 on a GPU, in float32 on a CPU.
"""

import argparse
import platform
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from command_line.hardware import hardware  # noqa: E402
from open_ner.conversation import build_query  # noqa: E402
from open_ner.decoding import Request  # noqa: E402
from open_ner.pipeline import OpenNERPipeline  # noqa: E402
from open_ner.tools.files import read_jsonl, write_json  # noqa: E402

SAMPLE = ROOT / "dataset_builder" / "sample"
BASELINE, PADDED = "one generate() per type", "left-padded batch"
FREE, FLAT = "shared passage", "pipeline, types compete"
TOKENS = 150  # passages closest to this length are used
RUNS = 3  # repetitions of the ways that answer all passages in one call


def main() -> None:
    """Measure every way with every number of types, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "models" / "smollm2-135m-instruct"))
    parser.add_argument("--types", type=int, nargs="+", default=[12, 30])
    parser.add_argument("--passages", type=int, default=4)
    parser.add_argument("--max_new_tokens", type=int, default=48)
    parser.add_argument("--output", type=Path, help="JSON file for all numbers")
    args = parser.parse_args()
    dtype, device = (torch.bfloat16, "cuda") if torch.cuda.is_available() else (torch.float32, "cpu")
    tokenizer = AutoTokenizer.from_pretrained(args.model, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype, device_map=device)
    tagger: Any = OpenNERPipeline(model=model, tokenizer=tokenizer, max_new_tokens=args.max_new_tokens)
    rows = [*read_jsonl(SAMPLE / "held_out.jsonl"), *read_jsonl(SAMPLE / "passages.jsonl")]
    distinct = dict.fromkeys(row["text"] for row in rows)
    texts = sorted(distinct, key=lambda text: abs(len(tokenizer.encode(text)) - TOKENS))[: args.passages]
    replies = " ".join(row["reply"] for row in read_jsonl(SAMPLE / "answers.jsonl"))
    frequent = [name for name, _ in Counter(re.findall(r'", "([^"]+)"\)', replies)).most_common()]
    speed = [compare(tagger, texts, frequent[:number]) for number in args.types]
    if args.output:
        results = {
            "model": Path(args.model).name,
            "hardware": f"{hardware()}, {torch.get_num_threads()} threads, {dtype}",
            "versions": {"torch": torch.__version__, "python": platform.python_version()},
            "max_new_tokens": args.max_new_tokens,
            "passages": len(texts),
            "speed": speed,
        }
        args.output.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.output, results)


def compare(tagger: Any, texts: list[str], types: list[str]) -> dict[str, Any]:
    """Return seconds per passage, ratios and identical answers of each way."""
    decoder, longest = tagger.decoder, tagger._forward_params.get("max_new_tokens")

    def generate(own: list[str], names: list[str]) -> list[list[int]]:
        """Return the answers of `generate()` in one batch, without the end token and the padding after it."""
        inputs = tagger.tokenizer.apply_chat_template(
            [build_query(text, name) for text, name in zip(own, names, strict=True)],
            add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True,
        ).to(tagger.model.device)  # fmt: skip
        output = tagger.model.generate(**inputs, max_new_tokens=longest, do_sample=False)
        lines = output[:, inputs["input_ids"].shape[1] :].tolist()
        return [line[: next((i for i, token in enumerate(line) if token in decoder.eos), len(line))] for line in lines]

    def decode() -> list[list[int]]:
        requests = [Request(text, types) for text in texts]
        return [answer.tokens for row in decoder.answer(requests, free=True, max_new_tokens=longest) for answer in row]

    one_text: dict[str, Callable[[str], list[list[int]]]] = {
        BASELINE: lambda text: [generate([text], [name])[0] for name in types],
        PADDED: lambda text: generate([text] * len(types), types),
    }
    all_texts: dict[str, Callable[[], Any]] = {FREE: decode, FLAT: lambda: tagger(texts, types=types)}
    tagger(texts[:1], types=types[:1])  # warm-up: cached tables, memory
    seconds: dict[str, list[float]] = {way: [] for way in (*one_text, *all_texts)}
    answers: dict[str, list[list[int]]] = {way: [] for way in one_text}
    for text in texts:
        for way, ask in one_text.items():
            spent, found = timed(lambda ask=ask, text=text: ask(text))
            seconds[way].append(spent)
            answers[way] += found
    for _ in range(RUNS):
        for way, ask_all in all_texts.items():
            spent, found = timed(ask_all)
            seconds[way].append(spent / len(texts))
            if way == FREE:
                answers[way] = found
    medians = {way: statistics.median(values) for way, values in seconds.items()}
    ways = {
        way: {"seconds_a_passage": value, **{f"times {base}": medians[base] / value for base in (BASELINE, PADDED)}}
        for way, value in medians.items()
    }
    for way, own in answers.items():
        ways[way]["identical_answers"] = sum(a == b for a, b in zip(own, answers[BASELINE], strict=True))
    answered = sum(tagger.tokenizer.decode(tokens) != "[]" for tokens in answers[BASELINE])
    print(f"\n{len(types)} types: {len(types) * len(texts)} queries, {answered} answers not empty")
    for way, row in ways.items():
        ratios = f"{row[f'times {BASELINE}']:5.2f} x one per type, {row[f'times {PADDED}']:5.2f} x padded"
        print(f"  {way:<25} {row['seconds_a_passage']:7.3f} s a passage, {ratios}", flush=True)
    return {"types": len(types), "queries": len(types) * len(texts), "answers_not_empty": answered, "ways": ways}


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that a call took, and its result."""
    started = time.perf_counter()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started, result


if __name__ == "__main__":
    main()
