"""Every recipe parses, and a recipe's mistakes are named in one line."""

import re
import shlex
from argparse import Namespace
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import (
    DeepSpeedPlugin,
    FullyShardedDataParallelPlugin,
    prepare_deepspeed_cmd_env,
    prepare_multi_gpu_env,
)
from transformers.utils import is_torch_bf16_gpu_available

from command_line.recipes import describe, parse_overrides, read_recipe, read_yaml
from dataset_builder.config import BuildConfig
from dataset_builder.dataset.supervised import load_set_configs
from ner_sets.config import BenchmarkConfig
from open_ner.tools.errors import UserError
from sft.identity import run_identity
from train_sft import parse_arguments
from zero_shot.baseline import BaselineConfig, render
from zero_shot.suite import SuiteConfig

ROOT = Path(__file__).parent.parent
RECIPES = ROOT / "recipes"
TRAINING = sorted((RECIPES / "sft").rglob("*.yaml"))
ACCELERATE = sorted((RECIPES / "accelerate").glob("*.yaml"))


def named(path: Path) -> str:
    return f"{path.parent.name}-{path.stem}"


def parse_on_cpu(path: Path) -> tuple:
    """A training recipe as train_sft.py reads it; bf16 is refused on a CPU."""
    return parse_arguments(["--config", str(path), "--bf16", "false"])


@pytest.mark.parametrize(
    "given",
    [
        ["--seed", "1"], ["--data_seed", "1"], ["--max_grad_norm", "0.5"], ["--branches", "false"],
        ["--lora_dropout", "0.5"], ["--gradient_accumulation_steps", "2"], ["--bnb_4bit_quant_type", "fp4"],
        ["--use_bnb_nested_quant", "true"], ["--lora_target_parameters", "experts"],
        ["--optim_target_modules", "all-linear"], ["--bf16", "true", "--use_cpu", "true"],
    ],
    ids=lambda given: given[0],
)  # fmt: skip
def test_an_option_that_changes_the_weights_makes_another_run(given: list[str]) -> None:
    recipe = ["--config", str(RECIPES / "sft" / "smollm2_135m" / "cpu.yaml")]
    runs = [run_identity(*parse_arguments([*recipe, *more]), "data", "commit") for more in ([], given)]
    assert runs[0] != runs[1]


@pytest.mark.parametrize("chooses", [False, True])
def test_the_held_out_passages_make_another_run_if_they_choose_the_checkpoint(chooses: bool) -> None:
    recipe = ["--config", str(RECIPES / "sft" / "smollm2_135m" / "cpu.yaml"), "--eval_strategy", "steps"]
    recipe += ["--save_strategy", "steps", "--load_best_model_at_end", str(chooses)]
    for given in (["--eval_passages", "7"], ["--dataset_eval_split", "test"]):
        runs = [run_identity(*parse_arguments([*recipe, *more]), "data", "commit") for more in ([], given)]
        assert (runs[0] != runs[1]) == chooses


def commands(path: Path) -> list[list[str]]:
    """The commands in a recipe's opening comment, each as its words: builders of the dataset first, training last."""
    head = path.read_text().split("\nmodel_name_or_path")[0].replace("\\\n#", "")
    return [shlex.split(line[1:]) for line in head.splitlines() if line.startswith("#   ")]


def as_launched(name: str) -> Namespace:
    """The arguments of `accelerate launch` with a file of recipes/accelerate, defaults filled in as it does."""
    given = ["--config_file", str(RECIPES / "accelerate" / f"{name}.yaml"), "train_sft.py"]
    return _validate_launch_command(launch_command_parser().parse_args(given))[0]  # accelerate has no public name


@pytest.mark.parametrize("path", sorted((RECIPES / "build").glob("*.yaml")), ids=lambda path: path.stem)
def test_build_recipes_parse(path: Path) -> None:
    config = read_recipe(BuildConfig, path)
    assert bool(config.teacher.recorded or config.teacher.model) == config.corpus.named  # passages need a teacher
    assert len(load_set_configs(config.supervised)) == len(config.supervised.sets)


