"""The wheel of the runtime: its files, and its use in a new environment without the rest of the repository."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from open_ner.answers import Entity
from open_ner.pipeline import OpenNERPipeline

ROOT = Path(__file__).parent.parent
TEXT = "Angela Merkel met Barack Obama in Berlin."
MODULES = [
    "__init__",
    "__main__",
    "answers",
    "borders",
    "conversation",
    "decoding",
    "long_texts",
    "packing",
    "selection",
]
MODULES += ["pipeline", "prompts"]
TOOLS = [
    "__init__",
    "annotate",
    "errors",
    "escapes",
    "files",
    "fingerprint",
    "jsonl",
    "options",
    "record",
    "served",
    "spacy_component",
    "terminal",
]
VIEW = ["__init__", "command", "html", "parquet", "passages", "rows", "sources", "terminal"]
DATA = [
    "view/page.css",
    "view/page.html",
    "view/page.js",
    "py.typed",
    "chat_templates/smollm2.jinja",
    "chat_templates/uniner.jinja",
]
SCRIPT = """
import sys
import open_ner
assert not {"torch", "transformers", "openai"} & set(sys.modules), "import open_ner is not light"
from importlib.util import find_spec
assert find_spec("dataset_builder") is None, "the repository is importable: this test proves nothing"
import json
from transformers import pipeline

_, model, text = sys.argv
loaded = open_ner.load(model, device="cpu", max_new_tokens=24)
built = pipeline("open-ner", model=model, pipeline_class=open_ner.OpenNERPipeline, device="cpu", max_new_tokens=24)
assert type(loaded) is type(built) is open_ner.OpenNERPipeline
found = [tagger(text, types=["person", "city"]) for tagger in (loaded, built)]
print(json.dumps({"file": open_ner.__file__, "version": open_ner.__version__, "found": found}))
"""


def run(*command: str | Path, cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def places_of(entities: list[Entity]) -> list[tuple[str, int, int]]:
    return [(entity["entity_group"], entity["start"], entity["end"]) for entity in entities]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what the build reads, so that it leaves nothing in the checkout."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "open_ner", source / "open_ner", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--no-index"]
    run(*pip, "--wheel-dir", source / "dist", source, cwd=source)
    [path] = (source / "dist").iterdir()
    return path


@pytest.fixture(scope="module")
def student(tuned_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student as training saves it: its config has `custom_pipelines`, which needs `trust_remote_code` otherwise."""
    folder = tmp_path_factory.mktemp("saved") / "student"
    model = AutoModelForCausalLM.from_pretrained(tuned_student)
    OpenNERPipeline(model=model, tokenizer=AutoTokenizer.from_pretrained(tuned_student)).save_pretrained(folder)
    assert "custom_pipelines" in json.loads((folder / "config.json").read_text())
    return folder


def test_the_wheel_has_the_runtime_and_nothing_else(wheel: Path) -> None:
    assert wheel.name == "open_ner-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names, information = archive.namelist(), "open_ner-0.1.0.dist-info"
        ours = {f"{name}.py" for name in MODULES} | {f"tools/{name}.py" for name in TOOLS} | set(DATA)
        ours |= {f"view/{name}.py" for name in VIEW}
        assert {name for name in names if not name.startswith(information)} == {f"open_ner/{name}" for name in ours}
        metadata = archive.read(f"{information}/METADATA").decode()
        assert archive.read(f"{information}/entry_points.txt").decode().split() == [
            "[console_scripts]", "open-ner", "=", "open_ner.__main__:cli",
            "[spacy_factories]", "open_ner", "=", "open_ner.tools.spacy_component:make_component",
        ]  # fmt: skip
        assert f"{information}/licenses/LICENSE" in names
    needed = re.findall(r"^Requires-Dist: ([a-z]+)", metadata, re.MULTILINE)
    assert needed == [
        "torch",
        "transformers",
        "safetensors",
        "rich",
        "openai",
        "spacy",
        "pyarrow",
        "datasets",
        "accelerate",
        "datatrove",
        "gradio",
    ]
    assert "License-Expression: Apache-2.0" in metadata and "Provides-Extra: serve" in metadata


def test_the_wheel_works_alone_and_runs_no_code_of_the_model(wheel: Path, student: Path, tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "env", tmp_path / "elsewhere"
    elsewhere.mkdir()
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    install = ["install", "--quiet", "--no-deps", "--no-index", wheel]
    run(sys.executable, "-m", "pip", "--python", python, *install, cwd=elsewhere)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])", cwd=elsewhere).strip())
    around = dict.fromkeys([sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"]])  # torch, transformers
    (site / "around.pth").write_text("\n".join(around))

    said = json.loads(run(python, "-c", SCRIPT, student, TEXT, cwd=elsewhere))
    assert Path(said["file"]).is_relative_to(folder) and said["version"] == "0.1.0"
    tagger = OpenNERPipeline(
        model=AutoModelForCausalLM.from_pretrained(student), tokenizer=AutoTokenizer.from_pretrained(student),
        device="cpu", max_new_tokens=24,
    )  # fmt: skip
    expected = tagger(TEXT, types=["person", "city"])
    assert expected
    assert [places_of(found) for found in said["found"]] == [places_of(expected)] * 2

    options = ["--types", "person,city", "--model", student, "--device", "cpu"]
    _, _, _, *rows = run(folder / "bin" / "open-ner", TEXT, *options, cwd=elsewhere).splitlines()
    everything = tagger(TEXT, types=["person", "city"], max_new_tokens=256)
    assert [(row.split()[-1], *map(int, row.split()[-4:-2])) for row in rows] == places_of(everything)
