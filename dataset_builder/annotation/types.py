"""Filters of mentions, and the normalization of their types."""

import re
import string
import unicodedata
from collections.abc import Collection

import regex

from ..config import ENGLISH
from ..languages import count_words, is_written_in

# types without a meaning of their own, which the paper removes too; in lower case and without punctuation
ELSE_TYPES = frozenset(
    {"none", "na", "notapplicable", "null", "nil", "no", "misc", "miscellaneous", "else", "other", "others", "generic"}
    | {"unknown", "undefined", "unspecified", "entity", "entities", "thing", "things"}
    | {"sonstiges", "autre", "otro", "outro", "altro", "khác", "другое", "прочее", "أخرى", "غيرذلك", "अन्य", "อื่นๆ"}
    | {"기타", "없음", "その他", "其他", "其它"}
)
NO_LETTERS = regex.compile(r"[^\p{L}\p{N}\p{M}]+")
MAX_TYPE_CHARACTERS = 500  # more than any name or one-sentence definition has
EDGES = string.punctuation + string.whitespace + "。、！？；：，「」『』（）"
QUOTES = "\"'“”„‘’「」『』` "

# plurals that the suffixes below do not cover; "people" is missing because teachers use it for ethnic groups
IRREGULAR = {
    "children": "child", "mice": "mouse", "feet": "foot", "teeth": "tooth", "criteria": "criterion", "taxa": "taxon",
    "phenomena": "phenomenon", "bacteria": "bacterium", "indices": "index", "matrices": "matrix", "vertices": "vertex",
    "genera": "genus", "characteristics": "characteristic", "antibiotics": "antibiotic", "metrics": "metric",
}  # fmt: skip
# plural suffixes and their singulars: the first that matches is used, and the vocabulary decides between singulars
SUFFIXES = [
    ("men", ["man"]), ("ies", ["y", "ie"]), ("ves", ["f", "fe", "ve"]), ("ses", ["s", "se", "sis"]),
    ("xes", ["x", "xe"]), ("zes", ["z", "ze"]), ("ches", ["ch", "che"]), ("shes", ["sh", "she"]),
    ("oes", ["o", "oe"]), ("s", [""]), ("i", ["us"]),
]  # fmt: skip
# words that become another word without the s; _singulars also excludes -ss and -ics, as in physics
NO_PLURALS = frozenset({"news", "goods", "customs", "arms", "glasses", "means"})
HEAD = re.compile(r"\s(?:of|in|for|with|from|to|on|by|at)\s")


def normalize_type(name: str) -> str:
    """Normalize a type: lower case, single spaces instead of underscores, without quotes and final punctuation."""
    name = unicodedata.normalize("NFKC", name)
    return " ".join(name.replace("_", " ").split()).lstrip(QUOTES).rstrip(QUOTES + ".:;,。、").lower()


def merge_plurals(types: Collection[str]) -> dict[str, str]:
    """Map each plural to its singular if the singular is one of `types` too: "points of X" -> "point of X".

    No singular of the result is also one of its plurals.
    """
    vocabulary = frozenset(types)
    merged: dict[str, str] = {}
    for name in sorted(vocabulary, key=lambda name: (len(name), name)):  # shorter first: singulars before plurals
        singular = next((form for form in _singulars(name) if form in vocabulary), name)
        if merged.get(singular, singular) != name:
            merged[name] = merged.get(singular, singular)
    return merged


def _singulars(name: str) -> list[str]:
    """Return possible singulars of a type; they change the word before the first preposition, or the last word."""
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


def why_reject(
    span: str, type_name: str | None, passage: str, max_words: int, language: str | None = "en",
    type_language: str = ENGLISH,
) -> str | None:  # fmt: skip
    """Return the first reason to reject a mention, or None to keep it.

    Args:
        span: the string of the mention.
        type_name: its normalized type; None for a type that the recipe names, which is not filtered.
        passage: the text of the passage.
        max_words: maximum length of the mention.
        language: code of the passages' language: mentions must be in its script or in Latin; None allows every script.
        type_language: language of the types; in English they must be in Latin script.

    Returns:
        None, or `empty`, `type_too_long`, `else_type`, `non_english` (`other_script` in other languages),
        `whole_passage` or `too_long`.
    """
    if not span.strip() or type_name == "":
        return "empty"
    type_name = type_name or ""
    if len(type_name) > MAX_TYPE_CHARACTERS:
        return "type_too_long"
    if NO_LETTERS.sub("", type_name).lower() in ELSE_TYPES:
        return "else_type"
    written = language is None or is_written_in(span, language)
    if not written or (type_language == ENGLISH and not is_written_in(type_name, "en")):
        return "non_english" if language == "en" else "other_script"
    if span.strip(EDGES).lower() == passage.strip(EDGES).lower():
        return "whole_passage"
    return "too_long" if count_words(span) > max_words else None
