# /// script
# requires-python = ">=3.11"
# dependencies = []
# ///
"""Run a command of this repository on HF Jobs, or on any machine that has only git and uv.

    hf jobs uv run --flavor l4x1 --timeout 4h --secrets HF_TOKEN \
        jobs/run.py https://github.com/org/uniner-distill v0.1.0 annotate --dataset_name org/texts ...

Usage: run.py SOURCE TAG {build,merge,train,evaluate,annotate} OPTIONS. SOURCE is an address for `git clone`, or a file
of `git bundle`. The repository is cloned at the tag, its requirements.txt installed, and the command run in the clone.
This file needs nothing else of the repository, so its address on the web can be given to `uv run` as well.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

COMMANDS = {  # in the clone; OPTIONS follow, and `--help` lists them
    "build": ["python", "-m", "dataset_builder"],
    "merge": ["python", "-m", "dataset_builder.merge"],
    "train": ["accelerate", "launch", "--quiet", "train_sft.py"],
    "evaluate": ["python", "eval_zero_shot.py"],
    "annotate": ["accelerate", "launch", "--quiet", "--module", "hub.annotate"],
}
CLONE = Path("uniner-distill")


def main() -> int:
    """Clone, install and run; return the status of the command."""
    if len(sys.argv) < 4 or sys.argv[3] not in COMMANDS:
        return fail(f"usage: {Path(__file__).name} SOURCE TAG {{{','.join(COMMANDS)}}} OPTIONS")
    source, tag, command, *options = sys.argv[1:]
    clone = Path(f"{CLONE}-{tag.replace('/', '-')}").absolute()
    where = Path(source).absolute() if Path(source).exists() else source
    if clone.exists():  # an earlier job's: other files in it, such as runs/, stay
        git = ["git", "-C", clone]
        steps = [[*git, "fetch", "--quiet", "--", where, tag], [*git, "checkout", "--quiet", "--detach", "FETCH_HEAD"]]
    else:
        partial = clone.with_name(f"{clone.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)  # a kill left it
        quiet = ["-c", "advice.detachedHead=false"]
        steps = [["git", *quiet, "clone", "--depth", "1", "--branch", tag, "--", where, partial]]
    if any(subprocess.run(step).returncode for step in steps):  # stops at the first that fails
        return fail(f"{source} cannot be cloned at {tag!r}: give an address or a bundle, and one of its tags")
    if not clone.exists():
        partial.rename(clone)
    uv = os.environ.get("UV", "uv")  # set by `uv run`
    install = [uv, "run", "--no-project", "--with-requirements", "requirements.txt"]
    return subprocess.run([*install, *COMMANDS[command], *options], cwd=clone).returncode


def fail(message: str) -> int:
    """Print an error; return the status of a user's mistake."""
    print(f"error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
