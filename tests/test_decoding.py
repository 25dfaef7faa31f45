"""Decoding with a tiny random student: answers equal `generate()`, and presence its probability of `[]`."""

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import kinds
from open_ner.answers import Answer
from open_ner.conversation import build_query, order_strings, write_answer
from open_ner.decoding import Decoder, Request
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
def plain(tiny_student: Path) -> Decoder:
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
    answers = list(decoder.answer(REQUESTS, free=True, max_new_tokens=24, token_budget=token_budget))
    assert tokens_of(answers) == one_by_one
    for row in answers:
        for answer in row:
            assert answer.complete == (len(answer.tokens) < 24)
            assert answer.text == decoder.tokenizer.decode(answer.tokens)
            assert len(answer.logprobs) == len(answer.ends) == len(answer.tokens)


def test_one_passage_and_one_type(decoder: Decoder, one_by_one: list[list[list[int]]]) -> None:
    [[answer]] = decoder.answer(REQUESTS[:1], free=True, max_new_tokens=24)
    assert answer.tokens == one_by_one[0][0]


def test_the_dataset_line_reaches_the_model(decoder: Decoder) -> None:
    [[answer]] = decoder.answer([Request("Rome", ["city"], "MIT Movie")], free=True, max_new_tokens=12)
    assert answer.tokens == generated(decoder, "Rome", "city", 12, dataset="MIT Movie")


def test_the_probabilities_are_those_of_the_model(decoder: Decoder) -> None:
    [[answer]] = decoder.answer([Request(TEXTS[4], ["person"])], free=True, max_new_tokens=6)
    prompt = decoder.tokenizer.apply_chat_template(
        build_query(TEXTS[4], "person"), add_generation_prompt=True, return_dict=False
    )
    with torch.inference_mode():
        logits = decoder.model(torch.tensor([prompt + answer.tokens])).logits[0, len(prompt) - 1 : -1]
    expected = torch.log_softmax(logits, -1).gather(1, torch.tensor(answer.tokens)[:, None])[:, 0]
    assert answer.logprobs == pytest.approx(expected.tolist(), abs=1e-4)


@pytest.mark.parametrize("max_new_tokens", [4, 100])
def test_no_batch_exceeds_its_budget_even_padded_or_with_long_answers(decoder: Decoder, max_new_tokens: int) -> None:
    """A long passage among short ones pads every row: the cache still holds at most `token_budget` positions.

    More was admitted than full answers would fit: what outgrows the budget goes on in a later batch.
    """
    sizes: list[int] = []

    def measure(module: Any, args: Any, options: dict[str, Any]) -> None:
        rows, _, _, columns = options["attention_mask"].shape  # columns: all positions of the cache
        sizes.append(rows * columns)

    hook = decoder.model.register_forward_pre_hook(measure, with_kwargs=True)
    requests = [Request(TEXTS[4], ["person"]), *[Request("Rome", ["person", "x"])] * 6, Request(TEXTS[4], TYPES)]
    wanted = tokens_of(list(decoder.answer(requests, free=True, max_new_tokens=max_new_tokens)))
    assert max(sizes) > 1200
    sizes.clear()
    answers = list(decoder.answer(requests, free=True, max_new_tokens=max_new_tokens, token_budget=1200))
    hook.remove()
    assert tokens_of(answers) == wanted
    assert max(sizes) <= 1200


def test_answers_come_in_the_order_of_requests_and_types(decoder: Decoder) -> None:
    requests = [*REQUESTS, Request(TEXTS[0], []), *REQUESTS]
    order = random.Random(0).sample(range(len(requests)), len(requests))
    straight = tokens_of(list(decoder.answer(requests, free=True, max_new_tokens=8, token_budget=900)))
    shuffled = tokens_of(
        list(decoder.answer([requests[i] for i in order], free=True, max_new_tokens=8, token_budget=900))
    )
    assert shuffled == [straight[i] for i in order]
    assert straight[len(REQUESTS)] == []


def test_answers_are_handed_over_before_later_requests_are_run(decoder: Decoder) -> None:
    requests = [Request(TEXTS[0], ["person"]), Request("word " * 3000, ["person"])]
    answers = decoder.answer(requests, free=True, max_new_tokens=4, token_budget=1)
    with pytest.raises(ValueError, match="2048 positions"):
        list(answers)
    streaming = decoder.answer([*requests[:1] * 3, requests[1]], free=True, max_new_tokens=4, token_budget=1)
    assert len(next(streaming)) == 1


