"""The student's tokenizer: prepared for training, or rejected with one line before any weights are read."""

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

import kinds
from open_ner.conversation import SYSTEM, build_conversation
from open_ner.tools.errors import UserError
from sft.tokenizer import UNINER, load_tokenizer, read_max_positions


def test_a_chat_model_keeps_its_own_template(tiny_student: Path) -> None:
    tokenizer = load_tokenizer(str(tiny_student))
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(tiny_student).chat_template


@pytest.mark.parametrize(
    ("kind", "begin", "end"), [("gpt2_like", "<|endoftext|>", "<|endoftext|>"), ("llama_like", "<s>", "</s>")]
)
def test_a_base_model_gets_the_papers_template(
    kind: str, begin: str, end: str, tiny_student: Path, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(str(kinds.base_student(tiny_student, kind, tmp_path / "base")))
    text = tokenizer.apply_chat_template(build_conversation("a b", [("x", ["b"]), ("y", [])]), tokenize=False)
    assert text == (
        f"{begin}{SYSTEM} USER: Text: a b ASSISTANT: I've read this text.{end}"
        f'USER: What describes x in the text? ASSISTANT: ["b"]{end}'
        f"USER: What describes y in the text? ASSISTANT: []{end}"
    )
    assert "generation" not in tokenizer.chat_template.replace("add_generation_prompt", "")
    assert tokenizer.pad_token_id is not None


def test_a_tokenizer_without_a_start_token_begins_with_the_text(tiny_student: Path) -> None:
    tokenizer = kinds.gpt2_like(tiny_student)
    tokenizer.chat_template, tokenizer.bos_token = UNINER.read_text(), None
    assert tokenizer.apply_chat_template(build_conversation("a", []), tokenize=False).startswith(SYSTEM)


def test_a_tokenizer_without_an_end_token_is_refused(tiny_student: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_student)
    tokenizer.eos_token = None
    shutil.copytree(tiny_student, tmp_path / "endless")
    tokenizer.save_pretrained(tmp_path / "endless")
    with pytest.raises(UserError, match="no end-of-sequence token"):
        load_tokenizer(str(tmp_path / "endless"))


def test_an_adapter_is_refused_with_its_base(tiny_student: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    AutoTokenizer.from_pretrained(tiny_student).save_pretrained(adapter)
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/base"}))
    with pytest.raises(UserError, match="is an adapter, not a model: give its base, org/base"):
        load_tokenizer(str(adapter))


def test_a_student_that_is_not_there_gives_a_one_line_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be loaded"):
        load_tokenizer(str(tmp_path / "absent"))
    with pytest.raises(UserError, match="cannot be loaded"):
        load_tokenizer("no such/name at all")


def test_the_position_limit_is_read_without_the_weights(tiny_student: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((tiny_student / "config.json").read_bytes())
    assert read_max_positions(str(tmp_path)) == 2048
