"""How a command ends: exit status 0 done, 1 failed, 2 a user's mistake, 130 interrupted; an error is one line."""

import errno
import os
import sys
from collections.abc import Callable


class UserError(Exception):
    """A mistake the user can mend. The message is one line: what is wrong, with the value, and what to do about it."""


def run(main: Callable[[], None]) -> None:
    """Run a command's `main` and turn its end into an exit status and at most one line on stderr."""
    try:
        main()
    except UserError as error:
        _leave(2, f"error: {' '.join(str(error).split())}")
    except KeyboardInterrupt:
        _leave(130, "interrupted: run the same command again to go on from here")
    except BrokenPipeError:  # the reader of our output, such as `head`, has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        line = _disk_trouble(error)
        if line is None:
            raise
        _leave(1, f"error: {line}: make room or choose another --output_dir, then run the same command again")


def _disk_trouble(error: Exception) -> str | None:
    """What a full, read-only or forbidden disk said, whichever library met it; None for any other error."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
        return f"{error.strerror}{f' at {error.filename}' if error.filename else ''}"
    # safetensors and Arrow carry the system's error in their text alone
    return "no space left on the disk" if "os error 28" in str(error) or "errno 28" in str(error).lower() else None


def _leave(status: int, line: str) -> None:
    print(line, file=sys.stderr)
    sys.exit(status)
