"""A saved student is complete, merged, free of local paths and secrets, and loads without our code."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

import kinds
from open_ner.conversation import build_conversation
from open_ner.tools.errors import UserError
from sft import saving
from sft.conversations import tokenize
from sft.origin import Origin, read_origin, read_type_counts
from sft.recipe import used_recipe
from sft.saving import gather_weights, save_student
from sft.tokenizer import load_tokenizer
from sft.trainer import AnswerTrainer
from train_sft import parse_arguments

ROWS = [build_conversation("Obama met Merkel.", [("person", ["Obama", "Merkel"]), ("river", [])])]


def arguments(student: Path, folder: Path, *options: str) -> tuple:
    """Parse a small recipe with these options."""
    recipe = folder.with_suffix(".yaml")
    recipe.write_text("bf16: false\nuse_cpu: true\nreport_to: none\nsave_strategy: 'no'\nmax_steps: 1\n")
    given = ["--model_name_or_path", str(student), "--dataset_name", str(folder.parent), "--output_dir", str(folder)]
    return parse_arguments(["--config", str(recipe), *given, *options])


def trained(student: Path, folder: Path, *options: str) -> tuple:
    """Return a trainer after one step, its tokenizer, and its arguments."""
    from trl import get_peft_config

    script, config, model_config = arguments(student, folder, *options)
    tokenizer = load_tokenizer(str(student))
    rows, _ = tokenize(datasets.Dataset.from_list([{"messages": row} for row in ROWS]), tokenizer, None)
    trainer = AnswerTrainer(
        model=AutoModelForCausalLM.from_pretrained(student, dtype=torch.float32),
        args=config,
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=get_peft_config(model_config),
    )
    trainer.train()
    return trainer, tokenizer, (script, config, model_config)


@pytest.fixture(scope="module", params=["chat", "gpt2_like", "llama_like"])
def saved(request: pytest.FixtureRequest, tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """`(folder, trainer)` of a student from a chat model and from base models."""
    home = tmp_path_factory.mktemp(request.param)
    base = tiny_student if request.param == "chat" else kinds.base_student(tiny_student, request.param, home / "base")
    (home / "types.json").write_text(json.dumps({"person": 9, "river": 1}))
    trainer, tokenizer, given = trained(base, home / "model", "--learning_rate", "1e-3")
    origin = read_origin(str(home), str(base))
    save_student(trainer, tokenizer, home / "model", origin, {"seconds": 1}, given)
    return home / "model", trainer


def test_a_student_carries_pipeline_types_recipe_and_results(saved: tuple) -> None:
    folder, _ = saved
    names = {path.name for path in folder.iterdir()}
    code = {"pipeline.py", "decoding.py", "conversation.py"}
    assert code | {"model.safetensors", "tokenizer.json", "chat_template.jinja", "recipe.yaml"} <= names
    config = json.loads((folder / "config.json").read_text())
    assert config["custom_pipelines"]["open-ner"]["impl"] == "pipeline.OpenNERPipeline"
    assert config["open_ner"]["types"] == ["person", "river"]
    assert json.loads((folder / "types.json").read_text()) == {"person": 9, "river": 1}
    assert json.loads((folder / "training.json").read_text()) == {"seconds": 1}


def test_nothing_of_the_machine_and_no_secret_is_published(saved: tuple) -> None:
    folder, _ = saved
    assert not (folder / "training_args.bin").exists()
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        content = path.read_bytes()
        assert str(folder.parent.parent).encode() not in content, path


def test_the_end_is_the_token_answers_end_with(saved: tuple) -> None:
    folder, _ = saved
    tokenizer = AutoTokenizer.from_pretrained(folder)
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["eos_token_id"] == tokenizer.eos_token_id
    assert not generation.get("do_sample")
    assert "generation %}" not in tokenizer.chat_template


def test_the_weights_are_those_that_were_trained(saved: tuple) -> None:
    folder, trainer = saved
    again = AutoModelForCausalLM.from_pretrained(folder)
    for (name, kept), tuned in zip(again.named_parameters(), trainer.model.parameters(), strict=True):
        assert torch.equal(kept, tuned), name


def test_both_pipelines_load_it_where_our_code_is_not(saved: tuple, tmp_path: Path) -> None:
    folder, _ = saved
    code = f"""
from transformers import pipeline
turns = [{{"role": "system", "content": "s"}}, {{"role": "user", "content": "Text: a"}}]
answer = pipeline("text-generation", {str(folder)!r})(turns, max_new_tokens=4)[0]["generated_text"]
assert answer[:-1] == turns and answer[-1]["role"] == "assistant", answer
tagger = pipeline("open-ner", {str(folder)!r}, trust_remote_code=True)
text = "Ada Lovelace met Charles Babbage."
for entity in tagger(text, max_new_tokens=8):
    assert text[entity["start"]:entity["end"]] == entity["word"]
