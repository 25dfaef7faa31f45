"""Make a text safe to print: without characters that control or mislead a terminal, and without the API key."""

import re

# characters that move the cursor, or hide or reorder text; not the joiners of Persian words and emoji
HIDDEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)
SHORTEST_KEY = 8  # characters of a secret


def printable(text: str) -> str:
    """Escape control characters other than line ends and tabs, so that no text can control the terminal."""
    return HIDDEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def in_a_cell(text: str) -> str:
    """Escape all control characters, so that the text stays on one line."""
    return printable(text).replace("\t", r"\t").replace("\n", r"\n")


def without_key(message: str, key: str) -> str:
    """Return a server's message with `***` in place of the API key.

    A key of fewer than eight characters, such as x, is for a server that needs none. It stays, because its characters
    are part of other words too.
    """
    return message.replace(key, "***") if len(key) >= SHORTEST_KEY else message
