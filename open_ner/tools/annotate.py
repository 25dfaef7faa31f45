"""Annotate a dataset with a student: write its columns and a new one of entities to a folder of Parquet files.

    open-ner annotate --dataset_name org/texts --types person,city --model org/student --output_dir runs/entities
    open-ner annotate --dataset_name texts.jsonl --text_column body --limit 1000 --model M --output_dir DIR
    accelerate launch --module open_ner annotate --dataset_name org/texts --model M --output_dir DIR
    open-ner annotate --dataset_name org/texts --model M --output_dir DIR --shard 3/8

`accelerate launch` starts one process per GPU; each writes its own files to the folder. After an interruption, run the
same command again to write the missing files. `--shard I/N` writes one of N parts of the files, for N jobs with one
folder; then run the command without --shard to write what is missing and count the entities. A row without a text
gets null, not a list.
"""

import os
import sys
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from .. import __version__
from .errors import UserError
from .fingerprint import hash_student
from .options import add_answer_options, answer_options, load_student, parse_types, read_shard
from .record import AnnotationRecord, claim, read_record

if TYPE_CHECKING:
    from datasets import Dataset

    from ..pipeline import OpenNERPipeline

FORMATS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet", ".txt": "text"}


@dataclass
class Annotated:
    """A finished folder: its files in order, and counts of their rows and entities."""

    files: list[Path]
    rows: int = 0
    without_text: int = 0
    entities: Counter[str] = field(default_factory=Counter)  # by type


def main(arguments: Sequence[str]) -> None:
    """Annotate, and print a summary of the folder."""
    args = build_parser("open-ner annotate", __doc__ or "").parse_args(arguments)
    if done := annotate(args):
        print(f"{args.output_dir}: {describe(done)}")


