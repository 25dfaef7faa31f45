"""Filters keep a text or return a reason; they keep good English of any kind."""

import json
from pathlib import Path

import pytest

from dataset_builder.config import CorpusConfig
from dataset_builder.corpus.filters import NearDuplicates, is_binary, make_detector, make_filter, markup_share

SAMPLE = Path(__file__).parent.parent / "dataset_builder" / "sample"
CODE = "def area(radius: float) -> float:\n    return math.pi * radius ** 2  # in square metres\n\nprint(area(2.0))"
LATEX = (
    "We show that $\\alpha_i \\leq \\frac{1}{2}\\sum_j \\beta_{ij}$ holds for every graph $G=(V,E)$ of bounded degree."
)
IRC = "[21:55] <sam> cat -r *|grep mv .z\n[21:55] <pici> sam: grep -r string /path/*\n[21:56] <sam> oh, thanks!"
BADGES = '<p align="center"><a href="https://a.b/c"><img src="https://a.b/d.svg" width="60%"></a></p> ## T | | [x]'
FOREIGN = {
    "de": "Der Bürgermeister von Köln eröffnete am Montag mit der Ministerin die neue Brücke über den Rhein.",
    "fr": "Le maire de Lyon a inauguré lundi le nouveau musée en présence de la ministre de la culture.",
    "es": "La alcaldesa de Sevilla inauguró el lunes el nuevo hospital junto con el ministro de sanidad del gobierno.",
    "ru": "Мэр Казани в понедельник открыл новый мост через реку вместе с министром транспорта и жителями города.",
    "zh": "北京市市长星期一与交通部部长一起为横跨永定河的新桥举行了通车仪式,许多市民到场观看。",
    "nl": "De burgemeester van Utrecht opende maandag samen met de minister de nieuwe bibliotheek aan het plein.",
}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("only four words here", "too_short"),
        ("five words are just enough", None),
        ("a b c d e \0 f g", "binary"),
        ("the \ufffd\ufffd\ufffd quick \x01\x02 brown fox", "binary"),
        (BADGES, "markup"),
        (FOREIGN["de"], "other_language"),
        (CODE, None),
        (LATEX, None),
        (IRC, None),
    ],
)
def test_each_filter_has_its_reason(text: str, reason: str | None) -> None:
    assert make_filter(CorpusConfig(path="x"))(text, 100) == reason


def test_a_passage_beyond_the_limit_is_named_and_filters_can_be_off() -> None:
    assert make_filter(CorpusConfig(path="x"))("five words are just enough", 257) == "word_too_long"
    off = make_filter(CorpusConfig(path="x", language=None, max_markup=None, min_words=0))
    assert [off(text, 1) for text in (BADGES, FOREIGN["fr"], "one")] == [None] * 3


@pytest.mark.parametrize("language", FOREIGN)
def test_languages_are_told_apart(language: str) -> None:
    assert make_detector(language)(FOREIGN[language])
    assert not make_detector("en")(FOREIGN[language])


def test_every_embedded_passage_is_kept() -> None:
    why_reject, near = make_filter(CorpusConfig(path="x")), NearDuplicates(0.7)
    for name in ("passages.jsonl", "held_out.jsonl"):
        for line in (SAMPLE / name).read_text(encoding="utf-8").splitlines():
            text = json.loads(line)["text"]
            assert why_reject(text, 200) is None and near.add(text), text


def test_shares_of_markup_and_of_binary_characters_spare_code_and_formulas() -> None:
    assert markup_share("plain words") == 0 and markup_share("<b></b> {{x|y}}") == 1 and markup_share("") == 1
    assert markup_share(CODE) < 0.5 and markup_share(LATEX) < 0.5 and markup_share(IRC) < 0.6
    assert not is_binary("tabs\tand\nlines\r\n") and is_binary("PK\x03\x04\x01")


WORDS = [f"word{i}" for i in range(200)]


@pytest.mark.parametrize(("changed", "new"), [(0, False), (1, False), (5, False), (40, True), (200, True)])
def test_near_duplicates_are_decided_by_the_share_of_common_5_grams(changed: int, new: bool) -> None:
    # each changed word costs 5 of 196 grams: 5 of them leave 171 of 221 (.77), 40 leave none
    step = 200 // changed if changed else 1
    other = [f"other{i}" if changed and i % step == 0 else word for i, word in enumerate(WORDS)]
    near = NearDuplicates(0.7)
    assert near.add(" ".join(WORDS)) and near.add(" ".join(other)) is new
    assert near.add("something else entirely that nobody wrote before")


def test_case_and_signs_do_not_hide_a_copy_and_short_texts_are_compared_whole() -> None:
    near = NearDuplicates(0.7)
    assert near.add("Ada met Charles.") and not near.add("ada, met CHARLES!") and near.add("Ada met Mary.")
    assert near.add("") and near.add("Ada")
