"""Make the shards of one machine, in this process or in several, with one progress bar."""

import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from multiprocessing import get_context, parent_process
from typing import Any

from tqdm import tqdm

from open_ner.tools.errors import UserError

from ..config import CorpusConfig
from ..shards import Shard
from .source_files import local_files
from .sources import sources_of

LARGE = 10_000_000  # bytes of a corpus; a smaller one is read before other processes have started
TICK = 200  # passages between two progress reports of a process

Work = Callable[[Shard, Callable[[int], object]], None]  # makes a shard, and reports its progress in passages


def count_processes(config: CorpusConfig) -> int:
    """Return the number of processes to make passages in: `num_proc`, or by default one for each core.

    The default is one process if the corpus is small or of unknown size, or if only its beginning is read.
    """
    files = [local_files(source) for source in sources_of(config)]
    if config.num_proc is not None:
        return config.num_proc
    size = sum(file.stat().st_size for some in files for file in some or ())
    if None in files or size < LARGE or config.limit or config.max_documents:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_shards(make_work: Callable[[], Work], shards: Sequence[Shard], processes: int) -> None:
    """Make shards.

    Args:
        make_work: returns the function that makes a shard; called once in each process, so it must be picklable.
        shards: the shards to make.
        processes: maximum number of processes.

    Raises:
        UserError: a process raised it, or was killed.
    """
    with tqdm(desc="passages", unit=" passages") as bar:
        processes = min(processes, len(shards))
        if processes <= 1:
            work = make_work()
            for shard in shards:
                work(shard, bar.update)
            return
        context = get_context("spawn")  # a fork would copy the locks of threads
        total: Any = context.Value("Q", 0)
        with ProcessPoolExecutor(processes, context, _start, (make_work, total)) as pool:
            left = {pool.submit(_run, shard) for shard in shards}
            try:
                while left:
                    done, left = wait(left, timeout=0.5, return_when=FIRST_EXCEPTION)
                    bar.update(total.value - bar.n)
                    for future in done:
                        future.result()
            except BrokenProcessPool:
                why = "a process was killed, perhaps because the memory was full: run again with a smaller"
                raise UserError(f"passages: {why} --corpus.num_proc than {processes}") from None
            except BaseException:  # also KeyboardInterrupt
                for process in context.active_children():
                    process.terminate()
                pool.shutdown(cancel_futures=True)
                raise


def _start(make_work: Callable[[], Work], total: Any) -> None:
    """Prepare a worker process, which ignores Ctrl-C: the parent process handles it and ends the worker."""
    global _get_work, _report, _ending
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _ending, waiting = False, 0

    def end(*_: object) -> None:
        global _ending
        _ending = True
        raise SystemExit  # unlike a kill, this removes the files of an unfinished shard

    signal.signal(signal.SIGTERM, end)

    def report(number: int, last: bool = False) -> None:
        nonlocal waiting
        waiting += number
        if waiting < TICK and not last:
            return
        with total.get_lock():
            total.value += waiting
        waiting = 0
        if (parent := parent_process()) and not parent.is_alive():
            os._exit(1)  # the parent process that needs the shard was killed

    _get_work, _report = cache(make_work), report  # the first shard calls make_work and raises its errors


def _run(shard: Shard) -> None:
    if not _ending:
        _get_work()(shard, _report)
        _report(0, last=True)
