"""Every recipe parses, and a recipe's mistakes are named in one line."""

from pathlib import Path

import pytest

from dataset_builder.config import BuildConfig
from dataset_builder.supervised import load_set_configs
from open_ner.cli import UserError, describe, parse_overrides, read_recipe
from train_sft import parse_arguments
from zero_shot.benchmarks import BenchmarkConfig, SuiteConfig

ROOT = Path(__file__).parent.parent
RECIPES = ROOT / "recipes"


@pytest.mark.parametrize("path", sorted((RECIPES / "build").glob("*.yaml")), ids=lambda path: path.stem)
def test_build_recipes_parse(path: Path) -> None:
    config = read_recipe(BuildConfig, path)
    assert config.corpus.named or config.supervised.sets
    assert config.teacher.recorded or config.teacher.model or not config.corpus.named
    assert load_set_configs(config.supervised) or not config.supervised.sets


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
    assert config.licence and config.domain


@pytest.mark.parametrize("path", sorted((RECIPES / "sft").rglob("*.yaml")), ids=lambda path: path.stem)
def test_training_recipes_parse(path: Path, tmp_path: Path) -> None:
    script, config, model = parse_arguments(["--config", str(path), "--output_dir", str(tmp_path)])
    assert script.dataset_name and model.model_name_or_path
    assert config.hub_private_repo is True


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
    ("content", "message"),
    [
        ("corpus: {path: 3}", "corpus.path"),
        ("corpus: 3", "corpus"),
        ("output_dir: x", "nothing to build from"),
        ("corpus: {path: x}\nsupervised: {mixture: {distilled: much}}", "mixture"),
        ("- a list", "mapping"),
        ("a: [", "not readable as YAML"),
        ("corpus: {path: x}\ndataset: {negatives: often}", "negatives"),
    ],
)
def test_wrong_values_are_named(content: str, message: str, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(content)
    with pytest.raises(UserError, match=message):
        read_recipe(BuildConfig, recipe)


def test_options_on_the_command_line_have_the_last_word(tmp_path: Path) -> None:
    overrides = parse_overrides(["--corpus.path", "mine.jsonl", "--dataset.negative_ratio=2"])
    config = read_recipe(BuildConfig, RECIPES / "build" / "sample.yaml", overrides)
    assert (config.corpus.path, config.dataset.negative_ratio) == ("mine.jsonl", 2.0)
    assert parse_overrides(["--corpus.path", "a=b.jsonl"]) == {"corpus.path": "a=b.jsonl"}
    with pytest.raises(UserError, match="stray"):
        parse_overrides(["stray"])


def test_help_lists_every_option_of_a_build() -> None:
    text = describe(BuildConfig)
    for line in ("teacher.max_cost (None)", "corpus.path (None)", "supervised.sets ([])"):
        assert line in text
    assert "  corpus (" not in text


def test_a_wrong_training_option_is_one_line(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("learning_rte: 1e-4\n")
    with pytest.raises(UserError, match="learning_rte"):
        parse_arguments(["--config", str(recipe)])
    with pytest.raises(UserError, match="no_such_flag"):
        parse_arguments(["--no_such_flag", "1"])
    with pytest.raises(UserError, match="no such recipe"):
        parse_arguments(["--config", str(tmp_path / "absent.yaml")])
