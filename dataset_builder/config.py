"""The options of a build recipe, with the help that `python -m dataset_builder --help` prints."""

import unicodedata
from dataclasses import dataclass
from typing import Any, Literal, get_args

from command_line.recipes import option, require_at_least
from open_ner.conversation import LONE_SURROGATE
from open_ner.tools.errors import UserError

from .languages import check_language

Variant = Literal["type", "definition", "closed"]
Overlaps = Literal["flat", "nested"]
Law = Literal["none", "uniform", "frequency", "source", "all"]  # how absent types are drawn
ENGLISH = "English"
MAX_TYPE_NAME = 100  # maximum characters of a type in `teacher.types`; a longer text is a definition


@dataclass
class SourceConfig:
    """One source of documents."""

    path: str | None = option(None, "JSONL, Parquet, text or CSV file (also .gz, .zst), folder, glob pattern, Hub id")
    name: str | None = option(None, "config of a dataset with several configs")
    split: str = option("train", "split of the dataset")
    revision: str | None = option(None, "branch, tag or commit of a Hub dataset; default: the latest commit")
    data_files: str | None = option(None, "glob pattern of the files to read from a folder or Hub dataset")
    text_column: str = option("text", "column with the text; in all column options, a.b is field b of column a")
    id_column: str | None = option("id", "column with the document's id; without an id, the hash of the text is used")
    source_column: str | None = option("source", "column with the origin of the document")
    license_column: str | None = option("license", "column with the license of the document")
    source: str = option("", "origin of documents without a value in source_column")
    license: str = option("", "license of documents without a value in license_column")
    sample_by: Literal["line", "paragraph", "document"] = option("document", "unit of a text file that is a document")
    weight: float | None = option(None, "relative share of this source in the sample")


@dataclass
class CorpusConfig(SourceConfig):
    """Where passages come from, how long they are, and which ones are kept."""

    sources: list[SourceConfig] | None = option(None, "several sources, instead of path")
    tokenizer: str = option("models/smollm2-135m-instruct", "tokenizer that measures passages, a folder or Hub id")
    max_tokens: int = option(256, "maximum length of a passage in tokens (paper: 256)")
    sample: int | None = option(None, "random sample of this many passages (paper: 50000); default: all")
    limit: int | None = option(None, "stop after this many passages, for a quick test")
    seed: int = option(42, "seed of the sample and of the shuffle")
    max_documents: int | None = option(None, "maximum number of documents to read per source; default: all")
    shuffle_buffer: int = option(0, "documents in the shuffle buffer, used with max_documents; 0 disables it")
    min_words: int = option(5, "reject passages with fewer words")
    language: str | None = option(
        "en", "ISO 639 code: reject passages confidently detected as another language, and entities in another script "
        "that is not Latin; null disables both"
    )  # fmt: skip
    max_markup: float | None = option(0.6, "reject passages with a larger share of markup characters; null disables")
    near_duplicates: float | None = option(0.7, "reject near duplicates, from this Jaccard index on; null disables")
    num_proc: int | None = option(
        None, "processes that make the passages; default: one for each core if local files of at least 10 MB are read "
        "to their end, otherwise a single one"
    )  # fmt: skip
    skip_broken_lines: bool = option(False, "reject and count unreadable lines of JSONL and CSV, instead of stopping")

    def __post_init__(self) -> None:
        """Raise UserError for a value out of range, or a language that cannot be detected."""
        least = dict.fromkeys(("sample", "limit", "max_documents", "max_tokens", "num_proc"), 1)
        require_at_least("corpus", self, least | {"shuffle_buffer": 0, "min_words": 0, "max_markup": 0})
        if self.language is not None:
            check_language(self.language)

    @property
    def named(self) -> bool:
        """Whether the recipe has a corpus, and not only human-annotated sets."""
        return bool(self.path or self.sources)


