"""Replies to pairs or a reason; nothing is evaluated and nothing raises."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_builder.parse import parse_reply

ACME = [("Acme", "company"), ("Rome", "city")]


@pytest.mark.parametrize(
    "reply",
    [
        '[("Acme", "company"), ("Rome", "city")]',
        "[('Acme', 'company'), ('Rome', 'city')]",
        '[("Acme", "company"),\n ("Rome", "city"),\n]',
        '[["Acme", "company"], ["Rome", "city"]]',
        '[{"entity": "Acme", "type": "company"}, {"text": "Rome", "label": "city"}]',
        '{"entities": [["Acme", "company"], ["Rome", "city"]]}',
        '```python\n[("Acme", "company"), ("Rome", "city")]\n```',
        '```json\n[["Acme", "company"], ["Rome", "city"]]\n```',
        'Sure! Here they are:\n[("Acme", "company"), ("Rome", "city")]\nAnything else?',
        'The list [of entities] is [("Acme", "company"), ("Rome", "city")].',
        '  [ ( "Acme" , "company" ) , ( "Rome" , "city" , ) ] ',
    ],
)
def test_every_form_of_a_complete_list_is_read(reply: str) -> None:
    assert parse_reply(reply) == ACME


@pytest.mark.parametrize(
    ("reply", "finish_reason", "reason"),
    [
        ('[("Acme", "company"), ("Ro', "length", "truncated"),
        ('[("Acme", "company"), ("Rome", "city")]', "length", "truncated"),
        ('[("Acme", "company"), ("Ro', "stop", "malformed_list"),
        ('[("Acme", "company" "Rome", "city")]', "stop", "malformed_list"),
        ('[("Acme", company)]', "stop", "malformed_list"),
        ("[]", "stop", "no_entities"),
        ("", "content_filter", "content_filter"),
        ("I can't.", "refusal", "refusal"),
        ("I’m sorry, but I can’t help with that.", "stop", "refusal"),
        ("Acme is a company.", "stop", "no_list"),
        ("", "stop", "no_list"),
        ("[" * 100_000, "stop", "malformed_list"),
        ('[["a", ' * 50_000, "stop", "malformed_list"),
        (" \n" * 500_000, "stop", "no_list"),  # minutes, were any pattern to back off over white space
        ('[("Acme", "company"' + " " * 1_000_000, "stop", "malformed_list"),
        ('[("' + "a" * 1_000_000, "stop", "malformed_list"),
    ],
)
def test_what_is_no_complete_list_has_a_reason(reply: str, finish_reason: str, reason: str) -> None:
    assert parse_reply(reply, finish_reason) == reason


def test_a_string_of_a_megabyte_is_read() -> None:
    long = "\\u00e9" * 160_000
    assert parse_reply(f'[("{long}", "noise")]') == [("é" * 160_000, "noise")]


@pytest.mark.parametrize("form", ['[("{}", "face")]', '[["{}", "face"]]'])
def test_escaped_surrogates_are_one_character_or_a_replacement(form: str) -> None:
    assert parse_reply(form.format(r"\ud83d\ude00")) == [("😀", "face")]
    assert parse_reply(form.format(r"\ud83d")) == [("\N{REPLACEMENT CHARACTER}", "face")]


def test_code_in_a_reply_is_text() -> None:
    code = "__import__('os').abort()"
    assert parse_reply(f'[("{code}", "code")]') == [(code, "code")]
    assert parse_reply(f"[({code}, 'code')]") == "malformed_list"


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=8), st.booleans())
def test_any_pairs_survive_the_round_trip(pairs: list[tuple[str, str]], ascii_only: bool) -> None:
    quoted = [[json.dumps(part, ensure_ascii=ascii_only) for part in pair] for pair in pairs]
    assert parse_reply("[" + ", ".join(f"({a}, {b})" for a, b in quoted) + "]") == pairs


@given(st.text(max_size=200), st.sampled_from(["stop", "length", "content_filter", "", "tool_calls"]))
def test_no_text_raises(reply: str, finish_reason: str) -> None:
    assert_sound(parse_reply(reply, finish_reason))


@given(st.text(alphabet="[](){}\"'\\, \nab", max_size=120))
def test_no_heap_of_brackets_and_quotes_raises(reply: str) -> None:
    assert_sound(parse_reply(reply))


def assert_sound(result: Any) -> None:
    if isinstance(result, str):
        assert result in {"truncated", "content_filter", "refusal", "no_list", "malformed_list", "no_entities"}
    else:
        assert result and all(isinstance(part, str) for pair in result for part in pair)