@pytest.mark.parametrize("path", sorted((RECIPES / "eval").glob("*.yaml")), ids=lambda path: path.stem)
def test_suites_parse_and_name_benchmarks_that_exist(path: Path) -> None:
    suite = read_recipe(SuiteConfig, path)
    assert suite.benchmarks
    for name in suite.benchmarks:
        assert (RECIPES / "eval" / "benchmarks" / f"{name}.yaml").exists()


@pytest.mark.parametrize("path", sorted((RECIPES / "eval" / "benchmarks").glob("*.yaml")), ids=lambda path: path.stem)
def test_benchmarks_parse(path: Path) -> None:
    config = read_recipe(BenchmarkConfig, path)
    assert config.name == path.stem
    assert config.license and config.domain
    if config.format == "tags":  # a dataset of the Hub
        assert config.verified_in.startswith("https://huggingface.co/datasets/" + config.path)
        assert config.types or config.verbalize  # what is asked does not depend on the sentences that a sample has
    for name, others in config.wordings.items():
        assert len({name, *others}) == 4, name  # three others, all distinct


def test_a_set_with_other_wordings_has_them_for_all_of_its_types() -> None:
    folder = RECIPES / "eval" / "benchmarks"
    worded = read_yaml(RECIPES / "eval" / "paraphrase.yaml")["benchmarks"]
    assert len(worded) == 7
    for name in worded:
        wordings = read_yaml(folder / f"{name}.yaml")["wordings"]
        assert wordings, name
        if (folder / f"{name}_hub.yaml").exists():  # the same set, with its types in the recipe
            assert set(wordings) == set(read_yaml(folder / f"{name}_hub.yaml")["types"]), name


@pytest.mark.parametrize("path", sorted((RECIPES / "eval" / "baselines").glob("*.yaml")), ids=lambda path: path.stem)
def test_baselines_parse_and_render(path: Path) -> None:
    config = read_recipe(BaselineConfig, path)
    messages = render(config, "Rome {{ 7 * 7 }}", ["city", "river"])
    written = "".join(message["content"] for message in messages)
    assert "Rome {{ 7 * 7 }}" in written and "49" not in written  # a passage is never read as a template
    assert ("river" in written) == (config.per == "passage" and "{{ types" in config.user)


@pytest.mark.parametrize("path", TRAINING, ids=named)
def test_training_recipes_parse(path: Path) -> None:
    script, config, model = parse_on_cpu(path)
    assert script.dataset_name and model.model_name_or_path
    assert config.hub_private_repo is True
    assert config.save_strategy == "no" or config.save_total_limit  # disk use is bounded
    assert not config.packing or config.packing_strategy == "bfd"  # the other strategies cut conversations
    assert not (config.packing and script.branches)
    assert config.activation_checkpointing is read_yaml(path)["activation_checkpointing"]


@pytest.mark.parametrize("path", TRAINING, ids=named)
def test_a_training_recipe_is_trained_on_what_its_commands_build(path: Path) -> None:
    *builds, launch = commands(path)
    built = set()
    for command in builds:
        assert command[:4] == ["python", "-m", "dataset_builder", "--config"]
        config = read_recipe(BuildConfig, ROOT / command[4], parse_overrides(command[5:]))
        names = config.teacher.variants if config.corpus.named else []
        names = [*names, *(["supervised"] if config.supervised.sets else [])]
        names = [*names, *(["mixture"] if config.supervised.mixture is not None else [])]
        built |= {(config.dataset_dir or f"{config.output_dir}/dataset", name) for name in names}
    recipe = read_yaml(path)
    assert (recipe["dataset_name"], recipe["dataset_config"]) in built
    assert launch[:2] == ["accelerate", "launch"]
    assert launch[-3:] == ["train_sft.py", "--config", str(path.relative_to(ROOT))]


