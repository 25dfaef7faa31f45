"""The grammar of a grounded answer accepts exactly what `write_answer` writes for strings of the passage."""

import json

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from open_ner.conversation import order_strings, write_answer
from open_ner.grammar import AnswerGrammar, Phase, State

AWKWARD = 'ab "\\/\n\t\x00\x1f\x7f,[]nu0é\u0301ü京💙👩\u200d💻\u2028\ud83d\udc99\ufeff'  # lone surrogates too
TEXTS = st.one_of(
    st.text(AWKWARD, min_size=1, max_size=25), st.text(st.characters(codec=None), min_size=1, max_size=25)
)


def encode(answer: str) -> bytes:
    return answer.encode("utf-8", "surrogatepass")


def feed(grammar: AnswerGrammar, answer: bytes) -> State | None:
    """The state after an answer read byte by byte."""
    state: State | None = State()
    for byte in answer:
        state = grammar.advance(state, bytes([byte]))
        if state is None:
            return None
    return state


def accepts(text: str, answer: str | bytes) -> bool:
    state = feed(AnswerGrammar(text), answer if isinstance(answer, bytes) else encode(answer))
    return state is not None and state.phase is Phase.END


@st.composite
def passages_and_strings(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A passage and some of its distinct substrings, in order of first occurrence."""
    text = draw(TEXTS)
    spans = draw(st.lists(st.tuples(st.integers(0, len(text) - 1), st.integers(1, len(text))), max_size=6))
    strings = {text[start : start + length] for start, length in spans}
    return text, order_strings((text.find(string), string) for string in strings)


@given(passages_and_strings(), st.data())
@example(("\\n\n", ["\\n", "n", "\n"]), None)
@example(("\ud83d\udc99", ["\ud83d\udc99", "\ud83d", "\udc99"]), None)
def test_every_ordered_list_of_substrings_is_accepted_whatever_the_chunks(
    case: tuple[str, list[str]], data: st.DataObject | None
) -> None:
    text, strings = case
    grammar, answer, state = AnswerGrammar(text), encode(write_answer(strings)), State()
    while answer:
        size = data.draw(st.integers(1, len(answer))) if data else 1
        chunk, answer = answer[:size], answer[size:]
        state = grammar.advance(state, chunk)
        assert state is not None, (chunk, answer)
    assert state.phase is Phase.END
    assert grammar.strings(state) == strings


@given(TEXTS, st.data())
def test_whatever_the_grammar_lets_through_is_an_answer_grounded_in_the_passage(
    text: str, data: st.DataObject
) -> None:
    """A random walk over allowed bytes always gives a list of distinct substrings."""
    grammar, state, answer = AnswerGrammar(text), State(), b""
    alphabet = sorted(set(grammar.source) | set(b'[]", '))
    for _ in range(40):
        moves = {byte: after for byte in alphabet if (after := grammar.advance(state, bytes([byte]))) is not None}
        if not moves:
            break
        byte = data.draw(st.sampled_from(sorted(moves)))
        state, answer = moves[byte], answer + bytes([byte])
    strings = grammar.strings(state)
    assert all(string and string in text for string in strings)
    assert len(set(strings)) == len(strings)
    if state.phase is Phase.END:
        assert answer == encode(write_answer(strings))


@given(TEXTS, st.text(AWKWARD, min_size=1, max_size=4))
def test_a_string_is_accepted_exactly_when_it_occurs(text: str, string: str) -> None:
    assert accepts(text, write_answer([string])) == (string in text)


PIECES = st.sampled_from(["[", "]", '"', ", ", "Bob", "in", ' \\"', "\\", " Rome", " ", "x"])


@given(st.lists(PIECES, max_size=9).map("".join))
def test_an_answer_that_is_not_our_own_writing_is_refused(answer: str) -> None:
    text = 'Bob "in" Rome'
    try:
        strings = json.loads(answer)
    except ValueError:
        strings = None
    if not isinstance(strings, list) or answer != write_answer(strings):
        assert not accepts(text, answer)


@pytest.mark.parametrize(
    "answer",
    [
        "[]", '["Paris"]', '["Paris", "Rome"]', '["Paris", "Rome", "Paris."]', '["Paris, Rome", "Paris"]',
        '["Paris", "Paris, Rome"]', '["ari"]', '[" "]', '[", "]',
    ],
)  # fmt: skip
def test_accepted(answer: str) -> None:
    assert accepts("Paris, Rome, Paris.", answer)


@pytest.mark.parametrize(
    "answer",
    [
        '["Berlin"]', '["paris"]', '["Paris Rome"]', '["Paris", "Paris"]', '["Rome", "Paris, R"]',
        '[""]', '["Paris", ""]',
        '["Paris","Rome"]', '["Paris" , "Rome"]', '["Paris",  "Rome"]', '[ "Paris"]', '["Paris" ]',
        "[ ]", '["Paris",]',
        '["Paris", ]', '[,"Paris"]', '[\n"Paris"\n]', ' ["Paris"]', '["Paris"]]', '["Paris"] ',
        '["Paris"]\n', "['Paris']",
        '"Paris"', '[["Paris"]]', "[null]", "[1]", '["P\\u0061ris"]', '```["Paris"]```', '["Paris.]',
    ],
)  # fmt: skip
def test_refused(answer: str) -> None:
    assert not accepts("Paris, Rome, Paris.", answer)


@pytest.mark.parametrize("length", range(1, 4))
def test_a_string_may_not_lie_wholly_before_the_string_before_it(length: int) -> None:
    text = "abc" * length
    assert accepts(text, '["ab", "c"]')
    assert accepts(text, '["c", "ab"]') == (length > 1)


def test_of_two_strings_that_begin_together_either_may_come_first() -> None:
    assert accepts("New York", '["New York", "New"]')
    assert accepts("New York", '["New", "New York"]')


@pytest.mark.parametrize(
    ("text", "accepted", "rejected"),
    [
        ("a\nb", ['["a\\nb"]', '["\\n"]', '["a", "b"]'], ['["n"]', '["nb"]', '["\\\\n"]', '["a\nb"]', '["\\u000a"]']),
        ("a\\nb", ['["a\\\\nb"]', '["\\\\"]', '["nb"]'], ['["\\n"]', '["\\\\\\\\"]']),
        ('say "hi"', ['["\\"hi\\""]', '["\\""]', '["hi"]'], ['["hi\\\\"]', '["\\\\"]', '["""]']),
        ("a\x00b", ['["a\\u0000b"]', '["\\u0000"]'], ['["0"]', '["u"]', '["u0000"]', '["\x00"]', '["\\u0001"]']),
        ("a/b\x7f", ['["a/b\x7f"]'], ['["a\\/b"]', '["\\u007f"]']),
        ("I 💙 NY", ['["💙"]', '["💙 NY"]'], ['["\\ud83d\\udc99"]', '["💚"]']),
        ("Jose\u0301", ['["Jose\u0301"]', '["Jose"]', '["\u0301"]'], ['["José"]']),
        ("x\ud83dy", ['["\ud83d"]', '["x\ud83dy"]'], ['["\\ud83d"]', '["\udc99"]']),
    ],
)
def test_escapes_and_characters_are_units(text: str, accepted: list[str], rejected: list[str]) -> None:
    assert [answer for answer in accepted if not accepts(text, answer)] == []
    assert [answer for answer in rejected if accepts(text, answer)] == []


