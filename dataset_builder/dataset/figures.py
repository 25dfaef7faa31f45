"""The figures of the dataset card."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from command_line.build_statistics import BuildStatistics, rejects_by_stage
from command_line.plotting import BLUE, new_figure, save

from .annotation_file import AnnotationFile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BARS = 20  # maximum number of bars in a figure; one more bar sums up the rest
LONGEST_NAME = 32  # characters of a name in a figure
LONGEST_LABEL = 48  # characters of the label of a bar
MOST_ENTITIES = 120  # maximum number of bars in the figure of entities per passage


def plot_all(stats: BuildStatistics, annotations: AnnotationFile, folder: Path) -> None:
    """Plot types by rank, entities per passage and sources of the first config, and all rejects by reason."""
    plot_types(annotations.counts, folder / "types_by_rank.png")
    plot_entities(annotations.per_passage, folder / "entities_per_passage.png")
    plot_bars(annotations.sources, "annotated passages by source", "passages", folder / "sources.png")
    rejects: Counter[str] = Counter()
    for part, _, reason, number in rejects_by_stage(stats):
        rejects[f"{part}: {reason}"] += number
    plot_bars(rejects, "rejects by reason", "passages, replies, entities or queries", folder / "rejects.png", log=True)


def plot_types(counts: Counter[str], path: Path) -> None:
    """Plot the frequency of types by rank on logarithmic axes, with the names of some frequent types."""
    ranked = counts.most_common()
    with _figure(path, f"{len(ranked):,} entity types by frequency") as axes:
        axes.loglog(range(1, len(ranked) + 1), [count for _, count in ranked], ".", color=BLUE, markersize=5)
        for rank, (name, count) in enumerate(ranked, 1):
            if rank in (1, 2, 4, 8, 16, 32, 64, 128):
                axes.annotate(_plain(name), (rank, count), xytext=(4, 5), textcoords="offset points", fontsize=8)
        axes.set(xlabel="rank of the entity type", ylabel="entities")
        axes.grid(alpha=0.3, which="both", linewidth=0.4)
        axes.margins(x=0.12, y=0.12)


def plot_entities(per_passage: Counter[int], path: Path) -> None:
    """Plot the number of passages by their number of entities; one bar sums up the tail."""
    total, longest = per_passage.total(), max(per_passage)
    mean = sum(number * passages for number, passages in per_passage.items()) / total
    last = min(longest, MOST_ENTITIES, max(10, round(4 * mean)))
    heights = [per_passage[number] for number in range(last)]
    heights.append(sum(passages for number, passages in per_passage.items() if number >= last))
    with _figure(path, f"entities per passage: mean {mean:.1f}, most {longest:,}") as axes:
        axes.bar(range(last + 1), heights, color=BLUE, width=0.9)
        unit = "distinct entities" + (f" (last bar: {last} or more)" if longest > last else "")
        axes.set(xlabel=unit, ylabel="passages")
        axes.grid(alpha=0.3, axis="y", linewidth=0.4)


def plot_bars(counts: Counter[str], title: str, unit: str, path: Path, log: bool = False) -> None:
    """Plot a horizontal bar per name with its number, the largest first."""
    shown = [(_plain(name, LONGEST_LABEL) or "not named", number) for name, number in counts.most_common(BARS)]
    if rest := counts.most_common()[BARS:]:
        shown.append((f"{len(rest):,} others", sum(number for _, number in rest)))
    shown = shown or [("nothing", 0)]
    with _figure(path, title, height=0.9 + 0.26 * len(shown)) as axes:
        bars = axes.barh(range(len(shown)), [number for _, number in shown], color=BLUE)
        axes.bar_label(bars, labels=[f"{number:,}" for _, number in shown], padding=3, fontsize=8)
        axes.set_yticks(range(len(shown)), [name for name, _ in shown], fontsize=8)
        axes.invert_yaxis()
        axes.set(xlabel=unit)
        if log and any(number for _, number in shown):
            axes.set_xscale("log")
        axes.margins(x=0.15)
        axes.grid(alpha=0.3, axis="x", linewidth=0.4)


@contextmanager
def _figure(path: Path, title: str, height: float = 4.2) -> "Iterator[Axes]":
    figure = new_figure(7, max(2.2, height))
    yield figure.add_subplot(title=title)
    save(figure, path)


def _plain(name: str, longest: int = LONGEST_NAME) -> str:
    """Return a name on one line, shortened, and with escaped dollar signs, which matplotlib reads as math mode."""
    name = " ".join(name.split())
    short = name if len(name) <= longest else name[: longest - 1] + "…"
    return short.replace("$", r"\$")
