"""Print a text with its spans marked, and a table of the spans, in color if the terminal supports it."""

from collections.abc import Iterable

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from ..answers import Entity
from .escapes import in_a_cell, printable

STYLES = ("cyan", "magenta", "green", "yellow", "blue", "red")


def show(text: str, entities: list[Entity], title: str = "") -> None:
    """Print a text with its outermost spans as `[word|type]`, then a table of all spans."""
    console = Console(markup=False, emoji=False, highlight=False, soft_wrap=True)
    types = dict.fromkeys(entity["entity_group"] for entity in entities)
    colors = {name: STYLES[i % len(STYLES)] for i, name in enumerate(types)}
    if title:
        console.print(Text(f"== {printable(title)}", style="bold"))
    console.print(marked(text, entities, colors))
    console.print()
    if not entities:
        console.print("(no spans)")
        return
    numbers = [Column(name, justify="right", no_wrap=True) for name in ("start", "end", "score")]
    columns = [Column("span", overflow="fold"), *numbers, Column("type", overflow="fold")]
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for entity in entities:
        score = "-" if entity["score"] is None else f"{entity['score']:.2f}"
        style = colors[entity["entity_group"]]
        word, name = Text(in_a_cell(entity["word"]), style), Text(in_a_cell(entity["entity_group"]), style)
        table.add_row(word, str(entity["start"]), str(entity["end"]), score, name)
    # in a file or pipe nothing is folded: the table is as wide as its longest row
    width = None if console.is_terminal else max(console.measure(table).maximum, 1)
    console.print(table, width=width, soft_wrap=False)


def marked(text: str, entities: Iterable[Entity], colors: dict[str, str]) -> Text:
    """Mark the spans that do not overlap an earlier one; `entities` are sorted by start, longer ones first."""
    shown, at = Text(), 0
    together: dict[tuple[int, int], list[str]] = {}
    for entity in entities:
        together.setdefault((entity["start"], entity["end"]), []).append(entity["entity_group"])
    for (start, end), names in together.items():
        if start < at:
            continue
        shown.append(printable(text[at:start]))
        shown.append(f"[{printable(text[start:end])}", f"bold {colors[names[0]]}")
        shown.append(f"|{in_a_cell(', '.join(names))}]", colors[names[0]])
        at = end
    return shown.append(printable(text[at:]))
