"""The options of a human-annotated set and of a benchmark: one YAML each."""

from dataclasses import dataclass
from typing import Any, Literal

from command_line.recipes import option


@dataclass
class SetConfig:
    """What a human-annotated set is and how its files are read, for the builder and for the evaluation alike."""

    name: str = option(..., "name of the set")
    path: str = option(..., "file or pattern below data_dir, or the Hub id of a dataset")
    format: Literal["offsets", "tags", "conll", "official", "conversations"] = option(
        ...,
        "offsets: text and entities; tags: columns of tokens and BIO, IOB, BIOES or bare tags; conll: a text file; "
        "only for benchmarks: official, the UniversalNER authors' JSON, and conversations, a dataset of this project",
    )
    config: str | None = option(None, "the dataset's config, for a Hub id")
    split: str = option("train", "the dataset's split, for a Hub id")
    data_files: str | None = option(None, "pattern of the files to read of a Hub dataset, instead of config and split")
    revision: str | None = option(None, "commit, tag or branch of a Hub dataset")
    id_column: str = option("id", "column with the id")
    text_column: str = option("text", "offsets: column with the text")
    entities_column: str | None = option(
        "entities", "offsets: column with a list of {start, end, type, text?}; null: texts without annotations"
    )
    tokens_column: str = option("tokens", "tags: column with the tokens; the text is the tokens joined by spaces")
    tags_column: str = option("ner_tags", "tags: column with the tags, strings or numbers")
    tag_names: list[str] = option(list, "names of numbered tags, where the dataset's features do not give them")
    token_column: int = option(0, "conll: column of the token, from 0")
    tag_column: int = option(-1, "conll: column of the tag, from 0; -1 is the last")
    comment: str = option("", "conll: what a comment line starts with")
    verbalize: dict[str, str] = option(dict, "label -> the words the query uses; other labels keep their own name")
    drop: list[str] = option(list, "labels that are not asked, such as misc")
    types: list[str] | None = option(
        None, "types asked of each passage, in the query's words; default: the row's, else all labels that occur"
    )
    license: str = option("", "what the source says of its license")


@dataclass
class AnnotatedSetConfig(SetConfig):
    """A set to train on: a file under recipes/build/supervised/. Its name is that of the line `Dataset: {name}`."""

    format: Literal["offsets", "tags", "conll"] = option(
        ..., "offsets: text and entities; tags: columns of tokens and BIO, IOB, BIOES or bare tags; conll: a text file"
    )
    complete: bool = option(False, "reject labels that are neither in verbalize nor in drop")
    max_passages: int | None = option(None, "instead of supervised.max_passages")


@dataclass
class BenchmarkConfig(SetConfig):
    """A set to evaluate on: a file under recipes/eval/benchmarks/."""

    split: str = option("test", "the dataset's split, for a Hub id")
    version: int = option(1, "raised when anything here changes a score")
    spans: str | None = option(None, "official: file with offsets of the same texts; null: no strict score")
    protocols: dict[str, dict[str, Any]] = option(dict, "options that another protocol changes, by its name")
    wordings: dict[str, list[str]] = option(dict, "other wordings of a type, for the paraphrase suite")
    domain: str = option("", "domain, as the paper groups them")
    verified_in: str = option("", "public page that names the Hub id, its splits and its labels")
