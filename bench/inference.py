"""Compare the time per passage of one `generate()` per type, left-padded batches, this decoder and the pipeline.

    python bench/inference.py --model runs/quickstart/model [--types 12 30] [--passages 4] [--runs 3]
        [--output results/bench/inference.json]

For each number of types, passages of about 150 tokens are asked for the most frequent types of the embedded sample.
The ways take turns after each passage; medians are over passages, or over runs for whole batches. Answers are compared
token by token with those of one `generate()` per type. The last table shows peak memory by token budget and number of
types, each in a new process. The student is loaded in bfloat16 on a GPU, in float32 on a CPU.
"""

import argparse
import json
import platform
import re
import statistics
import subprocess
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
from open_ner.conversation import build_query  # noqa: E402
from open_ner.decoding import Request  # noqa: E402
from open_ner.pipeline import OpenNERPipeline  # noqa: E402
from open_ner.tools.files import read_jsonl, write_json  # noqa: E402
from zero_shot.results import hardware  # noqa: E402

SAMPLE = ROOT / "dataset_builder" / "sample"
BASELINE, PADDED, ALONE = "one generate() per type", "left-padded batch", "shared passage, one at a time"
FREE, FLAT = "shared passage", "pipeline, types compete"
AnswerTokens = list[list[list[int]]]  # of each passage's answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "models" / "smollm2-135m-instruct"))
    parser.add_argument("--types", type=int, nargs="+", default=[12, 30])
    parser.add_argument("--passages", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=150, help="take the passages closest to this length")
    parser.add_argument("--runs", type=int, default=3, help="runs over all passages; the slow ways have only one")
    parser.add_argument("--max_new_tokens", type=int, default=48)
    parser.add_argument("--memory", type=int, nargs="*", default=[2048, 16384], help="token budgets; none: no table")
    parser.add_argument("--output", type=Path, help="JSON file for all numbers")
    parser.add_argument("--worker", type=int, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps({"mib": peak_memory(args, *args.worker)}))
        return
    bench = Bench(args)
    rows = []
    for number in args.types:
        rows.append(bench.compare(number))
        print(f"\n{number} types: {rows[-1]['queries']} queries, {rows[-1]['answers_not_empty']} answers not empty")
        for way, numbers in rows[-1]["ways"].items():
            line = f"  {way:<30} {numbers['seconds_a_passage']:7.3f} s a passage, {numbers['times_faster']:5.2f} x one"
            line += f" per type, {numbers['times_faster_than_padded']:5.2f} x padded"
            print(f"{line}, {numbers['identical_answers']} identical", flush=True)
    results = {
        "command": " ".join(["python", *(part for part in sys.argv if part != str(args.output))]),
        "model": Path(args.model).name,
        "hardware": f"{hardware()}, {torch.get_num_threads()} threads, {bench.model.dtype}",
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "max_new_tokens": args.max_new_tokens,
        "passages": len(bench.texts),
        "tokens_a_passage": statistics.median(len(bench.tokenizer.encode(text)) for text in bench.texts),
        "speed": rows,
        **({"memory": memory(args)} if args.memory else {}),
    }
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.output, results)


