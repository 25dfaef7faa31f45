"""Escape text of unknown origin for a Markdown card."""

import html

from command_line.public import CONTROL


def escape(text: str) -> str:
    """Escape text for a line or table cell, so that it contains no HTML, cell border, emphasis, formula or link."""
    escaped = html.escape(" ".join(CONTROL.sub("\ufffd", str(text)).split()), quote=False)
    for character in "\\`*_[]|~$":
        escaped = escaped.replace(character, "\\" + character)
    # without these replacements, bare addresses and @names become links
    return escaped.replace("://", "&#58;//").replace("www.", "www&#46;").replace("@", "&#64;")


def code(text: str) -> str:
    """Make text safe to stand between backticks."""
    return " ".join(CONTROL.sub("\ufffd", text.replace("`", "'")).split())
