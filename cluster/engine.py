"""Files of engines, such as recipes/cluster/slurm.yaml: an executor of datatrove and its arguments."""

import inspect
import os
import shlex
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from command_line.recipes import parse_yaml, read_yaml, refuse_unknown
from open_ner.tools.errors import UserError

EXECUTORS = ("LocalPipelineExecutor", "SlurmPipelineExecutor", "RayPipelineExecutor")
SET_HERE = {"self", "pipeline", "logging_dir", "depends", "depends_job_id", "skip_completed", "job_name"}
OURS = {"executor", "launcher", "log_dir"}
KINDS = {"str": str, "int": int, "bool": bool}  # annotations whose arguments are checked


@dataclass
class Engine:
    """Where the commands of a build run.

    Args:
        executor: name of a class of `datatrove.executor`.
        tasks: number of shards.
        arguments: other arguments of the executor.
        launcher: command prefix that runs `build` or `merge` elsewhere; default: the Python that runs this.
        log_dir: folder of the logs; default: `cluster/` in the folder of the run.
    """

    executor: str
    tasks: int
    arguments: dict[str, Any]
    launcher: list[str]
    log_dir: Path | None

    @property
    def waits(self) -> bool:
        """Whether the executor waits for its tasks to end; that of Slurm returns as soon as they are queued."""
        return self.executor != "SlurmPipelineExecutor"

    def command(self, name: str) -> list[str]:
        """Return the command line for `build` or `merge`, which are also the command names of jobs/run.py."""
        if self.launcher:
            return [*self.launcher, name]
        return [sys.executable, "-m", {"build": "dataset_builder", "merge": "dataset_builder.merge"}[name]]

    def make(self, name: str, words: list[str], sharded: bool, log_dir: Path, after: Any) -> Any:
        """Return the executor of one step of a run.

        Args:
            name: name of the step.
            words: its command.
            sharded: run the command once per shard, rather than once.
            log_dir: new folder of the logs and completion marks.
            after: executor of the previous step, or None; used only by executors that do not wait.
        """
        import datatrove.executor  # pyright: ignore[reportMissingImports] -- of the extra `cluster`

        from .step import Command

        arguments = self.arguments | {"logging_dir": str(log_dir.absolute()), "pipeline": [Command(words, sharded)]}
        arguments["tasks"] = self.tasks if sharded else 1
        if not sharded:
            arguments["workers"] = 1
        if not self.waits:
            arguments |= {"job_name": name, "depends": after}
            # `launch_pickled_pipeline` and this package must be found on a node, even if no environment is active
            programs, packages = os.path.dirname(sys.executable), str(Path(__file__).resolve().parent.parent)
            line = f"export PATH={shlex.quote(programs)}:$PATH PYTHONPATH={shlex.quote(packages)}"
            arguments.setdefault("env_command", line)
        return getattr(datatrove.executor, self.executor)(**arguments)


def read_engine(path: str, overrides: dict[str, str]) -> Engine:
    """Read the file of an engine.

    Args:
        path: the YAML file.
        overrides: values that replace those of the file; except for string options, they are parsed as YAML.

    Raises:
        UserError: datatrove is missing, or an argument is unknown, missing or of another type.
    """
    given = read_yaml(path)
    if not find_spec("datatrove"):
        raise UserError("python -m cluster needs datatrove: pip install 'datatrove>=0.10,<0.11'")
    import datatrove.executor  # pyright: ignore[reportMissingImports]

    executor = overrides.get("executor", given.get("executor"))
    if executor not in EXECUTORS:
        raise UserError(f"{path}: executor {executor!r}: give one of {', '.join(EXECUTORS)}")
    parameters = inspect.signature(getattr(datatrove.executor, executor)).parameters
    known = {name: value for name, value in parameters.items() if name not in SET_HERE}
    refuse_unknown([*given, *overrides], [*known, *OURS], path)
    kinds = {name: getattr(value.annotation, "__name__", value.annotation) for name, value in known.items()}
    kinds |= dict.fromkeys(OURS, "str")
    for name, value in overrides.items():
        try:
            given[name] = value if kinds[name] == "str" else parse_yaml(value)
        except yaml.YAMLError:
            raise UserError(f"--engine.{name} {value}: not readable as YAML") from None
    for name, kind in kinds.items():
        if name in known and known[name].default is inspect.Parameter.empty and given.get(name) is None:
            raise UserError(f"{path}: {executor} needs {name}: set it, or give --engine.{name} VALUE")
        value = given.get(name)
        if value is not None and kind in KINDS and type(value) is not KINDS[kind]:
            what = {"str": "a text, in quotes", "int": "a whole number", "bool": "true or false"}[kind]
            raise UserError(f"{path}: {name} {value!r}: give {what}")
    if (tasks := 1 if given.get("tasks") is None else given["tasks"]) < 1:
        raise UserError(f"{path}: tasks {tasks}: give the number of shards, at least 1")
    arguments = {name: value for name, value in given.items() if name not in OURS}
    log_dir = given.get("log_dir")
    try:
        launcher = shlex.split(given.get("launcher") or "")
    except ValueError as error:
        raise UserError(f"{path}: launcher {given['launcher']!r}: not a command of a shell: {error}") from None
    return Engine(executor, tasks, arguments, launcher, Path(log_dir) if log_dir else None)
