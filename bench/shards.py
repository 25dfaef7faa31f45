"""Run the builder in shards whose processes are killed at random, and compare with one undisturbed process.

    python bench/shards.py --output results/bench/shards.json      # minutes on two cores
    python bench/shards.py --documents 2000 --sample 100 --shards 2 --kills 3

One process makes passages of a generated corpus, asks a local endpoint about them, and builds a dataset. Then N shards
do the same, with a merge after each stage. They are killed (kill -9) at random moments and started again, until there
were enough kills. The passages and all files of the dataset must have the same bytes; all processes see the same fixed
date, because the dataset contains the dates of the replies. The endpoint counts its requests: a question whose reply
is in a journal must never be asked again. The command exits with status 1 if a check fails.
"""

import argparse
import hashlib
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from bench.parts.killing import Commands  # noqa: E402
from bench.parts.local_endpoint import LocalEndpoint  # noqa: E402
from bench.parts.provenance import provenance  # noqa: E402
from open_ner.tools.files import read_jsonl, write_json, write_jsonl  # noqa: E402

FILES = 3  # of the corpus; more shards than files divide the files by rows
WORDS = "the a of in on with new old near after before left found made wrote saw house river train letter song year"
NAMES = {
    "Ada": "person", "Alan": "person", "Grace": "person", "Lima": "city", "Oslo": "city", "Kyoto": "city",
    "Acme": "company", "Initech": "company", "Ariane": "rocket", "Vostok": "rocket", "Titanic": "ship",
}  # fmt: skip
PASSAGE_FILES = ("passages.jsonl", "rejected_passages.jsonl", "passages.report.json")
CLOCK = "import time\ngmtime = time.gmtime\ntime.gmtime = lambda *seconds: gmtime(*(seconds or (1767225600,)))\n"
SECONDS = 900  # a stage that takes longer counts as hanging
Row = dict[str, Any]


