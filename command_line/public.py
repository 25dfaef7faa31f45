"""Remove secrets, credentials in addresses and folders of this machine from what is published."""

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HIDDEN = "***"
SECRET_NAME = re.compile(r"(?:^|[._-])(?:(?:hub|hf|api|auth|access)[_-]?(?:token|key)|key|password|secret)$", re.I)
SECRET = re.compile(r"\b(?:sk-|hf_|ghp_)(?=[\w-]*\d)[\w-]{8,}")  # the usual forms of keys and tokens
ADDRESS = re.compile(r"""(\w+://)(?:[^\s/?#"'<>]*@)?([^\s?#"'<>]*)(?:[?#][^\s"'<>]*)?""")
PATH = re.compile(r"""(?<![\w.~/&*-])(?:file://|~|\.\.)?/(?!/)[^\s"',;:=()\[\]{}<>|]*""")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")  # also text-direction marks


def public_path(path: str | Path) -> str:
    """Return a path relative to the working directory, or only the name if it is outside of it."""
    text = os.fspath(path).removeprefix("file://")
    if not (os.path.isabs(text) or text.startswith(("~", ".."))):
        return text
    full, here = Path(os.path.abspath(os.path.expanduser(text))), Path.cwd()
    return str(full.relative_to(here)) if full.is_relative_to(here) else full.name


def public_url(url: str) -> str:
    """Remove user, password, query and fragment from each address in a text."""
    return ADDRESS.sub(r"\1\2", url)


def secrets(shortest: int = 8) -> list[str]:
    """Return the values, of at least `shortest` characters, of environment variables that are named like a secret."""
    return [
        value
        for name, value in os.environ.items()
        if len(value) >= shortest and (SECRET_NAME.search(name) or name.endswith("_TOKEN"))
    ]


def public_text(text: str) -> str:
    """Clean a text: hide secrets from the environment and likely keys, shorten addresses and absolute paths."""
    for secret in secrets():
        text = text.replace(secret, HIDDEN)
    text = SECRET.sub(HIDDEN, public_url(CONTROL.sub("\ufffd", text)))
    # a text that consists of one path may contain spaces
    return public_path(text) if os.path.isabs(text) else PATH.sub(lambda found: public_path(found[0]), text)


def public_command(arguments: Sequence[str]) -> str:
    """Return a command line as typed in a shell, cleaned, and with the values of options for secrets hidden."""
    words = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        name, equals, value = argument.partition("=") if argument.startswith("-") else ("", "", argument)
        option = (before if before.startswith("-") and not equals and not name else name).lstrip("-")
        words.append(name + equals + (HIDDEN if value and SECRET_NAME.search(option) else public_text(value)))
    return shlex.join(words)


def public_value(value: Any) -> Any:
    """Clean every string in a JSON value; hide those whose key names a secret."""
    if isinstance(value, Mapping):
        return {
            key: HIDDEN if item and isinstance(item, str) and SECRET_NAME.search(str(key)) else public_value(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [public_value(item) for item in value]
    return public_text(value) if isinstance(value, str) else value
