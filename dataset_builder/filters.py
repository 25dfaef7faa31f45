"""Which entities stay. Each filter is pure and returns None to keep an entity, or the reason to drop it."""

import re
import unicodedata

# the paper drops these "and their like"; compared after `normalise_type`
ELSE_TYPES = frozenset(
    {"none", "na", "n/a", "null", "nil", "misc", "miscellaneous", "else", "other", "others", "unknown", "undefined"}
    | {"unspecified", "entity", "thing"}
)


def normalise_type(name: str) -> str:
    """Lower case, one space between words, underscores as spaces, no closing punctuation."""
    return re.sub(r"[\s_]+", " ", name).strip().rstrip(".:;, ").lower()


def why_drop(span: str, type_name: str, passage: str, max_words: int) -> str | None:
    """The first reason against an entity whose type is normalised.

    Reasons: `empty`, `else_type`, `non_english`, `too_long` (words), `whole_passage`.
    """
    if not span.strip() or not type_name:
        return "empty"
    if type_name in ELSE_TYPES:
        return "else_type"
    if not is_latin(span) or not is_latin(type_name):
        return "non_english"
    if span.strip() == passage.strip():
        return "whole_passage"
    if len(span.split()) > max_words:
        return "too_long"
    return None


def is_latin(text: str) -> bool:
    """Whether at least half of the letters are Latin or Greek: the test for "non-English" that needs no model."""
    letters = [character for character in text if character.isalpha()]
    latin = sum(unicodedata.name(letter, "").startswith(("LATIN", "GREEK", "MICRO")) for letter in letters)
    return 2 * latin >= len(letters)
