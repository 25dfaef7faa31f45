"""Building the dataset at the paper's size: cutting, negatives, conversations to Parquet, journal to dataset.

    python bench/build.py [--part cutting|negatives|parquet|end_to_end] [--passages 45889] [--runs 3]

The part `cutting` is in bench/parts/cutting.py. The others make up a corpus with the paper's statistics: 45,889
passages of about 200 tokens, 5.2 entities a passage, 13,020 types of which the top 1 % take 74 %. Every way does the
same work in turns, in one process; medians of CPU seconds (user and system), which other work on the machine disturbs
least. `end_to_end` runs the command itself, in a process of its own, whose largest memory is reported too.
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
from dataclasses import asdict
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from bench.parts.cutting import add_options, bench_cut  # noqa: E402
from dataset_builder.config import DatasetConfig, TeacherConfig  # noqa: E402
from dataset_builder.corpus.cutting import load_tokenizer  # noqa: E402
from dataset_builder.corpus.passages import Passage  # noqa: E402
from dataset_builder.dataset.conversations import (  # noqa: E402
    ROWS_AT_ONCE,
    Conversation,
    ConversationCounts,
    count_types,
    to_conversations,
    to_table,
)
from dataset_builder.dataset.negatives import NegativeSampler, passage_keys  # noqa: E402
from dataset_builder.teacher.journal import Journal  # noqa: E402
from dataset_builder.teacher.questions import questions  # noqa: E402

TYPES = 13_020
USAGE = {"prompt_tokens": 250, "completion_tokens": 60}
TOKENIZER = ROOT / "models" / "smollm2-135m-instruct"


def make_rows(number: int) -> list[dict]:
    """Annotated passages: words of the embedded sample in random order, a few of them entities."""
    dice, sample = random.Random(0), ROOT / "dataset_builder" / "sample" / "passages.jsonl"
    words = [word for line in sample.read_text().splitlines() for word in json.loads(line)["text"].split()]
    names = sorted({word.strip(".,;:()'\"") for word in words if word[0].isupper() and len(word) > 3})
    types = [f"kind {i:05d} of thing"[: dice.randint(10, 19)] for i in range(TYPES)]
    weights = np.cumsum(1 / np.arange(1, TYPES + 1) ** 1.15).tolist()
    rows = []
    for i in range(number):
        entities, parts, length = [], [], 0
        wanted = [dice.choice(names) + " " + dice.choice(names) for _ in range(dice.choice((2, 3, 4, 5, 6, 7, 9)))]
        for place, name in enumerate(wanted):
            filler = " ".join(dice.choices(words, k=150 // len(wanted)))
            start = length + len(filler) + 1
            kind = dice.choices(types, cum_weights=weights)[0]
            entities.append({"start": start, "end": start + len(name), "text": name, "type": kind})
            parts.append(f"{filler} {name}")
            length = start + len(name) + (1 if place < len(wanted) - 1 else 0)
        rows.append({"id": f"doc-{i}", "text": " ".join(parts), "source": f"source {i % 20}", "entities": entities})
    return rows


def cpu_seconds(work: Callable[[], object]) -> float:
    before = resource.getrusage(resource.RUSAGE_SELF)
    work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compare(ways: dict[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """The median of each way's CPU seconds, the ways taking turns."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(runs):
        for name, way in ways.items():
            seconds[name].append(cpu_seconds(way))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in medians.items():
        print(f"  {name:<44} {value:7.2f} CPU s")
    return medians


def bench_negatives(args: argparse.Namespace) -> None:
    rows = make_rows(args.passages)
    counts: dict[str, int] = {}
    for row in rows:
        for mention in row["entities"]:
            counts[mention["type"]] = counts.get(mention["type"], 0) + 1
    index = {name: code for code, name in enumerate(sorted(counts))}
    present = [sorted({index[mention["type"]] for mention in row["entities"]}) for row in rows]
    owners = np.repeat(np.arange(len(rows)), [len(codes) for codes in present])
    flat = np.array([code for codes in present for code in codes])
    wanted = np.bincount(owners, minlength=len(rows))

    def ours() -> tuple[np.ndarray, np.ndarray]:
        sampler = NegativeSampler(counts, "frequency", seed=0)
        return sampler.draw(passage_keys(row["id"] for row in rows), owners, flat, wanted)

    def check() -> None:
        drawn, codes = ours()
        pairs = drawn * len(index) + codes
        if len(pairs) != wanted.sum() or np.isin(pairs, owners * len(index) + flat).any():
            sys.exit("negatives: too few, or a passage's own type among them")

    def numpy_choice() -> None:
        random = np.random.default_rng(0)
        weights = np.array([counts[name] for name in index], dtype=float)
        for codes in present:
            absent = weights.copy()
            absent[codes] = 0
            random.choice(len(absent), size=len(codes), replace=False, p=absent / absent.sum())

    print(f"negatives by frequency for {len(rows):,} passages, {wanted.sum():,} drawn of {len(index):,} types")
    check()
    medians = compare({"this project": ours, "numpy.random.choice per passage": numpy_choice}, args.runs)
    print(f"  ratio {medians['this project'] / medians['numpy.random.choice per passage']:.3f}")


