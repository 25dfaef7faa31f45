"""Escape text of unknown origin for a Markdown card."""

import html

from command_line.public import CONTROL


def escape(text: str) -> str:
    """Escape text for a line or a table cell: no HTML, cell, emphasis, formula, link or image can start in it."""
    escaped = html.escape(" ".join(CONTROL.sub("\ufffd", str(text)).split()), quote=False)
    for character in "\\`*_[]|~$":
        escaped = escaped.replace(character, "\\" + character)
    # Markdown turns bare addresses into links
    return escaped.replace("://", "&#58;//").replace("www.", "www&#46;").replace("@", "&#64;")


def code(text: str) -> str:
    """Make text safe between backticks."""
    return " ".join(CONTROL.sub("\ufffd", text.replace("`", "'")).split())
