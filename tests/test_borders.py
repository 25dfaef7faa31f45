"""Spans begin and end between grapheme clusters, and between words where the script has spaces."""

import re
import unicodedata

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from dataset_builder.annotation.grounding import ground
from open_ner.borders import UNSPACED, begins_word, ends_word, is_border
from open_ner.conversation import find_spans

KOREAN = ["서울", "에서", "각", "\u1109\u1165\u110b\u116e\u11af", "\u1100", "\u1161", "\u11a8"]
INDIC = ["क्षत्रिय", "दिल्ली", "ड़", "తెలుగు", "ക്ഷേത്രം", "নমস্কার", "ខ្មែរ", "ကုမ္ပဏီ", "ශ්\u200dරී"]
EMOJI = ["👩\u200d💻", "👍🏽", "🇰🇷🇺🇸", "🇰", "1\ufe0f\u20e3", "🏴\U000e0067\U000e007f"]
PARTS = [*KOREAN, *INDIC, *EMOJI, "น้ำ", "ກຳ", "ｶﾞ", "か\u3099", "مَرْحَبًا", "می\u200cخواهم", "e\u0301", "a", "北京", " "]


@given(st.lists(st.sampled_from(PARTS), max_size=8).map("".join))
def test_no_border_is_inside_a_grapheme_cluster(text: str) -> None:
    clusters = {0} | {match.end() for match in regex.finditer(r"\X", text)}
    assert {position for position in range(len(text) + 1) if is_border(text, position)} <= clusters


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("दिल्ली में", [0, 2, 6, 7, 10]),
        ("क्षत्रिय", [0, 3, 7, 8]),
        ("👩\u200d💻🇰🇷🇺🇸", [0, 3, 5, 7]),
        ("\u1109\u1165\u110b\u116e\u11af", [0, 2, 5]),
        ("น้ำใจ", [0, 3, 4, 5]),
    ],
)
def test_borders_of_some_texts(text: str, found: list[int]) -> None:
    assert [position for position in range(len(text) + 1) if is_border(text, position)] == found


def test_scripts_without_spaces_are_those_of_the_unicode_scripts() -> None:
    names = ["Thai", "Lao", "Tibetan", "Myanmar", "Khmer", "Hiragana", "Katakana", "Bopomofo", "Han"]
    script = regex.compile("|".join(rf"\p{{Script={name}}}" for name in names))
    unspaced, spaced = re.compile(f"[{UNSPACED}]"), regex.compile(r"\p{Latin}|\p{Hangul}|\p{Arabic}|\p{Devanagari}")
    for letter in filter(str.isalpha, map(chr, [*range(0x2E80), *range(0x3000, 0x10000), 0x20000, 0x2A6DF])):
        if script.match(letter):
            assert unspaced.match(letter), hex(ord(letter))
        assert not (spaced.match(letter) and unspaced.match(letter)), hex(ord(letter))


@pytest.mark.parametrize(
    ("text", "string", "found"),
    [
        ("서울은 크다. 서울에서 만난 서울대학교 학생, 서울", "서울", [0, 8, 26]),
        ("이순신이 이겼다", "이순신", [0]),
        ("서울대학교", "서울", [0]),  # inside a word, because there is no whole word
        ("LG전자는 NASA에서", "NASA", [6]),
        ("سافر من القاهرة والقاهرة وبالقاهرة", "القاهرة", [8, 17, 27]),
        ("בירושלים ומירושלים", "ירושלים", [1, 11]),
        ("दिल्ली में दिल है", "दिल", [11]),
        ("北京市长在北京，北京大学", "北京", [0, 5, 8]),
        ("กรุงเทพมหานครและกรุงเทพ", "กรุงเทพ", [0, 16]),
        ("使用Python编程", "Python", [2]),
        ("Rome and Romeo", "Rome", [0]),
    ],
)
def test_words_begin_and_end_as_the_script_has_it(text: str, string: str, found: list[int]) -> None:
    spans = [(start, start + len(string)) for start in found]
    assert find_spans(text, string) == spans
    assert ground(text, string) == spans


@pytest.mark.parametrize(
    "text", ["서울대학교에서 각각", "कड़ाही की क़ीमत", "Le café est à Besançon", "がっこうで", "Đà Nẵng"]
)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("other", ["NFC", "NFD"])
def test_a_string_in_another_unicode_form_is_found(text: str, form: str, other: str) -> None:
    text = unicodedata.normalize(form, text)
    for start, end in [(m.start(), m.end()) for m in regex.finditer(r"\X{2}", text)]:
        string = unicodedata.normalize(other, text[start:end])
        if " " in string:
            continue
        for spans in (find_spans(text, string), ground(text, string)):
            assert (start, end) in spans or {unicodedata.normalize(other, text[a:b]) for a, b in spans} == {string}
            assert spans


def test_a_word_and_its_particles() -> None:
    assert ends_word("서울에서는", 2) and not ends_word("서울대학교", 2) and not begins_word("서울에서", 2)
    assert begins_word("والقاهرة", 3) and not begins_word("مدرسة", 2)
