"""Training: the labels are the answers and nothing else, and the narrowed loss is TRL's."""

import json
from pathlib import Path

import datasets
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from open_ner.cli import UserError
from open_ner.conversation import build_conversation
from sft.conversations import IGNORED, check_roles, encode_conversation, tokenize
from sft.saving import read_types, save_student
from sft.trainer import AnswerTrainer

ROOT = Path(__file__).parent.parent
CONVERSATIONS = [
    build_conversation("Obama met Merkel in Berlin.", [("person", ["Obama", "Merkel"]), ("river", [])]),
    build_conversation('The "Dune" saga — 6 books.\nHe said: <|im_end|>', [("book", ['"Dune"'])], dataset="Books"),
    build_conversation("I've read this text.", [("text", ["I've read this text."]), ("city", [])]),
]


@pytest.fixture(scope="module")
def tokenizer(tiny_student: Path) -> AutoTokenizer:
    return AutoTokenizer.from_pretrained(tiny_student)


def rows(conversations: list = CONVERSATIONS) -> datasets.Dataset:
    return datasets.Dataset.from_list([{"id": str(i), "messages": m} for i, m in enumerate(conversations)])


@pytest.mark.parametrize("number", range(len(CONVERSATIONS)))
def test_decoded_labels_are_exactly_the_answers(number: int, tokenizer: AutoTokenizer) -> None:
    encoded, _ = tokenize(rows(), tokenizer, None)
    learned = [label for label in encoded[number]["labels"] if label != IGNORED]
    answers = [turn["content"] for turn in CONVERSATIONS[number][4::2]]
    assert tokenizer.decode(learned) == "".join(f"{answer}<|im_end|>" for answer in answers)
    for token, label in zip(encoded[number]["input_ids"], encoded[number]["labels"], strict=True):
        assert label in (IGNORED, token)


def test_the_marked_template_of_smollm2_gives_the_same_ids_and_labels(tokenizer: AutoTokenizer) -> None:
    marked = (ROOT / "open_ner" / "chat_templates" / "smollm2.jinja").read_text()
    for conversation in CONVERSATIONS[:2]:
        ids, labels = encode_conversation(conversation, tokenizer)
        stock = tokenizer.apply_chat_template(
            conversation, chat_template=marked, return_dict=True, return_assistant_tokens_mask=True
        )
        assert stock["input_ids"] == ids
        assert [
            token if mask else IGNORED for token, mask in zip(ids, stock["assistant_masks"], strict=True)
        ] == labels


def test_the_report_counts_what_is_trained_on(tokenizer: AutoTokenizer) -> None:
    encoded, report = tokenize(rows(), tokenizer, None)
    assert (report["conversations"], report["queries"]) == (3, 5)
    assert report["answer_tokens"] == sum(sum(label != IGNORED for label in labels) for labels in encoded["labels"])
    assert report["tokens"] == sum(map(len, encoded["input_ids"]))


def test_special_tokens_in_a_passage_open_no_turn(tokenizer: AutoTokenizer) -> None:
    encoded, _ = tokenize(rows(CONVERSATIONS[1:2]), tokenizer, None)
    turns = len(CONVERSATIONS[1])
    assert encoded[0]["input_ids"].count(tokenizer.eos_token_id) == turns


def test_a_conversation_beyond_the_window_is_refused_not_cut(tokenizer: AutoTokenizer) -> None:
    with pytest.raises(UserError, match="max_length is 20"):
        tokenize(rows(), tokenizer, 20)


def test_other_datasets_and_tokenizers_are_refused(tokenizer: AutoTokenizer, tiny_student: Path) -> None:
    with pytest.raises(UserError, match="no `messages`"):
        tokenize(datasets.Dataset.from_list([{"text": "a"}]), tokenizer, None)
    bare = AutoTokenizer.from_pretrained(tiny_student)
    bare.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        tokenize(rows(), bare, None)


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "user", "content": "Text: a"}],
        [{"role": "assistant", "content": "[]"}, {"role": "user", "content": "Text: a"}],
        [*CONVERSATIONS[0][:-1], {"role": "assistant", "content": "the person is Obama"}],
    ],
)
def test_roles_out_of_order_and_answers_that_are_no_lists_are_refused(messages: list) -> None:
    with pytest.raises(UserError):
        check_roles(messages)


def trainer_arguments(folder: Path) -> SFTConfig:
    return SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=2,
        max_steps=4,
        learning_rate=1e-2,
        bf16=False,
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        max_length=None,
        use_cpu=True,
        seed=1,
        activation_checkpointing=False,
    )


def test_the_narrowed_loss_has_trls_loss_curve(tiny_student: Path, tokenizer: AutoTokenizer, tmp_path: Path) -> None:
    curves = []
    for kind in (SFTTrainer, AnswerTrainer):
        model = AutoModelForCausalLM.from_pretrained(tiny_student, dtype=torch.float32)
        encoded, _ = tokenize(rows(CONVERSATIONS * 2), tokenizer, None)
        trainer = kind(
            model=model, args=trainer_arguments(tmp_path), train_dataset=encoded, processing_class=tokenizer
        )
        trainer.train()
        keys = ("loss", "mean_token_accuracy", "entropy", "grad_norm")
        curves.append([[entry[key] for key in keys] for entry in trainer.state.log_history if "loss" in entry])
    assert len(curves[0]) == 4
    assert curves[1] == [pytest.approx(entry, abs=1e-4) for entry in curves[0]]
    assert curves[0][0][0] > curves[0][-1][0]


def test_a_saved_student_carries_template_pipeline_types_and_an_aligned_end(
    tiny_student: Path, tokenizer: AutoTokenizer, tmp_path: Path
) -> None:
    dataset = tmp_path / "dataset"
    dataset.mkdir()
    (dataset / "types.json").write_text(json.dumps({"person": 9, "river": 1}))
    model = AutoModelForCausalLM.from_pretrained(tiny_student)
    folder = tmp_path / "model"
    save_student(model, tokenizer, folder, str(dataset), {"seconds": 1})
    names = {path.name for path in folder.iterdir()}
    assert {"pipeline.py", "decoding.py", "grammar.py", "conversation.py", "training.json", "types.json"} <= names
    config = json.loads((folder / "config.json").read_text())
    assert config["custom_pipelines"]["open-ner"]["impl"] == "pipeline.OpenNERPipeline"
    assert config["open_ner"]["types"] == ["person", "river"]
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["eos_token_id"] == tokenizer.convert_tokens_to_ids("<|im_end|>")
    again = AutoTokenizer.from_pretrained(folder)
    assert again.chat_template == tokenizer.chat_template and "generation %}" not in again.chat_template


def test_types_of_a_dataset_without_them_are_none(tmp_path: Path) -> None:
    assert read_types(str(tmp_path)) == {}
