"""`eval_zero_shot.py` as a user runs it: result files, resuming, comparing, and mistakes in one line."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

import eval_zero_shot
import tiny
from command_line.hardware import inference_dtype
from open_ner.answers import Answer
from open_ner.decoding import Decoder, Request
from open_ner.tools.errors import UserError
from zero_shot.predict import folder_name
from zero_shot.student import load_model

ROOT = Path(__file__).parent.parent


def command(*arguments: str, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **variables}
    return subprocess.run(
        [sys.executable, str(ROOT / "eval_zero_shot.py"), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        cwd=cwd,
    )


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options of a benchmark of the texts that the tuned student knows, of which it answers most."""
    folder = tmp_path_factory.mktemp("learned")
    rows = []
    for number, (text, answers) in enumerate(tiny.LEARNED.items()):
        spans = [(text.index(word), word, kind) for kind, words in answers.items() for word in words]
        entities = [{"start": start, "end": start + len(word), "type": kind} for start, word, kind in spans]
        rows.append({"id": str(number), "text": text, "types": ["person", "city", "date"], "entities": entities})
    (folder / "sample.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "sample.yaml").write_text("name: sample\npath: sample.jsonl\nformat: offsets\n")
    return [
        "--config",
        "recipes/eval/sample.yaml",
        "--data_dir",
        str(folder),
        "--benchmarks",
        f"[{folder}/sample.yaml]",
    ]


@pytest.fixture(scope="module")
def finished(tuned_student: Path, learned: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("eval")
    (folder / "types.json").write_text('{"person": 3, "City": 2}')
    run = command(
        *learned, "--model", str(tuned_student), str(tuned_student), "--limit", "3",
        "--max_new_tokens", "24", "--decoding", "flat", "--output_dir", str(folder / "out"),
        "--seen_types", str(folder),
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return folder / "out", run.stdout


def test_results_and_predictions_say_what_was_run(finished: tuple[Path, str], tuned_student: Path) -> None:
    output, printed = finished
    folder = output / folder_name(str(tuned_student)) / "sample-sample-flat"
    results = json.loads((folder / "results.json").read_text())
    benchmark = results["benchmarks"]["sample"]
    assert {"schema", "protocol", "decoding", "versions", "hardware", "seconds", "seed", "command", "commit"} <= set(
        results
    )
    assert benchmark["sampled"] == {"passages": 3, "of": 4, "seed": 42}
    assert (benchmark["n_passages"], benchmark["n_queries"], benchmark["parse_failures"]) == (3, 9, 0)
    assert benchmark["strict"]["f1"] > 0.9
    assert results["model"]["selection"] == {
        "threshold": 0.0, "overlaps": "flat", "temperature": 1.0, "bias": 0.0, "presence_bias": None,
    }  # fmt: skip
    assert set(benchmark["by_seen"]) == {"seen", "held_out"}
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert len(lines) == 9
    for line in lines:
        assert set(line) == {
            "benchmark", "passage_id", "text", "type", "raw", "parse_failure", "spans", "presence", "gold",
            "gold_spans",
        }  # fmt: skip
        for span in line["spans"]:
            assert 0 <= span["start"] < span["end"] <= len(line["text"]) and 0 <= span["score"] <= 1
    assert not (folder / "predictions.partial.jsonl").exists()
    assert "held-out types" in printed and (output / "figures" / "f1.png").exists()
    assert results["occurrences"] == "all"
    assert results["calibration"]["n_spans"] == sum(len(line["spans"]) for line in lines) > 0
    assert results["calibration"]["raw"]["ece"] == results["calibration"]["calibrated"]["ece"]  # no fit is saved yet
    assert (output / "figures" / "calibration.png").exists()


def test_a_finished_run_is_read_again(finished: tuple[Path, str], tuned_student: Path, learned: list[str]) -> None:
    predictions = next(finished[0].glob("*/*/predictions.jsonl"))
    before, path = predictions.stat().st_mtime_ns, predictions.with_name("results.json")
    results = json.loads(path.read_text())
    path.write_text(json.dumps({**results, "hardware": "another machine", "commit": "c0ffee", "seconds": 7.5}))
    arguments = [
        *learned, "--model", f"{tuned_student}/", "--max_new_tokens", "24", "--decoding", "flat",
        "--output_dir", str(finished[0]),
    ]  # fmt: skip
    run = command(*arguments, "--limit", "3")
    assert run.returncode == 0, run.stderr
    assert "has finished before" in run.stdout and predictions.stat().st_mtime_ns == before
    again = json.loads(path.read_text())
    assert (again["hardware"], again["commit"], again["seconds"]) == ("another machine", "c0ffee", 7.5)
    assert again["command"] == results["command"] and again["dtype"] == "float32"
    # another limit, on a machine without git, overwrites nothing
    run = command(*arguments, "--limit", "2", PATH="")
    assert run.returncode == 0, run.stderr
    assert json.loads(path.read_text()) == again and predictions.stat().st_mtime_ns == before
    [other] = [each for each in finished[0].glob("*/*/results.json") if each != path]
    small = json.loads(other.read_text())
    assert (small["commit"], small["benchmarks"]["sample"]["n_passages"]) == (None, 2)


def test_one_passage_that_cannot_be_read_does_not_stop_a_run(
    tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["Rome and Paris.", "half \ud800 a character", "Rome and Paris. " * 700, "Rome."]
    kinds = ("city", "person", "date")
    entities = [{"start": 0, "end": 4, "type": kind} for kind in kinds]
    rows = [{"id": str(n), "text": text, "entities": entities} for n, text in enumerate(texts)]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "b.yaml").write_text("name: b\npath: b.jsonl\nformat: offsets\nversion: 1\ndomain: x\n")
    arguments = [
        "--config", str(ROOT / "recipes/eval/sample.yaml"), "--model", str(tiny_student), "--data_dir", str(tmp_path),
        "--benchmarks", f"[{tmp_path}/b.yaml]", "--max_new_tokens", "12", "--decoding", "flat",
        "--output_dir", str(tmp_path / "out"),
    ]  # fmt: skip
    answer = Decoder.answer

    def rome(decoder: Decoder, requests: list[Request], **options: Any) -> Iterator[list[Answer]]:
        """What the student answers, with Rome in its place."""
        for row in answer(decoder, requests, **options):
            yield [Answer('["Rome"]', [5], [-0.1], [8], True, each.presence) for each in row]

    monkeypatch.setattr(Decoder, "answer", rome)
    monkeypatch.setattr(sys, "argv", ["eval_zero_shot.py", *arguments])
    eval_zero_shot.main()
    [path] = (tmp_path / "out").glob("*/*/results.json")
    result = json.loads(path.read_text())["benchmarks"]["b"]
    assert (result["n_passages"], result["skipped"]) == (3, {"lone_surrogate": 1})
    lines = [json.loads(line) for line in path.with_name("predictions.jsonl").open()]
    assert [line["passage_id"] for line in lines[:: len(kinds)]] == ["0", "2", "3"]
    spans = [(line["text"][span["start"] : span["end"]], line) for line in lines for span in line["spans"]]
    assert any(line["passage_id"] == "2" and line["spans"][-1]["start"] > 9000 for _, line in spans)
    assert all(word.casefold() in line["raw"].casefold() for word, line in spans)


def test_results_on_samples_never_replace_those_on_whole_benchmarks_beside_a_student(
    tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    student = tmp_path / "student"
    shutil.copytree(tiny_student, student)
    config = json.loads((student / "config.json").read_text())
    (student / "config.json").write_text(json.dumps({**config, "open_ner": {"types": ["city"]}}))
    trained_on = dict.fromkeys(("conversations", "queries", "answer_tokens", "tokens"), 1)
    training = {"name": "s", "base_model": "b", "dataset": "d", "recipe": {"license": "mit"}, "history": []}
    (student / "training.json").write_text(json.dumps({**training, "seconds": 60.0, "trained_on": trained_on}))
    entities = [{"start": 0, "end": 4, "type": "city"}]
    rows = [{"id": str(n), "text": f"Rome has {n} hills.", "entities": entities} for n in range(4)]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "b.yaml").write_text("name: b\npath: b.jsonl\nformat: offsets\n")

    def score(*options: str) -> tuple[str, int, bytes]:
        """Print, number of passages in the results beside the student, and card after an evaluation."""
        arguments = [
            "--config", str(ROOT / "recipes/eval/sample.yaml"), "--model", str(student), "--data_dir", str(tmp_path),
            "--benchmarks", f"[{tmp_path}/b.yaml]", "--max_new_tokens", "4", "--output_dir", str(tmp_path / "out"),
        ]  # fmt: skip
        monkeypatch.setattr(sys, "argv", ["eval_zero_shot.py", *arguments, *options])
        eval_zero_shot.main()
        kept = json.loads((student / "results" / "sample-sample-free.json").read_text())["benchmarks"]["b"]
        return capsys.readouterr().out, kept["n_passages"], (student / "README.md").read_bytes()

    sampled, whole = score("--limit", "2"), score()
    assert (sampled[1], whole[1]) == (2, 4) and b"sample of 2 of 4 passages" in sampled[2] != whole[2]
    again = score("--limit", "3")
    is_same = again[2] == whole[2]  # compared outside of assert, whose report of long bytes takes minutes
    assert again[1] == 4 and is_same
    assert "model card: not changed, because" in again[0] and "not changed" not in sampled[0] + whole[0]
    (student / "README.md").unlink()
    assert score("--seed", "1")[1] == 4 and b"sample of" not in (student / "README.md").read_bytes()


def test_nothing_private_is_in_the_files_of_a_run(tiny_student: Path, tmp_path: Path) -> None:
    from fake_teacher import FakeTeacher

    student = tmp_path / "student"
    shutil.copytree(tiny_student, student)
    with FakeTeacher(lambda request: "[]") as server:
        address = server.base_url.replace("://", "://user:pass-word@")
        run = command(
            "--config", str(ROOT / "recipes/eval/sample.yaml"), "--model", "m", str(student), "--base_url", address,
            "--data_dir", str(ROOT), "--limit", "1", "--max_new_tokens", "4", "--output_dir", str(tmp_path / "out"),
            cwd=tmp_path, OPENAI_API_KEY="sk-secret-0123456789",
        )  # fmt: skip
    assert run.returncode == 0, run.stderr
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert sum(path.name == "results.json" for path in written) == 2
    private = ("sk-secret", "pass-word", str(Path.home()) + "/", str(tmp_path), str(ROOT))
    for path in written:
        content = path.read_text(encoding="utf-8", errors="replace")
        assert not [word for word in private if word in content], path


@pytest.mark.parametrize("with_tokenizer", [True, False])
def test_an_adapter_is_scored_with_the_saved_defaults_of_its_base(
    with_tokenizer: bool, tuned_student: Path, learned: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    base, adapter = tmp_path / "base" / "model", tmp_path / "adapter" / "model"
    shutil.copytree(tuned_student, base)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "open_ner": {"temperature": 2.0}}))
    lora = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), lora).save_pretrained(adapter)
    if with_tokenizer:  # else it is that of the base
        AutoTokenizer.from_pretrained(base).save_pretrained(adapter)
    monkeypatch.chdir(ROOT)
    for decoding in ("free", "flat"):
        arguments = [*learned, "--limit", "2", "--max_new_tokens", "24", "--decoding", decoding]
        arguments += ["--model", str(base), str(adapter), "--output_dir", str(tmp_path / "out")]
        monkeypatch.setattr(sys, "argv", ["eval_zero_shot.py", *arguments])
        eval_zero_shot.main()
        path = tmp_path / "out" / folder_name(str(adapter)) / f"sample-sample-{decoding}" / "results.json"
        results = json.loads(path.read_text())
        fitted = results["model"]["selection"] if decoding == "flat" else results["calibration"]
        assert fitted["temperature"] == 2.0 and results["benchmarks"]["sample"]["strict"]["f1"] > 0.9
        # both folders have the same name, and are outside of the working directory
        assert "Gain of adapter/model over base/model" in capsys.readouterr().out


