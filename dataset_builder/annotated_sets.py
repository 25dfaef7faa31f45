"""Human-annotated NER sets in the forms they come in, one passage after the other: offsets, tag columns, CoNLL files.

Tokens are joined by single spaces, as such sets are usually released; they are not detokenised. Nothing is judged
here: what cannot be read comes out with its problem named, for the caller to count.
"""

import glob
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from open_ner.cli import UserError

from .config import AnnotatedSetConfig

FILE_SUFFIXES = (".jsonl", ".json", ".parquet", ".conll", ".bio", ".iob", ".txt", ".tsv", ".gz")
BEGINS, ENDS = frozenset("BSU"), frozenset("ESLU")  # of BIO, BIOES and BILOU


@dataclass
class RawPassage:
    """A passage as its set has it. `entities` are `{"start", "end", "type", "text"?}`, not checked yet.

    `problem` names what made the row unreadable; `raw` then holds what it held.
    """

    id: str
    text: str = ""
    entities: list[dict[str, Any]] = field(default_factory=list)
    problem: str = ""
    raw: str = ""


def read_set(config: AnnotatedSetConfig, data_dir: str) -> Iterator[RawPassage]:
    """Passages of a set: local files below `data_dir`, else a dataset of the Hub. Raises UserError if unreadable."""
    pattern = str(Path(data_dir) / config.path)
    files = [Path(pattern)] if Path(pattern).is_file() else sorted(map(Path, glob.glob(pattern)))
    if not files and (config.path.endswith(FILE_SUFFIXES) or config.format == "conll"):
        raise UserError(f"{pattern}: no such file: set the path of {config.name}, or supervised.data_dir")
    names = list(config.tag_names)
    if not files:
        rows, names = _read_datasets(config, config.path, names)
        yield from _passages(config, config.path, rows, names)
    for file in files:
        if config.format == "conll":
            rows = _read_conll(file, config)
        elif file.suffix == ".parquet":
            rows, names = _read_datasets(config, str(file), names)
        else:
            rows = read_json_rows(file)
        yield from _passages(config, str(file), rows, names)


def _passages(
    config: AnnotatedSetConfig, source: str, rows: Iterable[dict[str, Any]], names: Sequence[str]
) -> Iterator[RawPassage]:
    offsets = config.format == "offsets"
    columns = (config.text_column, config.entities_column) if offsets else (config.tokens_column, config.tags_column)
    for number, row in enumerate(rows, 1):
        for column in columns:
            if column not in row:
                raise UserError(
                    f"{source}: row {number} has no column {column!r}, only {sorted(row)}: set the columns of "
                    f"{config.name}, or its format ({config.format})"
                )
        given = row.get(config.id_column)
        first, second = (row[column] for column in columns)
        name = "" if given is None else str(given)
        yield from_offsets(name, first, second) if offsets else from_tags(name, first, second, names)


def from_offsets(name: str, text: Any, entities: Any) -> RawPassage:
    """A passage of a text and `{"start", "end", "type" or "label"}` objects.

    Problems: `text_is_no_string`, `entity_without_offsets`.
    """
    if not isinstance(text, str):
        return RawPassage(name, problem="text_is_no_string", raw=repr(text))
    if isinstance(entities, dict) and all(isinstance(values, list) for values in entities.values()):
        # older datasets keep a list of objects as an object of lists
        entities = [dict(zip(entities, values, strict=True)) for values in zip(*entities.values(), strict=False)]
    mentions = []
    for entity in entities if isinstance(entities, list) else [entities]:
        kind = entity.get("type", entity.get("label")) if isinstance(entity, dict) else None
        places = [entity.get("start"), entity.get("end")] if isinstance(entity, dict) else []
        if not isinstance(kind, str) or len(places) != 2 or not all(type(place) is int for place in places):
            return RawPassage(name, text, problem="entity_without_offsets", raw=repr(entity))
        mention = {"start": places[0], "end": places[1], "type": kind}
        mentions.append(mention | ({"text": entity["text"]} if isinstance(entity.get("text"), str) else {}))
    return RawPassage(name, text, mentions)


def from_tags(name: str, tokens: Any, tags: Any, names: Sequence[str] = ()) -> RawPassage:
    """A passage of tokens and their tags, strings or indices into `names`.

    Problems: `tokens_are_no_strings`, `tags_do_not_match_tokens`, `tag_without_name`.
    """
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        return RawPassage(name, problem="tokens_are_no_strings", raw=repr(tokens))
    text = " ".join(tokens)
    if not isinstance(tags, list) or len(tags) != len(tokens):
        return RawPassage(name, text, problem="tags_do_not_match_tokens", raw=repr(tags))
    spelled = [names[tag] if type(tag) is int and 0 <= tag < len(names) else tag for tag in tags]
    if not all(isinstance(tag, str) for tag in spelled):
        return RawPassage(name, text, problem="tag_without_name", raw=repr(tags))
    starts = [0]
    for token in tokens:
        starts.append(starts[-1] + len(token) + 1)
    entities = [
        {"start": starts[first], "end": starts[last] + len(tokens[last]), "type": label}
        for first, last, label in decode_tags(spelled)
    ]
    return RawPassage(name, text, entities)


