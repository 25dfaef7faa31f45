"""The figures of the dataset's card. Names from corpus and teacher are drawn as they are, never as markup."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from command_line.plotting import BLUE, new_figure, save

from .annotation_file import AnnotationFile

BARS = 20  # at most in a figure; the rest is one bar
LONGEST_NAME = 32  # characters, inside a figure
LONGEST_LABEL = 48  # beside a bar
MOST_ENTITIES = 120  # bars of the figure of entities per passage


def plot_all(stats: dict[str, Any], annotations: AnnotationFile, folder: Path) -> None:
    """Types by rank, entities per passage, sources, and what was left out by reason, of the first variant."""
    folder.mkdir(parents=True, exist_ok=True)
    plot_types(annotations.counts, folder / "types_by_rank.png")
    plot_entities(annotations.per_passage, folder / "entities_per_passage.png")
    plot_bars(annotations.sources, "annotated passages by source", "passages", folder / "sources.png")
    plot_bars(left_out(stats), "left out, by stage and reason", "passages, replies, entities or queries",
              folder / "left_out.png", log=True)  # fmt: skip


def left_out(stats: dict[str, Any]) -> Counter[str]:
    """How many were left out by stage and reason, over all variants."""
    reasons = Counter({f"corpus: {reason}": n for reason, n in stats["corpus"].get("dropped", {}).items()})
    for name, part in stats["variants"].items():
        seen = ("replies", "entities_read", "entities_kept")
        for reason, number in {**part["counts"], **part["left_out"]}.items():
            if reason not in seen:
                reasons[f"{name}: {reason}"] += number
    for name, part in stats["supervised"].items():
        reasons.update({f"{name}: {reason}": number for reason, number in part["left_out"].items()})
    return reasons


def plot_types(counts: Counter[str], path: Path) -> None:
    """Frequency of types by rank, both axes logarithmic, the head named."""
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
    """How many passages have how many entities; the longest tail is one bar."""
    total, longest = per_passage.total(), max(per_passage)
    mean = sum(number * passages for number, passages in per_passage.items()) / total
    last = min(longest, MOST_ENTITIES, max(10, round(4 * mean)))
    heights = [per_passage[number] for number in range(last)]
    heights.append(sum(passages for number, passages in per_passage.items() if number >= last))
    with _figure(path, f"entities per passage: mean {mean:.1f}, most {longest:,}") as axes:
        axes.bar(range(last + 1), heights, color=BLUE, width=0.9)
        axes.set(xlabel="distinct entities" + (f" (last bar: {last} or more)" if longest > last else ""))
        axes.set(ylabel="passages")
        axes.grid(alpha=0.3, axis="y", linewidth=0.4)


def plot_bars(counts: Counter[str], title: str, unit: str, path: Path, log: bool = False) -> None:
    """A horizontal bar per name, the largest first, with its number."""
    shown = [(_plain(name, LONGEST_LABEL) or "not named", number) for name, number in counts.most_common(BARS)]
    rest = counts.most_common()[BARS:]
    if rest:
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
def _figure(path: Path, title: str, height: float = 4.2) -> Iterator[Any]:
    figure = new_figure(7, max(2.2, height))
    axes = figure.add_subplot(title=title)
    yield axes
    save(figure, path)


def _plain(name: str, longest: int = LONGEST_NAME) -> str:
    """A name short enough for an axis, its dollars no formula."""
    name = " ".join(name.split())
    short = name if len(name) <= longest else name[: longest - 1] + "…"
    return short.replace("$", r"\$")
