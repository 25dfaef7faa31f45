"""bench/errors.py: each error is counted under its cause."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.answers import is_choosing

ROOT = Path(__file__).parent.parent
TEXT = "Ada Lovelace met Charles Babbage in London in 1833."


def line(passage: str, asked: str, spans: list[tuple[int, int]], gold: list[tuple[int, int]]) -> dict[str, Any]:
    return {
        "benchmark": "dev_closed_passages", "passage_id": passage, "text": TEXT, "type": asked, "raw": "[]",
        "parse_failure": False, "spans": [{"start": start, "end": end, "score": 0.5} for start, end in spans],
        "gold": "[]", "gold_spans": gold,
    }  # fmt: skip


def test_each_error_is_counted_under_its_cause(tmp_path: Path) -> None:
    reported = next(name for name in (f"prose-{number}" for number in range(99)) if not is_choosing(name))
    chosen = next(name for name in (f"prose-{number}" for number in range(99)) if is_choosing(name))
    lines = [
        line(reported, "person", [(0, 12), (25, 32), (46, 50)], [(0, 12), (17, 32)]),  # right, boundary, type
        line(reported, "city", [(33, 42), (13, 16)], []),  # boundary and type, invented
        line(reported, "place", [], [(36, 42)]),
        line(reported, "date", [], [(46, 50)]),
        line(chosen, "person", [(0, 3)], [(4, 5)]),  # of the half that choices are made on: not read
    ]
    missed = [line(f"{reported}", "event", [], [(43, 45)])]
    given = tmp_path / "predictions.jsonl"
    given.write_text("".join(json.dumps(one) + "\n" for one in [*lines[:4], *missed, lines[4]]))
    command = [sys.executable, "bench/errors.py", "--predictions", f"mine={given}", "--examples", "1"]
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "errors.json")], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "errors.json").read_text())
    assert written["command"].startswith("python bench/errors.py") and str(tmp_path) not in written["command"]
    assert written["students"] == {
        "mine": {
            "all": {
                "predicted": {"right": 1, "boundary": 1, "type": 1, "boundary and type": 1, "invented": 1},
                "gold": {"right": 1, "boundary": 1, "boundary and type": 1, "type": 1, "missed": 1},
            }
        }
    }
    assert "mine, invented: city: 'met'" in done.stdout and "| mine | all | gold | 5 |" in done.stdout
    named = subprocess.run([*command[:3], str(given), "--output", "x"], cwd=ROOT, capture_output=True, text=True)
    assert named.returncode == 2 and "write NAME=FILE" in named.stderr
