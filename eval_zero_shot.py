"""Score students, chat models and endpoints on open-NER benchmarks they were not trained on.

    python eval_zero_shot.py --config recipes/eval/sample.yaml --model BASELINE runs/quickstart/model
    accelerate launch eval_zero_shot.py --config recipes/eval/uniner.yaml --data_dir DATA --model org/model
    python eval_zero_shot.py --config recipes/eval/sample.yaml --base_url URL --model gpt-4o-mini runs/my-model
    python eval_zero_shot.py --config recipes/eval/sample.yaml --model recipes/eval/baselines/chatgpt.yaml --dry_run
    python eval_zero_shot.py --compare untrained/results.json tuned/results.json [--readme README.md]

A model is a folder, a Hub id or a baseline's YAML; with --base_url, every name that is no folder and no YAML is asked
there. With several models the first is the baseline of the others. A killed run goes on with the next passage.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from command_line.recipes import describe, parse_overrides, read_recipe
from ner_sets.benchmarks import find_benchmark
from open_ner.tools.errors import UserError, run
from zero_shot.predict import Asker, folder_name, predict
from zero_shot.suite import Benchmark, SuiteConfig, load_benchmark

OF_THE_ENDPOINT = ("base_url", "max_cost")


def main() -> None:
    """Load the suite, ask each model, compare, and write results, table, figures and cards."""
    args, rest = parse_arguments()
    if args.compare:
        from zero_shot.comparison import compare_files

        compare_files(args.compare, args.readme, Path(args.output_dir) if args.output_dir else None)
        return
    suite = read_suite(args, rest)
    if args.push_to_hub:
        require_uploadable(args.model[-1])
    benchmarks = [load_benchmark(find_benchmark(name), suite) for name in suite.benchmarks]
    askers = [make_asker(name, suite) for name in args.model]
    if args.dry_run:
        show_plan(askers, benchmarks, suite)
        return
    is_first = int(os.environ.get("RANK", 0)) == 0
    if is_first:
        show_rejects(benchmarks)
    students = [asker.name for asker in askers if asker.model["kind"] == "student"]
    source = args.seen_types or (students[-1] if students else None)
    seen_types = training_types(source) if source else None
    runs: list[dict[str, Any]] = []
    predictions: list[list[dict[str, Any]]] = []
    for asker in askers:
        if not (asker.shared or is_first):
            continue
        folder = Path(suite.output_dir) / folder_name(asker.name) / run_name(suite)
        found = predict(asker, benchmarks, suite, folder, args.overwrite)
        if is_first:
            from zero_shot.results import describe_run
            from zero_shot.scoring import compare

            results = describe_run(asker, benchmarks, suite, found, seen_types)
            if runs:
                results["gains"] = compare(found.lines, predictions[0], seen_types, suite.seed)
            (folder / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False), encoding="utf-8")
            runs.append(results)
            predictions.append(found.lines)
    if is_first:
        report(runs, args.model, Path(suite.output_dir), args)


def parse_arguments() -> tuple[argparse.Namespace, list[str]]:
    """The command line, and what of it may be options of the suite."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"Options of a suite, also given as --benchmarks, --seed, ... (default):\n{describe(SuiteConfig)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", help="suite, e.g. recipes/eval/sample.yaml")
    parser.add_argument("--model", nargs="+", help="folders, Hub ids, baselines' YAMLs; names at --base_url")
    parser.add_argument("--base_url", help="OpenAI-compatible endpoint; the key is read from the environment")
    parser.add_argument("--max_cost", type=float, help="dollars, at endpoint.price_input and .price_output")
    parser.add_argument("--dry_run", action="store_true", help="say how many requests a run sends, and their cost")
    parser.add_argument("--data_dir", help="folder the benchmarks' paths start from")
    parser.add_argument("--limit", type=int, help="passages a benchmark, a seeded sample")
    parser.add_argument("--decoding", choices=["free", "grounded"], help="how answers are decoded")
    parser.add_argument("--output_dir", help="where results go")
    parser.add_argument("--overwrite", action="store_true", help="ask anew what has been asked before")
    parser.add_argument("--seen_types", help="folder or Hub id of the training set or model whose types count as seen")
    parser.add_argument("--push_to_hub", metavar="ORG/NAME", help="upload the last model's folder with its results")
    parser.add_argument(
        "--eval_results", action="store_true", help="write .eval_results/*.yaml beside the model's card"
    )
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
    for name in OF_THE_ENDPOINT:
        if getattr(args, name) is not None:
            overrides[f"endpoint.{name}"] = getattr(args, name)
    suite = read_recipe(SuiteConfig, args.config, overrides)
    if suite.limit is not None and suite.limit < 1:
        raise UserError(f"--limit {suite.limit}: score at least one passage")
    return suite


def require_uploadable(model: str) -> None:
    """Raise UserError for an upload that would fail once all is scored."""
    from hub.publish import require_token

    if not (Path(model) / "training.json").exists():
        raise UserError(f"--push_to_hub uploads the last --model with its results, and {model} is no student's folder")
    require_token()


def make_asker(name: str, suite: SuiteConfig) -> Asker:
    """Who answers under this name; see the module's description for the rule."""
    is_yaml = name.endswith((".yaml", ".yml"))
    if not is_yaml and (not suite.endpoint.base_url or Path(name).is_dir()):
        from zero_shot.student import Student

        return Student(name)
    from zero_shot.baseline import BaselineConfig, LocalBaseline
    from zero_shot.endpoint import EndpointModel

    baseline = read_recipe(BaselineConfig, name) if is_yaml else None
    in_process = baseline is not None and baseline.where != "endpoint"
    asker: Asker = LocalBaseline(baseline) if in_process else EndpointModel(name, suite.endpoint, baseline)
    if suite.decoding == "grounded":
        raise UserError(f"--decoding grounded: {asker.name} cannot be held to a grammar here; use free")
    return asker


def run_name(suite: SuiteConfig) -> str:
    """The folder of a run under the model's."""
    return f"{suite.name}-{suite.protocol}-{suite.decoding}"


def show_plan(askers: list[Asker], benchmarks: list[Benchmark], suite: SuiteConfig) -> None:
    """Print what a run would ask, and what the endpoints' share can cost; nothing is asked."""
    passages = [(benchmark, passage) for benchmark in benchmarks for passage in benchmark.passages]
    for benchmark in benchmarks:
        queries = sum(len(passage.queries) for passage in benchmark.passages)
        print(f"{benchmark.config.name}: {len(benchmark.passages)} passages, {queries} queries")
    for asker in askers:
        if asker.shared:
            print(f"{asker.name}: in process")
        else:
            requests, cost = asker.plan(passages, suite)
            print(f"{asker.name}: {requests} requests are open, ${cost:.4f} at most")


def show_rejects(benchmarks: list[Benchmark]) -> None:
    """Print what of the benchmarks could not be used; the results hold it too."""
    for benchmark in benchmarks:
        if benchmark.rejects:
            print(f"{benchmark.config.name}: " + ", ".join(f"{n} {reason}" for reason, n in benchmark.rejects.items()))


def training_types(source: str) -> set[str] | None:
    """Types of a training set, from the `types.json` that lies with it and with the students tuned on it."""
    from sft.saving import read_types

    return {name.lower() for name in read_types(source)} or None


def report(runs: list[dict[str, Any]], models: list[str], output_dir: Path, args: argparse.Namespace) -> None:
    """Print and write tables and figures, renew the cards of local students, and upload where asked."""
    from hub.model_card import write_eval_results, write_model_card
    from zero_shot.report import write_report

    table = write_report(runs, output_dir)
    print(f"\n{table}\n\nresults: {output_dir}")
    for name, results in zip(models, runs, strict=True):
        if (Path(name) / "training.json").exists():
            write_model_card(Path(name), results, table)
            print(f"model card: {Path(name) / 'README.md'}")
            if args.eval_results:
                print(f"evaluation results: {write_eval_results(Path(name), results) or 'no benchmark is of the Hub'}")
    if args.push_to_hub:
        from hub.publish import publish_folder

        print(publish_folder(models[-1], args.push_to_hub))


if __name__ == "__main__":
    run(main)