assert type(tagger).__module__.startswith("transformers_modules")
"""
    environment = os.environ | {"PYTHONPATH": "", "HF_HOME": str(tmp_path)}
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-3000:]


def test_an_end_token_unlike_eos_is_found_and_a_list_of_ends_replaced(tiny_student: Path, tmp_path: Path) -> None:
    trainer, _, given = trained(tiny_student, tmp_path / "model")
    tokenizer = kinds.with_template(tiny_student, kinds.GEMMA)
    trainer.model.generation_config.eos_token_id = trainer.model.config.eos_token_id = [0, 1, 2]
    trainer.model.generation_config.temperature = 0.6
    save_student(trainer, tokenizer, tmp_path / "model", Origin(None, [], None, {}), {}, given)
    generation = json.loads((tmp_path / "model" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == tokenizer.convert_tokens_to_ids("<|/turn|>") != tokenizer.eos_token_id
    assert "temperature" not in generation


def test_a_student_cut_short_while_saving_is_not_finished(
    tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    trainer, tokenizer, given = trained(tiny_student, folder)
    save_student(trainer, tokenizer, folder, Origin(None, [], None, {}), {"run": 1}, given)
    for name in ("OpenNERPipeline", "used_recipe"):
        with monkeypatch.context() as patch:
            patch.setattr(saving, name, lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                save_student(trainer, tokenizer, folder, Origin(None, [], None, {}), {"run": 2}, given)
        assert not (folder / "training.json").exists()
    save_student(trainer, tokenizer, folder, Origin(None, [], None, {}), {"run": 3}, given)
    assert json.loads((folder / "training.json").read_text()) == {"run": 3}


def test_the_recipe_runs_again_with_the_same_options(
    tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = arguments(
        tiny_student, tmp_path / "runs", "--learning_rate", "1e-3", "--use_peft",
        "--lr_scheduler_type", "cosine", "--lora_target_modules", "q_proj", "v_proj", "--max_conversations", "7",
    )  # fmt: skip
    recipe = used_recipe(given)
    assert recipe["learning_rate"] == 1e-3 and recipe["lr_scheduler_type"] == "cosine" and recipe["use_peft"] is True
    assert recipe["lora_target_modules"] == ["q_proj", "v_proj"] and recipe["max_conversations"] == 7
    assert recipe["output_dir"] == "runs" and recipe["model_name_or_path"] == tiny_student.name
    assert "seed" not in recipe and "logging_dir" not in recipe
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert used_recipe(parse_arguments(["--config", "recipe.yaml"])) == recipe


def test_options_left_at_their_defaults_are_in_no_recipe(tiny_student: Path, tmp_path: Path) -> None:
    script, config, model_config = arguments(tiny_student, tmp_path / "model")
    on_cpu = {"use_cpu", "dataloader_pin_memory"}  # use_cpu turns off the other
    assert used_recipe([config]).keys() == {"output_dir", "bf16", "save_strategy", "max_steps", *on_cpu}
    assert used_recipe([script, model_config]).keys() == {"dataset_name", "model_name_or_path"}


def test_gathered_weights_hold_a_tied_weight_once(tiny_student: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_student)
    copies = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    accelerator = SimpleNamespace(get_state_dict=lambda _: dict(copies), unwrap_model=lambda model: model)
    trainer = SimpleNamespace(
        accelerator=accelerator, model=model, model_wrapped=model, is_fsdp_enabled=True, is_deepspeed_enabled=False
    )
    assert copies.keys() - gather_weights(trainer).keys() == {"lm_head.weight"}


def test_zero3_that_does_not_gather_gives_a_one_line_error(tiny_student: Path) -> None:
    def refuse(_: object) -> None:
        raise ValueError("Cannot get 16bit model weights because `stage3_gather_16bit_weights_on_model_save` is False")

    trainer = SimpleNamespace(
        accelerator=SimpleNamespace(get_state_dict=refuse),
        model_wrapped=None,
        is_fsdp_enabled=False,
        is_deepspeed_enabled=True,
    )
    with pytest.raises(UserError, match="zero3_save_16bit_model: true"):
        gather_weights(trainer)


def test_types_of_a_dataset_without_them_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read_type_counts(str(tmp_path)) == {}
    assert not capsys.readouterr().err
    assert read_type_counts("org/offline") == {}  # the tests are offline
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: types.json of org/offline cannot be read from the Hub and counts as empty: check")


def test_a_card_that_cannot_be_parsed_gives_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: [mit\n---\n")
    with pytest.raises(UserError, match="README.md: not readable"):
        read_origin(str(tmp_path), str(tmp_path))
