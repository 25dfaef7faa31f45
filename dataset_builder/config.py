"""Every option of a build recipe, with its help. `python -m dataset_builder --help` prints this file's contents."""

from dataclasses import dataclass
from typing import Literal

from open_ner.cli import option

Variant = Literal["type", "definition"]


@dataclass
class CorpusConfig:
    """Where passages come from and how long they may be."""

    path: str = option("", "local .jsonl, .jsonl.gz, .parquet, .txt or folder, or the Hub id of a dataset")
    name: str | None = option(None, "the dataset's config, for a Hub id")
    split: str = option("train", "the dataset's split")
    text_column: str = option("text", "column that holds the document")
    id_column: str | None = option("id", "column that holds the document's id; where absent, the hash of the text")
    source_column: str | None = option("source", "column that names the document's origin")
    licence_column: str | None = option("licence", "column that names the document's licence")
    tokenizer: str = option("models/smollm2-135m-instruct", "folder or Hub id of the tokenizer that counts tokens")
    max_tokens: int = option(256, "longest passage, in tokens (paper: 256)")
    min_words: int = option(5, "passages with fewer words are dropped")
    limit: int | None = option(None, "stop after this many passages")


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
    max_entity_words: int = option(20, "longer spans are rejected")
    validation_one_in: int = option(10, "a passage is held out when SHA-256 of its id is 0 modulo this")
    seed: int = option(42, "seed of negatives and of the order of queries")


@dataclass
class AnnotatedSetConfig:
    """One human-annotated set: a file under recipes/build/supervised/."""

    name: str = option(..., "name of the set, as the line `Dataset: {name}` gives it")
    path: str = option(..., "file or glob below supervised.data_dir, or the Hub id of a dataset")
    format: Literal["offsets", "tags", "conll"] = option(
        ..., "offsets: text and entities; tags: columns of tokens and BIO, IOB, BIOES or bare tags; conll: a text file"
    )
    config: str | None = option(None, "the dataset's config, for a Hub id")
    split: str = option("train", "the dataset's split, for a Hub id")
    revision: str | None = option(None, "commit or tag, for a Hub id")
    id_column: str = option("id", "column with the id; where absent, the hash of the text")
    text_column: str = option("text", "offsets: column with the text")
    entities_column: str = option("entities", "offsets: column with a list of {start, end, type, text?}")
    tokens_column: str = option("tokens", "tags: column with the tokens")
    tags_column: str = option("ner_tags", "tags: column with the tags, strings or numbers")
    tag_names: list[str] = option(list, "names of numbered tags, where the dataset's features do not give them")
    tag_column: int = option(-1, "conll: column of the tag; 0 is the token, -1 the last")
    comment: str = option("", "conll: what a comment line starts with")
    verbalise: dict[str, str] = option(dict, "label -> the words the question uses; others keep their own name")
    complete: bool = option(False, "labels that are neither in verbalise, nor in drop, are unknown: left out, counted")
    drop: list[str] = option(list, "labels that are never asked, such as misc")
    types: list[str] | None = option(None, "the set's label set, in the question's words; absent: the labels it has")
    max_passages: int | None = option(None, "instead of supervised.max_passages")
    licence: str = option("", "what the source says of its licence")


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
        None, "config `mixture`: relative sizes of `distilled` and of sets by name; {}: everything; absent: no mixture"
    )


@dataclass
class ContaminationConfig:
    """What passages and types share with the benchmarks. Always in the card; removed only where it says so."""

    benchmarks: list[str] = option(list, "names under recipes/eval/benchmarks/, or paths of files with texts")
    data_dir: str = option(".", "folder the benchmarks' paths start from")
    passages: Literal["remove", "report"] = option("remove", "passages that share an n-gram with a benchmark's text")
    types: Literal["remove", "report"] = option("report", "types that are a benchmark's label too")
    ngram: int = option(8, "words of an n-gram, in lower case and without punctuation")
    min_words: int = option(5, "shorter texts of a benchmark are not looked for: they occur anywhere")


@dataclass
class BuildConfig:
    """One YAML is one run."""

    corpus: CorpusConfig = option(CorpusConfig, "")
    output_dir: str = option("runs/my-dataset", "folder of passages, journal and, in dataset/, what goes to the Hub")
    name: str = option("uniner-distill", "title of the dataset's card")
    licence: str = option("other", "licence of the dataset, as the Hub spells it")
    teacher: TeacherConfig = option(TeacherConfig, "")
    dataset: DatasetConfig = option(DatasetConfig, "")
    supervised: SupervisedConfig = option(SupervisedConfig, "")
    contamination: ContaminationConfig = option(ContaminationConfig, "")
