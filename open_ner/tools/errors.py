"""Errors and exit statuses of commands: 0 done, 1 failed, 2 a user's mistake, 130 interrupted."""

import errno
import os
import sys
from collections.abc import Callable


class UserError(Exception):
    """A mistake that the user can correct; the message names the wrong value and what to do about it."""


def run(main: Callable[[], None]) -> None:
    """Run a command's `main`; after a known error, print one line to stderr and exit with a status."""
    try:
        return main()
    except UserError as error:
        status, line = 2, f"error: {' '.join(str(error).split())}"
    except KeyboardInterrupt:
        status, line = 130, "interrupted: run the same command again to go on from here"
    except BrokenPipeError:  # the reader of the output, such as `head`, has exited
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            cause = f"{error.strerror}{f' at {error.filename}' if error.filename else ''}"
        elif "os error 28" in str(error) or "errno 28" in str(error).lower():
            cause = "no space left on the disk"  # safetensors and Arrow give the system's error only as text
        else:
            raise
        status = 1
        line = f"error: {cause}: make room or choose another --output_dir, then run the same command again"
    print(line, file=sys.stderr)
    sys.exit(status)
