"""Compare the teacher's client with other ways to ask an endpoint, on a local server with a fixed latency.

    python bench/annotate.py                                  # against the plain client; about ten minutes
    python bench/annotate.py --others flexllm                  # also flexllm, in its own virtual environment
    python bench/annotate.py --parts throughput --in_flight 256 --runs 5

All ways send the same prompts to the same server. Runs alternate, each in a new process; rates and CPU are medians.
The ideal is in_flight / latency answers per second. CPU is the client's, after its imports, in seconds per 1,000
answers.
Parts: throughput, faults, limit, cap, kill, memory. --output also writes the results as JSON.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
from bench.parts.local_endpoint import FAULTS, LocalEndpoint  # noqa: E402
from dataset_builder.teacher.questions import build_messages  # noqa: E402
from open_ner.tools.files import write_json  # noqa: E402

OURS, PLAIN = "uniner-distill", "plain AsyncOpenAI"
SLOW = 300  # seconds; a run that takes longer counts as hanging
Row = dict[str, str | float]
Pythons = dict[str, str]  # executable of each way


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS])
    parser.add_argument("--answers", type=int, default=3000, help="prompts of a throughput run")
    parser.add_argument("--in_flight", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--latency", type=float, default=0.2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--others", nargs="+", choices=["flexllm"], default=[])
    parser.add_argument("--environments", type=Path, default=Path("runs/bench/environments"))
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    args = parser.parse_args()
    pythons = {OURS: sys.executable, PLAIN: sys.executable}
    pythons |= {name: environment(name, args.environments) for name in args.others}
    results: dict[str, Any] = {"command": " ".join(["python", *sys.argv]), "hardware": f"{os.cpu_count()} cores"}
    results["python"] = platform.python_version()
    for name in args.parts:
        results[name] = []
        print(f"\n{name}")
        for row in PARTS[name](pythons, args):
            results[name].append(row)
            shown = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in row.items()}
            print("  " + ", ".join(f"{name} {value}" for name, value in shown.items()), flush=True)
        if args.output:
            args.output.parent.mkdir(parents=True, exist_ok=True)
            write_json(args.output, results)


def environment(name: str, folder: Path) -> str:
    """Return the Python of a virtual environment for a package with other pinned versions; create it if missing."""
    python = folder / name / "bin" / "python"
    if not python.exists():
        print(f"installing {name} into {folder / name}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder / name], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", name], check=True)
    return str(python.absolute())


def write_passages(folder: str, count: int) -> Path:
    """Write a run's folder with `count` passages, and the same prompts for the other ways."""
    data = Path(folder)
    (data / "rejected_passages.jsonl").touch()
    text = "Ada Lovelace wrote notes on the Analytical Engine in London. " * 8
    with (data / "passages.jsonl").open("w") as passages, (data / "prompts.jsonl").open("w") as prompts:
        for i in range(count):
            place = {"source": "", "source_id": f"p{i}", "license": "", "start": 0, "end": 1, "tokens": 1}
            print(json.dumps({"id": f"p{i}", "text": f"{text}{i}", **place}), file=passages)
            print(json.dumps({"messages": build_messages("type", f"{text}{i}")}), file=prompts)
    return data


def command(way: str, python: str, url: str, data: Path, in_flight: int, folder: str) -> list[str]:
    """Return the command that asks all prompts in one way and writes its output into a folder."""
    file = data / ("passages.jsonl" if way == OURS else "prompts.jsonl")
    script = Path(__file__).parent / "parts" / "annotate_ways.py"
    return [python, str(script), way, url, str(file), str(in_flight), folder]


def ask(way: str, python: str, url: str, data: Path, in_flight: int, folder: str | None = None) -> dict[str, float]:
    """Run one way once; return answers, seconds, CPU seconds and MiB of memory. `answers` is 0 on a timeout."""
    with tempfile.TemporaryDirectory() as new:
        line = command(way, python, url, data, in_flight, folder or new)
        try:
            done = subprocess.run(line, capture_output=True, text=True, timeout=SLOW)
            return json.loads(done.stdout.splitlines()[-1])
        except subprocess.TimeoutExpired:
            return {"answers": 0, "seconds": float(SLOW), "cpu": 0.0, "mib": 0.0}
        except (IndexError, ValueError):
            sys.exit(f"{way}: {done.stderr[-2000:]}")


def throughput(pythons: Pythons, args: argparse.Namespace) -> Iterator[Row]:
    """Measure the answers per second of each way."""
    for in_flight in args.in_flight:
        runs: dict[str, list[dict[str, float]]] = {way: [] for way in pythons}
        with tempfile.TemporaryDirectory() as folder, LocalEndpoint(args.latency) as endpoint:
            data = write_passages(folder, args.answers)
            for _ in range(args.runs):
                for way, python in pythons.items():
                    runs[way].append(ask(way, python, endpoint.base_url, data, in_flight))
        for way, results in runs.items():
            rate = statistics.median(run["answers"] / run["seconds"] for run in results)
            cpu = statistics.median(1000 * run["cpu"] / max(1, run["answers"]) for run in results)
            ideal = in_flight / args.latency
            yield {"way": way, "in_flight": in_flight, "rate": rate, "of_ideal": rate / ideal, "cpu": cpu}


