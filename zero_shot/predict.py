"""Make the predictions of one model: ask all queries of a suite, write passage by passage, resume after a kill.

Under `accelerate launch` the processes share the passages. The predictions do not depend on the number of processes,
because batches are formed before they are distributed.
"""

import fcntl
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any, NotRequired, Protocol, TypedDict

from tqdm import tqdm

from command_line.hardware import inference_dtype
from command_line.public import public_path
from hub.records import ModelRecord, RunResults
from ner_sets.benchmarks import BenchmarkPassage
from open_ner.tools.errors import UserError
from open_ner.tools.files import read_jsonl, write_json, write_jsonl

from .records import PredictionLine
from .suite import Benchmark, SuiteConfig

PASSAGES_AT_A_TIME = 32  # passages in a batch that goes to one process
PARTIAL = "predictions.partial*.jsonl"  # predictions of an unfinished run, a file for each process
RUNTIME = Path(__file__).parent.parent / "open_ner"
Todo = list[tuple[Benchmark, BenchmarkPassage]]


class EvaluatedModel(Protocol):
    """A model under evaluation, and the way it is asked."""

    name: str
    record: ModelRecord  # its entry in results.json
    in_process: bool  # whether it runs in this program, whose processes then share the passages
    faults: Counter[str]  # number of replies that went wrong, by reason

    def ask(self, todo: Todo, suite: SuiteConfig) -> Iterator[list[PredictionLine]]:
        """Yield the lines of each passage, in order."""
        ...


class PassageLines(TypedDict):
    """A line of predictions.partial.jsonl: a passage's predictions, and the seconds they took."""

    seconds: float
    lines: list[PredictionLine]
    replies: NotRequired[dict[str, int]]  # number of replies that went wrong, by reason


@dataclass
class PredictionRun:
    """The predictions of one model."""

    lines: list[PredictionLine]  # in the order of the benchmarks
    seconds: float  # wall-clock time
    identity: str  # hash of everything the predictions depend on
    folder: Path  # where its files are
    saved: dict[str, Any] = field(default_factory=dict)  # contents of results.json, if the run had finished before


def predict(
    model: EvaluatedModel, benchmarks: list[Benchmark], suite: SuiteConfig, folder: Path, overwrite: bool = False
) -> PredictionRun:
    """Make the predictions of one model; resume a killed run, and read a finished one.

    If `folder` holds another run, a folder beside it is used, unless `overwrite` is set. With `overwrite`, everything
    is asked again. Only the first process returns all lines. Raises UserError if another program writes to the folder.
    """
    rank, world, wait = _processes() if model.in_process else (0, 1, lambda: None)
    identity = _identity(model, benchmarks, suite)
    folder = _own_folder(folder, identity, overwrite)
    wait()  # all processes have chosen the folder before one writes to it
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder) if rank == 0 else nullcontext():
        finished = None if overwrite else _read_finished(folder, identity)
        # an endpoint is always asked again: its journal has the paid replies, and failed requests get another try
        if finished and model.in_process:
            print(f"{folder}: this run has finished before, its predictions are read; --overwrite asks again")
            return finished
        done = {} if overwrite or not model.in_process else _read_partial(folder, identity)
        todo = [(b, p) for b in benchmarks for p in b.passages if (b.config.name, p.id) not in done]
        wait()  # all processes have read the partial files before they are replaced
        partial = folder / "predictions.partial.jsonl"
        if rank == 0:
            write_jsonl(partial, [{"run": identity}, *done.values()])
            for path in {*folder.glob(PARTIAL)} - {partial}:
                path.unlink()
            if done:
                print(f"{model.name}: {len(done)} passages were scored before")
        wait()
        _ask(model, todo, suite, partial.with_suffix(f".{rank}.jsonl") if rank else partial, identity, rank, world)
        wait()
        if rank:
            return PredictionRun([], 0.0, identity, folder)
        predicted = _read_partial(folder, identity)
        ordered = [predicted[b.config.name, p.id] for b in benchmarks for p in b.passages]
        lines = [line for passage in ordered for line in passage["lines"]]
        if finished and finished.lines == lines:
            return finished
        write_jsonl(folder / "predictions.jsonl", lines)
        if model.in_process:  # count the replies of earlier runs and other processes too
            model.faults = sum((Counter(passage.get("replies", {})) for passage in ordered), Counter[str]())
    return PredictionRun(lines, sum(passage["seconds"] for passage in ordered), identity, folder)


def finish(folder: Path, results: RunResults) -> None:
    """Write results.json, then delete the partial predictions, which are no longer needed to resume."""
    write_json(folder / "results.json", results)
    for path in folder.glob(PARTIAL):
        path.unlink()


def folder_name(name: str) -> str:
    """Return the name of a model's folder under the results, without folders of this machine.

    A hash of the full path keeps apart two folders outside of the working directory.
    """
    folder = public_path(name).strip("/.").replace("/", "--")
    if path := find_outside(name):
        folder += f"-{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"
    return folder


def find_outside(name: str) -> Path | None:
    """Return the full path of a folder outside of the working directory; None for a folder in it, and other names."""
    full = os.path.abspath(os.path.expanduser(name))
    return None if full == os.path.abspath(public_path(name)) else Path(full)


