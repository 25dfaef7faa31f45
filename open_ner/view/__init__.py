"""Look at annotated passages: as one HTML file, or as marked text in a terminal.

    open-ner view runs/my-dataset/annotations.type.jsonl --output page.html

`open_page` reads a file, `render_html` and `render_terminal` show what it returns. `render_fragment` is for other
pages, such as the demo. Nothing here imports torch.
"""

from .html import render_fragment, render_html
from .passages import RejectedSpan, ShownPassage, ShownSpan
from .sources import open_page
from .terminal import render_terminal

__all__ = [
    "ShownPassage",
    "RejectedSpan",
    "ShownSpan",
    "open_page",
    "render_fragment",
    "render_html",
    "render_terminal",
]
