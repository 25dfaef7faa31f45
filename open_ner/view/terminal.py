"""Print passages with marked spans in a terminal, in color if it supports that."""

import sys
from collections.abc import Iterable
from io import TextIOWrapper

from rich.console import Console
from rich.text import Text

from ..tools.escapes import in_a_cell, printable
from ..tools.terminal import STYLES
from .passages import ShownPassage, lay_out, marks_of


def render_terminal(passages: Iterable[ShownPassage]) -> None:
    """Print each passage with its spans as `[word|type]`, nested ones within each other, then its rejects.

    An ellipsis shows where a span is interrupted by another one that crosses it.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # characters that the terminal's encoding does not have
    console = Console(markup=False, emoji=False, highlight=False, soft_wrap=True)
    colors: dict[str, str] = {}
    for passage in passages:
        heading = f"== {in_a_cell(passage['id'])}"
        if about := passage.get("about"):
            heading += f" · {in_a_cell(about)}"
        console.print(Text(heading, style="bold"))
        console.print(_marked(passage, colors))
        for one in passage["rejects"]:
            span = f": {one['text']} ({one['type']})" if one["text"] or one["type"] else ""
            console.print(Text(f"  {in_a_cell(one['reason'])}", "bold") + Text(in_a_cell(span), "not bold"))
        console.print()


def _marked(passage: ShownPassage, colors: dict[str, str]) -> Text:
    """The text with brackets around its spans; each type gets a color when it first occurs."""
    shown = Text()
    styles: list[str] = [""]
    for piece in lay_out(passage["text"], marks_of(passage)):
        if isinstance(piece, str):
            shown.append(printable(piece), styles[-1])
            continue
        mark = piece.mark
        style = "dim" if mark.reason else colors.setdefault(mark.type, STYLES[len(colors) % len(STYLES)])
        if piece.opens:
            styles.append(f"bold {style}")
            shown.append("[" if piece.whole else "[…", style)
        else:
            styles.pop()
            score = "" if mark.score is None else f" {mark.score:.2f}"
            label = in_a_cell(f"{mark.reason}: {mark.type}" if mark.reason else mark.type) + score
            shown.append(f"|{label}]" if piece.whole else "…]", style)
    return shown
