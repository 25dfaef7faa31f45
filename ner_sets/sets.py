"""Passages of human-annotated sets in the forms they come in: offsets, tag columns, CoNLL files.

Tokens are joined by single spaces, as such sets are usually released; they are not detokenized. Nothing is judged
here: a row that cannot be read comes out with its problem named, for the caller to count.
"""

import glob
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from open_ner.tools.errors import UserError

from .config import SetConfig
from .mentions import RawMention, decode_tags
from .rows import Row, read_conll, read_datasets, read_json_rows

FILE_SUFFIXES = (".jsonl", ".json", ".parquet", ".conll", ".bio", ".iob", ".txt", ".tsv", ".gz")


@dataclass
class SetPassage:
    """A passage as its set has it. `problem` names what made the row unreadable; `raw` then holds its content.

    `types` are those that the row itself asks, None where it names none.
    """

    id: str
    text: str = ""
    entities: list[RawMention] = field(default_factory=list)
    problem: str = ""
    raw: str = ""
    types: list[str] | None = None


def read_set(config: SetConfig, data_dir: str) -> Iterator[SetPassage]:
    """Passages of a set: local files below `data_dir`, else a dataset of the Hub. Raises UserError if unreadable."""
    pattern = str(Path(data_dir) / config.path)
    files = [Path(pattern)] if Path(pattern).is_file() else sorted(map(Path, glob.glob(pattern)))
    if not files and (config.path.endswith(FILE_SUFFIXES) or config.format == "conll"):
        raise UserError(f"{pattern}: no such file: set the path of {config.name}, or the data_dir it starts from")
    names = list(config.tag_names)
    if not files:
        rows, names = read_datasets(config, config.path, names)
        yield from _passages(config, config.path, rows, names)
    for file in files:
        if config.format == "conll":
            rows = read_conll(file, config)
        elif file.suffix == ".parquet":
            rows, names = read_datasets(config, str(file), names)
        else:
            rows = read_json_rows(file)
        yield from _passages(config, str(file), rows, names)


def _passages(config: SetConfig, source: str, rows: Iterable[Row], names: Sequence[str]) -> Iterator[SetPassage]:
    offsets = config.format == "offsets"
    columns = (config.text_column, config.entities_column) if offsets else (config.tokens_column, config.tags_column)
    for number, row in enumerate(rows, 1):
        for column in filter(None, columns):
            if column not in row:
                raise UserError(
                    f"{source}: row {number} has no column {column!r}, only {sorted(row)}: set the columns of "
                    f"{config.name}, or its format ({config.format})"
                )
        given = row.get(config.id_column)
        first, second = (row[column] if column else [] for column in columns)
        name = "" if given is None else str(given)
        passage = from_offsets(name, first, second) if offsets else from_tags(name, first, second, names)
        own = row.get("types")
        passage.types = own if isinstance(own, list) and all(isinstance(name, str) for name in own) else None
        yield passage


def from_offsets(name: str, text: Any, entities: Any) -> SetPassage:
    """A passage of a text and `{"start", "end", "type" or "label"}` objects.

    Problems: `text_is_no_string`, `entity_without_offsets`.
    """
    if not isinstance(text, str):
        return SetPassage(name, problem="text_is_no_string", raw=repr(text))
    if isinstance(entities, dict) and all(isinstance(values, list) for values in entities.values()):
        # older datasets keep a list of objects as an object of lists
        entities = [dict(zip(entities, values, strict=True)) for values in zip(*entities.values(), strict=False)]
    mentions: list[RawMention] = []
    for entity in entities if isinstance(entities, list) else [entities]:
        kind = entity.get("type", entity.get("label")) if isinstance(entity, dict) else None
        places = [entity.get("start"), entity.get("end")] if isinstance(entity, dict) else []
        if not isinstance(kind, str) or len(places) != 2 or not all(type(place) is int for place in places):
            return SetPassage(name, text, problem="entity_without_offsets", raw=repr(entity))
        mention: RawMention = {"start": places[0], "end": places[1], "type": kind}
        if isinstance(entity.get("text"), str):
            mention["text"] = entity["text"]
        mentions.append(mention)
    return SetPassage(name, text, mentions)


def from_tags(name: str, tokens: Any, tags: Any, names: Sequence[str] = ()) -> SetPassage:
    """A passage of tokens and their tags, strings or indices into `names`.

    Problems: `tokens_are_no_strings`, `tags_do_not_match_tokens`, `tag_without_name`.
    """
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        return SetPassage(name, problem="tokens_are_no_strings", raw=repr(tokens))
    text = " ".join(tokens)
    if not isinstance(tags, list) or len(tags) != len(tokens):
        return SetPassage(name, text, problem="tags_do_not_match_tokens", raw=repr(tags))
    spelled = [names[tag] if type(tag) is int and 0 <= tag < len(names) else tag for tag in tags]
    if not all(isinstance(tag, str) for tag in spelled):
        return SetPassage(name, text, problem="tag_without_name", raw=repr(tags))
    starts = [0]
    for token in tokens:
        starts.append(starts[-1] + len(token) + 1)
    entities: list[RawMention] = [
        {"start": starts[first], "end": starts[last] + len(tokens[last]), "type": label}
        for first, last, label in decode_tags(spelled)
    ]
    return SetPassage(name, text, entities)