@dataclass
class TeacherConfig:
    """The model that annotates. Its API key comes from the environment, never from a recipe."""

    base_url: str | None = option(None, "OpenAI-compatible endpoint; default: that of the openai package")
    model: str | None = option(None, "name of the model at the endpoint; default: use recorded replies only")
    api_key_env: str = option("OPENAI_API_KEY", "environment variable with the API key")
    types: list[Any] | dict[Any, Any] = option(
        dict, "closed world: the only types to ask, a list of names or {name: definition}; default: the teacher's own"
    )
    guidelines: str | None = option(None, "with types: text file of annotation guidelines, part of the prompt")
    examples: str | None = option(
        None, "with types: JSONL file of a few annotated passages for the prompt: text, entities: [{start, end, type}]"
    )
    overlaps: Overlaps = option("flat", "with types: nested keeps entities that overlap; flat keeps the longest")
    variants: list[Variant] = option(
        list, "prompts to use: type and definition, or closed; default: closed with types, otherwise type"
    )
    type_language: str | None = option(
        None, "language in which the prompts ask for types and definitions, such as Korean; default: English"
    )
    prompts: dict[str, str] = option(dict, "files of custom prompts, by variant")
    response_format: Literal["text", "json_schema"] = option("text", "json_schema if the endpoint supports it")
    recorded: str | dict[str, str] | None = option(None, "file of recorded replies, or one file per variant")
    recorded_by: str = option("recorded answers", "author of the recorded replies, for the card")
    temperature: float = option(0.0, "sampling temperature (paper: 0)")
    max_answer_tokens: int = option(1024, "maximum length of a reply in tokens")
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
    max_cost: float | None = option(
        None, "budget in dollars for all commands of the run's folder; never exceeded, counting requests in flight"
    )

    def __post_init__(self) -> None:
        """Raise UserError for a value out of range, or for options that need another one."""
        if self.types == []:
            raise UserError("teacher.types is an empty list: name the types to ask, or write {} to ask for any type")
        self.types = read_definitions(self.types)
        self.variants = list(dict.fromkeys(self.variants)) or (["closed"] if self.types else ["type"])
        if "closed" in self.variants and not self.types:
            raise UserError("teacher.variants: closed needs teacher.types: set the types, or remove closed")
        if self.types and self.variants != ["closed"]:
            others = ", ".join(name for name in self.variants if name != "closed")
            raise UserError(f"teacher.variants: {others} cannot be used with teacher.types: remove one of the two")
        closed = {"guidelines": self.guidelines, "examples": self.examples, "overlaps": self.overlaps != "flat"}
        if not self.types and (given := [name for name, value in closed.items() if value]):
            raise UserError(f"teacher.{given[0]} needs teacher.types: set the types to ask, or remove it")
        language = self.type_language
        if language is not None and not (language.isprintable() and 0 < len(language.strip()) <= MAX_TYPE_NAME):
            why = "name the language in which types are asked, such as English or Korean"
            raise UserError(f"teacher.type_language {language[:MAX_TYPE_NAME]!r}: {why}")
        if language and language.strip().casefold() == ENGLISH.casefold():
            self.type_language = ENGLISH  # the rules for English types compare with this spelling
        if self.types and language:
            why = "whose names are asked as they are: remove it"
            raise UserError(f"teacher.type_language has no effect with teacher.types, {why}")
        named = [*self.prompts, *(self.recorded if isinstance(self.recorded, dict) else ())]
        if unknown := [name for name in named if name not in get_args(Variant)]:
            raise UserError(f"{unknown[0]!r} is not a variant: name files by {', '.join(get_args(Variant))}")
        if unused := [name for name in self.prompts if name not in self.variants]:
            known = ", ".join(self.variants)
            raise UserError(f"teacher.prompts: {unused[0]} is not one of the variants {known}: rename or remove it")
        least = {"price_input": 0, "price_output": 0, "max_cost": 0, "max_retries": 0, "batch_poll_seconds": 0}
        least |= {"concurrency": 1, "timeout": 1e-3, "requests_per_minute": 1e-3, "tokens_per_minute": 1e-3}
        require_at_least("teacher", self, least)
        if self.max_cost is not None and not self.price_input and not self.price_output:
            raise UserError("max_cost needs prices: set price_input and price_output, dollars per million tokens")

    @property
    def definitions(self) -> dict[str, str]:
        """The types of the closed world with their definitions, which may be empty; empty in an open world."""
        return self.types if isinstance(self.types, dict) else {}


