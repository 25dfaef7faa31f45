"""Entities to spans, and which of them stay."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_builder.annotations import annotate_passages
from dataset_builder.filters import is_latin, normalise_type, why_drop
from dataset_builder.grounding import ground
from dataset_builder.passages import Passage


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
    ],
)
def test_the_passages_own_characters_stand_at_the_span(text: str, string: str, found: list[str]) -> None:
    assert [text[start:end] for start, end in ground(text, string)] == found


@pytest.mark.parametrize(("text", "string"), [("Paris", "London"), ("Paris", " "), ("", "x"), ("cart", "ART x")])
def test_what_is_not_there_is_a_hallucination(text: str, string: str) -> None:
    assert ground(text, string) == "not_in_passage"


@given(st.text(max_size=60), st.text(max_size=10))
def test_spans_lie_in_the_text_and_differ_by_folding_alone(text: str, string: str) -> None:
    spans = ground(text, string)
    if spans != "not_in_passage":
        for start, end in spans:
            assert 0 <= start < end <= len(text)
            assert len("".join(text[start:end].split())) == len("".join(string.split()))


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
    ],
)
def test_each_filter_has_its_reason(span: str, type_name: str, reason: str | None) -> None:
    assert why_drop(span, type_name, "The whole passage of ten words, no less, is here.", 4) == reason


def test_type_names_are_normalised() -> None:
    assert normalise_type("  Chemical_Compound. ") == "chemical compound"
    assert normalise_type("City .") == "city"
    assert is_latin("") and is_latin("Łódź") and not is_latin("Москва")


def passage(number: int, text: str) -> Passage:
    return Passage(f"p{number}", text, "news", f"p{number}", "", 0, len(text), 9)


def record(reply: str, finish_reason: str = "stop") -> dict:
    return {"reply": reply, "finish_reason": finish_reason, "model": "m", "time": "t"}


def test_every_passage_ends_as_a_row_or_a_reject_and_every_entity_is_counted() -> None:
    passages = [passage(i, "Ada met Bob in Rome. Ada left.") for i in range(4)]
    replies = {
        "p0": record('[("Ada", "Person"), ("Ada", "person"), ("Eve", "person"), ("Rome", "other"), ("Rome", "city")]'),
        "p1": record("[]"),
        "p2": record('[("Eve", "person")]'),
    }
    result = annotate_passages(passages, replies, "type", 10)
    assert [row["id"] for row in result.rows] == ["p0"]
    assert [(e["start"], e["end"], e["type"]) for e in result.rows[0]["entities"]] == [
        (0, 3, "person"), (15, 19, "city"), (21, 24, "person"),
    ]  # fmt: skip
    assert dict(result.counts) == {
        "replies": 3, "entities_read": 6, "entities_kept": 2, "duplicate": 1, "not_in_passage": 2, "else_type": 1,
        "no_entities": 1, "no_entities_left": 1, "no_answer": 1,
    }  # fmt: skip
    assert {reject.passage_id for reject in result.rejects} == {"p0", "p1", "p2", "p3"}
    assert result.hallucination_rate == 2 / 6
