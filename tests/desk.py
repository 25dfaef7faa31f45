"""A folder in which the commands and snippets of the documentation run word for word.

Small stand-ins have the names that the pages use: `models/smollm2-135m-instruct` and `runs/quickstart/model` are
random students of two layers, and the address of the teacher in the recipes is that of a server on this machine.
Recipes are copied, and the sizes in SMALLER replace theirs; LESS adds options to a command.
"""

import json
import re
import runpy
import shutil
import sys
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import tiny

ROOT = Path(__file__).parent.parent
TEACHER = "https://api.openai.com/v1"
STUDENT = "runs/quickstart/model"
NAMES = {  # in the pages, and in the cards of the student and of the dataset
    "org/model": STUDENT, "path/or/hub-id": "runs/my-types/model", "path/to/this/folder": "runs/my-types/dataset",
}  # fmt: skip
SMALLER = {
    "sft/smollm2_135m/cpu.yaml": "max_steps: 1\ncpu_threads: 1\nmax_conversations: 4\nmax_length: 2048\n",
    "eval/sample.yaml": "limit: 1\nmax_new_tokens: 2\n",
    "eval/held_out.yaml": "limit: 2\nmax_new_tokens: 4\n",
    "eval/fit.yaml": "limit: 1\nmax_new_tokens: 2\n",
}
SERVER = "http://localhost:8000/v1"
LESS = {"zero_shot.against_teacher": ["--max_new_tokens", "2"]}  # for commands that read no recipe


def answer(request: dict[str, Any]) -> str:
    """The teacher's reply: the first two capitalized words of the passage have a type each."""
    asked = " ".join(str(message["content"]) for message in request["messages"])
    passage = str(request["messages"][-1]["content"]).partition("Passage: ")[2]
    first, second = ("drug", "disease") if '"drug"' in asked else ("person", "city")
    words = list(dict.fromkeys(re.findall(r"\b[A-Z][a-z]{3,}\b", passage)))[:2]
    return json.dumps([list(pair) for pair in zip(words, (first, second), strict=False)])


def prepare(desk: Path, student: Path, teacher: str) -> None:
    """Fill the folder with recipes, students and texts."""
    shutil.copytree(ROOT / "recipes", desk / "recipes")
    for recipe in (desk / "recipes").rglob("*.yaml"):
        recipe.write_text(recipe.read_text(encoding="utf-8").replace(TEACHER, teacher), encoding="utf-8")
    for name, sizes in SMALLER.items():
        recipe = desk / "recipes" / name
        replaced = "|".join(line.partition(":")[0] for line in sizes.splitlines())
        rest = re.sub(rf"^({replaced}):.*\n", "", recipe.read_text(encoding="utf-8"), flags=re.MULTILINE)
        recipe.write_text(rest + sizes, encoding="utf-8")
    for name in ("dataset_builder", "metrics", "docs", "bench"):
        (desk / name).symlink_to(ROOT / name)
    shutil.copytree(student, desk / "models" / "smollm2-135m-instruct")
    shutil.copytree(student, desk / STUDENT)
    config = desk / STUDENT / "config.json"
    options = {"open_ner": {"types": ["person", "city"], "present_share": 0.5, "max_new_tokens": 4}}
    config.write_text(json.dumps(json.loads(config.read_text()) | options))
    with (ROOT / "dataset_builder" / "sample" / "passages.jsonl").open(encoding="utf-8") as lines:
        passages = [json.loads(line)["text"].split() for line in lines]
    texts = [" ".join(words[at : at + 16]) for at in (0, 16) for words in passages][:280]
    _write(desk / "my_corpus.jsonl", [{"text": text} for text in texts])
    _write(desk / "texts.jsonl", [{"text": text} for text in tiny.LEARNED])


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def replace_names(code: str, address: str) -> str:
    """Replace the names of what only a reader has: a repository or folder, and a server."""
    for name, stand_in in {SERVER: address, **NAMES}.items():
        code = code.replace(name, stand_in)
    return code


def correct(tasks: Path, project: Path) -> None:
    """Write the project that a person exports from Label Studio after submitting every task as it is."""
    rows = json.loads(tasks.read_text(encoding="utf-8"))
    for row in rows:
        row["annotations"] = [{"completed_by": 1, "result": row.pop("predictions")[0]["result"]}]
    project.write_text(json.dumps(rows), encoding="utf-8")


def run(words: list[str]) -> int | str | None:
    """Run a command in this process and in the current folder; return its exit status, 0 or None for success."""
    words = [word.removeprefix(".venv/bin/") for word in words]
    if words[0] == "export":
        return None  # the tests set the variables
    with ExitStack() as stack:
        for sign, name in zip(words, words[1:], strict=False):
            if sign == "<":
                stack.enter_context(patch.object(sys, "stdin", stack.enter_context(Path(name).open(encoding="utf-8"))))
            if sign == ">":
                stack.enter_context(redirect_stdout(stack.enter_context(Path(name).open("w", encoding="utf-8"))))
        at = next((i for i, word in enumerate(words) if word in ("<", ">")), len(words))
        words = words[:at]
        if words[:2] == ["accelerate", "launch"]:
            words = ["python", *words[2:]]
        if words[0] == "open-ner":
            words = ["python", "-m", "open_ner", *words[1:]]
        module = words[1] == "-m"
        words += LESS.get(words[2], []) if module else []
        stack.enter_context(patch.object(sys, "argv", words[2 if module else 1 :]))
        try:
            if module:
                runpy.run_module(words[2], run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(str(ROOT / words[1]), run_name="__main__")
        except SystemExit as ended:
            return ended.code
    return None