class Bench:
    """The student, the passages, the types, and the ways to ask."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.device = args, "cuda" if torch.cuda.is_available() else "cpu"
        dtype = torch.bfloat16 if self.device == "cuda" else torch.float32
        self.tokenizer = AutoTokenizer.from_pretrained(args.model, padding_side="left")
        self.model: Any = AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype, device_map=self.device)
        self.tagger: Any = OpenNERPipeline(
            model=self.model, tokenizer=self.tokenizer, max_new_tokens=args.max_new_tokens
        )
        self.decoder = self.tagger.decoder
        rows = [*read_jsonl(SAMPLE / "held_out.jsonl"), *read_jsonl(SAMPLE / "passages.jsonl")]
        self.texts = sorted(
            dict.fromkeys(row["text"] for row in rows),
            key=lambda text: abs(len(self.tokenizer.encode(text)) - args.tokens),
        )[: args.passages]
        replies = " ".join(row["reply"] for row in read_jsonl(SAMPLE / "answers.jsonl"))
        self.types = [name for name, _ in Counter(re.findall(r'", "([^"]+)"\)', replies)).most_common()]

    def compare(self, number: int) -> dict[str, Any]:
        """Measure all ways with this number of types."""
        types, texts = self.types[:number], self.texts
        if len(types) < number:
            sys.exit(f"--types {number}: the sample has {len(types)}")
        alone: dict[str, Callable[[str], list[list[int]]]] = {
            BASELINE: lambda text: [self.generate([text], [name])[0] for name in types],
            PADDED: lambda text: self.generate([text] * number, types),
            ALONE: lambda text: self.decode([text], types)[0],
        }
        together: dict[str, Callable[[], Any]] = {
            FREE: lambda: self.decode(texts, types),
            FLAT: lambda: self.tagger(texts, types=types),
        }
        self.tagger(texts[:1], types=types[:1])  # build cached tables, touch the memory
        seconds: dict[str, list[float]] = {way: [] for way in [*alone, *together]}
        answers: dict[str, AnswerTokens] = {way: [] for way in alone}
        for text in texts:
            for way, ask in alone.items():
                spent, found = timed(lambda ask=ask, text=text: ask(text))
                seconds[way].append(spent)
                answers[way].append(found)
        for _ in range(self.args.runs):
            for way, ask in together.items():
                spent, found = timed(ask)
                seconds[way].append(spent / len(texts))
                if way == FREE:
                    answers[way] = found
        medians = {way: statistics.median(values) for way, values in seconds.items()}
        one_list = {way: [tokens for passage in found for tokens in passage] for way, found in answers.items()}
        return {
            "types": number,
            "queries": number * len(texts),
            "answers_not_empty": sum(self.tokenizer.decode(tokens) != "[]" for tokens in one_list[BASELINE]),
            "ways": {
                way: {
                    "seconds_a_passage": medians[way],
                    "times_faster": medians[BASELINE] / medians[way],
                    "times_faster_than_padded": medians[PADDED] / medians[way],
                    "identical_answers": sum(a == b for a, b in zip(one_list[way], one_list[BASELINE], strict=True))
                    if way in one_list
                    else None,  # the pipeline returns spans
                }
                for way in seconds
            },
        }

    def decode(self, texts: list[str], types: list[str]) -> AnswerTokens:
        """Answers of this project's decoder, in one call."""
        requests = [Request(text, types) for text in texts]
        answers = self.decoder.answer(requests, free=True, max_new_tokens=self.args.max_new_tokens)
        return [[answer.tokens for answer in row] for row in answers]

    def generate(self, texts: list[str], types: list[str]) -> list[list[int]]:
        """Answers of transformers' `generate()`, in one batch, without the end token and the padding after it."""
        queries = [build_query(text, name) for text, name in zip(texts, types, strict=True)]
        inputs = self.tokenizer.apply_chat_template(
            queries, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        ).to(self.device)
        output = self.model.generate(**inputs, max_new_tokens=self.args.max_new_tokens, do_sample=False)
        lines = output[:, inputs["input_ids"].shape[1] :].tolist()
        ends = self.decoder.eos
        return [line[: next((i for i, token in enumerate(line) if token in ends), len(line))] for line in lines]


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started, result


def memory(args: argparse.Namespace) -> list[dict[str, float]]:
    """Peak memory beyond the loaded student's, by token budget and number of types."""
    rows = []
    print("\npeak memory beyond the loaded student")
    for budget in args.memory:
        for number in args.types:
            line = [sys.executable, __file__, "--model", args.model, "--passages", str(2 * args.passages), "--worker"]
            done = subprocess.run([*line, str(budget), str(number)], capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"memory: {done.stderr[-2000:]}")
            rows.append({"token_budget": budget, "types": number, **json.loads(done.stdout.splitlines()[-1])})
            print(f"  budget {budget:>6}, {number:>3} types: {rows[-1]['mib']:7.1f} MiB", flush=True)
    return rows


def peak_memory(args: argparse.Namespace, budget: int, number: int) -> float:
    """MiB that asking takes at its peak, in this process, which does nothing else."""
    bench = Bench(args)
    requests = [Request(text, bench.types[:number]) for text in bench.texts]
    list(bench.decoder.answer(requests[:1], max_new_tokens=1, token_budget=1))  # build cached tables
    cuda = bench.device == "cuda"
    if not cuda:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading the student
    before = torch.cuda.memory_allocated() if cuda else peak_bytes()
    list(bench.decoder.answer(requests, max_new_tokens=16, token_budget=budget))
    return ((torch.cuda.max_memory_allocated() if cuda else peak_bytes()) - before) / 2**20


def peak_bytes() -> int:
    """The most memory this process has held since its peak was reset (Linux)."""
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


if __name__ == "__main__":
    main()
