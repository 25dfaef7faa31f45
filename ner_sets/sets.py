"""Read the passages of human-annotated sets in their formats: offsets, tag columns, CoNLL files.

Tokens are joined by single spaces, as such sets are usually released; they are not detokenized. A row that cannot be
read is returned with its problem, so that the caller can count and report the reject.
"""

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from open_ner.tools.errors import UserError

from .config import SetConfig
from .mentions import PLAIN, RawMention, Shape, decode_tags, tag_shape
from .rows import Row, Source, open_rows

# problems of a row: its text cannot be read, or only its annotations
WITHOUT_TEXT = ("text_is_not_a_string", "tokens_are_not_strings")
WITHOUT_ANNOTATIONS = ("entity_without_offsets", "tags_do_not_match_tokens", "tag_without_name")
FILE_SUFFIXES = (".jsonl", ".json", ".parquet", ".conll", ".bio", ".iob", ".txt", ".tsv", ".gz", ".bz2", ".xz", ".zst")


@dataclass
class SetPassage:
    """A passage as in its set, not checked."""

    id: str  # empty if the set has no ids
    text: str = ""
    entities: list[RawMention] = field(default_factory=list)
    problem: str = ""  # why the row cannot be read, or empty
    raw: str = ""  # content of a row that cannot be read
    types: list[str] | None = None  # types that the row itself lists
    row: Row = field(default_factory=dict)  # as in the file


def files_of(config: SetConfig, data_dir: str) -> list[Path]:
    """Return the files of a set in `data_dir`, none for a dataset of the Hub. Raises UserError if they are missing."""
    pattern = str(Path(data_dir) / config.path)
    files = [Path(pattern)] if Path(pattern).is_file() else sorted(map(Path, glob.glob(pattern)))
    if not files and (config.path.endswith(FILE_SUFFIXES) or config.format == "conll"):
        raise UserError(f"{pattern}: no such file: set the path of {config.name}, or the data_dir above it")
    return files


def read_set(config: SetConfig, data_dir: str) -> Iterator[SetPassage]:
    """Yield the passages of a set: from its files in `data_dir`, or from the Hub if there are none.

    Raises UserError if the set cannot be read.
    """
    files = files_of(config, data_dir)
    sources = [open_rows(config, file) for file in files or [config.path]]
    shape = None
    if config.format != "offsets":  # the shape depends on all tags of the set
        tags = {name for source in sources for name in source.tag_names}
        for source in sources:
            columns = [] if source.tag_names else (row.get(config.tags_column) for row in source.rows())
            tags.update(tag for own in columns if isinstance(own, list) for tag in own if isinstance(tag, str))
        try:
            shape = tag_shape(tags)
        except ValueError as error:
            raise UserError(f"set {config.name}: {error}: set the columns, or tag_names") from None
    for source in sources:
        yield from _read_rows(config, source, shape)


def _read_rows(config: SetConfig, source: Source, shape: Shape) -> Iterator[SetPassage]:
    offsets = config.format == "offsets"
    columns = (config.text_column, config.entities_column) if offsets else (config.tokens_column, config.tags_column)
    for number, row in enumerate(source.rows(), 1):
        if missing := [column for column in columns if column and column not in row]:
            raise UserError(
                f"{source.name}: row {number} has no column {missing[0]!r}, only {sorted(row)}: set the columns of "
                f"{config.name}, or its format ({config.format})"
            )
        given, types = row.get(config.id_column), row.get("types")
        name, values = "" if given is None else str(given), [row[column] if column else [] for column in columns]
        passage = (
            from_offsets(name, *values) if offsets else from_tags(name, *values, names=source.tag_names, shape=shape)
        )
        if isinstance(types, list) and all(isinstance(kind, str) for kind in types):
            passage.types = types
        passage.row = row
        yield passage


def from_offsets(name: str, text: object, entities: object) -> SetPassage:
    """Return the passage of a text and its `{"start", "end", "type" or "label", "text"?}` objects.

    Problems: `text_is_not_a_string`, `entity_without_offsets`.
    """
    if not isinstance(text, str):
        return SetPassage(name, problem="text_is_not_a_string", raw=repr(text))
    if isinstance(entities, dict) and all(isinstance(values, list) for values in entities.values()):
        # older datasets store a list of objects as an object of lists
        if len({len(values) for values in entities.values()}) > 1:
            return SetPassage(name, text, problem="entity_without_offsets", raw=repr(entities))
        entities = [dict(zip(entities, values, strict=True)) for values in zip(*entities.values(), strict=True)]
    mentions: list[RawMention] = []
    for entity in entities if isinstance(entities, list) else [entities]:
        given = entity if isinstance(entity, dict) else {}
        start, end, kind = given.get("start"), given.get("end"), given.get("type", given.get("label"))
        if type(start) is not int or type(end) is not int or not isinstance(kind, str):
            return SetPassage(name, text, problem="entity_without_offsets", raw=repr(entity))
        mention: RawMention = {"start": start, "end": end, "type": kind}
        if isinstance(given.get("text"), str):
            mention["text"] = given["text"]
        mentions.append(mention)
    return SetPassage(name, text, mentions)


def from_tags(name: str, tokens: object, tags: object, names: Sequence[str] = (), shape: Shape = PLAIN) -> SetPassage:
    """Return the passage of tokens and their tags, which are strings or indices into `names`.

    Problems: `tokens_are_not_strings`, `tags_do_not_match_tokens`, `tag_without_name`.
    """
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        return SetPassage(name, problem="tokens_are_not_strings", raw=repr(tokens))
    text = " ".join(tokens)
    if not isinstance(tags, list) or len(tags) != len(tokens):
        return SetPassage(name, text, problem="tags_do_not_match_tokens", raw=repr(tags))
    spelled = [names[tag] if type(tag) is int and 0 <= tag < len(names) else tag for tag in tags]
    labels = [tag for tag in spelled if isinstance(tag, str)]
    if len(labels) != len(tags):
        return SetPassage(name, text, problem="tag_without_name", raw=repr(tags))
    starts = [0]
    for token in tokens:
        starts.append(starts[-1] + len(token) + 1)
    entities: list[RawMention] = [
        {"start": starts[first], "end": starts[last] + len(tokens[last]), "type": label}
        for first, last, label in decode_tags(labels, shape)
    ]
    return SetPassage(name, text, entities)
