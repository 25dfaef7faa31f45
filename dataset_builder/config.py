"""The options of a build recipe, with the help that `python -m dataset_builder --help` prints."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from command_line.recipes import option
from open_ner.tools.errors import UserError

Variant = Literal["type", "definition"]


@dataclass
class SourceConfig:
    """One place that documents come from."""

    path: str | None = option(None, "JSONL, Parquet, text or CSV file (.gz, .zst too), folder, pattern or Hub id")
    name: str | None = option(None, "config of the dataset, for a Hub id or a folder")
    split: str = option("train", "split of the dataset")
    revision: str | None = option(None, "branch, tag or commit of a Hub dataset; default: the latest commit, recorded")
    data_files: str | None = option(None, "glob pattern of the files to read from a Hub dataset or folder")
    text_column: str = option("text", "column with the document; here and below, a.b is field b of column a")
    id_column: str | None = option("id", "column with the id of the document; without one, the hash of the text")
    source_column: str | None = option("source", "column with the origin of the document")
    license_column: str | None = option("license", "column with the license of the document")
    source: str = option("", "origin of documents without one in source_column")
    license: str = option("", "license of documents without one in license_column")
    sample_by: Literal["line", "paragraph", "document"] = option(
        "document", "unit of a text file that is one document"
    )
    weight: float | None = option(None, "share of this source in the sample, relative to the other sources")


@dataclass
class CorpusConfig(SourceConfig):
    """Where passages come from, how long they are, and which ones are kept."""

    sources: list[SourceConfig] | None = option(None, "list of sources to mix, instead of path")
    tokenizer: str = option("models/smollm2-135m-instruct", "folder or Hub id of the tokenizer that counts tokens")
    max_tokens: int = option(256, "longest passage, in tokens (paper: 256)")
    sample: int | None = option(None, "random sample of this many passages (paper: 50000); default: all")
    limit: int | None = option(None, "stop after this many kept passages, for a quick trial")
    seed: int = option(42, "seed of the sample and of the shuffle")
    max_documents: int | None = option(None, "read at most this many documents per source; default: all")
    shuffle_buffer: int = option(0, "with max_documents: documents in the shuffle buffer; 0 keeps the corpus's order")
    min_words: int = option(5, "reject passages with fewer words")
    language: str | None = option("en", "reject passages confidently detected as another language; null disables")
    max_markup: float | None = option(0.6, "reject passages with more than this share of markup; null disables")
    near_duplicates: float | None = option(0.7, "reject near duplicates above this Jaccard similarity; null disables")
    skip_broken_lines: bool = option(False, "reject unreadable JSONL lines, with a count, instead of stopping")

    @property
    def named(self) -> bool:
        """Whether the recipe has a corpus; one with only human-annotated sets has none."""
        return bool(self.path or self.sources)


@dataclass
class TeacherConfig:
    """The model that annotates. Its API key comes from the environment, never from a recipe."""

    base_url: str | None = option(None, "OpenAI-compatible endpoint; default: that of the openai package")
    model: str | None = option(None, "name of the model at the endpoint; default: use recorded answers only")
    api_key_env: str = option("OPENAI_API_KEY", "environment variable with the API key")
    variants: list[Variant] = option(lambda: ["type"], "prompts to use: type, definition")
    prompts: dict[str, str] = option(dict, "files of custom prompts, by variant")
    response_format: Literal["text", "json_schema"] = option("text", "json_schema if the endpoint supports it")
    recorded: str | dict[str, str] | None = option(None, "file of recorded answers, or one file per variant")
    recorded_by: str = option("recorded answers", "author of the recorded answers, for the card")
    temperature: float = option(0.0, "sampling temperature (paper: 0)")
    max_answer_tokens: int = option(1024, "maximum length of a reply, in tokens")
    parameters: dict[str, Any] = option(dict, "more request parameters; null removes one, as in {max_tokens: null}")
    concurrency: int = option(64, "maximum number of requests in flight")
    requests_per_minute: float | None = option(None, "rate limit of the endpoint; default: taken from its responses")
    tokens_per_minute: float | None = option(None, "rate limit of the endpoint; default: taken from its responses")
    batch: bool = option(False, "use the provider's Batch API: replies within a day, usually at half the price")
    batch_poll_seconds: float = option(30.0, "seconds between status checks of a batch")
    max_retries: int = option(6, "retries after a temporary error")
    timeout: float = option(120.0, "seconds to wait for a reply")
    price_input: float = option(0.0, "dollars per million prompt tokens")
    price_output: float = option(0.0, "dollars per million reply tokens")
    max_cost: float | None = option(None, "budget in dollars; never exceeded, counting requests in flight")

    def __post_init__(self) -> None:
        """Raise UserError for values out of range, and for a budget without prices."""
        ranges = {"price_input": 0, "price_output": 0, "max_cost": 0, "max_retries": 0, "concurrency": 1}
        ranges |= {"timeout": 1e-3, "requests_per_minute": 1e-3, "tokens_per_minute": 1e-3, "batch_poll_seconds": 0}
        for name, least in ranges.items():
            value = getattr(self, name)
            if value is not None and not least <= value < math.inf:
                raise UserError(f"teacher.{name} is {value}: it must be a number of at least {least}")
        if self.max_cost is not None and not self.price_input and not self.price_output:
            raise UserError("max_cost needs prices: set price_input and price_output, dollars per million tokens")


@dataclass
class DatasetConfig:
    """How annotations become conversations."""

    negatives: Literal["none", "uniform", "frequency"] = option(
        "frequency", "distribution from which absent types are drawn (paper: frequency)"
    )
    negative_ratio: float = option(1.0, "absent types asked per present type")
    negatives_per_passage: int | None = option(None, "absent types asked per passage, instead of the ratio")
    max_queries: int | None = option(None, "ask at most this many types per passage, at random; default: no limit")
    max_conversation_tokens: int = option(1024, "longest conversation; a longer one is split in two (paper: 1024)")
    tokenizer: str | None = option(None, "student that counts the tokens of a conversation; default: corpus.tokenizer")
    max_entity_words: int = option(20, "reject longer mentions")
    validation_one_in: int = option(
        10, "size of the validation split: one in this many passages, chosen by id; 0: none"
    )
    seed: int = option(42, "seed of the absent types and of the order of queries")

    def __post_init__(self) -> None:
        """Raise UserError for values out of range."""
        least = {"negative_ratio": 0, "negatives_per_passage": 0, "max_queries": 1, "max_conversation_tokens": 1}
        least |= {"max_entity_words": 1, "validation_one_in": 0}
        for name, lowest in least.items():
            value = getattr(self, name)
            if value is not None and not lowest <= value < math.inf:
                raise UserError(f"dataset.{name} is {value}: it must be {lowest} or more")


@dataclass
class SupervisedConfig:
    """Human-annotated sets, in addition to distilled passages or without them (paper, section 3.3)."""

    sets: list[str] = option(list, "sets to add: names under recipes/build/supervised/, or paths of .yaml files")
    data_dir: str = option(".", "folder that the paths of sets are relative to")
    dataset_line: bool = option(
        True, "begin conversations with `Dataset: {name}`, because sets use the same type in different ways"
    )
    negatives: Literal["all", "none", "uniform", "frequency"] = option(
        "all", "absent types of the set's own labels to ask: all, none, or drawn from a distribution"
    )
    negative_ratio: float = option(1.0, "absent types asked per present type, unless negatives is all")
    negatives_per_passage: int | None = option(None, "absent types asked per passage, instead of the ratio")
    empty_ratio: float = option(0.5, "most passages without mentions per passage with mentions; 0 if never asked")
    max_passages: int | None = option(10_000, "random sample of this many passages per set (paper: 10,000)")
    long_passages: Literal["window", "reject"] = option("window", "passages beyond corpus.max_tokens: cut or reject")
    mixture: dict[str, float] | None = option(
        None, "sizes of `distilled` (the first variant) and of sets by name, for the config `mixture`; {}: all rows"
    )


@dataclass
class ContaminationConfig:
    """Overlap of passages and types with benchmarks. The card always reports it; `remove` also rejects it."""

    benchmarks: list[str] = option(
        list, "benchmarks to compare with: names under recipes/eval/benchmarks/, or paths of files with texts"
    )
    data_dir: str = option(".", "folder that the paths of benchmarks are relative to")
    passages: Literal["remove", "report"] = option("remove", "passages that share an n-gram with a benchmark's text")
    types: Literal["remove", "report"] = option("report", "types that are labels of a benchmark: remove, or report")
    ngram: int = option(8, "words per n-gram, compared in lower case and without punctuation")
    min_words: int = option(5, "ignore benchmark texts with fewer words, which occur by chance")


@dataclass
class BuildConfig:
    """A build recipe: one YAML file is one run."""

    corpus: CorpusConfig = option(CorpusConfig, "")
    output_dir: str = option(
        "runs/my-dataset", "folder of the run: passages, journal, and in dataset/ the dataset for the Hub"
    )
    dataset_dir: str | None = option(
        None, "folder of the dataset, to build several datasets from one journal; default: dataset/ in output_dir"
    )
    name: str = option("uniner-distill", "title of the dataset card")
    license: str = option("other", "license of the dataset, an identifier of the Hub")
    teacher: TeacherConfig = option(TeacherConfig, "")
    dataset: DatasetConfig = option(DatasetConfig, "")
    supervised: SupervisedConfig = option(SupervisedConfig, "")
    contamination: ContaminationConfig = option(ContaminationConfig, "")

    def __post_init__(self) -> None:
        """Raise UserError for a recipe without data, or with a mixture of one part."""
        if not self.corpus.named and not self.supervised.sets:
            raise UserError("nothing to build from: set corpus.path, corpus.sources or supervised.sets")
        if self.supervised.mixture is not None and not (self.corpus.named and self.supervised.sets):
            needs = "distilled passages and sets: set a corpus and sets, or remove it"
            raise UserError(f"supervised.mixture needs {needs}")