def decode_tags(tags: Sequence[str]) -> list[tuple[int, int, str]]:
    """Mentions `(first token, last token, label)` of BIO (IOB2), IOB1, BIOES, BILOU or bare IO tags.

    The rules of conlleval read all of them: an I- after nothing, or after another label, opens a mention.
    """
    mentions: list[tuple[int, int, str]] = []
    opened: tuple[int, str] | None = None
    closed = True  # whether the tag before ended its mention
    for position, tag in enumerate([*tags, "O"]):
        prefix, label = split_tag(tag)
        if opened and (not label or closed or prefix in BEGINS or label != opened[1]):
            mentions.append((opened[0], position - 1, opened[1]))
            opened = None
        if label and not opened:
            opened = (position, label)
        closed = prefix in ENDS
    return mentions


def split_tag(tag: str) -> tuple[str, str]:
    """`B-PER` as `("B", "PER")`; a bare label (`art-film`) continues itself; `O` has no label."""
    if tag.strip().upper() in ("O", ""):
        return "O", ""
    if tag[:1] in "BIESLUM" and tag[1:2] == "-" and tag[2:]:
        return tag[0], tag[2:]
    return "I", tag


def read_json_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Objects of a JSON list or of JSONL, gzipped or not. Raises UserError with the line of the first mistake."""
    lines = _lines(path)
    first = next((line for line in lines if line.strip()), "")
    if first.lstrip().startswith("["):
        rows = _load_json(path, first + "".join(lines))
    else:
        filled = (line for line in chain([first], lines) if line.strip())
        rows = (_load_json(path, line, number) for number, line in enumerate(filled, 1))
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise UserError(f"{path}: row {number} is no JSON object: {row!r:.60}")
        yield row


def _load_json(path: Path, content: str, row: int = 0) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: {f'row {row} ' if row else ''}is not JSON ({error})") from None


def _read_conll(path: Path, config: AnnotatedSetConfig) -> Iterator[dict[str, Any]]:
    """Sentences of a CoNLL file: a token a line, its tag in a column, a blank line after each sentence."""
    tokens: list[str] = []
    tags: list[str] = []
    number = 0
    for line in [*_lines(path), ""]:
        columns = line.rstrip("\r\n").split("\t") if "\t" in line else line.split()
        if columns and config.comment and line.startswith(config.comment):
            continue
        if columns and columns[0] != "-DOCSTART-":
            tokens.append(columns[0])
            # a line without its tag makes the lengths differ, and the sentence is rejected by that name
            tags += [columns[config.tag_column].strip()] if len(columns) > max(1, config.tag_column) else []
        elif tokens:
            number += 1
            yield {
                config.id_column: f"{path.name.split('.')[0]}_{number}",
                config.tokens_column: tokens,
                config.tags_column: tags,
            }
            tokens, tags = [], []


def _lines(path: Path) -> Iterator[str]:
    number = 0
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):  # noqa: B007  (the line of a mistake)
                yield line
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, zlib.error, EOFError) as error:
        raise UserError(f"{path}: not readable after line {number}: {error}") from None


def _read_datasets(
    config: AnnotatedSetConfig, source: str, names: list[str]
) -> tuple[Iterable[dict[str, Any]], list[str]]:
    """Rows of a Parquet file or a Hub dataset, and the names of its integer tags where the features carry them."""
    from datasets import ClassLabel, load_dataset

    def refuse(error: Exception) -> UserError:  # `datasets` raises dozens of kinds for a source it cannot read
        return UserError(f"set {config.name}: {source!r} cannot be read: {str(error):.200}")

    def guarded() -> Iterator[dict[str, Any]]:
        try:
            yield from rows
        except Exception as error:
            raise refuse(error) from None

    try:
        if source.endswith(".parquet"):
            rows = load_dataset("parquet", data_files=source, split="train", streaming=True)
        elif config.data_files:  # also beside a loading script, which would be refused
            kind = "parquet" if config.data_files.endswith(".parquet") else "json"
            files = f"hf://datasets/{source}@{config.revision or 'main'}/{config.data_files}"
            rows = load_dataset(kind, data_files=files, split="train", streaming=True)
        else:
            rows = load_dataset(source, config.config, split=config.split, revision=config.revision, streaming=True)
    except Exception as error:
        raise refuse(error) from None
    tags = getattr((rows.features or {}).get(config.tags_column), "feature", None)
    if isinstance(tags, ClassLabel) and not names:
        names = tags.names
    elif config.format == "tags" and "int" in str(getattr(tags, "dtype", "")) and not names:
        raise UserError(f"set {config.name}: column {config.tags_column!r} holds bare numbers: give their tag_names")
    return guarded(), names
