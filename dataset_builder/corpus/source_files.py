"""The files of a source: which there are, which of them are read and how, and when they have changed."""

import hashlib
import re
from glob import glob
from pathlib import Path

from open_ner.tools.errors import UserError

from ..config import SourceConfig
from .passages import PARTS, SHARDS

READERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".txt": "text", ".csv": "csv"}
COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
PATTERN = re.compile(r"[*?\[]")
DATA_FILES = "data_files (corpus.data_files, or that of the source)"
ALL_OR_SOME = f'{DATA_FILES} to "*" for all files, or to another pattern'
COMMIT = re.compile(r"[0-9a-f]{40}")


def path_of(source: SourceConfig) -> Path:
    """Return the path of a source; a `~` at its beginning is the home folder, which no shell expands in a recipe."""
    return Path(source.path or "").expanduser()


def local_files(source: SourceConfig) -> list[Path] | None:
    """Return the local files of a source; None for a Hub dataset or a file that does not exist.

    Unfinished passages in a folder of the source are none of them: while a run writes these, it must not find more
    files of their type than of the corpus, and read them instead.
    """
    path = path_of(source)
    if path.is_file():
        return [path]
    if path.is_dir():
        names = map(Path, glob(f"**/{source.data_files or '*'}", root_dir=path, recursive=True))
        found = [path / name for name in names if not {PARTS, SHARDS} & {*name.parts}]
    elif PATTERN.search(str(path)):
        found = [Path(name) for name in glob(str(path), recursive=True)]
    else:
        return None
    return sorted(file for file in found if file.is_file())


def _kind_of(file: Path) -> str | None:
    """Return the key of the reader of a file with this name; None for an unknown type."""
    return READERS.get((file.with_suffix("") if file.suffix in COMPRESSED else file).suffix.lower())


def _may_be_on_hub(name: str) -> bool:
    """Whether a name can be the id of a Hub dataset."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def choose_files(source: SourceConfig) -> tuple[str | None, list[Path], list[Path]]:
    """Choose the reader of a source, by the most frequent type of its local files.

    Returns:
        The key of the reader, the local files to read, and the other local files. The key is None if `datasets` must
        find the files: for a Hub dataset, a folder with configs, and a folder without files of a known type.

    Raises:
        UserError: the files do not exist, are of an unknown type, or only some of them are named like a split.
    """
    path, files = path_of(source), local_files(source)
    kinds = [_kind_of(file) for file in files or []]
    kind = max(READERS.values(), key=kinds.count)
    if not files or kind not in kinds:
        if path.is_dir() or (files is None and not _kind_of(path) and _may_be_on_hub(source.path or "")):
            return None, [], []
        if not files:
            raise UserError(f"{path}: no such file or folder: set corpus.path to your corpus")
        types = f"use {', '.join(READERS)}, or one of them compressed ({', '.join(COMPRESSED)})"
        raise UserError(f"{path}: unknown file type: {types}")
    chosen = [file for file, one in zip(files, kinds, strict=True) if one == kind]
    if path.is_dir() and not source.data_files:
        card = path / "README.md"
        if source.name or (card.exists() and "\nconfigs:" in card.read_text(encoding="utf-8", errors="replace")):
            return None, [], []
        chosen = chosen if kind == "text" else _of_split(path, chosen, source.split)
    return kind, chosen, [file for file in files if file not in {*chosen}]


def _of_split(folder: Path, files: list[Path], split: str) -> list[Path]:
    """Return the files whose names belong to a split, such as `test.jsonl`, by the rules of `datasets`.

    Raises UserError if no file does, or if only some files have names of splits: these rules would leave out the
    others, although `train_delays.jsonl` may be any part of a corpus.
    """
    from datasets.data_files import FILES_TO_IGNORE, DataFilesDict, get_data_patterns

    try:
        patterns = get_data_patterns(str(folder))
        splits = DataFilesDict.from_patterns(patterns, base_path=str(folder))
    except FileNotFoundError:
        return files
    splits_of = {Path(name).resolve(): str(one) for one, names in splits.items() for name in names}
    named = {file: splits_of[file.resolve()] for file in files if file.resolve() in splits_of}
    others = [file for file in files if file not in named and file.name not in FILES_TO_IGNORE]
    if not named:  # the names of splits are those of other types of files
        named = dict.fromkeys(others, "train")
    elif others and [*patterns.values()] != [["**"]]:  # the pattern of a folder without names of splits
        first, one = next(iter(named.items()))
        what = f"{first.relative_to(folder)} is named like a file of the split {one!r}"
        what += f", and {others[0].relative_to(folder)} like none, so it is not clear which files to read"
        raise UserError(f"{folder}: {what}: set {ALL_OR_SOME}")
    if split not in named.values():
        known = f"only of {sorted({*named.values()})}"
        raise UserError(f"{folder}: no files of the split {split!r}, {known}: set split, or {ALL_OR_SOME}")
    return [file for file, one in named.items() if one == split]


def pin(source: SourceConfig, run: Path | None = None) -> str | None:
    """Set `source.revision` to the Hub's commit, and return a string that changes with the source.

    Args:
        source: the source.
        run: the folder of the run. Its files are not a change, if it is in a folder of the source.

    Returns:
        The commit, or for local files a hash of their sizes and times; None if the Hub cannot be reached or the
        source does not exist.
    """
    assert source.path  # see sources_of
    path, files = path_of(source), local_files(source)
    if files is not None:
        if run and path.resolve() in run.resolve().parents:
            own = path / run.resolve().relative_to(path.resolve())
            files = [file for file in files if not file.is_relative_to(own)]
        states = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        return hashlib.sha256(repr(states).encode()).hexdigest()
    if _kind_of(path):
        return None  # the file is missing: reading it will report that
    if not COMMIT.fullmatch(source.revision or ""):
        from huggingface_hub import HfApi

        try:
            source.revision = HfApi().dataset_info(source.path, revision=source.revision).sha
        except Exception:  # offline, unknown or forbidden: reading the corpus will report that
            return None
    return source.revision