def build_parser(name: str, description: str) -> ArgumentParser:
    """Return the parser of the options of `annotate`."""
    parser = ArgumentParser(
        name, description=description, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--dataset_name", required=True, help="Hub id, folder, or a file of JSON lines, CSV, Parquet or lines of text")
    add("--dataset_config", help="config of the dataset")
    add("--dataset_split", default="train", help="split to annotate (train)")
    add("--dataset_revision", help="branch, tag or commit of a dataset on the Hub")
    add("--text_column", default="text", help="column with the texts (text)")
    add("--entities_column", default="entities", help="name of the new column (entities)")
    add("--model", required=True, help="folder or Hub id of a student")
    add("--revision", help="branch, tag or commit of a student on the Hub")
    add_answer_options(parser)
    add("--limit", type=int, metavar="N", help="annotate only the first N rows")
    add("--output_dir", type=Path, required=True, metavar="DIR", help="folder to write to; a run is continued there")
    add("--shard", metavar="I/N", help="make only the I-th of N parts of the files, such as 3/8")
    add(
        "--rows_per_file",
        type=int,
        default=2000,
        metavar="N",
        help="rows in each file, lost at most by an interruption (2000)",
    )
    add("--batch_size", type=int, default=128, metavar="N", help="texts given to the student at once (128)")
    add("--device", help="cpu, cuda:0, mps; default: an accelerator if there is one, each process its own")
    return parser


def annotate(args: Namespace) -> Annotated | None:
    """Write the files of this process; the first process waits for the others and summarizes the folder.

    Args:
        args: options of `build_parser`.

    Returns:
        The files and counts of the folder; None in the other processes, and for a shard.

    Raises:
        UserError: an option is invalid, the dataset or the student cannot be read, or the folder has another run.
    """
    for name in ("limit", "rows_per_file", "batch_size"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise UserError(f"--{name} {value}: give at least 1")
    rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    shard, shards = read_shard(args.shard or "1/1")
    types, options = parse_types(args.types), answer_options(args)
    rows, revision = load_rows(args)
    commit = find_commit(args.model, "model", args.revision)
    tagger = load_student(args.model, args.device or _device(processes), commit)
    try:
        tagger("", types=types, **options)  # checks all options, before the folder is claimed
    except ValueError as error:
        raise UserError(str(error)) from None
    dataset, model = Path(args.dataset_name), Path(args.model)
    record = AnnotationRecord(
        dataset=dataset.name if dataset.exists() else args.dataset_name, dataset_config=args.dataset_config,
        dataset_split=args.dataset_split, dataset_revision=revision,
        fingerprint=rows._fingerprint, rows=len(rows), limit=args.limit if args.limit == len(rows) else None,
        text_column=args.text_column, entities_column=args.entities_column,
        model=model.resolve().name if model.exists() else args.model, model_revision=commit,
        model_fingerprint=hash_student(model) if model.exists() else None,
        types=tagger.defaults["types"] if types is None else types, options=options,
        rows_per_file=args.rows_per_file, open_ner=__version__,
    )  # fmt: skip
    claim(args.output_dir, record)
    number = -(-len(rows) // args.rows_per_file)
    files = [args.output_dir / "data" / f"{args.dataset_split}-{i:05d}-of-{number:05d}.parquet" for i in range(number)]
    own = range((shard - 1) * processes + rank, number, shards * processes)
    _write([files[i] for i in own], own, rows, tagger, args, record)
    if rank:
        return None
    due = [file for i, file in enumerate(files) if i // processes % shards == shard - 1]
    while not all(file.exists() for file in due):  # other processes write them; if one fails, the launcher ends all
        time.sleep(1)
    if args.shard:
        print(f"{args.output_dir}: shard {args.shard} has its {len(due)} of the {number} files")
        return None
    for leftover in (args.output_dir / "data").glob("*.partial"):  # left by processes that were killed
        leftover.unlink(missing_ok=True)
    return read_folder(args.output_dir)


def find_commit(name: str, kind: str, revision: str | None) -> str | None:
    """Return the commit of a repository's revision; offline, the revision as given; for a local path, None."""
    from httpx2 import TransportError
    from huggingface_hub import HfApi, constants

    if Path(name).exists():
        if revision:
            raise UserError(f"{kind} {name} is a local one without revisions, so give no {revision!r}")
        return None
    if constants.HF_HUB_OFFLINE:
        return revision
    try:
        return HfApi().repo_info(name, repo_type=kind, revision=revision).sha
    except (OSError, ValueError, TransportError) as error:
        raise UserError(f"{kind} {name!r} cannot be read: {' '.join(str(error).split()):.300}") from None


def load_rows(args: Namespace) -> "tuple[Dataset, str | None]":
    """Return the rows to annotate, and the commit of the dataset if it is on the Hub."""
    try:
        import datasets
        from datasets.exceptions import DatasetsError
    except ModuleNotFoundError:
        raise UserError("annotating a dataset needs the package datasets: pip install datasets") from None

    name, config, split = args.dataset_name, args.dataset_config, args.dataset_split
    if not split.replace(".", "_").isidentifier():
        raise UserError(f"--dataset_split {split!r}: give the name of a split; --limit takes only the first rows")
    path, files, revision = Path(name), None, find_commit(name, "dataset", args.dataset_revision)
    try:
        if path.is_file():
            form = next((FORMATS[suffix] for suffix in reversed(path.suffixes) if suffix in FORMATS), None)
            if form is None:
                raise UserError(f"--dataset_name {name}: a file is read by its ending, one of {', '.join(FORMATS)}")
            name, files = form, {split: name}
        rows = datasets.load_dataset(name, config, split=split, revision=revision, data_files=files)
    except (DatasetsError, OSError, ValueError) as error:
        where = f"dataset {args.dataset_name!r}, config {config!r}, split {split!r}"
        raise UserError(f"{where} cannot be read: {' '.join(str(error).split()):.300}") from None
    datasets.disable_progress_bars()  # one for each written file
    _check_columns(rows, args)
    return rows.select(range(min(args.limit or len(rows), len(rows)))), revision


def _check_columns(rows: "Dataset", args: Namespace) -> None:
    """Raise UserError if there are no rows, no column of texts, or already a column of entities."""
    from datasets import Value

    texts = [name for name, kind in rows.features.items() if kind in (Value("string"), Value("large_string"))]
    if not len(rows):
        raise UserError(f"dataset {args.dataset_name!r} has no rows in split {args.dataset_split!r}")
    if args.text_column not in texts:
        raise UserError(f"--text_column {args.text_column}: the columns with texts are {', '.join(texts) or '(none)'}")
    if args.entities_column in rows.column_names:
        raise UserError(
            f"the dataset has a column {args.entities_column!r} already: name the new one by --entities_column"
        )


def _device(processes: int) -> str | None:
    """Return the GPU of this process; None lets transformers choose."""
    import torch

    return f"cuda:{os.environ['LOCAL_RANK']}" if processes > 1 and torch.cuda.is_available() else None


def _write(
    files: Sequence[Path], numbers: Sequence[int], rows: "Dataset", tagger: "OpenNERPipeline", args: Namespace,
    record: AnnotationRecord,
) -> None:  # fmt: skip
    """Write the files that do not exist yet; the rows of file `i` begin at `i * rows_per_file`."""
    from datasets import Features, List, Value
    from tqdm import tqdm

    entity = {"entity_group": "string", "word": "string", "start": "int64", "end": "int64", "score": "float64"}
    kind = List({name: Value(dtype) for name, dtype in entity.items()})
    size = args.rows_per_file
    places = [range(i * size, min((i + 1) * size, len(rows))) for i in numbers]
    there = sum(len(place) for place, file in zip(places, files, strict=True) if file.exists())
    interval = 0.5 if sys.stderr.isatty() else 30  # seconds; in a log file each update is a new line
    bar = tqdm(total=sum(map(len, places)), initial=there, desc="annotate", unit=" rows", mininterval=interval)
    for place, file in zip(places, files, strict=True):
        if file.exists():
            continue
        part = rows.select(place)
        found: list[Any] = []
        for batch in part.select_columns(args.text_column).iter(args.batch_size):
            texts = batch[args.text_column]
            asked = [text for text in texts if text is not None]
            answers = iter(tagger(asked, types=record["types"], batch_size=args.batch_size, **record["options"]))
            found += [None if text is None else next(answers) for text in texts]
            bar.update(len(texts))
        # a unique name, because a process that lost its launcher may still be writing the same file
        partial = file.with_name(f"{file.name}.{uuid4().hex}.partial")
        part.add_column(args.entities_column, found, feature=Features({"_": kind})["_"]).to_parquet(partial)
        with suppress(FileNotFoundError):  # removed by a process that found all files complete
            partial.replace(file)
    bar.close()


def read_folder(folder: Path) -> Annotated:
    """Count the rows and entities of a finished folder."""
    from pyarrow import parquet

    column = read_record(folder)["entities_column"]
    done = Annotated(sorted((folder / "data").glob("*.parquet")))
    for file in done.files:
        for entities in parquet.read_table(file, columns=[column])[column].to_pylist():
            done.rows += 1
            done.without_text += entities is None
            done.entities.update(entity["entity_group"] for entity in entities or ())
    return done


def describe(done: Annotated) -> str:
    """Summarize a folder in one line."""
    types = ", ".join(f"{number:,} {name}" for name, number in done.entities.most_common(10))
    line = f"{done.rows:,} rows, {done.entities.total():,} entities{f' ({types})' if types else ''}"
    return line + (f"; null in rows without a text: {done.without_text:,}" if done.without_text else "")
