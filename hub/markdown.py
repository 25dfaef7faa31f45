"""Text of unknown origin, made harmless where a card shows it."""

import html


def escape(text: str) -> str:
    """Text from a corpus or a model for a line or a table cell: no HTML, cell, emphasis, formula, link or image."""
    escaped = html.escape(" ".join(str(text).split()), quote=False)
    for character in "\\`*_[]|~$":
        escaped = escaped.replace(character, "\\" + character)
    # bare addresses become links by themselves
    return escaped.replace("://", "&#58;//").replace("www.", "www&#46;").replace("@", "&#64;")


def code(text: str) -> str:
    """Text that stands between backticks."""
    return " ".join(text.replace("`", "'").split())
