"""The dialogue: turns, writing and reading answers, finding spans, breaking special tokens."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from open_ner.borders import is_border
from open_ner.conversation import (
    build_conversation,
    build_query,
    find_occurrences,
    find_spans,
    neutralize,
    order_strings,
    read_answer,
    write_answer,
)

ANY_CHARACTER = st.characters(codec=None)  # lone surrogates included
MARKERS = ["<|im_start|>", "<|im_end|>", "<|im", "</s>"]


def test_a_query_is_the_dialogue_of_the_paper() -> None:
    assert build_query("Bob lives in Rome.", "city") == [
        {"role": "system", "content": "A virtual assistant answers questions from a user based on the provided text."},
        {"role": "user", "content": "Text: Bob lives in Rome."},
        {"role": "assistant", "content": "I've read this text."},
        {"role": "user", "content": "What describes city in the text?"},
    ]


def test_the_dataset_line_stands_before_the_text() -> None:
    assert build_query("Bob.", "city", dataset="MIT Movie")[1]["content"] == "Dataset: MIT Movie\nText: Bob."


def test_a_conversation_asks_in_the_given_order_and_begins_like_each_query() -> None:
    conversation = build_conversation("Bob in Rome.", [("city", ["Rome"]), ("date", [])])
    assert conversation[:4] == build_query("Bob in Rome.", "city")
    assert [message["content"] for message in conversation[4:]] == [
        '["Rome"]',
        "What describes date in the text?",
        "[]",
    ]
    assert [message["role"] for message in conversation] == ["system", *["user", "assistant"] * 3]


@pytest.mark.parametrize(
    ("mentions", "ordered"),
    [
        ([], []),
        ([(9, "Rome"), (0, "Paris"), (20, "Paris")], ["Paris", "Rome"]),
        ([(20, "Paris"), (9, "Rome"), (0, "Paris")], ["Paris", "Rome"]),
        ([(0, "New"), (0, "New York"), (4, "York")], ["New York", "New", "York"]),
        ([(5, "paris"), (0, "Paris")], ["Paris", "paris"]),
    ],
)
def test_strings_are_ordered_by_first_occurrence_the_longer_first(
    mentions: list[tuple[int, str]], ordered: list[str]
) -> None:
    assert order_strings(mentions) == ordered


@given(
    st.lists(st.tuples(st.integers(0, 9), st.text("ab", min_size=1, max_size=3))), st.randoms(use_true_random=False)
)
def test_the_order_does_not_depend_on_the_order_of_mentions(mentions: list[tuple[int, str]], random) -> None:
    # no two strings of the same length at the same place, because their order is undefined
    at_one_place = [(start, text) for start, text in mentions if len(text) == 1 + start % 3]
    shuffled = random.sample(at_one_place, len(at_one_place))
    ordered = order_strings(dict.fromkeys(at_one_place))
    assert sorted(ordered) == sorted({text for _, text in at_one_place})
    starts = {text: min(start for start, other in at_one_place if other == text) for text in ordered}
    assert [starts[text] for text in ordered] == sorted(starts.values())
    assert [starts[text] for text in order_strings(shuffled)] == sorted(starts.values())


@given(st.lists(st.text(ANY_CHARACTER), unique=True))
def test_what_is_written_is_read_back(strings: list[str]) -> None:
    answer = write_answer(strings)
    assert read_answer(answer) == strings
    assert "\n" not in answer


def test_an_answer_is_one_line_of_plain_json() -> None:
    assert write_answer(["Zürich", 'the "Wall"', "a\nb", "北京"]) == r'["Zürich", "the \"Wall\"", "a\nb", "北京"]'
    assert write_answer([]) == "[]"


@pytest.mark.parametrize(
    "raw",
    [
        "", "Paris", '"Paris"', "{}", "null", "1", '["Paris"', '["Paris",]', "['Paris']", '["Paris", 1]',
        '[["Paris"]]',
        '["Paris", null]', 'Sure: ["Paris"]', '["Paris"] and more',
        "[" * 100_000, '["a\nb"]', "[" + "9" * 5000 + "]",
    ],
)  # fmt: skip
def test_what_is_not_a_list_of_strings_is_not_read(raw: str) -> None:
    assert read_answer(raw) is None


def test_reading_keeps_the_first_of_repeated_strings_and_allows_any_layout() -> None:
    assert read_answer(' [\n "Rome",\n "Paris", "Rome" ]\n') == ["Rome", "Paris"]
    assert read_answer('["paris", "Paris"]') == ["paris", "Paris"]


@given(st.text() | st.text('["], \\\n{}1', max_size=9))
def test_reading_never_fails(raw: str) -> None:
    strings = read_answer(raw)
    assert strings is None or strings == list(dict.fromkeys(json.loads(raw)))


@given(st.lists(st.text("ab", max_size=2) | st.none() | st.integers() | st.lists(st.text(), max_size=1), max_size=4))
def test_a_list_is_read_if_all_of_it_are_strings_and_each_once(values: list) -> None:
    expected = list(dict.fromkeys(values)) if all(isinstance(value, str) for value in values) else None
    assert read_answer(json.dumps(values)) == expected


@pytest.mark.parametrize(
    ("text", "string", "spans"),
    [
        ("Paris, Paris!", "Paris", [(0, 5), (7, 12)]),
        ("Paris, Paris Parisian", "Paris", [(0, 5), (7, 12)]),
        ("art of Bart's art", "art", [(0, 3), (14, 17)]),  # only whole words if there is one
        ("Bart and Marta", "art", [(1, 4), (10, 13)]),  # else inside words
        ("C C++ C# (C++)", "C++", [(2, 5), (10, 13)]),
        ("C C++ C#", "C#", [(6, 8)]),
        ("a.b axb", "a.b", [(0, 3)]),
        ("cost $5 (approx. [1]) \\d", "\\d", [(22, 24)]),
        ("cost $5 (approx. [1])", "(approx. [1])", [(8, 21)]),
        ("Zürich Züricher", "Zürich", [(0, 6)]),
        ("北京大学", "北京", [(0, 2)]),  # without spaces there are no word boundaries
        ("I 💙 NY 💙", "💙", [(2, 3), (7, 8)]),
        ("x_y x y", "x", [(4, 5)]),
        ("aaaa", "aa", [(0, 2), (2, 4)]),  # occurrences do not overlap
        ("one\ntwo\r\n one two", "one\ntwo", [(0, 7)]),
        ("paris", "Paris", [(0, 5)]),  # in another case, because the exact string does not occur
        ("paris Paris", "Paris", [(6, 11)]),
        ("Paris", "", []),
        ("", "Paris", []),
        ("Par", "Paris", []),
    ],
)
def test_spans_prefer_word_boundaries(text: str, string: str, spans: list[tuple[int, int]]) -> None:
    assert find_spans(text, string) == spans
    assert find_spans(text, string, "first") == spans[:1]


@given(st.text("aé. +\n", max_size=12), st.text("aé. +\n", min_size=1, max_size=3))
def test_spans_are_right_disjoint_and_found_whenever_the_string_occurs(text: str, string: str) -> None:
    spans = find_spans(text, string)
    assert all(text[start:end] == string for start, end in spans)
    assert bool(spans) == (string in text)
    assert all(end <= start for (_, end), (start, _) in zip(spans, spans[1:], strict=False))


@given(st.data(), st.text(min_size=1, max_size=30))
def test_every_substring_is_found(data: st.DataObject, text: str) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    cuts_no_character = is_border(text, start) and is_border(text, end)
    if cuts_no_character or list(find_occurrences(text, text[start:end], on_words=False)):
        assert {text[a:b] for a, b in find_spans(text, text[start:end])} == {text[start:end]}


@given(
    st.lists(st.sampled_from([*MARKERS, "<", "|im", "_start|>", ">", "s", "/", " ", "é"]), max_size=12).map("".join)
)
def test_no_marker_survives_and_nothing_but_spaces_is_added(text: str) -> None:
    [message] = neutralize([{"role": "user", "content": text}], MARKERS)
    assert not any(marker in message["content"] for marker in MARKERS)
    assert message["role"] == "user"
    assert re.sub(" ", "", message["content"]) == re.sub(" ", "", text)


def test_messages_without_markers_stay_as_they_are() -> None:
    query = build_query("a < b | c > d", "<type>")
    assert neutralize(query, MARKERS) == query
    assert neutralize(query, []) == query
    assert neutralize(query, [""]) == query


def test_neutralizing_leaves_its_argument_alone() -> None:
    query = build_query("<|im_end|>", "city")
    broken = neutralize(query, MARKERS)
    assert query[1]["content"] == "Text: <|im_end|>"
    assert broken[1]["content"] == "Text: < |im_end|>"


@given(st.lists(st.text()))
def test_an_answer_is_what_json_writes(strings: list[str]) -> None:
    assert write_answer(strings) == json.dumps(strings, ensure_ascii=False)


@pytest.mark.parametrize(
    ("string", "spans"),
    [("Italian", [(8, 15)]), ("ITALIAN", [(0, 7), (8, 15)]), ("SARDINIAN", []), ("ITAL", [(0, 4), (8, 12)])],
)
def test_another_case_matches_only_if_no_match_is_exact(string: str, spans: list[tuple[int, int]]) -> None:
    assert find_spans("italian Italian", string) == spans
    assert find_spans("italian Italian", string, "first") == spans[:1]
