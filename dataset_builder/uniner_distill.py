"""The `datasets` builder: annotations become Parquet, with one config per variant.

`datasets` no longer runs loading scripts from the Hub, so this one runs locally: `materialize` writes its configs as a
folder of Parquet files, which `load_dataset` reads from disk and from the Hub without code.
"""

import tempfile
from collections import Counter
from collections.abc import Collection, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, get_args

import datasets
import pyarrow as pa
from datasets.exceptions import DatasetGenerationError

from open_ner.tools.errors import UserError

from .config import DatasetConfig, SupervisedConfig, Variant
from .dataset.annotation_file import AnnotationFile
from .dataset.conversations import ConversationCounts, to_conversations
from .dataset.negatives import NegativeSampler
from .dataset.statistics import BuiltConfig
from .dataset.supervised import conversation_options
from .dataset.token_budget import TokenBudget

STRING, OFFSET = datasets.Value("string"), datasets.Value("int32")
TEXT = {"id": STRING, "text": STRING, "source": STRING}
ENTITIES = {"entities": datasets.List({"start": OFFSET, "end": OFFSET, "text": STRING, "type": STRING})}
MESSAGES = {"messages": datasets.List({"role": STRING, "content": STRING})}
PROVENANCE = {"source_id": STRING, "license": STRING, "start": datasets.Value("int64"), "end": datasets.Value("int64")}
CONVERSATION_FEATURES = datasets.Features({**TEXT, **MESSAGES, **ENTITIES, "negatives": datasets.List(STRING)})
SHARD_SIZE = "500MB"  # of Arrow data; the Parquet file has about a third of this size
ROWS_PER_TABLE = 2000


def features_of(config: str, closed: bool = False) -> datasets.Features:
    """Return the columns of a config; only configs with human-annotated sets have the column `dataset`.

    `closed`: whether rows list the types that they are asked; the config `annotations` then has the column `types`.
    """
    if config == "annotations":
        own = {"types": datasets.List(STRING)} if closed else {}
        return datasets.Features({**TEXT, **PROVENANCE, **ENTITIES, **own, "teacher": STRING, "annotated": STRING})
    named = {} if config in get_args(Variant) else {"dataset": STRING}  # variants contain only distilled passages
    return datasets.Features({**CONVERSATION_FEATURES, **named})


class UninerDistill(datasets.ArrowBasedBuilder):
    """Builds one config: `annotations` has one row per passage with provenance, the others are conversations.

    Args:
        name: the config.
        annotations: the annotated passages.
        options: how distilled passages become conversations.
        budget: limit of a conversation; None for no limit.
        supervised: how passages of human-annotated sets become conversations.
        types: the types of a closed world; empty in an open world.
        cache_dir: folder for the files of `datasets`.
    """

    def __init__(
        self, name: str, annotations: AnnotationFile, options: DatasetConfig, budget: TokenBudget | None,
        supervised: SupervisedConfig, types: Collection[str], cache_dir: str,
    ) -> None:  # fmt: skip
        self.annotations, self.options, self.budget = annotations, options, budget
        self.supervised, self.types = supervised, types
        self.counts = ConversationCounts()
        # the hash is fixed, because the cache is never reused
        super().__init__(cache_dir=cache_dir, dataset_name="uniner_distill", config_name=name, hash="0")

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(features=features_of(self.config.name, self.annotations.closed))

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        held_out = self.annotations.held_out
        if all(held_out) and self.options.validation_one_in != 1:
            hint = "add passages, or set dataset.validation_one_in to 0"
            raise UserError(f"all {len(held_out)} annotated passages are in the validation split; {hint}")
        names = ("train",) * (not all(held_out)) + ("validation",) * any(held_out)
        return [datasets.SplitGenerator(name=name, gen_kwargs={"split": name}) for name in names]

    def _generate_tables(self, split: str) -> Iterator[tuple[int, pa.Table]]:
        rows: Iterator[Any]
        if self.config.name == "annotations":
            rows = self.annotations.rows(split)
        else:
            options, samplers = {}, {}
            # both splits draw absent types from the training split, and each set from its own types
            for name, by_source in self.annotations.train_counts.items():
                counts: Counter[str] = Counter()
                for own in by_source.values():  # sum() would copy all types once per source
                    counts.update(own)
                if not name and self.types:
                    counts = Counter({kind: counts[kind] for kind in self.types})
                options[name] = conversation_options(self.supervised, self.options) if name else self.options
                law, seed = options[name].negatives, options[name].seed
                samplers[name] = NegativeSampler(counts, law, seed, by_source if law == "source" else None)
            line = self.supervised.dataset_line
            draws = self.options.draws if split == "train" else 1
            rows = chain.from_iterable(
                to_conversations(
                    self.annotations.rows(split), samplers, options, self.budget, self.counts, line, draw, draws
                )
                for draw in range(1, draws + 1)
            )
        schema = features_of(self.config.name, self.annotations.closed).arrow_schema
        number = 0
        while block := list(islice(rows, ROWS_PER_TABLE)):
            yield number, pa.Table.from_pylist(block, schema=schema)
            number += 1
        self.counts.rejects = list(dict.fromkeys(self.counts.rejects))  # most rejects are the same in every draw


