"""Passages of human-annotated sets in the forms they come in: offsets, tag columns, CoNLL files.

Tokens are joined by single spaces, as such sets are usually released; they are not detokenized. Nothing is judged
here: a row that cannot be read is returned with the problem named, and the caller counts it.
"""

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from open_ner.tools.errors import UserError

from .config import SetConfig
from .mentions import PLAIN, RawMention, Shape, decode_tags, tag_shape
from .rows import Source, open_rows

FILE_SUFFIXES = (".jsonl", ".json", ".parquet", ".conll", ".bio", ".iob", ".txt", ".tsv", ".gz", ".bz2", ".xz", ".zst")


@dataclass
class SetPassage:
    """A passage as its set has it, not checked yet."""

    id: str  # empty if the set gives none
    text: str = ""
    entities: list[RawMention] = field(default_factory=list)
    problem: str = ""  # what made the row unreadable; empty if it could be read
    raw: str = ""  # the content of an unreadable row
    types: list[str] | None = None  # the types that the row itself asks; None if it names none


def read_set(config: SetConfig, data_dir: str) -> Iterator[SetPassage]:
    """Passages of a set: local files below `data_dir`, else a dataset of the Hub. Raises UserError if unreadable."""
    pattern = str(Path(data_dir) / config.path)
    files = [Path(pattern)] if Path(pattern).is_file() else sorted(map(Path, glob.glob(pattern)))
    if not files and (config.path.endswith(FILE_SUFFIXES) or config.format == "conll"):
        raise UserError(f"{pattern}: no such file: set the path of {config.name}, or the data_dir it starts from")
    sources = [open_rows(config, file) for file in files or [config.path]]
    shape = None
    if config.format != "offsets":  # all rows are read, unless the names of the set's tags are known
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
        for column in filter(None, columns):
            if column not in row:
                raise UserError(
                    f"{source.name}: row {number} has no column {column!r}, only {sorted(row)}: set the columns of "
                    f"{config.name}, or its format ({config.format})"
                )
        given, own = row.get(config.id_column), row.get("types")
        first, second = (row[column] if column else [] for column in columns)
        name, numbered = "" if given is None else str(given), (source.tag_names, shape)
        passage = from_offsets(name, first, second) if offsets else from_tags(name, first, second, *numbered)
        passage.types = own if isinstance(own, list) and all(isinstance(one, str) for one in own) else None
        yield passage


def from_offsets(name: str, text: object, entities: object) -> SetPassage:
    """A passage of a text and `{"start", "end", "type" or "label", "text"?}` objects, as a file has them.

    Problems: `text_is_no_string`, `entity_without_offsets`.
    """
    if not isinstance(text, str):
        return SetPassage(name, problem="text_is_no_string", raw=repr(text))
    if isinstance(entities, dict) and all(isinstance(values, list) for values in entities.values()):
        # older datasets store a list of objects as an object of lists
        entities = [dict(zip(entities, values, strict=True)) for values in zip(*entities.values(), strict=False)]
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
    """A passage of tokens and their tags, which are strings or indices into `names`.

    Problems: `tokens_are_no_strings`, `tags_do_not_match_tokens`, `tag_without_name`.
    """
    words = [token for token in tokens if isinstance(token, str)] if isinstance(tokens, list) else []
    if not isinstance(tokens, list) or len(words) != len(tokens):
        return SetPassage(name, problem="tokens_are_no_strings", raw=repr(tokens))
    text = " ".join(words)
    if not isinstance(tags, list) or len(tags) != len(words):
        return SetPassage(name, text, problem="tags_do_not_match_tokens", raw=repr(tags))
    spelled = [names[tag] if type(tag) is int and 0 <= tag < len(names) else tag for tag in tags]
    labels = [tag for tag in spelled if isinstance(tag, str)]
    if len(labels) != len(spelled):
        return SetPassage(name, text, problem="tag_without_name", raw=repr(tags))
    starts = [0]
    for word in words:
        starts.append(starts[-1] + len(word) + 1)
    entities: list[RawMention] = [
        {"start": starts[first], "end": starts[last] + len(words[last]), "type": label}
        for first, last, label in decode_tags(labels, shape)
    ]
    return SetPassage(name, text, entities)
