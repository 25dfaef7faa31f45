"""The commands and snippets of README and docs run word for word, in order, with small stand-ins (desk.py)."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers.pipelines import PIPELINE_REGISTRY

import desk
import open_ner.pipeline  # noqa: F401  (registers the task)
import open_ner.tools.spacy_component  # noqa: F401  (docs/inference.md says so for a checkout)
from documents import NEEDS, blocks
from fake_teacher import FakeTeacher

ROOT = Path(__file__).parent.parent
# pages that make what later ones use; then all others
FIRST = ["README.md", "docs/your_domain.md", "docs/build.md", "docs/review.md"]
PAGES = [*FIRST, *(str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs").glob("*.md")))]
PAGES = [*dict.fromkeys([*PAGES, "metrics/entity_f1/README.md", "CONTRIBUTING.md"])]
PACKAGES = ("dataset_builder", "command_line", "hub", "open_ner", "sft", "zero_shot", "ner_sets")
CARDS = ["runs/my-types/model/README.md", "runs/my-types/dataset/README.md"]  # made by the commands of your_domain.md


@pytest.fixture
def folder(tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """The prepared folder, as the current one, and the address of its server."""
    with FakeTeacher(desk.answer) as teacher:
        desk.prepare(tmp_path, tiny_student, teacher.base_url)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
        # a snippet with remote code registers the pipeline that is saved with its student
        tasks = PIPELINE_REGISTRY.supported_tasks
        monkeypatch.setitem(tasks, "open-ner", tasks["open-ner"])
        yield tmp_path, teacher.base_url


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_run_or_says_what_it_needs(page: str) -> None:
    for block in blocks(ROOT / page, "bash", "python"):
        if block.mark.startswith("needs "):
            assert block.mark.removeprefix("needs ") in NEEDS, block
        if block.mark.startswith("run by "):
            assert (ROOT / block.mark.removeprefix("run by ")).is_file(), block


def test_commands_and_snippets_run_word_for_word(folder: tuple[Path, str]) -> None:
    here, address = folder
    earlier: set[str] = set()  # a command that an earlier page has too is not run twice
    for page in [*(ROOT / page for page in PAGES), *(here / card for card in CARDS)]:
        names: dict = {"__name__": "snippet"}
        own: set[str] = set()
        for block in blocks(page, "bash", "python"):
            if not block.runs:
                continue
            if block.language == "python":
                exec(compile(desk.replace_names(block.code, address), str(page), "exec"), names)
                continue
            for words in block.commands:
                words = [desk.replace_names(word, address) for word in words]
                if (line := " ".join(words).replace(".venv/bin/", "")) in earlier:
                    continue
                own.add(line)
                if "project-1.json" in words:
                    desk.correct(here / "runs/my-types/review/label-studio.json", here / "project-1.json")
                assert not (status := desk.run(words)), f"{page}: {' '.join(words)}: {status}"
        earlier |= own


def test_every_message_of_the_troubleshooting_page_is_in_the_code() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    messages = re.findall(r"^error: (.+)$", page, re.MULTILINE)
    strings = code_strings()
    assert len(messages) == 15
    for message in messages:
        for part in re.split(r"<[a-z]+>|; ", message):
            words = part.strip(" :,;()'")
            assert len(words) < 4 or any(words in string for string in strings), f"{message}: {words!r}"


def code_strings() -> list[str]:
    """All strings of the code, those with values as one string with a mark in the place of each value."""
    found = []
    for path in [*ROOT.glob("*.py"), *(p for name in PACKAGES for p in (ROOT / name).rglob("*.py"))]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
                found.append("".join(map(str, parts)))
    return found
