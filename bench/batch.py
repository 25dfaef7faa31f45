"""Measure `open-ner annotate` in one process and in several, and kill -9 its processes at random.

    python bench/batch.py --output results/bench/batch.json      # a quarter of an hour on two quiet cores
    python bench/batch.py --parts kills --kills 3 --rows 40 --model FOLDER

throughput: passages of the embedded sample are asked for the most frequent types of the sample. Passages per second
are counted from the end of each process's first file, which leaves out the time to load the student; `seconds`
includes it. kills: the launcher or a worker of runs with two and four processes is killed at random moments, and the
run is started again until the folder is complete. Every file must have the bytes of an undisturbed run of one process.
"""

import argparse
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from bench.parts.killing import Commands  # noqa: E402
from bench.parts.provenance import provenance  # noqa: E402
from open_ner.tools.files import read_jsonl, write_json, write_jsonl  # noqa: E402

SAMPLE = ROOT / "dataset_builder" / "sample"
LAUNCH = ("-m", "accelerate.commands.launch", "--config_file", ROOT / "recipes" / "accelerate" / "cpu.yaml")
PER_FILE = 8  # rows; small, so that each process writes several files, for its rate and for kills at different files
Row = dict[str, Any]


def main() -> None:
    """Measure the parts, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS])
    parser.add_argument("--model", default="runs/quickstart/model", help="folder of a student")
    parser.add_argument("--rows", type=int, default=64, help="passages")
    parser.add_argument("--types", type=int, default=12)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the kills")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    args = parser.parse_args()
    if args.rows < 4 * PER_FILE:
        parser.error(f"--rows {args.rows}: give at least {4 * PER_FILE}, so that each process writes two files")
    results: Row = {
        **provenance(),
        "versions": {name: version(name) for name in ("torch", "transformers", "datasets", "accelerate")},
        "model": Path(args.model).name, "rows": args.rows, "types": args.types,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        environment = {"HF_DATASETS_CACHE": str(here / "cache"), "HF_HUB_OFFLINE": "1"}
        with Commands(here / "log.txt", environment) as commands:
            run = Annotation(here, commands, args)
            for name in args.parts:
                results[name] = []
                for row in PARTS[name](run, args):
                    results[name].append(row)
                    print(f"{name}: {json.dumps(row)}", flush=True)
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.output, results)


class Annotation:
    """The command to measure, with its input."""

    def __init__(self, folder: Path, commands: Commands, args: argparse.Namespace) -> None:
        self.folder, self.commands = folder, commands
        rows = [*read_jsonl(SAMPLE / "held_out.jsonl"), *read_jsonl(SAMPLE / "passages.jsonl")]
        texts = list(dict.fromkeys(row["text"] for row in rows))
        input = folder / "texts.jsonl"
        write_jsonl(input, ({"id": i, "text": texts[i % len(texts)]} for i in range(args.rows)))
        replies = " ".join(row["reply"] for row in read_jsonl(SAMPLE / "answers.jsonl"))
        frequent = [name for name, _ in Counter(re.findall(r'", "([^"]+)"\)', replies)).most_common(args.types)]
        self.options = ["--module", "open_ner", "annotate", "--dataset_name", input, "--model", args.model]
        self.options += ["--types", json.dumps(frequent), "--rows_per_file", PER_FILE, "--batch_size", PER_FILE]
        self.options += ["--device", "cpu"]

    def line(self, name: str, processes: int, threads: int = 1) -> list[object]:
        """Return the command that annotates to a folder of this name."""
        launch = [*LAUNCH, "--num_processes", processes, "--num_cpu_threads_per_process", threads]
        return [*launch, *self.options, "--output_dir", self.folder / name]

    def files(self, name: str) -> list[Path]:
        """Return the files of a folder, in order."""
        return sorted((self.folder / name / "data").iterdir())


def throughput(run: Annotation, args: argparse.Namespace) -> Iterator[Row]:
    """Measure passages per second with each number of processes and threads."""
    for processes, threads in ((1, 1), (1, 2), (2, 1)):
        name, started = f"{processes}x{threads}", time.perf_counter()
        run.commands.run(*run.line(name, processes, threads))
        seconds = time.perf_counter() - started
        files, rate = run.files(name), 0.0
        for rank in range(processes):
            ends = [file.stat().st_mtime for file in files[rank::processes]]
            rate += PER_FILE * (len(ends) - 1) / (ends[-1] - ends[0])
        yield {
            "processes": processes, "threads_per_process": threads, "seconds": seconds,
            "passages_per_second": rate, "passages_per_second_and_core": rate / (processes * threads),
            "peak_mib_of_a_process": run.commands.peak,
        }  # fmt: skip


def kills(run: Annotation, args: argparse.Namespace) -> Iterator[Row]:
    """Check that runs that are killed at random end with the same bytes as an undisturbed one."""
    chooser, commands = random.Random(args.seed), run.commands
    started = time.monotonic()
    commands.run(*run.line("undisturbed", 1))
    duration, number = time.monotonic() - started, 0
    expected = [(file.name, file.read_bytes()) for file in run.files("undisturbed")]
    while len(commands.kills) < args.kills:
        processes, before, number = (2, 4)[number % 2], len(commands.kills), number + 1
        name, starts, killed = f"killed-{number}", 0, True
        most = min(args.kills, before + -(-args.kills // 2))  # so that runs of both sizes are killed
        while killed:
            starts += 1
            command = commands.start(*run.line(name, processes))
            time.sleep(chooser.uniform(0, duration))
            killed = len(commands.kills) < most and commands.kill_one([command], chooser)
            status = commands.wait(command)
            if status and not killed:
                commands.fail(run.line(name, processes), status)
        found = [(file.name, file.read_bytes()) for file in run.files(name)]
        yield {
            "processes": processes, "starts": starts, "killed": dict(Counter(commands.kills[before:])),
            "files": len(expected), "same_bytes": found == expected,
        }  # fmt: skip


PARTS = {"throughput": throughput, "kills": kills}

if __name__ == "__main__":
    main()
