"""A served student beside the same one in process: the same answers? how many prompt tokens does the server encode?

    llama-server -m student.gguf --port 8080 -c 8192 -np 1       # or vLLM, see docs/serving.md
    python bench/served.py --model runs/quickstart/model --base_url http://localhost:8080/v1 --label "llama.cpp -np 1"

Passages of the embedded sample, the types of the first ones, free decoding on both sides. Each run replaces the row of
its label in results/bench/served.json. A cold server is assumed: start it anew before each run.
"""

import argparse
import json
import sys
import threading
import time
from pathlib import Path

from transformers import pipeline

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from open_ner.pipeline import OpenNERPipeline  # noqa: E402
from open_ner.tools.served import ServedNER  # noqa: E402

TYPES = ["person", "organization", "location", "date", "event", "product", "animal", "chemical", "disease", "device"]


class Counted(ServedNER):
    """Adds up what the server says of its prompt tokens."""

    prompt = cached = 0
    lock = threading.Lock()

    def _complete(self, *args, **kwargs):
        completion = super()._complete(*args, **kwargs)
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
        return print("bench/served.py is left out: it needs a server, --model and --base_url")
    sample = (ROOT / "dataset_builder" / "sample" / "passages.jsonl").read_text(encoding="utf-8").splitlines()
    texts, types = [json.loads(line)["text"] for line in sample[: args.passages]], TYPES[: args.types]

    bounds = {"max_new_tokens": args.max_new_tokens}
    served = Counted(args.base_url, tokenizer=args.model, **bounds)
    started = time.perf_counter()
    there = served(texts, types, return_raw=True)
    seconds = time.perf_counter() - started
    tagger = pipeline("open-ner", model=args.model, pipeline_class=OpenNERPipeline, grounded=False, **bounds)
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
    args.output.write_text(json.dumps(rows | {args.label: row}, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
