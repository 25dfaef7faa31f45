"""Merge the shards of a stage, when all of them are there.

    python -m dataset_builder --config recipes/build/your_corpus.yaml --stage passages --shard 1/4    # to 4/4
    python -m dataset_builder.merge --config recipes/build/your_corpus.yaml

Shards of the stage `passages` become passages.jsonl. This command alone decides quotas and duplicates, so the passages
are those of one process. Journals of the stage `annotate` become journal.jsonl, which the stage `build` reads. Give
the same options as for the shards. It can be interrupted and run again.
"""

import argparse
from functools import partial
from pathlib import Path

from command_line.recipes import parse_overrides, read_recipe
from open_ner.tools.errors import UserError, run

from .config import BuildConfig
from .corpus.passages import PASSAGES
from .corpus.stage import describe_passages, merge_passages
from .dataset.contamination import make_screen
from .teacher.merge import merge_journals


def main() -> None:
    """Merge what is complete, and say what was done."""
    parser = argparse.ArgumentParser(
        "python -m dataset_builder.merge", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--config", required=True, help="recipe of the run")
    parser.add_argument("--output_dir", help="folder of the run")
    parser.add_argument("--model", help="name of the teacher at the endpoint (teacher.model)")
    left = "merge journals although shards are missing or questions have no reply"
    parser.add_argument("--allow_incomplete", action="store_true", help=left)
    args, rest = parser.parse_known_args()
    given = {"output_dir": args.output_dir, "teacher.model": args.model}
    overrides = parse_overrides(rest) | {name: value for name, value in given.items() if value}
    config = read_recipe(BuildConfig, args.config, overrides)
    folder, done = Path(config.output_dir), []
    if counts := merge_passages(config.corpus, folder, partial(make_screen, config.contamination)):
        done.append(describe_passages(config, folder, counts))
    if merged := merge_journals(config.teacher, folder, args.allow_incomplete):
        done.append(merged)
    if not done and (folder / PASSAGES).exists():  # not an error: an engine may start all steps of a run again
        done.append(f"{folder}: all shards were merged already")
    if not done:
        how = "run --stage passages --shard 1/N to N/N first, with the same --output_dir"
        raise UserError(f"{folder} has no shards to merge: {how}")
    print("\n".join(done))


if __name__ == "__main__":
    run(main)
