"""Entities are grounded to spans, and filtered."""

import re
import unicodedata

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from dataset_builder.annotation.grounding import fold, ground
from dataset_builder.annotation.types import merge_plurals, normalize_type, why_reject
from dataset_builder.languages import is_written_in
from open_ner.borders import is_word
from open_ner.conversation import find_occurrences, find_spans


@pytest.mark.parametrize(
    ("text", "string", "found"),
    [
        ("Paris, Paris and Parisians", "Paris", ["Paris", "Paris"]),
        ("the ACME  corp", "Acme corp", ["ACME  corp"]),
        ("a “quoted” name’s end", '"quoted" name\'s', ["“quoted” name’s"]),
        ("1939–1945", "1939-1945", ["1939–1945"]),
        ("line\nbreak here", "line break", ["line\nbreak"]),
        ("C++ (v2)", "C++", ["C++"]),
        ("to Paris today", " Paris ", ["Paris"]),
        ("a cafe\u0301 here", "café", ["cafe\u0301"]),
        ("a café here", "cafe\u0301", ["café"]),
        ("the ﬁnal ﬁx", "final", ["ﬁnal"]),
        ("ＡＣＭＥ corp", "acme", ["ＡＣＭＥ"]),
        ("soft\u00adware\u200b, x", "software", ["soft\u00adware"]),
        ("New\u00a0York", "New York", ["New\u00a0York"]),
        ("zero \u200b width", "zero width", ["zero \u200b width"]),
        ("in der Straße", "STRASSE", ["Straße"]),
        ("İstanbul", "i\u0307stanbul", ["İstanbul"]),
        ("ΟΔΟΣ", "οδος", ["ΟΔΟΣ"]),
        ("a cart. Art is", "art", ["Art"]),  # a word in another case rather than a piece of a word
        ("cart", "art", ["art"]),
    ],
)
def test_a_span_holds_the_passages_own_characters(text: str, string: str, found: list[str]) -> None:
    assert [text[start:end] for start, end in ground(text, string)] == found


@pytest.mark.parametrize(
    ("text", "string"),
    [
        ("Paris", "London"),
        ("Paris", " "),
        ("", "x"),
        ("cart", "ART x"),
        ("cafe\u0301", "cafe"),
        ("ﬁx", "f"),
        ("Straße", "Stras"),
        ("👩\u200d💻", "👩"),
        ("x", "\u200b"),
        ("Paris", "Paris" * 1_000_000),
    ],
)
def test_a_string_that_is_not_in_the_passage_has_no_span(text: str, string: str) -> None:
    assert ground(text, string) == []


WILD = st.text(
    alphabet=st.one_of(
        st.sampled_from("aAsS Kkſß İiı\u0301\u0307ﬁf\u00ad\u200b\u200d\u00a0 \n'’-–🇦👩\u1100\u1161e"), st.characters()
    ),
    max_size=30,
)


@given(WILD, WILD, WILD, st.booleans())
def test_a_span_equals_the_string_after_folding(before: str, string: str, after: str, upper: bool) -> None:
    text = before + (string.upper() if upper else string) + after
    spans = ground(text, string)
    borders = {0} | {match.end() for match in regex.finditer(r"\X", text)}
    for start, end in spans:
        assert 0 <= start < end <= len(text) and {start, end} <= borders
        exact = text[start:end] == string.strip()
        assert exact or fold(text[start:end])[0].strip() == fold(string)[0].strip()


@given(st.text("ab_ é1.", max_size=40), st.text("ab_ é1.", min_size=1, max_size=4))
def test_exact_matches_are_those_of_the_conversation(text: str, string: str) -> None:
    exact = [list(find_occurrences(text, string, on_words)) for on_words in (True, False)]
    if any(exact):
        assert (exact[0] or exact[1]) == find_spans(text, string)


