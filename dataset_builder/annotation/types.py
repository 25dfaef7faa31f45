"""Filters of mentions, and the names of their types. A filter returns the reason to reject, or None to keep."""

import re
import string
import unicodedata
from collections.abc import Collection
from functools import lru_cache

# the paper removes types such as "ELSE"; compared without case and punctuation, so that "N/A." matches too
ELSE_TYPES = frozenset(
    {"none", "na", "notapplicable", "null", "nil", "no", "misc", "miscellaneous", "else", "other", "others", "generic"}
    | {"unknown", "undefined", "unspecified", "entity", "entities", "thing", "things"}
)
MAX_TYPE_CHARACTERS = 500  # longer than any name or one-sentence definition
EDGES = string.punctuation + string.whitespace
GREEK_WORD = re.compile("[\u0370-\u03ff\u1f00-\u1fff]{3,}")
QUOTES = "\"'“”„‘’` "

# plurals that the suffixes below do not cover; without "people", which teachers use for ethnic groups
IRREGULAR = {
    "children": "child", "mice": "mouse", "feet": "foot", "teeth": "tooth", "criteria": "criterion", "taxa": "taxon",
    "phenomena": "phenomenon", "bacteria": "bacterium", "indices": "index", "matrices": "matrix", "vertices": "vertex",
    "genera": "genus", "characteristics": "characteristic", "antibiotics": "antibiotic", "metrics": "metric",
}  # fmt: skip
# the first match is used; where it gives several singulars, the vocabulary decides
SUFFIXES = [
    ("men", ["man"]), ("ies", ["y", "ie"]), ("ves", ["f", "fe", "ve"]), ("ses", ["s", "se", "sis"]),
    ("xes", ["x", "xe"]), ("zes", ["z", "ze"]), ("ches", ["ch", "che"]), ("shes", ["sh", "she"]),
    ("oes", ["o", "oe"]), ("s", [""]), ("i", ["us"]),
]  # fmt: skip
# look like plurals, but are another word without the s; so do fields of study such as physics, in _singulars
NO_PLURALS = frozenset({"news", "goods", "customs", "arms", "glasses", "means"})
HEAD = re.compile(r"\s(?:of|in|for|with|from|to|on|by|at)\s")


def normalize_type(name: str) -> str:
    """Lower-case a type; underscores become spaces, runs of spaces one; strip quotes and final punctuation."""
    name = unicodedata.normalize("NFKC", name)
    return " ".join(name.replace("_", " ").split()).lstrip(QUOTES).rstrip(QUOTES + ".:;,").lower()


def merge_plurals(types: Collection[str]) -> dict[str, str]:
    """Map each plural to its singular: "cities" -> "city", "points of X" -> "point of X".

    A plural is only merged into a singular that is itself one of `types`, so "series" stays unless there is a type
    "sery". No singular of the result is one of its plurals.
    """
    vocabulary = frozenset(types)
    merged: dict[str, str] = {}
    for name in sorted(vocabulary, key=lambda name: (len(name), name)):  # shorter first: singulars before plurals
        singular = next((form for form in _singulars(name) if form in vocabulary), name)
        if merged.get(singular, singular) != name:
            merged[name] = merged.get(singular, singular)
    return merged


def _singulars(name: str) -> list[str]:
    """Candidate singulars of a type; its head is the word before a preposition, or else the last word."""
    match = HEAD.search(name)
    head, rest = (name[: match.start()], name[match.start() :]) if match else (name, "")
    before, space, word = head.rpartition(" ")
    if word in IRREGULAR:
        return [before + space + IRREGULAR[word] + rest]
    if word in NO_PLURALS or word.endswith(("ss", "ics")):
        return []
    suffix, endings = next(((suffix, endings) for suffix, endings in SUFFIXES if word.endswith(suffix)), ("", []))
    forms = [word.removesuffix(suffix) + ending for ending in endings]
    return [before + space + form + rest for form in forms if len(form) > 2]


def why_reject(span: str, type_name: str, passage: str, max_words: int) -> str | None:
    """The first reason to reject a mention, given its normalized type; None to keep it.

    Reasons: `empty`, `else_type`, `type_too_long` (characters), `non_english`, `whole_passage`, `too_long` (words).
    """
    if not span.strip() or not type_name:
        return "empty"
    if len(type_name) > MAX_TYPE_CHARACTERS:
        return "type_too_long"
    if is_else_type(type_name):
        return "else_type"
    if not is_latin(span) or not is_latin(type_name):
        return "non_english"
    # with or without a final full stop
    if 2 * len(span) > len(passage) and span.strip(EDGES).lower() == passage.strip(EDGES).lower():
        return "whole_passage"
    return "too_long" if len(span.split()) > max_words else None


@lru_cache(maxsize=100_000)
def is_else_type(name: str) -> bool:
    """Whether the type has no meaning of its own, such as None, NA, MISC or ELSE."""
    return re.sub(r"[\W_]+", "", name).lower() in ELSE_TYPES


def is_latin(text: str) -> bool:
    """Whether at least half of the letters are Latin, or single Greek ones as in β-carotene; needs no model."""
    if text.isascii():
        return True
    return 2 * sum(map(_is_latin_letter, GREEK_WORD.sub("", text))) >= sum(map(str.isalpha, text))


@lru_cache(maxsize=10_000)
def _is_latin_letter(letter: str) -> bool:
    if not letter.isalpha():
        return False
    plain = unicodedata.normalize("NFKC", letter)[0]  # º is an o, ℓ an l, Ｗ a W
    return unicodedata.name(plain, "").startswith(("LATIN", "GREEK", "MODIFIER LETTER"))
