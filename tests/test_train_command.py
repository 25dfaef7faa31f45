"""The command train_sft.py reports mistakes in one line before loading weights, and runs two stages as one command."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import transformers
from transformers import AutoTokenizer

import train_sft
from open_ner.conversation import build_conversation
from open_ner.tools.errors import UserError

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
        ({"messages": GOOD}, ["--learning_rte", "1"], "learning_rte"),
        ({"messages": GOOD}, ["--bf16", "true"], "bf16 on a CPU"),
        ({"messages": GOOD}, ["--max_length", "20"], r"row 0 has \d+ tokens and max_length is 20"),
        ({"messages": GOOD}, ["--max_length", "9000"], None),
        ({"messages": GOOD}, ["--packing", "true"], "exclude each other"),
        ({"messages": GOOD}, ["--early_stopping_patience", "2"], "load_best_model_at_end"),
        ({"messages": GOOD}, ["--dataset_train_split", "trian"], "split 'trian'"),
        ({"messages": GOOD}, ["--resume_from_checkpoint", "nowhere"], "'nowhere' is not a complete checkpoint"),
        ({"messages": GOOD}, ["--load_in_4bit", "true"], "use_peft"),
        ({"messages": GOOD}, ["--attn_implementation", "eager"], "sdpa or flex_attention"),
        ({"messages": GOOD}, ["--report_to", "wandb"], "pip install wandb"),
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


def test_the_folder_of_another_run_is_not_touched(
    tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = write_dataset(tmp_path / "data", *[{"messages": GOOD}] * 4)
    recipe = write_recipe(tmp_path / "r.yaml", tiny_student, dataset, tmp_path / "out")
    command(monkeypatch, recipe)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", lambda *a, **k: pytest.fail("loaded"))
    for change in (["--learning_rate", "1e-3"], ["--branches", "false"], ["--use_peft", "true"]):
        with pytest.raises(UserError, match="holds another run"):
            command(monkeypatch, recipe, *change)
    write_dataset(dataset, *[{"messages": GOOD}] * 5)
    with pytest.raises(UserError, match=r"another run \(data_hash"):
        command(monkeypatch, recipe)
    assert before == {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}


def test_the_stage_before_is_trained_first_and_once(
    tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = write_dataset(tmp_path / "data", *[{"messages": GOOD}] * 4)
    first = write_recipe(tmp_path / "first.yaml", tiny_student, dataset, tmp_path / "one")
    second = write_recipe(tmp_path / "second.yaml", tmp_path / "one", dataset, tmp_path / "two", f"after: {first}\n")
    command(monkeypatch, second)
    assert "stage 1 of 2: " in capsys.readouterr().out
    one, two = (json.loads((tmp_path / name / "training.json").read_text()) for name in ("one", "two"))
    assert (one["base_model"], two["base_model"]) == (str(tiny_student), str(tmp_path / "one"))
    assert two["history"][0]["loss"] < one["history"][0]["loss"]  # it continues from the first stage's student
    command(monkeypatch, second)
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
    assert (tmp_path / "out" / "figures" / "learning_curve.png").exists()
    assert "dataset_kwargs" not in (tmp_path / "out" / "recipe.yaml").read_text()  # not given by the user


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