def test_no_requests_no_answers(decoder: Decoder) -> None:
    assert list(decoder.answer([])) == []


def test_the_presence_is_the_log_odds_against_the_empty_answer(decoder: Decoder) -> None:
    """Of the probability of its tokens, up to the first one that the student does not choose."""
    requests = [Request(text, TYPES) for text in TEXTS[:3]]
    for request, answers in zip(requests, decoder.answer(requests, max_new_tokens=3), strict=True):
        for name, answer in zip(request.types, answers, strict=True):
            prompt = decoder.tokenizer.apply_chat_template(
                build_query(request.text, name), add_generation_prompt=True, return_dict=False
            )
            with torch.inference_mode():
                logits = decoder.model(torch.tensor([prompt + decoder.empty])).logits[0, len(prompt) - 1 :]
            steps, total = logits.log_softmax(-1), 0.0
            for place, token in enumerate(decoder.empty):
                total += float(steps[place, token])
                if int(steps[place].argmax()) != token:
                    break
            empty = math.exp(total)
            assert answer.presence == pytest.approx(math.log((1 - empty) / empty), abs=1e-3)


def test_the_empty_answer_is_that_of_training(decoder: Decoder) -> None:
    """The tokens of `[]` after a prompt are those of the conversation that the trainer renders."""
    messages = build_query("Rome", "date")
    prompt = decoder.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    whole = decoder.tokenizer.apply_chat_template(
        [*messages, {"role": "assistant", "content": "[]"}], return_dict=False
    )
    assert whole[len(prompt) :][: len(decoder.empty)] == decoder.empty


