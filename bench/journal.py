"""Measure the time and memory to open a long journal, to resume its run, and to build a dataset from it.

    python bench/journal.py --records 1000000 --output results/bench/journal.json    # on a quiet machine; 4 GB of disk
    python bench/journal.py --records 20000 --parts open resume

Passages, replies and types are made from seeded words. The last 100 questions have no reply: `resume` is the command
`--stage annotate` with a local endpoint, timed until its first request arrives. `build` is `--stage build`, also with
a tenth of the records, because its memory must not grow with them. `mib` is the peak memory of the process.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from bench.parts.local_endpoint import LocalEndpoint  # noqa: E402
from bench.parts.provenance import provenance  # noqa: E402
from dataset_builder.config import TeacherConfig  # noqa: E402
from dataset_builder.corpus.cutting import Passage  # noqa: E402
from dataset_builder.teacher.journal import Journal  # noqa: E402
from dataset_builder.teacher.questions import Questioner  # noqa: E402
from open_ner.tools.errors import run  # noqa: E402
from open_ner.tools.files import write_json  # noqa: E402

MODEL = "bench"
OPEN = 100  # questions without a reply
WORDS, ENTITIES, TYPES = 70, 8, 13_000  # words and entities of a passage; entity types (paper: 13,020)
DIFFERENT = 20_000  # distinct texts; the other passages differ only in the number at their end
PARTS = ("open", "resume", "build")
# runs a command and prints what it used; a small process, because a child starts with the peak memory of its parent
LAUNCHER = """
import json, resource, subprocess, sys
status = subprocess.call(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({"cpu": round(used.ru_utime + used.ru_stime, 1), "mib": round(used.ru_maxrss / 1024)}))
sys.exit(status)
"""


def main() -> None:
    """Make the run, measure every part in a new process, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS])
    parser.add_argument("--folder", help="folder for temporary files; default: that of the system")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    sizes = {args.records: args.parts} | ({args.records // 10: ["build"]} if "build" in args.parts else {})
    for records, parts in sizes.items():
        with tempfile.TemporaryDirectory(dir=args.folder) as name:
            folder = Path(name)
            write_run(folder, records)
            size = (folder / "journal.jsonl").stat().st_size / 2**20
            for part in parts:
                rows.append({"part": part, "records": records, "journal_mib": round(size), **measure(part, folder)})
                print(", ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    if args.output:
        results = {
            **provenance(),
            "python": platform.python_version(), "load_before": os.getloadavg()[0], "parts": rows,
        }  # fmt: skip
        args.output.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.output, results)


def passages(count: int) -> Iterator[tuple[Passage, str]]:
    """Yield passages of made-up words, with replies that name entities in them and one that is not in the passage."""
    draw = random.Random(0)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    words = ["".join(draw.choices(syllables, k=draw.randint(1, 4))) for _ in range(20_000)]
    types = [" ".join(draw.choices(words, k=draw.randint(1, 3))) for _ in range(TYPES)]
    weights = [1 / rank for rank in range(1, TYPES + 1)]
    different = []
    for _ in range(min(DIFFERENT, count)):
        text = draw.choices(words, k=WORDS)
        starts = draw.sample(range(0, WORDS - 1, 2), k=ENTITIES)
        for start in starts:
            text[start : start + 2] = text[start].title(), text[start + 1].title()
        named = [" ".join(text[start : start + 2]) for start in starts] + ["Nobody Said This"]
        pairs = [f'("{n}", "{t}")' for n, t in zip(named, draw.choices(types, weights, k=ENTITIES + 1), strict=True)]
        different.append((" ".join(text), f"[{', '.join(pairs)}]"))
    for number in range(count):
        text, reply = different[number % DIFFERENT]
        text = f"{text} {number}."
        yield Passage(f"p{number}", text, "made-up", f"p{number}", "", 0, len(text), 2 * WORDS), reply


def write_run(folder: Path, records: int) -> None:
    """Write the folder of a run: recipe, passages, and a journal with replies to all but the last questions."""
    options = {"model": MODEL, "price_input": 0.4, "price_output": 1.6, "max_cost": 1e6}
    recipe = {
        "name": "bench", "output_dir": str(folder), "corpus": {"path": str(folder / "passages.jsonl")},
        "teacher": options,
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (folder / "rejected_passages.jsonl").touch()
    (folder / "passages.report.json").write_text(json.dumps({"origin": {}, "counts": {"kept": records}}))
    asks = Questioner(TeacherConfig(**options))
    usage = {"prompt_tokens": 300, "completion_tokens": 150}
    with (folder / "passages.jsonl").open("w") as file, Journal(folder / "journal.jsonl") as journal:
        for number, (passage, reply) in enumerate(passages(records)):
            print(json.dumps(vars(passage)), file=file)
            if number < records - OPEN:
                (question,) = asks.about(passage)
                journal.append(
                    {
                        "key": question.key, "passage_id": passage.id, "variant": "type", "reply": reply,
                        "finish_reason": "stop", "usage": usage, "model": MODEL, "cost": 0.00036,
                        "address": "http://127.0.0.1/v1", "seconds": 1.25,
                    }
                )  # fmt: skip


def measure(part: str, folder: Path) -> dict[str, float]:
    """Return seconds, CPU seconds and peak memory in MiB of a part in a new process."""
    command = [sys.executable, "-m", "dataset_builder", "--config", str(folder / "recipe.yaml")]
    if part == "open":
        path = str(folder / "journal.jsonl")
        return _measure(
            [sys.executable, "-c", f"from {Journal.__module__} import *\nwith Journal(Path({path!r})): ..."]
        )
    if part == "build":
        return _measure([*command, "--stage", "build"])
    with LocalEndpoint(0.0) as endpoint:
        return _measure([*command, "--stage", "annotate", "--base_url", endpoint.base_url], endpoint)


def _measure(command: list[str], endpoint: LocalEndpoint | None = None) -> dict[str, float]:
    """Run a command; with an endpoint, also return the seconds until it received its first request."""
    begun, first = time.monotonic(), {}
    environment = {**os.environ, "OPENAI_API_KEY": "bench"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", LAUNCHER, *command], cwd=ROOT, env=environment, **pipes)
    while endpoint and not first and process.poll() is None:
        time.sleep(0.05)
        if endpoint.stats()["requests"]:
            first = {"seconds_to_first_request": round(time.monotonic() - begun, 1)}
    output, errors = process.communicate()
    if process.returncode:
        sys.exit(f"{' '.join(command)}: {errors[-2000:]}")
    return {"seconds": round(time.monotonic() - begun, 1), **first, **json.loads(output.splitlines()[-1])}


if __name__ == "__main__":
    run(main)
