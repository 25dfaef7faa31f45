"""Compare the teacher's client with other ways to ask an endpoint, on a local server with a fixed latency.

    python bench/annotate.py                                  # against the plain client; about five minutes
    python bench/annotate.py --others flexllm                  # also this one, in its own virtual environment
    python bench/annotate.py --parts throughput --in_flight 256 --runs 5

Every way asks the same prompts of the same server, each run in a new process, in turns; the tables show medians. The
ideal is in_flight / latency replies per second. CPU is the client's, after its imports. Parts: throughput, faults,
limit, cap, kill, memory. --output also writes the results as JSON.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from bench.parts.local_endpoint import FAULTS, LocalEndpoint  # noqa: E402
from dataset_builder.teacher.questions import build_messages  # noqa: E402
from open_ner.tools.files import write_json  # noqa: E402

OURS, PLAIN = "uniner-distill", "plain AsyncOpenAI"
SLOW = 300  # seconds; a run that takes longer is considered hanging
BenchRow = dict[str, str | float]
AskResult = dict[str, float]  # answers, seconds, CPU seconds, MiB of memory


def main() -> None:
    args = parse_arguments()
    pythons = {OURS: sys.executable, PLAIN: sys.executable}
    pythons |= {name: environment(name, args.environments) for name in args.others}
    results: dict[str, str | list[BenchRow]] = {"command": " ".join(["python", *sys.argv])}
    results |= {"hardware": f"{os.cpu_count()} cores", "python": platform.python_version()}
    for name in args.parts:
        results[name] = PARTS[name](pythons, args)
        if args.output:
            args.output.parent.mkdir(parents=True, exist_ok=True)
            write_json(args.output, results)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS])
    parser.add_argument("--answers", type=int, default=3000, help="prompts of a throughput run")
    parser.add_argument("--in_flight", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--latency", type=float, default=0.2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--others", nargs="+", choices=["flexllm"], default=[])
    parser.add_argument("--environments", type=Path, default=Path("runs/bench/environments"))
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    return parser.parse_args()


def environment(name: str, folder: Path) -> str:
    """Python of a virtual environment with one other package, whose pins differ from ours; created if missing."""
    python = folder / name / "bin" / "python"
    if not python.exists():
        print(f"installing {name} into {folder / name}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder / name], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", name], check=True)
    return str(python.absolute())


def write_passages(folder: Path, count: int) -> Path:
    """Write a run's folder with `count` passages, and the same prompts for the other ways."""
    (folder / "rejected_passages.jsonl").touch()
    text = "Ada Lovelace wrote notes on the Analytical Engine in London. " * 8
    with (folder / "passages.jsonl").open("w") as passages, (folder / "prompts.jsonl").open("w") as prompts:
        for i in range(count):
            place = {"source": "", "source_id": f"p{i}", "license": "", "start": 0, "end": 1, "tokens": 1}
            print(json.dumps({"id": f"p{i}", "text": f"{text}{i}", **place}), file=passages)
            print(json.dumps({"messages": build_messages("type", f"{text}{i}")}), file=prompts)
    return folder


def command(way: str, python: str, url: str, data: Path, in_flight: int, folder: str | Path) -> list[str]:
    file = data / ("passages.jsonl" if way == OURS else "prompts.jsonl")
    script = Path(__file__).parent / "parts" / "annotate_ways.py"
    return [python, str(script), way, url, str(file), str(in_flight), str(folder)]


def ask(way: str, python: str, url: str, data: Path, in_flight: int, output: str | None = None) -> AskResult:
    """Run one way once; `answers` is 0 if it did not end."""
    with tempfile.TemporaryDirectory() as folder:
        line = command(way, python, url, data, in_flight, output or folder)
        try:
            done = subprocess.run(line, capture_output=True, text=True, timeout=SLOW)
            return json.loads(done.stdout.splitlines()[-1])
        except subprocess.TimeoutExpired:
            return {"answers": 0, "seconds": float(SLOW), "cpu": 0.0, "mib": 0.0}
        except (IndexError, ValueError):
            sys.exit(f"{way}: {done.stderr[-2000:]}")


def throughput(pythons: dict[str, str], args: argparse.Namespace) -> list[BenchRow]:
    rows: list[BenchRow] = []
    for in_flight in args.in_flight:
        runs: dict[str, list[AskResult]] = {way: [] for way in pythons}
        with tempfile.TemporaryDirectory() as folder, LocalEndpoint(args.latency) as endpoint:
            data = write_passages(Path(folder), args.answers)
            for _ in range(args.runs):
                for way, python in pythons.items():
                    runs[way].append(ask(way, python, endpoint.base_url, data, in_flight))
        ideal = in_flight / args.latency
        print(f"\nthroughput, {in_flight} in flight at {1000 * args.latency:.0f} ms, {args.answers} answers")
        ours = 0.0
        for way, results in runs.items():
            rate = statistics.median(result["answers"] / result["seconds"] for result in results)
            cpu = statistics.median(1000 * result["cpu"] / max(1, result["answers"]) for result in results)
            rows.append({"way": way, "in_flight": in_flight, "rate": rate, "of_ideal": rate / ideal, "cpu": cpu})
            ours = rate if way == OURS else ours
            print(
                f"  {way:<18} {rate:7.1f} answers/s, {rate / ideal:.2f} of the ideal, {cpu:.2f} CPU s per 1,000; "
                f"ours has {ours / rate:.2f} x its rate",
                flush=True,
            )
    return rows


