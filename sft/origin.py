"""What a student takes over from its dataset and its base model: entity types, license, language, window."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from open_ner.tools.errors import UserError


class DatasetFacts(NamedTuple):
    """What a dataset says about itself in its card and its stats.json; `window` is its longest passage in tokens."""

    license: str | None
    language: list[str]
    window: int | None


def read_types(name: str, kinds: Sequence[str] = ("dataset", "model")) -> dict[str, int]:
    """Read the `types.json` of a dataset or student, a folder or Hub id: entity types with their frequencies.

    Returns an empty dict if there is no such file.
    """
    return _read_json(_find(name, "types.json", kinds))


def read_facts(dataset: str) -> DatasetFacts:
    """Read the facts of a dataset, a folder or Hub id; what it does not state is None or empty."""
    from huggingface_hub import metadata_load

    card = _find(dataset, "README.md", ["dataset"])
    metadata = (metadata_load(card) if card else None) or {}
    license, language = (
        [value] if isinstance(value := metadata.get(field), str) else value or [] for field in ("license", "language")
    )
    options = _read_json(_find(dataset, "stats.json", ["dataset"])).get("passage_options", {})
    return DatasetFacts(license[0] if len(license) == 1 else None, language, options.get("max_tokens"))


def _find(name: str, file: str, kinds: Sequence[str]) -> Path | None:
    """Find a file in a folder or, as the first of these kinds of repositories, on the Hub."""
    if Path(name).is_dir():
        return path if (path := Path(name) / file).exists() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    for kind in kinds:
        try:
            return Path(hf_hub_download(name, file, repo_type=kind))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError):
            continue
    return None


def _read_json(path: Path | None) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path else {}
    except ValueError as error:
        raise UserError(f"{path}: not readable: {error}") from None
