"""LoRA and QLoRA are trained with the answer-only head and merged into full weights."""

from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
import torch
from accelerate.utils.deepspeed import HfDeepSpeedConfig
from peft import get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM
from transformers.integrations import deepspeed
from trl import ModelConfig, get_peft_config

from open_ner.conversation import build_conversation
from open_ner.tools.errors import UserError
from sft import adapters
from sft.adapters import check_targets, merge_adapter, quantization
from sft.conversations import tokenize
from sft.disk import require_space
from sft.origin import Origin
from sft.saving import save_student
from sft.tokenizer import load_tokenizer
from sft.trainer import AnswerTrainer
from test_saving import arguments

ROWS = [build_conversation("Obama met Merkel.", [("person", ["Obama", "Merkel"]), ("river", [])])] * 4
LORA = ("--use_peft", "--lora_r", "4", "--learning_rate", "1e-2", "--max_steps", "6", "--logging_steps", "1")


def make_trainer(student: Path, given: tuple, messages: list) -> tuple[AnswerTrainer, dict[str, int]]:
    """Make a trainer of an adapter, and return the counts of what it is trained on."""
    tokenizer = load_tokenizer(str(student))
    rows, report = tokenize(datasets.Dataset.from_list([{"messages": row} for row in messages]), tokenizer, None)
    trainer = AnswerTrainer(
        model=AutoModelForCausalLM.from_pretrained(
            student, dtype=torch.float32, quantization_config=quantization(given[2])
        ),
        args=given[1],
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=get_peft_config(given[2]),
    )
    return trainer, report


def train_and_save(student: Path, folder: Path, *options: str) -> tuple[AnswerTrainer, torch.Tensor, torch.Tensor]:
    """Return the trainer, the logits of base and adapter, and the logits of the saved student."""
    given = arguments(student, folder, *LORA, *options)
    trainer, _ = make_trainer(student, given, ROWS)
    trainer.train()
    ids = torch.tensor([trainer.train_dataset[0]["input_ids"]])
    with torch.no_grad():
        expected = trainer.model.eval()(input_ids=ids).logits
        save_student(trainer, trainer.processing_class, folder, Origin(None, [], None, {}), {}, given)
        return trainer, expected, AutoModelForCausalLM.from_pretrained(folder)(input_ids=ids).logits


@pytest.mark.parametrize("options", [(), ("--use_dora",), ("--lora_target_modules", "all-linear"),
                                     ("--lora_modules_to_save", "norm")])  # fmt: skip
def test_a_merged_lora_student_answers_as_its_adapter_and_base(
    options: tuple[str, ...], tiny_student: Path, tmp_path: Path
) -> None:
    trainer, expected, merged = train_and_save(tiny_student, tmp_path / "model", *options)
    base = AutoModelForCausalLM.from_pretrained(tiny_student)
    with torch.no_grad():
        untuned = base(input_ids=torch.tensor([trainer.train_dataset[0]["input_ids"]])).logits
    assert torch.allclose(merged, expected, atol=1e-4)
    assert (merged - untuned).abs().max() > 0.05
    assert not list((tmp_path / "model").glob("adapter*"))
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]