def test_a_presence_bias_decides_which_types_are_answered(plain: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A low one empties every answer, a high one none: then the best answer other than `[]` is written."""
    requests = [Request(text, TYPES) for text in TEXTS[:3]]
    greedy = [answer for row in plain.answer(requests, max_new_tokens=6) for answer in row]
    silent = [answer for row in plain.answer(requests, max_new_tokens=6, presence_bias=-1e3) for answer in row]
    assert all(answer.text == "[]" and answer.complete for answer in silent)
    assert [answer.presence for answer in silent] == pytest.approx([answer.presence for answer in greedy], abs=1e-3)
    ordered = sorted(answer.presence or 0.0 for answer in greedy)
    middle = -ordered[len(ordered) // 2]
    some = [answer for row in plain.answer(requests, max_new_tokens=6, presence_bias=middle) for answer in row]
    assert sum(answer.text == "[]" for answer in some) == len(ordered) // 2 + 1


def test_a_type_that_must_occur_gets_the_best_answer_but_the_empty_one(plain: Decoder, script: Script) -> None:
    script("[]")
    [[greedy]] = plain.answer([Request("Rome", ["city"])])
    [[forced]] = plain.answer([Request("Rome", ["city"])], presence_bias=1e3, max_new_tokens=4)
    assert (greedy.text, greedy.complete) == ("[]", True)
    assert forced.text != "[]" and forced.tokens[: len(plain.empty)] != plain.empty


@pytest.fixture
def script(plain: Decoder, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[int]]:
    """Make the model prefer a given text; returns a list to which each pass adds the tokens it reads."""

    def write(text: str, decoder: Decoder = plain, preference: Callable[[int], float] = lambda n: 20.0) -> list[int]:
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
    plain: Decoder, script: Script, text: str, strings: list[str], free: bool
) -> None:
    wanted = write_answer(order_strings((text.index(string), string) for string in strings))
    passes = script(wanted)
    [[answer]] = plain.answer([Request(text, ["x"])], free=free)
    assert answer.text == wanted
    assert answer.complete
    assert all(score > 0.99 for _, score in answer.scored_strings())
    assert [string for string, _ in answer.scored_strings()] == strings
    assert len(passes) == len(answer.tokens) + free  # a whole list needs no pass for the end token


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ('["Rome", "Paris", "Paris", "Paris"]', '["Rome", "Paris", "Paris"'),
        ('["Rome", "Paris"]', '["Rome", "Paris"]'),
        ('["a\\"b", "a\\"c"]', '["a\\"b", "a\\"c"]'),
    ],
)
def test_an_answer_ends_where_it_repeats_itself(plain: Decoder, script: Script, written: str, text: str) -> None:
    script(written)
    request = Request("Rome, Paris, Oslo.", ["x"])
    [[answer]] = plain.answer([request])
    [[bound]] = plain.answer([request], max_new_tokens=len(answer.tokens))
    assert bound == answer and not answer.cut  # it ends there by itself
    assert answer.text.startswith(text) and len(answer.text) <= len(text) + 2  # a token may go on behind the quote
    assert [string for string, _ in answer.scored_strings()] == list(dict.fromkeys(json.loads(written)))
    assert all(score > 0.99 for _, score in answer.scored_strings())
    [[free]] = plain.answer([request], free=True)
    assert free.text == written and free.complete


def test_a_cut_answer_keeps_its_closed_strings_and_their_scores(plain: Decoder, script: Script) -> None:
    script('["Angela Merkel", "Barack Obama"]')
    length = len(plain.tokenizer.encode('["Angela Merkel", "Bar'))
    request = Request("Angela Merkel met Barack Obama in Berlin.", ["x"])
    [[answer]] = plain.answer([request], max_new_tokens=length)
    assert answer.text.startswith('["Angela Merkel", "Bar') and not answer.text.endswith('"')
    assert answer.cut and not answer.complete
    [(string, score)] = answer.scored_strings()
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
    [[answer]] = decoder.answer([Request("日本🙂 and Rome and Oslo", ["city"])], free=free)
    handle.remove()
    assert answer.text == wanted and not any(inference)  # FSDP cannot train after inference mode
    weak = 8 - math.log(math.exp(8) + model.config.vocab_size - 1)
    assert dict(answer.scored_strings()) == {
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


@pytest.mark.parametrize(
    ("text", "strings"),
    [
        ("", []), ("no list", []), ('["Rome', []), ("[1]", []), ("{}", []), ('"Rome"', []), ('[["Rome"]]', []),
        ('["Rome", "Par', ["Rome"]), ('["Rome"', ["Rome"]), ('["Rome"] "b"', ["Rome"]),
        ('["Rome", 1, "Oslo"]', ["Rome"]),
        (' [ "Rome" , "a\nb"', ["Rome", "a\nb"]), ('["Rome", "\\x", "Oslo"]', ["Rome"]), ('["Rome" "Oslo"]', ["Rome"]),
    ],
)  # fmt: skip
def test_of_a_broken_answer_the_whole_strings_before_the_fault_are_read(text: str, strings: list[str]) -> None:
    answer = Answer(text, [5], [-0.5], [len(text)])
    assert [string for string, _ in answer.scored_strings()] == strings


def test_too_long_a_passage_is_refused_with_its_numbers(decoder: Decoder) -> None:
    text = "word " * 3000
    prompt = decoder.tokenizer.apply_chat_template(
        build_query(text, "city"), add_generation_prompt=True, return_dict=False
    )
    with pytest.raises(ValueError, match=rf"15000 characters needs {len(prompt)} tokens and 7 .* has 2048 positions"):
        list(decoder.answer([Request(text, ["city"])], max_new_tokens=7))


def test_a_passage_that_just_fits_is_answered(decoder: Decoder) -> None:
    prompt = decoder.tokenizer.apply_chat_template(
        build_query("x", "city"), add_generation_prompt=True, return_dict=False
    )
    room = 2048 - len(prompt)
    [[answer]] = decoder.answer([Request("x", ["city"])], max_new_tokens=room, free=True)
    assert answer.complete
    with pytest.raises(ValueError, match="2048 positions"):
        list(decoder.answer([Request("x", ["city"])], max_new_tokens=room + 1))


@pytest.mark.parametrize("request_", [Request("a\ud800", ["city"]), Request("a", ["ci\udfffty"])])
def test_lone_surrogates_are_refused(decoder: Decoder, request_: Request) -> None:
    with pytest.raises(ValueError, match="surrogate"):
        list(decoder.answer([request_]))


def test_the_bytes_of_the_vocabulary_spell_every_text(plain: Decoder) -> None:
    text = 'naïve 東京 👩‍💻 \x00\n\\"'
    tokens = plain.tokenizer.encode(text)
    assert b"".join(plain.token_bytes[token] for token in tokens).decode() == text
    assert [plain.token_bytes[token] for token in (0, 1, 10**6)] == [b"<|endoftext|>", b"<|im_start|>", b""]
