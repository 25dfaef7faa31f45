"""Replies to pairs or a reason; nothing is evaluated and nothing raises."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_builder.teacher.parse import parse_reply

ACME = [("Acme", "company"), ("Rome", "city")]
LIST = '[("Acme", "company"), ("Rome", "city")]'


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
        'Here:\n```json\n[{"entity": "Acme", "type": "company"}, {"entity": "Rome", "type": "city"}]\n```\nDone.',
        '{"result": [["Acme", "company"], ["Rome", "city"]]}',
        '{"entities": [{"Entity": "Acme", "Type": "company", "at": 0}, {"name": "Rome", "label": "city"}]}',
        '{"company": ["Acme"], "city": ["Rome"], "person": [], "river": null}',
        "[(“Acme”, “company”), (‘Rome’, ‘city’)]",
        '[（"Acme"，"company"），（"Rome"，"city"）]',
        '[("Acme", "company")、("Rome", "city")]',
        "【(「Acme」, 「company」), (『Rome』, ＂city＂)】",
        '｛"company"：［"Acme"］，"city"：["Rome"]｝',
        '[("Acme", "company")]\n[（"Rome"，"city"）]',
        '【「会社」の抽出結果】[「Acme」の説明][("Acme", "company"), ("Rome", "city")]',
        '[{"entity": "Acme", "type": ["company"]}, {"entity": "Rome", "types": ["city"]}]',
        '[("Acme", "company", 0.9), ("Rome", 7, 11, "city")]',
        'Companies: [("Acme", "company")]\nPlaces: [("Rome", "city")]',
        '<think>Maybe [("Eve", "person")], or ["...</think>[("Acme", "company"), ("Rome", "city")]',
        r"[('\x41cme', 'company'), ('Rome', 'city')]",
        *(
            thoughts.replace("DRAFT", 'Is Acme a city? [("Acme", "city")] no.') + "\n\n" + LIST
            for thoughts in (
                "DRAFT\n</think>",
                "<think>DRAFT</think>\n<think>\nDRAFT</think>",
                "\n<thinking>DRAFT</thinking>",
                "[THINK]DRAFT[/THINK]",
                "<think>DRAFT</think>" + LIST + "<think>DRAFT</think>",
                "<thought>DRAFT</thought>",
                "<|channel|>analysis<|message|>DRAFT<|end|><|start|>assistant<|channel|>final<|message|>",
                "<|channel|>analysis<|message|>DRAFT<|end|><|channel|>final <|constrain|>json<|message|>",
                "analysisDRAFTassistantfinal",
                "◁think▷DRAFT◁/think▷",
                "<|START_THINKING|>DRAFT<|END_THINKING|>",
                "<|channel>thought\nDRAFT<channel|>",
                "<seed:think>DRAFT</seed:think>",
                "<Reasoning>DRAFT</Reasoning>",
            )
        ),
        f"{LIST}\n<think>Or [(",  # the thoughts after the list have no end
    ],
)
def test_every_form_of_a_complete_list_is_read(reply: str) -> None:
    assert parse_reply(reply) == ACME


@pytest.mark.parametrize(
    ("reply", "finish_reason", "reason"),
    [
        ('[("Acme", "company"), ("Ro', "length", "truncated"),
        ('[("Acme", "company"), ("Rome", "city")]', "length", "truncated"),
        *(
            (LIST, name, "truncated")
            for name in ("max_tokens", "MAX_TOKENS", "model_length", "FinishReason.MAX_TOKENS")
        ),
        *((LIST, name, "content_filter") for name in ("SAFETY", "RECITATION", "sensitive")),
        *((LIST, name, "endpoint_error") for name in ("error", "ERROR", "abort", "network_error")),
        ('<thinking>Maybe [("Eve", "person")]', "STOP", "no_list"),
        ('<|channel|>analysis<|message|>Maybe [("Eve", "person")]', "end_turn", "no_list"),
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
        ('[("Acme", "company")', "stop", "malformed_list"),
        ('[("Acme", "company")]\nPlaces: [("Ro', "stop", "malformed_list"),  # never half read
        ('[[("Acme", "company"), ("Rome", "city")], [("Ro', "stop", "malformed_list"),
        ('[{"entity": "Acme", "type": company}, {"entity": "Rome", "type": "city"}]', "stop", "malformed_list"),
        ('["Acme", "Rome"]', "stop", "malformed_list"),
        ('{"entities": ["Acme", "Rome"]}', "stop", "malformed_list"),
        ('[("Acme", "company"],]', "stop", "malformed_list"),
        ('[("Acme", "company"),, ("Rome", "city")]', "stop", "malformed_list"),
        ('[("Acme", null)]', "stop", "malformed_list"),
        ('{"a": "b"}', "stop", "malformed_list"),
        ("{}", "stop", "no_entities"),
        ('<think>Maybe [("Eve", "person")]', "stop", "no_list"),
        ('[("Acme", "company"), ' * 500_000, "stop", "malformed_list"),
        ('["' * 2_000_000, "stop", "malformed_list"),
        ("[" * 2_000_000 + "]" * 2_000_000, "stop", "malformed_list"),
        ("[" + '("Acme", "company"), ' * 3_000_000 + "]", "stop", "too_many_entities"),
        ('[["Acme", "company"]] ' * 200_000, "stop", "too_many_entities"),
        ("[]" * 1_000_000, "stop", "too_many_entities"),
    ],
)
def test_what_is_not_a_complete_list_has_a_reason(reply: str, finish_reason: str, reason: str) -> None:
    assert parse_reply(reply, finish_reason) == reason


def test_a_string_of_a_megabyte_is_read() -> None:
    long = "\\u00e9" * 160_000
    assert parse_reply(f'[("{long}", "noise")]') == [("é" * 160_000, "noise")]


@pytest.mark.parametrize("form", ['[("{}", "face")]', '[["{}", "face"]]'])
def test_escaped_surrogates_are_one_character_or_a_replacement(form: str) -> None:
    assert parse_reply(form.format(r"\ud83d\ude00")) == [("😀", "face")]
    assert parse_reply(form.format(r"\ud83d")) == [("\N{REPLACEMENT CHARACTER}", "face")]


def test_an_apostrophe_closes_no_string() -> None:
    reply = "[('O'Brien', 'person'), ('the workers' union', 'group'), (‘d’Arc’, ‘person’), ('It\\'s', 'word')]"
    found = [("O'Brien", "person"), ("the workers' union", "group"), ("d’Arc", "person"), ("It's", "word")]
    assert parse_reply(reply) == found


def test_a_third_string_stays_with_its_pair() -> None:
    assert parse_reply('[("Acme", "company", "makes anvils")]') == [("Acme", "company", "makes anvils")]


def test_only_the_passage_tells_entities_from_types_between_single_strings() -> None:
    assert parse_reply('{"Acme": "company", "Rome": "city"}', passage="ACME left Rome.") == ACME
    assert parse_reply('{"company": "Acme", "city": "Rome"}', passage="Acme left Rome.") == ACME
    assert parse_reply('{"Acme": ["company"], "Rome": ["city"]}', passage="Acme left Rome.") == ACME
    assert parse_reply('{"company": "Acme", "city": "Rome"}', passage="A company: Acme.") == "malformed_list"


def test_names_of_fields_are_no_types() -> None:
    passage = "Ada took Aspirin in Rome."
    for reply in (
        '{"drug": [{"text": "Aspirin"}]}', '[{"type": "drug", "entity": ["Aspirin"]}]',
        '{"drug": [{"name": "Aspirin", "start": 9}], "person": []}',
    ):  # fmt: skip
        assert parse_reply(reply, passage=passage) == [("Aspirin", "drug")]
    for reply in (
        '[{"text": "Ada", "label": null}]', '[{"text": "Ada"}]', '[{"entity": null, "type": "person"}]',
        '{"entity": ["Ada"], "type": ["person"]}', '{"entities": [{"text": "Ada"}]}', '{"results": [{"text": "Ada"}]}',
    ):  # fmt: skip
        assert parse_reply(reply, passage=passage) == "malformed_list"
    assert parse_reply('{"name": ["Ada"], "category": []}', passage=passage) == [("Ada", "name")]
    assert parse_reply('{"name": "Ada", "city": "Rome"}', passage=passage) == [("Ada", "name"), ("Rome", "city")]


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


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5), st.data())
def test_a_reply_cut_anywhere_is_never_half_read(pairs: list[tuple[str, str]], data: st.DataObject) -> None:
    reply = json.dumps(pairs)
    cut = data.draw(st.integers(1, len(reply) - 1))
    assert isinstance(parse_reply(reply[:cut]), str)