def materialize(
    sources: dict[str, Path], options: DatasetConfig, tokenizer: str, folder: Path,
    supervised: SupervisedConfig | None = None, types: Collection[str] = (),
) -> dict[str, BuiltConfig]:  # fmt: skip
    """Write the splits of each config as Parquet shards under `folder/<config>/`.

    Args:
        sources: annotation file of each conversation config ("type", "definition", "closed", "supervised",
            "mixture"); the config "annotations" is made from the first file.
        options: how distilled passages become conversations.
        tokenizer: tokenizer of the student, which measures conversations; "" for no limit.
        folder: an existing folder.
        supervised: how passages of human-annotated sets become conversations.
        types: the types of a closed world; each distilled passage is asked all of them.

    Returns:
        What was built, by config. A split without a row is left out, because `load_dataset` cannot read it.

    Raises:
        UserError: a config has no row to train on.
    """
    files = {path: AnnotationFile.read(path, options.validation_one_in) for path in sources.values()}
    budget = TokenBudget(tokenizer, options.max_conversation_tokens) if tokenizer else None
    built: dict[str, BuiltConfig] = {}
    for name, path in {**sources, "annotations": next(iter(sources.values()))}.items():
        with tempfile.TemporaryDirectory(dir=folder, prefix=f"{name}.") as work:
            sets = supervised or SupervisedConfig()
            builder = UninerDistill(name, files[path], options, budget, sets, types, f"{work}/cache")
            try:
                builder.download_and_prepare(f"{work}/parquet", file_format="parquet", max_shard_size=SHARD_SIZE)
            except DatasetGenerationError as error:
                raise (error.__cause__ or error) from None
            splits = _leave_out_empty(builder)
            builder.info.download_size = _move_shards(Path(work) / "parquet", folder / name, splits)
        built[name] = BuiltConfig(splits, builder.info._to_yaml_dict(), files[path], builder.counts)
    return built


def _leave_out_empty(builder: UninerDistill) -> dict[str, int]:
    """Return the number of rows by split, without the splits that have none, which the builder forgets."""
    infos = builder.info.splits or {}
    rows = {split: info.num_examples for split, info in infos.items()}
    first, name = next(iter(rows)), builder.config.name  # the first split is `train`, if there is one
    for split in [split for split, number in rows.items() if not number]:
        if split == first:
            why = dict(Counter(reject.reason for reject in builder.counts.rejects))
            how = "raise dataset.max_conversation_tokens if they are too long, or ask absent types if nothing is asked"
            raise UserError(f"{name}: all passages of the split {split} were rejected: {why}; {how}")
        print(f"{name}: all passages of the split {split} were rejected, so it is left out")
        del infos[split], rows[split]
    return rows


def _move_shards(written: Path, target: Path, splits: Collection[str]) -> int:
    """Give the shards of these splits the names of the Hub, `train-00000-of-00001.parquet`; return their size."""
    target.mkdir()
    size = 0
    for path in sorted(written.glob("*.parquet")):
        _, split, *number = path.stem.split("-", 2)
        if split not in splits:
            continue
        size += path.stat().st_size
        path.rename(target / f"{split}-{number[0] if number else '00000-of-00001'}.parquet")
    return size
