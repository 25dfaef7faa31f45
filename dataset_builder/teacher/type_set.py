"""The closed world of a recipe: its types, and the guidelines and examples that explain them to the teacher."""

import json
from dataclasses import dataclass
from pathlib import Path

from ner_sets.rows import read_json_rows
from ner_sets.sets import from_offsets
from open_ner.conversation import LONE_SURROGATE
from open_ner.tools.errors import UserError

from ..config import Overlaps, TeacherConfig, type_key


@dataclass
class Example:
    """An annotated passage, with the reply that a teacher should give to it."""

    text: str
    reply: str


@dataclass
class TypeSet:
    """The types that the teacher is asked, with all that its prompt says about them.

    Attributes:
        definitions: definition of each type, which may be empty.
        guidelines: annotation guidelines, or an empty string.
        examples: a few annotated passages.
        overlaps: whether entities may overlap.
    """

    definitions: dict[str, str]
    guidelines: str
    examples: list[Example]
    overlaps: Overlaps

    def __post_init__(self) -> None:
        self._names = {type_key(name): name for name in self.definitions}

    def find(self, name: str) -> str | None:
        """Return the type with this name, ignoring case and white space around it; None if there is none."""
        return self._names.get(type_key(name))


def load_type_set(config: TeacherConfig) -> TypeSet | None:
    """Read the types of a recipe with the files of guidelines and examples; None in an open world.

    Raises UserError if a file cannot be read, or if an example does not follow the rules that it should explain.
    """
    if not config.definitions:
        return None
    types = TypeSet(config.definitions, "", [], config.overlaps)
    if config.guidelines:
        types.guidelines = _read_guidelines(Path(config.guidelines))
    if config.examples:
        types.examples = _read_examples(Path(config.examples), types)
    return types


def _read_guidelines(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}: save teacher.guidelines as UTF-8 text") from None
    except OSError as error:
        raise UserError(f"{path}: teacher.guidelines cannot be read: {error.strerror}") from None
    if not text:
        raise UserError(f"{path}: teacher.guidelines is empty: write the guidelines into it, or remove the option")
    return text


def _read_examples(path: Path, types: TypeSet) -> list[Example]:
    if not path.is_file():
        raise UserError(f"{path}: no such file: set teacher.examples to a JSONL file, or remove it")
    examples = []
    for number, row in enumerate(read_json_rows(path), 1):
        where = f"{path}: example {number}"
        passage = from_offsets("", row.get("text"), row.get("entities"))
        if passage.problem:
            raise UserError(f'{where}: {passage.problem}: write {{"text", "entities": [{{"start", "end", "type"}}]}}')
        text, pairs, covered = passage.text, list[tuple[str, str]](), 0
        if not text.strip() or LONE_SURROGATE.search(text):
            raise UserError(f"{where}: the text {text[:40]!r} is empty or not valid Unicode: correct or remove it")
        for mention in sorted(passage.entities, key=lambda mention: (mention["start"], -mention["end"])):
            start, string = mention["start"], text[max(0, mention["start"]) : max(0, mention["end"])]
            what = f"{where}: {mention.get('text', string)!r} ({start} to {mention['end']})"
            name = types.find(mention["type"])
            if not 0 <= start < mention["end"] <= len(text) or mention.get("text", string) != string:
                raise UserError(f"{what} is not in the text there: count characters from 0, with end exclusive")
            if name is None:
                raise UserError(
                    f"{what} has the type {mention['type']!r}, which is not in teacher.types: add it there"
                )
            if types.overlaps == "flat" and start < covered:
                raise UserError(
                    f"{what} overlaps another entity: remove one of them, or set teacher.overlaps to nested"
                )
            covered = max(covered, mention["end"])
            pairs.append((string, name))
        examples.append(Example(text, write_pairs(pairs)))
    if not examples:
        raise UserError(f"{path}: teacher.examples has no example: add some, or remove the option")
    return examples


def write_pairs(pairs: list[tuple[str, str]]) -> str:
    """Write distinct `(string, type)` pairs as a reply: a list of tuples."""
    quoted = [", ".join(json.dumps(part, ensure_ascii=False) for part in pair) for pair in dict.fromkeys(pairs)]
    return f"[{', '.join(f'({pair})' for pair in quoted)}]"
