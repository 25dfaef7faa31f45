"""The command train_sft.py reports mistakes in one line before loading weights, and runs two stages as one command."""

import json
import shutil
import sys
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
import yaml
from huggingface_hub import ModelCard
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, Qwen3NextConfig
from transformers.utils import chat_template_utils
from trl import SFTConfig

import open_ner
import train_sft
from open_ner.conversation import build_conversation
from open_ner.tools.errors import UserError
from sft.options import UNUSED
from tiny import CHAT_TEMPLATE, make_tiny_student

GOOD = build_conversation("Ada met Alan in Rome.", [("person", ["Ada", "Alan"]), ("river", [])])
RECIPE = """
model_name_or_path: {student}
dataset_name: {dataset}
dataset_config: default
output_dir: {output}
max_length: 512
max_steps: 2
per_device_train_batch_size: 2
dtype: float32
bf16: false
use_cpu: true
activation_checkpointing: false
report_to: none
save_strategy: "no"
logging_steps: 1
cpu_threads: 1
"""
REFUSED = {  # a value other than the default for each option that would have no effect
    "trust_remote_code": "true", "model_init_kwargs": '{"dtype": "auto"}', "padding_free": "true",
    "truncation_mode": "keep_end", "dataset_text_field": "passage", "dataset_kwargs": '{"skip_prepare_dataset": true}',
    "save_only_model": "true", "hub_revision": "dev", "hub_token": "secret", "hub_strategy": "end",
    "hub_always_push": "true",
}  # fmt: skip


def write_dataset(folder: Path, *rows: dict) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def write_recipe(path: Path, student: Path, dataset: Path, output: Path, more: str = "") -> Path:
    path.write_text(RECIPE.format(student=student, dataset=dataset, output=output) + more)
    return path


def command(monkeypatch: pytest.MonkeyPatch, recipe: Path, *options: str) -> None:
    monkeypatch.setattr(sys, "argv", ["train_sft.py", "--config", str(recipe), *options])
    train_sft.main()


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*args: object, **kwargs: object) -> None:
        pytest.fail("weights were loaded before the mistake was found")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", load)


