"""The `datasets` loading script: annotations become Parquet, one builder config per variant.

`datasets` no longer runs such scripts from the Hub, so this one runs here: `materialize` writes its configs as a
folder of Parquet files, which `load_dataset` reads from disk and from the Hub without any code.
"""

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from open_ner.tools.errors import UserError

from .config import DatasetConfig, SupervisedConfig
from .dataset.annotation_file import AnnotationFile
from .dataset.conversations import ROWS_AT_ONCE, ConversationCounts, entity_column, to_conversations, to_table
from .dataset.negatives import NegativeSampler
from .dataset.statistics import BuiltConfig
from .dataset.supervised import conversation_options
from .dataset.token_budget import TokenBudget

ENTITY = {
    "start": datasets.Value("int32"),
    "end": datasets.Value("int32"),
    "text": datasets.Value("string"),
    "type": datasets.Value("string"),
}
TEXT = {name: datasets.Value("string") for name in ("id", "text", "source")}
CONVERSATION_FEATURES = datasets.Features(
    {
        **TEXT,
        "messages": datasets.List({"role": datasets.Value("string"), "content": datasets.Value("string")}),
        "entities": datasets.List(ENTITY),
        "negatives": datasets.List(datasets.Value("string")),
    }
)
ANNOTATION_FEATURES = datasets.Features(
    {
        **TEXT,
        "source_id": datasets.Value("string"),
        "license": datasets.Value("string"),
        "start": datasets.Value("int64"),
        "end": datasets.Value("int64"),
        "entities": datasets.List(ENTITY),
        "teacher": datasets.Value("string"),
        "annotated": datasets.Value("string"),
    }
)
DISTILLED = ("type", "definition")  # the configs whose rows name no human-annotated set
SHARD_SIZE = "500MB"  # of Arrow data; its Parquet is about a third


def features_of(config: str) -> datasets.Features:
    """The columns of a config; those of human-annotated sets also name the set."""
    if config == "annotations":
        return ANNOTATION_FEATURES
    named = {} if config in DISTILLED else {"dataset": datasets.Value("string")}
    return datasets.Features({**CONVERSATION_FEATURES, **named})


@dataclass
class UninerDistillConfig(datasets.BuilderConfig):
    """`annotations` is a JSONL file of annotated passages; `tokenizer` is the student's, "" for an endless window.

    `supervised` says how the conversations of rows that name a human-annotated set are built.
    """

    annotations: str = ""
    options: DatasetConfig | None = None
    tokenizer: str = ""
    supervised: SupervisedConfig = field(default_factory=SupervisedConfig)


class UninerDistill(datasets.ArrowBasedBuilder):
    """Config `annotations` (a row per passage, with provenance); all others are conversations."""

    BUILDER_CONFIG_CLASS = UninerDistillConfig
    DEFAULT_CONFIG_NAME = "type"

    def _info(self) -> datasets.DatasetInfo:
        self.tally = ConversationCounts()
        self.annotations: AnnotationFile | None = None
        self.window: TokenBudget | None = None
        return datasets.DatasetInfo(features=features_of(self.config.name))

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        one_in = self.config.options.validation_one_in
        self.annotations = self.annotations or AnnotationFile(Path(self.config.annotations), one_in)
        held_out = self.annotations.held_out
        if all(held_out):
            raise UserError(
                f"all {len(held_out)} annotated passages fall into the validation split: add passages, or set "
                "dataset.validation_one_in to 0"
            )
        names = ("train", "validation") if any(held_out) else ("train",)
        return [datasets.SplitGenerator(name=name, gen_kwargs={"split": name}) for name in names]

    def _generate_tables(self, split: str) -> Iterator[tuple[int, pa.Table]]:
        config, rows = self.config, self.annotations.rows(split)
        schema = self.info.features.arrow_schema
        if config.name == "annotations":
            for number, block in enumerate(_blocks(rows)):
                yield number, annotation_table(block, schema)
            return
        options = {
            name: conversation_options(config.supervised, config.options) if name else config.options
            for name in self.annotations.train_counts
        }
        # negatives come from the training part's types alone, in both splits, and of a set's own types
        samplers = {
            name: NegativeSampler(counts, options[name].negatives, options[name].seed)
            for name, counts in self.annotations.train_counts.items()
        }
        if config.tokenizer and not self.window:
            self.window = TokenBudget(config.tokenizer, config.options.max_conversation_tokens)
        line = config.supervised.dataset_line
        conversations = to_conversations(rows, samplers, options, self.window, self.tally, line)
        for number, block in enumerate(_blocks(conversations)):
            yield number, to_table(block, schema)


def annotation_table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Arrow columns of annotated passages."""
    mentions = [mention for row in rows for mention in row["entities"]]
    ends = [0]
    for row in rows:
        ends.append(ends[-1] + len(row["entities"]))
    columns = [
        entity_column(mentions, ends, schema)
        if column.name == "entities"
        else pa.array([row[column.name] for row in rows], column.type)
        for column in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _blocks(items: Iterable[Any]) -> Iterator[list[Any]]:
    items = iter(items)
    while block := list(islice(items, ROWS_AT_ONCE)):
        yield block


def materialize(
    sources: dict[str, Path],
    options: DatasetConfig,
    tokenizer: str,
    folder: Path,
    supervised: SupervisedConfig | None = None,
) -> dict[str, BuiltConfig]:
    """Write each config's splits as Parquet under `folder/<config>/`, in shards of `SHARD_SIZE`.

    `sources` maps the conversation configs ("type", "definition", "supervised", "mixture") to their annotation files;
    the config `annotations` is added from the first.
    """
    built: dict[str, BuiltConfig] = {}
    files: dict[Path, AnnotationFile] = {}
    window = None
    for name, path in {**sources, "annotations": next(iter(sources.values()))}.items():
        with tempfile.TemporaryDirectory(dir=folder, prefix=f"{name}.") as work:
            builder = UninerDistill(
                cache_dir=f"{work}/cache",
                dataset_name="uniner_distill",
                config_name=name,
                hash="0",  # nothing is looked up in a cache
                annotations=str(path),
                options=options,
                tokenizer=tokenizer,
                supervised=supervised or SupervisedConfig(),
            )
            builder.annotations, builder.window = files.get(path), window
            try:
                builder.download_and_prepare(f"{work}/parquet", file_format="parquet", max_shard_size=SHARD_SIZE)
            except datasets.exceptions.DatasetGenerationError as error:
                raise (error.__cause__ or error) from None
            files[path], window = builder.annotations, builder.window
            size = _move_shards(Path(work) / "parquet", folder / name)
        builder.info.download_size = size
        splits = {split: info.num_examples for split, info in builder.info.splits.items()}
        built[name] = BuiltConfig(splits, builder.info._to_yaml_dict(), builder.annotations, builder.tally)
    return built


def _move_shards(written: Path, target: Path) -> int:
    """Give shards the Hub's names, `train-00000-of-00001.parquet`; returns their size in bytes."""
    target.mkdir()
    size = 0
    for path in sorted(written.glob("*.parquet")):
        _, split, *number = path.stem.split("-", 2)
        size += path.stat().st_size
        path.rename(target / f"{split}-{number[0] if number else '00000-of-00001'}.parquet")
    return size
