"""Measure other libraries in virtual environments, so that the project need not require them."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def run_in_environment(folder: Path, packages: Sequence[str], script: str, task: object) -> Any:
    """Run a script of bench/parts in the virtual environment `folder`, which is created with `packages` if missing.

    The script reads the task from standard input as JSON, and prints its result as the last line.
    """
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"installing {', '.join(packages)} into {folder}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    command = [python.absolute(), Path(__file__).parent / script]
    done = subprocess.run(command, input=json.dumps(task), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{script}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])
