"""The kinds of folders that can be published, the files of each that are uploaded, and the check for secrets."""

from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

from command_line.public import secrets
from open_ner.tools.errors import UserError

RepoType = Literal["model", "dataset", "space"]
NEVER = ("__pycache__", "*.pyc", "*.partial", "checkpoint-*", "runs")  # nor hidden files, except EVAL_RESULTS
EVAL_RESULTS = ".eval_results"
FROM_SOURCE = ("license", "license_name", "license_link", "language")  # metadata that a derived repository inherits
SEARCHED = 10 * 2**20  # bytes; larger files are weights and tables, which are not searched for secrets


@dataclass(frozen=True)
class Kind:
    """A kind of folder that can be published. All patterns are relative to the folder."""

    repo_type: RepoType
    markers: tuple[str, ...]  # a folder is of this kind if it has one of these files
    files: tuple[str, ...]  # files to upload
    replaced: tuple[str, ...]  # deleted on the Hub if missing in the folder; other files there are kept
    hint: str  # description for error messages


CARD = ("README.md", "LICENSE*", "figures/*.png")
MODEL = ("*.safetensors", "*.json", "*.jinja", "*.py", "*.txt", "*.model", "*.yaml",
         "additional_chat_templates/*.jinja", "results/*.json", f"{EVAL_RESULTS}/*.yaml")  # fmt: skip
KINDS = {
    "dataset": Kind(
        "dataset", ("stats.json", "annotation.json"), ("**/*.parquet", "*.json", *CARD),
        ("*.parquet", "figures/*.png"),
        "the folder `dataset` of a build, or the output of hub.annotate",
    ),
    "model": Kind(
        "model", ("training.json",), (*MODEL, *CARD),
        ("*.safetensors", "*.safetensors.index.json", "results/*.json", "figures/*.png"),
        "the output_dir of a finished train_sft.py",
    ),
    "gguf": Kind("model", ("gguf.json",), ("*.gguf", "gguf.json", *CARD), ("*.gguf",), "the output of hub.gguf"),
    "results": Kind(
        "dataset", ("table.md",), ("table.md", "details.md", "**/results.json", *CARD),
        ("*results.json", "figures/*.png"), "the output_dir of eval_zero_shot.py",
    ),
    "metric": Kind("space", ("app.py",), ("*.py", "README.md", "requirements.txt", "LICENSE*"), ("*.py",),
                   "a metric of `evaluate` with its app.py"),
    "space": Kind("space", ("app.py",), ("**/*",), ("*.py",), "a folder with app.py and a README.md with its sdk"),
}  # fmt: skip


def list_files(folder: Path, kind: str) -> tuple[dict[str, Path], list[str]]:
    """Return the files to publish by their names in the repository, and the names of all other files.

    Raises UserError if the folder is not of this kind.
    """
    what = KINDS[kind]
    if not folder.is_dir():
        raise UserError(f"{folder}: nothing to publish, the folder does not exist: a {kind} is {what.hint}")
    if not any((folder / marker).is_file() for marker in what.markers):
        raise UserError(f"{folder} has no {' or '.join(what.markers)}: a {kind} is {what.hint}")
    if what.repo_type == "space" and not (folder / "README.md").is_file():
        raise UserError(f"{folder} has no README.md: a {kind} is {what.hint}")
    names = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    names = {name: path for name, path in names.items() if not _is_never_sent(name)}
    chosen = {path for pattern in what.files for path in folder.glob(pattern)}
    return (
        {name: path for name, path in names.items() if path in chosen},
        [name for name, path in names.items() if path not in chosen],
    )


def _is_never_sent(name: str) -> bool:
    hidden = any(part.startswith(".") and part != EVAL_RESULTS for part in name.split("/"))
    return hidden or any(fnmatch(part, pattern) for part in name.split("/") for pattern in NEVER)


def check_content(files: dict[str, Path], repo_type: RepoType) -> None:
    """Raise UserError if a file contains a secret from the environment, or the card's metadata cannot be read."""
    from huggingface_hub.utils import get_token

    private = [secret.encode() for secret in {*secrets(shortest=16), get_token() or ""} if secret]
    for path in files.values():
        if path.stat().st_size <= SEARCHED and any(secret in path.read_bytes() for secret in private):
            raise UserError(f"{path} contains a token or key from your environment: remove it, then publish again")
    if card := files.get("README.md"):
        sdk = read_metadata(card).get("sdk")
        if repo_type == "space" and sdk not in ("gradio", "docker", "static"):
            raise UserError(f"{card}: sdk is {sdk!r} in its metadata: write sdk: gradio (or docker, or static)")


def read_metadata(card: Path) -> dict:
    """Return the YAML block of a card; raises UserError if it is invalid."""
    import yaml
    from huggingface_hub import RepoCard

    try:
        return RepoCard(card.read_text(encoding="utf-8"), ignore_metadata_errors=False).data.to_dict()
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(f"{card}: its metadata, the YAML at the top, is invalid: {error!s:.300}") from None
