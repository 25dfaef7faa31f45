"""Entity F1 during training is measured on answers of the open-NER decoder, and can stop a run."""

import json
from pathlib import Path

import datasets
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, EarlyStoppingCallback
from trl import SFTConfig

from open_ner.conversation import build_conversation, read_conversation
from sft.conversations import tokenize
from sft.evaluation import HeldOut, count_entities, entity_scores
from sft.learning_curve import plot_learning_curve
from sft.trainer import AnswerTrainer

ROWS = [
    build_conversation("Ada met Alan in Rome.", [("person", ["Ada", "Alan"]), ("city", ["Rome"]), ("river", [])]),
    build_conversation("Nobody came.", [("person", [])], dataset="wikigold"),
]


def test_replies_are_scored_against_the_conversations_answers(tiny_student: Path) -> None:
    seen = []

    def score(replies: list[str], gold: list[str]) -> tuple[int, int, int]:
        seen.extend(zip(replies, gold, strict=True))
        return count_entities(gold, gold)

    model = AutoModelForCausalLM.from_pretrained(tiny_student).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_student)
    counts = HeldOut(ROWS, score, max_new_tokens=4).evaluate(model, tokenizer)
    assert counts.tolist() == [3, 3, 3]
    assert sorted(gold for _, gold in seen) == ['["Ada", "Alan"]', '["Rome"]', "[]", "[]"]
    parts = [HeldOut(ROWS, score, 4).evaluate(model, tokenizer, rank, 2) for rank in range(2)]
    assert sum(parts).tolist() == [3, 3, 3]


def test_f1_of_counts() -> None:
    assert entity_scores([1, 2, 4]) == {
        "entity_precision": 0.5,
        "entity_recall": 0.25,
        "entity_f1": pytest.approx(1 / 3),
    }
    assert entity_scores([0, 0, 0])["entity_f1"] == 0


def test_reading_a_conversation_is_the_inverse_of_building_it() -> None:
    text, dataset, pairs = read_conversation(ROWS[1])
    assert (text, dataset, pairs) == ("Nobody came.", "wikigold", [("person", "[]")])
    odd = build_conversation("Text: in\nDataset: x", [("what\nin the text?", ["x"])])
    assert read_conversation(odd) == ("Text: in\nDataset: x", None, [("what\nin the text?", '["x"]')])
    with pytest.raises(ValueError, match="does not follow the open-NER dialogue"):
        read_conversation([{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello"}])


def test_an_evaluation_reports_entity_f1_and_ends_a_run_that_no_longer_improves(
    tiny_student: Path, tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_student)
    rows = tokenize(datasets.Dataset.from_dict({"messages": ROWS}), tokenizer, 1024)[0]
    scores = iter([(1, 2, 4), (2, 2, 4), (1, 2, 4), (0, 2, 4), (0, 2, 4)])
    config = SFTConfig(
        output_dir=str(tmp_path), max_steps=50, per_device_train_batch_size=2, learning_rate=1e-2, bf16=False,
        gradient_checkpointing=False, report_to="none", use_cpu=True, eval_strategy="steps", eval_steps=1,
        save_strategy="steps", save_steps=1, save_total_limit=1, load_best_model_at_end=True,
        metric_for_best_model="entity_f1", greater_is_better=True,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(tiny_student, dtype=torch.float32)
    trainer = AnswerTrainer(
        model=model, args=config, train_dataset=rows, eval_dataset=rows, processing_class=tokenizer,
        held_out=HeldOut(ROWS, lambda replies, gold: next(scores), max_new_tokens=2),
        callbacks=[EarlyStoppingCallback(2)],
    )  # fmt: skip

    def evaluate(*args, **kwargs):  # noqa: ANN002, ANN003, ANN202  (scoring by groups of rows would draw two scores)
        return torch.tensor(next(scores))

    trainer.held_out.evaluate = evaluate
    trainer.train()
    found = [(e["step"], round(e["eval_entity_f1"], 3)) for e in trainer.state.log_history if "eval_entity_f1" in e]
    assert found == [(1, 0.333), (2, 0.667), (3, 0.333), (4, 0.0)]
    assert trainer.state.best_global_step == 2
    path = tmp_path / "figures" / "curve.png"
    plot_learning_curve([e for e in trainer.state.log_history if "loss" in e or "eval_loss" in e], path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "checkpoint-2" / "trainer_state.json").read_text())["global_step"] == 2
