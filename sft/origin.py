"""What a student inherits from its dataset and its base model: entity types, license, language, window."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from open_ner.tools.errors import UserError

CARD_KEYS = ("license", "language")


class Origin(NamedTuple):
    """License, language and longest passage (`window`, in tokens) of a dataset; None or empty if not stated.

    `types` are the dataset's and those of a base model that is a student, with frequencies, the most frequent first.
    """

    license: str | None
    language: list[str]
    window: int | None
    types: dict[str, int]


def read_types(name: str, kinds: Sequence[str] = ("dataset", "model")) -> dict[str, int]:
    """Read the entity types of a dataset or student (folder or Hub id) with their frequencies, from `types.json`."""
    return _read(name, "types.json", kinds)


def read_origin(dataset: str, base: str) -> Origin:
    """Read what a student inherits from a dataset and a base model, folders or Hub ids.

    Raises UserError if a file cannot be parsed.
    """
    card, stats = (_read(dataset, file, ["dataset"]) for file in ("README.md", "stats.json"))
    license_, language = ([card[key]] if isinstance(card.get(key), str) else card.get(key) or [] for key in CARD_KEYS)
    types = Counter(read_types(dataset)) + Counter(read_types(base, ["model"]))
    window = stats.get("passage_options", {}).get("max_tokens")
    return Origin(license_[0] if len(license_) == 1 else None, language, window, dict(types.most_common()))


def _read(name: str, file: str, kinds: Sequence[str]) -> dict[str, Any]:
    """Read a JSON file or a card's metadata from a folder or a Hub repository of these kinds; {} without the file."""
    from huggingface_hub import hf_hub_download, metadata_load
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    path = Path(name) / file
    for kind in [] if Path(name).is_dir() else kinds:
        try:
            path = Path(hf_hub_download(name, file, repo_type=kind))
            break
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError):
            continue
    try:
        return (metadata_load(path) or {}) if file == "README.md" else json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{path}: not readable: {error}") from None
