"""Fuzz the parser, the grounding and the filters of replies. Stops at an exception or a failed assertion.

pip install atheris    # not in requirements-dev.txt: has wheels for Linux and some Python versions only
python bench/fuzz.py -atheris_runs=1000000 -max_len=80
"""

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("atheris") is None:
    print("fuzz.py: nothing to run without atheris: pip install atheris")
    sys.exit()
import atheris  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent.parent))
with atheris.instrument_imports(include=["dataset_builder"]):  # pyright: ignore[reportAttributeAccessIssue] not in its stubs
    from dataset_builder.annotation.grounding import fold, ground
    from dataset_builder.annotation.types import merge_plurals, normalize_type, why_reject
    from dataset_builder.teacher.parse import parse_reply

TEXT = "Ada, O'Brien: e\u0301 in “Straße” İ ﬁ x\u200dy \N{WOMAN}\u200d\N{PERSONAL COMPUTER} soft\u00adware, cities"
# one byte selects one token, so that mutated bytes mutate a reply's grammar and a passage's Unicode
TOKENS = [
    *"[](){},:\"'“”‘’\\ \n\0", "[(", ")]", '", "', "', '", '("', '")', "```json\n", "<think>", "</think>", "null",
    "-1.5e3", '"entity": ', '"type": ', '"entities": ', "Ada", "O'Brien", "ada", "STRASSE", "café", "e\u0301",
    "\u0301", "İ", "i\u0307", "ß", "ﬁ", "fi", "\u200b", "\u200d", "\u00a0", "🇦", "👩", "💻", "\u1100\u1161",
    "city", "cities", "N/A", "\\u00e9", "\\ud83d", "\ud800", "東京", "Москва", "a", "s", ".", "-", "–",
]  # fmt: skip


def check_mentions(text: str, string: str) -> None:
    """Assert that each span equals the string after folding, or that the reason is `not_in_passage`."""
    spans = ground(text, string)
    if isinstance(spans, str):
        assert spans == "not_in_passage"
        return
    for start, end in spans:
        span = text[start:end]
        assert span and (span == string.strip() or fold(span)[0].strip() == fold(string)[0].strip()), (text, string)


def test_one_input(data: bytes) -> None:
    """Run one input; its first byte chooses raw text or tokens, and reply or passage."""
    kind, data = data[:1], data[1:]
    raw = bool(kind) and kind[0] % 4 == 0
    wild = data.decode("utf-8", "surrogateescape") if raw else "".join(TOKENS[byte % len(TOKENS)] for byte in data)
    if kind and kind[0] % 2:
        cut = data[0] % 8 if data else 0
        check_mentions(wild, wild[cut : cut + 1 + kind[0] // 32].swapcase())
        return
    pairs = parse_reply(wild, "stop", TEXT)
    if isinstance(pairs, str):
        assert pairs.isidentifier()
        return
    names = [normalize_type(type_name) for _, type_name, *_ in pairs]
    merged = merge_plurals(names)
    assert not set(merged) & set(merged.values())
    for (span, *_), name in zip(pairs, names, strict=True):
        check_mentions(TEXT, span)
        why_reject(span, merged.get(name, name), TEXT, 10)
        (span + name).encode()  # raises for what no file can hold


if __name__ == "__main__":
    arguments = sys.argv[1:] or ["-atheris_runs=20000", "-max_len=80", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *arguments], test_one_input)
    atheris.Fuzz()