def test_processes_share_the_work_and_give_the_same_predictions(tiny_student: Path, tmp_path: Path) -> None:
    launch = ["-m", "accelerate.commands.launch", "--config_file", "recipes/accelerate/cpu.yaml", "--quiet"]
    arguments = [
        "eval_zero_shot.py", "--config", "recipes/eval/sample.yaml", "--model", str(tiny_student), "--limit", "40",
        "--max_new_tokens", "6", "--decoding", "flat", "--output_dir",
    ]  # fmt: skip
    written = []
    for number, start in enumerate(([], launch)):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        line = [sys.executable, *start, *arguments, str(tmp_path / str(number))]
        run = subprocess.run(line, capture_output=True, text=True, env=environment, cwd=ROOT)
        assert run.returncode == 0, run.stderr[-2000:]
        assert run.stdout.count("held-out types") == 0 and run.stdout.count("| sample | all types |") == 1
        folder = next((tmp_path / str(number)).glob("*/*/predictions.jsonl")).parent
        assert {path.name for path in folder.iterdir()} == {"predictions.jsonl", "results.json"}
        written.append((folder / "predictions.jsonl").read_bytes())
    assert written[0] == written[1] and written[0].count(b"\n") == 320


def test_an_endpoint_and_a_student_are_scored_side_by_side(tiny_student: Path, tmp_path: Path) -> None:
    from fake_teacher import FakeTeacher

    with FakeTeacher(lambda request: "[]") as server:
        arguments = [
            "--config", "recipes/eval/sample.yaml", "--model", "gpt/teacher", str(tiny_student), "--base_url",
            server.base_url, "--limit", "2", "--max_new_tokens", "4", "--output_dir", str(tmp_path),
        ]  # fmt: skip
        planned = command(*arguments, "--endpoint.price_output", "1000", "--dry_run", OPENAI_API_KEY="sk-secret")
        asked = len(server.requests)
        run = command(*arguments, OPENAI_API_KEY="sk-secret")
    assert planned.returncode == 0 and asked == 0
    assert "gpt/teacher: 16 requests to send, $0.0640 at most" in planned.stdout
    assert f"{tiny_student}: in process" in planned.stdout
    assert run.returncode == 0, run.stderr
    assert len(server.requests) == 16 and "Gain of" in run.stdout
    results = json.loads((tmp_path / "gpt--teacher" / "sample-sample-free" / "results.json").read_text())
    assert results["model"] == {
        "id": "gpt/teacher", "revision": None, "kind": "endpoint", "base_url": server.base_url,
        "parameters": {"temperature": 0.0}, "served_as": ["gpt/teacher"],
    }  # fmt: skip
    assert results["benchmarks"]["sample"]["parse_failures"] == 0 and results["calibration"] is None
    assert not any("sk-secret" in path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())


