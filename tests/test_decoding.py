"""Decoding with a tiny random student: free answers equal `generate()`, grounded answers quote the passage."""

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import kinds
from open_ner import decoding
from open_ner.conversation import build_query, order_strings, read_answer, write_answer
from open_ner.decoding import Answer, Decoder, Request
from open_ner.packing import Packed, Tokens

Script = Callable[[str], list[int]]
TEXTS = [
    "Angela Merkel met Barack Obama in Berlin.",
    "Rome",
    'Sony said: "Tokyo\'s fair\n(5 June) was 100% ours" \\o/ — naïve 東京 👩‍💻.',
    "",
    "The European Commission fined Google, a company based in Mountain View, California. " * 4,
]
TYPES = ["person", "location", "a city or a town that lies by a river, written with its country", "date", "x"]
REQUESTS = [Request(text, TYPES[: 1 + number % len(TYPES)]) for number, text in enumerate([*TEXTS, TEXTS[0]])]


@pytest.fixture(scope="module")
def decoder(tiny_student: Path) -> Decoder:
    """A decoder with every twelfth token as an end token, so that answers end at different steps."""
    model = AutoModelForCausalLM.from_pretrained(tiny_student).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_student)
    model.generation_config.eos_token_id = [2, *range(10, len(tokenizer), 12)]
    return Decoder(model, tokenizer)


@pytest.fixture(scope="module")
def grounded(tiny_student: Path) -> Decoder:
    """A decoder with only the real end token."""
    model = AutoModelForCausalLM.from_pretrained(tiny_student).eval()
    return Decoder(model, AutoTokenizer.from_pretrained(tiny_student))


