"""Results as figures: F1 bars beside published rows, errors by type, one run against another."""

from pathlib import Path
from typing import Any

COLORS = ["#a9b4c2", "#3b6fb6", "#c8553d", "#4f8a5b", "#8c6bb1"]
GREYS = ["#a9b4c2", "#6f7a87"]  # of what was not measured here
ERRORS = {"missed": "#a9b4c2", "boundary": "#e0a458", "type": "#8c6bb1", "spurious": "#c8553d"}
MOST_TYPES = 24
Results = dict[str, Any]
PARTS = [("all", "all types"), ("seen", "types seen"), ("held_out", "held-out types")]


def plot_f1(runs: list[Results], path: Path, published: dict[str, Any] | None = None) -> None:
    """Bars of F1: a group for each benchmark and scorer, and each type split where there is one benchmark alone.

    With `published` the groups are its benchmarks under the official scorer, and its rows marked `shown` are hatched
    bars.
    """
    pyplot = _pyplot()
    several = len(runs[0]["benchmarks"]) > 1  # then all types alone: the table has the rest
    scorers = ("official",) if published else ("official", "strict")
    groups = []
    for name, result in runs[0]["benchmarks"].items():
        for key, label in PARTS[:1] if several else PARTS:
            if key == "all" or key in result.get("by_seen", {}):
                for scorer in scorers:
                    if (result if key == "all" else result["by_seen"][key])[scorer]:
                        text = name.replace("_", "\n") if published else f"{name if several else label}\n{scorer}"
                        groups.append((name, key, scorer, text))
    bars: list[tuple[str, list[float | None], bool]] = []
    for run in runs:
        measured = "measured here" + (", samples" if any(b.get("sampled") for b in run["benchmarks"].values()) else "")
        label = f"{run['model']['id']} ({measured})" if published else run["model"]["id"]
        bars.append((label, [_value(run, *group[:3]) for group in groups], False))
    for row in published["rows"] if published else []:
        if row.get("shown"):
            by_name = dict(zip(published["benchmarks"], row["f1"], strict=True))
            bars.append((f"{row['model']} (published)", [by_name.get(group[0]) for group in groups], True))
    figure, axes = pyplot.subplots(figsize=(max(7, 0.5 * len(groups) * (len(bars) + 0.5)), 4.4), layout="constrained")
    width = 0.84 / len(bars)
    for number, (label, values, hatched) in enumerate(bars):
        places = [position + (number - (len(bars) - 1) / 2) * width for position in range(len(groups))]
        color = GREYS[number % 2] if hatched else COLORS[(number + bool(published)) % len(COLORS)]
        style = {"color": "white", "edgecolor": color, "hatch": "///"} if hatched else {"color": color}
        drawn = axes.bar(places, [value or 0 for value in values], width * 0.92, label=label, **style)
        texts = ["" if value is None else f"{value:.1f}" for value in values]
        axes.bar_label(drawn, texts, fontsize=7, padding=2)
    axes.set_xticks(range(len(groups)), [group[3] for group in groups], fontsize=8)
    suite, protocol, decoding = (runs[0][name] for name in ("suite", "protocol", "decoding"))
    axes.set(ylabel="F1 (%)", title=f"Zero-shot F1, suite {suite}, protocol {protocol}, {decoding} decoding")
    axes.margins(y=0.15)
    figure.legend(loc="outside lower center", ncols=min(2, len(bars)), frameon=False, fontsize=8)
    _save(pyplot, figure, [axes], path)


def plot_errors(run: Results, path: Path) -> bool:
    """How the predictions of a run went wrong, type by type, those with most errors; False where nothing is known."""
    rows = {
        name if len(run["benchmarks"]) == 1 else f"{name} ({benchmark})": (row["strict"].get("tp", 0), row["errors"])
        for benchmark, result in run["benchmarks"].items()
        for name, row in (result.get("per_type") or {}).items()
        if row["errors"]
    }
    if not rows:
        return False
    worst = sorted(rows, key=lambda name: -sum(rows[name][1].values()))[:MOST_TYPES][::-1]
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(8, 1.6 + 0.26 * len(worst)), layout="constrained")
    left = [0.0] * len(worst)
    for kind, color in {"right": "#4f8a5b", **ERRORS}.items():
        widths = [rows[name][0] if kind == "right" else rows[name][1][kind] for name in worst]
        axes.barh(range(len(worst)), widths, left=left, color=color, label=kind, height=0.8)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.set_yticks(range(len(worst)), worst, fontsize=8)
    axes.set(xlabel="spans", title=f"Errors by type: {run['model']['id']}")
    axes.margins(y=0.01)
    figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    _save(pyplot, figure, [axes], path)
    return True


def plot_pair(first: Results, second: Results, path: Path) -> bool:
    """F1 of two runs type by type, one against the other: teacher against student; False without types in common."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(5.4, 5.4), layout="constrained")
    axes.plot([0, 100], [0, 100], color="#bbbbbb", linewidth=0.8)
    drawn = False
    for number, (name, result) in enumerate(second["benchmarks"].items()):
        ours, theirs = (table.get("per_type") or {} for table in (result, first["benchmarks"].get(name, {})))
        both = [kind for kind in ours if kind in theirs]
        both = [kind for kind in both if theirs[kind]["official"]["n_gold"]]
        x, y = ([100 * table[kind]["official"]["f1"] for kind in both] for table in (theirs, ours))
        sizes = [6 + 3 * theirs[kind]["official"]["n_gold"] ** 0.5 for kind in both]
        axes.scatter(x, y, s=sizes, color=(COLORS * 2)[number + 1], alpha=0.75, label=name)
        drawn = drawn or bool(both)
    axes.set(xlabel=f"official F1 (%): {first['model']['id']}", ylabel=f"official F1 (%): {second['model']['id']}")
    axes.set(title="Type by type; larger: more gold entities", xlim=(-3, 103), ylim=(-3, 103))
    if len(second["benchmarks"]) > 1:
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    if drawn:
        _save(pyplot, figure, [axes], path)
    pyplot.close(figure)
    return drawn


def _value(run: Results, name: str, key: str, scorer: str) -> float | None:
    result = run["benchmarks"].get(name)
    part = result if key == "all" or result is None else result.get("by_seen", {}).get(key)
    return 100 * part[scorer]["f1"] if part and part.get(scorer) else None


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _save(pyplot: Any, figure: Any, axes: list[Any], path: Path) -> None:
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
