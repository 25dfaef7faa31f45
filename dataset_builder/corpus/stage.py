"""The stage `passages`: make shards of the corpus, here or with `--shard`, and merge them into its passages."""

import re
import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path

from command_line.build_statistics import CorpusCounts
from command_line.public import public_path
from command_line.spelling import SAMPLE, spelling_warning
from open_ner.tools.errors import UserError
from open_ner.tools.files import read_jsonl, write_jsonl

from ..config import BuildConfig, CorpusConfig
from ..shards import Shard, all_shards, name_shards
from .cutting import load_tokenizer
from .filters import Screen
from .merging import load_counts, merge_shards
from .passages import PARTS, PASSAGES, REPORT, SHARDS, StoredPassages
from .processes import Work, count_processes, run_shards
from .sampling import TooFewHeldError
from .shard_files import SPARE, Origin, ShardReport, ShardWriter, load_report
from .source_files import DATA_FILES, READERS, choose_files, local_files, path_of, pin
from .sources import sources_of

OWN = {"json": (PASSAGES, REPORT), "parquet": ("dataset/train.parquet",)}  # files that a run writes, by their reader
FINER = 4  # shards per process, because files differ in size

MakeScreen = Callable[[], Screen | None]  # is called in each process


def no_screen() -> None:
    """Return no additional filter."""


def write_passages(config: CorpusConfig, folder: Path, make_screen: MakeScreen = no_screen) -> CorpusCounts:
    """Write `passages.jsonl` and `rejected_passages.jsonl`, or reuse those of the same corpus and options.

    They do not depend on the number of processes. After an interruption, complete shards are reused.

    Returns:
        The counts of the stage, which are also written to `passages.report.json`.

    Raises:
        UserError: the corpus cannot be read, or no passage is left.
    """
    screen = make_screen()
    config, origin = _origin_of(config, screen, folder)
    if counts := load_counts(folder, origin):
        return counts
    _refuse_own_files(config, folder)
    processes, path = count_processes(config), folder / PARTS
    files = [local_files(source) or () for source in sources_of(config)]
    count = processes * (FINER if processes > 1 and max(map(len, files)) > 1 else 1)
    shards = all_shards(count)
    for entry in path.glob("*"):
        if entry.name not in {shard.suffix for shard in shards}:  # of a run that was killed
            shutil.rmtree(entry)
    screens = make_screen if processes > 1 else lambda: screen
    folders, spare = [path / shard.suffix for shard in shards], SPARE
    while True:
        due = [shard for shard in shards if not _is_current(path / shard.suffix, origin, spare)]
        run_shards(partial(_prepare, config, screens, path, origin, spare), due, processes)
        try:
            counts = merge_shards(config, origin, folders, _check(path, shards, origin), folder)
        except TooFewHeldError:
            spare *= 2
            continue
        shutil.rmtree(path)
        return counts


def write_shard(config: CorpusConfig, folder: Path, shard: Shard, make_screen: MakeScreen = no_screen) -> str:
    """Write a shard to `passages.shards/`, for the merge, and return a line that says what was done."""
    if config.num_proc not in (None, 1):
        raise UserError(f"corpus.num_proc {config.num_proc} with --shard: a shard is one process, so remove it")
    screen = make_screen()
    config, origin = _origin_of(config, screen, folder)
    if load_counts(folder, origin):
        return f"shard {shard} is already merged into {folder / PASSAGES}"
    path = folder / SHARDS
    spare = _read_spare(path)
    if _is_current(path / shard.suffix, origin, spare):
        return f"shard {shard} was complete in {path / shard.suffix}"
    _refuse_own_files(config, folder)
    run_shards(partial(_prepare, config, lambda: screen, path, origin, spare), [shard], 1)
    return f"shard {shard} -> {path / shard.suffix}; when all are there, run python -m dataset_builder.merge"


def merge_passages(config: CorpusConfig, folder: Path, make_screen: MakeScreen = no_screen) -> CorpusCounts | None:
    """Merge the shards of `write_shard` into the files that `write_passages` writes, and remove them.

    Returns:
        The counts of the stage; None if there are no shards.

    Raises:
        UserError: shards are missing, or are of another recipe, corpus or number of shards.
    """
    path = folder / SHARDS
    found = [re.fullmatch(r"(\d+)-of-(\d+)", entry.name) for entry in sorted(path.glob("*"))]
    counts = sorted({int(name[2]) for name in found if name})
    if not counts:
        return None
    config, origin = _origin_of(config, make_screen(), folder)
    if len(counts) > 1:
        several = " and ".join(map(str, counts))
        raise UserError(f"{path} has shards of {several}: keep those of one number, and delete the others")
    if not (merged := load_counts(folder, origin)):
        shards = all_shards(counts[0])
        reports = _check(path, shards, origin)
        try:
            folders = [path / shard.suffix for shard in shards]
            merged = merge_shards(config, reports[0].origin, folders, reports, folder)
        except TooFewHeldError as error:
            spare = 2 * max(report.spare for report in reports)
            write_jsonl(path / "spare.jsonl", [spare])
            few = [one for one, report in zip(shards, reports, strict=True) if report.horizons[error.group]]
            named, why = name_shards(few), "they hold too few passages, because most are near duplicates"
            raise UserError(f"run the shards {named} again, then merge: {why}; they will then store {spare} times the "
                            "sample") from None  # fmt: skip
    shutil.rmtree(path)
    return merged


