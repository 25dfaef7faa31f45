"""bench/choices.py computes the strict F1 of every policy from raw answers."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_policy_is_scored_from_the_raw_answers(tmp_path: Path) -> None:
    text = "Rome, Paris, Rome; rome."
    line = {"benchmark": "b", "passage_id": "p", "text": text, "type": "city", "spans": [], "gold": "[]"}
    lines = [
        {**line, "raw": '["Rome"]', "gold_spans": [[0, 4], [13, 17]]},
        {**line, "raw": '["PARIS"]', "gold_spans": [[6, 11]], "type": "town"},
    ]
    predictions = tmp_path / "predictions.jsonl"
    predictions.write_text("\n".join(map(json.dumps, lines)))
    command = [sys.executable, "bench/choices.py", str(predictions), "--output", str(tmp_path / "choices.json")]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    [rows] = json.loads((tmp_path / "choices.json").read_text()).values()
    counts = {(row["occurrences"], row["case"]): (row["tp"], row["n_pred"], row["n_gold"]) for row in rows}
    assert counts == {
        ("all", "exact"): (2, 2, 3), ("all", "else_any"): (3, 3, 3), ("all", "any"): (3, 4, 3),
        ("first", "exact"): (1, 1, 3), ("first", "else_any"): (2, 2, 3), ("first", "any"): (2, 2, 3),
    }  # fmt: skip
    assert "all   exact" in run.stdout and run.stdout.count("<- default") == 1
    assert str(tmp_path) not in (tmp_path / "choices.json").read_text()