def faults(pythons: Pythons, args: argparse.Namespace) -> Iterator[Row]:
    """Count the answers that are lost when the first request of one prompt in four fails."""
    count = 640
    with tempfile.TemporaryDirectory() as folder:
        data = write_passages(folder, count)
        for way, python in pythons.items():
            with LocalEndpoint(args.latency, faults=FAULTS) as endpoint:
                run = ask(way, python, endpoint.base_url, data, 64)
                twice = sum(times - 1 for times in endpoint.stats()["delivered"].values())
            lost = count - run["answers"]
            yield {"way": way, "answers": count, "lost": lost, "seconds": run["seconds"], "delivered_twice": twice}


def limit(pythons: Pythons, args: argparse.Namespace) -> Iterator[Row]:
    """Measure the share of the possible rate that each way reaches with 64 in flight when some requests get a 429."""
    servers = {
        "6,000 requests a minute, stated in headers": (100.0, {"per_minute": 6000}),
        "6,000 requests a minute, not stated": (100.0, {"per_minute": 6000, "headers": False}),
        "10 % of all requests, at any pace": (64 / args.latency, {"random_share": 0.1}),
    }
    for name, (possible, settings) in servers.items():
        with tempfile.TemporaryDirectory() as folder:
            data = write_passages(folder, args.answers)
            for way, python in pythons.items():
                with LocalEndpoint(args.latency, **settings) as endpoint:
                    run = ask(way, python, endpoint.base_url, data, 64)
                    limited = endpoint.stats()["rate_limited"]
                lost, share = args.answers - run["answers"], run["answers"] / run["seconds"] / possible
                yield {"limit": name, "way": way, "lost": lost, "times_429": limited, "of_possible": share}


def until(process: subprocess.Popen[bytes], done: Callable[[], bool]) -> None:
    """Wait until `done()` is true or the process has ended, then kill the process."""
    while process.poll() is None and not done():
        time.sleep(0.02)
    process.kill()
    process.wait()


def cap(pythons: Pythons, args: argparse.Namespace) -> Iterator[Row]:
    """Measure what the server bills under a cost cap, if one prompt in four first fails, or with restarts."""
    options = {"max_answer_tokens": 40, "price_input": 1.0, "price_output": 10.0, "max_cost": 0.5}
    bill = (200 * options["price_input"] + 40 * options["price_output"]) / 1e6
    for fault, kills in (("hang", 0), ("reset mid-body", 0), ("truncated body", 0), ("kill -9", 12)):
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as output:
            data = write_passages(folder, 1280)
            with LocalEndpoint(args.latency, faults=() if kills else (fault,)) as endpoint:
                line = command(OURS, pythons[OURS], endpoint.base_url, data, 16, output)
                environ = {**os.environ, "BENCH_OPTIONS": json.dumps(options)}
                for number in range(kills + 2):
                    enough = endpoint.stats()["billed"] + 40 if number < kills else float("inf")
                    run = subprocess.Popen(line, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                    until(run, lambda enough=enough: endpoint.stats()["billed"] >= enough)
                yield {"fault": fault, "cap": options["max_cost"], "billed": bill * endpoint.stats()["billed"]}


def kill(pythons: Pythons, args: argparse.Namespace) -> Iterator[Row]:
    """Count the answers paid twice if a run with 64 in flight is killed (kill -9) half-way and started again."""
    count = 1280
    with tempfile.TemporaryDirectory() as folder:
        data = write_passages(folder, count)
        for way in [way for way in pythons if way != PLAIN]:  # PLAIN saves nothing, so all is paid again
            with LocalEndpoint(args.latency) as endpoint, tempfile.TemporaryDirectory() as output:
                line = command(way, pythons[way], endpoint.base_url, data, 64, output)
                run = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                until(run, lambda endpoint=endpoint: sum(endpoint.stats()["delivered"].values()) >= count / 2)
                answers = ask(way, pythons[way], endpoint.base_url, data, 64, output)["answers"]
                served = endpoint.stats()
            twice = sum(times - 1 for times in served["delivered"].values())
            yield {"way": way, "answers": answers, "paid_twice": twice, "asked_again": served["requests"] - count}


def memory(pythons: Pythons, args: argparse.Namespace) -> Iterator[Row]:
    """Measure the peak memory of annotating, at no latency and 64 in flight."""
    for count in (5_000, 50_000):
        with tempfile.TemporaryDirectory() as folder, LocalEndpoint(0.0) as endpoint:
            run = ask(OURS, pythons[OURS], endpoint.base_url, write_passages(folder, count), 64)
        yield {"passages": count, "answers": run["answers"], "mib": run["mib"]}


PARTS = {"throughput": throughput, "faults": faults, "limit": limit, "cap": cap, "kill": kill, "memory": memory}

if __name__ == "__main__":
    main()
