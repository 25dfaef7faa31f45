"""Predictions of one model: every query of a suite asked, written as they come, gone on with after a kill.

Under `accelerate launch` the processes share the passages. Whatever their number, the predictions are the same: what
goes through the model together is decided before it is shared out.
"""

import fcntl
import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from ner_sets.benchmarks import BenchmarkPassage, Query
from open_ner.tools.errors import UserError

from .suite import Benchmark, SuiteConfig

PASSAGES_AT_A_TIME = 32  # shared out together
RUNTIME = Path(__file__).parent.parent / "open_ner"
Line = dict[str, Any]  # of predictions.jsonl: a query and its answer
Todo = list[tuple[Benchmark, BenchmarkPassage]]


class Asker(Protocol):
    """A model and the way it is asked. `model` is its entry in results.json, `shared` whether processes share it."""

    name: str
    model: dict[str, Any]
    shared: bool

    def ask(self, todo: Todo, suite: SuiteConfig) -> Iterator[list[Line]]:
        """The lines of each passage, in order."""


@dataclass
class Run:
    """What `predict` returns: the lines in the benchmarks' order, seconds of the wall clock, and what was asked."""

    lines: list[Line]
    seconds: float
    identity: str


def predict(
    asker: Asker, benchmarks: list[Benchmark], suite: SuiteConfig, folder: Path, overwrite: bool = False
) -> Run:
    """Predictions of one model; a killed run goes on with the next passage, a finished one is read.

    Raises UserError where another process writes to `folder`. In all processes but the first the run has no lines.
    """
    folder.mkdir(parents=True, exist_ok=True)
    identity = _identity(asker, benchmarks, suite)
    rank, world, wait = _processes() if asker.shared else (0, 1, lambda: None)
    with _claimed(folder, rank):
        # an endpoint's answers are in its journal: asked again they cost nothing, and failed ones get another try
        if asker.shared and not overwrite and (finished := _finished(folder, identity)):
            return finished if rank == 0 else Run([], 0.0, identity)
        partial = folder / "predictions.partial.jsonl"
        if rank == 0:
            _gather(folder, partial, identity, overwrite or not asker.shared)  # an endpoint's journal has it all
        wait()
        done = {_place(passage) for passage in _read(partial, identity)}
        todo = [(b, p) for b in benchmarks for p in b.passages if (b.config.name, p.id) not in done]
        if done and rank == 0:
            print(f"{asker.name}: {len(done)} passages were scored before")
        wait()  # before any process writes on
        _ask(asker, todo, suite, partial.with_suffix(f".{rank}.jsonl") if rank else partial, identity, rank, world)
        wait()
        if rank:
            return Run([], 0.0, identity)
        answered = {_place(passage): passage for passage in _gather(folder, partial, identity, overwrite=False)}
        ordered = [answered[b.config.name, p.id] for b in benchmarks for p in b.passages]
        lines = [line for passage in ordered for line in passage["lines"]]
        _write(folder / "predictions.jsonl", lines)
        partial.unlink()
    return Run(lines, sum(passage["seconds"] for passage in ordered), identity)


def folder_name(name: str) -> str:
    """A model's folder under the results."""
    return name.strip("/.").replace("/", "--")


def wording_of(query: Query) -> dict[str, Any]:
    """What a line says of a query under another wording than the type's own name."""
    return {"asked": query.asked, "wording": query.wording} if query.wording else {}


def _ask(asker: Asker, todo: Todo, suite: SuiteConfig, path: Path, identity: str, rank: int, world: int) -> None:
    """Ask what falls to this process, and append its lines to `path`."""
    todo = sorted(todo, key=lambda item: len(item[1].text))  # alike lengths go together, and little is padded
    step = PASSAGES_AT_A_TIME if asker.shared else max(1, len(todo))
    parts = [todo[begin : begin + step] for begin in range(0, len(todo), step)][rank::world]
    if not parts:
        return
    total = sum(len(passage.queries) for part in parts for _, passage in part)
    fresh = not path.exists()
    with (
        path.open("a", encoding="utf-8") as file,
        tqdm(total=total, desc=asker.name, unit=" queries", disable=bool(rank)) as bar,
    ):
        if fresh:
            print(json.dumps({"run": identity}), file=file)
        started = time.monotonic()
        for part in parts:
            for lines in asker.ask(part, suite):
                passage = {"seconds": round((time.monotonic() - started) / world, 4), "lines": lines}
                print(json.dumps(passage, ensure_ascii=False), file=file, flush=True)
                bar.update(len(lines))
                started = time.monotonic()


def _identity(asker: Asker, benchmarks: list[Benchmark], suite: SuiteConfig) -> str:
    """A hash of all that the predictions depend on: the model, the data, the options, the runtime's code."""
    code = [path.read_bytes() for path in sorted(RUNTIME.glob("*.py"))]
    options = [suite.limit, suite.seed, suite.max_new_tokens, suite.token_budget, suite.occurrences, suite.decoding]
    parts = [asker.model, [b.digest for b in benchmarks], options, hashlib.sha256(b"".join(code)).hexdigest()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _processes() -> tuple[int, int, Any]:
    """This process's number, how many there are, and a function that waits for all of them."""
    import torch
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    # the first process may wait for the last one's long passages
    state = PartialState(cpu=cpu, timeout=timedelta(days=7))
    return state.process_index, state.num_processes, state.wait_for_everyone


@contextmanager
def _claimed(folder: Path, rank: int) -> Iterator[None]:
    """Hold the folder, so that no other run writes to it."""
    if rank:
        yield
        return
    path = folder / ".lock"
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{folder}: another evaluation writes there; wait, or choose another --output_dir"
            ) from None
        yield
    path.unlink(missing_ok=True)


def _finished(folder: Path, identity: str) -> Run | None:
    """The predictions of the very same run, where it has finished before."""
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        if results.get("run") != identity:
            return None
        text = (folder / "predictions.jsonl").read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines()]
    except (OSError, ValueError):
        return None
    print(f"{folder}: this very run has finished before, its predictions are read; --overwrite asks anew")
    return Run(lines, results["seconds"], identity)


def _gather(folder: Path, partial: Path, identity: str, overwrite: bool) -> list[dict[str, Any]]:
    """The passages of this run in the partial files of all processes, written back as one file."""
    paths = sorted(folder.glob("predictions.partial*.jsonl"))
    passages = [] if overwrite else [passage for path in paths for passage in _read(path, identity)]
    _write(partial, [{"run": identity}, *passages])
    for path in paths:
        if path != partial:
            path.unlink()
    return passages


def _read(path: Path, identity: str) -> list[dict[str, Any]]:
    """The passages of a partial file of this run, each with its lines; one that a kill cut short is left out."""
    rows = []
    if path.exists():
        for text in path.read_bytes().split(b"\n"):
            try:
                rows.append(json.loads(text))
            except ValueError:  # torn: what came before it stands
                break
    return rows[1:] if rows and rows[0] == {"run": identity} else []


def _place(passage: dict[str, Any]) -> tuple[str, str]:
    return passage["lines"][0]["benchmark"], passage["lines"][0]["passage_id"]


def _write(path: Path, lines: list[Line]) -> None:
    """Write lines as JSON, all of them or none."""
    scratch = path.with_name(path.name + ".new")
    with scratch.open("w", encoding="utf-8") as file:
        for line in lines:
            print(json.dumps(line, ensure_ascii=False), file=file)
    scratch.replace(path)
