"""The token budget of a conversation: its counts equal those of training."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from dataset_builder.dataset.token_budget import TURN_TOKENS, TokenBudget
from open_ner.conversation import build_conversation, neutralize, passage_turns
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
    assert budget.count(messages) == len(student(rendered, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("template", [None, "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }} {% endfor %}"])
def test_queries_are_split_into_the_fewest_conversations_that_fit(
    template: str | None, tiny_student: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_student, tmp_path / "student")
    if template:
        (folder / "chat_template.jinja").write_text(template)
    budget = TokenBudget(str(folder), 10**6)
    queries = [(f"type {i}", ["Ada"] * (i % 2)) for i in range(9)]
    queries[4] = ("far too long " * 50, [])
    budget.limit = budget.count(build_conversation("Ada", queries[:2]))
    parts, too_long = budget.split("Ada", queries)
    assert too_long == [queries[4]] and len(parts) > 1
    assert [query for part in parts for query in part] == queries[:4] + queries[5:]
    for part, following in zip(parts, [*parts[1:], []], strict=True):
        assert budget.count(build_conversation("Ada", part)) <= budget.limit
        if following:
            assert budget.count(build_conversation("Ada", [*part, following[0]])) > budget.limit


def test_without_a_chat_template_every_turn_has_an_upper_bound(tmp_path: Path) -> None:
    counter = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    counter.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    counter.save(str(tmp_path / "tokenizer.json"))
    messages = build_conversation("one two", [])
    words = sum(len(message["content"].split()) for message in messages)
    assert TokenBudget(str(tmp_path), 100).count(messages) == words + 3 * TURN_TOKENS


def test_a_template_that_refuses_a_conversation_gives_a_one_line_error(tiny_student: Path, tmp_path: Path) -> None:
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
        counts = [TokenBudget(str(student), 100).count(passage_turns("a")) for student in (folder, tiny_student)]
        assert counts[0] == counts[1]