def test_compare_shows_results_files_and_rewrites_a_readme(finished: tuple[Path, str], tmp_path: Path) -> None:
    files = [str(path) for path in finished[0].glob("*/*/results.json")]
    shown = command("--compare", *files)
    assert shown.returncode == 0 and "official F1" in shown.stdout
    readme = tmp_path / "README.md"
    readme.write_text("top\n<!-- results: begin -->\nold\n<!-- results: end -->\nbottom\n")
    assert command("--compare", *files, "--readme", str(readme)).returncode == 0
    text = readme.read_text()
    assert text.startswith("top\n") and text.endswith("bottom\n") and "old" not in text and "official F1" in text


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--config", "recipes/eval/absent.yaml", "--model", "m"], "absent.yaml"),
        (["--config", "recipes/eval/sample.yaml"], "--model"),
        (["--config", "recipes/eval/uniner.yaml", "--model", "m", "--data_dir", "/nowhere"], "/nowhere"),
        (["--config", "recipes/eval/sample.yaml", "--model", "runs/no-such-model"], "runs/no-such-model"),
        (["--config", "recipes/eval/sample.yaml", "--model", "m", "--limit", "0"], "--limit 0"),
        (["--config", "recipes/eval/sample.yaml", "--model", "m", "--max_new_tokens", "0"], "--max_new_tokens 0"),
        (["--config", "recipes/eval/sample.yaml", "--model", "m", "--token_budget", "-1"], "--token_budget -1"),
        (["--config", "recipes/eval/sample.yaml", "--model", "m", "--color", "red"], "color"),
        (
            [
                "--config",
                "recipes/eval/sample.yaml",
                "--model",
                "m",
                "--base_url",
                "http://x/v1",
                "--decoding",
                "flat",
            ],
            "flat",
        ),
        (["--config", "recipes/eval/sample.yaml", "--model", "recipes/eval/baselines/none.yaml"], "none.yaml"),
        (["--config", "recipes/eval/sample.yaml", "--model", "m", "--push_to_hub", "org/m"], "m is not a student"),
        (["--config", "recipes/eval/sample.yaml", "--model", "m", "--benchmarks", "[sample, sample]"], "'sample'"),
        (["--compare", "README.md"], "README.md: cannot be read as a results.json"),
    ],
)
def test_mistakes_give_a_one_line_error(
    arguments: list[str], named: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    output = [] if arguments[0] == "--compare" else ["--output_dir", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["eval_zero_shot.py", *arguments, *output])
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError) as caught:
        eval_zero_shot.main()
    assert named in str(caught.value)