@pytest.mark.parametrize("path", [path for path in TRAINING if read_yaml(path)["bf16"]], ids=named)
def test_a_recipe_for_gpus_says_so_and_its_global_batch_is_the_one_noted(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    assert re.search(r"Not run; estimate: .*GPU|Not run; estimate: .*A100", first)
    _, config, _ = parse_on_cpu(path)
    noted = re.search(r"# (\d+) x (\d+) x (\d+) GPUs? = (\d+) ", path.read_text())
    each, accumulated, gpus, batch = map(int, noted.groups())
    assert (each, accumulated) == (config.per_device_train_batch_size, config.gradient_accumulation_steps)
    assert batch == each * accumulated * gpus
    launch = commands(path)[-1]
    assert load_config_from_file(str(ROOT / launch[launch.index("--config_file") + 1])).num_processes == gpus
    if not config.use_cpu and not is_torch_bf16_gpu_available():
        with pytest.raises(UserError, match="bf16: false"):
            parse_arguments(["--config", str(path)])


def test_results_are_written_below_runs() -> None:
    recipes = [path for kind in ("build", "eval", "sft") for path in (RECIPES / kind).rglob("*.yaml")]
    folders = {str(path): read_yaml(path).get("output_dir", "runs/") for path in recipes}
    folders |= {kind.__name__: kind.output_dir for kind in (BuildConfig, SuiteConfig)}
    assert [name for name, folder in folders.items() if not folder.startswith("runs/")] == []


def test_training_recipes_write_to_folders_of_their_own() -> None:
    folders = [read_yaml(path)["output_dir"] for path in TRAINING]
    assert len(set(folders)) == len(folders)


def test_variants_of_a_student_differ_in_their_data_alone() -> None:
    data = {"model_name_or_path", "dataset_name", "dataset_config", "output_dir", "after"}
    variants = [
        read_yaml(path)
        for path in TRAINING
        if path.parent.name == "smollm2_135m" and path.stem not in ("cpu", "packed")
    ]
    assert len(variants) == 8
    for variant in variants:
        assert {key: value for key, value in variant.items() if key not in data} == {
            key: value for key, value in variants[0].items() if key not in data
        }


def test_the_second_stage_goes_on_from_where_the_first_one_ends() -> None:
    second = read_yaml(RECIPES / "sft" / "smollm2_135m" / "distilled_then_supervised.yaml")
    assert read_yaml(ROOT / second["after"])["output_dir"] == second["model_name_or_path"]


def test_the_papers_recipe_is_the_papers() -> None:
    """arXiv 2308.03279 and the authors' training script; the batch and the eight GPUs are held by the test above."""
    script, config, model = parse_on_cpu(RECIPES / "sft" / "uniner_7b" / "full.yaml")
    assert (model.model_name_or_path, model.use_peft) == ("huggyllama/llama-7b", False)
    assert (config.num_train_epochs, config.learning_rate, config.weight_decay) == (3, 2e-5, 0)
    assert (config.lr_scheduler_type, config.warmup_steps, config.max_length) == ("cosine", 0.04, 1024)
    assert config.activation_checkpointing and not config.packing and not script.branches
    size = config.per_device_train_batch_size * config.gradient_accumulation_steps * 8
    assert size == 256


@pytest.mark.parametrize("path", ACCELERATE, ids=named)
def test_accelerate_files_load_and_name_what_is_launched_with_them(path: Path) -> None:
    config = load_config_from_file(str(path))
    assert config.use_cpu == (path.stem == "cpu")
    assert config.num_processes % config.num_machines == 0
    assert config.mixed_precision == "no"  # TrainingArguments take bf16 from here even where a recipe says false
    text = path.read_text()
    assert ("Not run here" in text.splitlines()[0]) == (not config.use_cpu)
    assert f"--config_file {path.relative_to(ROOT)}" in text


def test_fsdp2_shards_decoder_layers_and_saves_whole_weights(
    monkeypatch: pytest.MonkeyPatch, tiny_student: Path
) -> None:
    from torch.distributed.fsdp import StateDictType
    from transformers import AutoModelForCausalLM

    arguments = as_launched("fsdp2")
    assert arguments.use_fsdp
    for name, value in prepare_multi_gpu_env(arguments).items():
        monkeypatch.setenv(name, value)
    plugin = FullyShardedDataParallelPlugin()
    plugin.set_mixed_precision("bf16")
    assert (plugin.fsdp_version, plugin.reshard_after_forward) == (2, True)
    assert plugin.state_dict_type == StateDictType.FULL_STATE_DICT
    assert not plugin.activation_checkpointing  # the recipe's and FSDP's at once are refused by the Trainer
    monkeypatch.delenv("ACCELERATE_USE_FSDP")  # or from_pretrained would wait for the other processes
    model = AutoModelForCausalLM.from_pretrained(tiny_student)
    plugin.set_auto_wrap_policy(model)
    wrapped = [layer for layer in model.modules() if plugin.auto_wrap_policy(layer, recurse=False, nonwrapped_numel=0)]
    assert {type(layer).__name__ for layer in wrapped} == {"LlamaDecoderLayer"}


def test_zero3_gathers_what_it_saves_and_leaves_batches_to_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = as_launched("zero3")
    assert arguments.use_deepspeed
    arguments.deepspeed_fields_from_accelerate_config = ""
    for name, value in prepare_deepspeed_cmd_env(arguments)[1].items():
        monkeypatch.setenv(name, value)
    plugin = DeepSpeedPlugin()
    zero = plugin.deepspeed_config["zero_optimization"]
    assert (zero["stage"], zero["stage3_gather_16bit_weights_on_model_save"], plugin.zero3_init_flag) == (
        3,
        True,
        True,
    )
    for key in ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"):
        assert plugin.deepspeed_config[key] == "auto"


def test_your_corpus_is_short_and_every_line_is_explained() -> None:
    lines = (RECIPES / "build" / "your_corpus.yaml").read_text().splitlines()
    assert len(lines) < 25
    for line in lines:
        assert "#" in line or line.rstrip().endswith(":"), line


def test_an_unknown_option_is_named_with_its_nearest_neighbour(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("corpus: {path: x.jsonl, text_colum: body}\n")
    with pytest.raises(UserError, match=r"unknown option corpus\.text_colum: did you mean corpus\.text_column"):
        read_recipe(BuildConfig, recipe)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("corpus: {sources: {path: a.jsonl}}", "corpus.sources: {'path': 'a.jsonl'} is not a list: begin each item"),
        ("corpus: {sources: [a.jsonl]}", "corpus.sources[0]: 'a.jsonl' is not a mapping"),
        (
            "corpus: {sources: [{paht: a}]}",
            "unknown option corpus.sources[0].paht: did you mean corpus.sources[0].path",
        ),
        ("supervised: {sets: wikigold}", "supervised.sets: 'wikigold' is not a list: write [wikigold]"),
        ("teacher: {variants: [typo]}", "teacher.variants[0]: 'typo' is not one of type, definition, closed"),
        ("teacher: {prompts: my.jinja}", "teacher.prompts: 'my.jinja' is not a mapping {NAME: VALUE}"),
        (
            "corpus: {path: x, language: no}",
            "corpus.language: False is not text: put it in quotes, because YAML",
        ),
        ("corpus: {path: 3}", "corpus.path: 3 is not text: put it in quotes"),
        ("corpus: {path: x, max_tokens: yes}", "corpus.max_tokens: True is not a whole number"),
        ("corpus: {path: x, max_markup: true}", "corpus.max_markup: True is not a number"),
        ("corpus: {path: x, max_tokens: null}", "corpus.max_tokens is empty: give it a value, or remove it"),
        ("sample: 3", "unknown option sample: did you mean corpus.sample?"),
        ("seed: 3", "unknown option seed: did you mean corpus.seed or dataset.seed?"),
        ("teacher: {max_tokens: 9}", "unknown option teacher.max_tokens: did you mean teacher.max_"),
        ("corpus.sample: 3", "unknown option corpus.sample: write it in its section, as in corpus: {sample: ...}"),
        ("corpus: {path: x, max_tokens: '5'}", "max_tokens: '5' is not a whole number: write it without quotes"),
        ("corpus: {path: 3}", "corpus.path"),
        ("corpus: 3", "corpus"),
        ("output_dir: x", "nothing to build from"),
        ("corpus: {path: x}\nsupervised: {mixture: {distilled: much}}", "mixture"),
        ("- a list", "mapping"),
        ("a: [", "not readable as YAML"),
        ("corpus: {path: x}\ndataset: {negatives: often}", "negatives"),
    ],
)
def test_a_wrong_value_is_named_with_what_to_write(content: str, said: str, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(content)
    with pytest.raises(UserError, match=re.escape(said)):
        read_recipe(BuildConfig, recipe)


def test_options_on_the_command_line_have_the_last_word(tmp_path: Path) -> None:
    overrides = parse_overrides(["--corpus.path", "mine.jsonl", "--dataset.negative_ratio=2"])
    config = read_recipe(BuildConfig, RECIPES / "build" / "sample.yaml", overrides)
    assert (config.corpus.path, config.dataset.negative_ratio) == ("mine.jsonl", 2.0)
    assert parse_overrides(["--corpus.path", "a=b.jsonl"]) == {"corpus.path": "a=b.jsonl"}
    for stray in (["stray"], ["--corpus.path"], ["--corpus.path", "--name", "x"]):
        with pytest.raises(UserError, match=f"unknown argument '{stray[0]}'"):
            parse_overrides(stray)


def test_an_option_of_type_string_takes_its_value_as_it_is() -> None:
    given = {
        "corpus.path": "*.jsonl", "teacher.model": "@cf/meta/llama-3.1-8b-instruct", "name": "Notes #2",
        "license": "a: b", "teacher.base_url": "{x", "teacher.prompts.type": "&a.jinja", "corpus.license": "0123",
        "output_dir": "2023-01-05", "dataset_dir": "yes", "corpus.source": "null", "corpus.language": "null",
        "teacher.recorded": "{type: a, definition: b}", "corpus.max_markup": "null", "teacher.max_cost": "5",
        "teacher.price_input": "2",
        "teacher.variants": "[type]", "teacher.parameters.seed": "7", "dataset.negatives": "none",
    }  # fmt: skip
    arguments = [part for name, value in given.items() for part in (f"--{name}", value)]
    config = read_recipe(BuildConfig, RECIPES / "build" / "sample.yaml", parse_overrides(arguments))
    assert (config.corpus.path, config.teacher.model, config.name) == (
        "*.jsonl", "@cf/meta/llama-3.1-8b-instruct", "Notes #2",
    )  # fmt: skip
    assert (config.license, config.teacher.base_url, config.teacher.prompts) == ("a: b", "{x", {"type": "&a.jinja"})
    assert (config.corpus.license, config.output_dir, config.dataset_dir) == ("0123", "2023-01-05", "yes")
    assert (config.corpus.source, config.corpus.language, config.corpus.max_markup) == ("null", None, None)
    assert config.teacher.recorded == {"type": "a", "definition": "b"} and config.dataset.negatives == "none"
    assert (config.teacher.max_cost, config.teacher.variants) == (5.0, ["type"])
    assert config.teacher.parameters == {"seed": 7}
    same = parse_overrides([f"--{name}={value}" for name, value in given.items()])
    assert read_recipe(BuildConfig, RECIPES / "build" / "sample.yaml", same) == config


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("name.x", "1", "unknown option name.x: name has no options of its own"),
        ("teacher.model.x", "1", "unknown option teacher.model.x: model has no options"),
        ("nme.x", "1", "unknown option nme: did you mean name?"),
        ("teacher.max_cost", "[", "--teacher.max_cost [: not readable as YAML"),
        ("teacher.max_cost", "*x", "not readable as YAML"),
        ("teacher.max_cost", "much", "teacher.max_cost"),
        ("corpus.max_tokens", "256.5", "corpus.max_tokens"),
        ("", "1", "unknown option"),
        ("teacher.", "1", "unknown option teacher."),
    ],
)
def test_a_wrong_override_gives_a_one_line_error(option: str, value: str, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        read_recipe(BuildConfig, RECIPES / "build" / "sample.yaml", parse_overrides([f"--{option}", value]))


def test_help_lists_every_option_of_a_build() -> None:
    text = describe(BuildConfig)
    for line in ("teacher.max_cost (None)", "corpus.path (None)", "supervised.sets ([])"):
        assert line in text
    assert "  corpus (" not in text


def test_a_wrong_training_option_gives_a_one_line_error(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("learning_rte: 1e-4\n")
    with pytest.raises(UserError, match="learning_rte"):
        parse_arguments(["--config", str(recipe)])
    with pytest.raises(UserError, match="no_such_flag"):
        parse_arguments(["--no_such_flag", "1"])
    with pytest.raises(UserError, match="no such recipe"):
        parse_arguments(["--config", str(tmp_path / "absent.yaml")])
