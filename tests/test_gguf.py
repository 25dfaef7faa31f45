"""`python -m hub.gguf` with a stand-in for llama.cpp's converter: file, comparison, card, and what is missing."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

import open_ner
from hub import gguf
from open_ner.tools.errors import UserError
from open_ner.tools.files import write_jsonl
from tiny import LEARNED

CONVERTER = """
import argparse
parser = argparse.ArgumentParser()
for name in ("model", "--outfile", "--outtype"):
    parser.add_argument(name)
args = parser.parse_args()
if args.outtype == "bf16":
    raise ModuleNotFoundError("No module named 'sentencepiece'")
open(args.outfile, "w").write(args.outtype)
"""


@pytest.fixture
def student(tuned_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "my-ner"
    shutil.copytree(tuned_student, folder)
    (folder / "training.json").write_text("{}")
    (folder / "README.md").write_text(
        "---\nlicense: apache-2.0\nlanguage: [en]\nbase_model: org/base\n---\n# my-ner\n"
    )
    (tmp_path / gguf.CONVERTER).write_text(CONVERTER)
    texts = list(LEARNED.items())[:2]
    rows = [
        {"text": text, "types": ["city", "date"], "entities": [{"type": name} for name in types if name != "date"]}
        for text, types in texts
    ]
    write_jsonl(tmp_path / "passages.jsonl", rows)
    monkeypatch.setattr(gguf, "PASSAGES", tmp_path / "passages.jsonl")
    monkeypatch.setattr(gguf, "ASKED", 2)
    return folder


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["hub.gguf", *map(str, arguments)])
    gguf.main()


def test_a_student_is_converted_compared_and_published_beside_the_original(
    student: Path,
    tiny_student: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pushed = []
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    monkeypatch.setattr(gguf, "publish_folder", lambda *given: pushed.append(given) or "published")
    loads = {"q8_0": student, "f16": tiny_student}  # as if q8_0 kept the student whole, and f16 nothing of it
    monkeypatch.setattr(gguf, "load_gguf", lambda file, _: open_ner.load(loads[file.read_text()], dtype="float32"))
    for form in loads:
        command(monkeypatch, student, "--quantize", form, "--llama_cpp", tmp_path, "--push_to_hub", "org/my-ner")
    folder = tmp_path / "my-ner-GGUF"
    assert pushed == [(folder, "org/my-ner-GGUF", "gguf")] * 2
    record = json.loads((folder / "gguf.json").read_text())
    same = record["my-ner-q8_0.gguf"]["compared"]
    assert (same["queries"], same["same"], same["spans"], same["shared"]) == (5, 5, 5, 5) and same[
        "score_difference"
    ] == 0
    other = record["my-ner-f16.gguf"]["compared"]
    assert other["spans"] == 5 and other["shared"] < 5 and other["same"] < 5
    assert "the same spans in 5 of 5 queries; 5 of the original's 5 spans are found" in capsys.readouterr().out
    card = ModelCard.load(folder / "README.md")
    assert card.data.to_dict() == {
        "license": "apache-2.0", "language": ["en"], "base_model": "org/my-ner", "base_model_relation": "quantized",
        "library_name": "gguf", "pipeline_tag": "text-generation",
        "tags": ["named-entity-recognition", "open-ner", "universal-ner"],
    }  # fmt: skip
    assert "| `my-ner-q8_0.gguf` | q8_0 | 0 MB | 5 of 5 | 5 of 5 | 0.000 |\n| `my-ner-f16.gguf` | f16 |" in card.text
    assert "llama-server -hf org/my-ner-GGUF" in card.text and 'tokenizer="org/my-ner"' in card.text


def test_a_form_that_transformers_cannot_read_is_not_compared_and_the_card_says_so(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unread(*_: object) -> None:
        raise ValueError("GGUF model with architecture new is not supported yet")

    monkeypatch.setattr(gguf, "load_gguf", unread)
    command(monkeypatch, student, "--llama_cpp", tmp_path)
    assert "not compared: transformers cannot read my-ner-q8_0.gguf" in capsys.readouterr().err
    assert "| q8_0 | 0 MB | not compared | - | - |" in (tmp_path / "my-ner-GGUF" / "README.md").read_text()


def test_what_is_missing_is_one_line(student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    for given, line in [
        ([], r"convert_hf_to_gguf.py is not on the PATH: name its sources with --llama_cpp FOLDER"),
        (["--llama_cpp", tmp_path / "none"], "convert_hf_to_gguf.py is not in .*none"),
        (["--llama_cpp", tmp_path, "--push_to_hub", "my-ner"], "'my-ner-GGUF' is not a repository's name"),
        (["--llama_cpp", tmp_path, "--quantize", "bf16"], "cannot convert .*: run `pip install sentencepiece`"),
    ]:
        with pytest.raises(UserError, match=line):
            command(monkeypatch, student, *given)
    with pytest.raises(UserError, match="is not a student's folder"):
        command(monkeypatch, tmp_path, "--llama_cpp", tmp_path)
    assert not list(tmp_path.glob("**/*.gguf*"))
