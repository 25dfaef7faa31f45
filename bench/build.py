"""Benchmark the stage `build` at the paper's size, from passages and replies to the dataset's folder.

    python bench/build.py [--passages 45889] [--runs 3]

Makes up a corpus with the paper's statistics: 45,889 passages of about 200 tokens, 5.2 entities per passage, 13,020
types of which the top 1 % have 74 % of the entities. Prints the median CPU time (user and system), the wall time and
the peak memory of the command.
"""

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from dataset_builder.annotation.annotate import AnnotationRow  # noqa: E402
from dataset_builder.config import TeacherConfig  # noqa: E402
from dataset_builder.corpus.cutting import Passage, load_tokenizer  # noqa: E402
from dataset_builder.teacher.journal import Journal  # noqa: E402
from dataset_builder.teacher.questions import questions  # noqa: E402
from dataset_builder.teacher.records import Usage, make_record  # noqa: E402
from ner_sets.mentions import Mention  # noqa: E402
from open_ner.tools.files import write_json, write_jsonl  # noqa: E402

TYPES = 13_020
USAGE: Usage = {"prompt_tokens": 250, "completion_tokens": 60}
TOKENIZER = str(ROOT / "models" / "smollm2-135m-instruct")


def sample_words() -> list[str]:
    """All words of the embedded sample, with repetition."""
    lines = (ROOT / "dataset_builder" / "sample" / "passages.jsonl").read_text(encoding="utf-8").splitlines()
    return [word for line in lines for word in json.loads(line)["text"].split()]


def make_rows(number: int) -> list[AnnotationRow]:
    """Make annotated passages: words of the embedded sample in random order, some of them entities."""
    dice, words = random.Random(0), sample_words()
    names = sorted({word.strip(".,;:()'\"") for word in words if word[0].isupper() and len(word) > 3})
    types = [f"kind {i:05d} of thing"[: dice.randint(10, 19)] for i in range(TYPES)]
    weights = np.cumsum(1 / np.arange(1, TYPES + 1) ** 1.15).tolist()
    rows: list[AnnotationRow] = []
    for i in range(number):
        mentions: list[Mention] = []
        text = ""
        wanted = [dice.choice(names) + " " + dice.choice(names) for _ in range(dice.choice((2, 3, 4, 5, 6, 7, 9)))]
        for name in wanted:
            text += " ".join(dice.choices(words, k=150 // len(wanted))) + " "
            kind = dice.choices(types, cum_weights=weights)[0]
            mentions.append({"start": len(text), "end": len(text) + len(name), "text": name, "type": kind})
            text += f"{name} "
        rows.append(
            {"id": f"doc-{i}", "text": text[:-1], "source": f"source {i % 20}", "source_id": f"doc-{i}",
             "license": "CC0-1.0", "start": 0, "end": len(text) - 1, "entities": mentions, "teacher": "bench",
             "annotated": ""}
        )  # fmt: skip
    return rows


def main() -> None:
    """Run `--stage build` as a user does, from passages and a journal made before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=45_889)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    rows = make_rows(args.passages)
    teacher = TeacherConfig(model="bench", variants=["type"])
    encode = load_tokenizer(TOKENIZER).encode_batch_fast
    tokens = [len(encoding) for encoding in encode([row["text"] for row in rows], add_special_tokens=False)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        passages = [
            Passage(row["id"], row["text"], row["source"], row["source_id"], row["license"], 0, row["end"], count)
            for row, count in zip(rows, tokens, strict=True)
        ]
        write_jsonl(folder / "passages.jsonl", map(vars, passages))
        write_json(folder / "passages.report.json", {"counts": {"kept": len(rows), "rejected": {}}})
        (folder / "rejected_passages.jsonl").touch()
        pairs = {row["id"]: [[mention["text"], mention["type"]] for mention in row["entities"]] for row in rows}
        with Journal(folder / "journal.jsonl") as journal:
            for question in questions(passages, teacher):
                journal.append(make_record(question, json.dumps(pairs[question.passage_id]), "stop", "bench", USAGE))
        recipe = {
            "corpus": {"path": "made-up.jsonl", "tokenizer": TOKENIZER},
            "teacher": {"model": "bench"},
            "output_dir": name,
        }
        write_json(folder / "recipe.yaml", recipe)
        command = [sys.executable, "-m", "dataset_builder", "--config", f"{name}/recipe.yaml", "--stage", "build"]
        used, walls = [], []
        for _ in range(args.runs):
            started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
            if ended.returncode:
                sys.exit(ended.stderr[-2000:])
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
            walls.append(time.perf_counter() - started)
        stats = json.loads((folder / "dataset" / "stats.json").read_text(encoding="utf-8"))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"journal to dataset, {len(rows):,} passages, {stats['variants']['type']['entities']:,} entities, all steps")
    print(f"  {statistics.median(used):.1f} CPU s, {statistics.median(walls):.1f} s, peak memory {peak:.0f} MiB")


if __name__ == "__main__":
    main()
