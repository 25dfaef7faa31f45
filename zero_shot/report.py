"""Results as a table and a figure."""

from pathlib import Path
from typing import Any

PARTS = [("all", "all types"), ("seen", "types seen in training"), ("held_out", "held-out types")]


def rows(results: dict[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """`(benchmark, types, official F1, strict F1, parse failures)` for each line of a model's table, F1 in percent."""
    lines = []
    for name, result in results["benchmarks"].items():
        for key, label in PARTS:
            part = result if key == "all" else result.get("by_seen", {}).get(key)
            if part:
                failures = f"{result['parse_failures']} of {result['n_queries']}" if key == "all" else ""
                lines.append((name, label, percent(part["official"]), percent(part["strict"]), failures))
    return lines


def percent(scores: dict[str, Any] | None) -> str:
    """F1 in percent with its interval where there is one; a dash where there is no score."""
    if not scores:
        return "-"
    interval = scores.get("interval")
    return f"{100 * scores['f1']:.1f}" + (f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else "")


def markdown_table(runs: list[dict[str, Any]]) -> str:
    """All runs side by side in one Markdown table, and beneath it the gains over the first run."""
    head = "| model | benchmark | types | official F1 [95 %] | strict F1 [95 %] | replies that do not parse |"
    lines = [head, "|---|---|---|--:|--:|--:|"]
    for run in runs:
        lines += [f"| {run['model']['id']} | " + " | ".join(row) + " |" for row in rows(run)]
    sampled = {name: result["sampled"] for name, result in runs[0]["benchmarks"].items() if result.get("sampled")}
    if sampled:
        parts = ", ".join(f"{name} {part['passages']} of {part['of']}" for name, part in sampled.items())
        lines += ["", f"Seeded samples, not whole benchmarks (passages): {parts}."]
    for run in runs[1:]:
        lines += [
            "",
            f"Gain of {run['model']['id']} over {runs[0]['model']['id']} (points of F1, paired bootstrap):",
            "",
        ]
        lines += ["| queries: scorer | gain | 95 % interval |", "|---|--:|--:|"]
        for name, gain in run.get("gains", {}).items():
            low, high = gain["interval"]
            lines.append(f"| {name} | {100 * gain['gain']:+.1f} | {100 * low:+.1f} to {100 * high:+.1f} |")
    return "\n".join(lines)


def plot_f1(runs: list[dict[str, Any]], path: Path) -> None:
    """Bars of F1: one group for each benchmark, type split and scorer, one bar for each model."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = []
    several = len(runs[0]["benchmarks"]) > 1  # then all types alone: the table has the rest
    for name, result in runs[0]["benchmarks"].items():
        for key, label in PARTS[:1] if several else PARTS:
            if key == "all" or key in result.get("by_seen", {}):
                for scorer in ("official", "strict"):
                    if (result if key == "all" else result["by_seen"][key])[scorer]:
                        part = "" if several else label.removesuffix(" in training") + "\n"
                        groups.append((name, key, scorer, part + scorer))
    figure, axes = pyplot.subplots(figsize=(max(7, 1.25 * len(groups)), 4.2), layout="constrained")
    width = 0.8 / len(runs)
    colours = ["#a9b4c2", "#3b6fb6", "#c8553d", "#4f8a5b", "#8c6bb1"]
    for number, run in enumerate(runs):
        for position, (name, key, scorer, _) in enumerate(groups):
            result = run["benchmarks"][name]
            scores = (result if key == "all" else result["by_seen"][key])[scorer]
            value = 100 * scores["f1"]
            label = run["model"]["id"] if position == 0 else None
            x = position + (number - (len(runs) - 1) / 2) * width
            bar = axes.bar(x, value, width * 0.94, color=colours[number % len(colours)], label=label)
            axes.bar_label(bar, fmt="%.1f", fontsize=8, padding=2)
    labels = [f"{name}\n{label}" if several else label for name, _, _, label in groups]
    axes.set_xticks(range(len(groups)), labels, fontsize=8)
    protocol, decoding = runs[0]["protocol"], runs[0]["decoding"]
    axes.set(
        ylabel="F1 (%)", title=f"Zero-shot F1, suite {runs[0]['suite']}, protocol {protocol}, {decoding} decoding"
    )
    axes.margins(y=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=min(3, len(runs)), frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
