"""Predictions of one model: asks every query of a suite, writes each passage at once, and resumes after a kill.

Under `accelerate launch` the processes share the passages. The predictions do not depend on the number of processes:
batches are formed before they are shared out.
"""

import fcntl
import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypedDict

from tqdm import tqdm

from hub.records import ModelRecord, RunResults
from ner_sets.benchmarks import BenchmarkPassage
from open_ner.tools.errors import UserError
from open_ner.tools.files import read_jsonl, write_json, write_jsonl

from .records import PredictionLine
from .suite import Benchmark, SuiteConfig

PASSAGES_AT_A_TIME = 32  # passages in a batch that goes to one process
RUNTIME = Path(__file__).parent.parent / "open_ner"
Todo = list[tuple[Benchmark, BenchmarkPassage]]


class EvaluatedModel(Protocol):
    """A model under evaluation, and the way it is asked."""

    name: str
    record: ModelRecord  # its entry in results.json
    in_process: bool  # whether it runs in this program, whose processes then share the passages
    replies: Counter[str]  # number of replies that went wrong, by reason

    def ask(self, todo: Todo, suite: SuiteConfig) -> Iterator[list[PredictionLine]]:
        """Yield the lines of each passage, in order."""
        ...


class PassageLines(TypedDict):
    """A line of predictions.partial.jsonl: a passage's predictions and the seconds they took."""

    seconds: float
    lines: list[PredictionLine]


@dataclass
class PredictionRun:
    """Predictions in the benchmarks' order, seconds of wall-clock time, and a hash of everything they depend on.

    `folder` holds its files; `saved` are the results of the run that made the predictions, if it has finished before.
    """

    lines: list[PredictionLine]
    seconds: float
    identity: str
    folder: Path
    saved: dict[str, Any] = field(default_factory=dict)


def predict(
    model: EvaluatedModel, benchmarks: list[Benchmark], suite: SuiteConfig, folder: Path, overwrite: bool = False
) -> PredictionRun:
    """Make the predictions of one model; resume a killed run, and read a finished one.

    A run that finds another run in `folder` gets a folder beside it, unless `overwrite` is set. Only the first process
    returns lines. Raises UserError if another program writes to the folder.
    """
    identity = _identity(model, benchmarks, suite)
    rank, world, wait = _processes() if model.in_process else (0, 1, lambda: None)
    folder = _own_folder(folder, identity, overwrite)
    wait()  # all processes have chosen the folder before one writes to it
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder) if rank == 0 else nullcontext():
        finished = None if overwrite else _read_finished(folder, identity)
        # an endpoint is always asked again: its journal has the paid replies, and failed requests get another try
        if finished and model.in_process:
            print(f"{folder}: this run has finished before, its predictions are read; --overwrite asks again")
            return finished if rank == 0 else PredictionRun([], 0.0, identity, folder)
        partial = folder / "predictions.partial.jsonl"
        if rank == 0:
            _gather(folder, partial, identity, overwrite or not model.in_process)
        wait()
        done = {_place(passage) for passage in _read_partial(partial, identity)}
        todo = [(b, p) for b in benchmarks for p in b.passages if (b.config.name, p.id) not in done]
        if done and rank == 0:
            print(f"{model.name}: {len(done)} passages were scored before")
        wait()  # all processes have read the file before one appends to it
        _ask(model, todo, suite, partial.with_suffix(f".{rank}.jsonl") if rank else partial, identity, rank, world)
        wait()
        if rank:
            return PredictionRun([], 0.0, identity, folder)
        predicted = {_place(passage): passage for passage in _gather(folder, partial, identity, overwrite=False)}
        ordered = [predicted[b.config.name, p.id] for b in benchmarks for p in b.passages]
        lines = [line for passage in ordered for line in passage["lines"]]
        if finished and finished.lines == lines:
            return finished
        write_jsonl(folder / "predictions.jsonl", lines)
    return PredictionRun(lines, sum(passage["seconds"] for passage in ordered), identity, folder)


def finish(folder: Path, results: RunResults) -> None:
    """Write results.json; only then are the partial predictions not needed to resume."""
    write_json(folder / "results.json", results)
    (folder / "predictions.partial.jsonl").unlink(missing_ok=True)


def _own_folder(folder: Path, identity: str, overwrite: bool) -> Path:
    """Return the folder that holds this run, else `folder` if it may be written to, else one beside it."""
    beside = folder.with_name(f"{folder.name}-{identity[:8]}")
    for own in (folder, beside):
        if identity in _runs_in(own):
            return own
    if overwrite or not _runs_in(folder):
        return folder
    print(f"{folder} holds the predictions of other options or weights; this run is written to {beside}")
    return beside


