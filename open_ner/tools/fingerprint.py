"""A hash of a local student, by which runs with different students are told apart."""

import hashlib
import json
import re
from pathlib import Path

# weights, configs, tokenizer and template; not training_args.bin, states of an optimizer, or the card
DECISIVE = re.compile(
    r".*model.*\.(?:safetensors|bin)|(?:generation_|adapter_)?config\.json|.+\.(?:model|tiktoken|jinja)"
    r"|.*(?:token|vocab|merges|template|index).*\.(?:json|txt)"
)


def hash_student(folder: Path, with_defaults: bool = True) -> str:
    """Hash the files of a folder that a student's answers depend on, and those of an adapter's local base model.

    Args:
        folder: the student's folder.
        with_defaults: hash the saved defaults of the pipeline too, such as types and threshold.
    """
    parts: list[str] = []
    for path in sorted(path for path in folder.iterdir() if DECISIVE.fullmatch(path.name)):
        if path.name in ("config.json", "adapter_config.json"):
            settings = json.loads(path.read_bytes())
            if not with_defaults:
                settings.pop("open_ner", None)
            base = settings.get("base_model_name_or_path")
            parts += [path.name, json.dumps(settings, sort_keys=True)]
            parts += [hash_student(Path(base), with_defaults)] if base and Path(base).is_dir() else []
        else:
            with path.open("rb") as file:
                parts += [path.name, hashlib.file_digest(file, "sha256").hexdigest()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
