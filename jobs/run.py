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

import fcntl
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
    """Clone the repository, then replace this process by the command; return a status only on failure."""
    if len(sys.argv) < 4 or sys.argv[3] not in COMMANDS:
        return fail(f"usage: {Path(__file__).name} SOURCE TAG {{{','.join(COMMANDS)}}} OPTIONS")
    source, tag, command, *options = sys.argv[1:]
    clone = Path(f"{CLONE}-{tag.replace('/', '-')}").absolute()
    folder = os.open(clone.parent, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)  # other jobs may start in this folder at the same time
    is_there = get_code(Path(source).absolute() if Path(source).exists() else source, tag, clone)
    os.close(folder)
    if not is_there:
        said = "give an address or a bundle, and one of its tags; git says why above"
        return fail(f"{source} cannot be cloned at {tag!r}: {said}")
    uv = os.environ.get("UV", "uv")  # set by `uv run`
    install = [uv, "run", "--no-project", "--with-requirements", "requirements.txt"]
    os.chdir(clone)
    # in place of this process, so that signals reach the command, which ends by itself without losing paid replies
    os.execvp(uv, [*install, *COMMANDS[command], *options])


def get_code(source: str | Path, tag: str, clone: Path) -> bool:
    """Clone a tag, or fetch it into the clone of an earlier job and keep that job's files; return success."""
    if clone.exists():
        fetch = ["git", "-C", clone, "fetch", "--quiet", "--", source, tag]
        checkout = ["git", "-C", clone, "checkout", "--quiet", "--detach", "FETCH_HEAD"]
        return not (subprocess.run(fetch).returncode or subprocess.run(checkout).returncode)
    partial = clone.with_name(f"{clone.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a killed job
    quiet = ["-c", "advice.detachedHead=false"]
    if subprocess.run(["git", *quiet, "clone", "--depth", "1", "--branch", tag, "--", source, partial]).returncode:
        return False
    partial.rename(clone)
    return True


def fail(message: str) -> int:
    """Print an error; return the status of a user's mistake."""
    print(f"error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # while the clone was made
        sys.exit(130)
