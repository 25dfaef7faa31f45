"""What grounding an answer in its passage costs and gains: free and grounded decoding of one student, side by side.

    python bench/grounded.py --model runs/quickstart/model [--config recipes/eval/sample.yaml] [--data_dir DIR]
        [--limit 48] [--libraries] [--environments runs/bench/environments] [--output results/bench/grounded.json]

For each way: answers that are no list, answered strings that do not stand in the passage, answers cut at the longest
length, F1, and seconds. Then what the grammar itself takes: to build for a passage, and to advance by a token.
`--libraries` measures llguidance (whose `substring_chars` can say that a string is one of a passage) and xgrammar
(which can only say that it is a list of strings) on the same passages and answers, in an environment of their own.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from command_line.recipes import read_recipe  # noqa: E402
from ner_sets.benchmarks import BenchmarkPassage  # noqa: E402
from open_ner.conversation import read_answer  # noqa: E402
from open_ner.decoding import Answer, Decoder, Request  # noqa: E402
from open_ner.grammar import AnswerGrammar, State  # noqa: E402
from zero_shot.scoring import bootstrap, score  # noqa: E402
from zero_shot.student import to_line  # noqa: E402
from zero_shot.suite import SuiteConfig, load_benchmark  # noqa: E402

LIBRARIES = ("llguidance", "xgrammar")


def main() -> None:
    args = parse_arguments()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    given = {"data_dir": args.data_dir, "limit": args.limit}
    suite = read_recipe(SuiteConfig, args.config, {name: value for name, value in given.items() if value})
    passages = [
        passage
        for name in suite.benchmarks
        for passage in load_benchmark(ROOT / "recipes" / "eval" / "benchmarks" / f"{name}.yaml", suite).passages
    ]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).to(device).eval()
    decoder = Decoder(model, tokenizer)
    list(decoder.answer([Request("Rome", ["city"])], max_new_tokens=2))  # tables made once

    results: dict[str, Any] = {"model": Path(args.model).name, "suite": suite.name, "passages": len(passages)}
    answers = {}
    for way in ("free", "grounded"):
        started = time.perf_counter()
        answers[way] = ask(decoder, passages, way == "grounded", suite)
        results[way] = {"seconds": time.perf_counter() - started, **describe(passages, answers[way], suite)}
        print(f"{way:<9} " + ", ".join(f"{name} {show(value)}" for name, value in results[way].items()), flush=True)
    cases = [
        {"text": passage.text, "tokens": answer.tokens}
        for passage, row in zip(passages, answers["grounded"], strict=True)
        for answer in row
        if len(answer.tokens) > 1
    ]
    results["grammar"] = {"open_ner": time_grammar(cases, decoder.token_bytes)}
    if args.libraries:
        results["grammar"] |= time_libraries(cases, args)
    for name, numbers in results["grammar"].items():
        print(f"{name:<11} " + ", ".join(f"{key} {show(value)}" for key, value in numbers.items()))
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(results, indent=1) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "models" / "smollm2-135m-instruct"))
    parser.add_argument("--config", default=str(ROOT / "recipes" / "eval" / "sample.yaml"))
    parser.add_argument("--data_dir", help="folder the benchmarks' paths start from")
    parser.add_argument("--limit", type=int, default=8, help="passages of each benchmark")
    parser.add_argument("--libraries", action="store_true", help="measure llguidance and xgrammar beside it")
    parser.add_argument("--environments", type=Path, default=Path("runs/bench/environments"))
    parser.add_argument("--output", type=Path, help="JSON file of all numbers")
    return parser.parse_args()


def ask(decoder: Decoder, passages: list[BenchmarkPassage], grounded: bool, suite: SuiteConfig) -> list[list[Answer]]:
    requests = [Request(passage.text, [query.type for query in passage.queries]) for passage in passages]
    return list(decoder.answer(requests, grounded=grounded, max_new_tokens=suite.max_new_tokens))


def describe(passages: list[BenchmarkPassage], answers: list[list[Answer]], suite: SuiteConfig) -> dict[str, Any]:
    """Counts over the answers, and their F1."""
    asked = [
        (passage, query, answer)
        for passage, row in zip(passages, answers, strict=True)
        for query, answer in zip(passage.queries, row, strict=True)
    ]
    strings = [(passage.text, read_answer(answer.text)) for passage, _, answer in asked]
    lines = [to_line(suite.name, *item, suite.occurrences) for item in asked]
    return {
        "queries": len(asked),
        "parse_failures": sum(found is None for _, found in strings),
        "strings": sum(len(found or []) for _, found in strings),
        "strings_not_in_passage": sum(string not in text for text, found in strings for string in found or []),
        "cut": sum(not answer.complete for _, _, answer in asked),
        **{
            f"{scorer}_f1": {"f1": scores["f1"], "interval": bootstrap(lines, scorer, suite.seed)}
            for scorer in ("official", "strict")
            if (scores := score(lines, scorer))
        },
    }


def show(value: Any) -> str:
    if isinstance(value, dict):
        return f"{100 * value['f1']:.2f} [{100 * value['interval'][0]:.2f}, {100 * value['interval'][1]:.2f}]"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def time_grammar(cases: list[dict[str, Any]], token_bytes: list[bytes]) -> dict[str, float]:
    """Microseconds to build the grammar of a passage, and to advance it by one token of an answer."""
    texts = sorted({case["text"] for case in cases})
    started = time.perf_counter()
    grammars = {text: AnswerGrammar(text) for text in texts}
    built, tokens = time.perf_counter() - started, sum(len(case["tokens"]) for case in cases)
    started = time.perf_counter()
    for case in cases:
        state = State()
        for token in case["tokens"]:
            state = grammars[case["text"]].advance(state, token_bytes[token])
    advanced = time.perf_counter() - started
    return {"build_us": 1e6 * built / len(texts), "token_us": 1e6 * advanced / tokens}


def time_libraries(cases: list[dict[str, Any]], args: argparse.Namespace) -> dict[str, Any]:
    """The same of other libraries, where a token's time includes the mask over the vocabulary that they make."""
    python = args.environments / "grammars" / "bin" / "python"
    if not python.exists():
        print(f"installing {', '.join(LIBRARIES)} into {python.parent.parent}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", python.parent.parent], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "transformers", *LIBRARIES], check=True)
    script = str(ROOT / "bench" / "parts" / "grammar_ways.py")
    task = json.dumps({"tokenizer": str(Path(args.model).absolute()), "cases": cases})
    done = subprocess.run([python.absolute(), script], input=task, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"libraries: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
