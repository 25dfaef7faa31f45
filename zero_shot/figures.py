"""Results as figures: F1 bars beside published rows, errors by type, one run against another."""

from pathlib import Path
from typing import Any, Literal

from command_line.plotting import COLORS, DARK_GREY, GREEN, GREY, LIGHT_GREY, ORANGE, PURPLE, RED, new_figure, save
from hub.records import MAIN, Comparison, Published, RunResults, scores_of
from hub.results_tables import run_label

from .records import is_sampled

RUN_COLORS = (GREY, *COLORS)  # the first run is the reference
ERROR_COLORS = {"right": GREEN, "missed": GREY, "boundary": ORANGE, "type": PURPLE, "spurious": RED}
MIN_LABELED_BAR = 8  # F1 in percent; lower bars have their number above the interval
MOST_TYPES = 24
TYPES = {"all": "all types", "seen": "types seen", "held_out": "held-out types"}


def plot_f1(runs: list[RunResults], path: Path, published: Published | None = None) -> None:
    """Draw bars of F1 for each benchmark and scorer, and for seen and held-out types if there is only one benchmark.

    With `published`, the groups are benchmarks under the official scorer, and published rows marked `shown` are
    hatched bars.
    """
    several = len(runs[0]["benchmarks"]) > 1
    groups: list[tuple[str, str, Literal["official", "strict"]]] = [
        (name, types, scorer)
        for name in runs[0]["benchmarks"]
        for types in (["all"] if several else TYPES)
        for scorer in (MAIN[:1] if published else MAIN)
        if scores_of(runs[0], name, types, scorer)
    ]
    if published:
        labels = [name.replace("_", "\n") for name, _, _ in groups]
    else:
        labels = [f"{name if several else TYPES[types]}\n{scorer}" for name, types, scorer in groups]
    bars: list[tuple[str, list[float | None], bool]] = []  # label, values, whether published
    for run in runs:
        measured = "measured here, samples" if is_sampled(run) else "measured here"
        label = f"{run_label(run, runs)} ({measured})" if published else run_label(run, runs)
        values = [100 * scores["f1"] if (scores := scores_of(run, *group)) else None for group in groups]
        bars.append((label, values, False))
    if published:
        for row in (row for row in published["rows"] if row.get("shown")):
            by_name = dict(zip(published["benchmarks"], row["f1"], strict=True))
            bars.append((f"{row['model']} (published)", [by_name.get(name) for name, _, _ in groups], True))
    figure = new_figure(max(7, 0.5 * len(groups) * (len(bars) + 0.5)), 4.4)
    axes = figure.subplots()
    width = 0.84 / len(bars)
    for number, (label, values, is_published) in enumerate(bars):
        places = [position + (number - (len(bars) - 1) / 2) * width for position in range(len(groups))]
        style: dict[str, Any] = {"color": RUN_COLORS[(number + bool(published)) % len(RUN_COLORS)]}
        if is_published:
            style = {"color": "white", "edgecolor": (GREY, DARK_GREY)[number % 2], "hatch": "///"}
        drawn = axes.bar(places, [value or 0 for value in values], width * 0.92, label=label, **style)
        axes.bar_label(drawn, ["" if value is None else f"{value:.1f}" for value in values], fontsize=7, padding=2)
    axes.set_xticks(range(len(groups)), labels, fontsize=8)
    options = ("suite", "protocol", "decoding")
    suite, protocol, decoding = (" and ".join(dict.fromkeys(run[name] for run in runs)) for name in options)
    axes.set(ylabel="F1 (%)", title=f"Zero-shot F1, suite {suite}, protocol {protocol}, {decoding} decoding")
    axes.margins(y=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=min(2, len(bars)), frameon=False, fontsize=8)
    save(figure, path)


def plot_errors(run: RunResults, path: Path) -> None:
    """Draw the errors of the types with the most errors; draw nothing if the results have no errors by type."""
    is_one = len(run["benchmarks"]) == 1
    rows = {
        name if is_one else f"{name} ({benchmark})": {"right": row["strict"]["tp"], **row["errors"]}
        for benchmark, result in run["benchmarks"].items()
        for name, row in (result.get("per_type") or {}).items()
        if row["errors"]
    }
    if not rows:
        return
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


def plot_pair(first: RunResults, second: RunResults, path: Path) -> None:
    """Draw F1 of two runs type by type, one against the other; draw nothing if they have no type in common."""
    figure = new_figure(5.4, 5.4)
    axes = figure.subplots()
    axes.plot([0, 100], [0, 100], color=LIGHT_GREY, linewidth=0.8)
    found = False
    for number, (name, result) in enumerate(second["benchmarks"].items(), 1):
        other = first["benchmarks"].get(name)
        ours, theirs = (table and table.get("per_type") or {} for table in (result, other))
        both = [kind for kind in ours if kind in theirs and theirs[kind]["official"]["n_gold"]]
        x, y = ([100 * table[kind]["official"]["f1"] for kind in both] for table in (theirs, ours))
        sizes = [6 + 3 * theirs[kind]["official"]["n_gold"] ** 0.5 for kind in both]
        axes.scatter(x, y, s=sizes, color=RUN_COLORS[number % len(RUN_COLORS)], alpha=0.75, label=name)
        found = found or bool(both)
    names = [f"official F1 (%): {run_label(run, [first, second])}" for run in (first, second)]
    axes.set(xlabel=names[0], ylabel=names[1])
    axes.set(title="Type by type; larger: more gold entities", xlim=(-3, 103), ylim=(-3, 103))
    axes.spines[["top", "right"]].set_visible(False)
    if len(second["benchmarks"]) > 1:
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    if found:
        save(figure, path)


