"""Exit statuses and errors of commands: 0 done, 1 failed, 2 a user's mistake, 130 interrupted."""

import errno
import os
import sys
from collections.abc import Callable


class UserError(Exception):
    """A mistake that the user can correct; the message is one line with the wrong value and what to do about it."""


def run(main: Callable[[], None]) -> None:
    """Run a command's `main`; exit with its status, and after a known error print one line to stderr."""
    try:
        main()
    except UserError as error:
        _leave(2, f"error: {' '.join(str(error).split())}")
    except KeyboardInterrupt:
        _leave(130, "interrupted: run the same command again to go on from here")
    except BrokenPipeError:  # the reader of the output, such as `head`, has exited
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        line = _disk_error(error)
        if line is None:
            raise
        _leave(1, f"error: {line}: make room or choose another --output_dir, then run the same command again")


def _disk_error(error: Exception) -> str | None:
    """Return the message of a full, read-only or forbidden disk; None for any other error."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
        return f"{error.strerror}{f' at {error.filename}' if error.filename else ''}"
    # safetensors and Arrow give the system's error only as text
    return "no space left on the disk" if "os error 28" in str(error) or "errno 28" in str(error).lower() else None


def _leave(status: int, line: str) -> None:
    print(line, file=sys.stderr)
    sys.exit(status)
