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
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from open_ner.cli import UserError, describe, parse_overrides, read_recipe, run
from zero_shot.benchmarks import Benchmark, SuiteConfig, load_benchmark

SCHEMA = 1
PASSAGES_AT_A_TIME = 64
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


def predict(
    name: str, benchmarks: list[Benchmark], suite: SuiteConfig, folder: Path
) -> tuple[list[dict[str, Any]], float, str]:
    """Predictions of one model, its seconds and its revision; continues a partial predictions file of the same run."""
    folder.mkdir(parents=True, exist_ok=True)
    revision = fingerprint(name)
    identity = json.dumps(
        [SCHEMA, revision, [b.digest for b in benchmarks], suite.limit, suite.seed, suite.max_new_tokens]
    )
    partial = folder / "predictions.partial.jsonl"
    lines, seconds = _resume(partial, identity)
    done = {(line["benchmark"], line["passage_id"]) for line in lines}
    todo = [(b, p) for b in benchmarks for p in b.passages if (b.config.name, p.id) not in done]
    if done:
        print(f"{name}: {len(done)} passages were scored before")
    if todo:
        with partial.open("a" if lines else "w", encoding="utf-8") as file:
            if not lines:
                print(json.dumps({"run": identity}), file=file)
            for line in _answer(name, todo, suite, seconds):
                lines.append(line)
                print(json.dumps(line, ensure_ascii=False), file=file, flush=True)
                seconds = line["seconds"]
    order = {
        (b.config.name, p.id): number for number, (b, p) in enumerate((b, p) for b in benchmarks for p in b.passages)
    }
    lines.sort(key=lambda line: order[line["benchmark"], line["passage_id"]])
    final = folder / "predictions.jsonl"
    with final.open("w", encoding="utf-8") as file:
        for line in lines:
            kept = {key: value for key, value in line.items() if key != "seconds"}
            print(json.dumps(kept, ensure_ascii=False), file=file)
    partial.unlink(missing_ok=True)
    return lines, seconds, revision


def _resume(partial: Path, identity: str) -> tuple[list[dict[str, Any]], float]:
    """Lines of a partial file of the same run, whole passages only."""
    if not partial.exists():
        return [], 0.0
    lines = []
    for number, text in enumerate(partial.read_text(encoding="utf-8").splitlines()):
        try:
            line = json.loads(text)
        except ValueError:
            break  # torn by a kill
        if number == 0:
            if line.get("run") != identity:
                return [], 0.0
        else:
            lines.append(line)
    if lines:  # the last passage may lack some of its queries
        last = lines[-1]["benchmark"], lines[-1]["passage_id"]
        lines = [line for line in lines if (line["benchmark"], line["passage_id"]) != last]
    with partial.open("w", encoding="utf-8") as file:
        for line in [{"run": identity}, *lines]:
            print(json.dumps(line, ensure_ascii=False), file=file)
    return lines, lines[-1]["seconds"] if lines else 0.0


def _answer(name: str, todo: list, suite: SuiteConfig, seconds: float) -> Iterator[dict[str, Any]]:
    """Ask a model every query of the passages that remain; yields a predictions.jsonl line for each."""
    import torch
    from tqdm import tqdm
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from open_ner.conversation import find_spans
    from open_ner.decoding import Decoder, Request
    from train_sft import load_or_explain

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    tokenizer = load_or_explain(AutoTokenizer, name)
    if tokenizer.chat_template is None:
        raise UserError(f"{name} has no chat template: it cannot be asked in the dialogue")
    decoder = Decoder(load_or_explain(AutoModelForCausalLM, name, dtype=dtype).to(device).eval(), tokenizer)
    # alike lengths go through together, and little is padded
    todo = sorted(todo, key=lambda item: len(item[1].text))
    bar = tqdm(total=sum(len(passage.queries) for _, passage in todo), desc=name, unit=" queries")
    for begin in range(0, len(todo), PASSAGES_AT_A_TIME):
        part = todo[begin : begin + PASSAGES_AT_A_TIME]
        requests = [Request(passage.text, [query.type for query in passage.queries]) for _, passage in part]
        started = time.monotonic()
        answers = decoder.answer(
            requests,
            grounded=suite.decoding == "grounded",
            max_new_tokens=suite.max_new_tokens,
            token_budget=suite.token_budget,
        )
        for (benchmark, passage), of_passage in zip(part, _or_explain(answers, name), strict=True):
            seconds += time.monotonic() - started
            started = time.monotonic()
            for query, answer in zip(passage.queries, of_passage, strict=True):
                strings = answer.scored_strings()
                yield {
                    "benchmark": benchmark.config.name,
                    "passage_id": passage.id,
                    "text": passage.text,
                    "type": query.type,
                    "raw": answer.text,
                    "parse_failure": strings is None,
                    "spans": [
                        {"start": start, "end": end, "score": round(value, 4)}
                        for string, value in strings or []
                        for start, end in find_spans(passage.text, string)
                    ],
                    "gold": query.gold,
                    "gold_spans": query.gold_spans,
                    "seconds": round(seconds, 2),
                }
                bar.update()
    bar.close()


def _or_explain(answers: Iterator[list[Any]], name: str) -> Iterator[list[Any]]:
    """The answers; a passage the model cannot read, such as one beyond its window, ends the run in one line."""
    try:
        yield from answers
    except ValueError as error:
        raise UserError(f"{name}: {error}") from None


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
        "benchmarks": results,
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


def fingerprint(name: str) -> str:
    """The commit of a Hub model, or for a folder a hash over the sizes and times of its weights and its config."""
    folder = Path(name)
    if folder.is_dir():
        state = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in sorted(folder.glob("*.safetensors"))]
        config = folder / "config.json"
        return hashlib.sha256(repr(state).encode() + (config.read_bytes() if config.exists() else b"")).hexdigest()[
            :16
        ]
    from transformers import AutoConfig

    from train_sft import load_or_explain

    return getattr(load_or_explain(AutoConfig, name), "_commit_hash", None) or "unknown"


def report(runs: list[dict[str, Any]], models: list[str], output_dir: Path, repo_id: str | None) -> None:
    """Print and write the table and the figure, renew the cards of local students, and upload where asked."""
    from hub.cards import write_model_card
    from zero_shot.report import markdown_table, plot_f1

    table = markdown_table(runs)
    (output_dir / "table.md").write_text(table + "\n", encoding="utf-8")
    plot_f1(runs, output_dir / "figures" / "f1.png")
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