def bench_parquet(args: argparse.Namespace) -> None:
    import datasets
    from datasets.arrow_writer import ParquetWriter

    from dataset_builder.uniner_distill import CONVERSATION_FEATURES
    from open_ner.conversation import build_conversation

    rows, options = make_rows(args.passages), DatasetConfig()
    samplers = {"": NegativeSampler(count_types(rows), "frequency", 0)}
    conversations = list(to_conversations(rows, samplers, {"": options}, None, ConversationCounts()))

    def ours(folder: str) -> None:
        writer = ParquetWriter(path=f"{folder}/ours.parquet", features=CONVERSATION_FEATURES)
        for begin in range(0, len(conversations), ROWS_AT_ONCE):
            block = conversations[begin : begin + ROWS_AT_ONCE]
            writer.write_table(to_table(block, CONVERSATION_FEATURES.arrow_schema))
        writer.finalize()

    def row_of(conversation: Conversation) -> dict:
        asked = dict(conversation.queries)
        return {
            **{"id": conversation.id, "text": conversation.row["text"], "source": conversation.row["source"]},
            "messages": build_conversation(conversation.row["text"], conversation.queries),
            "entities": [mention for mention in conversation.row["entities"] if mention["type"] in asked],
            "negatives": [name for name, strings in conversation.queries if not strings],
        }

    def from_list(folder: str, ready: list[dict] | None = None) -> None:
        built = ready or [row_of(conversation) for conversation in conversations]
        datasets.Dataset.from_list(built, features=CONVERSATION_FEATURES).to_parquet(f"{folder}/list.parquet")

    datasets.disable_progress_bars()
    ready = [row_of(conversation) for conversation in conversations]
    print(f"{len(conversations):,} conversations to Parquet")
    with tempfile.TemporaryDirectory() as folder:
        medians = compare(
            {
                "this project": lambda: ours(folder),
                "rows, Dataset.from_list, to_parquet": lambda: from_list(folder),
                "Dataset.from_list, to_parquet alone": lambda: from_list(folder, ready),
            },
            args.runs,
        )
        same = [
            datasets.Dataset.from_parquet(f"{folder}/{name}.parquet", cache_dir=folder) for name in ("ours", "list")
        ]
        if same[0][:500] != same[1][:500] or len(same[0]) != len(same[1]):
            sys.exit("parquet: the two files differ")
    first, *others = medians.values()
    print("  ratio " + " and ".join(f"{first / other:.2f}" for other in others))


def bench_end_to_end(args: argparse.Namespace) -> None:
    """`--stage build` as a user runs it; passages and journal are written before."""
    rows = make_rows(args.passages)
    teacher = TeacherConfig(model="bench", variants=["type"])
    encode = load_tokenizer(str(TOKENIZER)).encode_batch_fast
    tokens = [len(encoding) for encoding in encode([row["text"] for row in rows], add_special_tokens=False)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        passages = [
            Passage(row["id"], row["text"], row["source"], row["id"], "CC0-1.0", 0, len(row["text"]), count)
            for row, count in zip(rows, tokens, strict=True)
        ]
        (folder / "passages.jsonl").write_text("".join(json.dumps(asdict(passage)) + "\n" for passage in passages))
        (folder / "passages.report.json").write_text(json.dumps({"counts": {"kept": len(rows), "rejected": {}}}))
        (folder / "rejected_passages.jsonl").touch()
        answers = {row["id"]: [(mention["text"], mention["type"]) for mention in row["entities"]] for row in rows}
        with Journal(folder / "journal.jsonl") as journal:
            for question in questions(passages, teacher):
                pairs = ", ".join(f'("{span}", "{kind}")' for span, kind in answers[question.passage_id])
                record = {"key": question.key, "passage_id": question.passage_id, "reply": f"[{pairs}]"}
                journal.append({**record, "finish_reason": "stop", "usage": USAGE, "model": "bench"})
        (folder / "recipe.yaml").write_text(
            json.dumps(
                {
                    "corpus": {"path": "made-up.jsonl", "tokenizer": str(TOKENIZER)},
                    "teacher": {"model": "bench"},
                    "output_dir": name,
                }
            )
        )
        command = [sys.executable, "-m", "dataset_builder", "--config", f"{name}/recipe.yaml", "--stage", "build"]
        used, peaks, walls = [], [], []
        for _ in range(args.runs):
            watched = (
                "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=2); "
                "used = resource.getrusage(resource.RUSAGE_CHILDREN); "
                "print(used.ru_utime + used.ru_stime, used.ru_maxrss)"
            )
            started = time.perf_counter()
            ended = subprocess.run([sys.executable, "-c", watched, *command], capture_output=True, text=True, cwd=ROOT)
            if ended.returncode:
                sys.exit(ended.stderr[-2000:])
            seconds, peak = ended.stdout.split()
            used.append(float(seconds))
            peaks.append(int(peak) / 1024)
            walls.append(time.perf_counter() - started)
        queries = json.loads((folder / "dataset" / "stats.json").read_text())["variants"]["type"]
    print(f"journal to dataset folder, {len(rows):,} passages, {queries['entities']:,} entities, all steps")
    print(f"  {statistics.median(used):.1f} CPU s, {statistics.median(walls):.1f} s, {max(peaks):.0f} MiB at most")


PARTS = {"cutting": bench_cut, "negatives": bench_negatives, "parquet": bench_parquet, "end_to_end": bench_end_to_end}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=list(PARTS), help="one part; absent: all")
    parser.add_argument("--passages", type=int, default=45_889)
    parser.add_argument("--runs", type=int, default=3)
    add_options(parser)
    args = parser.parse_args()
    for name, part in PARTS.items():
        if args.part in (None, name):
            part(args)


if __name__ == "__main__":
    main()
