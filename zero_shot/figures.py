"""Results as figures: F1 bars beside published rows, errors by type, one run against another."""

from pathlib import Path
from typing import Any

from command_line.plotting import COLORS, DARK_GREY, GREEN, GREY, LIGHT_GREY, ORANGE, PURPLE, RED, new_figure, save
from hub.records import RunResults

from .records import Published, scores_of
from .scoring import MAIN

RUN_COLORS = (GREY, *COLORS)  # the first run is the baseline
ERROR_COLORS = {"right": GREEN, "missed": GREY, "boundary": ORANGE, "type": PURPLE, "spurious": RED}
MOST_TYPES = 24
TYPES = {"all": "all types", "seen": "types seen", "held_out": "held-out types"}


def plot_f1(runs: list[RunResults], path: Path, published: Published | None = None) -> None:
    """Draw bars of F1 for each benchmark and scorer, and for seen and held-out types if there is one benchmark.

    With `published`, the groups are benchmarks under the official scorer, and published rows marked `shown` are
    hatched bars.
    """
    first = runs[0]["benchmarks"]
    several = len(first) > 1
    groups = []
    for name, result in first.items():
        for types, label in TYPES.items():
            part = None if several and types != "all" else scores_of(result, types)
            for scorer in MAIN[:1] if published else MAIN:
                if part and part[scorer]:
                    text = name.replace("_", "\n") if published else f"{name if several else label}\n{scorer}"
                    groups.append((name, types, scorer, text))
    bars: list[tuple[str, list[float | None], bool]] = []  # label, values, whether published
    for run in runs:
        measured = "measured here" + (", samples" if any(b.get("sampled") for b in run["benchmarks"].values()) else "")
        label = f"{run['model']['id']} ({measured})" if published else run["model"]["id"]
        values: list[float | None] = []
        for name, types, scorer, _ in groups:
            part = scores_of(run["benchmarks"][name], types) if name in run["benchmarks"] else None
            scores = part[scorer] if part else None
            values.append(100 * scores["f1"] if scores else None)
        bars.append((label, values, False))
    for row in published["rows"] if published else []:
        if published and row.get("shown"):
            by_name = dict(zip(published["benchmarks"], row["f1"], strict=True))
            bars.append((f"{row['model']} (published)", [by_name.get(group[0]) for group in groups], True))
    figure = new_figure(max(7, 0.5 * len(groups) * (len(bars) + 0.5)), 4.4)
    axes = figure.subplots()
    width = 0.84 / len(bars)
    for number, (label, values, is_published) in enumerate(bars):
        places = [position + (number - (len(bars) - 1) / 2) * width for position in range(len(groups))]
        heights = [value or 0 for value in values]
        style: dict[str, Any] = {"color": RUN_COLORS[(number + bool(published)) % len(RUN_COLORS)]}
        if is_published:
            style = {"color": "white", "edgecolor": (GREY, DARK_GREY)[number % 2], "hatch": "///"}
        drawn = axes.bar(places, heights, width * 0.92, label=label, **style)
        texts = ["" if value is None else f"{value:.1f}" for value in values]
        axes.bar_label(drawn, texts, fontsize=7, padding=2)
    axes.set_xticks(range(len(groups)), [group[3] for group in groups], fontsize=8)
    suite, protocol, decoding = (runs[0][name] for name in ("suite", "protocol", "decoding"))
    axes.set(ylabel="F1 (%)", title=f"Zero-shot F1, suite {suite}, protocol {protocol}, {decoding} decoding")
    axes.margins(y=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=min(2, len(bars)), frameon=False, fontsize=8)
    save(figure, path)


def plot_errors(run: RunResults, path: Path) -> bool:
    """Draw the errors of the types that have most; return False if the results do not hold them."""
    rows = {
        name if len(run["benchmarks"]) == 1 else f"{name} ({benchmark})": {
            "right": row["strict"]["tp"],
            **row["errors"],
        }
        for benchmark, result in run["benchmarks"].items()
        for name, row in (result.get("per_type") or {}).items()
        if row["errors"]
    }
    if not rows:
        return False
    worst = sorted(rows, key=lambda name: rows[name]["right"] - sum(rows[name].values()))[:MOST_TYPES][::-1]
    figure = new_figure(8, 1.6 + 0.26 * len(worst))
    axes = figure.subplots()
    left = [0.0] * len(worst)
    for kind, color in ERROR_COLORS.items():
        widths = [rows[name][kind] for name in worst]
        axes.barh(range(len(worst)), widths, left=left, color=color, label=kind, height=0.8)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.set_yticks(range(len(worst)), worst, fontsize=8)
    axes.set(xlabel="spans", title=f"Errors by type: {run['model']['id']}")
    axes.margins(y=0.01)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    save(figure, path)
    return True


def plot_pair(first: RunResults, second: RunResults, path: Path) -> bool:
    """Draw F1 of two runs type by type, one against the other; return False if they have no type in common."""
    figure = new_figure(5.4, 5.4)
    axes = figure.subplots()
    axes.plot([0, 100], [0, 100], color=LIGHT_GREY, linewidth=0.8)
    found = False
    for number, (name, result) in enumerate(second["benchmarks"].items()):
        other = first["benchmarks"].get(name)
        ours, theirs = (table and table.get("per_type") or {} for table in (result, other))
        both = [kind for kind in ours if kind in theirs and theirs[kind]["official"]["n_gold"]]
        x, y = ([100 * table[kind]["official"]["f1"] for kind in both] for table in (theirs, ours))
        sizes = [6 + 3 * theirs[kind]["official"]["n_gold"] ** 0.5 for kind in both]
        color = RUN_COLORS[(number + 1) % len(RUN_COLORS)]
        axes.scatter(x, y, s=sizes, color=color, alpha=0.75, label=name)
        found = found or bool(both)
    axes.set(xlabel=f"official F1 (%): {first['model']['id']}", ylabel=f"official F1 (%): {second['model']['id']}")
    axes.set(title="Type by type; larger: more gold entities", xlim=(-3, 103), ylim=(-3, 103))
    axes.spines[["top", "right"]].set_visible(False)
    if len(second["benchmarks"]) > 1:
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    if found:
        save(figure, path)
    return found
