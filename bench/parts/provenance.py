"""The origin of measured numbers, as the first keys of a file in results/."""

import hashlib
import sys
from pathlib import Path

from command_line.hardware import hardware
from command_line.public import public_command
from zero_shot.results import commit


def provenance(*data: Path) -> dict[str, str | None]:
    """Return the command, the commit, the hardware and, if files of data are given, a hash of them."""
    known = {"command": public_command(["python", *sys.argv]), "commit": commit(), "hardware": hardware()}
    if data:
        digests = "".join(hashlib.sha256(path.read_bytes()).hexdigest() for path in data)
        known["data_hash"] = hashlib.sha256(digests.encode()).hexdigest()[:16]
    return known
