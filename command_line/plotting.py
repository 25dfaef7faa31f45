"""The colors, size and file format of all figures."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = BLUE, RED, GREEN, PURPLE = ("#3b6fb6", "#c8553d", "#4f8a5b", "#8c6bb1")
GREY, DARK_GREY, LIGHT_GREY, ORANGE = "#a9b4c2", "#6f7a87", "#bbbbbb", "#e0a458"


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure of a size in inches; unlike pyplot's figures, it need not be closed."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(figure: "Figure", path: Path) -> None:
    """Save a figure, and create its folder if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
