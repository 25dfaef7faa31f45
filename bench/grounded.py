"""Compare free and grounded decoding of one student: quality and time.

    python bench/grounded.py --model runs/quickstart/model [--config recipes/eval/sample.yaml] [--data_dir DIR]
        [--limit 48] [--output results/bench/grounded.json]

For each way: answers that are not lists, answered strings that are not in the passage, answers cut at the maximum
length, F1, and seconds. Then the time of the grammar itself: to build it for a passage, and to advance it by a token.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from command_line.recipes import read_recipe  # noqa: E402
from ner_sets.benchmarks import BenchmarkPassage, find_benchmark  # noqa: E402
from open_ner.answers import Answer  # noqa: E402
from open_ner.conversation import read_answer  # noqa: E402
from open_ner.decoding import Decoder, Request  # noqa: E402
from open_ner.grammar import AnswerGrammar, State  # noqa: E402
from open_ner.tools.files import write_json  # noqa: E402
from zero_shot.scoring import MAIN, bootstrap, score  # noqa: E402
from zero_shot.student import to_line  # noqa: E402
from zero_shot.suite import SuiteConfig, load_benchmark  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "models" / "smollm2-135m-instruct"))
    parser.add_argument("--config", default=str(ROOT / "recipes" / "eval" / "sample.yaml"))
    parser.add_argument("--data_dir", help="folder that the benchmarks' paths start from")
    parser.add_argument("--limit", type=int, default=8, help="passages of each benchmark")
    parser.add_argument("--output", type=Path, help="JSON file for all numbers")
    args = parser.parse_args()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    given = {"data_dir": args.data_dir, "limit": args.limit}
    suite = read_recipe(SuiteConfig, args.config, {name: value for name, value in given.items() if value})
    passages = [
        passage for name in suite.benchmarks for passage in load_benchmark(find_benchmark(name), suite).passages
    ]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32, device_map=device)
    decoder = Decoder(model, AutoTokenizer.from_pretrained(args.model))
    list(decoder.answer([Request("Rome", ["city"])], max_new_tokens=2))  # build cached tables

    requests = [Request(passage.text, [query.type for query in passage.queries]) for passage in passages]
    ways: dict[str, dict[str, Any]] = {}
    answers: list[list[Answer]] = []
    for way in ("free", "grounded"):
        started = time.perf_counter()
        answers = list(decoder.answer(requests, grounded=way == "grounded", max_new_tokens=suite.max_new_tokens))
        ways[way] = {"seconds": time.perf_counter() - started, **describe(passages, answers, suite)}
        print(f"{way:<9} " + ", ".join(f"{name} {show(value)}" for name, value in ways[way].items()), flush=True)
    cases = [
        (passage.text, answer.tokens)
        for passage, row in zip(passages, answers, strict=True)  # the grounded ones
        for answer in row
        if len(answer.tokens) > 1
    ]
    grammar = time_grammar(cases, decoder.token_bytes)
    print("grammar   " + ", ".join(f"{key} {show(value)}" for key, value in grammar.items()))
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        about = {"model": Path(args.model).name, "suite": suite.name, "passages": len(passages)}
        write_json(args.output, {**about, **ways, "grammar": grammar})


def describe(passages: list[BenchmarkPassage], answers: list[list[Answer]], suite: SuiteConfig) -> dict[str, Any]:
    """Counts over the answers, and their F1."""
    asked = [
        (passage, query, answer)
        for passage, row in zip(passages, answers, strict=True)
        for query, answer in zip(passage.queries, row, strict=True)
    ]
    strings = [(passage.text, read_answer(answer.text)) for passage, _, answer in asked]
    lines = [to_line(suite.name, passage, query, [answer], suite.occurrences) for passage, query, answer in asked]
    numbers: dict[str, Any] = {
        "queries": len(asked),
        "parse_failures": sum(found is None for _, found in strings),
        "strings": sum(len(found or []) for _, found in strings),
        "strings_not_in_passage": sum(string not in text for text, found in strings for string in found or []),
        "cut": sum(not answer.complete for _, _, answer in asked),
    }
    for scorer in MAIN:
        if scores := score(lines, scorer):
            numbers[f"{scorer}_f1"] = {"f1": scores["f1"], "interval": bootstrap(lines, scorer, suite.seed)}
    return numbers


def show(value: object) -> str:
    if isinstance(value, dict):
        return f"{100 * value['f1']:.2f} [{100 * value['interval'][0]:.2f}, {100 * value['interval'][1]:.2f}]"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def time_grammar(cases: list[tuple[str, list[int]]], token_bytes: list[bytes]) -> dict[str, float]:
    """Microseconds to build the grammar of a passage, and to advance it by one token of an answer."""
    texts = sorted({text for text, _ in cases})
    started = time.perf_counter()
    grammars = {text: AnswerGrammar(text) for text in texts}
    built, tokens = time.perf_counter() - started, sum(len(tokens) for _, tokens in cases)
    started = time.perf_counter()
    for text, answer in cases:
        state = State()
        for token in answer:
            state = grammars[text].advance(state, token_bytes[token]) or state
    advanced = time.perf_counter() - started
    return {"build_us": 1e6 * built / len(texts), "token_us": 1e6 * advanced / tokens}


if __name__ == "__main__":
    main()
