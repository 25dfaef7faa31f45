"""Measure the stage `passages`: passages per second by number of processes, and memory by size of the corpus.

    python bench/build.py --output results/bench/build.json          # about half an hour on two idle cores
    python bench/build.py --megabytes 1 3 --sample 500               # a short trial

The corpora are random sentences of a seeded vocabulary in one JSONL file. Each run is a new process of
`python -m dataset_builder --stage passages`, with the filters of the default recipe and a sample of the same size.
Seconds are those of the whole command. Memory is the highest sum over its processes, which counts shared pages once
per process. The passages of all numbers of processes are compared byte by byte.
"""

import argparse
import hashlib
import json
import random
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from bench.parts.provenance import provenance  # noqa: E402
from open_ner.tools.files import read_jsonl, write_json  # noqa: E402

WORDS_PER_DOCUMENT = (50, 2000)
RECIPE = "recipes/build/your_corpus.yaml"
INTERVAL = 0.2  # seconds between two measurements of the memory
FILES = ("passages.jsonl", "rejected_passages.jsonl", "passages.report.json")


def main() -> None:
    """Measure every size with every number of processes, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[30, 300], help="sizes of the corpora")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sample", type=int, default=5000, help="passages to draw")
    parser.add_argument("--output", type=Path, help="JSON file for all numbers")
    args = parser.parse_args()
    results: dict[str, Any] = {
        **provenance(),
        "versions": {name: version(name) for name in ("tokenizers", "datasets", "datasketch")}, "sample": args.sample,
    }  # fmt: skip
    results["runs"] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size in args.megabytes:
            corpus = write_corpus(folder / f"{size}.jsonl", size * 1_000_000)
            digests = set()
            for processes in args.processes:
                row, digest = measure(corpus, folder / f"run-{size}-{processes}", processes, args.sample)
                digests.add(digest)
                results["runs"].append({"megabytes": size, "processes": processes, **row})
                print(results["runs"][-1], flush=True)
            if len(digests) > 1:
                sys.exit(f"{size} MB: the passages depend on the number of processes")
            corpus.unlink()
    for row in results["runs"]:
        first = next(one for one in results["runs"] if one["megabytes"] == row["megabytes"])
        row["speedup"] = first["seconds"] / row["seconds"]
        print(f"{row['megabytes']} MB, {row['processes']} processes: {row['passages_per_second']:.0f} passages/s, "
              f"{row['speedup']:.2f} x, {row['memory_mib']:.0f} MiB")  # fmt: skip
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.output, results)


def write_corpus(path: Path, size: int) -> Path:
    """Write documents of random sentences until the file has `size` bytes."""
    draw = random.Random(0)
    embedded = read_jsonl(ROOT / "dataset_builder" / "sample" / "passages.jsonl")
    words = sorted({word for row in embedded for word in row["text"].split()})
    weights = [1 / place for place in range(1, len(words) + 1)]  # Zipf's law
    draw.shuffle(words)
    written = number = 0
    with path.open("w", encoding="utf-8") as lines:
        while written < size:
            text = " ".join(draw.choices(words, weights, k=draw.randint(*WORDS_PER_DOCUMENT)))
            written += lines.write(json.dumps({"id": str(number), "text": text}) + "\n")
            number += 1
    return path


def measure(corpus: Path, folder: Path, processes: int, sample: int) -> tuple[dict[str, Any], str]:
    """Run the stage; return its numbers, and the hash of the files that it wrote."""
    options = {"path": str(corpus), "sample": str(sample), "num_proc": str(processes)}
    command = [sys.executable, "-m", "dataset_builder", "--config", RECIPE, "--stage", "passages"]
    command += ["--output_dir", str(folder), *(f"--corpus.{name}={value}" for name, value in options.items())]
    started, memory, log = time.perf_counter(), 0, folder.with_suffix(".log")
    with log.open("w") as output:
        process = psutil.Popen(command, cwd=ROOT, stdout=output, stderr=output)
        while process.poll() is None:
            memory = max(memory, memory_of(process))
            time.sleep(INTERVAL)
    seconds = time.perf_counter() - started
    if process.returncode:
        sys.exit(f"the stage passages failed: {log.read_text()[-2000:]}")
    report = json.loads((folder / "passages.report.json").read_text())["counts"]
    digest = hashlib.sha256(b"".join((folder / name).read_bytes() for name in FILES)).hexdigest()
    row = {"seconds": seconds, "passages": report["candidates"], "kept": report["kept"]}
    row |= {"passages_per_second": report["candidates"] / seconds, "memory_mib": memory / 2**20}
    return row, digest


def memory_of(process: psutil.Process) -> int:
    """Return the total resident bytes of a process and its children; 0 if it has ended."""
    total = 0
    try:
        for one in (process, *process.children(recursive=True)):
            total += one.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total


if __name__ == "__main__":
    main()
