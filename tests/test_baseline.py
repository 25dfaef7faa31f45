"""Baselines: how their replies are read, and the ones that run in process on tiny random models."""

from collections import Counter
from pathlib import Path

import pytest

from ner_sets.benchmarks import BenchmarkPassage, Query
from ner_sets.config import BenchmarkConfig
from open_ner.tools.errors import UserError
from zero_shot.baseline import BaselineConfig, LocalBaseline, baseline_lines, read, render, requests_of
from zero_shot.scoring import score
from zero_shot.suite import Benchmark, SuiteConfig

TEXT = "Rome met Oslo; Rome won."
SUITE = SuiteConfig(name="s", benchmarks=["b"], protocol="p", max_new_tokens=8)


def config(**changes: str) -> BaselineConfig:
    given = {"name": "mine", "model": "m", "user": "{{ text }} {{ type }}", "verified_in": "here"}
    return BaselineConfig(**{**given, **changes})


@pytest.mark.parametrize(
    ("reply", "strings"),
    [
        ('["Rome"]', ["Rome"]),
        ('Sure! Here it is:\n```json\n["Rome",\n "Oslo"]\n``` [1]', ["Rome", "Oslo"]),
        ("The list [of cities] is []", []),
        ('[1, 2] ["Rome"]', ["Rome"]),
        ("none", None),
        ("['Rome']", None),
        ('["Rome', None),
        ("[" * 5000, None),
        ('Perhaps ["Oslo"]?\n</think>\n["Rome"]', ["Rome"]),
    ],
)
def test_the_first_list_of_strings_in_prose_is_read(reply: str, strings: list[str] | None) -> None:
    found, _ = read(config(), reply, "stop", TEXT, ["city"])
    assert found == (None if strings is None else {"city": strings})


@pytest.mark.parametrize(
    ("reply", "strings", "not_asked"),
    [
        ("city: Rome; city: Oslo", {"city": ["Rome", "Oslo"], "river": []}, 0),
        ("City: Rome; planet: Mars;", {"city": ["Rome"], "river": []}, 1),
        ("city: 10:30", {"city": ["10:30"], "river": []}, 0),
        (" None.", {"city": [], "river": []}, 0),
        ("no idea", None, 0),
        ("", None, 0),
    ],
)
def test_instructuies_lines_are_read(reply: str, strings: dict | None, not_asked: int) -> None:
    found = read(config(per="passage", reply="lines"), reply, "stop", TEXT, ["city", "river"])
    assert found == (strings, not_asked)


def test_tuples_are_read_as_the_builder_reads_them() -> None:
    tuples = config(per="passage", reply="tuples")
    assert read(tuples, '[("Rome", "City")]', "stop", TEXT, ["city"])[0] == {"city": ["Rome"]}
    assert read(tuples, "[]", "stop", TEXT, ["city"])[0] == {"city": []}
    assert read(tuples, '[("Rome", "City"', "length", TEXT, ["city"])[0] is None


def test_lines_keep_the_reply_and_give_the_scorer_a_list() -> None:
    lines = config(per="passage", reply="lines")
    passage = BenchmarkPassage("p", TEXT, [Query("city", '["Rome", "Oslo"]', [(0, 4), (9, 13), (15, 19)])])
    reply = "city: Oslo; city: Rome; city: Paris"
    [line] = baseline_lines(lines, "b", passage, [(reply, "stop")], Counter(), SUITE)
    assert line["raw"] == '["Rome", "Oslo", "Paris"]' and line["reply"] == reply
    assert [(span["start"], span["end"]) for span in line["spans"]] == [(0, 4), (9, 13), (15, 19)]


@pytest.mark.parametrize("reply", ['["Oslo", "Rome"]', ' ["Oslo",\n"Rome"]\n'])
def test_a_plain_list_is_given_to_the_scorer_word_for_word(reply: str) -> None:
    passage = BenchmarkPassage("p", TEXT, [Query("city", '["Rome", "Oslo"]', [(0, 4), (9, 13), (15, 19)])])
    [line] = baseline_lines(config(), "b", passage, [(reply, "stop")], Counter(), SUITE)
    assert line["raw"] == reply and "reply" not in line