def generated(
    decoder: Decoder, text: str, entity_type: str, max_new_tokens: int, dataset: str | None = None
) -> list[int]:
    """The tokens of one `generate()` for one type, without the end token."""
    prompt = decoder.tokenizer.apply_chat_template(
        build_query(text, entity_type, dataset), add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    tokens = decoder.model.generate(**prompt, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=decoder.pad)
    new = tokens[0, prompt["input_ids"].shape[1] :].tolist()
    return new[:-1] if new[-1] in decoder.eos else new


def tokens_of(answers: list[list[Answer]]) -> list[list[list[int]]]:
    return [[answer.tokens for answer in row] for row in answers]


@pytest.fixture(scope="module")
def one_by_one(decoder: Decoder) -> list[list[list[int]]]:
    return [[generated(decoder, request.text, name, 24) for name in request.types] for request in REQUESTS]


def test_the_reference_answers_differ_and_end_at_different_steps(one_by_one: list[list[list[int]]]) -> None:
    """Otherwise the comparisons below would prove little."""
    lengths = [len(tokens) for row in one_by_one for tokens in row]
    assert len(set(lengths)) >= 5
    assert 24 in lengths
    assert len({tuple(tokens) for row in one_by_one for tokens in row}) >= 8


@pytest.mark.parametrize("token_budget", [16384, 3000, 600, 1])
def test_free_answers_are_those_of_generate_whatever_the_batch(
    decoder: Decoder, one_by_one: list[list[list[int]]], token_budget: int
) -> None:
    answers = list(decoder.answer(REQUESTS, grounded=False, max_new_tokens=24, token_budget=token_budget))
    assert tokens_of(answers) == one_by_one
    for row in answers:
        for answer in row:
            assert answer.complete == (len(answer.tokens) < 24)
            assert answer.text == decoder.tokenizer.decode(answer.tokens)
            assert len(answer.logprobs) == len(answer.ends) == len(answer.tokens)


def test_one_passage_and_one_type(decoder: Decoder, one_by_one: list[list[list[int]]]) -> None:
    [[answer]] = decoder.answer(REQUESTS[:1], grounded=False, max_new_tokens=24)
    assert answer.tokens == one_by_one[0][0]


def test_the_dataset_line_reaches_the_model(decoder: Decoder) -> None:
    [[answer]] = decoder.answer([Request("Rome", ["city"])], dataset="MIT Movie", grounded=False, max_new_tokens=12)
    assert answer.tokens == generated(decoder, "Rome", "city", 12, dataset="MIT Movie")


def test_the_probabilities_are_those_of_the_model(decoder: Decoder) -> None:
    [[answer]] = decoder.answer([Request(TEXTS[4], ["person"])], grounded=False, max_new_tokens=6)
    prompt = decoder.tokenizer.apply_chat_template(
        build_query(TEXTS[4], "person"), add_generation_prompt=True, return_dict=False
    )
    with torch.inference_mode():
        logits = decoder.model(torch.tensor([prompt + answer.tokens])).logits[0, len(prompt) - 1 : -1]
    expected = torch.log_softmax(logits, -1).gather(1, torch.tensor(answer.tokens)[:, None])[:, 0]
    assert answer.logprobs == pytest.approx(expected.tolist(), abs=1e-4)


@pytest.mark.parametrize("max_new_tokens", [4, 100])
def test_no_batch_exceeds_its_budget_even_padded_or_with_long_answers(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch, max_new_tokens: int
) -> None:
    """A long passage among short ones pads every row: the cache still holds at most `token_budget` positions.

    More was admitted than full answers would fit: what grows beyond the budget is put off and asked again.
    """
    sizes: list[int] = []
    forward = Packed._forward

    def spy(packed: Packed, *tokens: Any) -> torch.Tensor:
        logits = forward(packed, *tokens)
        sizes.append(packed.size)
        return logits

    monkeypatch.setattr(Packed, "_forward", spy)
    requests = [Request(TEXTS[4], ["person"]), *[Request("Rome", ["person", "x"])] * 6, Request(TEXTS[4], TYPES)]
    wanted = tokens_of(list(decoder.answer(requests, grounded=False, max_new_tokens=max_new_tokens)))
    assert max(sizes) > 1200
    sizes.clear()
    answers = list(decoder.answer(requests, grounded=False, max_new_tokens=max_new_tokens, token_budget=1200))
    assert tokens_of(answers) == wanted
    assert max(sizes) <= 1200


def test_answers_come_in_the_order_of_requests_and_types(decoder: Decoder) -> None:
    requests = [*REQUESTS, Request(TEXTS[0], []), *REQUESTS]
    order = random.Random(0).sample(range(len(requests)), len(requests))
    straight = tokens_of(list(decoder.answer(requests, grounded=False, max_new_tokens=8, token_budget=900)))
    shuffled = tokens_of(
        list(decoder.answer([requests[i] for i in order], grounded=False, max_new_tokens=8, token_budget=900))
    )
    assert shuffled == [straight[i] for i in order]
    assert straight[len(REQUESTS)] == []


def test_answers_are_handed_over_before_later_requests_are_run(decoder: Decoder) -> None:
    requests = [Request(TEXTS[0], ["person"]), Request("word " * 3000, ["person"])]
    answers = decoder.answer(requests, grounded=False, max_new_tokens=4, token_budget=1)
    with pytest.raises(ValueError, match="2048 positions"):
        list(answers)
    streaming = decoder.answer([*requests[:1] * 3, requests[1]], grounded=False, max_new_tokens=4, token_budget=1)
    assert len(next(streaming)) == 1


def test_no_requests_no_answers(decoder: Decoder) -> None:
    assert list(decoder.answer([])) == []


@pytest.mark.parametrize("max_new_tokens", [1, 2, 3, 5, 9, 40])
def test_grounded_answers_always_hold_strings_of_the_passage_in_order(grounded: Decoder, max_new_tokens: int) -> None:
    answers = list(grounded.answer(REQUESTS, max_new_tokens=max_new_tokens))
    assert [len(row) for row in answers] == [len(request.types) for request in REQUESTS]
    for request, row in zip(REQUESTS, answers, strict=True):
        for answer in row:
            strings = read_answer(answer.text)
            assert strings is not None
            assert answer.text == write_answer(strings)
            assert all(string and string in request.text for string in strings)
            assert len(answer.tokens) <= max_new_tokens
            assert [string for string, _ in answer.scored_strings() or []] == [s for s in strings if s.strip()]
            assert all(0 <= score <= 1 for _, score in answer.scored_strings() or [])
            if max_new_tokens == 1:
                assert strings == []


def test_grounded_answers_find_something(grounded: Decoder) -> None:
    """Otherwise the test above could pass with empty lists only."""
    answers = list(grounded.answer(REQUESTS, max_new_tokens=40))
    assert sum(len(read_answer(answer.text) or []) for row in answers for answer in row) >= 3
    assert any(answer.complete for row in answers for answer in row)


def test_grounded_answers_do_not_depend_on_the_batch(grounded: Decoder) -> None:
    together = list(grounded.answer(REQUESTS, max_new_tokens=16))
    apart = list(grounded.answer(REQUESTS, max_new_tokens=16, token_budget=1))
    assert tokens_of(together) == tokens_of(apart)


def test_a_student_that_wants_to_end_at_once_still_answers_with_a_list(
    grounded: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Grounded decoding takes the best allowed token, however unlikely: here all but the end token are at -30."""

    read = Packed.read

    def ends(packed: Packed, rows: list[Tokens], last: int) -> torch.Tensor:
        logits = torch.full_like(read(packed, rows, last), -30.0)
        logits[..., min(grounded.eos)] = 0.0
        return logits

    monkeypatch.setattr(Packed, "read", ends)
    [[answer]] = grounded.answer([Request("Rome", ["city"])], max_new_tokens=8)
    assert isinstance(read_answer(answer.text), list)


@pytest.fixture
def script(grounded: Decoder, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[int]]:
    """Make the model prefer a given text; returns a list to which each pass adds the tokens it reads."""

    def write(
        text: str, decoder: Decoder = grounded, preference: Callable[[int], float] = lambda n: 20.0
    ) -> list[int]:
        encoded = decoder.tokenizer.encode(text, add_special_tokens=False)
        tokens, begin, passes = [*encoded, min(decoder.eos)], [], []
        read = Packed.read

        def scripted(packed: Packed, rows: list[Tokens], last: int) -> torch.Tensor:
            logits = torch.zeros_like(read(packed, rows, last))
            begin.append(rows[0].positions[-1])  # in the first pass: that of the prompt's last token
            for place, position in enumerate(rows[0].positions[-last:]):
                number = min(position - begin[0], len(tokens) - 1)
                logits[0, place, tokens[number]] = preference(number)
            passes.append(last)
            return logits

        monkeypatch.setattr(Packed, "read", scripted)
        return passes

    return write


@pytest.mark.parametrize(
    ("text", "strings"),
    [
        ("Angela Merkel met Barack Obama in Berlin.", ["Angela Merkel", "Barack Obama"]),
        ("Angela Merkel met Barack Obama in Berlin.", []),
        (TEXTS[2], ["Sony", "Tokyo's", "fair\n(5", '" \\o/', "naïve", "東京", "👩\u200d💻."]),
        ("a\x00b\x00", ["a", "\x00", "b"]),
        ("New York New", ["New York", "York"]),
    ],
)
@pytest.mark.parametrize("free", [False, True])
def test_what_the_student_wants_to_say_is_what_it_says(
    grounded: Decoder, script: Script, text: str, strings: list[str], free: bool
) -> None:
    wanted = write_answer(order_strings((text.index(string), string) for string in strings))
    passes = script(wanted)
    [[answer]] = grounded.answer([Request(text, ["x"])], grounded=not free)
    assert answer.text == wanted
    assert answer.complete
    assert all(score > 0.99 for _, score in answer.scored_strings() or [])
    assert [string for string, _ in answer.scored_strings() or []] == strings
    assert len(passes) <= len(answer.tokens) + free  # the end token costs a pass only without the grammar


def test_what_the_passage_foretells_saves_passes_and_changes_nothing(
    grounded: Decoder, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = '["Angela Merkel", "Barack Obama"]'
    passes = script(wanted)
    request = Request("Angela Merkel met Barack Obama in Berlin.", ["x"])
    [[ahead]] = grounded.answer([request])
    drafted = len(passes)
    monkeypatch.setattr(decoding, "DRAFT", 0)
    [[plain]] = grounded.answer([request])
    assert ahead == plain and ahead.text == wanted
    assert len(passes) - drafted == len(plain.tokens)
    assert drafted < 0.7 * len(plain.tokens)


def test_a_loop_is_foretold(grounded: Decoder, script: Script) -> None:
    wanted = '["' + '", "'.join(["Rome", "Paris"] * 8)
    passes = script(wanted)
    [[answer]] = grounded.answer([Request("Rome, Paris.", ["x"])], grounded=False)
    assert answer.text == wanted and len(passes) < 0.5 * len(answer.tokens)


def test_a_student_that_repeats_itself_has_ended(grounded: Decoder, script: Script) -> None:
    script('["Rome", "Paris", "Paris", "Paris"]')
    [[answer]] = grounded.answer([Request("Rome, Paris, Oslo.", ["x"])])
    assert (answer.text, answer.complete) == ('["Rome", "Paris"]', True)
    assert all(score > 0.99 for _, score in answer.scored_strings() or [])


def test_an_ungrounded_wish_is_kept_only_when_free(grounded: Decoder, script: Script) -> None:
    request = Request("Angela Merkel met Barack Obama in Berlin.", ["x"])
    script('["Rome"]')
    [[free]] = grounded.answer([request], grounded=False)
    assert read_answer(free.text) == ["Rome"]
    [[held]] = grounded.answer([request], max_new_tokens=24)
    assert all(string in request.text for string in read_answer(held.text) or ["no list"])


def test_a_string_the_grammar_forces_on_the_student_is_no_answer(
    grounded: Decoder, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("open_ner.answers.FORCED", 0.5)
    script('["Rome"]')
    [[held]] = grounded.answer([Request("Angela Merkel met Barack Obama in Berlin.", ["x"])], max_new_tokens=24)
    assert (held.text, held.scored_strings()) == ("[]", [])
    script('["Berlin"]')
    [[own]] = grounded.answer([Request("Angela Merkel met Barack Obama in Berlin.", ["x"])], max_new_tokens=24)
    assert own.text == '["Berlin"]' and not any(own.deficits)


@pytest.mark.parametrize(("deficit", "kept"), [(0.0, ["Rome", "oslo"]), (3.0, ["Rome", "oslo"]), (12.0, ["Rome"])])
def test_strings_are_dropped_by_what_the_student_would_have_written(
    deficit: float, kept: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each character is a token; one of "oslo" has a deficit: with 3, the mean ratio is 0.61, with 12 it is 0.14."""
    monkeypatch.setattr("open_ner.answers.FORCED", 0.5)
    text = '["Rome", "oslo"]'
    deficits = [deficit if begin == text.index("o", 9) else 0.0 for begin in range(len(text))]
    answer = Answer(text, [5] * len(text), [-0.1] * len(text), list(range(1, len(text) + 1)), True, deficits)
    scores = dict(answer.scored_strings() or [])
    answer.drop_forced()
    assert read_answer(answer.text) == kept
    assert answer.scored_strings() == [(string, scores[string]) for string in kept]


def test_a_cut_answer_keeps_its_closed_strings_and_their_scores(grounded: Decoder, script: Script) -> None:
    script('["Angela Merkel", "Barack Obama"]')
    length = len(grounded.tokenizer.encode('["Angela Merkel", "Bar'))
    request = Request("Angela Merkel met Barack Obama in Berlin.", ["x"])
    [[answer]] = grounded.answer([request], max_new_tokens=length)
    assert answer.text == '["Angela Merkel"]'
    assert not answer.complete
    [(string, score)] = answer.scored_strings() or []
    assert (string, score > 0.99) == ("Angela Merkel", True)


@pytest.mark.parametrize("free", [False, True])
def test_scores_after_a_character_of_several_tokens_are_those_of_their_own_tokens(
    tiny_student: Path, tmp_path: Path, script: Script, free: bool
) -> None:
    folder = kinds.base_student(tiny_student, "llama_like", tmp_path / "student")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = kinds.NO_END.replace("'assistant: '", "'assistant:'")
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    decoder, wanted = Decoder(model, tokenizer), '["日本🙂", "Rome", "Oslo"]'
    tokens = tokenizer.encode(wanted, add_special_tokens=False)
    written = [b"".join(decoder.token_bytes[token] for token in tokens[: n + 1]) for n in range(len(tokens))]
    ends = [0, *(len(so_far.decode(errors="ignore").lstrip()) for so_far in written)]
    rome = {n for n in range(len(tokens)) if ends[n + 1] > 8 and ends[n] < 14}  # that write a part of "Rome"
    script(wanted, decoder, lambda n: 8.0 if n in rome else 20.0)
    inference: list[bool] = []
    handle = model.register_forward_hook(lambda module, args, output: inference.append(output.logits.is_inference()))
    [[answer]] = decoder.answer([Request("日本🙂 and Rome and Oslo", ["city"])], grounded=not free)
    handle.remove()
    assert answer.text == wanted and not any(inference)  # FSDP cannot train after inference mode
    weak = 8 - math.log(math.exp(8) + model.config.vocab_size - 1)
    assert dict(answer.scored_strings() or []) == {
        "日本🙂": pytest.approx(1, abs=1e-3), "Rome": pytest.approx(math.exp(weak), abs=2e-3),
        "Oslo": pytest.approx(1, abs=1e-3),
    }  # fmt: skip


@pytest.mark.parametrize("opening", [['["'], ["[", '"'], [" [", "\n", '"']])
def test_the_score_is_what_opens_the_list_times_the_mean_of_the_strings_own(opening: list[str]) -> None:
    tokens = [*opening, "Ro", "me", '", "', "Oslo", '"]']
    logprobs = [-0.1] * len(opening) + [-0.2, -0.4, -0.3, -1.0, -0.5]
    ends = [len("".join(tokens[: i + 1])) for i in range(len(tokens))]
    answer = Answer("".join(tokens), list(range(len(tokens))), logprobs, ends, True)
    occurs = -0.1 * len(opening)  # the tokens up to the first quote, which say that the list is not empty
    rome, oslo = math.exp(occurs - (0.1 + 0.2 + 0.4 + 0.3) / 4), math.exp(occurs - (0.3 + 1.0 + 0.5) / 3)
    assert answer.scored_strings() == [("Rome", pytest.approx(rome)), ("Oslo", pytest.approx(oslo))]


@pytest.mark.parametrize(
    ("text", "strings"),
    [('["Rome", "Rome"]', ["Rome"]), ('[ "a\\"b" ,\n"c]" ]', ['a"b', "c]"]), ('["\\u00e9"]', ["é"]), ("[]", [])],
)
def test_every_string_of_a_readable_answer_is_scored(text: str, strings: list[str]) -> None:
    answer = Answer(text, list(range(len(text))), [-0.5] * len(text), list(range(1, len(text) + 1)), True)
    score = math.exp(-0.5 * (text.find('"') + 1) - 0.5)
    assert answer.scored_strings() == [(string, pytest.approx(score)) for string in strings]


@pytest.mark.parametrize("text", ["", "no list", '["Rome', "[1]", "{}"])
def test_an_unreadable_answer_has_no_strings(text: str) -> None:
    assert Answer(text, [5], [-0.5], [len(text)]).scored_strings() is None


@pytest.mark.parametrize("is_grounded", [True, False])
def test_too_long_a_passage_is_refused_with_its_numbers(decoder: Decoder, is_grounded: bool) -> None:
    text = "word " * 3000
    prompt = decoder.tokenizer.apply_chat_template(
        build_query(text, "city"), add_generation_prompt=True, return_dict=False
    )
    with pytest.raises(ValueError, match=rf"15000 characters needs {len(prompt)} tokens and 7 .* has 2048 positions"):
        list(decoder.answer([Request(text, ["city"])], max_new_tokens=7, grounded=is_grounded))


def test_a_passage_that_just_fits_is_answered(decoder: Decoder) -> None:
    prompt = decoder.tokenizer.apply_chat_template(
        build_query("x", "city"), add_generation_prompt=True, return_dict=False
    )
    room = 2048 - len(prompt)
    [[answer]] = decoder.answer([Request("x", ["city"])], max_new_tokens=room, grounded=False)
    assert answer.complete
    with pytest.raises(ValueError, match="2048 positions"):
        list(decoder.answer([Request("x", ["city"])], max_new_tokens=room + 1))


@pytest.mark.parametrize("request_", [Request("a\ud800", ["city"]), Request("a", ["ci\udfffty"])])
def test_lone_surrogates_are_refused(decoder: Decoder, request_: Request) -> None:
    with pytest.raises(ValueError, match="surrogate"):
        list(decoder.answer([request_]))


def test_the_bytes_of_the_vocabulary_spell_every_text(grounded: Decoder) -> None:
    text = 'naïve 東京 👩‍💻 \x00\n\\"'
    tokens = grounded.tokenizer.encode(text)
    assert b"".join(grounded.token_bytes[token] for token in tokens).decode() == text
    assert [grounded.token_bytes[token] for token in (0, 1, 2)] == [b"", b"", b""]
