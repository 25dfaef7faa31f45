"""What a student inherits from its dataset and its base model: entity types, license, language, window."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from command_line.pretrained import read_repository_file

CARD_KEYS = ("license", "language")


class Origin(NamedTuple):
    """License, language and longest passage (`window`, in tokens) of a dataset; None or empty if not stated.

    `types` has the entity types of the dataset, and of the base model if it is a student itself, with frequencies in
    descending order.
    """

    license: str | None
    language: list[str]
    window: int | None
    types: dict[str, int]


def read_type_counts(name: str, kinds: Sequence[str] = ("dataset", "model")) -> dict[str, int]:
    """Read the entity types of a dataset or student (folder or Hub id) with their frequencies, from `types.json`."""
    return read_repository_file(name, "types.json", kinds) or {}


def read_origin(dataset: str, base: str) -> Origin:
    """Read what a student inherits from a dataset and a base model, folders or Hub ids.

    Raises UserError if a file cannot be parsed.
    """
    card, stats = (read_repository_file(dataset, file, ["dataset"]) or {} for file in ("README.md", "stats.json"))
    license_, language = ([card[key]] if isinstance(card.get(key), str) else card.get(key) or [] for key in CARD_KEYS)
    types = Counter(read_type_counts(dataset)) + Counter(read_type_counts(base, ["model"]))
    window = stats.get("passage_options", {}).get("max_tokens")
    return Origin(license_[0] if len(license_) == 1 else None, language, window, dict(types.most_common()))
