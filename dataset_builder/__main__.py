"""Build a dataset from a corpus and a teacher, and publish it to the Hub.

    python -m dataset_builder --config recipes/build/sample.yaml
    python -m dataset_builder --config recipes/build/your_corpus.yaml --preview 10
    python -m dataset_builder --config recipes/build/your_corpus.yaml --base_url URL --model NAME --max_cost 5
    python -m dataset_builder --config recipes/build/your_corpus.yaml --stage build --push_to_hub org/my-dataset

Any option of the recipe can be given as --section.option VALUE, for example --corpus.path my.jsonl.
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path

from command_line.recipes import describe
from hub.publish import publish_folder, require_upload
from ner_sets.sets import files_of
from open_ner.tools.errors import UserError, run
from open_ner.tools.files import write_atomic
from open_ner.tools.options import read_shard

from .config import BuildConfig
from .corpus.merging import changed_option
from .corpus.passages import PASSAGES, StoredPassages
from .corpus.stage import describe_passages, write_passages, write_shard
from .dataset.contamination import make_screen
from .dataset.supervised import load_set_configs
from .options import add_recipe_options, keep_recipe, read_config
from .shards import Shard
from .teacher.journal import Journal
from .teacher.journals import PassagesOf, open_journal, share_cost
from .teacher.questions import Questioner
from .teacher.records import ReplyCounts
from .teacher.stage import estimate, extrapolate, fetch_replies


def main() -> None:
    """Run the stages in order: passages, annotate, build, and the upload."""
    args, config = parse_arguments()
    if args.push_to_hub:
        require_upload(args.push_to_hub)
    sets = load_set_configs(config.supervised)  # report mistakes before the teacher is paid
    if args.stage in ("build", "all") and not args.dry_run and not args.preview:
        for one in sets:
            files_of(one, config.supervised.data_dir)
    Questioner(config.teacher)
    folder = Path(config.output_dir)
    if not config.corpus.named and (args.dry_run or args.preview or args.stage in ("passages", "annotate")):
        print("this recipe has no corpus, so there are no passages to make and no teacher to ask")
        return
    screen = partial(make_screen, config.contamination)
    if args.shard and args.stage == "passages":
        print(f"passages: {write_shard(config.corpus, folder, args.shard, screen)}")
        return
    if args.stage in ("passages", "all") and config.corpus.named:
        print(describe_passages(config, folder, write_passages(config.corpus, folder, screen)))
    elif config.corpus.named and (name := changed_option(config.corpus, folder)):
        why = f"was made with another corpus.{name} than this recipe has"
        print(f"warning: {folder / PASSAGES} {why}: run --stage passages to make it anew")
    if args.dry_run:
        dry_run(config, folder, args.pilot)
        return
    if args.preview:
        preview(config, folder, args.preview)
        return
    if args.stage in ("annotate", "all") and config.corpus.named:
        ask_teacher(config, folder, args.shard, args.allow_incomplete)
    elif args.push_to_hub and config.corpus.named and config.teacher.model and not args.allow_incomplete:
        require_complete(config, folder)
    if args.stage in ("build", "all"):
        from hub.dataset_card import write_dataset_card

        from .build import build  # imported here, because the other stages do not need pyarrow and datasets

        dataset = build(config, folder, finish=write_dataset_card)
        if config.corpus.named:
            keep_recipe(config, folder)
        print(f'dataset: {dataset}, read it with load_dataset("{dataset}")')
    if args.push_to_hub:
        dataset = Path(config.dataset_dir or folder / "dataset")
        print(publish_folder(dataset, args.push_to_hub, "dataset"))


def ask_teacher(config: BuildConfig, folder: Path, shard: Shard | None, allow_incomplete: bool) -> None:
    """Run the stage `annotate` for all passages or those of a shard; exit with status 1 if a question stays open.

    The recipe is kept if a reply has arrived, whatever ends the stage, or if the stage ends without an error and has
    replies. A recipe that fails before that does not replace the one that the replies in the journal were made with.
    Shards keep none, because they would all write the same file.
    """
    passages, teacher = StoredPassages(folder), config.teacher
    if not shard and not (folder / "recipe.yaml").exists():
        keep_recipe(config, folder)  # even if this process is killed
    with open_journal(folder, shard) as journal:
        if shard:
            passages, teacher = PassagesOf(passages, shard), share_cost(teacher, journal, shard)
            limit = "" if teacher.max_cost is None else f", for at most ${teacher.max_cost:.4f}: its part of max_cost"
            print(f"shard {shard}: {len(passages)} passages{limit}")
        before, replies = len(journal), ReplyCounts()
        try:
            replies = fetch_replies(passages, journal, teacher)
        finally:
            if not shard and (replies.known or len(journal) > before):
                keep_recipe(config, folder)
        if journal.damaged:
            print(f"{journal.path}: ignored {journal.damaged} damaged lines and asked their questions again")
    print(f"replies: {replies}")
    if replies.missing and teacher.model and not allow_incomplete:
        sys.exit(incomplete(replies.missing))


def require_complete(config: BuildConfig, folder: Path) -> None:
    """Exit with status 1 if a question has no reply, because of the budget or of failed requests."""
    with open_journal(folder) as journal:
        if left := estimate(StoredPassages(folder), journal, config.teacher)[0]:
            sys.exit(incomplete(left))


def incomplete(left: int) -> str:
    """Say that questions have no reply, and what to do about it."""
    return (
        f"error: {left} questions have no reply, so nothing was built or uploaded: run the same command again, with a "
        "higher --max_cost if it was reached, or give --allow_incomplete"
    )


def dry_run(config: BuildConfig, folder: Path, pilot: int | None) -> None:
    """Print the number of open requests and their maximum cost; a pilot first pays for a few replies."""
    with open_journal(folder) as journal:
        if pilot:
            started = time.monotonic()
            counts = fetch_replies(StoredPassages(folder), journal, config.teacher, most=pilot)
            print(f"pilot: {counts.paid} replies for ${counts.cost:.4f} in {time.monotonic() - started:.1f} s, kept")
        print("dry run: " + "\n".join(what_is_left(config, folder, journal, paid=bool(pilot))))


def preview(config: BuildConfig, folder: Path, number: int) -> None:
    """Pay for the replies to a few passages, print them with their spans and rejects, and write preview.html."""
    from open_ner.view import render_html, render_terminal

    from .preview import annotate_few

    with open_journal(folder) as journal:
        passages, counts = annotate_few(config, folder, journal, number)
        notes = [f"Replies: {counts}"]
        if config.teacher.model:
            paid = counts.paid > 0 or (counts.known > 0 and not config.teacher.recorded)
            notes += what_is_left(config, folder, journal, paid)
    page = folder / "preview.html"
    write_atomic(page, render_html(passages, f"Preview of {config.name}", notes))
    render_terminal(passages)
    print("\n".join([*notes, f"preview: the same passages with filters and offsets -> {page}"]))


def what_is_left(config: BuildConfig, folder: Path, journal: Journal, paid: bool) -> list[str]:
    """The number of open requests and their maximum cost; with paid replies, also their expected cost and time."""
    requests, ceiling = estimate(StoredPassages(folder), journal, config.teacher)
    lines = [f"{requests} requests to send, at most ${ceiling:.4f}; nothing {'else ' if paid else ''}was sent"]
    if paid and (e := extrapolate(StoredPassages(folder), journal, config.teacher, requests)):
        lines.append(
            f"expected from the replies paid so far (95 %): ${e.cost:.4f} +- ${e.cost_margin:.4f}, "
            f"{e.seconds:.0f} s +- {e.seconds_margin:.0f} s with {config.teacher.concurrency} in flight"
        )
    elif paid:
        lines.append("no expected cost: the teacher has not replied to a question of this recipe yet")
    return lines


def parse_arguments() -> tuple[argparse.Namespace, BuildConfig]:
    """Parse the command line and read the recipe with its overrides."""
    parser = argparse.ArgumentParser(
        "python -m dataset_builder", description=__doc__, allow_abbrev=False,
        epilog=f"Options of a recipe (default): \n{describe(BuildConfig)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add_recipe_options(parser)
    parser.add_argument("--stage", choices=["passages", "annotate", "build", "all"], default="all")
    shard = "with --stage passages or annotate: do part I of N; then run python -m dataset_builder.merge"
    parser.add_argument("--shard", metavar="I/N", help=shard)
    parser.add_argument("--dry_run", action="store_true", help="print the open requests and their maximum cost")
    parser.add_argument("--pilot", type=int, metavar="N", help="with --dry_run: first pay for N replies")
    shown = "ask N passages (10), print their spans and rejects, write preview.html, and stop"
    parser.add_argument("--preview", type=int, nargs="?", const=10, metavar="N", help=shown)
    parser.add_argument("--allow_incomplete", action="store_true", help="build and upload even if replies are missing")
    parser.add_argument("--push_to_hub", metavar="ORG/NAME", help="upload the dataset folder, private by default")
    args, rest = parser.parse_known_args()
    if args.pilot is not None and not args.dry_run:
        raise UserError("--pilot only has an effect with --dry_run: give --dry_run too")
    for name, number, unit in (("pilot", args.pilot, "question"), ("preview", args.preview, "passage")):
        if number is not None and number < 1:
            raise UserError(f"--{name} {number}: give at least 1 {unit}")
    if args.preview and (args.dry_run or args.push_to_hub or args.stage == "build"):
        other = "--dry_run" if args.dry_run else "--push_to_hub" if args.push_to_hub else "--stage build"
        raise UserError(f"--preview cannot be combined with {other}: give one of them")
    if args.shard is not None:
        args.shard = Shard(*read_shard(args.shard))
        if args.stage not in ("passages", "annotate"):
            raise UserError(f"--shard {args.shard} with --stage {args.stage}: give --stage passages or annotate")
        if args.dry_run or args.preview or args.push_to_hub:
            other = "--dry_run" if args.dry_run else "--preview" if args.preview else "--push_to_hub"
            raise UserError(f"--shard {args.shard} cannot be combined with {other}: run {other} alone")
    if args.push_to_hub and (args.dry_run or args.stage in ("passages", "annotate")):
        other = "--dry_run" if args.dry_run else f"--stage {args.stage}"
        raise UserError(f"--push_to_hub cannot be combined with {other}, which builds no dataset: give one of them")
    return args, read_config(args, rest)


if __name__ == "__main__":
    run(main, resumes=True)
