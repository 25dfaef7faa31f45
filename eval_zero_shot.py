"""Score students on open-NER benchmarks they were not trained on.

    python eval_zero_shot.py --config recipes/eval/sample.yaml --model BASELINE runs/quickstart/model
    python eval_zero_shot.py --config recipes/eval/uniner.yaml --data_dir DATA --limit 60 --model org/model
    python eval_zero_shot.py --config recipes/eval/sample.yaml --model runs/quickstart/model --push_to_hub org/my-ner
    python eval_zero_shot.py --compare untrained/results.json tuned/results.json [--readme README.md]

With several models the first is the baseline of the others. A killed run goes on with the next passage.
"""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from open_ner.cli import UserError, describe, parse_overrides, read_recipe, run
from zero_shot.benchmarks import Benchmark, SuiteConfig, load_benchmark
from zero_shot.predict import predict, read_calibration

SCHEMA = 1
BENCHMARKS = Path(__file__).parent / "recipes" / "eval" / "benchmarks"


def main() -> None:
    """Load the suite, score each model, compare, and write table, figure and cards."""
    args, rest = parse_arguments()
    if args.compare:
        compare_files(args.compare, args.readme)
        return
    suite = read_suite(args, rest)
    benchmarks = [load_benchmark(BENCHMARKS / f"{name}.yaml", suite) for name in suite.benchmarks]
    vocabulary = training_types(args.seen_types or args.model[-1])
    runs, predictions = [], []
    for name in args.model:
        folder = Path(suite.output_dir) / name.strip("/.").replace("/", "--")
        folder = folder / f"{suite.name}-{suite.protocol}-{suite.decoding}"
        lines, seconds, revision = predict(name, benchmarks, suite, folder)
        results = describe_run(name, revision, benchmarks, suite, lines, vocabulary, seconds)
        if runs:
            from zero_shot.scoring import compare

            results["gains"] = compare(lines, predictions[0], vocabulary, suite.seed)
        (folder / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False), encoding="utf-8")
        runs.append(results)
        predictions.append(lines)
    report(runs, args.model, Path(suite.output_dir), args.push_to_hub)


def parse_arguments() -> tuple[argparse.Namespace, list[str]]:
    """The command line, and what of it may be options of the suite."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"Options of a suite, also given as --benchmarks, --seed, ... (default):\n{describe(SuiteConfig)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", help="suite, e.g. recipes/eval/sample.yaml")
    parser.add_argument("--model", nargs="+", help="folders or Hub ids; the first is the baseline of the others")
    parser.add_argument("--data_dir", help="folder the benchmarks' paths start from")
    parser.add_argument("--limit", type=int, help="passages a benchmark, a seeded sample")
    parser.add_argument("--decoding", choices=["free", "grounded"], help="how answers are decoded")
    parser.add_argument("--output_dir", help="where results go")
    parser.add_argument("--seen_types", help="folder or Hub id of the training set or model whose types count as seen")
    parser.add_argument("--push_to_hub", metavar="ORG/NAME", help="upload the last model's folder with its results")
    parser.add_argument(
        "--compare", nargs="+", type=Path, metavar="RESULTS", help="show results.json files side by side"
    )
    parser.add_argument("--readme", type=Path, help="with --compare: rewrite the table between this file's marks")
    return parser.parse_known_args()


def read_suite(args: argparse.Namespace, rest: list[str]) -> SuiteConfig:
    """The suite with the command line's options over it."""
    if not args.config or not args.model:
        raise UserError("give --config SUITE and --model MODEL [MODEL ...], or --compare RESULTS; see --help")
    overrides = parse_overrides(rest)
    for name in ("data_dir", "limit", "decoding", "output_dir"):
        if getattr(args, name) is not None:
            overrides[name] = getattr(args, name)
    suite = read_recipe(SuiteConfig, args.config, overrides)
    if suite.limit is not None and suite.limit < 1:
        raise UserError(f"--limit {suite.limit}: score at least one passage")
    return suite


