"""Draw passages for a review and write them as tasks."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from command_line.public import public_path
from open_ner.tools.errors import UserError
from open_ner.tools.files import write_atomic, write_json, write_jsonl

from ..dataset.under_review import FILE as UNDER_REVIEW_FILE
from ..options import read_kept_recipe
from .label_studio import labeling_config, to_task
from .other import Opinions, ask_student, read_opinions, read_other_run, uncertainty
from .passages import Review, ReviewPassage, RunAnnotations, ScoredMention, read_run

Form = Literal["label-studio", "jsonl"]
TASK_FILES: dict[Form, str] = {"label-studio": "label-studio.json", "jsonl": "tasks.jsonl"}


@dataclass
class ExportOptions:
    """The options of the command `export`."""

    run: Path
    folder: Path  # of the review
    to: Form
    sample: int = 200
    by: Literal["random", "uncertain"] = "random"
    seed: int = 42
    types: list[str] | None = None
    model: str | None = None
    predictions: Path | None = None
    other_run: Path | None = None
    show: Literal["teacher", "other"] = "teacher"
    blank: bool = False
    pool: int = 1000

    @property
    def other(self) -> str:
        """The second opinion as given on the command line; empty if there is none."""
        return str(self.model or self.predictions or self.other_run or "")


def export(options: ExportOptions, given: Sequence[str] = ()) -> None:
    """Draw a review, unless the folder has one, and write its tasks.

    The passages are held out of the dataset before the tasks are written. Raises UserError if the folder has a review
    and its tasks exist, since a person may have corrected them, or if `given` names options that only affect drawing.
    """
    check(options)
    tasks = options.folder / TASK_FILES[options.to]
    if (options.folder / "exported.jsonl").exists():
        review = Review.read(options.folder)
        hint = f"a review is not drawn again: import it, or draw other passages with --review {options.folder}-2"
        if tasks.exists():
            raise UserError(f"{tasks} has the tasks of {len(review.passages)} passages already; {hint}")
        if given:
            why = f"{options.folder} has a review of {len(review.passages)} passages, which is written in another form"
            other = f"draw other passages with --review {options.folder}-2"
            raise UserError(f"--{given[0]} has no effect: {why}; leave out --{given[0]}, or {other}")
        print(f"{options.folder} has a review of {len(review.passages)} passages: it is written in another form")
        config = read_kept_recipe(options.run)
    else:
        run = read_run(options.run)
        review, config = draw(options, run), run.config
        warn_if_nothing_is_left(options, run, review)
    review.write(options.run, options.folder)
    write_tasks(review, options.to, tasks)
    print(
        f"tasks: {len(review.passages)} passages, {sum(len(p['entities']) for p in review.passages)} spans -> {tasks}"
    )
    what = "import them into Label Studio (docs/review.md)"
    if options.to == "jsonl":
        what = "correct `entities`, and set `reviewed` to true in each line that you have checked"
    folder = "" if options.folder == options.run / "review" else f" --review {options.folder}"
    print(f"next: {what}; then: python -m dataset_builder.review import FILE --run {options.run}{folder}")
    dataset = Path(config.dataset_dir or options.run / "dataset")
    if dataset.exists():
        print(f"{dataset} was built before: run --stage build again, which leaves these passages out")


def check(options: ExportOptions) -> None:
    """Raise UserError for options that contradict each other or are out of range."""
    given = [n for n in ("model", "predictions", "other_run") if getattr(options, n)]
    if options.sample < 1 or options.pool < 1:
        raise UserError(f"--sample {options.sample}, --pool {options.pool}: both must be at least 1")
    if options.by == "uncertain" and options.model and options.pool < options.sample:
        raise UserError(f"--sample {options.sample} passages cannot be drawn from --pool {options.pool}: raise --pool")
    if len(given) > 1:
        raise UserError(f"--{given[0]} and --{given[1]}: give one of them")
    if options.by == "uncertain" and not given:
        raise UserError("--by uncertain needs a second opinion: --model, --predictions or --other_run")
    if options.by == "random" and given and options.show == "teacher":
        raise UserError(
            f"--{given[0]} has no effect with --by random and --show teacher: remove it, or give --show other"
        )
    if options.show == "other" and not given:
        raise UserError("--show other needs --model, --predictions or --other_run")
    if options.show == "other" and options.blank:
        raise UserError("--blank shows no spans and --show other does: give one of them")


def draw(options: ExportOptions, run: RunAnnotations) -> Review:
    """Draw the passages: at random, or the most uncertain ones first."""
    if not run.texts:
        raise UserError(f"{options.run}: no passage to draw; not drawn by reason: {dict(run.excluded)}")
    types = chosen_types(options, run)
    order = random.Random(options.seed).sample(sorted(run.texts), len(run.texts))
    opinions: Opinions | None = None
    threshold = 0.0
    if options.model:
        order = order[: options.pool if options.by == "uncertain" else options.sample]
        opinions, threshold = ask_student(options.model, [run.texts[name] for name in order], types)
    elif options.predictions or options.other_run:
        opinions = read_other_run(options.other_run) if options.other_run else read_opinions(Path(options.other))
        known = [name for name in order if run.texts[name] in opinions]
        if len(known) < len(order):
            print(f"{options.other} has no spans of {len(order) - len(known)} of {len(order)} passages: not drawn")
        order = known
    passages: list[ReviewPassage] = []
    by_scores = any("score" in mention for mentions in (opinions or {}).values() for mention in mentions)
    for name in order:
        text, teacher = run.texts[name], [m for m in run.mentions.get(name, []) if m["type"] in types]
        other = [m for m in opinions[text] if m["type"] in types] if opinions is not None else []
        shown: list[ScoredMention] = [{**mention} for mention in teacher]
        if options.show == "other":
            shown = [mention for mention in other if mention.get("score", 1.0) >= threshold]
        passages.append({"id": name, "text": text, "entities": [] if options.blank else shown, "teacher": teacher})
        if opinions is not None:
            passages[-1]["uncertainty"] = round(uncertainty(teacher, other, by_scores), 4)
    if options.by == "uncertain":
        passages.sort(key=lambda passage: -passage.get("uncertainty", 0.0))  # stable: equal ones stay in random order
    if not passages:
        raise UserError(f"{options.run}: no passage to draw: {options.other} has spans of none of {len(run.texts)}")
    if len(passages) < options.sample:
        print(f"{len(passages)} passages are all that can be drawn; excluded: {dict(run.excluded) or 'none'}")
    chosen = passages[: options.sample]
    hidden = sum(len(run.mentions.get(p["id"], [])) - len(p["teacher"]) for p in chosen)
    if hidden:
        print(f"{hidden} of the teacher's spans have other types than the {len(types)} under review: not shown")
    compared_with = public_path(options.other)  # without local paths, because the files of a review may be shared
    shown_by = "" if options.blank else compared_with if options.show == "other" else run.teacher
    return Review(types, options.by, options.seed, shown_by, run.teacher, compared_with, chosen)


def warn_if_nothing_is_left(options: ExportOptions, run: RunAnnotations, review: Review) -> None:
    """Print a warning if a review has all passages with spans, because the dataset then has none."""
    with_spans = {name for name, mentions in run.mentions.items() if mentions}
    if not with_spans or with_spans - {passage["id"] for passage in review.passages}:
        return
    held_out = options.run / UNDER_REVIEW_FILE
    lines = "" if options.folder == held_out.parent else f" and the lines of its passages in {held_out}"
    print(
        "warning: no passage with a span is left for the dataset, so --stage build will stop: if nothing is corrected "
        f"yet, delete {options.folder}{lines}, and export again with a smaller --sample"
    )


def chosen_types(options: ExportOptions, run: RunAnnotations) -> dict[str, str]:
    """Return the types of `--types`, or those of the run, with their definitions."""
    own = run.types
    names = options.types if options.types is not None else [*own]
    if not names:
        raise UserError(f"{options.run}: the teacher found no span, so name the types to review: --types person,city")
    closed = run.config.teacher.definitions
    known = closed or {mention["type"] for mentions in run.mentions.values() for mention in mentions}
    if unknown := [name for name in names if name not in known]:
        if closed:
            raise UserError(f"--types: {unknown[0]!r} is not one of the types of this run: {', '.join(closed)}")
        print(f"the teacher has no span of the types {', '.join(unknown)}: check how they are written")
    print(f"types under review: {', '.join(names)}" + ("" if options.types else "; --types chooses others"))
    return {name: own.get(name, "") for name in names}


def write_tasks(review: Review, to: Form, path: Path) -> None:
    """Write the tasks of a review, and for Label Studio its labeling configuration."""
    if to == "label-studio":
        write_atomic(path.with_suffix(".xml"), labeling_config(review.types))
        write_json(path, [to_task(passage, review.shown) for passage in review.passages])
    else:
        rows = (
            {"id": p["id"], "text": p["text"], "types": [*review.types], "entities": p["entities"], "reviewed": False}
            for p in review.passages
        )
        write_jsonl(path, rows)
