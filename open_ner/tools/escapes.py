"""Make a text safe to print: without characters that control or mislead a terminal, and without the API key."""

import re

# characters that move the cursor, or hide or reorder text; not the joiners of Persian words and emoji
HIDDEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)
LONG_KEY = 8  # characters from which on a key is masked inside of other words too


def printable(text: str) -> str:
    """Escape control characters other than line ends and tabs, so that no text can control the terminal."""
    return HIDDEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def in_a_cell(text: str) -> str:
    """Escape all control characters, so that the text stays on one line."""
    return printable(text).replace("\t", r"\t").replace("\n", r"\n")


def without_key(message: str, key: str) -> str:
    """Return a server's message with `***` in place of the API key.

    A short key, such as the x for a server that needs none, is masked only as a whole word, because its characters are
    part of other words too. A long one is masked wherever it is: an escape such as %3D may stand right before it.
    """
    if not key:
        return message
    pattern = re.escape(key)
    return re.sub(pattern if len(key) >= LONG_KEY else rf"(?<!\w){pattern}(?!\w)", "***", message)
