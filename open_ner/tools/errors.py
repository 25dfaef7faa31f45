"""Errors and exit statuses of commands: 0 done, 1 failed, 2 a user's mistake, 130 interrupted."""

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .escapes import printable

FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EACCES, errno.EROFS)
NO_FOLDER = (errno.ENOTDIR, errno.EEXIST)


class UserError(Exception):
    """A mistake that the user can correct; the message names the wrong value and what to do about it."""


@contextmanager
def readable_weights() -> Iterator[None]:
    """Raise OSError if weights cannot be read, in place of the errors of safetensors and pickle.

    Raises ValueError if the device is one that the installed torch does not support, in place of its AssertionError.
    """
    from pickle import UnpicklingError

    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, UnpicklingError) as error:
        what = "the weights are incomplete, or a git-LFS pointer: download them again"
        raise OSError(f"{what}; {error!s:.60}") from None
    except AssertionError as error:
        if not str(error).startswith("Torch not compiled with"):
            raise
        raise ValueError(f"{error}: choose another device, such as cpu, or install another build of torch") from None


def run(main: Callable[[], None], resumes: bool = False) -> None:
    """Run a command's `main`; after a known error, print one line to stderr and exit with a status.

    `resumes`: whether the same command, run again after an interruption, goes on from there.
    """
    try:
        return main()
    except UserError as error:
        status, line = 2, f"error: {' '.join(str(error).split())}"
    except KeyboardInterrupt:
        status, line = 130, f"interrupted{': run the same command again to go on from here' if resumes else ''}"
    except BrokenPipeError:  # the reader of the output, such as `head`, has exited
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        remedy = "make room or choose another --output_dir, then run the same command again"
        if isinstance(error, OSError) and error.errno in (*FULL, *FORBIDDEN, *NO_FOLDER):
            cause = f"{error.strerror}{f' at {error.filename}' if error.filename else ''}"
            if error.errno in FORBIDDEN:
                remedy = "check its permissions or write elsewhere"
            elif error.errno in NO_FOLDER:
                remedy = "a file is where a folder is needed: choose another path"
        elif "os error 28" in str(error) or "errno 28" in str(error).lower():
            cause = "no space left on the disk"  # safetensors and Arrow give the system's error only as text
        else:
            raise
        status, line = 1, f"error: {cause}: {remedy}"
    print(printable(line), file=sys.stderr)  # a message may contain parts of the data
    sys.exit(status)
