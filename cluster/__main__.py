"""Run the stages of a build in shards, on the engine that a file describes.

    python -m cluster --config recipes/build/your_corpus.yaml --engine recipes/cluster/local.yaml
    python -m cluster --config recipes/build/your_corpus.yaml --engine recipes/cluster/slurm.yaml --engine.tasks 64
    python -m cluster --config recipes/build/your_corpus.yaml --engine recipes/cluster/slurm.yaml --stage annotate

The steps are the commands that docs/scale.md shows: passages in shards, a merge, replies in shards, a merge, and the
build. Options of the recipe are given as --section.option VALUE, those of the engine as --engine.option VALUE. The
same command goes on where a run stopped, because each step finds out what is left to do.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from command_line.recipes import describe, parse_overrides, read_recipe
from dataset_builder.config import BuildConfig
from open_ner.tools.errors import UserError, run

from .engine import Engine, read_engine

STEPS = {  # by stage: name of the step, its command, whether it runs once per shard
    "passages": [("passages", "build", True), ("merge_passages", "merge", False)],
    "annotate": [("annotate", "build", True), ("merge_replies", "merge", False)],
    "build": [("build", "build", False)],
}
PREFIX = "engine."
ENGINE_HELP = """Options of an engine (which one), in its file or here: the executor's arguments, such as
  engine.executor (all): class of datatrove.executor
  engine.tasks (all): number of shards
  engine.workers (all): shards that run at once
  engine.launcher (all): command that runs a command elsewhere; it gets `build` or `merge` and the options as arguments
  engine.log_dir (all): folder of the logs; default: `cluster/` in the folder of the run
  engine.partition (Slurm): partition of the jobs
  engine.time (Slurm): time limit of a job, such as 12:00:00
"""


def main() -> None:
    """Run the steps of the chosen stages in order, or queue them on an engine that does not wait."""
    args, overrides, engine = parse_arguments()
    config = read_recipe(BuildConfig, args.config, overrides)
    if not config.corpus.named:
        raise UserError(f"{args.config}: this recipe has no corpus, so there is nothing to divide into shards")
    options = ["--config", args.config, *(word for name, value in overrides.items() for word in (f"--{name}", value))]
    logs = (engine.log_dir or Path(config.output_dir) / "cluster") / time.strftime("%Y%m%dT%H%M%S")
    before = None
    for stage in STEPS if args.stage == "all" else [args.stage]:
        for name, command, sharded in STEPS[stage]:
            words = [*engine.command(command), *options, *(["--stage", stage] if command == "build" else [])]
            executor = engine.make(name, words, sharded, logs / name, before)
            print(f"{name}: {executor.tasks} tasks, logs in {logs / name}", flush=True)
            run_step(executor, engine.waits, logs / name)
            before = executor
    if not engine.waits:
        print("all steps are queued, each after the one before it")


def run_step(executor: Any, waits: bool, logs: Path) -> None:
    """Run or queue one step; exit with status 1 if a task of an engine that waits has failed."""
    from .step import CommandError

    why = ""
    try:
        executor.run()
        if waits and (failed := executor.get_incomplete_ranks()):
            why = f"{len(failed)} of {executor.tasks} tasks failed"
    except CommandError as error:
        why = str(error)
    if why:
        sys.exit(f"error: {logs.name}: {why}; logs are in {logs}; run the same command again to do the rest")


def parse_arguments() -> tuple[argparse.Namespace, dict[str, str], Engine]:
    """Parse the command line: its own options, the overrides of the recipe, and the engine with its overrides."""
    parser = argparse.ArgumentParser(
        "python -m cluster", description=__doc__, allow_abbrev=False,
        epilog=f"{ENGINE_HELP}\nOptions of a recipe (default): \n{describe(BuildConfig)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--config", required=True, help="build recipe, e.g. recipes/build/your_corpus.yaml")
    parser.add_argument("--engine", default="recipes/cluster/local.yaml", help="file of an engine (%(default)s)")
    parser.add_argument("--stage", choices=[*STEPS, "all"], default="all")
    parser.add_argument("--output_dir", help="folder of the run, which all tasks must see")
    args, rest = parser.parse_known_args()
    given = parse_overrides(rest)
    overrides = {name: value for name, value in given.items() if not name.startswith(PREFIX)}
    if args.output_dir:
        overrides["output_dir"] = args.output_dir
    engine = read_engine(args.engine, {n.removeprefix(PREFIX): v for n, v in given.items() if n.startswith(PREFIX)})
    return args, overrides, engine


if __name__ == "__main__":
    run(main, resumes=True)
