"""What the README and the docs show: commands that exist, links that lead somewhere, and numbers from result files."""

import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

import open_ner
from bench import method, readme
from documents import blocks
from jobs.run import COMMANDS

ROOT = Path(__file__).parent.parent
DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
RECIPES = [*sorted((ROOT / "recipes" / "build").glob("*.yaml")), *sorted((ROOT / "recipes" / "accelerate").glob("*"))]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def shown(path: Path) -> list[list[str]]:
    """The commands that a document or a recipe's first comment shows, as words; not those of test_docs_run.py."""
    if path.suffix == ".md":
        return [words for block in blocks(path, "bash") if not block.runs for words in block.commands]
    text = "\n".join(line[1:] for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#   "))
    commands = [shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines()]
    return [words for words in commands if words]


@cache
def options(*command: str) -> set[str]:
    """The options that a command's --help names; those of a recipe as --section.option."""
    done = subprocess.run([sys.executable, *command, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    sections = re.findall(r"^  ([a-z_.]+) \(", done.stdout, re.MULTILINE)
    return {"--help", *re.findall(r"--[a-zA-Z_]+", done.stdout), *(f"--{name}" for name in sections)}


def unknown_options(words: list[str]) -> set[str]:
    """The options of a shown command that its program does not have."""
    words = [word.removeprefix(".venv/bin/") for word in words]
    given = {word.partition("=")[0] for word in words if word.startswith("--")}
    if words[:2] == ["accelerate", "launch"]:
        at = next(i for i, word in enumerate(words) if word.endswith(".py") or word == "--module")
        launcher = ["python", "-m", "accelerate.commands.launch", *words[2:at]]
        program = ["-m" if word == "--module" else word for word in words[at:]]
        return unknown_options(launcher) | unknown_options(["python", *program])
    if words[0] == "open-ner":
        return given - options("-m", "open_ner", *[word for word in words[1:2] if word in ("view", "annotate")])
    if words[:4] == ["hf", "jobs", "uv", "run"]:  # the options before the script: tests/test_jobs.py
        command, *its_options = words[words.index("jobs/run.py") + 3 :]
        return unknown_options([*COMMANDS[command], *its_options])
    if words[:2] == ["python", "-m"]:
        within = words[2:4] in (["open_ner", "annotate"], ["dataset_builder.review", *words[3:4]])
        return given - options("-m", words[2], *words[3:4] if within else ())
    if words[0] == "python" and (ROOT / words[1]).exists():
        return given - options(words[1])
    return set()


@pytest.mark.parametrize("path", [*DOCS, *RECIPES], ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_have_options_files_and_targets_that_exist(path: Path) -> None:
    targets = re.findall(r"^([a-z_]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for words in shown(path):
        assert not unknown_options(words), words
        if words[0] == "make":
            assert {word for word in words[1:] if "=" not in word} <= set(targets), words
        named = [word for word in words if re.match(r"(recipes|bench|docs|results|dataset_builder|tests)/", word)]
        assert [word for word in named if not (ROOT / word).exists()] == [], words


def without_code(page: Path) -> str:
    """The text of a page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", without_code(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = re.findall(r"\]\(([^)\s]+)\)", without_code(path))
    links = [link.partition("#") for link in found if "://" not in link]
    for file, _, anchor in links:
        target = path.parent / file if file else path
        assert target.exists(), file
        assert not anchor or anchor in anchors(target), f"{file}#{anchor}"
    named = re.findall(
        r"`((?:recipes|bench|docs|results|dataset_builder|tests|open_ner|ner_sets|hub)/[\w./-]+)`", text
    )
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_readme_has_the_answer_and_the_scores_of_the_result_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, part in readme.parts().items():
        assert f"<!-- {name}: begin -->\n{part}\n<!-- {name}: end -->" in text
    table = (ROOT / "results" / "quickstart" / "table.md").read_text(encoding="utf-8").strip()
    assert table in (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")


def test_the_page_about_the_method_has_the_tables_of_the_result_files() -> None:
    text = method.PAGE.read_text(encoding="utf-8")
    for name, part in method.parts().items():
        begin, end = method.marks(name)
        assert f"{begin}\n{part}\n{end}" in text, "write the tables anew: python -m bench.method"


def test_the_picture_shows_the_text_and_downloads_nothing() -> None:
    svg = (ROOT / readme.PICTURE).read_text(encoding="utf-8")
    assert "Curie" in svg and all(f"{name}" in svg.replace("&#160;", " ") for name in ("span", "score", "type"))
    assert "url(http" not in svg and 'url("http' not in svg


def test_the_first_screen_fits() -> None:
    first = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## ")[0]
    assert len(first.splitlines()) <= 45
    for part in ("make quickstart", "import open_ner", str(readme.PICTURE), "UniNER-7B, published"):
        assert part in first


def test_the_version_is_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0" and citation["license"] == "Apache-2.0"
    assert citation["version"] == open_ner.__version__
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{open_ner.__version__}] - {citation['date-released']}" in changes


def test_workflows_run_what_is_promised() -> None:
    jobs = {}
    for path in WORKFLOWS:
        workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert True in workflow or "on" in workflow  # YAML 1.1 reads the key `on` as true
        for name, job in workflow["jobs"].items():
            assert job["runs-on"] and all(("run" in step) != ("uses" in step) for step in job["steps"]), name
        jobs |= workflow["jobs"]
    said = {name: " ".join(step.get("run") or step["uses"] for step in job["steps"]) for name, job in jobs.items()}
    assert jobs["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.13"] and ".ci/run" in said["test"]
    assert "--resolution lowest-direct" in said["lowest"] and "pytest" in said["lowest"]
    assert "--upgrade transformers trl" in said["newest"] and "make test" in said["newest"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"} and jobs["publish"]["environment"]
    assert "pypa/gh-action-pypi-publish" in said["publish"] and jobs["publish"]["needs"] == "wheel"
