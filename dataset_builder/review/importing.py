"""Turn a corrected file into a benchmark and a set to train on, and report what was changed."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from open_ner.tools.errors import UserError
from open_ner.tools.files import write_atomic, write_json, write_jsonl

from ..dataset.annotation_file import is_held_out
from .changes import TypeChanges, compare, show
from .corrected import Corrected, read_corrected
from .passages import Review

COUNTS = {
    "not_in_file": "passages of the review are not in the file: they are not part of the gold",
    "not_corrected": "passages in the file are not corrected: they are not part of the gold",
    "moved": "spans were found by their text, because their offsets do not count characters",
    "trimmed": "spans lost white space at their ends",
    "repeated": "spans were repeated; one of each was kept",
}


@dataclass
class ImportOptions:
    """The options of the command `import`."""

    file: Path
    folder: Path  # of the review
    output_dir: Path
    annotator: str | None
    train_one_in: int
    name: str
    license: str


def import_review(options: ImportOptions) -> None:
    """Read the corrections, print and write the report, and write the gold with its two YAML files."""
    review = Review.read(options.folder)
    corrected = read_corrected(options.file, review, options.annotator)
    for kind, what in COUNTS.items():
        if number := corrected.counts[kind]:
            print(f"{number} {what}")
    report = make_report(review, corrected)
    for who, table in report["scores"].items():
        show(f"{who} against the corrections", table)
    print(report["note"])
    parts = write_gold(review, corrected, options)
    write_json(options.output_dir / "report.json", report)
    for part, number in parts.items():
        print(f"{part}: {number} passages -> {options.output_dir / f'{part}.yaml'}")


def make_report(review: Review, corrected: Corrected) -> dict[str, Any]:
    """Compare the teacher's spans, and those that the tasks had instead, with the corrections."""
    passages = [passage for passage in review.passages if passage["id"] in corrected.mentions]
    gold = [corrected.mentions[passage["id"]] for passage in passages]
    scores: dict[str, dict[str, TypeChanges]] = {
        f"teacher {review.teacher}": compare(zip((p["teacher"] for p in passages), gold, strict=True))
    }
    if review.shown not in ("", review.teacher):
        scores[review.shown] = compare(zip((p["entities"] for p in passages), gold, strict=True))
    note = f"{len(passages)} of {len(review.passages)} passages are corrected."
    if review.shown:
        note += (
            f" This gold was made by correcting the spans of {review.shown}, so it favors {review.shown}: people tend"
            " to leave what they are shown. Gold without that comes from a review exported with --blank."
        )
    if review.by == "uncertain":
        note += " The passages are the most uncertain ones, so scores on them are lower than on passages at random."
    return {"note": note, "shown": review.shown, "by": review.by, "counts": dict(corrected.counts), "scores": scores}


def write_gold(review: Review, corrected: Corrected, options: ImportOptions) -> dict[str, int]:
    """Write `benchmark` and `supervised`, each as JSONL and YAML; return their numbers of passages.

    Without `train_one_in` both have all passages, so only one of them should be used; otherwise no passage is in both.
    """
    folder, types = options.output_dir, [*review.types]
    rows = [
        {"id": p["id"], "text": p["text"], "types": types, "entities": corrected.mentions[p["id"]]}
        for p in review.passages
        if p["id"] in corrected.mentions
    ]
    parts: dict[str, list[dict[str, Any]]] = {"benchmark": rows, "supervised": rows}
    if options.train_one_in:
        parts = {"benchmark": [], "supervised": []}
        for row in rows:
            parts["supervised" if is_held_out(row["id"], options.train_one_in) else "benchmark"].append(row)
    if empty := [part for part, own in parts.items() if not own]:
        raise UserError(f"--train_one_in {options.train_one_in}: no passage is left for the {empty[0]}; change it")
    folder.mkdir(parents=True, exist_ok=True)
    both = "one of the two, or import again with --train_one_in" if not options.train_one_in else "both"
    uses = {
        "benchmark": "To score on: name this file in `benchmarks` of a suite, as suite.yaml beside it does.",
        "supervised": "To train on: name this file in `supervised.sets` of a build recipe.",
    }
    # `./` is beside the YAML of a set, whatever its `data_dir`; the evaluation has no such paths
    paths = {"benchmark": _portable(folder / "benchmark.jsonl"), "supervised": "./supervised.jsonl"}
    for part, own in parts.items():
        write_jsonl(folder / f"{part}.jsonl", own)
        settings: dict[str, Any] = {"name": options.name, "path": paths[part]}
        settings |= {"format": "offsets", "types": types, "license": options.license}
        if part == "benchmark":
            made = {"made_by": "corrected", "corrected_from": review.shown} if review.shown else {"made_by": "blank"}
            settings |= {"version": 1, "domain": options.name, **made}
        write_yaml(folder / f"{part}.yaml", settings, [uses[part], f"The passages are in {part}.jsonl; use {both}."])
    suite = {"name": options.name, "benchmarks": [_portable(folder / "benchmark.yaml")], "protocol": "review"}
    suite |= {"decoding": "flat", "output_dir": _portable(folder / "results")}
    command = f"python eval_zero_shot.py --config {_portable(folder / 'suite.yaml')} --model MODEL"
    write_yaml(folder / "suite.yaml", suite, [command])
    return {part: len(own) for part, own in parts.items()}


def write_yaml(path: Path, settings: dict[str, Any], comments: Iterable[str]) -> None:
    """Write a YAML file that begins with comments."""
    import yaml

    heading = "".join(f"# {line}\n" for line in comments)
    write_atomic(
        path,
        heading + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110),
    )


def _portable(path: Path) -> str:
    """Return a path relative to the working directory if it is inside it, otherwise as an absolute path."""
    full = Path(os.path.abspath(path))
    return str(full.relative_to(Path.cwd())) if full.is_relative_to(Path.cwd()) else str(full)
