"""Score students, chat models and endpoints on open-NER benchmarks they were not trained on.

    python eval_zero_shot.py --config recipes/eval/sample.yaml --model REFERENCE runs/quickstart/model
    accelerate launch eval_zero_shot.py --config recipes/eval/uniner.yaml --data_dir DATA --model org/model
    python eval_zero_shot.py --config recipes/eval/sample.yaml --base_url URL --model gpt-4o-mini runs/my-model
    python eval_zero_shot.py --config recipes/eval/sample.yaml --model recipes/eval/baselines/chatgpt.yaml --dry_run
    python eval_zero_shot.py --compare untrained/results.json tuned/results.json [--readme README.md]

A model is a folder, a Hub id or a baseline's YAML. With --base_url, every name that is neither a folder nor a YAML is
asked at that address. If several models are given, the first is the reference of the others. A killed run resumes with
the next passage.
"""

import argparse
import os
from pathlib import Path

from command_line.recipes import describe, parse_overrides, read_recipe
from hub.records import RunResults, run_name
from open_ner.tools.errors import UserError, run
from zero_shot.predict import EvaluatedModel, finish, folder_name, predict, public_ids
from zero_shot.records import PredictionLine, is_sampled, read_results
from zero_shot.suite import Benchmark, SuiteConfig, load_benchmarks


def main() -> None:
    """Load the suite, ask each model, compare, and write results, tables, figures and cards."""
    args, rest = parse_arguments()
    if args.compare:
        compare_saved(args, rest)
        return
    if args.readme:
        raise UserError("--readme has no effect without --compare: see --help")
    suite = read_suite(args, rest)
    if args.push_to_hub:  # fail before anything is scored
        from hub.publish import require_upload

        if not (Path(args.model[-1]) / "training.json").exists():
            what = f"the last --model with its results, but {args.model[-1]} is not a student's folder"
            raise UserError(f"--push_to_hub uploads {what}")
        require_upload(args.push_to_hub)
    benchmarks = load_benchmarks(suite)
    models = [make_model(name, suite, args.overwrite) for name in args.model]
    if args.dry_run:
        show_plan(models, benchmarks, suite)
        return
    is_first = int(os.environ.get("RANK", 0)) == 0
    require_unseen(models, benchmarks, is_first)
    for benchmark in benchmarks:
        if is_first and benchmark.rejects:
            print(f"{benchmark.config.name}: " + ", ".join(f"{n} {reason}" for reason, n in benchmark.rejects.items()))
    seen_types = read_seen_types(args.seen_types, models)
    runs: list[RunResults] = []
    reference: list[PredictionLine] = []
    ids = public_ids([model.record["id"] for model in models])
    for model, public_id in zip(models, ids, strict=True):
        if not (model.in_process or is_first):
            continue
        folder = Path(suite.output_dir, folder_name(model.name), run_name(suite.name, suite.protocol, suite.decoding))
        predicted = predict(model, benchmarks, suite, folder, args.overwrite)
        if is_first:
            from zero_shot.results import describe_run
            from zero_shot.scoring import compare

            results = describe_run(model, benchmarks, suite, predicted, seen_types)
            results["model"]["id"] = public_id
            if runs:
                results["gains"] = compare(predicted.lines, reference, seen_types, suite.seed)
            reference = reference or predicted.lines
            finish(predicted.folder, results)
            runs.append(results)
            warn_of_silence(model.name, predicted.lines)
    if is_first:
        report(runs, args, Path(suite.output_dir))


