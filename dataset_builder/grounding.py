"""A span's string to its places in the passage, or to the reason why it has none. Pure."""

import re

from open_ner.conversation import Span, find_spans

FOLDED = [("'", "‘’ʼ"), ('"', "“”„"), ("-", "‐‑–—−")]
VARIANTS = {character: f"[{re.escape(base + others)}]" for base, others in FOLDED for character in base + others}


def ground(text: str, string: str) -> list[Span] | str:
    """Every occurrence `(start, end)` of a string: exact, else with case, white space, quotes and dashes folded.

    The passage's own characters stand at the span. The only reason is `not_in_passage`.
    """
    string = string.strip()
    spans = find_spans(text, string)
    if spans or not string:
        return spans or "not_in_passage"
    words = ["".join(VARIANTS.get(c, re.escape(c)) for c in word) for word in string.split()]
    pattern = re.compile(r"(?<!\w)" + r"\s+".join(words) + r"(?!\w)", re.IGNORECASE)
    return [match.span() for match in pattern.finditer(text)] or "not_in_passage"
