"""Load models, tokenizers and files of repositories by name, with errors of one line."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from open_ner.tools.errors import UserError, readable_weights
from open_ner.tools.files import read_json


def load_or_explain(kind: type, name: str, **options: Any) -> Any:
    """Return `kind.from_pretrained(name)`; raise UserError if it fails."""
    try:
        with readable_weights():
            return kind.from_pretrained(name, **options)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        hint = (
            "`make setup` puts the default student in place" if name.startswith("models/") else "check name and files"
        )
        raise UserError(f"student {name!r} cannot be loaded ({str(error):.150}): {hint}") from None


def read_repository_file(
    name: str, file: str, kinds: Sequence[str], revision: str | None = None
) -> dict[str, Any] | None:
    """Read a JSON file or a card's metadata from a folder, or from a revision of a Hub repository of these kinds.

    Returns {} if the file does not exist, and None with a warning if the Hub cannot be reached. Raises UserError if
    the file cannot be parsed.
    """
    import yaml
    from httpx2 import TransportError
    from huggingface_hub import hf_hub_download, metadata_load
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
    )

    path, fault = Path(name) / file, None
    for kind in [] if Path(name).is_dir() else kinds:
        try:
            path = Path(hf_hub_download(name, file, repo_type=kind, revision=revision))
            break
        except (HFValidationError, RemoteEntryNotFoundError, RepositoryNotFoundError):
            continue
        except (HfHubHTTPError, LocalEntryNotFoundError, TransportError) as error:
            fault = " ".join(str(error).split())
    else:
        if fault:
            what = f"{file} of {name} cannot be read from the Hub and counts as empty"
            print(f"warning: {what}: check the network and $HF_TOKEN ({fault:.120})", file=sys.stderr)
            return None
    try:
        return (metadata_load(path) or {}) if file == "README.md" else read_json(path)
    except FileNotFoundError:
        return {}
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not readable: {error}") from None