@pytest.mark.parametrize("reply", ['```json\n["Oslo", "Rome"]\n```', '<think>Well.</think>["Oslo", "Rome"]'])
def test_a_list_in_a_fence_or_after_thoughts_scores_the_same_with_every_scorer(reply: str) -> None:
    passage = BenchmarkPassage("p", TEXT, [Query("city", '["Rome", "Oslo"]', [(0, 4), (9, 13), (15, 19)])])
    [line] = baseline_lines(config(), "b", passage, [(reply, "stop")], Counter(), SUITE)
    assert (line["raw"], line["reply"]) == ('["Oslo", "Rome"]', reply)
    assert [score([line], scorer)["f1"] for scorer in ("official", "strict")] == [pytest.approx(1)] * 2


def test_a_template_with_unknown_variables_is_a_one_line_error() -> None:
    with pytest.raises(UserError, match="text, types"):
        render(config(user="{{ passage }}"), TEXT, ["city"])
    with pytest.raises(UserError, match="mine"):
        render(config(user="{{ ''.__class__.__mro__ }}"), TEXT, ["city"])


def test_a_baseline_that_asks_all_types_at_once_cannot_ask_other_wordings() -> None:
    passage = BenchmarkPassage("p", TEXT, [Query("city", "[]", []), Query("city", "[]", [], "town", 1)])
    with pytest.raises(UserError, match="wordings"):
        requests_of(config(per="passage", reply="tuples"), passage)


def test_a_causal_and_a_seq2seq_baseline_run_in_process(tiny_student: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

    tokenizer = AutoTokenizer.from_pretrained(tiny_student)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    special = {"pad_token_id": 0, "decoder_start_token_id": 0, "eos_token_id": tokenizer.eos_token_id}
    T5ForConditionalGeneration(T5Config(vocab_size=len(tokenizer), **sizes, **special)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    queries = [Query("city", "[]", []), Query("river", "[]", [])]
    passages = [BenchmarkPassage("p0", TEXT, queries), BenchmarkPassage("p1", TEXT + " And Bern.", queries)]
    data = Benchmark(BenchmarkConfig(name="b", path="b", format="offsets"), passages, 2)
    for where, model in (("causal", tiny_student), ("seq2seq", tmp_path)):
        asker = LocalBaseline(config(where=where, model=str(model)))
        lines = list(asker.ask([(data, passage) for passage in passages], SUITE))
        assert [[line["type"] for line in own] for own in lines] == [["city", "river"]] * 2
        assert asker.record["kind"] == "baseline" and asker.record["revision"]
        other = LocalBaseline(config(where=where, model=str(model), user="{{ text }}: {{ type }}?"))
        assert other.record != asker.record  # predictions of another prompt are those of another run


def test_a_list_about_all_types_is_refused_before_anything_is_asked() -> None:
    with pytest.raises(UserError, match="a list names no types"):
        config(per="passage", reply="list")


def test_a_prompt_beyond_the_models_positions_counts_as_unread_and_stops_nothing(tiny_student: Path) -> None:
    texts = (TEXT, "word " * 5000, TEXT)
    passages = [BenchmarkPassage(str(n), text, [Query("city", "[]", [])]) for n, text in enumerate(texts)]
    data = Benchmark(BenchmarkConfig(name="b", path="b", format="offsets"), passages, 3)
    asker = LocalBaseline(config(where="causal", model=str(tiny_student)))
    lines = [line for own in asker.ask([(data, passage) for passage in passages], SUITE) for line in own]
    assert asker.faults["too_long"] == 1 and lines[1]["parse_failure"] and lines[1]["raw"] == ""
    assert lines[0]["raw"] == lines[2]["raw"] != ""
