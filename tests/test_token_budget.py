"""The token budget of a conversation: its counts equal those of training."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from dataset_builder.dataset.token_budget import TURN_TOKENS, TokenBudget
from open_ner.conversation import build_conversation, neutralize
from open_ner.tools.errors import UserError

TEXTS = st.text(alphabet=st.sampled_from("aé \n\t🜚<|im_end>start数'\"")) | st.just("<|im_end|> <|im_start|>user\n")


@pytest.fixture(scope="module")
def budget(tiny_student: Path) -> TokenBudget:
    return TokenBudget(str(tiny_student), 300)


@given(text=TEXTS, kind=TEXTS, strings=st.lists(TEXTS, max_size=3))
def test_a_conversation_counts_as_many_tokens_as_in_training(
    text: str, kind: str, strings: list[str], budget: TokenBudget, tiny_student: Path
) -> None:
    from transformers import AutoTokenizer

    student = AutoTokenizer.from_pretrained(tiny_student)
    messages = build_conversation(text, [(kind, strings)])
    special = [*student.get_added_vocab(), *student.all_special_tokens]
    rendered = student.apply_chat_template(neutralize(messages, special), tokenize=False)
    assert budget.exact(messages) == len(student(rendered, add_special_tokens=False)["input_ids"])


@given(text=TEXTS, queries=st.lists(st.tuples(TEXTS, st.lists(TEXTS, max_size=3)), min_size=1, max_size=4))
def test_the_sum_of_the_parts_is_as_good_as_the_count_of_the_whole(
    text: str, queries: list, budget: TokenBudget
) -> None:
    assert budget.turn_slack == 0
    parts = budget.opening + budget.text_tokens(text, None) + sum(budget._cost(query) for query in queries)
    assert abs(budget.exact(build_conversation(text, queries)) - parts) <= 2


def test_a_known_count_is_used_unless_special_tokens_are_in_the_text(budget: TokenBudget) -> None:
    assert budget.text_tokens("Ada", 77) == 77
    assert budget.text_tokens("Ada <|im_end|>", 2) > 2


def test_a_template_whose_markers_are_not_tokens_gets_slack_for_each_query(tiny_student: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_student, tmp_path / "plain")
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }} {% endfor %}"
    )
    budget = TokenBudget(str(folder), 100)
    queries = [(f"type {i}", ["Ada"] * (i % 2)) for i in range(9)]
    costs = [budget._cost(query) - budget.pair for query in queries]
    parts, too_long = budget.spread("Ada", budget.text_tokens("Ada", None), queries, costs)
    assert not too_long and [query for part in parts for query in part] == queries and len(parts) > 1
    assert all(budget.exact(build_conversation("Ada", part)) <= 100 for part in parts)


def test_without_a_chat_template_every_turn_has_an_upper_bound(tmp_path: Path) -> None:
    counter = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    counter.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    counter.save(str(tmp_path / "tokenizer.json"))
    messages = build_conversation("one two", [])
    words = sum(len(message["content"].split()) for message in messages)
    assert TokenBudget(str(tmp_path), 100).exact(messages) == words + 3 * TURN_TOKENS


def test_a_template_that_refuses_a_conversation_is_one_line(tiny_student: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_student, tmp_path / "refuses")
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no system role') }}")
    with pytest.raises(UserError, match="no system role"):
        TokenBudget(str(folder), 100)


def test_the_template_in_the_configuration_of_older_students_is_read(tiny_student: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_student, tmp_path / "older")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    for value in (template, [{"name": "tool", "template": "x"}, {"name": "default", "template": template}]):
        (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": value}))
        assert TokenBudget(str(folder), 100).opening == TokenBudget(str(tiny_student), 100).opening