@pytest.mark.parametrize(
    ("row", "options", "said"),
    [
        ({"messages": GOOD}, ["--learning_rte", "1"], "command line.*--learning_rte: did you mean --learning_rate"),
        *(
            ({"messages": GOOD}, [f"--{name}", "0"], f"{name} 0: give a number of at least 1")
            for name in ("max_conversations", "eval_passages", "early_stopping_patience", "cpu_threads")
        ),
        ({"messages": GOOD}, ["--max_length", "20"], r"row 0 has \d+ tokens and max_length is 20"),
        ({"messages": GOOD}, ["--max_length", "9000"], None),
        ({"messages": GOOD}, ["--packing", "true"], "exclude each other"),
        ({"messages": GOOD}, ["--early_stopping_patience", "2"], "load_best_model_at_end"),
        ({"messages": GOOD}, ["--dataset_train_split", "trian"], "split 'trian'"),
        ({"messages": GOOD}, ["--resume_from_checkpoint", "nowhere"], "'nowhere' is not a complete checkpoint"),
        ({"messages": GOOD}, ["--load_in_4bit", "true"], "use_peft"),
        (
            {"messages": GOOD},
            ["--attn_implementation", "flash_attention_2"],
            "branches need sdpa, flex_attention or eager",
        ),
        ({"messages": GOOD}, ["--report_to", "wandb"], "pip install wandb"),
        *(
            ({"messages": GOOD}, [f"--{name}", "0"], f"{name} 0: give a number of at least 1")
            for name in ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps")
        ),
        (
            {"messages": GOOD},
            ["--num_train_epochs", "0", "--max_steps", "-1"],
            "epochs 0: give a number above 0, or max",
        ),
        ({"messages": GOOD}, ["--use_peft", "true", "--lora_r", "0"], "lora_r 0: give a number of at least 1"),
        (
            {"messages": GOOD},
            ["--eval_strategy", "epoch", "--metric_for_best_model", "entityf1"],
            "metric_for_best_model entityf1: choose from entity_f1, ",
        ),
        ({"messages": GOOD}, ["--use_peft", "true", "--lora_target_modules", "nope"], "'nope'.* no such module"),
        (
            {"messages": GOOD},
            ["--use_peft", "true", "--lora_target_modules", "no", "nope"],
            "'no', 'nope'.*, k_proj, o_proj, ",
        ),
        ({"messages": GOOD}, ["--use_peft", "true", "--lora_target_modules", "*_proj"], r"none .*write \.\*"),
        ({"messages": GOOD}, ["--use_peft", "true", "--lora_target_modules", "q_proj"], r"write \.\*q_proj"),
        ({"messages": GOOD}, ["--use_peft", "true", "--lora_target_modules", ".*q_proj"], None),
        ({"messages": GOOD}, ["--use_peft", "true", "--lora_target_modules", "q_proj", "qkv_proj"], None),
        *(
            ({"messages": GOOD}, [f"--{name}", REFUSED[name]], f"{name} cannot be used: {UNUSED[name]}")
            for name in UNUSED
        ),
        ({"messages": GOOD}, ["--completion_only_loss", "false"], "the loss covers answers only"),
        ({"messages": GOOD}, ["--shuffle_dataset", "true"], "branches and shuffle_dataset exclude each other"),
        ({"messages": GOOD}, ["--pad_to_multiple_of", "8"], "branches and pad_to_multiple_of exclude each other"),
        ({"messages": GOOD}, ["--eos_token", "<absent>"], "eos_token '<absent>' is not in the vocabulary"),
        ({"messages": GOOD}, ["--pad_token", "<absent>"], "pad_token '<absent>' is not in the vocabulary"),
        ({"messages": GOOD}, ["--chat_template_path", "absent.jinja"], "chat_template_path absent.jinja: no file"),
        ({"text": "Ada"}, [], "no `messages`"),
        ({"messages": [GOOD[0], GOOD[2], GOOD[1], *GOOD[3:]]}, [], "row 0 has the roles assistant, user"),
        ({"messages": [*GOOD[:4], {"role": "assistant", "content": "Ada, Alan"}]}, [], "not a JSON list of strings"),
        ({"messages": build_conversation("word " * 3000, [("a", [])])}, ["--max_length", "90000"], "max_position"),
    ],
)
@pytest.mark.usefixtures("no_weights")
def test_a_mistake_is_named_before_any_weight_is_loaded(
    row: dict,
    options: list[str],
    said: str | None,
    tiny_student: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", tiny_student, write_dataset(tmp_path / "data", row), tmp_path / "out")
    with pytest.raises(UserError if said else pytest.fail.Exception, match=said or "weights were loaded"):
        command(monkeypatch, recipe, *options)


@pytest.mark.usefixtures("no_weights")
def test_bf16_is_taken_where_the_cpu_has_instructions_for_it(
    tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_dataset(tmp_path / "data", {"messages": GOOD})
    recipe = write_recipe(tmp_path / "r.yaml", tiny_student, data, tmp_path / "out")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False, "neon": True})
    with pytest.raises(UserError, match="bf16 is several times slower"):
        command(monkeypatch, recipe, "--bf16", "true")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    with pytest.raises(pytest.fail.Exception, match="weights were loaded"):
        command(monkeypatch, recipe, "--bf16", "true")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("learning_rate: [1]", r"learning_rate: \[1\] is not of type float"),
        ("save_steps: {a: 1}", r"save_steps: \{'a': 1\} is not of type float"),
        ("logging_strategy: no", "logging_strategy: False is not of type"),  # YAML reads an unquoted no as False
        ("licence: mit", "unknown option licence: did you mean license"),
    ],
)
def test_a_wrong_value_in_a_recipe_is_named(line: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--config needs a recipe"):
        train_sft.parse_arguments(["--config"])
    recipe = write_recipe(tmp_path / "r.yaml", tmp_path, tmp_path, tmp_path / "out", f"{line}\n")
    with pytest.raises(UserError, match=said):
        train_sft.parse_arguments(["--config", str(recipe)])


@pytest.mark.usefixtures("no_weights")
def test_students_that_cannot_be_tuned_are_named(
    tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = write_dataset(tmp_path / "data", {"messages": GOOD})
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/base"}))
    with pytest.raises(UserError, match="is an adapter.*org/base"):
        command(monkeypatch, write_recipe(tmp_path / "a.yaml", adapter, dataset, tmp_path / "out"))
    endless = tmp_path / "endless"
    shutil.copytree(tiny_student, endless)
    tokenizer = AutoTokenizer.from_pretrained(tiny_student)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(endless)
    with pytest.raises(UserError, match="no end-of-sequence token"):
        command(monkeypatch, write_recipe(tmp_path / "e.yaml", endless, dataset, tmp_path / "out"))
    hybrid = tmp_path / "hybrid"
    shutil.copytree(tiny_student, hybrid)
    Qwen3NextConfig(num_hidden_layers=4).save_pretrained(hybrid)
    with pytest.raises(UserError, match="linear_attention.* not supported"):
        command(monkeypatch, write_recipe(tmp_path / "h.yaml", hybrid, dataset, tmp_path / "out"))
    recipe = write_recipe(tmp_path / "g.yaml", tiny_student, dataset, tmp_path / "out")
    monkeypatch.setattr(SFTConfig, "n_gpu", 2)
    with pytest.raises(UserError, match="2 GPUs and one process: run `accelerate launch"):
        command(monkeypatch, recipe)


def test_a_finished_student_is_never_lost(
    tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With fewer steps than logging_steps, a card or figure that fails, the same command again, and then anew."""
    dataset, out = write_dataset(tmp_path / "data", *[{"messages": GOOD}] * 4), tmp_path / "out"
    recipe = write_recipe(tmp_path / "r.yaml", tiny_student, dataset, out)
    sparse = ["--logging_steps", "100", "--max_steps", "3", "--save_strategy", "steps", "--save_steps", "2"]
    with monkeypatch.context() as patch:
        for name in ("hub.model_card.write_model_card", "sft.learning_curve.plot_learning_curve"):
            patch.setattr(name, lambda *_: 1 / 0)
        command(patch, recipe, *sparse)
    assert capsys.readouterr().err.count("its card or figure could not be written: ZeroDivisionError") == 2
    history = json.loads((out / "training.json").read_text())["history"]
    assert [entry["step"] for entry in history] == [1, 3] and not (out / "README.md").exists()
    with monkeypatch.context() as patch:
        patch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", lambda *a, **k: pytest.fail("loaded"))
        command(patch, recipe, *sparse)
        assert "already trained" in capsys.readouterr().out
        assert f"loss was {history[0]['loss']:.3f}" in " ".join((out / "README.md").read_text().split())
        before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
        command(patch, recipe, *sparse)
        assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*")}
        pushed = []
        patch.setenv("HF_TOKEN", "hf_test")
        patch.setattr("hub.publish.publish_folder", lambda *given, **_: pushed.append(given))
        command(patch, recipe, *sparse, "--push_to_hub", "true", "--hub_model_id", "org/m")  # an upload that failed
        assert pushed == [(out, "org/m")]
    (out / "results").mkdir()
    command(monkeypatch, recipe, "--max_steps", "1", "--overwrite_output_dir")
    assert "to resume this one later, leave out --overwrite_output_dir" in capsys.readouterr().out
    assert [entry["step"] for entry in json.loads((out / "training.json").read_text())["history"]] == [1]
    assert not (out / "results").exists()


def test_options_of_trl_that_change_the_conversation_work(
    tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    template = tmp_path / "t.jinja"
    template.write_text("{% set today = strftime_now('%d %b %Y') %}{{ today }}: " + CHAT_TEMPLATE)
    dataset, out = write_dataset(tmp_path / "data", {"messages": GOOD}), tmp_path / "out"
    recipe = write_recipe(tmp_path / "r.yaml", tiny_student, dataset, out)
    options = ["--chat_template_path", str(template), "--dtype", "auto", "--assistant_only_loss", "true"]
    options += ["--eos_token", "<|endoftext|>", "--pad_token", "<|im_start|>"]
    monkeypatch.setattr(sys, "argv", ["train_sft.py", f"--config={recipe}", *options])
    train_sft.main()
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert (tokenizer.eos_token, tokenizer.pad_token) == (
        "<|endoftext|>",
        "<|im_start|>",
    )  # the tokenizer's; answers end as the template ends them
    assert tokenizer.apply_chat_template(GOOD[:2], tokenize=False).startswith("26 Jul 2024: <|im_start|>system")
    saved = yaml.safe_load((out / "recipe.yaml").read_text())
    assert saved["chat_template_path"] == "t.jinja" and saved["assistant_only_loss"] is True
    monkeypatch.setattr(chat_template_utils, "datetime", SimpleNamespace(now=lambda: datetime(2031, 1, 1)))
    command(monkeypatch, recipe, *options)  # on another day it is the same run
    assert "already trained" in capsys.readouterr().out


def test_the_card_says_what_a_dataset_outside_of_the_working_directory_says(
    tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = write_dataset(tmp_path / "data", {"messages": GOOD})
    (dataset / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    command(monkeypatch, write_recipe(tmp_path / "r.yaml", tiny_student, dataset, tmp_path / "out"))
    card = (tmp_path / "out" / "README.md").read_text()
    assert "the dataset: cc-by-4.0" in card and str(tmp_path) not in card


def test_the_folder_of_another_run_is_not_touched(
    tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = write_dataset(tmp_path / "data", *[{"messages": GOOD}] * 4)
    recipe = write_recipe(tmp_path / "r.yaml", tiny_student, dataset, tmp_path / "out")
    command(monkeypatch, recipe)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", lambda *a, **k: pytest.fail("loaded"))
    for change in (
        ["--learning_rate", "1e-3"], ["--branches", "false"], ["--use_peft", "true"], ["--lora_target_modules", "q"],
        ["--loss_type", "dft"], ["--adam_beta2", "0.9"], ["--dtype", "bfloat16"],
        ["--packing", "true", "--branches", "false"],
        ["--early_stopping_patience", "2", "--load_best_model_at_end", "true", "--metric_for_best_model", "entity_f1",
         "--save_strategy", "steps", "--save_total_limit", "1", "--eval_strategy", "steps"],
    ):  # fmt: skip
        with pytest.raises(UserError, match="holds another run"):
            command(monkeypatch, recipe, *change)
    write_dataset(dataset, *[{"messages": GOOD}] * 5)
    with pytest.raises(UserError, match=r"another run \(data_hash"):
        command(monkeypatch, recipe)
    assert before == {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}


def test_a_base_model_with_other_weights_makes_another_run(
    tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base, copy, other = (tmp_path / name / "base" for name in ("one", "two", "three"))
    for folder in (base, copy):
        shutil.copytree(tiny_student, folder)
    make_tiny_student(other, seed=1)
    dataset, out = write_dataset(tmp_path / "data", *[{"messages": GOOD}] * 4), tmp_path / "out"
    recipe = write_recipe(tmp_path / "r.yaml", base, dataset, out)
    command(monkeypatch, recipe)
    command(monkeypatch, recipe, "--model_name_or_path", str(copy))
    assert "already trained" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"another run \(base_revision was '\w{16}', now it is '\w{16}'\)"):
        command(monkeypatch, recipe, "--model_name_or_path", str(other))
    shutil.copy(other / "model.safetensors", base)
    with pytest.raises(UserError, match="base_revision"):
        command(monkeypatch, recipe)


@pytest.mark.parametrize(("step", "said"), [(None, "starts again"), (2, "goes on from ")])
def test_an_interruption_says_where_the_same_command_goes_on(
    step: int | None, said: str, tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    dataset = write_dataset(tmp_path / "data", *[{"messages": GOOD}] * 4)
    recipe = write_recipe(tmp_path / "r.yaml", tiny_student, dataset, tmp_path / "out")

    def interrupted(*_: object, **__: object) -> None:
        if step:
            (checkpoint := tmp_path / "out" / f"checkpoint-{step}").mkdir()
            (checkpoint / "trainer_state.json").write_text('{"global_step": 2}')
        raise KeyboardInterrupt

    monkeypatch.setattr("sft.trainer.AnswerTrainer.train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        command(monkeypatch, recipe)
    assert f"the same command {said}" in capsys.readouterr().err


def test_the_stage_before_is_trained_first_and_once(
    tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = write_dataset(tmp_path / "data", *[{"messages": GOOD}] * 4)
    (dataset / "types.json").write_text('{"person": 4, "river": 2}')
    (dataset / "README.md").write_text("---\nlicense: cc-by-sa-4.0\nlanguage: [de]\n---\n")
    (dataset / "stats.json").write_text('{"passage_options": {"max_tokens": 96}}')
    (last := write_dataset(tmp_path / "last", *[{"messages": GOOD}] * 4)).joinpath("types.json").write_text('{"a": 3}')
    first = write_recipe(tmp_path / "first.yaml", tiny_student, dataset, tmp_path / "one", "license: mit\n")
    second = write_recipe(tmp_path / "second.yaml", tmp_path / "one", last, tmp_path / "two", f"after: {first}\n")
    with pytest.raises(UserError, match="--push_to_hub needs --hub_model_id"):
        command(monkeypatch, second, "--push_to_hub", "true")
    assert not (tmp_path / "one").exists()  # a mistake in the last stage is found before the first is trained
    command(monkeypatch, second)
    printed = capsys.readouterr().out
    assert "stage 1 of 2: " in printed and "license mit was given, but the dataset's is cc-by-sa-4.0" in printed
    one, two = (json.loads((tmp_path / name / "training.json").read_text()) for name in ("one", "two"))
    assert (one["base_model"], two["base_model"]) == (tiny_student.name, "one")
    assert one["on_hub"] == {"base_model": False, "dataset": False}
    assert two["history"][0]["loss"] < one["history"][0]["loss"]  # it continues from the first stage's student
    assert [one["recipe"]["license"], two["recipe"]["license"]] == ["mit", None]
    assert json.loads((tmp_path / "two" / "types.json").read_text()) == {"person": 4, "a": 3, "river": 2}
    card = ModelCard.load(tmp_path / "one" / "README.md")
    assert card.data.language == ["de"] and "The language of the training texts is de." in card.text
    saved = [json.loads((tmp_path / name / "config.json").read_text())["open_ner"] for name in ("one", "two")]
    assert [config["window"] for config in saved] == [96, 256] and saved[1]["types"] == ["person", "a", "river"]
    command(monkeypatch, second, "--overwrite_output_dir")
    assert "stage 1 of 2: " in (printed := capsys.readouterr().out) and "exists already" in printed


def test_an_evaluation_of_held_out_passages_is_in_the_results(
    tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = write_dataset(tmp_path / "data", *[{"messages": GOOD}] * 4)
    recipe = write_recipe(tmp_path / "r.yaml", tiny_student, dataset, tmp_path / "out")
    command(monkeypatch, recipe, "--eval_strategy", "steps", "--eval_steps", "1")
    training = json.loads((tmp_path / "out" / "training.json").read_text())
    evaluated = [entry for entry in training["history"] if "eval_loss" in entry]
    assert [entry["step"] for entry in evaluated] == [1, 2]
    assert all(0 <= entry["eval_entity_f1"] <= 1 for entry in evaluated)
    assert training["trained_on"]["queries"] == 8 and training["run"]["branches"] is True
    saved = json.loads((tmp_path / "out" / "config.json").read_text())["open_ner"]
    assert saved["present_share"] == training["trained_on"]["present"] / 8 and saved["overlaps"] == "flat"
    assert (tmp_path / "out" / "figures" / "learning_curve.png").exists()
    assert "dataset_kwargs" not in (tmp_path / "out" / "recipe.yaml").read_text()  # not given by the user


@pytest.mark.parametrize("branches", ["true", "false"])
@pytest.mark.parametrize("kind", ["gemma2", "mixtral"])
def test_a_student_without_sdpa_or_with_experts_is_trained_and_asked(
    kind: str, branches: str, tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The balancing loss of experts reads the mask of padding; the mask of branches has another shape."""
    student = tmp_path / kind
    shutil.copytree(tiny_student, student)
    shape = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 8,
        "num_key_value_heads": 2, "num_local_experts": 2, "num_experts_per_tok": 1,
    }  # fmt: skip
    config = AutoConfig.for_model(kind, **shape, vocab_size=len(AutoTokenizer.from_pretrained(student)))
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(student)
    dataset, out = write_dataset(tmp_path / "data", *[{"messages": GOOD}] * 4), tmp_path / "out"
    recipe = write_recipe(tmp_path / "r.yaml", student, dataset, out)
    command(monkeypatch, recipe, "--branches", branches, "--eval_strategy", "steps", "--eval_steps", "2")
    history = json.loads((out / "training.json").read_text())["history"]
    assert all(5 < entry["loss"] < 8 for entry in history if "loss" in entry) and "eval_entity_f1" in history[-1]
    assert ("aux_loss" in history[0]) == (kind == "mixtral")
    assert not getattr(
        AutoConfig.from_pretrained(out), "output_router_logits", False
    )  # inference would compute it too
    assert open_ner.load(out, device="cpu")("Ada met Alan.", types=["person", "city"], max_new_tokens=4) is not None


def test_packed_rows_hold_every_conversation(
    tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = write_dataset(tmp_path / "data", *[{"messages": GOOD}] * 20)
    recipe = write_recipe(tmp_path / "r.yaml", tiny_student, dataset, tmp_path / "out")
    epoch = ["--max_steps", "-1", "--num_train_epochs", "1", "--per_device_train_batch_size", "1"]
    command(monkeypatch, recipe, "--branches", "false", "--packing", "true", *epoch)
    assert "training on 20 conversations, 40 queries" in capsys.readouterr().out
    training = json.loads((tmp_path / "out" / "training.json").read_text())
    assert len(training["history"]) < 20
    assert training["history"][-1]["num_tokens"] == training["trained_on"]["tokens"]
