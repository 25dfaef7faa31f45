"""The options of a human-annotated set and of a benchmark: one YAML file each."""

from dataclasses import dataclass
from typing import Any, Literal

from command_line.recipes import option


@dataclass
class SetConfig:
    """How the files of a human-annotated set are read, by the builder and by the evaluation."""

    name: str = option(..., "name of the set")
    path: str = option(..., "file or glob pattern in data_dir, or the Hub id of a dataset")
    format: Literal["offsets", "tags", "conll", "official", "conversations"] = option(
        ...,
        "offsets: text and entities; tags: columns of tokens and of BIO, IOB, BIOES or bare tags; conll: a text file; "
        "for benchmarks also official: JSON of the UniversalNER authors, and conversations: a dataset of this project",
    )
    config: str | None = option(None, "Hub: the dataset's config")
    split: str = option("train", "Hub: the dataset's split")
    data_files: str | None = option(None, "Hub: pattern of the files to read, instead of config and split")
    revision: str | None = option(None, "Hub: commit, tag or branch")
    id_column: str = option("id", "column with the id")
    text_column: str = option("text", "offsets: column with the text")
    entities_column: str | None = option(
        "entities", "offsets: column with a list of {start, end, type, text?}; null if the texts are not annotated"
    )
    tokens_column: str = option("tokens", "tags: column with the tokens; the text is the tokens joined by spaces")
    tags_column: str = option("ner_tags", "tags: column with the tags, strings or numbers")
    tag_names: list[str] = option(list, "names of numbered tags; default: those in the dataset's features")
    token_column: int = option(0, "conll: column of the token, from 0; -1 is the last")
    tag_column: int = option(-1, "conll: column of the tag, from 0; -1 is the last")
    comment: str = option("", "conll: first characters of a comment line")
    verbalize: dict[str, str] = option(dict, "label -> its words in a query; default: the label itself")
    drop: list[str] = option(list, "labels that are not asked, such as misc")
    types: list[str] | None = option(
        None,
        "types asked of each passage, in the words of the query; default: the labels of its row, or of the set, "
        "as `verbalize` words them; official and conversations: those of the queries in the file, default: all",
    )
    license: str = option("", "license that the source states")


@dataclass
class AnnotatedSetConfig(SetConfig):
    """A set to train on: a file under recipes/build/supervised/. The line `Dataset: {name}` shows its name."""

    format: Literal["offsets", "tags", "conll"] = option(
        ...,
        "offsets: text and entities; tags: columns of tokens and of BIO, IOB, BIOES or bare tags; conll: a text file",
    )
    complete: bool = option(False, "reject labels that are neither in verbalize nor in drop")
    max_passages: int | None = option(None, "replaces supervised.max_passages for this set")
    closed: bool = option(
        False, "the column `types` of a row lists what it was annotated with: ask these types and no others"
    )
    duplicates: Literal["reject", "keep"] = option(
        "reject", "passages whose text occurred before; keep is for evaluation sets"
    )
    source_column: str | None = option(None, "column with the source of a passage; default: the name of the set")
    license_column: str | None = option(None, "column with the license of a passage; default: by its source")
    licenses: dict[str, str] = option(dict, "source -> license, for passages without one; default: license")


@dataclass
class BenchmarkConfig(SetConfig):
    """A set to evaluate on: a file under recipes/eval/benchmarks/."""

    split: str = option("test", "Hub: the dataset's split")
    version: int = option(1, "to be increased with every change to this file that changes scores")
    spans: str | None = option(None, "official: file with the offsets of the same texts; null: no strict score")
    protocols: dict[str, dict[str, Any]] = option(dict, "protocol -> options that the protocol overrides")
    wordings: dict[str, list[str]] = option(dict, "type -> other wordings, for the paraphrase suite")
    domain: str = option("", "domain, as grouped in the paper")
    dataset: str = option("", "name in the line `Dataset:` of the dialogue, for students trained on that set")
    made_by: Literal["", "blank", "corrected"] = option(
        "", "how people made the gold: blank without spans in view, corrected from those of a model"
    )
    corrected_from: str = option("", "corrected: the model whose spans were in view, which the gold favors")
    verified_in: str = option("", "public page that confirms the Hub id, its splits and its labels")