def compare_files(files: list[Path], readme: Path | None) -> None:
    """Print the table of several results.json files, the first the baseline, or write it between a README's marks."""
    from zero_shot.report import markdown_table

    try:
        runs = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        table = f"{markdown_table(runs)}\n\nMeasured on: {runs[0]['hardware']}."
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"--compare wants results.json files of this program: {error!r:.150}") from None
    if readme is None:
        print(table)
        return
    begin, end = "<!-- results: begin -->", "<!-- results: end -->"
    text = readme.read_text(encoding="utf-8")
    if begin not in text or end not in text:
        raise UserError(f"{readme}: the marks {begin} and {end} are missing")
    before, after = text.split(begin)[0], text.split(end)[1]
    readme.write_text(f"{before}{begin}\n{table}\n{end}{after}", encoding="utf-8")


def training_types(source: str) -> set[str] | None:
    """Types of a training set, from the `types.json` that lies with it and with the students tuned on it."""
    from sft.saving import read_types

    return {name.lower() for name in read_types(source)} or None


def describe_run(
    name: str,
    revision: str,
    benchmarks: list[Benchmark],
    suite: SuiteConfig,
    lines: list[dict[str, Any]],
    vocabulary: set[str] | None,
    seconds: float,
) -> dict[str, Any]:
    """The contents of results.json."""
    from zero_shot import calibration
    from zero_shot.scoring import evaluate_benchmark

    results = {}
    for benchmark in benchmarks:
        own = [line for line in lines if line["benchmark"] == benchmark.config.name]
        results[benchmark.config.name] = {
            **evaluate_benchmark(own, vocabulary, suite.seed),
            "version": benchmark.config.version,
            "sampled": None
            if len(benchmark.passages) == benchmark.size
            else {"passages": len(benchmark.passages), "of": benchmark.size, "seed": suite.seed},
            "skipped": benchmark.skipped,
        }
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    return {
        "schema": SCHEMA,
        "model": {"id": name, "revision": revision},
        "suite": suite.name,
        "protocol": suite.protocol,
        "decoding": suite.decoding,
        "occurrences": suite.occurrences,
        "benchmarks": results,
        "calibration": calibration.describe(lines, **read_calibration(name)),
        "versions": {package: version(package) for package in ("torch", "transformers")},
        "hardware": hardware(),
        "seconds": round(seconds, 1),
        "seed": suite.seed,
        "command": " ".join(["python", *sys.argv]),
        "commit": commit.stdout.strip() or None,
        "data_hash": hashlib.sha256("".join(b.digest for b in benchmarks).encode()).hexdigest()[:16],
    }


def hardware() -> str:
    """One line: the accelerator, or the processor and how many of its cores are used."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return f"{platform.machine()} CPU, {os.cpu_count()} cores"


def report(runs: list[dict[str, Any]], models: list[str], output_dir: Path, repo_id: str | None) -> None:
    """Print and write the table and the figure, renew the cards of local students, and upload where asked."""
    from hub.model_card import write_model_card
    from zero_shot import calibration
    from zero_shot.report import markdown_table, plot_f1

    table = markdown_table(runs)
    (output_dir / "table.md").write_text(table + "\n", encoding="utf-8")
    plot_f1(runs, output_dir / "figures" / "f1.png")
    scored = {run["model"]["id"]: run["calibration"] for run in runs if run["calibration"]}
    if scored:
        calibration.plot(scored, output_dir / "figures" / "calibration.png")
    print(f"\n{table}\n\nresults: {output_dir}")
    for name, results in zip(models, runs, strict=True):
        if (Path(name) / "training.json").exists():
            write_model_card(Path(name), results, table)
            print(f"model card: {Path(name) / 'README.md'}")
    if repo_id:
        from hub.publish import publish_folder

        print(publish_folder(models[-1], repo_id))


if __name__ == "__main__":
    run(main)
