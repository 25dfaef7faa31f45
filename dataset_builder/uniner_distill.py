"""The `datasets` loading script: annotations become conversations, one builder config per variant.

`datasets` no longer runs such scripts from the Hub, so this one runs here: `materialise` writes its configs as a
folder of Parquet files, which `load_dataset` reads from disk and from the Hub without any code.
"""

import hashlib
import inspect
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from open_ner.cli import UserError
from open_ner.conversation import build_conversation, order_strings

from .config import DatasetConfig, SupervisedConfig
from .negatives import NegativeSampler
from .passages import load_tokenizer
from .supervised import conversation_options

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
        "licence": datasets.Value("string"),
        "start": datasets.Value("int64"),
        "end": datasets.Value("int64"),
        "entities": datasets.List(ENTITY),
        "teacher": datasets.Value("string"),
        "annotated": datasets.Value("string"),
    }
)
SUPERVISED_FEATURES = datasets.Features({**CONVERSATION_FEATURES, "dataset": datasets.Value("string")})
FEATURES = {
    "annotations": ANNOTATION_FEATURES,
    "supervised": SUPERVISED_FEATURES,
    "mixture": SUPERVISED_FEATURES,
}
TURN_TOKENS = 8  # markers around one message; no chat template known to us needs more
ROWS_PER_TABLE = 1000


@dataclass
class UninerDistillConfig(datasets.BuilderConfig):
    """`annotations` is a JSONL file of annotated passages; `tokenizer` counts the tokens of a conversation."""

    annotations: str = ""
    options: DatasetConfig | None = None
    tokenizer: str = ""
    supervised: SupervisedConfig | None = None


class UninerDistill(datasets.ArrowBasedBuilder):
    """Config `annotations`: a row per passage, with provenance. Every other one: conversations."""

    BUILDER_CONFIG_CLASS = UninerDistillConfig
    DEFAULT_CONFIG_NAME = "type"

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(features=FEATURES.get(self.config.name, CONVERSATION_FEATURES))

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        rows = read_annotations(Path(self.config.annotations))
        splits = {"train": [], "validation": []}
        for row in rows:
            splits["validation" if is_held_out(row["id"], self.config.options.validation_one_in) else "train"].append(
                row
            )
        if not splits["train"]:
            raise UserError(
                f"all {len(rows)} annotated passages fall into the validation split: add passages, or set "
                "dataset.validation_one_in to 0"
            )
        # negatives come from the training part's types alone, in both splits, and of a set's own types
        counts = {name: count_types(part) for name, part in by_dataset(splits["train"]).items()}
        return [
            datasets.SplitGenerator(name=name, gen_kwargs={"rows": part, "counts": counts})
            for name, part in splits.items()
            if part
        ]

    def _generate_tables(self, rows: list[dict], counts: dict[str, Counter[str]]) -> Iterator[tuple[int, pa.Table]]:
        schema = self.info.features.arrow_schema
        config = self.config
        if config.name != "annotations":
            order = {row["id"]: number for number, row in enumerate(rows)}
            built = []
            for name, part in by_dataset(rows).items():
                options = conversation_options(config.supervised, config.options) if name else config.options
                line = bool(config.supervised and config.supervised.dataset_line)
                built += to_conversations(part, counts.get(name, Counter()), options, config.tokenizer, line)
            rows = sorted(built, key=lambda row: order.get(row["id"], order.get(row["id"].rpartition("#")[0])))
        for begin in range(0, len(rows), ROWS_PER_TABLE):
            yield begin, pa.Table.from_pylist(rows[begin : begin + ROWS_PER_TABLE], schema=schema)


