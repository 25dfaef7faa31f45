"""Annotated passages become conversations: which queries, in which order, within the token budget."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_builder.config import DatasetConfig
from dataset_builder.dataset.conversations import ConversationCounts, count_types, to_conversations
from dataset_builder.dataset.negatives import NegativeSampler
from dataset_builder.dataset.token_budget import TokenBudget
from dataset_builder.rejects import Reject
from open_ner.conversation import ACKNOWLEDGEMENT, SYSTEM
from open_ner.tools.errors import UserError
from test_uniner_distill import TEXT, WHOLE, corpus, row


def conversations(
    rows: list[dict],
    options: DatasetConfig = WHOLE,
    student: Path | None = None,
    types: Counter[str] | None = None,
    counts: ConversationCounts | None = None,
) -> list[dict[str, Any]]:
    samplers = {"": NegativeSampler(count_types(rows) if types is None else types, options.negatives, options.seed)}
    budget = TokenBudget(str(student), options.max_conversation_tokens) if student else None
    return list(to_conversations(rows, samplers, {"": options}, budget, counts or ConversationCounts()))


def asked(conversation: dict[str, Any]) -> dict[str, list[str]]:
    """The types that a conversation asks and their answers, as the student sees them."""
    turns = conversation["messages"][3:]
    names = [re.fullmatch(r"What describes (.+) in the text\?", turn["content"])[1] for turn in turns[::2]]
    return dict(zip(names, [json.loads(turn["content"]) for turn in turns[1::2]], strict=True))


def test_the_dialogue_is_that_of_the_paper() -> None:
    (built,) = conversations([row("p", person=["Ada"])])
    assert built["messages"] == [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": f"Text: {TEXT}"},
        {"role": "assistant", "content": ACKNOWLEDGEMENT},
        {"role": "user", "content": "What describes person in the text?"},
        {"role": "assistant", "content": '["Ada"]'},
    ]
    assert (built["id"], built["source"], built["negatives"]) == ("p", "news", [])


def test_strings_are_distinct_in_order_of_appearance_and_the_longer_first() -> None:
    (built,) = conversations([row("p", name=["Rome", "Charles", "Ada", "Ada Byron"])])
    assert asked(built) == {"name": ["Ada Byron", "Ada", "Charles", "Rome"]}
    assert len(built["entities"]) == 6


def test_an_answer_keeps_quotes_and_letters_outside_ascii() -> None:
    text = 'Łódź has the "Żuraw".'
    (built,) = conversations([row("p", text, place=["Łódź", '"Żuraw"'])])
    assert built["messages"][-1]["content"] == r'["Łódź", "\"Żuraw\""]'


def mixed(line: bool = True, counts: ConversationCounts | None = None) -> list[dict[str, Any]]:
    """A distilled passage and passages of two sets, each asked by its own options."""
    sets = {"": {"person": 3, "city": 2, "river": 1}, "a": {"person": 1, "place": 0}, "b": {"gene": 5, "cell": 1}}
    options = {
        "": DatasetConfig(max_conversation_tokens=10**5, negatives_per_passage=1, max_queries=2),
        "a": DatasetConfig(max_conversation_tokens=10**5, negatives="uniform", negatives_per_passage=10**6),
        "b": DatasetConfig(max_conversation_tokens=10**5, negatives="none"),
    }
    samplers = {name: NegativeSampler(types, options[name].negatives, 1) for name, types in sets.items()}
    rows = [
        row("p", person=["Ada"], city=["Rome"]), row("a/1", person=["Ada"]) | {"dataset": "a"},
        row("b/1", gene=["Ada"]) | {"dataset": "b"}, row("b/2") | {"dataset": "b"},
    ]  # fmt: skip
    return list(to_conversations(rows, samplers, options, None, counts or ConversationCounts(), line))


def test_each_set_is_asked_its_own_types_by_its_own_options() -> None:
    counts = ConversationCounts()
    distilled, a, b = mixed(counts=counts)
    assert len(asked(distilled)) == 2 and set(asked(distilled)) <= {"person", "city", "river"}
    assert asked(a) == {"person": ["Ada"], "place": []} and asked(b) == {"gene": ["Ada"]}
    assert [row["dataset"] for row in (distilled, a, b)] == ["", "a", "b"]
    assert counts.queries == {"": 2, "a": 2, "b": 1} and counts.conversations == {"": 1, "a": 1, "b": 1}
    assert counts.negative_queries["a"] == 1 and counts.rejects == [Reject("b/2", "nothing_to_ask")]


@pytest.mark.parametrize("line", [True, False])
def test_the_line_of_a_set_is_an_option_and_its_name_stays_in_its_column(line: bool) -> None:
    distilled, a, b = mixed(line)
    openings = [built["messages"][1]["content"] for built in (distilled, a, b)]
    assert openings == [f"{header if line else ''}Text: {TEXT}" for header in ("", "Dataset: a\n", "Dataset: b\n")]
    assert [built["dataset"] for built in (distilled, a, b)] == ["", "a", "b"]


def test_absent_types_are_asked_and_answered_with_an_empty_list() -> None:
    everything = conversations(corpus(12))
    assert len(everything) == 12
    for built in everything:
        answers = asked(built)
        present = {entity["type"] for entity in built["entities"]}
        assert len(present) == 3 and len(built["negatives"]) == 3
        assert {name for name, strings in answers.items() if strings} == present
        assert {name for name, strings in answers.items() if not strings} == set(built["negatives"])


@pytest.mark.parametrize(
    ("options", "negatives"),
    [
        ({"negatives": "none"}, 0),
        ({"negative_ratio": 0.5}, 2),
        ({"negative_ratio": 0.0}, 0),
        ({"negatives_per_passage": 1}, 1),
        ({"negatives_per_passage": 0}, 0),
        ({"negatives_per_passage": 99}, 3),
    ],
)
def test_the_number_of_absent_types_is_that_of_the_options(options: dict[str, Any], negatives: int) -> None:
    built = conversations(corpus(6), DatasetConfig(max_conversation_tokens=100_000, **options))
    assert [len(line["negatives"]) for line in built] == [negatives] * 6


def test_the_seed_fixes_everything_and_another_seed_shuffles() -> None:
    rows = corpus(8)
    assert conversations(rows) == conversations(rows)
    other = conversations(rows, DatasetConfig(max_conversation_tokens=100_000, seed=7))
    assert [list(asked(built)) for built in other] != [list(asked(built)) for built in conversations(rows)]


def test_present_and_absent_types_are_mixed() -> None:
    first = Counter(bool(next(iter(asked(built).values()))) for built in conversations(corpus(60)))
    assert min(first[True], first[False]) > 10


def test_queries_beyond_max_queries_are_not_asked_and_their_entities_removed() -> None:
    options = DatasetConfig(max_conversation_tokens=100_000, max_queries=2)
    not_asked = 0
    for built in conversations(corpus(12), options):
        answers = asked(built)
        assert len(answers) == 2
        assert {entity["type"] for entity in built["entities"]} | set(built["negatives"]) == set(answers)
        not_asked += 3 - len({entity["type"] for entity in built["entities"]})
    assert not_asked > 0


def test_a_repeated_string_counts_once_a_passage_and_type() -> None:
    assert count_types([row("p", person=["Ada"], city=["Rome"]), row("q", person=["Ada", "Charles"])]) == {
        "person": 3, "city": 1,
    }  # fmt: skip


def test_the_queries_of_a_passage_do_not_depend_on_other_passages() -> None:
    """The queries of a passage depend on the proportions of the vocabulary, not on order and number of the rows."""
    rows = corpus(12)
    asked_of = {built["id"]: built["messages"] for built in conversations(rows)}
    assert {built["id"]: built["messages"] for built in conversations(rows[::-1])} == asked_of
    grown = rows + [line | {"id": f"new-{i}"} for i, line in enumerate(corpus(12))]  # twice each count
    after = {built["id"]: built["messages"] for built in conversations(grown)}
    assert {name: after[name] for name in asked_of} == asked_of
    few = conversations(rows[3:5], types=count_types(rows))
    assert [built["messages"] for built in few] == [asked_of["p3"], asked_of["p4"]]


def test_a_type_outside_the_vocabulary_is_asked_and_draws_negatives() -> None:
    (built,) = conversations([row("v", held_out_type=["Ada"])], types=Counter({"city": 3, "month": 1}))
    assert {entity["type"] for entity in built["entities"]} == {"held out type"} and len(built["negatives"]) == 1


def test_the_counts_add_up() -> None:
    counts = ConversationCounts()
    built = conversations(corpus(20), DatasetConfig(max_conversation_tokens=100_000, max_queries=4), counts=counts)
    queries, negatives = counts.queries.total(), counts.negative_queries.total()
    assert queries == sum(len(asked(line)) for line in built) == 80
    assert negatives == sum(len(line["negatives"]) for line in built)
    assert counts.types_not_asked == 60 - (queries - negatives) > 0
    assert counts.rejects == []


@given(limit=st.integers(150, 420), queries=st.integers(1, 9))
def test_a_long_conversation_is_continued_and_no_query_lost_or_cut(
    limit: int, queries: int, tiny_student: Path
) -> None:
    from transformers import AutoTokenizer

    student = AutoTokenizer.from_pretrained(tiny_student)
    rows = corpus(3) + [row("é", "<|im_end|> Ada — Łódź 🜚 in Rome", person=["Ada"], city=["Łódź", "🜚"])]
    options = DatasetConfig(max_conversation_tokens=limit, negatives_per_passage=queries)
    whole = {built["id"]: asked(built) for built in conversations(rows, options)}
    counts, parts = ConversationCounts(), {}
    for built in conversations(rows, options, tiny_student, counts=counts):
        name, _, number = built["id"].partition("#")
        answers = asked(built)
        assert number == (str(len(parts[name]) + 1) if name in parts else "")
        assert built["messages"][1]["content"] == f"Text: {built['text']}"
        assert {entity["type"] for entity in built["entities"]} == {
            kind for kind, strings in answers.items() if strings
        }
        assert len(student.apply_chat_template(built["messages"], return_dict=False)) <= limit
        parts.setdefault(name, []).append(answers)
    for name, answers in whole.items():
        kept = [kind for part in parts.get(name, []) for kind in part]
        too_long = {r.type for r in counts.rejects if (r.id, r.reason) == (name, "query_too_long")}
        if Reject(name, "passage_too_long") in counts.rejects:
            assert not kept and not too_long
        else:
            assert len(kept) + len(too_long) == len(answers) and set(kept) | too_long == set(answers)
            assert {kind: strings for part in parts.get(name, []) for kind, strings in part.items()} == {
                kind: answers[kind] for kind in kept
            }


def test_what_exceeds_the_budget_is_rejected_with_a_reason(tiny_student: Path) -> None:
    long = TEXT + " Ada and Rome" * 200
    rows = [row("long", long, person=["Ada"]), row("wide", person=["Ada"], city=[TEXT[:50]]), row("p", city=["Rome"])]
    counts = ConversationCounts()
    budget = TokenBudget(str(tiny_student), 10_000)
    alone = budget.count(conversations([rows[1]], DatasetConfig(negatives="none"))[0]["messages"])
    options = DatasetConfig(negatives="none", max_conversation_tokens=alone - 5)
    built = conversations(rows, options, tiny_student, counts=counts)
    assert [(line["id"], list(asked(line))) for line in built] == [
        ("wide", ["person"]),
        ("wide#2", ["city"]),
        ("p", ["city"]),
    ]
    assert counts.rejects == [Reject("long", "passage_too_long")]
    narrow = DatasetConfig(negatives="none", max_conversation_tokens=alone - 40)
    counts = ConversationCounts()
    built = conversations(rows, narrow, tiny_student, counts=counts)
    assert [line["id"] for line in built] == ["wide", "p"]
    assert counts.rejects == [Reject("long", "passage_too_long"), Reject("wide", "query_too_long", type="city")]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("negative_ratio", -0.5),
        ("negative_ratio", float("inf")),
        ("negatives_per_passage", -1),
        ("max_queries", 0),
        ("draws", 0),
        ("max_conversation_tokens", 0),
        ("validation_one_in", -1),
    ],
)
def test_options_that_no_dataset_can_have_are_named(option: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"dataset\.{option} is {value}"):
        DatasetConfig(**{option: value})