@given(st.text('aé京💙\n"\\\x00', min_size=1, max_size=8), st.data())
def test_a_string_never_begins_or_ends_inside_a_unit(text: str, data: st.DataObject) -> None:
    grammar = AnswerGrammar(text)
    start = data.draw(st.integers(0, len(grammar.source) - 1))
    end = data.draw(st.integers(start + 1, len(grammar.source)))
    piece = grammar.source[start:end]
    try:
        strings = json.loads(b'["' + piece + b'"]')
    except ValueError:  # cut inside a unit
        strings = []
    assert accepts(text, b'["' + piece + b'"]') == (strings != [] and strings[0] in text)


@given(st.text("aé京💙", min_size=1, max_size=8))
def test_a_cut_answer_keeps_the_strings_already_closed(text: str) -> None:
    assume(len(text) > 1)
    grammar = AnswerGrammar(text)
    cut = encode(f'["{text[0]}", "{text}')
    state = grammar.advance(State(), cut)
    assert state is not None
    assert grammar.strings(state) == [text[0]]


def test_an_empty_token_and_a_token_past_the_end_are_refused() -> None:
    grammar = AnswerGrammar("Rome")
    assert grammar.advance(State(), b"") is None
    assert grammar.advance(State(), b"[]") is not None
    assert grammar.advance(State(), b"[]\n") is None


def test_an_empty_passage_allows_only_the_empty_list() -> None:
    assert accepts("", "[]")
    assert not accepts("", '[""]')
    assert not accepts("", '["a"]')