def _runs_in(folder: Path) -> set[object]:
    """Return the identities of the finished and the unfinished runs of a folder, None for one that is not known."""
    runs: set[object] = {None} if (folder / "predictions.jsonl").exists() else set()
    for path in (folder / "results.json", *folder.glob("predictions.partial*.jsonl")):
        with suppress(OSError, ValueError):
            rows = [json.loads(path.read_bytes())] if path.suffix == ".json" else read_jsonl(path)
            runs |= {row.get("run") for row in islice(rows, 1) if isinstance(row, dict)}
    return runs


def folder_name(name: str) -> str:
    """Return the name of a model's folder under the results."""
    return name.strip("/.").replace("/", "--")


def _ask(
    model: EvaluatedModel, todo: Todo, suite: SuiteConfig, path: Path, identity: str, rank: int, world: int
) -> None:
    """Ask the batches of this process, and append their lines to `path`."""
    todo = sorted(todo, key=lambda item: len(item[1].text))  # similar lengths share a batch, so padding is short
    step = PASSAGES_AT_A_TIME if model.in_process else max(1, len(todo))
    batches = [todo[begin : begin + step] for begin in range(0, len(todo), step)][rank::world]
    if not batches:
        return
    total = sum(len(passage.queries) for batch in batches for _, passage in batch)
    is_new = not path.exists()
    with (
        path.open("a", encoding="utf-8", errors="backslashreplace") as file,
        tqdm(total=total, desc=model.name, unit=" queries", disable=bool(rank)) as bar,
    ):
        if is_new:
            print(json.dumps({"run": identity}), file=file)
        started = time.monotonic()
        for batch in batches:
            for lines in model.ask(batch, suite):
                passage: PassageLines = {"seconds": round((time.monotonic() - started) / world, 4), "lines": lines}
                print(json.dumps(passage, ensure_ascii=False), file=file, flush=True)
                bar.update(len(lines))
                started = time.monotonic()


def _identity(model: EvaluatedModel, benchmarks: list[Benchmark], suite: SuiteConfig) -> str:
    """Hash everything the predictions depend on: the model, the data, the options and the runtime's code."""
    code = [path.read_bytes() for path in sorted(RUNTIME.glob("*.py"))]
    options = [suite.limit, suite.seed, suite.max_new_tokens, suite.token_budget, suite.occurrences, suite.decoding]
    parts = [model.record, [b.digest for b in benchmarks], options, hashlib.sha256(b"".join(code)).hexdigest()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _processes() -> tuple[int, int, Callable[[], None]]:
    """Return this process's number, the number of processes, and a function that waits for all of them."""
    import torch
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    # a process may wait long for another one's passages
    state = PartialState(cpu=cpu, timeout=timedelta(days=7))
    return state.process_index, state.num_processes, state.wait_for_everyone


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Keep other runs from writing to the folder."""
    path = folder / ".lock"
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another evaluation writes here; wait or choose another --output_dir") from None
        yield
    path.unlink(missing_ok=True)


def _read_finished(folder: Path, identity: str) -> PredictionRun | None:
    """Read the predictions of the same run if it has finished before."""
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        if not isinstance(results, dict) or results.get("run") != identity:
            return None
        lines = list(read_jsonl(folder / "predictions.jsonl"))
    except (OSError, ValueError):
        return None
    return PredictionRun(lines, results["seconds"], identity, folder, results)


def _gather(folder: Path, partial: Path, identity: str, overwrite: bool) -> list[PassageLines]:
    """Read the passages of this run from the partial files of all processes, and write them back as one file."""
    paths = sorted(folder.glob("predictions.partial*.jsonl"))
    passages = [] if overwrite else [passage for path in paths for passage in _read_partial(path, identity)]
    write_jsonl(partial, [{"run": identity}, *passages])
    for path in paths:
        if path != partial:
            path.unlink()
    return passages


def _read_partial(path: Path, identity: str) -> list[PassageLines]:
    """Read the passages of a partial file of this run, up to a line that a kill left incomplete."""
    rows = []
    with suppress(FileNotFoundError, ValueError):  # ValueError: the incomplete line
        for row in read_jsonl(path):
            rows.append(row)
    return rows[1:] if rows and rows[0] == {"run": identity} else []


def _place(passage: PassageLines) -> tuple[str, str]:
    return passage["lines"][0]["benchmark"], passage["lines"][0]["passage_id"]
