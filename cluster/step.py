"""A step of a datatrove pipeline: one command of the builder per task, for the task's shard."""

import os
import signal
import subprocess
from typing import Any

from datatrove.pipeline.base import PipelineStep  # pyright: ignore[reportMissingImports] -- of the extra `cluster`
from datatrove.utils.logging import logger  # pyright: ignore[reportMissingImports]

PROGRESS_SECONDS = "30"  # between updates of a progress bar, because each is a line of the task's log


class CommandError(Exception):
    """A command exited with a nonzero status; the message contains its last line of output."""


class Command(PipelineStep):
    """Runs a command in the working directory where the step was made; its output goes to the log of the task.

    Args:
        words: the command.
        sharded: add `--shard I/N`, where I is the task's number from 1 and N the number of tasks.
    """

    name = "command"
    type = "dataset_builder"

    def __init__(self, words: list[str], sharded: bool) -> None:
        super().__init__()
        self.words, self.sharded, self.folder = words, sharded, os.getcwd()

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        """Run the command of one task. Raises CommandError if it fails, so that the task is not marked as complete."""
        logger.configure(patcher=_hide_traceback)
        words = [*self.words, "--shard", f"{rank + 1}/{world_size}"] if self.sharded else self.words
        # not passed as `env`, because loguru's tracebacks show argument values, and the environment contains keys
        os.environ.setdefault("TQDM_MININTERVAL", PROGRESS_SECONDS)
        try:
            process = subprocess.Popen(
                words, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                encoding="utf-8", errors="replace",
            )  # fmt: skip
        except OSError as error:  # not checked earlier, because a launcher may exist only on the nodes
            why = f"{words[0]!r} cannot be started ({error.strerror}): check the launcher of the engine"
            raise CommandError(why) from None
        # Ctrl-C also reaches the command directly; on SIGTERM and SIGINT the command saves paid replies and exits
        stopped: list[int] = []

        def stop(number: int, _: Any) -> None:
            stopped.append(number)
            process.terminate()

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        last = ""
        try:
            for line in filter(None, map(str.strip, process.stdout or ())):
                last = line
                logger.info(line)
        except BaseException:  # such as an exit because Slurm signals that it requeues the task
            process.terminate()
            raise
        finally:
            status = process.wait()
            for number, handler in before.items():
                signal.signal(number, handler)
        if stopped:  # the command has ended: let the signal take effect here too
            signal.raise_signal(stopped[0])
        if status:
            task = f"shard {rank + 1}/{world_size}" if self.sharded else "the command"
            raise CommandError(f"{task} ended with status {status}: {last}")
        return data


def _hide_traceback(record: Any) -> None:
    """Let the executors log a CommandError in one line; other errors keep their traceback."""
    if record["exception"] and isinstance(record["exception"].value, CommandError):
        record["exception"] = None
