"""The contents of results.json: what was run, on what, and the scores."""

import hashlib
import os
import platform
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import cast

from command_line.public import public_command, public_path, public_value
from hub.records import BenchmarkResult, ModelRecord, RunResults

from . import reliability
from .paraphrase import paraphrases
from .predict import EvaluatedModel, PredictionRun
from .records import PredictionLine
from .scoring import average, evaluate_benchmark
from .student import inference_dtype
from .suite import Benchmark, SuiteConfig

SCHEMA = 2
PACKAGES = ("torch", "transformers", "datasets", "evaluate")
PROVENANCE = ("replies", "versions", "hardware", "dtype", "seconds", "command", "commit")  # of the run that predicted


def describe_run(
    model: EvaluatedModel, benchmarks: list[Benchmark], suite: SuiteConfig, run: PredictionRun, seen: set[str] | None
) -> RunResults:
    """Score a run and return the contents of its results.json; `seen` are the types of the training set."""
    results: dict[str, BenchmarkResult] = {}
    parts: dict[str, list[PredictionLine]] = {}
    domains: dict[str, dict[str, list[PredictionLine]]] = {}
    for benchmark in benchmarks:
        name = benchmark.config.name
        own = [line for line in run.lines if line["benchmark"] == name]
        parts[name] = [line for line in own if "asked" not in line]
        domains.setdefault(benchmark.config.domain, {})[name] = parts[name]
        results[name] = {
            **evaluate_benchmark(parts[name], seen, suite.seed),
            "version": benchmark.config.version,
            "domain": benchmark.config.domain,
            "dataset": {
                "id": benchmark.hub_id,
                "config": public_value(benchmark.config.config or benchmark.config.data_files),
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
    has_several = len(domains) < len(parts)  # benchmarks of one domain
    scored = [line for part in parts.values() for line in part]
    # the spans of the decoding `flat` have calibrated scores already
    is_raw = model.record["kind"] == "student" and suite.decoding == "free"
    saved = reliability.read_saved(model.name) if is_raw else {}
    record = {name: value for name, value in model.record.items() if value is not None or name == "revision"}
    described: RunResults = {
        "schema": SCHEMA,
        "model": cast(ModelRecord, {**record, "id": public_path(model.record["id"])}),
        "suite": suite.name,
        "protocol": suite.protocol,
        "decoding": suite.decoding,
        "occurrences": suite.occurrences,
        "benchmarks": results,
        "average": average(parts, suite.seed) if len(parts) > 1 else None,
        "by_domain": {name: average(own, suite.seed) for name, own in domains.items()} if has_several else None,
        "replies": {reason: n for reason, n in model.replies.items() if n},
        "calibration": reliability.describe(scored, **saved),
        "versions": {package: version(package) for package in PACKAGES},
        "hardware": hardware(),
        "dtype": None if model.record["kind"] == "endpoint" else str(inference_dtype()).removeprefix("torch."),
        "seconds": round(run.seconds, 1),
        "seed": suite.seed,
        "command": public_command(["python", *sys.argv]),
        "commit": commit(),
        "data_hash": hashlib.sha256("".join(b.digest for b in benchmarks).encode()).hexdigest()[:16],
        "run": run.identity,
    }
    return cast(RunResults, {**described, **{name: run.saved[name] for name in PROVENANCE if name in run.saved}})


def commit() -> str | None:
    """Return the commit of this program if it runs from a clone and git is installed."""
    with suppress(OSError):
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
        return done.stdout.strip() or None
    return None


def hardware() -> str:
    """Name the GPU, or the CPU and its number of cores."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return f"{platform.machine()} CPU, {os.cpu_count()} cores"
