"""`eval_zero_shot.py` as a user runs it: result files, resuming, comparing, and mistakes in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import eval_zero_shot
from open_ner.cli import UserError

ROOT = Path(__file__).parent.parent


def command(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, str(ROOT / "eval_zero_shot.py"), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        cwd=cwd,
    )


@pytest.fixture(scope="module")
def finished(tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("eval")
    (folder / "types.json").write_text('{"person": 3, "Company": 2, "country": 1, "book": 1}')
    run = command(
        "--config", "recipes/eval/sample.yaml", "--model", str(tiny_student), str(tiny_student), "--limit", "3",
        "--max_new_tokens", "6", "--decoding", "grounded", "--output_dir", str(folder / "out"),
        "--seen_types", str(folder),
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return folder / "out", run.stdout


def test_results_and_predictions_say_what_was_run(finished: tuple[Path, str], tiny_student: Path) -> None:
    output, printed = finished
    folder = output / str(tiny_student).strip("/").replace("/", "--") / "sample-sample-grounded"
    results = json.loads((folder / "results.json").read_text())
    benchmark = results["benchmarks"]["sample"]
    assert {"schema", "protocol", "decoding", "versions", "hardware", "seconds", "seed", "command", "commit"} <= set(
        results
    )
    assert benchmark["sampled"] == {"passages": 3, "of": 48, "seed": 42}
    assert (benchmark["n_passages"], benchmark["n_queries"], benchmark["parse_failures"]) == (3, 24, 0)
    assert set(benchmark["by_seen"]) == {"seen", "held_out"}
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert len(lines) == 24
    for line in lines:
        assert set(line) == {
            "benchmark", "passage_id", "text", "type", "raw", "parse_failure", "spans", "gold", "gold_spans",
        }  # fmt: skip
        for span in line["spans"]:
            assert 0 <= span["start"] < span["end"] <= len(line["text"]) and 0 <= span["score"] <= 1
    assert not (folder / "predictions.partial.jsonl").exists()
    assert "held-out types" in printed and (output / "figures" / "f1.png").exists()
    assert results["occurrences"] == "all"
    assert results["calibration"]["n_spans"] == sum(len(line["spans"]) for line in lines) > 0
    assert results["calibration"]["raw"]["ece"] == results["calibration"]["calibrated"]["ece"]  # no fit is saved yet
    assert (output / "figures" / "calibration.png").exists()


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
        (["--config", "recipes/eval/sample.yaml", "--model", "m", "--colour", "red"], "colour"),
        (["--compare", "README.md"], "README.md"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], named: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    output = [] if arguments[0] == "--compare" else ["--output_dir", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["eval_zero_shot.py", *arguments, *output])
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match="(?s).+") as caught:
        eval_zero_shot.main()
    assert named in str(caught.value) or arguments[0] == "--compare"


def test_a_model_without_a_chat_template_is_refused(tiny_student: Path, tmp_path: Path) -> None:
    import shutil

    bare = tmp_path / "bare"
    shutil.copytree(tiny_student, bare)
    (bare / "chat_template.jinja").unlink()
    run = command(
        "--config", "recipes/eval/sample.yaml", "--model", str(bare), "--limit", "1", "--output_dir", str(tmp_path)
    )
    assert run.returncode == 2
    assert run.stderr.strip().splitlines()[-1].startswith(f"error: {bare} has no chat template")