def parse_arguments() -> tuple[argparse.Namespace, list[str]]:
    """Parse the command line; also return unknown arguments, which may be options of the suite."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"Options of a suite, also given as --benchmarks, --seed, ... (default):\n{describe(SuiteConfig)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", help="suite, e.g. recipes/eval/sample.yaml")
    parser.add_argument("--model", nargs="+", help="folders, Hub ids, baselines' YAMLs, or names at --base_url")
    parser.add_argument("--base_url", help="OpenAI-compatible endpoint; the key is read from the environment")
    parser.add_argument("--max_cost", type=float, help="dollars, for all endpoint models together; needs prices")
    parser.add_argument("--dry_run", action="store_true", help="print the number of requests and their maximum cost")
    parser.add_argument("--data_dir", help="folder that the benchmarks' paths are relative to")
    parser.add_argument("--limit", type=int, help="seeded sample of this many passages per benchmark")
    parser.add_argument("--decoding", choices=["free", "flat"], help="how answers are read (default: the suite's)")
    parser.add_argument("--output_dir", help="folder of the results")
    parser.add_argument("--overwrite", action="store_true", help="ask again what has been asked before")
    parser.add_argument("--seen_types", help="training set or model (folder or Hub id) whose types count as seen")
    parser.add_argument("--push_to_hub", metavar="ORG/NAME", help="upload the last model's folder with its results")
    parser.add_argument("--eval_results", action="store_true", help="write .eval_results/*.yaml beside the model card")
    parser.add_argument("--compare", nargs="+", type=Path, metavar="RESULTS", help="show results.json files together")
    parser.add_argument("--readme", type=Path, help="with --compare: replace the table between the marks of this file")
    return parser.parse_known_args()


def compare_saved(args: argparse.Namespace, rest: list[str]) -> None:
    """Show saved results together; raise UserError for an option that has no effect on them."""
    from zero_shot.report import compare_files

    if rest:
        raise UserError(f"unknown argument {rest[0]!r} with --compare: see --help")
    for name, value in vars(args).items():
        if name not in ("compare", "readme", "output_dir") and value is not None and value is not False:
            raise UserError(f"--{name} has no effect with --compare: see --help")
    compare_files(args.compare, args.readme, Path(args.output_dir) if args.output_dir else None)


def read_suite(args: argparse.Namespace, rest: list[str]) -> SuiteConfig:
    """Read the suite, with the options of the command line in place of its own."""
    if not args.config or not args.model:
        raise UserError("give --config SUITE and --model MODEL [MODEL ...], or --compare RESULTS; see --help")
    given = {name: getattr(args, name) for name in ("data_dir", "limit", "decoding", "output_dir")}
    given |= {f"endpoint.{name}": getattr(args, name) for name in ("base_url", "max_cost")}
    overrides = parse_overrides(rest) | {name: value for name, value in given.items() if value is not None}
    return read_recipe(SuiteConfig, args.config, overrides)


def make_model(name: str, suite: SuiteConfig, overwrite: bool) -> EvaluatedModel:
    """Return the model that a name on the command line stands for; the docstring of this module lists the cases."""
    is_yaml = name.endswith((".yaml", ".yml"))
    if not is_yaml and (not suite.endpoint.base_url or Path(name).is_dir()):
        from zero_shot.student import Student

        return Student(name, suite.decoding)
    from zero_shot.baseline import BaselineConfig, LocalBaseline
    from zero_shot.endpoint import EndpointModel

    baseline = read_recipe(BaselineConfig, name) if is_yaml else None
    if baseline and baseline.where != "endpoint":
        model = LocalBaseline(baseline, suite.dtype)
    else:
        model = EndpointModel(name, suite.endpoint, baseline, overwrite)
    if suite.decoding == "flat":
        raise UserError(f"--decoding flat: the types of {model.name} have no comparable scores; use free")
    return model


def require_unseen(models: list[EvaluatedModel], benchmarks: list[Benchmark], is_first: bool) -> None:
    """Raise UserError if a student was trained on passages of a benchmark that a review made."""
    from zero_shot.trained_on import refuse_trained

    for benchmark in benchmarks:
        for model in models:
            if benchmark.config.made_by and model.record["kind"] == "student":
                unknown = refuse_trained(model.name, benchmark)
                if unknown and is_first:
                    print(f"{benchmark.config.name}: {unknown}")


def read_seen_types(given: str | None, models: list[EvaluatedModel]) -> set[str] | None:
    """Return the types that count as seen in training, in lower case; None if they are not known.

    They are those of `given`, a training set or a student, or else of the last student that is scored.
    """
    from sft.origin import read_type_counts  # a training set has `types.json`, and so have students trained on it

    students = [model.name for model in models if model.record["kind"] == "student"]
    source = given or (students[-1] if students else None)
    seen = {name.lower() for name in read_type_counts(source)} if source else set()
    if given and not seen:
        why = "no types.json there, or the Hub cannot be reached"
        raise UserError(f"--seen_types {given}: {why}; give a training set or a student")
    return seen or None


def show_plan(models: list[EvaluatedModel], benchmarks: list[Benchmark], suite: SuiteConfig) -> None:
    """Print how many queries and requests a run would make, and the most that the requests can cost."""
    from zero_shot.endpoint import EndpointModel

    passages = [(benchmark, passage) for benchmark in benchmarks for passage in benchmark.passages]
    for benchmark in benchmarks:
        queries = sum(len(passage.queries) for passage in benchmark.passages)
        print(f"{benchmark.config.name}: {len(benchmark.passages)} passages, {queries} queries")
    for model in models:
        if isinstance(model, EndpointModel):
            requests, cost = model.plan(passages, suite)
            print(f"{model.name}: {requests} requests to send, ${cost:.4f} at most")
        else:
            print(f"{model.name}: in process")


def warn_of_silence(name: str, lines: list[PredictionLine]) -> None:
    """Print a warning if a model answers `[]` to every query, because the table shows only an F1 of 0."""
    if lines and all(line["raw"] == "[]" for line in lines):
        print(f"{name} answers [] to each of {len(lines)} queries: docs/troubleshooting.md says what to change")


def report(runs: list[RunResults], args: argparse.Namespace, folder: Path) -> None:
    """Write tables and figures of all models, and the cards of those that are students' folders; publish the last."""
    from zero_shot.report import write_report

    table = write_report(runs, folder)
    print(f"\n{table}\n\nresults: {folder}")
    for name, results in zip(args.model, runs, strict=True):
        if (Path(name) / "training.json").exists():
            update_card(Path(name), results, runs[0] if results is not runs[0] else None, args.eval_results)
    if args.push_to_hub:
        from hub.publish import publish_folder

        print(publish_folder(args.model[-1], args.push_to_hub))


def update_card(folder: Path, results: RunResults, reference: RunResults | None, eval_results: bool) -> None:
    """Add results to a student's card, unless samples (`--limit`) would replace results on whole benchmarks."""
    from hub.model_card import write_eval_results, write_model_card

    kept = folder / "results" / f"{run_name(results['suite'], results['protocol'], results['decoding'])}.json"
    if is_sampled(results) and kept.exists() and not is_sampled(read_results(kept)):
        print(f"model card: not changed, because {kept} has the results on whole benchmarks")
        return
    write_model_card(folder, results, reference)
    print(f"model card: {folder / 'README.md'}")
    if eval_results:
        written = write_eval_results(folder, results)
        print(f"evaluation results: {written or 'no benchmark is a whole dataset of the Hub'}")


if __name__ == "__main__":
    run(main, resumes=True)
