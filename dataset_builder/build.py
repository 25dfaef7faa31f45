"""The stage `build`: passages, journal and human-annotated sets become the dataset's folder. It is free."""

import dataclasses
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from command_line.build_statistics import BuildStatistics
from command_line.public import public_path
from open_ner.tools.errors import UserError
from open_ner.tools.files import read_json, write_json

from .config import BuildConfig, ContaminationConfig, SupervisedConfig
from .corpus.passages import REPORT
from .dataset.figures import plot_all
from .dataset.parts import Parts
from .dataset.statistics import PAPER, BuiltConfig, describe_set, describe_types, summarize
from .rejects import RejectFiles
from .teacher.questions import RECORDED, prompt_hash
from .uniner_distill import materialize

LOCAL_OPTIONS = ("data_dir", "sets", "benchmarks")  # not published, because they may be paths of this machine


def build(config: BuildConfig, folder: Path, finish: Callable[[Path], None]) -> Path:
    """Build annotations, conversations, statistics and figures from passages, journal and sets.

    Args:
        config: the recipe.
        folder: the folder of the run, with passages and journal.
        finish: writes the card into the new folder, from its `stats.json`.

    Returns:
        The folder of the dataset. An interrupted build leaves the previous dataset as it was.
    """
    student = config.dataset.tokenizer or config.corpus.tokenizer
    target = Path(config.dataset_dir) if config.dataset_dir else folder / "dataset"
    with replaced(target) as partial:
        parts = Parts(config, folder)
        for benchmark in parts.decontaminator.benchmarks:
            if benchmark.unread:
                what = f"the annotations of some rows cannot be read: {benchmark.unread}"
                print(f"benchmark {benchmark.name}: {what}; their texts are compared, their types are not")
        with RejectFiles(partial / "rejects") as rejects:
            parts.write(rejects)
            types = config.teacher.definitions
            built = materialize(parts.files, config.dataset, student, partial, config.supervised, types)
            for name in parts.files:
                rejects.add(name, built[name].counts.rejects)
        stats = _statistics(config, folder, parts, built, student)
        first = built[next(iter(parts.files))].annotations
        write_json(partial / "stats.json", stats)
        write_json(partial / "types.json", dict(first.counts.most_common()))
        plot_all(stats, first, partial / "figures")
        finish(partial)
    for name, part in built.items():
        print(f"{name}: " + ", ".join(f"{split} {rows}" for split, rows in part.splits.items()))
    return target


def _statistics(
    config: BuildConfig, folder: Path, parts: Parts, built: dict[str, BuiltConfig], student: str
) -> BuildStatistics:
    """Return the content of stats.json: everything the card shows, without paths of this machine."""
    report = folder / REPORT
    if config.corpus.named and not report.exists():
        raise UserError(f"{report} does not exist; run --stage passages again")
    asked = config.teacher.variants if config.corpus.named else []
    files = [part.annotations for name, part in built.items() if name != "annotations"]
    teachers = {name for file in files for name in file.teachers if name not in ("", RECORDED)}
    if config.teacher.recorded_by and config.teacher.recorded and asked:
        teachers.add(config.teacher.recorded_by)
    days = sorted(set().union(*(file.dates for file in files)) - {""})
    sets = _public_options(config.supervised) | {"passages_outside_mixture": parts.passages_outside_mixture}
    return {
        "name": config.name, "license": config.license,
        "corpus": read_json(report)["counts"] if config.corpus.named else {},
        "answers": parts.cost, "language": config.corpus.language,
        "passage_options": {"max_tokens": config.corpus.max_tokens, "tokenizer": public_path(config.corpus.tokenizer)},
        "negatives": {**dataclasses.asdict(config.dataset), "tokenizer": public_path(student)},
        "prompts": {v: prompt_hash(v, config.teacher) for v in asked},
        "teacher": sorted(teachers),
        "annotated": days[:1] + days[-1:] if len(days) > 1 else days,
        "sources": dict(files[0].sources.most_common()), "licenses": dict(files[0].licenses.most_common()),
        "type_set": describe_types(config.teacher, files[0].counts),
        "variants": {name: summarize(built[name], parts.counts.get(name, {"counts": {}})) for name in parts.files},
        "supervised": {name: describe_set(name, p, built["supervised"].counts) for name, p in parts.human.items()},
        "supervised_options": sets, "contamination": parts.decontaminator.overlaps(),
        "contamination_options": _public_options(config.contamination),
        "configs": {name: {"splits": part.splits, "dataset_info": part.dataset_info} for name, part in built.items()},
        "paper": PAPER,
        "versions": {"python": platform.python_version(), "datasets": version("datasets")},
    }  # fmt: skip


def _public_options(options: SupervisedConfig | ContaminationConfig) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(options).items() if name not in LOCAL_OPTIONS}


@contextmanager
def replaced(target: Path, proof: str = "stats.json", kind: str = "a dataset") -> Iterator[Path]:
    """Yield a new folder that replaces `target` when the block ends without an error.

    An error leaves `target` as it was. If the process is killed, a complete folder is left, which the next call moves
    to `target` if necessary. Raises UserError if `target` is a file or the current folder, or contains files but not
    `proof`, which shows that this program wrote it.
    """
    if not target.name or target.is_file():
        raise UserError(f"{target} cannot become the folder of {kind}: choose another folder")
    partial, old = (target.with_name(f"{target.name}.{suffix}") for suffix in ("partial", "being-replaced"))
    if old.exists() and not target.exists():  # killed between the two renames below
        (partial if partial.exists() else old).rename(target)
    if target.exists() and not (target / proof).exists() and any(target.iterdir()):
        raise UserError(f"{target} holds files that are not {kind} of this program; choose another folder")
    for leftover in (partial, old):
        if leftover.exists():
            shutil.rmtree(leftover)
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial)
        raise
    if target.exists():
        target.rename(old)
    partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)