@dataclass
class DatasetConfig:
    """How annotations become conversations."""

    negatives: Law | None = option(
        None,
        "how to draw absent types: by frequency (paper, default), the same among the types of the passage's source "
        "(source), uniform, or none; with teacher.types: all",
    )
    negative_ratio: float = option(1.0, "absent types to ask per present type")
    negatives_per_passage: int | None = option(None, "absent types to ask per passage; replaces negative_ratio")
    max_queries: int | None = option(None, "maximum number of types to ask per distilled passage, chosen at random")
    draws: int = option(1, "conversations per passage of the training split, each with its own random choices")
    max_conversation_tokens: int = option(1024, "split conversations with more tokens (paper: 1024)")
    tokenizer: str | None = option(None, "student whose tokenizer measures conversations; default: corpus.tokenizer")
    max_entity_words: int = option(20, "reject mentions with more words")
    validation_one_in: int = option(10, "hold out one in this many passages for validation, by id; 0: none, 1: all")
    seed: int = option(42, "seed of the absent types and of the order of queries")

    def __post_init__(self) -> None:
        """Raise UserError for a value out of range."""
        least: dict[str, float] = dict.fromkeys(("negative_ratio", "negatives_per_passage", "validation_one_in"), 0)
        least |= dict.fromkeys(("max_queries", "draws", "max_conversation_tokens", "max_entity_words"), 1)
        require_at_least("dataset", self, least)


def numbers_of_absent_types(options: "DatasetConfig | SupervisedConfig") -> list[str]:
    """Return the names of the given options that say how many absent types to ask."""
    defaults = {"negative_ratio": 1.0, "negatives_per_passage": None}
    return [name for name, default in defaults.items() if getattr(options, name) != default]


@dataclass
class SupervisedConfig:
    """Human-annotated sets, in addition to distilled passages or without them (paper, section 3.3)."""

    sets: list[str] = option(list, "human-annotated sets: names under recipes/build/supervised/, or YAML files")
    data_dir: str = option(".", "folder that the paths of sets are relative to; ./ is the folder of their YAML")
    dataset_line: bool = option(True, "begin each conversation with the line `Dataset: {name of the set}`")
    negatives: Law = option("all", "absent types of the set to ask: all, or as in dataset.negatives")
    negative_ratio: float = option(1.0, "absent types to ask per present type, unless negatives is all or none")
    negatives_per_passage: int | None = option(None, "absent types to ask per passage; replaces negative_ratio")
    empty_ratio: float | None = option(0.5, "most passages without mentions per passage with mentions; null keeps all")
    max_passages: int | None = option(10_000, "random sample of this many passages per set (paper: 10,000)")
    long_passages: Literal["window", "reject"] = option("window", "window cuts passages above corpus.max_tokens")
    mixture: dict[str, float] | None = option(
        None, "relative sizes in config `mixture` of `distilled` (the first variant) and sets, by name; {} uses all"
    )

    def __post_init__(self) -> None:
        """Raise UserError for a value out of range, or for a number of absent types that are not drawn."""
        names = ("negative_ratio", "negatives_per_passage", "empty_ratio", "max_passages")
        require_at_least("supervised", self, dict.fromkeys(names, 0))
        if self.negatives in ("all", "none") and (given := numbers_of_absent_types(self)):
            how = "set that to frequency, source or uniform, or remove it"
            raise UserError(f"supervised.{given[0]} has no effect with supervised.negatives: {self.negatives}: {how}")


@dataclass
class ContaminationConfig:
    """Overlap of passages and types with benchmarks. The card always reports it; `remove` also rejects it."""

    benchmarks: list[str] = option(list, "benchmarks: names under recipes/eval/benchmarks/, or files with texts")
    data_dir: str = option(".", "folder that the paths of benchmarks are relative to")
    passages: Literal["remove", "report"] = option("remove", "remove or report passages that overlap a benchmark")
    types: Literal["remove", "report"] = option("report", "remove or report mentions whose type a benchmark asks")
    ngram: int = option(8, "words per n-gram; case and punctuation are ignored")
    min_words: int = option(5, "ignore benchmark texts with fewer words, because they match by chance")