def main() -> None:
    """Run the undisturbed process, then shards until there were enough kills; print, write, and check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--sample", type=int, default=400, help="passages; one question each")
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the corpus and of the kills")
    parser.add_argument("--tokenizer", default="models/smollm2-135m-instruct")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        here, chooser = Path(folder), random.Random(args.seed)
        write_corpus(here / "corpus", args.documents, chooser)
        (here / "clock").mkdir()
        (here / "clock" / "sitecustomize.py").write_text(CLOCK, encoding="utf-8")  # Python runs it when it starts
        environment = {"OPENAI_API_KEY": "bench", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(here / "clock")}
        with Commands(here / "log.txt", environment) as commands:
            whole = Run(here / "whole", commands, args)
            seconds, (asked, _) = whole.undisturbed()
            rounds = []
            while len(commands.kills) < args.kills:
                run = Run(here / f"shards-{len(rounds) + 1}", commands, args)
                rounds.append(run.in_shards(seconds, chooser) | {"files": compare(whole.folder, run.folder)})
                print(json.dumps(rounds[-1]), flush=True)
    results = {
        **provenance(),
        "versions": {name: version(name) for name in ("datasets", "pyarrow", "openai")},
        "documents": args.documents, "shards": args.shards, "kills": len(commands.kills), "questions": len(asked),
        "undisturbed_seconds": seconds, "rounds": rounds,
    }  # fmt: skip
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.output, results)
    for row in rounds:
        if other := [name for name, same in row["files"].items() if not same]:
            sys.exit(f"other bytes than those of the undisturbed process: {', '.join(other)}")
        if row["asked_again_with_a_reply"] or row["asked_after_the_merge"]:
            sys.exit("questions with a reply were asked again")


def write_corpus(folder: Path, documents: int, chooser: random.Random) -> None:
    """Write JSONL files; one document in twenty is a copy, one a near copy, and one too short to be kept."""
    folder.mkdir()
    words, names, rows = WORDS.split(), [*NAMES], []
    for number in range(documents):
        kind, text = number % 20, ""
        if kind in (5, 10) and rows:
            text = chooser.choice(rows)["text"] + (" again and then once more ." if kind == 10 else "")
        else:
            length = 3 if kind == 15 else chooser.randint(30, 120)
            text = " ".join(chooser.choice(names if chooser.random() < 0.1 else words) for _ in range(length))
        rows.append({"id": f"d{number}", "text": text, "source": f"part {number % 2}"})
    for number in range(FILES):
        write_jsonl(folder / f"{number}.jsonl", rows[number::FILES])


class Run:
    """A run of the builder in its own folder, with an endpoint of its own."""

    def __init__(self, folder: Path, commands: Commands, args: argparse.Namespace) -> None:
        self.folder, self.commands, self.args = folder, commands, args
        self.recipe = folder.with_suffix(".yaml")
        self.starts, self.killed = Counter[str](), Counter[str]()  # by stage
        self.replied: dict[str, int] = {}  # hash of a passage with a journaled reply -> requests until it was seen

    def line(self, stage: str, shard: int | None = None) -> list[object]:
        """Return the command of a stage, or of a merge."""
        if stage == "merge":
            return ["-m", "dataset_builder.merge", "--config", self.recipe]
        part = ["--shard", f"{shard}/{self.args.shards}"] if shard else []
        return ["-m", "dataset_builder", "--config", self.recipe, "--stage", stage, *part]

    def write_recipe(self, endpoint: LocalEndpoint) -> None:
        """Write the recipe; those of all runs differ in folder and endpoint only."""
        recipe = {
            "name": "bench", "output_dir": str(self.folder),
            "corpus": {
                "path": str(self.folder.parent / "corpus"), "sample": self.args.sample,
                "tokenizer": self.args.tokenizer, "language": None,
            },
            "teacher": {"base_url": endpoint.base_url, "model": "bench", "concurrency": 8},
        }  # fmt: skip
        self.recipe.write_text(yaml.safe_dump(recipe), encoding="utf-8")

    def undisturbed(self) -> tuple[dict[str, float], tuple[Counter[str], int]]:
        """Run all stages in one process; returns the seconds of each, and what the endpoint was asked."""
        seconds: dict[str, float] = {}
        with LocalEndpoint(0.2, names=NAMES) as endpoint:
            self.write_recipe(endpoint)
            for stage in ("passages", "annotate", "build"):
                started = time.perf_counter()
                self.commands.run(*self.line(stage))
                seconds[stage] = time.perf_counter() - started
                print(f"undisturbed: {stage} {seconds[stage]:.1f} s", flush=True)
            return seconds, self.asked(endpoint)

    def asked(self, endpoint: LocalEndpoint) -> tuple[Counter[str], int]:
        """Return the requests by hash of the passage, and their number."""
        asked = Counter(endpoint.stats()["asked"])
        return asked, asked.total()

    def in_shards(self, seconds: dict[str, float], chooser: random.Random) -> Row:
        """Run all stages in shards with kills, and merges; returns what was killed, started and asked."""
        shards = self.args.shards
        most = {"passages": shards - 1, "merge": 1, "annotate": shards, "build": 1}  # maximum of kills per stage
        with LocalEndpoint(0.2, names=NAMES) as endpoint:
            self.write_recipe(endpoint)
            for stage in ("passages", "merge", "annotate", "merge", "build"):
                numbers = range(1, shards + 1) if stage in ("passages", "annotate") else [None]
                lines = [self.line(stage, number) for number in numbers]
                length = seconds.get(stage, 3.0)  # seconds; a merge is short
                self.until_done(stage, lines, most[stage], length, chooser, endpoint)
            asked, requests = self.asked(endpoint)
            again = sum(asked[text] - times for text, times in self.replied.items())
            for line in (self.line("annotate", 1), self.line("annotate")):
                self.commands.run(*line)
            return {
                "killed": dict(self.killed), "starts": dict(self.starts),
                "requests": requests, "asked_again_with_a_reply": again,
                "asked_again_because_the_reply_was_lost": requests - len(asked),
                "asked_after_the_merge": self.asked(endpoint)[1] - requests,
            }  # fmt: skip

    def until_done(
        self, stage: str, lines: list[list[object]], most: int, length: float, chooser: random.Random,
        endpoint: LocalEndpoint,
    ) -> None:  # fmt: skip
        """Run commands in parallel, kill one at up to `most` random moments, and restart those that were killed."""
        running = {number: self.start(stage, line) for number, line in enumerate(lines)}
        begun, hit = time.monotonic(), set[int]()
        is_due, most = self.moment(stage, length, chooser, endpoint), len(self.commands.kills) + most
        while running:
            time.sleep(0.02)
            if time.monotonic() > begun + SECONDS:
                self.commands.fail([stage], 124)
            if len(self.commands.kills) < min(most, self.args.kills) and is_due():
                number = chooser.choice([*running])
                if self.commands.kill_one([running[number]], chooser):
                    hit.add(number)
                    self.killed[stage] += 1
                    self.note_replies(endpoint)
                    print(
                        f"killed {stage} {number + 1}/{len(lines)} after {time.monotonic() - begun:.1f} s", flush=True
                    )
                is_due = self.moment(stage, length, chooser, endpoint)
            for number, process in [*running.items()]:
                if process.poll() is None:
                    continue
                del running[number]
                if process.returncode and number not in hit:
                    self.commands.fail(lines[number], process.returncode)
                if process.returncode:
                    hit.remove(number)
                    running[number] = self.start(stage, lines[number])

    def moment(self, stage: str, length: float, chooser: random.Random, endpoint: LocalEndpoint) -> Callable[[], bool]:
        """Choose a random moment of a stage, by requests or by seconds; returns a function that checks for it."""
        if stage == "annotate":
            requests = self.asked(endpoint)[1]
            number = chooser.randrange(requests, max(requests + 1, self.args.sample))
            return lambda: self.asked(endpoint)[1] > number
        end = time.monotonic() + chooser.uniform(0, length)
        return lambda: time.monotonic() > end

    def start(self, stage: str, line: list[object]) -> Any:
        """Start a command, and count the start."""
        self.starts[stage] += 1
        return self.commands.start(*line)

    def note_replies(self, endpoint: LocalEndpoint) -> None:
        """Note which questions have a reply in a journal now, and how often each was asked until now."""
        journals, passages = sorted(self.folder.rglob("journal*.jsonl")), self.folder / "passages.jsonl"
        if not journals or not passages.exists():
            return
        replied = {record["passage_id"] for path in journals for record in read_journal(path)}
        asked = self.asked(endpoint)[0]
        for row in read_jsonl(passages):
            text = hashlib.sha256(f"Passage: {row['text']}".encode()).hexdigest()
            if row["id"] in replied:
                self.replied.setdefault(text, asked[text])


def read_journal(path: Path) -> Iterator[Row]:
    """Yield the replies of a journal that may be written to at this moment."""
    for line in path.read_bytes().split(b"\n")[:-1]:
        record = json.loads(line)
        if "key" in record:
            yield record


def compare(whole: Path, shards: Path) -> dict[str, bool]:
    """Return for every file whether it has the same bytes in both runs."""
    names = {*PASSAGE_FILES}
    for folder in (whole, shards):
        names |= {str(path.relative_to(folder)) for path in (folder / "dataset").rglob("*") if path.is_file()}

    def content(path: Path) -> bytes | None:
        return path.read_bytes() if path.exists() else None

    return {name: content(whole / name) == content(shards / name) is not None for name in sorted(names)}


if __name__ == "__main__":
    main()