def test_bfloat16_is_used_where_the_cpu_has_instructions_for_it(
    tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert load_model(AutoModelForCausalLM, str(tiny_student), "bfloat16").dtype == torch.bfloat16
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False})
    with pytest.raises(UserError, match="dtype bfloat16 is several times slower"):
        inference_dtype("bfloat16")


def test_a_model_without_a_chat_template_is_an_error(tiny_student: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(tiny_student, bare)
    (bare / "chat_template.jinja").unlink()
    run = command(
        "--config", "recipes/eval/sample.yaml", "--model", str(bare), "--limit", "1", "--output_dir", str(tmp_path)
    )
    assert run.returncode == 2
    assert run.stderr.strip().splitlines()[-1].startswith(f"error: {bare} has no chat template")


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("model.safetensors", lambda _: b"version https://git-lfs.github.com/spec/v1\n", "a git-LFS pointer"),
        ("model.safetensors", lambda content: content[:5000], "incomplete, or"),
        (
            "config.json",
            lambda content: content.replace(b'"hidden_size": ', b'"hidden_size": 1'),
            "check name and files",
        ),
    ],
)
def test_weights_that_cannot_be_loaded_give_a_one_line_error(
    tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, change: Any, said: str
) -> None:
    shutil.copytree(tiny_student, tmp_path / "student")
    path = tmp_path / "student" / name
    path.write_bytes(change(path.read_bytes()))
    asked = ["--config", "recipes/eval/sample.yaml", "--model", str(path.parent), "--limit", "1"]
    monkeypatch.setattr(sys, "argv", ["eval_zero_shot.py", *asked, "--output_dir", str(tmp_path / "out")])
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=f"cannot be loaded.*{said}"):
        eval_zero_shot.main()


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (["--compare", "a.json", "--redme", "README.md"], "unknown argument '--redme' with --compare"),
        (["--compare", "a.json", "--push_to_hub", "org/x"], "--push_to_hub has no effect with --compare"),
        (["--compare", "a.json", "--limit", "0"], "--limit has no effect with --compare"),
        (["--readme", "README.md"], "--readme has no effect without --compare"),
        (["--seen_types", "no/such/set"], "--seen_types no/such/set: no types.json there"),
    ],
)
def test_options_that_would_have_no_effect_are_refused(
    tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], fault: str
) -> None:
    asked = [] if "--compare" in given else ["--config", "recipes/eval/sample.yaml", "--model", str(tiny_student)]
    out = ["--output_dir", str(tmp_path)] * ("--compare" not in given)
    monkeypatch.setattr(sys, "argv", ["eval_zero_shot.py", *asked, *out, *given])
    with pytest.raises(UserError, match=fault):
        eval_zero_shot.main()
    assert not list(tmp_path.rglob("predictions*"))


@pytest.mark.parametrize(
    ("answers", "said"), [(["[]", "[]"], "m answers [] to each of 2 queries"), (["[]", '["a"]'], "")]
)
def test_a_model_that_never_answers_is_named(
    answers: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    eval_zero_shot.warn_of_silence("m", [{"raw": raw} for raw in answers])
    printed = capsys.readouterr().out
    assert printed.startswith(said) and bool(printed) == bool(said)
