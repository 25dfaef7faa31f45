"""A terminal, for what is shown in color."""

import contextlib
import os
import pty
import subprocess


def in_a_terminal(command: list[str], environment: dict[str, str]) -> str:
    """Run a command on a terminal and return what it shows.

    It gets an environment of its own, since rich looks at many variables, and nothing else in this process can write
    between its lines.
    """
    master, slave = pty.openpty()
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=slave, stderr=subprocess.PIPE,
        env=kept | {"PYTHONIOENCODING": "utf-8"} | environment,
    )  # fmt: skip
    os.close(slave)
    shown = b""
    with contextlib.suppress(OSError):  # Linux raises EIO at the end
        while part := os.read(master, 1 << 16):
            shown += part
    os.close(master)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    return shown.decode().replace("\r\n", "\n")
