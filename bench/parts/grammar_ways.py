"""Other libraries' grammars over given passages and answers, in a virtual environment of their own.

    python bench/parts/grammar_ways.py < {"tokenizer": FOLDER, "cases": [{"text": ..., "tokens": [...]}, ...]}

Prints, for each library, the microseconds to build the grammar of a passage, and to make the mask over the vocabulary
and take one token of an answer; and how many answers it rejected. Neither can require that strings are distinct or in
the passage's order; xgrammar has no substrings: its grammar is a JSON list of strings, built once.
"""

import json
import sys
import time
from typing import TypedDict

from transformers import AutoTokenizer, PreTrainedTokenizerBase


class GrammarCase(TypedDict):
    """A passage and the tokens of an answer."""

    text: str
    tokens: list[int]


def llguidance_way(tokenizer: PreTrainedTokenizerBase, cases: list[GrammarCase]) -> dict[str, float]:
    import llguidance.hf  # pyright: ignore[reportMissingImports]  # only in the environment of this script
    import llguidance.numpy  # pyright: ignore[reportMissingImports]
    from llguidance import LLMatcher  # pyright: ignore[reportMissingImports]

    vocabulary = llguidance.hf.from_tokenizer(tokenizer)
    mask = llguidance.numpy.allocate_token_bitmask(1, vocabulary.vocab_size)
    built, spent, tokens, rejected = {}, 0.0, 0, 0
    for case in cases:
        source = "".join(json.dumps(character, ensure_ascii=False)[1:-1] for character in case["text"])
        started = time.perf_counter()
        matcher = LLMatcher(
            vocabulary,
            'start: "[" (item (", " item)*)? "]"\n'
            'item: "\\"" SPAN "\\""\n'
            f"SPAN: %regex {json.dumps({'substring_chars': source})}",
        )
        built[case["text"]] = time.perf_counter() - started
        started = time.perf_counter()
        for token in case["tokens"]:
            llguidance.numpy.fill_next_token_bitmask(matcher, mask)
            tokens += 1
            if not mask[0, token // 32] >> (token % 32) & 1 or not matcher.consume_token(token):
                rejected += 1
                break
        spent += time.perf_counter() - started
    return report(list(built.values()), spent, tokens, rejected)


def xgrammar_way(tokenizer: PreTrainedTokenizerBase, cases: list[GrammarCase]) -> dict[str, float]:
    import xgrammar  # pyright: ignore[reportMissingImports]  # as above

    info = xgrammar.TokenizerInfo.from_huggingface(tokenizer)
    started = time.perf_counter()
    schema = json.dumps({"type": "array", "items": {"type": "string"}})
    compiled = xgrammar.GrammarCompiler(info).compile_json_schema(schema, any_whitespace=False)
    built, spent, tokens, rejected = time.perf_counter() - started, 0.0, 0, 0
    mask = xgrammar.allocate_token_bitmask(1, info.vocab_size)
    for case in cases:
        matcher = xgrammar.GrammarMatcher(compiled)
        started = time.perf_counter()
        for token in case["tokens"]:
            matcher.fill_next_token_bitmask(mask)
            tokens += 1
            if not matcher.accept_token(token):
                rejected += 1
                break
        spent += time.perf_counter() - started
    return report([built], spent, tokens, rejected)


def report(built: list[float], spent: float, tokens: int, rejected: int) -> dict[str, float]:
    return {"build_us": 1e6 * sum(built) / len(built), "token_us": 1e6 * spent / tokens, "answers_refused": rejected}


if __name__ == "__main__":
    task = json.load(sys.stdin)
    tokenizer = AutoTokenizer.from_pretrained(task["tokenizer"])
    ways = {"llguidance": llguidance_way, "xgrammar": xgrammar_way}
    print(json.dumps({name: way(tokenizer, task["cases"]) for name, way in ways.items()}))
