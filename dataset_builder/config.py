"""Every option of a build recipe, with its help. `python -m dataset_builder --help` prints this file's contents."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from command_line.recipes import option
from open_ner.tools.errors import UserError

Variant = Literal["type", "definition"]


@dataclass
class SourceConfig:
    """One place that documents come from."""

    path: str | None = option(
        None, "local .jsonl, .parquet, .txt or .csv file (also .gz, .zst), folder, pattern, or the Hub id of a dataset"
    )
    name: str | None = option(None, "the dataset's config, for a Hub id or a folder")
    split: str = option("train", "the dataset's split")
    revision: str | None = option(None, "branch, tag or commit of a Hub dataset; absent: the newest, noted")
    data_files: str | None = option(None, "pattern of the files to read of a Hub dataset or folder")
    text_column: str = option("text", "column that holds the document; a.b is field b of column a, here and below")
    id_column: str | None = option("id", "column that holds the document's id; where absent, the hash of the text")
    source_column: str | None = option("source", "column that names the document's origin")
    license_column: str | None = option("license", "column that names the document's license")
    source: str = option("", "origin of rows that name none")
    license: str = option("", "license of rows that name none")
    sample_by: Literal["line", "paragraph", "document"] = option("document", "what one document of a text file is")
    weight: float | None = option(None, "in a mixture: this source's share of the sample, relative to the others'")


@dataclass
class CorpusConfig(SourceConfig):
    """Where passages come from, how long they may be, and which are kept."""

    sources: list[SourceConfig] | None = option(None, "a mixture: a list of path, weight and so on, instead of path")
    tokenizer: str = option("models/smollm2-135m-instruct", "folder or Hub id of the tokenizer that counts tokens")
    max_tokens: int = option(256, "longest passage, in tokens (paper: 256)")
    sample: int | None = option(
        None, "keep so many passages, drawn at random over the whole corpus (paper: 50000); absent: keep all"
    )
    limit: int | None = option(None, "keep the first so many passages and read no further: for a quick try")
    seed: int = option(42, "seed of the sample and of the shuffle")
    max_documents: int | None = option(None, "read so many documents of each source at most; absent: all")
    shuffle_buffer: int = option(
        0, "with max_documents: documents held to shuffle the stream (`datasets`' shuffle); 0: the corpus's order"
    )
    min_words: int = option(5, "passages with fewer words are dropped")
    language: str | None = option("en", "passages surely in another language (ISO 639) are dropped; null: none are")
    max_markup: float | None = option(
        0.6, "passages with a higher share of tags, links and signs are dropped; null: none are"
    )
    near_duplicates: float | None = option(
        0.7, "passages that share so much of their word 5-grams (Jaccard) with an earlier one are dropped; null: none"
    )
    skip_broken_lines: bool = option(False, "pass over JSONL lines that cannot be read, counted, instead of stopping")

    @property
    def named(self) -> bool:
        """Whether the recipe has a corpus at all; one of human-annotated sets alone has none."""
        return bool(self.path or self.sources)


@dataclass
class TeacherConfig:
    """Who annotates. The key comes from the environment, never from a recipe."""

    base_url: str | None = option(None, "OpenAI-compatible endpoint; absent: the client's default")
    model: str | None = option(None, "the teacher's name at the endpoint; absent: recorded answers only")
    api_key_env: str = option("OPENAI_API_KEY", "environment variable that holds the key")
    variants: list[Variant] = option(lambda: ["type"], "prompts to ask: type, definition")
    prompts: dict[str, str] = option(dict, "files of your own prompts, by variant, instead of the shipped ones")
    response_format: Literal["text", "json_schema"] = option("text", "json_schema where the endpoint supports it")
    recorded: str | dict[str, str] | None = option(None, "file of recorded answers, or one file per variant")
    recorded_by: str = option("recorded answers", "who gave the recorded answers, for the card")
    temperature: float = option(0.0, "sampling temperature (paper: 0)")
    max_answer_tokens: int = option(1024, "longest reply asked for, in tokens")
    parameters: dict[str, Any] = option(
        dict, "further parameters of the request; null leaves one out: {max_tokens: null, max_completion_tokens: 4096}"
    )
    concurrency: int = option(64, "requests in flight at most")
    requests_per_minute: float | None = option(None, "the endpoint's limit; absent: learned from its answers")
    tokens_per_minute: float | None = option(None, "the endpoint's limit; absent: learned from its answers")
    batch: bool = option(False, "ask through the provider's Batch API: within a day, usually at half the price")
    batch_poll_seconds: float = option(30.0, "between looks at a batch under way")
    max_retries: int = option(6, "further tries after a fault that may pass")
    timeout: float = option(120.0, "seconds to wait for one reply")
    price_input: float = option(0.0, "dollars per million prompt tokens")
    price_output: float = option(0.0, "dollars per million reply tokens")
    max_cost: float | None = option(None, "dollars; no request is sent that could exceed it")


@dataclass
class DatasetConfig:
    """How annotations become conversations."""

    negatives: Literal["none", "uniform", "frequency"] = option(
        "frequency", "law by which absent types are drawn (paper: frequency)"
    )
    negative_ratio: float = option(1.0, "absent types asked per present type")
    negatives_per_passage: int | None = option(None, "a fixed number instead of the ratio")
    max_queries: int | None = option(
        None, "types asked of a passage at most, drawn at random; absent: every present one"
    )
    max_conversation_tokens: int = option(1024, "a longer conversation is continued in a second one (paper: 1024)")
    tokenizer: str | None = option(
        None, "student whose tokenizer and chat template count a conversation; absent: corpus.tokenizer"
    )
    max_entity_words: int = option(20, "longer spans are rejected")
    validation_one_in: int = option(10, "a passage is held out when SHA-256 of its id is 0 modulo this")
    seed: int = option(42, "seed of negatives and of the order of queries")

    def __post_init__(self) -> None:
        """Refuse what no dataset can be built with."""
        least = {
            "negative_ratio": 0, "negatives_per_passage": 0, "max_queries": 1, "max_conversation_tokens": 1,
            "max_entity_words": 1, "validation_one_in": 0,
        }  # fmt: skip
        for name, lowest in least.items():
            value = getattr(self, name)
            if value is not None and not lowest <= value < math.inf:
                raise UserError(f"dataset.{name} is {value}: it must be {lowest} or more")


@dataclass
class SupervisedConfig:
    """Human-annotated sets beside the distilled passages, or instead of them (paper, section 3.3)."""

    sets: list[str] = option(list, "recipes of sets: names under recipes/build/supervised/, or paths of .yaml files")
    data_dir: str = option(".", "folder the sets' paths start from")
    dataset_line: bool = option(True, "open with `Dataset: {name}`: the same word means different things in two sets")
    negatives: Literal["all", "none", "uniform", "frequency"] = option(
        "all", "absent types asked, only ever of the set's own labels: all of them, or some by the law"
    )
    negative_ratio: float = option(1.0, "absent types asked per present type, where not all are")
    negatives_per_passage: int | None = option(None, "a fixed number instead of the ratio")
    empty_ratio: float = option(
        0.5, "passages without any entity per passage with one, at most; 0 where they'd be asked nothing"
    )
    max_passages: int | None = option(10_000, "passages of a set at most, a seeded sample (paper: 10,000)")
    long_passages: Literal["window", "reject"] = option(
        "window", "what becomes of passages beyond corpus.max_tokens; windows cut no word and no mention"
    )
    mixture: dict[str, float] | None = option(
        None,
        "config `mixture`: relative sizes of `distilled` (the first of teacher.variants) and of sets by name; {}: "
        "everything; absent: no mixture",
    )


@dataclass
class ContaminationConfig:
    """What passages and types share with the benchmarks. Always in the card; removed only where it says so."""

    benchmarks: list[str] = option(list, "names under recipes/eval/benchmarks/, or paths of files with texts")
    data_dir: str = option(".", "folder the benchmarks' paths start from")
    passages: Literal["remove", "report"] = option(
        "remove", "passages that share an n-gram with a benchmark's text; removed before a teacher is paid for them"
    )
    types: Literal["remove", "report"] = option("report", "types that are a benchmark's label too")
    ngram: int = option(8, "words of an n-gram, in lower case and without punctuation")
    min_words: int = option(5, "shorter texts of a benchmark are not looked for: they occur anywhere")


@dataclass
class BuildConfig:
    """One YAML is one run."""

    corpus: CorpusConfig = option(CorpusConfig, "")
    output_dir: str = option("runs/my-dataset", "folder of passages, journal and, in dataset/, what goes to the Hub")
    dataset_dir: str | None = option(None, "folder of what goes to the Hub, where several are built of one journal")
    name: str = option("uniner-distill", "title of the dataset's card")
    license: str = option("other", "license of the dataset, as the Hub spells it")
    teacher: TeacherConfig = option(TeacherConfig, "")
    dataset: DatasetConfig = option(DatasetConfig, "")
    supervised: SupervisedConfig = option(SupervisedConfig, "")
    contamination: ContaminationConfig = option(ContaminationConfig, "")

    def __post_init__(self) -> None:
        """Refuse a recipe with nothing to build from."""
        if not self.corpus.named and not self.supervised.sets:
            raise UserError("nothing to build from: set corpus.path, corpus.sources or supervised.sets")
        if self.supervised.mixture is not None and not (self.corpus.named and self.supervised.sets):
            raise UserError("supervised.mixture mixes distilled passages with sets: set a corpus and sets, or drop it")
