"""What results.json says of one run."""

import hashlib
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from . import calibration
from .paraphrase import paraphrases
from .predict import Asker, Line, Run
from .scoring import average, evaluate_benchmark
from .suite import Benchmark, SuiteConfig

SCHEMA = 2
PACKAGES = ("torch", "transformers", "datasets", "evaluate")


def describe_run(
    asker: Asker, benchmarks: list[Benchmark], suite: SuiteConfig, run: Run, seen_types: set[str] | None
) -> dict[str, Any]:
    """The contents of results.json."""
    results, parts = {}, {}
    for benchmark in benchmarks:
        name = benchmark.config.name
        own = [line for line in run.lines if line["benchmark"] == name]
        parts[name] = [line for line in own if "asked" not in line]
        results[name] = {
            **evaluate_benchmark(parts[name], seen_types, suite.seed),
            "version": benchmark.config.version,
            "domain": benchmark.config.domain,
            "dataset": {
                "id": benchmark.hub_id,
                "config": benchmark.config.config or benchmark.config.data_files,
                "revision": benchmark.revision,
                "digest": benchmark.digest,
            },
            "sampled": None
            if len(benchmark.passages) == benchmark.size
            else {"passages": len(benchmark.passages), "of": benchmark.size, "seed": suite.seed},
            "skipped": benchmark.rejects,
        }
        if robustness := paraphrases(own):
            results[name]["paraphrases"] = robustness
    scored: list[Line] = [line for lines in parts.values() for line in lines if _has_scores(line)]
    from_config = calibration.read_saved(asker.name) if asker.model["kind"] == "student" else {}
    return {
        "schema": SCHEMA,
        "model": {name: value for name, value in asker.model.items() if value is not None or name == "revision"},
        "suite": suite.name,
        "protocol": suite.protocol,
        "decoding": suite.decoding,
        "occurrences": suite.occurrences,
        "benchmarks": results,
        "average": average(parts, suite.seed) if len(parts) > 1 else None,
        "by_domain": _by_domain(benchmarks, parts, suite.seed),
        "replies": {reason: n for reason, n in getattr(asker, "replies", {}).items() if n},
        "calibration": calibration.describe(scored, **from_config) if scored else None,
        "versions": {package: version(package) for package in PACKAGES},
        "hardware": hardware(),
        "seconds": round(run.seconds, 1),
        "seed": suite.seed,
        "command": " ".join(["python", *sys.argv]),
        "commit": commit(),
        "data_hash": hashlib.sha256("".join(b.digest for b in benchmarks).encode()).hexdigest()[:16],
        "run": run.identity,
    }


def _by_domain(benchmarks: list[Benchmark], parts: dict[str, list[Line]], seed: int) -> dict[str, Any] | None:
    """The mean of each domain that has several benchmarks; None where every benchmark has one of its own."""
    domains: dict[str, dict[str, list[Line]]] = {}
    for benchmark in benchmarks:
        name = benchmark.config.name
        domains.setdefault(benchmark.config.domain, {})[name] = parts[name]
    return {domain: average(own, seed) for domain, own in domains.items()} if len(domains) < len(parts) else None


def _has_scores(line: Line) -> bool:
    return all(span["score"] is not None for span in line["spans"])


def commit() -> str | None:
    """The commit of this program, where it is a clone."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    return done.stdout.strip() or None


def hardware() -> str:
    """One line: the accelerator, or the processor and how many of its cores are used."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return f"{platform.machine()} CPU, {os.cpu_count()} cores"
