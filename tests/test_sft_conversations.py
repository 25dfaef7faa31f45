"""Tokenized conversations are checked, not truncated, and counted."""

import datasets
import pytest
from transformers import AutoTokenizer

from open_ner.conversation import build_conversation
from open_ner.tools.errors import UserError
from sft.conversations import IGNORED, check_conversation, tokenize

CONVERSATIONS = [
    build_conversation("Obama met Merkel in Berlin.", [("person", ["Obama", "Merkel"]), ("river", [])]),
    build_conversation('The "Dune" saga — 6 books.\nHe said: <|im_end|>', [("book", ['"Dune"'])], dataset="Books"),
    build_conversation("I've read this text.", [("text", ["I've read this text."]), ("city", [])]),
]


@pytest.fixture(scope="module")
def tokenizer(tiny_student: str) -> AutoTokenizer:
    return AutoTokenizer.from_pretrained(tiny_student)


def rows(conversations: list = CONVERSATIONS) -> datasets.Dataset:
    return datasets.Dataset.from_list([{"id": f"p{i}", "messages": m} for i, m in enumerate(conversations)])


@pytest.mark.parametrize("number", range(len(CONVERSATIONS)))
def test_decoded_labels_are_exactly_the_answers(number: int, tokenizer: AutoTokenizer) -> None:
    encoded, _ = tokenize(rows(), tokenizer, None)
    learned = [label for label in encoded[number]["labels"] if label != IGNORED]
    answers = [turn["content"] for turn in CONVERSATIONS[number][4::2]]
    assert tokenizer.decode(learned) == "".join(f"{answer}<|im_end|>" for answer in answers)
    for token, label in zip(encoded[number]["input_ids"], encoded[number]["labels"], strict=True):
        assert label in (IGNORED, token)


def test_the_report_counts_what_is_trained_on(tokenizer: AutoTokenizer) -> None:
    encoded, report = tokenize(rows(), tokenizer, None)
    assert encoded.column_names == ["input_ids", "labels", "length"]
    assert (report["conversations"], report["queries"]) == (3, 5)
    assert report["present"] == sum(turn["content"] != "[]" for own in CONVERSATIONS for turn in own[4::2]) == 3
    assert report["answer_tokens"] == sum(sum(label != IGNORED for label in labels) for labels in encoded["labels"])
    assert report["tokens"] == sum(map(len, encoded["input_ids"])) == sum(encoded["length"])


def test_a_conversation_may_have_no_system_turn(tokenizer: AutoTokenizer) -> None:
    encoded, report = tokenize(rows([CONVERSATIONS[0][1:]]), tokenizer, None)
    assert report["queries"] == 2
    assert tokenizer.decode([i for i in encoded[0]["labels"] if i != IGNORED]).startswith(
        '["Obama", "Merkel"]<|im_end|>'
    )


def test_special_tokens_in_a_passage_open_no_turn(tokenizer: AutoTokenizer) -> None:
    encoded, _ = tokenize(rows(CONVERSATIONS[1:2]), tokenizer, None)
    turns = len(CONVERSATIONS[1])
    assert encoded[0]["input_ids"].count(tokenizer.eos_token_id) == turns


def test_more_processes_give_the_same_rows(tokenizer: AutoTokenizer) -> None:
    one, many = tokenize(rows(), tokenizer, None), tokenize(rows(), tokenizer, None, num_proc=2)
    assert one[0].to_dict() == many[0].to_dict() and one[1] == many[1]


def test_a_conversation_beyond_a_limit_is_named_not_cut(tokenizer: AutoTokenizer) -> None:
    lengths = tokenize(rows(), tokenizer, None)[0]["length"][:]
    longest = max(lengths)
    tokenize(rows(), tokenizer, longest, max_positions=longest)
    row = rf"row {lengths.index(longest)} \(id 'p{lengths.index(longest)}'\) has {longest} tokens"
    with pytest.raises(UserError, match=rf"{row} and max_length is {longest - 1} \(1 of 3"):
        tokenize(rows(), tokenizer, longest - 1)
    with pytest.raises(UserError, match=rf"{row} and the student's max_position_embeddings is 20 \(3 of 3"):
        tokenize(rows(), tokenizer, longest, max_positions=20)


def test_other_datasets_are_refused(tokenizer: AutoTokenizer) -> None:
    with pytest.raises(UserError, match="no `messages`"):
        tokenize(datasets.Dataset.from_list([{"text": "a"}]), tokenizer, None)
    with pytest.raises(UserError, match="row 0: its messages are not a list of role and content"):
        tokenize(datasets.Dataset.from_list([{"messages": "a"}]), tokenizer, None)


@pytest.mark.parametrize("processes", [None, 2])
def test_the_row_of_a_mistake_is_named(processes: int | None, tokenizer: AutoTokenizer) -> None:
    spoilt = [*CONVERSATIONS[0][:-1], {"role": "assistant", "content": "the person is Obama"}]
    with pytest.raises(UserError, match=r"row 2 \(id 'p2'\): an answer is not a JSON list of strings: 'the person"):
        tokenize(rows([*CONVERSATIONS[:2], spoilt]), tokenizer, None, num_proc=processes)


@pytest.mark.parametrize(
    ("messages", "named"),
    [
        ([], "has the roles \\(none\\)"),
        ([{"role": "user", "content": "Text: a"}], "roles user:"),
        (CONVERSATIONS[0][:3], "roles user, assistant:"),  # no query, so nothing to learn
        ([{"role": "assistant", "content": "[]"}, {"role": "user", "content": "a"}] * 2, "roles assistant, user"),
        ([*CONVERSATIONS[0], {"role": "user", "content": "a"}], "assistant, user: want"),
        ([*CONVERSATIONS[0][:-1], {"role": "assistant", "content": '["a", 1]'}], "not a JSON list of strings"),
        (
            [*CONVERSATIONS[0][:-1], {"role": "assistant", "content": None}],
            "turn of the assistant is not text: None",
        ),
        ([{"from": "human", "value": "Text: a"}], "not a list of role and content"),
        (
            [*CONVERSATIONS[0][:-2], {"role": "user", "content": "Find persons"}, CONVERSATIONS[0][-1]],
            "does not follow the open-NER dialogue",
        ),
    ],
)
def test_conversations_that_are_not_the_papers_are_refused(messages: list, named: str) -> None:
    with pytest.raises(UserError, match=named):
        check_conversation(messages)
