"""The contents of results.json: the model, the data, the environment and the scores."""

import hashlib
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import cast

from command_line.hardware import hardware, inference_dtype
from command_line.public import public_command, public_path, public_value
from command_line.students import load_config
from hub.records import BenchmarkResult, ModelRecord, RunResults
from open_ner.pipeline import saved_defaults

from . import reliability
from .predict import EvaluatedModel, PredictionRun
from .records import PredictionLine
from .scoring import average, evaluate_benchmark, paraphrases
from .suite import Benchmark, SuiteConfig

SCHEMA = 2
PACKAGES = ("torch", "transformers", "datasets", "evaluate")
# fields kept from the run that made the predictions
PROVENANCE = ("replies", "versions", "hardware", "dtype", "seconds", "command", "commit")


def describe_run(
    model: EvaluatedModel, benchmarks: list[Benchmark], suite: SuiteConfig, run: PredictionRun, seen: set[str] | None
) -> RunResults:
    """Score a run and return the contents of its results.json; `seen` are the types of the training set."""
    results: dict[str, BenchmarkResult] = {}
    parts: dict[str, list[PredictionLine]] = {}
    domains: dict[str, dict[str, list[PredictionLine]]] = {}
    for benchmark in benchmarks:
        config, sample = benchmark.config, {"passages": len(benchmark.passages), "of": benchmark.size}
        own = [line for line in run.lines if line["benchmark"] == config.name]
        parts[config.name] = [line for line in own if "asked" not in line]
        domains.setdefault(config.domain, {})[config.name] = parts[config.name]
        results[config.name] = {
            **evaluate_benchmark(parts[config.name], seen, suite.seed),
            "version": config.version, "domain": config.domain,
            "dataset": {
                "id": benchmark.hub_id, "config": public_value(config.config or config.data_files),
                "revision": benchmark.revision, "digest": benchmark.digest,
            },
            "sampled": {**sample, "seed": suite.seed} if sample["passages"] < sample["of"] else None,
            "skipped": benchmark.rejects,
        }  # fmt: skip
        if robustness := paraphrases(own):
            results[config.name]["paraphrases"] = robustness
    has_several = len(domains) < len(parts)  # some domain has several benchmarks
    saved = {"temperature": 1.0, "bias": 0.0}
    if model.record["kind"] == "student" and suite.decoding == "free":  # the scores of `flat` are calibrated already
        defaults = saved_defaults(load_config(model.name))
        saved = {"temperature": defaults["temperature"], "bias": defaults["bias"]}
    record = {name: value for name, value in model.record.items() if value is not None or name == "revision"}
    endpoint = model.record["kind"] == "endpoint"
    dtype = None if endpoint else inference_dtype(suite.dtype)
    described: RunResults = {
        "schema": SCHEMA,
        "model": cast(ModelRecord, {**record, "id": public_path(model.record["id"])}),
        "suite": suite.name, "protocol": suite.protocol, "decoding": suite.decoding, "occurrences": suite.occurrences,
        "benchmarks": results,
        "average": average(parts, suite.seed) if len(parts) > 1 else None,
        "by_domain": {name: average(own, suite.seed) for name, own in domains.items()} if has_several else None,
        "replies": {reason: n for reason, n in model.faults.items() if n},
        "calibration": reliability.describe([line for part in parts.values() for line in part], **saved),
        "versions": {package: version(package) for package in PACKAGES},
        "hardware": hardware(),
        "dtype": dtype,
        "seconds": round(run.seconds, 1), "seed": suite.seed,
        "command": public_command(["python", *sys.argv]), "commit": commit(),
        "data_hash": hashlib.sha256("".join(b.digest for b in benchmarks).encode()).hexdigest()[:16],
        "run": run.identity,
    }  # fmt: skip
    return cast(RunResults, {**described, **{name: run.saved[name] for name in PROVENANCE if name in run.saved}})


def commit() -> str | None:
    """Return the commit of this program if it runs from a clone and git is installed."""
    with suppress(OSError):
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
        return done.stdout.strip() or None
