"""The passages that ablations train on, and those that choose between arms."""

import gzip
import hashlib
import json
from pathlib import Path

import pytest

from bench.parts import steps
from open_ner.tools.errors import UserError


def write(path: Path, rows: list[dict]) -> Path:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def held_out(name: str) -> bool:
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % 10 == 0


def test_no_passage_of_the_development_set_is_trained_on(tmp_path: Path) -> None:
    rows = [{"id": f"news-{number:03}", "text": f"Passage number {number}."} for number in range(100)]
    dev = [row for row in rows if held_out(row["id"])]
    rest = [row for row in rows if row not in dev]
    files = write(tmp_path / "data.gz", rows), write(tmp_path / "dev.gz", dev)
    steps.write_passages(*files, tmp_path / "train.jsonl")
    written = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert dev and sorted(row["id"] for row in written) == [row["id"] for row in rest]
    assert [row["id"] for row in written] != [row["id"] for row in rest]  # so that the first N are a sample

    for copied in ({"id": "news-copy", "text": rest[0]["text"]}, {"id": rest[0]["id"], "text": "Another text."}):
        write(tmp_path / "dev.gz", [*dev, copied])
        with pytest.raises(UserError, match=f"passage {rest[0]['id']} is in the development set"):
            steps.write_passages(*files, tmp_path / "none.jsonl")
    assert not (tmp_path / "none.jsonl").exists()


def test_arms_are_chosen_on_sentences_of_the_choosing_half(tmp_path: Path) -> None:
    rows = [{"id": f"news-{n}.{part}", "passage_id": f"news-{n}"} for n in range(40) for part in range(3)]
    steps.write_choosing_half(write(tmp_path / "all.gz", rows), tmp_path / "dev" / "half.gz")
    with gzip.open(tmp_path / "dev" / "half.gz", "rt") as file:
        chosen = {json.loads(line)["id"] for line in file}
    even = {
        row["id"] for row in rows if int(hashlib.sha256(row["passage_id"].encode()).hexdigest(), 16) // 10 % 2 == 0
    }
    assert chosen == even and 0 < len(chosen) < len(rows)