def test_a_recipe_may_list_the_modules_of_several_architectures(
    tiny_student: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = ["q_proj", "qkv_proj"]
    check_targets(ModelConfig(model_name_or_path=str(tiny_student), use_peft=True, lora_target_modules=listed))
    assert "has no qkv_proj; the others get adapters" in capsys.readouterr().out


def test_checkpoints_of_an_adapter_need_little_of_the_disk_and_those_that_go_count_as_free(
    tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = arguments(tiny_student, tmp_path / "model", *LORA, "--save_strategy", "steps", "--save_total_limit", "2")
    whole = AutoModelForCausalLM.from_pretrained(tiny_student, dtype=torch.float32)
    weights = 4 * sum(p.numel() for p in whole.parameters())
    trainer, _ = make_trainer(tiny_student, given, ROWS[:1])
    learned = sum(4 * p.numel() for p in trainer.model.parameters() if p.requires_grad)
    (old := tmp_path / "model" / "checkpoint-2").mkdir(parents=True)
    (old / "optimizer.pt").write_bytes(b"0" * 1000)
    for model, needed in ((trainer.model, weights + learned + 9 * learned), (whole, weights + 9 * weights)):
        for free in (needed - 1000, needed - 1001):
            monkeypatch.setattr("shutil.disk_usage", lambda _, free=free: SimpleNamespace(free=free))
            with nullcontext() if free == needed - 1000 else pytest.raises(UserError, match="checkpoints need"):
                require_space(tmp_path / "model", model, given[1])


def test_the_loss_of_a_lora_student_covers_the_answers_alone(tiny_student: Path, tmp_path: Path) -> None:
    trainer, report = make_trainer(tiny_student, arguments(tiny_student, tmp_path / "model", *LORA), ROWS[:1])
    head, projected = trainer.model.get_base_model().get_output_embeddings(), []
    head.register_forward_hook(lambda _, inputs, __: projected.append(inputs[0].shape[0]))
    trainer.train()
    assert set(projected) == {report["answer_tokens"]}


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
def test_qlora_is_merged_into_the_base_without_quantization(tiny_student: Path, tmp_path: Path) -> None:
    trainer, _, merged = train_and_save(tiny_student, tmp_path / "model", "--load_in_4bit", "--dtype", "float32")
    assert trainer.model.get_base_model().is_loaded_in_4bit
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]
    base = AutoModelForCausalLM.from_pretrained(tiny_student, dtype=torch.float32)
    student = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert student.dtype == torch.float32 and not hasattr(student.config, "quantization_config")
    tuned = {name for name, tensor in student.state_dict().items() if not torch.equal(tensor, base.state_dict()[name])}
    assert tuned == {f"model.layers.{n}.self_attn.{part}_proj.weight" for n in (0, 1) for part in "qv"}
    layer = trainer.model.get_base_model().model.layers[0].self_attn.q_proj
    delta = layer.get_delta_weight("default")
    kept = student.model.layers[0].self_attn.q_proj.weight - base.model.layers[0].self_attn.q_proj.weight
    assert torch.allclose(
        kept, delta.float(), rtol=0.02, atol=1e-4
    )  # TRL keeps the adapter of a 4-bit base in bfloat16


def test_under_zero3_the_base_is_read_whole_for_merging(tiny_student: Path, tmp_path: Path) -> None:
    settings = HfDeepSpeedConfig({"zero_optimization": {"stage": 3}})
    deepspeed.set_hf_deepspeed_config(settings)
    assert deepspeed.is_deepspeed_zero3_enabled()
    try:
        model_config = ModelConfig(model_name_or_path=str(tiny_student), use_peft=True)
        model = get_peft_model(
            LlamaForCausalLM(AutoConfig.from_pretrained(tiny_student)), get_peft_config(model_config)
        )
        merged = merge_adapter(model, model.state_dict(), model_config)
    finally:
        deepspeed.unset_hf_deepspeed_config()
    assert merged.num_parameters() == AutoModelForCausalLM.from_pretrained(tiny_student).num_parameters()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"load_in_4bit": True}, "load_in_4bit without use_peft"),
        ({"load_in_8bit": True}, "load_in_8bit without use_peft"),
        ({"load_in_4bit": True, "use_peft": True, "dtype": "auto"}, "dtype, which is auto"),
    ],
)
def test_quantization_that_cannot_be_trained_is_refused(options: dict, named: str) -> None:
    with pytest.raises(UserError, match=named):
        quantization(ModelConfig(**options))


def test_missing_bitsandbytes_gives_a_one_line_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="pip install bitsandbytes"):
        quantization(ModelConfig(load_in_4bit=True, use_peft=True))
    assert quantization(ModelConfig(use_peft=True)) is None
