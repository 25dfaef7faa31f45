"""Benchmark the builder at the paper's size: cutting, negative sampling, and the whole stage `build`.

    python bench/build.py [--part cutting|negatives|end_to_end] [--passages 45889] [--runs 3]

The part `cutting` is in bench/parts/cutting.py. The others make up a corpus with the paper's statistics: 45,889
passages of about 200 tokens, 5.2 entities per passage, 13,020 types of which the top 1 % have 74 % of the entities.
The ways of a part take turns in one process; the result is the median CPU time (user and system), which other work on
the machine disturbs least. `end_to_end` runs the command in a process of its own and also reports its peak memory.
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
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from bench.parts.cutting import add_options, bench_cut  # noqa: E402
from dataset_builder.annotation.annotate import AnnotationRow  # noqa: E402
from dataset_builder.config import TeacherConfig  # noqa: E402
from dataset_builder.corpus.cutting import Passage, load_tokenizer  # noqa: E402
from dataset_builder.dataset.conversations import count_types  # noqa: E402
from dataset_builder.dataset.negatives import NegativeSampler, passage_keys  # noqa: E402
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


def compare(ways: dict[str, Callable[[], object]], runs: int) -> list[float]:
    """Return the median CPU seconds of each way; the ways take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(runs):
        for name, way in ways.items():
            started = time.process_time()
            way()
            seconds[name].append(time.process_time() - started)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in medians.items():
        print(f"  {name:<44} {value:7.2f} CPU s")
    return list(medians.values())


def bench_negatives(args: argparse.Namespace) -> None:
    """Sample absent types by frequency, against `numpy.random.choice` for each passage."""
    rows = make_rows(args.passages)
    counts = count_types(rows)
    index = {name: code for code, name in enumerate(sorted(counts))}
    present = [sorted({index[mention["type"]] for mention in row["entities"]}) for row in rows]
    owners = np.repeat(np.arange(len(rows)), [len(codes) for codes in present])
    flat = np.array([code for codes in present for code in codes])
    wanted = np.bincount(owners, minlength=len(rows))

    def ours() -> tuple[np.ndarray, np.ndarray]:
        sampler = NegativeSampler(counts, "frequency", seed=0)
        return sampler.draw(passage_keys(row["id"] for row in rows), owners, flat, wanted)

    def numpy_choice() -> None:
        random = np.random.default_rng(0)
        weights = np.array([counts[name] for name in index], dtype=float)
        for codes in present:
            absent = weights.copy()
            absent[codes] = 0
            random.choice(len(absent), size=len(codes), replace=False, p=absent / absent.sum())

    print(f"negatives by frequency for {len(rows):,} passages, {wanted.sum():,} drawn of {len(index):,} types")
    drawn, codes = ours()
    pairs = drawn * len(index) + codes
    if len(pairs) != wanted.sum() or np.isin(pairs, owners * len(index) + flat).any():
        sys.exit("negatives: too few, or a present type among them")
    first, second = compare({"this project": ours, "numpy.random.choice per passage": numpy_choice}, args.runs)
    print(f"  ratio {first / second:.3f}")


def bench_end_to_end(args: argparse.Namespace) -> None:
    """Run `--stage build` as a user does, from passages and a journal made before."""
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


PARTS = {"cutting": bench_cut, "negatives": bench_negatives, "end_to_end": bench_end_to_end}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=list(PARTS), help="run only this part; default: all")
    parser.add_argument("--passages", type=int, default=45_889)
    parser.add_argument("--runs", type=int, default=3)
    add_options(parser)
    args = parser.parse_args()
    for name, part in PARTS.items():
        if args.part in (None, name):
            part(args)


if __name__ == "__main__":
    main()
