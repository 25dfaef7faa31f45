"""Compare a served student with the same one in process: identical answers, prompt tokens that the server encodes.

    llama-server -m student.gguf --port 8080 -c 8192 -np 1       # or vLLM, see docs/serving.md
    python bench/served.py --model runs/quickstart/model --base_url http://localhost:8080/v1 --label "llama.cpp -np 1"

Both decode freely the first passages of the embedded sample. Each run replaces the row of its label in
results/bench/served.json. Restart the server before each run, so that its cache is empty.
"""

import argparse
import json
import sys
import threading
import time
from pathlib import Path

from openai.types.chat import ChatCompletion

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
import open_ner  # noqa: E402
from open_ner.conversation import Message  # noqa: E402
from open_ner.tools.files import read_jsonl, write_json  # noqa: E402
from open_ner.tools.served import ServedNER  # noqa: E402

TYPES = ["person", "organization", "location", "date", "event", "product", "animal", "chemical", "disease", "device"]


class Counted(ServedNER):
    """Adds up the server's counts of prompt tokens."""

    prompt = cached = 0
    lock = threading.Lock()

    def _complete(self, messages: list[Message]) -> ChatCompletion:
        completion = super()._complete(messages)
        assert completion.usage is not None, "the server does not report its usage"
        details = completion.usage.prompt_tokens_details
        with self.lock:
            self.prompt += completion.usage.prompt_tokens
            self.cached += (details.cached_tokens or 0) if details else 0
        return completion


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="the student's folder")
    parser.add_argument("--base_url")
    parser.add_argument("--label", default="server", help="the server and its options")
    parser.add_argument("--passages", type=int, default=8)
    parser.add_argument("--types", type=int, default=len(TYPES))
    parser.add_argument("--max_new_tokens", type=int, default=64)
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "bench" / "served.json")
    args = parser.parse_args()
    if not (args.model and args.base_url):
        return print("bench/served.py was not run: it needs a server, --model and --base_url")
    sample = read_jsonl(ROOT / "dataset_builder" / "sample" / "passages.jsonl")
    texts, types = [row["text"] for row in sample][: args.passages], TYPES[: args.types]

    served = Counted(args.base_url, tokenizer=args.model, max_new_tokens=args.max_new_tokens)
    started = time.perf_counter()
    there = served(texts, types, return_raw=True)
    seconds = time.perf_counter() - started
    tagger = open_ner.load(args.model, grounded=False, max_new_tokens=args.max_new_tokens)
    started = time.perf_counter()
    here = tagger(texts, types=types, return_raw=True)
    in_process = time.perf_counter() - started

    pairs = [(a["raw"][name], b["raw"][name]) for a, b in zip(here, there, strict=True) for name in types]
    scores = [
        abs(a["score"] - b["score"])
        for x, y in zip(here, there, strict=True)
        if x["raw"] == y["raw"]
        for a, b in zip(x["entities"], y["entities"], strict=True)
        if b["score"] is not None
    ]
    row = {
        "model": Path(args.model).name,
        "passages": len(texts),
        "types": len(types),
        "prompt_tokens": served.prompt,
        "prompt_tokens_encoded": served.prompt - served.cached,
        "seconds": round(seconds, 2),
        "seconds_in_process": round(in_process, 2),
        "answers": len(pairs),
        "answers_identical": sum(a == b for a, b in pairs),
        "spans_compared": len(scores),
        "largest_score_difference": max(scores, default=None),
    }
    rows = json.loads(args.output.read_text()) if args.output.exists() else {}
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.output, rows | {args.label: row})
    print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