@dataclass
class BuildConfig:
    """A build recipe: one YAML file is one run."""

    corpus: CorpusConfig = option(CorpusConfig, "")
    output_dir: str = option("runs/my-dataset", "folder of the run: passages, journal, and the dataset in dataset/")
    dataset_dir: str | None = option(None, "folder of the dataset, to build several from one journal")
    name: str = option("uniner-distill", "title of the dataset card")
    license: str = option("other", "license of the dataset, an identifier of the Hub")
    teacher: TeacherConfig = option(TeacherConfig, "")
    dataset: DatasetConfig = option(DatasetConfig, "")
    supervised: SupervisedConfig = option(SupervisedConfig, "")
    contamination: ContaminationConfig = option(ContaminationConfig, "")

    def __post_init__(self) -> None:
        """Raise UserError for a recipe without data, or for a mixture without two kinds of data."""
        if not self.corpus.named and not self.supervised.sets:
            raise UserError("nothing to build from: set corpus.path, corpus.sources or supervised.sets")
        if self.supervised.mixture is not None and not (self.corpus.named and self.supervised.sets):
            raise UserError("supervised.mixture needs distilled passages and sets: set corpus and sets, or remove it")
        closed, data = bool(self.teacher.definitions), self.dataset
        if self.teacher.type_language in (None, ENGLISH):  # English passages need no language in the prompt
            english = closed or self.corpus.language in (None, "en")
            self.teacher.type_language = None if english else ENGLISH
        given = ["negatives"] if data.negatives not in (None, "all") else []
        given += numbers_of_absent_types(data)
        if not self.corpus.named and (given or data.max_queries):
            how = "remove it; the absent types of sets are chosen by supervised.negatives"
            name = given[0] if given else "max_queries"
            raise UserError(f"dataset.{name} has no effect on human-annotated sets, and there is no corpus: {how}")
        if data.negatives == "all" and not closed:
            raise UserError("dataset.negatives: all needs teacher.types: set the types to ask, or another value")
        if closed and self.contamination.benchmarks and self.contamination.types == "remove":
            why = "would turn entities into negatives: remove the types of benchmarks from teacher.types instead"
            raise UserError(f"contamination.types: remove cannot be used with teacher.types, because it {why}")
        if closed and given:
            why = "asks all of its types of each passage: remove it; dataset.max_queries limits the number"
            raise UserError(f"dataset.{given[0]} cannot be used with teacher.types, which {why}")
        data.negatives = data.negatives or ("all" if closed else "frequency")


def type_key(name: str) -> str:
    """Return the key of a type in a closed world; spellings that differ only in case have the same key."""
    return unicodedata.normalize("NFC", name).strip().casefold()


def read_definitions(types: list[Any] | dict[Any, Any]) -> dict[str, str]:
    """Return the definitions of `teacher.types` by name; a type without a definition has an empty one.

    Raises UserError for a type that is empty, too long, not a text, or named twice.
    """
    pairs = types.items() if isinstance(types, dict) else [(name, None) for name in types]
    definitions: dict[str, str] = {}
    spelled: dict[str, str] = {}
    for given, explained in pairs:
        name, definition = (" ".join(part.split()) if isinstance(part, str) else part for part in (given, explained))
        if not isinstance(name, str) or not isinstance(definition, str | None):
            wrong = name if not isinstance(name, str) else definition
            form = 'write a list of names or a mapping {name: definition}, and quote names such as "no" or "1984"'
            raise UserError(f"teacher.types: {wrong!r} is not a text: {form}")
        if not name:
            raise UserError("teacher.types: a type is empty: give it a name, or remove it")
        if len(name) > MAX_TYPE_NAME:
            what = f"{name[:40]!r}... has {len(name)} characters, more than {MAX_TYPE_NAME}"
            raise UserError(f"teacher.types: {what}: give the type a short name, as in {{name: definition}}")
        if LONE_SURROGATE.search(name + (definition or "")):
            raise UserError(f"teacher.types: {name!r} is not valid Unicode: write its characters as they are")
        if (other := spelled.setdefault(type_key(name), name)) != name or name in definitions:
            raise UserError(f"teacher.types: {name!r} and {other!r} are the same type: remove one of them")
        definitions[name] = definition or ""
    return definitions
