"""The stage `build`: passages, journal and annotated sets become the dataset's folder, complete or not at all.

Nothing is paid here.
"""

import dataclasses
import json
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from open_ner.tools.errors import UserError

from .config import BuildConfig
from .corpus.passages import public_name
from .dataset.figures import plot_all
from .dataset.parts import Parts
from .dataset.statistics import PAPER, describe_set, provenance, summarize
from .rejects import RejectsFolder
from .teacher.questions import prompt_hash
from .uniner_distill import BuiltConfig, materialize

FOLDERS = ("data_dir", "sets", "benchmarks")  # options that hold paths of this machine, which are nobody's business


def build(config: BuildConfig, folder: Path, finish: Callable[[Path], None]) -> Path:
    """Annotations, conversations, statistics and figures, from passages, journal and sets alone; returns their folder.

    `finish` writes the card into that folder, from the `stats.json` it finds there.
    """
    student = config.dataset.tokenizer or config.corpus.tokenizer
    target = Path(config.dataset_dir) if config.dataset_dir else folder / "dataset"
    with replaced(target) as partial, RejectsFolder(partial / "rejects") as rejects:
        parts = Parts(config, folder, rejects)
        parts.write()
        built = materialize(parts.files, config.dataset, student, partial, config.supervised)
        for name in parts.files:
            rejects.write(name, built[name].tally.rejects)
        stats = _statistics(config, folder, parts, built)
        first = built[next(iter(parts.files))].annotations
        _write_json(partial / "stats.json", stats)
        _write_json(partial / "types.json", dict(first.counts.most_common()))
        plot_all(stats, first, partial / "figures")
        finish(partial)
    for name, part in built.items():
        print(f"{name}: " + ", ".join(f"{split} {rows}" for split, rows in part.splits.items()))
    return target


def _statistics(config: BuildConfig, folder: Path, parts: Parts, built: dict[str, BuiltConfig]) -> dict[str, Any]:
    """What stats.json says: all that the card shows, and no path of this machine."""
    student = config.dataset.tokenizer or config.corpus.tokenizer
    asked = config.teacher.variants if config.corpus.named else []
    return {
        "name": config.name,
        "license": config.license,
        "corpus": _corpus_counts(folder) if config.corpus.named else {},
        "answers": parts.answers,
        "negatives": {**dataclasses.asdict(config.dataset), "tokenizer": public_name(student)},
        "prompts": {v: prompt_hash(config.teacher.prompts.get(v, v)) for v in asked},
        **provenance(built, config.teacher.recorded_by if config.teacher.recorded and asked else None),
        "variants": {
            name: {"counts": {}, **parts.counts.get(name, {}), **summarize(built[name])} for name in parts.files
        },
        "supervised": {
            name: describe_set(name, part, built["supervised"].tally) for name, part in parts.human.items()
        },
        "supervised_options": _without_folders(config.supervised) | {"passages_left_out": parts.passages_left_out},
        "contamination": [dataclasses.asdict(overlap) for overlap in parts.decontaminator.overlaps()],
        "contamination_options": _without_folders(config.contamination),
        "configs": {name: {"splits": part.splits, "dataset_info": part.dataset_info} for name, part in built.items()},
        "paper": PAPER,
        "versions": {"python": platform.python_version(), "datasets": version("datasets")},
    }


def _without_folders(options: Any) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(options).items() if name not in FOLDERS}


def _corpus_counts(folder: Path) -> dict[str, Any]:
    path = folder / "passages.report.json"
    if not path.exists():
        raise UserError(f"{path}: not there; run --stage passages again")
    return json.loads(path.read_text(encoding="utf-8"))["counts"]


@contextmanager
def replaced(target: Path) -> Iterator[Path]:
    """A folder that takes the place of `target` when the block ends well; until then `target` stays as it is.

    So an interrupted build leaves no half-written dataset, and a finished one no file of the build before it.
    """
    if target.exists() and not (target / "stats.json").exists() and any(target.iterdir()):
        raise UserError(f"{target}: holds files that are no dataset of this program; choose another folder")
    partial, old = (target.with_name(f"{target.name}.{suffix}") for suffix in ("partial", "old"))
    for leftover in (partial, old):
        if leftover.exists():
            shutil.rmtree(leftover)
    partial.mkdir(parents=True)
    yield partial
    if target.exists():
        target.rename(old)
    partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False), encoding="utf-8")