def test_word_characters_are_those_of_re_and_combining_marks() -> None:
    word = re.compile(r"\w")
    for character in map(chr, range(0x110000)):
        assert is_word(character) == bool(word.match(character) or unicodedata.category(character)[0] == "M")


@pytest.mark.parametrize(
    ("text", "string", "found"),
    [
        ("दिल्ली में दिल है", "दिल", [(11, 14)]),
        ("दिल्ली", "दिल", []),
        ("cafe\u0301 and cafe", "cafe", [(10, 14)]),
        ("cafe\u0301s and cafe\u0301", "cafe\u0301", [(11, 16)]),
        ("می\u200cخواهم می", "می", [(9, 11)]),
        ("👩\u200d💻 👩 💻", "👩", [(4, 5)]),
        ("👩\u200d💻 👩 💻", "💻", [(6, 7)]),
        ("👍🏽 👍", "👍", [(3, 4)]),
        ("a Cafe\u0301 CAFE", "cafe", [(8, 12)]),
    ],
)
def test_no_span_of_the_builder_or_the_runtime_cuts_a_character(text: str, string: str, found: list) -> None:
    assert find_spans(text, string) == found
    assert ground(text, string) == found


@given(WILD)
def test_folding_maps_every_character_to_its_place(text: str) -> None:
    folded, starts, ends = fold(text)
    assert len(folded) == len(starts) == len(ends)
    assert [s for s in starts if s >= 0] == sorted({s for s in starts if s >= 0})
    assert all(e <= len(text) for e in ends)


@pytest.mark.parametrize(
    ("span", "type_name", "reason"),
    [
        ("", "person", "empty"),
        ("Ada", "", "empty"),
        ("Ada", "misc", "else_type"),
        ("Ada", "n/a", "else_type"),
        ("東京", "city", "non_english"),
        ("The whole passage of ten words, no less, is here.", "text", "whole_passage"),
        ("one two three four five", "thing named", "too_long"),
        ("Ada", "person", None),
        ("São Paulo", "city", None),
        ("β-carotene", "chemical", None),
        ("42", "number", None),
        ("72º", "temperature", None),
        ("Ελλάδα", "country", "non_english"),
        ("Ada", "N. A.", "else_type"),
        ("Ada", "x" * 501, "type_too_long"),
        ("the whole passage of ten words, no less, is here", "text", "whole_passage"),
    ],
)
def test_each_filter_has_its_reason(span: str, type_name: str, reason: str | None) -> None:
    assert why_reject(span, type_name, "The whole passage of ten words, no less, is here.", 4) == reason


def test_type_names_are_normalized() -> None:
    assert normalize_type("  Chemical_Compound. ") == "chemical compound"
    assert normalize_type("City .") == "city"
    assert normalize_type("「城市」。") == normalize_type("城市、") == "城市"
    assert normalize_type("'Ｃity'. ") == "city" and normalize_type("chef's") == "chef's"
    assert is_written_in("", "en") and is_written_in("Łódź", "en") and not is_written_in("Москва", "en")


def test_a_plural_becomes_the_singular_that_is_a_type() -> None:
    types = (
        "city cities organization organizations bus buses analysis analyses knife knives child children movie movies"
    )
    pairs = types.split()
    assert merge_plurals(types.split()) == dict(zip(pairs[1::2], pairs[::2], strict=True))
    assert merge_plurals(["point of interest", "points of interest", "salesman", "salesmen"]) == {
        "points of interest": "point of interest", "salesmen": "salesman",
    }  # fmt: skip
    singular = ["physics", "physic", "news", "new", "series", "species", "gas", "cities", "people", "person", "class"]
    assert merge_plurals(singular) == {}


@given(st.sets(st.text("senmiau", min_size=1, max_size=7), max_size=30))
def test_no_singular_is_itself_merged(types: set[str]) -> None:
    merged = merge_plurals(types)
    assert set(merged) <= types and set(merged.values()) <= types - set(merged)
    assert list(merge_plurals(sorted(types)).items()) == list(merged.items())