def public_ids(names: list[str]) -> list[str]:
    """Return the models' ids in tables, without folders of this machine.

    A folder outside of the working directory gets as many names of its parents as tell it apart from other models.
    """
    full = {name: Path(os.path.abspath(os.path.expanduser(name))) for name in names}
    ids = []
    for name in names:
        path = find_outside(name)
        rivals = {full[other] for other in names if public_path(other) == public_path(name)} - {path}
        parts = 1
        while path and any(rival.parts[-parts:] == path.parts[-parts:] for rival in rivals):
            parts += 1
        ids.append(Path(*path.parts[-parts:]).as_posix() if path and rivals else public_path(name))
    return ids


def _own_folder(folder: Path, identity: str, overwrite: bool) -> Path:
    """Return the folder that holds this run, else `folder` if it may be written to, else one beside it."""
    beside = folder.with_name(f"{folder.name}-{identity[:8]}")
    for own in (folder, beside):
        if identity in _runs_in(own):
            return own
    if overwrite or not _runs_in(folder):
        return folder
    print(f"{folder} holds the predictions of other options, weights or code; this run is written to {beside}")
    return beside


def _runs_in(folder: Path) -> set[str | None]:
    """Return the identities of the finished and the unfinished runs of a folder; None stands for an unknown run.

    An unfinished run counts while it goes on. One that has stopped counts only if it has a passage, so that a run with
    a wrong address does not keep the folder.
    """
    runs: set[str | None] = {None} if (folder / "predictions.jsonl").exists() else set()
    with suppress(OSError, ValueError):
        runs.add(json.loads((folder / "results.json").read_bytes()).get("run"))
    for path in folder.glob(PARTIAL):
        with suppress(ValueError):  # a kill left one of the first two lines incomplete
            header, *passages = islice(read_jsonl(path), 2)
            runs |= {header.get("run")} if passages or _is_locked(folder) else set()
    return runs


def _is_locked(folder: Path) -> bool:
    """Return whether a run writes to the folder now; an endpoint is asked all questions before the first passage."""
    try:
        with (folder / ".lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: the processes of a run look at the same time
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


def _ask(
    model: EvaluatedModel, todo: Todo, suite: SuiteConfig, path: Path, identity: str, rank: int, world: int
) -> None:
    """Ask the batches of this process, and append their lines to `path`."""
    todo = sorted(todo, key=lambda item: len(item[1].text))  # similar lengths share a batch, so padding is short
    step = PASSAGES_AT_A_TIME if model.in_process else max(1, len(todo))
    batches = [todo[begin : begin + step] for begin in range(0, len(todo), step)][rank::world]
    total = sum(len(passage.queries) for batch in batches for _, passage in batch)
    with (
        path.open("a", encoding="utf-8", errors="backslashreplace") as file,
        tqdm(total=total, desc=model.name, unit=" queries", disable=not total or rank > 0) as bar,
    ):
        if rank:
            print(json.dumps({"run": identity}), file=file)
        started, before = time.monotonic(), Counter(model.faults)
        for batch in batches:
            for lines in model.ask(batch, suite):
                seconds = round((time.monotonic() - started) / world, 4)
                passage: PassageLines = {"seconds": seconds, "lines": lines, "replies": model.faults - before}
                before = Counter(model.faults)
                print(json.dumps(passage, ensure_ascii=False), file=file, flush=True)
                bar.update(len(lines))
                started = time.monotonic()


def _identity(model: EvaluatedModel, benchmarks: list[Benchmark], suite: SuiteConfig) -> str:
    """Hash everything the predictions depend on: the model, the data, the options and the runtime's code.

    The model's folder counts as `folder_name` writes it, so that a relative and an absolute path are the same run.
    """
    code = [path.read_bytes() for path in runtime_files()]
    options = [suite.limit, suite.seed, suite.max_new_tokens, suite.token_budget, suite.occurrences, suite.decoding]
    dtype = inference_dtype(suite.dtype) if model.in_process else suite.dtype
    options += [dtype] if dtype and (suite.dtype or dtype != "float32") else []
    record = {**model.record, "id": public_path(model.record["id"])}
    parts = [record, [b.digest for b in benchmarks], options, hashlib.sha256(b"".join(code)).hexdigest()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def runtime_files() -> list[Path]:
    """Return the files that determine answers and are saved with the weights: `open_ner/*.py` but not `__*.py`."""
    return sorted(path for path in RUNTIME.glob("*.py") if not path.name.startswith("__"))


def _processes() -> tuple[int, int, Callable[[], None]]:
    """Return this process's number, the number of processes, and a function that waits for all of them."""
    import torch
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    state = PartialState(cpu=cpu, timeout=timedelta(days=7))  # a process may wait long for another one
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
    with suppress(OSError, ValueError):
        results = json.loads((folder / "results.json").read_bytes())
        if results.get("run") == identity:
            lines = list(read_jsonl(folder / "predictions.jsonl"))
            return PredictionRun(lines, results["seconds"], identity, folder, results)
    return None


def _read_partial(folder: Path, identity: str) -> dict[tuple[str, str], PassageLines]:
    """Read this run's passages from all partial files, by benchmark and id; stop at a line that a kill cut short."""
    passages: dict[tuple[str, str], PassageLines] = {}
    for path in folder.glob(PARTIAL):
        with suppress(ValueError):  # the line that was cut
            rows = read_jsonl(path)
            if next(rows, None) == {"run": identity}:
                for row in rows:
                    passages[row["lines"][0]["benchmark"], row["lines"][0]["passage_id"]] = row
    return passages
