"""`python -m dataset_builder --preview N`: a few paid replies, shown with their rejects, before the run is paid."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from dataset_builder.__main__ import main
from fake_teacher import FakeTeacher
from open_ner.tools.errors import run

NAMES = ["Paris", "Rome", "Oslo", "Lima", "Cairo", "Quito", "Delhi", "Tunis", "Minsk", "Seoul", "Accra", "Dakar"]


def reply(request: dict[str, Any]) -> str:
    asked = request["messages"][-1]["content"]
    name = re.findall(r"mayor of (\w+)", asked)[-1]
    if "short sentence" in asked:
        return f'[("{name}", "a city with a mayor")]'
    return f'[("{name}", "city"), ("Ada <b>Byron", "person"), ("Zeus", "deity")]'


class Run:
    """Calls the command in this process, in a folder with a corpus of twelve passages."""

    def __init__(self, folder: Path, tokenizer: Path, monkeypatch: Any, capsys: Any) -> None:
        self.folder, self.tokenizer, self.monkeypatch, self.capsys = folder, tokenizer, monkeypatch, capsys
        texts = [f"The mayor of {name} met Ada <b>Byron on Monday in hall {n}." for n, name in enumerate(NAMES)]
        lines = [json.dumps({"id": f"d{n}", "text": text}) + "\n" for n, text in enumerate(texts)]
        (folder / "mine.jsonl").write_text("".join(lines), encoding="utf-8")

    def __call__(self, base_url: str, *more: str, teacher: str = "model: fake-teacher") -> tuple[int, str]:
        priced = "price_input: 1.0\n  price_output: 2.0\n  max_cost: 1.0"
        recipe = f"corpus:\n  path: mine.jsonl\n  tokenizer: {self.tokenizer}\n  max_tokens: 400\noutput_dir: run\n"
        recipe += f"name: my <i>set\nteacher:\n  base_url: {base_url}\n  {teacher}\n  {priced}\n"
        (self.folder / "mine.yaml").write_text(recipe, encoding="utf-8")
        self.monkeypatch.chdir(self.folder)
        self.monkeypatch.setenv("OPENAI_API_KEY", "k")
        self.monkeypatch.setattr(sys, "argv", ["dataset_builder", "--config", "mine.yaml", *more])
        try:
            run(main)
            status = 0
        except SystemExit as left:
            status = left.code
        said = self.capsys.readouterr()
        return status, said.out + (said.err if status else "")

    @property
    def page(self) -> str:
        return (self.folder / "run" / "preview.html").read_text(encoding="utf-8")


@pytest.fixture
def preview(tmp_path: Path, tiny_student: Path, monkeypatch: Any, capsys: Any) -> Run:
    return Run(tmp_path, tiny_student, monkeypatch, capsys)


def test_a_preview_asks_a_few_shows_them_and_never_pays_them_twice(preview: Run) -> None:
    with FakeTeacher(reply) as teacher:
        status, said = preview(teacher.base_url, "--preview", "3")
        assert status == 0 and len(teacher.requests) == 3, said
        assert said.count("[Ada <b>Byron|person]") == said.count("  not_in_passage: Zeus (deity)") == 3
        assert "3 were paid for ($0.0" in said and "9 requests to send, at most $0." in said
        assert "expected from the replies paid so far" in said and "run/preview.html" in said
        assert preview.page.count("<article") == 3 and preview.page.count("<b>not_in_passage</b>") == 3
        assert "Ada &lt;b&gt;Byron" in preview.page and "Ada <b>" not in preview.page
        assert "Preview of my &lt;i&gt;set" in preview.page and "3 were paid for" in preview.page
        assert not list((preview.folder / "run").glob("annotations*"))
        first = preview.page
        status, said = preview(teacher.base_url, "--preview", "3")
        assert status == 0 and "nothing was paid" in said and len(teacher.requests) == 3
        shown = re.findall(r'<div class="text".*', first)
        assert len(shown) == 3 and re.findall(r'<div class="text".*', preview.page) == shown
        status, said = preview(teacher.base_url, "--preview")  # ten, among them the three
        assert status == 0 and len(teacher.requests) == 10 and preview.page.count("<article") == 10
        status, said = preview(teacher.base_url, "--stage", "annotate")
        assert status == 0 and "2 were paid for" in said and len(teacher.requests) == 12


def test_a_dry_run_says_what_was_sent(preview: Run) -> None:
    with FakeTeacher(reply) as teacher:
        _, said = preview(teacher.base_url, "--dry_run")
        assert "12 requests to send, at most $0." in said and "; nothing was sent" in said and not teacher.requests
        _, said = preview(teacher.base_url, "--dry_run", "--pilot", "2")
        assert "10 requests to send, at most $0." in said and "; nothing else was sent" in said
        assert len(teacher.requests) == 2


def test_a_preview_keeps_to_the_budget_and_shows_what_has_no_reply(preview: Run) -> None:
    with FakeTeacher(reply) as teacher:
        status, said = preview(teacher.base_url, "--preview", "3", "--max_cost", "0.0025")
        assert status == 0 and "stopped below max_cost" in said and len(teacher.requests) < 3
        assert said.count("  no_answer\n") == 3 - len(teacher.requests)


def test_every_variant_is_shown(preview: Run) -> None:
    with FakeTeacher(reply) as teacher:
        more = ("--preview", "2", "--teacher.variants", "[type, definition]")
        status, said = preview(teacher.base_url, *more)
        assert status == 0 and len(teacher.requests) == 4, said
        assert preview.page.count("<article") == 4 and said.count(" · definition\n") == said.count(" · type\n") == 2
        assert said.count("|a city with a mayor]") == 2


def test_a_closed_world_shows_its_absent_types(preview: Run) -> None:
    with FakeTeacher(reply) as teacher:
        more = ("--preview", "1", "--teacher.types", "[city, drug]")
        status, said = preview(teacher.base_url, *more)
        assert status == 0 and len(teacher.requests) == 1, said
        assert "|city]" in said and "type_not_in_set: Ada <b>Byron (person)" in said
        assert "Asked, no span: <bdi>drug</bdi>" in preview.page


def test_recorded_replies_cost_nothing_and_ask_nobody(preview: Run) -> None:
    import hashlib

    text = json.loads((preview.folder / "mine.jsonl").read_text().splitlines()[0])["text"]
    digest = hashlib.sha256(text.encode()).hexdigest()
    line = {"text_sha256": digest, "reply": '[("Paris", "city")]', "finish_reason": "stop"}
    (preview.folder / "recorded.jsonl").write_text(json.dumps(line) + "\n")
    status, said = preview("http://127.0.0.1:9/v1", "--preview", "12", teacher="recorded: recorded.jsonl")
    assert status == 0 and "1 replies came from the journal and recorded files, nothing was paid" in said
    assert "[Paris|city]" in said and said.count("  no_answer\n") == 11 and "requests to send" not in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--preview", "0"], "--preview 0: give at least 1 passage"),
        (["--preview", "--dry_run"], "--preview cannot be combined with --dry_run"),
        (["--preview", "--stage", "build"], "--preview cannot be combined with --stage build"),
        (["--preview", "--push_to_hub", "org/name"], "--preview cannot be combined with --push_to_hub"),
        (["--dry_run", "--pilot", "-5"], "--pilot -5: give at least 1 question"),
        (["--dry_run", "--push_to_hub", "org/name"], "--push_to_hub cannot be combined with --dry_run"),
        (
            ["--stage", "annotate", "--push_to_hub", "org/name"],
            "--push_to_hub cannot be combined with --stage annotate",
        ),
        (
            ["--stage", "passages", "--push_to_hub", "org/name"],
            "--push_to_hub cannot be combined with --stage passages",
        ),
    ],
)
def test_options_that_contradict_each_other_are_errors(options: list[str], said: str, preview: Run) -> None:
    status, printed = preview("http://127.0.0.1:9/v1", *options)
    assert status == 2 and said in printed
