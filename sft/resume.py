"""The run that an output folder belongs to, and the checkpoint that the run resumes from."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

import datasets

from command_line.public import public_value
from open_ner.tools.errors import UserError
from open_ner.tools.files import read_json, write_json

from . import FINISHED

if TYPE_CHECKING:
    import pyarrow

RUN = "run.json"


def hash_tokens(rows: datasets.Dataset) -> str:
    """Hash the token ids of tokenized rows, in their order."""
    digest = hashlib.sha256()
    for batch in rows.select_columns("input_ids").with_format("arrow").iter(1000):
        ids = cast("pyarrow.Table", batch).column("input_ids").combine_chunks()
        digest.update(ids.value_lengths().to_numpy(zero_copy_only=False).tobytes())
        digest.update(ids.flatten().to_numpy(zero_copy_only=False).tobytes())
    return digest.hexdigest()[:16]


def claim(
    folder: Path, identity: Mapping[str, str | float | bool | None], anew: bool = False, write: bool = True
) -> bool:
    """Record in an output folder the run that it belongs to.

    Args:
        folder: The output folder.
        identity: The options that determine the result of the run.
        anew: Whether to delete an earlier run first.
        write: Whether this process writes. Exactly one process does, and it must call this before the others.

    Returns:
        Whether the run has finished before.

    Raises:
        UserError: The folder has checkpoints or the student of another run.
    """
    path, identity = folder / RUN, json.loads(json.dumps(public_value(identity)))
    if anew and write:
        checkpoints = [found.name for found in folder.glob("checkpoint-*")]
        if checkpoints or (folder / FINISHED).exists():
            print(f"{folder}: the earlier run is deleted; to resume this one later, leave out --overwrite_output_dir")
        for name in (FINISHED, RUN, "README.md", "results", ".eval_results", *checkpoints):
            shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink(missing_ok=True)
    try:
        earlier = public_value(read_json(path))
    except (OSError, ValueError):
        earlier = {}
    finished = (folder / FINISHED).exists()
    # an option that an earlier version did not record counts as unchanged, and is recorded now
    changed = [name for name in identity if not earlier or identity[name] != earlier.get(name, identity[name])]
    if changed and (finished or find_checkpoint(folder)):
        raise UserError(
            f"{folder} holds another run ({changed[0]} was {earlier.get(changed[0])!r}, now it is "
            f"{identity[changed[0]]!r}): choose another --output_dir, or train anew by --overwrite_output_dir"
        )
    if write and (changed or not earlier.keys() >= identity.keys()):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, identity)
    return finished


def choose_checkpoint(folder: Path, given: str | None) -> Path | None:
    """Return the checkpoint that `resume_from_checkpoint` names, else the newest complete one, else None.

    Raises UserError if the named checkpoint is not complete.
    """
    if given in (None, "true", "True"):
        return find_checkpoint(folder)
    if not is_complete(Path(given)):
        why = "is not a complete checkpoint; leave the option out to use the newest one"
        raise UserError(f"resume_from_checkpoint {given!r} {why}")
    return Path(given)


def find_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint in a folder, or None."""
    numbered = {int(path.name[11:]): path for path in folder.glob("checkpoint-*") if path.name[11:].isdigit()}
    return next((numbered[step] for step in sorted(numbered, reverse=True) if is_complete(numbered[step])), None)


def is_complete(checkpoint: Path) -> bool:
    """Return whether a checkpoint was written completely: the Trainer writes `trainer_state.json` last."""
    try:
        return bool(read_json(checkpoint / "trainer_state.json"))
    except (OSError, ValueError):
        return False