def by_dataset(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows by the human-annotated set they name; distilled ones under ""."""
    parts: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        parts.setdefault(row.get("dataset") or "", []).append(row)
    return parts


def to_conversations(
    rows: list[dict], counts: Counter[str], options: DatasetConfig, tokenizer: str, dataset_line: bool = True
) -> Iterator[dict[str, Any]]:
    """Conversations of annotated passages: every present type, sampled absent ones, in a seeded random order.

    A conversation that would exceed `max_conversation_tokens` is continued in a second one that repeats the passage.
    That of a row which names its `dataset` opens with it, if `dataset_line`.
    """
    encoder = load_tokenizer(tokenizer) if tokenizer else None
    count = (lambda text: len(encoder.encode(text, add_special_tokens=False).ids)) if encoder else (lambda text: 0)
    types = sorted(counts)
    sampler = NegativeSampler(types, [counts[name] for name in types], options.negatives, options.seed)
    for row in rows:
        answers: dict[str, list] = {}
        for mention in row["entities"]:
            answers.setdefault(mention["type"], []).append((mention["start"], mention["text"]))
        wanted = options.negatives_per_passage
        if wanted is None:
            wanted = math.ceil(options.negative_ratio * len(answers))
        negatives = sampler.draw(set(answers), wanted)
        queries = [(name, order_strings(mentions)) for name, mentions in answers.items()]
        queries += [(name, []) for name in negatives]
        order = sampler.random.permutation(len(queries))[: options.max_queries]
        dataset = row.get("dataset") if dataset_line else None
        parts = _split_queries(
            row["text"], [queries[i] for i in order], options.max_conversation_tokens, count, dataset
        )
        for number, part in enumerate(parts):
            asked = {name for name, _ in part}
            yield {
                "id": row["id"] if number == 0 else f"{row['id']}#{number + 1}",
                "text": row["text"],
                "source": row["source"],
                "messages": build_conversation(row["text"], part, dataset),
                "entities": [mention for mention in row["entities"] if mention["type"] in asked],
                "negatives": [name for name, strings in part if not strings],
                **({"dataset": row["dataset"]} if "dataset" in row else {}),
            }


def _split_queries(text: str, queries: list, limit: int, count: Any, dataset: str | None = None) -> list[list]:
    opening = sum(count(message["content"]) + TURN_TOKENS for message in build_conversation(text, [], dataset))
    parts, size = [[]], opening
    for query in queries:
        turns = build_conversation("", [query])[3:]
        cost = sum(count(message["content"]) + TURN_TOKENS for message in turns)
        if size + cost > limit and parts[-1]:
            parts.append([])
            size = opening
        parts[-1].append(query)
        size += cost
    return parts


def is_held_out(passage_id: str, one_in: int) -> bool:
    """Whether a passage belongs to the validation split; it stays there however the corpus grows."""
    return one_in > 0 and int(hashlib.sha256(passage_id.encode()).hexdigest(), 16) % one_in == 0


def count_types(rows: list[dict]) -> Counter[str]:
    """Frequency of each type: distinct (passage, string, type) triples, as the teacher named them."""
    return Counter(kind for row in rows for _, kind in {(e["text"], e["type"]) for e in row["entities"]})


def read_annotations(path: Path) -> list[dict[str, Any]]:
    """Annotated passages of a JSONL file."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def materialise(
    variants: dict[str, Path],
    options: DatasetConfig,
    tokenizer: str,
    folder: Path,
    cache: Path,
    supervised: SupervisedConfig | None = None,
) -> dict[str, datasets.DatasetDict]:
    """Write each config's splits as Parquet under `folder/<config>/` and return them.

    `variants` maps "type", "definition", "supervised" and "mixture" to their annotation files; `annotations` is added
    from the first. `supervised` says how conversations of human-annotated sets are built.
    """
    sources = {**variants, "annotations": next(iter(variants.values()))}
    built, written = {}, set()
    # `datasets` re-uses a cached build whose hash is the same: name code, options and input in it
    code = "".join(
        inspect.getsource(inspect.getmodule(part))
        for part in (materialise, NegativeSampler, build_conversation, conversation_options)
    )
    counter = load_tokenizer(tokenizer).to_str() if tokenizer else ""
    for name, path in sources.items():
        parts = (code.encode(), repr((options, supervised)).encode(), counter.encode(), path.read_bytes())
        digest = hashlib.sha256(b"".join(parts)).hexdigest()
        builder = UninerDistill(
            cache_dir=str(cache),
            dataset_name="uniner_distill",
            config_name=name,
            hash=digest[:16],
            annotations=str(path),
            options=options,
            tokenizer=tokenizer,
            supervised=supervised,
        )
        builder.download_and_prepare()
        built[name] = builder.as_dataset()
        for split, rows in built[name].items():
            target = folder / name / f"{split}-00000-of-00001.parquet"
            target.parent.mkdir(parents=True, exist_ok=True)
            rows.to_parquet(str(target))
            written.add(target)
    for stale in set(folder.glob("*/*-00000-of-00001.parquet")) - written:
        stale.unlink()  # of a split or config that this build no longer has
    return built