def faults(pythons: dict[str, str], args: argparse.Namespace) -> list[BenchRow]:
    rows: list[BenchRow] = []
    count = 640
    print(f"\nlost of {count} answers when one prompt in four first meets one of: {', '.join(FAULTS)}")
    with tempfile.TemporaryDirectory() as folder:
        data = write_passages(Path(folder), count)
        for way, python in pythons.items():
            with LocalEndpoint(args.latency, faults=FAULTS) as endpoint:
                result = ask(way, python, endpoint.base_url, data, 64)
                served = endpoint.stats()
            lost = count - result["answers"]
            twice = sum(times - 1 for times in served["delivered"].values())
            rows.append({"way": way, "lost": lost, "seconds": result["seconds"], "delivered_twice": twice})
            print(f"  {way:<18} lost {lost}, {twice} answers delivered twice, {result['seconds']:.1f} s", flush=True)
    return rows


def limit(pythons: dict[str, str], args: argparse.Namespace) -> list[BenchRow]:
    rows: list[BenchRow] = []
    count = args.answers
    servers = {
        "6,000 requests a minute, stated in headers": (100.0, {"per_minute": 6000}),
        "6,000 requests a minute, not stated": (100.0, {"per_minute": 6000, "headers": False}),
        "10 % of all requests, at any pace": (64 / args.latency, {"random_share": 0.1}),
    }
    for name, (possible, settings) in servers.items():
        print(f"\nrefused: {name}; 64 workers")
        with tempfile.TemporaryDirectory() as folder:
            data = write_passages(Path(folder), count)
            for way, python in pythons.items():
                with LocalEndpoint(args.latency, **settings) as endpoint:
                    result = ask(way, python, endpoint.base_url, data, 64)
                    limited = endpoint.stats()["rate_limited"]
                lost, share = count - result["answers"], result["answers"] / result["seconds"] / possible
                rows.append({"way": way, "refused": name, "lost": lost, "times": limited, "of_possible": share})
                print(f"  {way:<18} lost {lost}, {limited} times 429, {share:.2f} of the possible pace", flush=True)
    return rows


def cap(pythons: dict[str, str], args: argparse.Namespace) -> list[BenchRow]:
    rows: list[BenchRow] = []
    limit, options = 0.5, {"max_answer_tokens": 40, "price_input": 1.0, "price_output": 10.0, "max_cost": 0.5}
    bill = (200 * options["price_input"] + 40 * options["price_output"]) / 1e6
    print(f"\na cap of ${limit}: what the server bills, over restarts, when one prompt in four first meets this")
    for fault, kills in (("hang", 0), ("reset mid-body", 0), ("truncated body", 0), ("kill -9", 12)):
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as output:
            data = write_passages(Path(folder), 1280)
            with LocalEndpoint(args.latency, faults=() if kills else (fault,)) as endpoint:
                line = command(OURS, pythons[OURS], endpoint.base_url, data, 16, output)
                environ = {**os.environ, "BENCH_OPTIONS": json.dumps(options)}
                for number in range(kills + 2):
                    before = endpoint.stats()["billed"]
                    run = subprocess.Popen(line, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                    while run.poll() is None and (number >= kills or endpoint.stats()["billed"] < before + 40):
                        time.sleep(0.02)
                    run.kill()
                    run.wait()
                billed = bill * endpoint.stats()["billed"]
        rows.append({"fault": fault, "cap": limit, "billed": billed})
        print(f"  {fault:<18} ${billed:.3f} billed", flush=True)
    return rows


def kill(pythons: dict[str, str], args: argparse.Namespace) -> list[BenchRow]:
    rows: list[BenchRow] = []
    count = 1280
    print(f"\nkill -9 at half-way of {count} answers, 64 in flight, then the same command again")
    with tempfile.TemporaryDirectory() as folder:
        data = write_passages(Path(folder), count)
        for way, python in pythons.items():
            if way == PLAIN:
                continue  # it keeps nothing: everything is paid again
            with LocalEndpoint(args.latency) as endpoint, tempfile.TemporaryDirectory() as output:
                line = command(way, python, endpoint.base_url, data, 64, output)
                first = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                while sum(endpoint.stats()["delivered"].values()) < count / 2 and first.poll() is None:
                    time.sleep(0.02)
                first.send_signal(signal.SIGKILL)
                first.wait()
                answers = ask(way, python, endpoint.base_url, data, 64, output)["answers"]
                served = endpoint.stats()
            paid_twice = sum(times - 1 for times in served["delivered"].values())
            again = served["requests"] - count
            rows.append({"way": way, "answers": answers, "paid_twice": paid_twice, "asked_again": again})
            end = f"{answers} answers" if answers else "the second run did not end"
            print(f"  {way:<18} {end}; {again} asked again, {paid_twice} of them delivered and paid twice", flush=True)
    return rows


def memory(pythons: dict[str, str], args: argparse.Namespace) -> list[BenchRow]:
    rows: list[BenchRow] = []
    print("\nmemory of annotating, everything included, at no latency and 64 in flight")
    for count in (5_000, 50_000):
        with tempfile.TemporaryDirectory() as folder, LocalEndpoint(0.0) as endpoint:
            result = ask(OURS, pythons[OURS], endpoint.base_url, write_passages(Path(folder), count), 64)
        rows.append({"passages": count, "answers": result["answers"], "mib": result["mib"]})
        print(f"  {count:>7,} passages: {result['mib']:.1f} MiB, {result['answers']:,} answers", flush=True)
    return rows


PARTS = {"throughput": throughput, "faults": faults, "limit": limit, "cap": cap, "kill": kill, "memory": memory}

if __name__ == "__main__":
    main()
