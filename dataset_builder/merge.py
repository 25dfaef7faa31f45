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

from open_ner.tools.errors import UserError, run

from .corpus.passages import PASSAGES
from .corpus.stage import describe_passages, merge_passages
from .dataset.contamination import make_screen
from .options import add_recipe_options, keep_recipe, read_config
from .teacher.journals import find_journals
from .teacher.merge import merge_journals


def main() -> None:
    """Merge what is complete, and print what was done."""
    parser = argparse.ArgumentParser(
        "python -m dataset_builder.merge", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add_recipe_options(parser)
    left = "merge journals although shards are missing or questions have no reply"
    parser.add_argument("--allow_incomplete", action="store_true", help=left)
    args, rest = parser.parse_known_args()
    config = read_config(args, rest)
    folder, done = Path(config.output_dir), []
    if counts := merge_passages(config.corpus, folder, partial(make_screen, config.contamination)):
        done.append(describe_passages(config, folder, counts))
    # not done by shards, which would all write the same file; a review reads recipe.yaml before the stage `build`
    if find_journals(folder):
        keep_recipe(config, folder)
    if merged := merge_journals(config.teacher, folder, args.allow_incomplete):
        done.append(merged)
    if not done and (folder / PASSAGES).exists():  # not an error: an engine may start all steps of a run again
        done.append(f"{folder}: all shards were merged already")
    if not done:
        how = "run --stage passages --shard 1/N to N/N first, with the same --output_dir"
        raise UserError(f"{folder} has no shards to merge: {how}")
    print("\n".join(done))


if __name__ == "__main__":
    run(main, resumes=True)
