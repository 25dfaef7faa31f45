"""A stand-in of Slurm: `sbatch` runs a job at once, the tasks of its array one after the other.

    folder = install(tmp_path / "slurm")    # goes first on PATH
    [...]                                   # what submits jobs
    jobs(folder)                            # what was submitted, in order

A job after one that failed is not run. Options that the commands below do not have are errors.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any


def install(folder: Path) -> Path:
    """Write the commands to a new folder."""
    folder.mkdir()
    for name in ("sbatch", "srun", "scontrol"):
        command = shlex.join([sys.executable, __file__, name])
        (folder / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


def jobs(folder: Path) -> list[dict[str, Any]]:
    """Return the jobs with their options, and with their exit statuses by task; one that was not run has none."""
    path = folder / "jobs.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def sbatch(words: list[str], folder: Path) -> None:
    """Run a job and print its number."""
    parser = argparse.ArgumentParser("sbatch", allow_abbrev=False)
    parser.add_argument("--parsable", action="store_true")
    for name in ("array", "dependency", "export", "mem", "wrap"):
        parser.add_argument(f"--{name}")
    parser.add_argument("script", nargs="?")
    args = parser.parse_args(words)
    options = {name: value for name, value in vars(args).items() if value}
    for line in Path(args.script).read_text().splitlines() if args.script else ():
        if line.startswith("#SBATCH --"):
            name, _, value = line.removeprefix("#SBATCH --").partition("=")
            options[name] = value
    known = jobs(folder)
    kind, _, before = options.get("dependency", "").partition(":")
    assert kind in ("", "afterok", "afterany"), kind
    number, statuses = len(known) + 1, {}
    if not before or kind == "afterany" or not any(known[int(before) - 1]["statuses"].values()):
        first, _, last = options.get("array", "0").partition("%")[0].partition("-")
        for task in range(int(first), int(last or first) + 1):
            command = ["bash", "-c", args.wrap] if args.wrap else ["bash", args.script]
            names = {"SLURM_JOB_ID": number, "SLURM_NODELIST": "node1"}
            names |= {"SLURM_ARRAY_TASK_ID": task} if "array" in options else {}
            environment = os.environ | {name: str(value) for name, value in names.items()}
            with (folder / f"slurm-{number}_{task}.out").open("w") as output:
                done = subprocess.run(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
            statuses[str(task)] = done.returncode
    with (folder / "jobs.jsonl").open("a") as lines:
        print(json.dumps(options | {"statuses": statuses}), file=lines)
    print(number if args.parsable else f"Submitted batch job {number}")


def srun(words: list[str], folder: Path) -> None:
    """Become the command of a step."""
    assert words[:3] == ["-l", "-n", "1"], words
    os.execvp(words[3], words[3:])


def scontrol(words: list[str], folder: Path) -> None:
    """Print the nodes of a list without ranges."""
    assert words[:2] == ["show", "hostnames"], words
    print(words[2])


if __name__ == "__main__":
    {"sbatch": sbatch, "srun": srun, "scontrol": scontrol}[sys.argv[1]](sys.argv[2:], Path(os.environ["FAKE_SLURM"]))
