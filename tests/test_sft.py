"""The loss over labeled positions equals TRL's."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from sft.conversations import tokenize
from sft.trainer import AnswerTrainer
from test_sft_conversations import CONVERSATIONS, rows


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


def test_the_loss_over_answer_tokens_has_trls_loss_curve(tiny_student: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_student)
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
