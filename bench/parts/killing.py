"""Run commands that are killed at random moments, for bench/batch.py and bench/shards.py."""

import os
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent.parent


class Commands:
    """Runs commands; the end of the `with` block kills processes that are still running.

    Args:
        log: file that gets what the commands print.
        environment: variables in addition to those of this process.
    """

    def __init__(self, log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.log, self.environment = log, {**os.environ, **(environment or {})}
        self.peak = 0.0  # MiB, of the largest process of the last command
        self.kills: list[str] = []  # what each kill hit: "the command", or "a process of it"
        self._processes: list[psutil.Process] = []

    def __enter__(self) -> "Commands":
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def start(self, *words: object) -> subprocess.Popen[bytes]:
        """Start a Python command, such as `start("-m", "dataset_builder", ...)`."""
        with self.log.open("ab") as log:
            line = [sys.executable, *map(str, words)]
            log.write(f"$ {' '.join(line)}\n".encode())
            log.flush()
            process = subprocess.Popen(line, cwd=ROOT, env=self.environment, stdout=log, stderr=log)
        self._processes.append(psutil.Process(process.pid))
        return process

    def wait(self, process: subprocess.Popen[bytes]) -> int:
        """Wait for a command's end, and return its status."""
        if process.returncode is not None:  # `kill_one` has polled it already
            return process.returncode
        _, status, usage = os.wait4(process.pid, 0)
        self.peak = usage.ru_maxrss / 1024  # of the command and of the processes that it waited for
        process.returncode = os.waitstatus_to_exitcode(status)
        return process.returncode

    def run(self, *words: object) -> None:
        """Run a command to its end; exits with the end of the log if the command fails."""
        if status := self.wait(self.start(*words)):
            self.fail(words, status)

    def kill_one(self, processes: Sequence[subprocess.Popen[bytes]], chooser: random.Random) -> bool:
        """Kill one process, a command or a child of one, with SIGKILL; False if all commands have ended."""
        running = [process for process in processes if process.poll() is None]
        if not running:
            return False
        chosen = psutil.Process(chooser.choice(running).pid)
        with suppress(psutil.NoSuchProcess):
            children = chosen.children(recursive=True)
            self._processes += children
            victim = chooser.choice([chosen, *children])
            victim.kill()
            self.kills.append("the command" if victim.pid == chosen.pid else "a process of it")
            return True
        return False

    def fail(self, words: Sequence[object], status: int) -> None:
        """Exit with the end of the log."""
        tail = self.log.read_text(encoding="utf-8", errors="replace")[-3000:]
        sys.exit(f"{' '.join(map(str, words))}: status {status}\n{tail}")
