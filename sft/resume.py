"""Which run an output folder belongs to, and the checkpoint it goes on from."""

import hashlib
import json
from pathlib import Path
from typing import Any

import datasets

from open_ner.tools.errors import UserError

from .saving import FINISHED

RUN = "run.json"


def hash_tokens(rows: datasets.Dataset) -> str:
    """Hash over the token ids of tokenized rows, in their order."""
    digest = hashlib.sha256()
    for batch in rows.select_columns("input_ids").with_format("arrow").iter(1000):
        ids = batch.column("input_ids").combine_chunks()
        digest.update(ids.value_lengths().to_numpy(zero_copy_only=False).tobytes())
        digest.update(ids.flatten().to_numpy(zero_copy_only=False).tobytes())
    return digest.hexdigest()[:16]


def claim(folder: Path, identity: dict[str, Any]) -> None:
    """Note in `folder` which run it belongs to; raises UserError where another run's checkpoints or student lie there.

    `identity` holds what decides the course of a run, as JSON values.
    """
    path = folder / RUN
    identity = json.loads(json.dumps(identity))
    if find_checkpoint(folder) or (folder / FINISHED).exists():
        try:
            earlier = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            earlier = {}
        if changed := [name for name in identity if identity[name] != earlier.get(name)]:
            raise UserError(
                f"{folder} holds another run ({changed[0]} was {earlier.get(changed[0])!r}, now it is "
                f"{identity[changed[0]]!r}): choose another --output_dir or delete that folder"
            )
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(identity, indent=1), encoding="utf-8")


def choose_checkpoint(folder: Path, given: str | None) -> Path | None:
    """The checkpoint to go on from: the one of `resume_from_checkpoint`, else the newest of the run, else none.

    Raises UserError where the given one is no whole checkpoint.
    """
    if given in (None, "true", "True"):
        return find_checkpoint(folder)
    if not is_whole(Path(given)):
        raise UserError(f"resume_from_checkpoint {given!r} is no whole checkpoint; left out, the newest one is taken")
    return Path(given)


def find_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written whole: the Trainer writes `trainer_state.json` last."""
    newest_first = sorted(folder.glob("checkpoint-*"), key=_step, reverse=True)
    return next(filter(is_whole, newest_first), None)


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end."""
    try:
        return bool(json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return False


def _step(path: Path) -> int:
    step = path.name.removeprefix("checkpoint-")
    return int(step) if step.isdigit() else -1
