"""The whole pipeline over real HTTP: build, push, load, train, push, evaluate, and load the model by name."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard, ModelCard
from pyarrow import parquet

from fake_hub import FakeHub
from test_imports import reached

ROOT = Path(__file__).parent.parent
DATASET, MODEL = "org/uniner-distill", "org/tiny-ner"
CONFIGS = ["type", "definition", "annotations"]
pytestmark = pytest.mark.timeout(1800)  # seconds; the fixtures of one test alone are the whole journey


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        yield hub


@pytest.fixture(scope="module")
def environment(hub: FakeHub, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a user who is logged in to the Hub."""
    home = hub.env(tmp_path_factory.mktemp("home"))
    return {**home, "OMP_NUM_THREADS": "1", "PYTHONPATH": "", "OPENAI_API_KEY": "sk-test-0123456789"}


def run(environment: dict[str, str], *command: str, cwd: Path = ROOT) -> str:
    ended = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment, cwd=cwd)
    assert ended.returncode == 0, f"{command}\n{ended.stdout[-3000:]}\n{ended.stderr[-3000:]}"
    return ended.stdout


@pytest.fixture(scope="module")
def dataset(
    hub: FakeHub, environment: dict[str, str], tiny_student: Path, tmp_path_factory: pytest.TempPathFactory
) -> str:
    folder = tmp_path_factory.mktemp("data")
    return run(
        environment, "-m", "dataset_builder", "--config", "recipes/build/sample.yaml", "--output_dir", str(folder),
        "--corpus.tokenizer", str(tiny_student), "--corpus.max_tokens", "1000",
        "--dataset.max_conversation_tokens", "2000", "--push_to_hub", DATASET,
        "--teacher.base_url", "https://user:pa55word@teacher.example/v1?key=K3y-secret",
        "--corpus.path", str(ROOT / "dataset_builder/sample/passages.jsonl"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def student(
    dataset: str, environment: dict[str, str], tiny_student: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """Run `accelerate launch train_sft.py` with its default recipe, a tiny student and a dataset on the Hub."""
    folder = tmp_path_factory.mktemp("train") / "tiny-ner"
    printed = run(
        environment, "-m", "accelerate.commands.launch", "train_sft.py", "--model_name_or_path", str(tiny_student),
        "--dataset_name", DATASET, "--output_dir", str(folder), "--max_conversations", "16", "--max_steps", "3",
        "--max_length", "2048", "--cpu_threads", "1", "--push_to_hub", "--hub_model_id", MODEL,
    )  # fmt: skip
    return folder, printed


@pytest.fixture(scope="module")
def evaluated(
    student: tuple[Path, str],
    environment: dict[str, str],
    tiny_student: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Evaluate the student after its base, and push it again with its results."""
    run(
        environment, "eval_zero_shot.py", "--config", "recipes/eval/sample.yaml", "--model", str(tiny_student),
        str(student[0]), "--limit", "2", "--max_new_tokens", "4", "--decoding", "flat", "--output_dir",
        str(tmp_path_factory.mktemp("results")), "--push_to_hub", MODEL,
    )  # fmt: skip


def test_the_dataset_is_on_the_hub_private_with_a_card_and_a_revision(dataset: str, hub: FakeHub) -> None:
    assert "nothing was paid" in dataset
    assert hub.private("dataset", DATASET)
    assert f"revision {hub.repos['dataset', DATASET].commits[-1].sha}" in dataset
    files = hub.files("dataset", DATASET)
    tables = {f"{name}/{split}-00000-of-00001.parquet" for name in CONFIGS for split in ("train", "validation")}
    figures = {name for name in files if name.startswith("figures/") and name.endswith(".png")}
    rejects = {name for name in files if name.startswith("rejects/") and name.endswith(".parquet")}
    assert figures and rejects
    assert set(files) - figures - rejects == tables | {"README.md", "stats.json", "types.json"}
    card = DatasetCard(files["README.md"].decode())
    assert [config["config_name"] for config in card.data.configs] == CONFIGS
    assert not any(b"hf_test" in content for content in files.values())


def test_anyone_loads_the_dataset_by_name(dataset: str, environment: dict[str, str], tmp_path: Path) -> None:
    code = f"""
from datasets import load_dataset
type_rows = load_dataset("{DATASET}", split="train")
assert len(type_rows) >= 180, len(type_rows)
turns = type_rows[0]["messages"]
assert [turn["role"] for turn in turns[:4]] == ["system", "user", "assistant", "user"]
for entity in type_rows[0]["entities"]:
    assert type_rows[0]["text"][entity["start"]:entity["end"]] == entity["text"]
assert len(load_dataset("{DATASET}", "definition", split="train")) >= 40
streamed = load_dataset("{DATASET}", "annotations", split="validation", streaming=True)
assert next(iter(streamed))["license"] == "apache-2.0"
"""
    run(environment, "-c", code, cwd=tmp_path)


def test_training_starts_from_the_hub_and_publishes(student: tuple[Path, str], hub: FakeHub) -> None:
    folder, printed = student
    assert "no --config given: running recipes/sft/smollm2_135m/cpu.yaml" in printed
    assert "training on 16 conversations" in printed
    files = hub.files("model", MODEL)
    assert hub.private("model", MODEL)
    code = {f"{module.rpartition('.')[2]}.py" for module in reached("open_ner.pipeline")}
    assert {name for name in files if not name.startswith(("results/", ".eval_results/"))} == code | {
        "README.md", "chat_template.jinja", "config.json", "figures/learning_curve.png", "generation_config.json",
        "model.safetensors", "recipe.yaml", "run.json", "tokenizer.json", "tokenizer_config.json", "training.json",
        "types.json",
    }  # fmt: skip
    assert not any(b"hf_test" in content for content in files.values())
    assert (folder / "figures" / "learning_curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("evaluated")
def test_evaluation_renews_the_card_and_publishes(hub: FakeHub) -> None:
    files = hub.files("model", MODEL)
    card = ModelCard(files["README.md"].decode())
    assert {result.metric_name.partition(" (")[0] for result in card.data.eval_results} == {
        f"{scorer} F1" for scorer in ("official", "strict", "partial", "type-only", "boundary-only")
    }
    assert all("sample of 2 of 48 passages" in result.metric_name for result in card.data.eval_results)
    assert card.data.pipeline_tag == "text-generation"
    results = json.loads(files["results/sample-sample-flat.json"])
    assert results["benchmarks"]["sample"]["n_passages"] == 2


@pytest.mark.usefixtures("evaluated")
def test_nothing_private_is_published(
    hub: FakeHub, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    private = ["pa55word", "K3y-secret", environment["OPENAI_API_KEY"], environment["HF_TOKEN"], str(ROOT)]
    private += [str(Path.home()), str(tmp_path_factory.getbasetemp()), "/tmp"]
    seen = 0
    assert {("dataset", DATASET), ("model", MODEL)} <= set(hub.repos)
    for kind, repo in hub.repos:
        for name, data in hub.files(kind, repo).items():
            text = data.decode(errors="replace")
            if name.endswith(".parquet"):
                text += str(parquet.read_table(io.BytesIO(data)).to_pylist())
            found = [word for word in private if word in text]
            assert not found, f"{kind} {repo} {name}: {found}"
            seen += 1
    assert seen > 20


def test_anyone_pulls_the_model_by_name_with_both_pipelines(
    student: tuple[Path, str], environment: dict[str, str], tmp_path: Path
) -> None:
    tagged = run(environment, "-m", "hub.publish", "model", str(student[0]), MODEL, "--tag", "v1")
    assert "tag v1: 1 files sent" in tagged  # the card, whose examples now name the tag
    code = f"""
from transformers import pipeline
text = "Ada Lovelace met Charles Babbage in London."
tagger = pipeline("open-ner", "{MODEL}", trust_remote_code=True, revision="v1")
for entity in tagger(text, types=["person", "city"], max_new_tokens=16):
    assert set(entity) == {{"entity_group", "word", "start", "end", "score"}}
    assert text[entity["start"]:entity["end"]] == entity["word"]
assert type(tagger).__module__.startswith("transformers_modules")
generator = pipeline("text-generation", "{MODEL}", revision="v1")
turns = [{{"role": "user", "content": "Text: " + text}}]
answer = generator(turns, max_new_tokens=4)[0]["generated_text"]
assert answer[-1]["role"] == "assistant"
"""
    empty = tmp_path / "empty"
    empty.mkdir()
    run(environment | {"HF_HOME": str(tmp_path / "home")}, "-c", code, cwd=empty)


@pytest.mark.usefixtures("student")
def test_an_evaluation_names_the_commit_of_a_student_on_the_hub(hub: FakeHub, environment: dict[str, str]) -> None:
    printed = run(environment, "-c", f"from zero_shot.student import revision_of; print(revision_of({MODEL!r}))")
    assert printed.split()[-1] == hub.repos["model", MODEL].commits[-1].sha


def test_the_published_metric_is_loaded_by_name(hub: FakeHub, environment: dict[str, str], tmp_path: Path) -> None:
    run(environment, "-m", "hub.publish", "metric", "metrics/entity_f1", "org/entity_f1")
    code = """
import evaluate
scores = evaluate.load("org/entity_f1", "official").compute(predictions=['["a"]'], references=['["a"]'])
assert scores["tp"] == 1 and scores["f1"] < 1
"""
    run(environment | {"HF_HOME": str(tmp_path / "home")}, "-c", code, cwd=tmp_path)


def test_without_a_token_nothing_is_built_twice_or_pushed(environment: dict[str, str], tmp_path: Path) -> None:
    bare = {name: value for name, value in environment.items() if name != "HF_TOKEN"} | {"HF_HOME": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-m", "dataset_builder", "--config", "recipes/build/sample.yaml", "--push_to_hub", DATASET,
         "--output_dir", str(tmp_path / "run")],
        capture_output=True, text=True, env=bare, cwd=ROOT,
    )  # fmt: skip
    assert ended.returncode == 2
    assert ended.stderr.strip().splitlines()[-1].startswith("error: no Hub token")
    assert not os.path.exists(tmp_path / "run")