def describe_passages(config: BuildConfig, folder: Path, counts: CorpusCounts) -> str:
    """Return a summary of the stage, with a warning if the student's tokenizer spells the passages in bytes."""
    kept, rejected = counts.get("kept"), counts.get("rejected") or "none"
    made = f"passages: {kept} kept, rejected {rejected} -> {folder / PASSAGES}"
    name = config.dataset.tokenizer or config.corpus.tokenizer
    tokenizer = load_tokenizer(name)
    texts = [passage.text for passage in islice(StoredPassages(folder), SAMPLE)]

    def count(texts: list[str]) -> int:
        return sum(map(len, tokenizer.encode_batch_fast(texts, add_special_tokens=False)))

    return "\n".join(filter(None, [made, spelling_warning(public_path(name), texts, count)]))


def _check(path: Path, shards: list[Shard], origin: Origin) -> list[ShardReport]:
    """Return the reports of the shards. Raises UserError if some are missing or do not belong together."""
    found = {shard: load_report(path / shard.suffix) for shard in shards}
    reports = {shard: report for shard, report in found.items() if report}
    if missing := [shard for shard in shards if shard not in reports]:
        how = f"run --stage passages --shard {missing[0]} and so on, then merge again"
        raise UserError(f"{path}: shards {name_shards(missing)} are missing or incomplete: {how}")
    others = [s for s, report in reports.items() if not report.origin.fits(origin.options, origin.state)]
    if others:
        what = "are of another recipe, or the corpus has changed since"
        raise UserError(
            f"{path}: shards {name_shards(others)} {what}: run them again with this recipe, then merge again"
        )
    first = reports[shards[0]].origin
    if differ := [shard for shard, report in reports.items() if report.origin.state != first.state]:
        what = f"read another state of the corpus than {shards[0]}"
        raise UserError(f"{path}: shards {name_shards(differ)} {what}: run them again, then merge again")
    return [*reports.values()]


def _refuse_own_files(config: CorpusConfig, folder: Path) -> None:
    """Raise UserError if the folder of the run is in a folder of the corpus whose reader would read its files."""
    for source in sources_of(config):
        corpus, run = path_of(source).resolve(), folder.resolve()
        if corpus.is_dir() and run.is_relative_to(corpus):
            kind, _, _ = choose_files(source)
            kinds = [kind] if kind else READERS.values()  # None: `datasets` may read any of them
            own = [run / name for one in kinds for name in OWN.get(one, ())]
            if any(file.match(source.data_files or "*") for file in own):
                what = f"output_dir {folder} is in the corpus {source.path}, so the run would read its own files"
                raise UserError(f"{what}: set output_dir to a folder outside, or {DATA_FILES} to other files")


def _origin_of(config: CorpusConfig, screen: Screen | None, folder: Path) -> tuple[CorpusConfig, Origin]:
    """Return the config with the commits of its sources on the Hub, and the origin of its passages."""
    options = asdict(config) | ({"screen": screen.name} if screen else {})
    del options["num_proc"]  # does not change the passages
    config = deepcopy(config)
    sources = sources_of(config)
    state = [pin(source, folder) for source in sources]
    return config, Origin(options, state, [source.revision for source in sources])


def _is_current(path: Path, origin: Origin, spare: int) -> bool:
    report = load_report(path)
    return report is not None and report.is_current(origin, spare)


def _read_spare(path: Path) -> int:
    """Return how many texts a shard holds per passage to keep; a merge that finds too few raises this number."""
    file = path / "spare.jsonl"
    return next(read_jsonl(file)) if file.exists() else SPARE


def _prepare(config: CorpusConfig, make_screen: MakeScreen, path: Path, origin: Origin, spare: int) -> Work:
    """Return the function that makes a shard; called in each process."""
    return partial(ShardWriter(config, make_screen()).write, path, origin, spare)