def plot_paraphrases(runs: list[RunResults], path: Path) -> None:
    """Draw a dot for each wording, benchmark by benchmark; draw nothing if no run asked other wordings."""
    asked = [run for run in runs if any("paraphrases" in result for result in run["benchmarks"].values())]
    drawn = [
        (number, name, [100 * row["official"]["f1"] for row in result["paraphrases"]["wordings"]])
        for number, run in enumerate(asked)
        for name, result in run["benchmarks"].items()
        if "paraphrases" in result
    ]
    if not drawn:
        return
    names = list(dict.fromkeys(name for _, name, _ in drawn))
    figure = new_figure(max(6, 1.3 * len(names)), 4)
    axes = figure.subplots()
    for number, name, values in drawn:
        x = names.index(name) + 0.16 * (number - (len(asked) - 1) / 2)
        color = COLORS[number % len(COLORS)]
        axes.plot([x, x], [min(values), max(values)], color=color, linewidth=1)
        axes.scatter([x] * len(values[1:]), values[1:], s=18, color=color, zorder=3)
        model = run_label(asked[number], asked)
        label = f"{model} (hollow: the type's own name)" if name == names[0] else None
        axes.scatter([x], values[:1], s=34, facecolors="white", edgecolors=color, zorder=4, label=label)
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.set(ylabel="official F1 (%)", title="F1 by the wording of the types")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.1, y=0.15)
    figure.legend(loc="outside lower center", ncols=min(2, len(asked)), frameon=False, fontsize=8)
    save(figure, path)


def plot_against_teacher(comparison: Comparison, path: Path) -> None:
    """Draw F1 of each model with its 95 % interval, and strict F1 of the types with most gold spans."""
    name, runs = comparison["benchmark"], comparison["runs"]
    results = [run["benchmarks"][name] for run in runs]
    gold = {kind: row["strict"]["n_gold"] for kind, row in results[0]["per_type"].items()}
    types = sorted(gold, key=lambda kind: -gold[kind])[:MOST_TYPES][::-1]
    figure = new_figure(9.5, max(3.6, 1.6 + 0.3 * len(types)))
    left, right = figure.subplots(1, 2, width_ratios=[2, 3])
    width = 0.84 / len(runs)
    for number, (run, role, result) in enumerate(zip(runs, comparison["roles"], results, strict=True)):
        color, shift = RUN_COLORS[number % len(RUN_COLORS)], number - (len(runs) - 1) / 2
        scores = [result[scorer] for scorer in MAIN]
        f1 = [100 * each["f1"] for each in scores if each]
        bounds = [[100 * bound for bound in each.get("interval", [each["f1"]] * 2)] for each in scores if each]
        errors = [
            [max(0, value - low) for value, (low, _) in zip(f1, bounds, strict=True)],
            [max(0, high - value) for value, (_, high) in zip(f1, bounds, strict=True)],
        ]
        places = [place + shift * width for place in range(len(f1))]
        label = f"{run['model']['id']} ({role})"
        left.bar(places, f1, width * 0.92, color=color, yerr=errors, ecolor=DARK_GREY, capsize=3, label=label)
        for place, value, (_, high) in zip(places, f1, bounds, strict=True):
            fits = value >= MIN_LABELED_BAR
            ink = "white" if fits and number else "black"  # only the first color is light
            height = 1 if fits else high + 1
            left.annotate(f"{value:.1f}", (place, height), ha="center", va="bottom", fontsize=8, color=ink)
        values = [100 * result["per_type"][kind]["strict"]["f1"] for kind in types]
        right.scatter(values, [place - 0.12 * shift for place in range(len(types))], s=36, color=color, zorder=3)
    left.set_xticks(range(len(MAIN)), MAIN)
    left.set(ylabel="F1 (%)", ylim=(0, 103), title=f"{name}: {comparison['n_passages']} passages, 95 % intervals")
    right.set_yticks(range(len(types)), [f"{kind} ({gold[kind]:g})" for kind in types], fontsize=8)
    right.set(xlabel="strict F1 (%)", xlim=(-3, 103), title="By type (gold spans)")
    right.grid(axis="y", color=LIGHT_GREY, linewidth=0.4)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=min(2, len(runs)), frameon=False, fontsize=8)
    save(figure, path)
