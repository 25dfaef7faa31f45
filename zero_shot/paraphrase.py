"""How robust a model is to the wording of a type: F1 under each wording, and the spread (the paper's Figure 7).

A benchmark's YAML lists `wordings` of its types; wording 0 is the type's own name. Row k of the results pools
wording k of all types, so the rows differ only in the words asked.
"""

import statistics
from collections import defaultdict
from pathlib import Path

from command_line.plotting import COLORS, new_figure, save
from hub.markdown import escape
from hub.records import Paraphrases, RunResults, Scorer, Scores

from .records import PredictionLine
from .scoring import MAIN, score


def paraphrases(lines: list[PredictionLine]) -> Paraphrases | None:
    """Compute F1 by wording on one benchmark, for each type and for all together, and its spread over the wordings.

    Only types with several wordings count; None if there are none.
    """
    by_type: dict[str, dict[int, list[PredictionLine]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        by_type[line["type"]][line.get("wording", 0)].append(line)
    by_type = {name: rows for name, rows in by_type.items() if len(rows) > 1}
    if not by_type:
        return None
    numbers = sorted(set.intersection(*(set(rows) for rows in by_type.values())))
    together = [[line for rows in by_type.values() for line in rows[number]] for number in numbers]
    return {
        "wordings": [_scores(part) for part in together],
        "spread": _spread(together),
        "types": {
            name: {
                "wordings": {rows[number][0].get("asked", name): _scores(rows[number]) for number in sorted(rows)},
                "spread": _spread(list(rows.values())),
            }
            for name, rows in sorted(by_type.items())
        },
    }


def paraphrase_table(run: RunResults) -> str:
    """Write a run's robustness in Markdown, a row for each benchmark; empty if nothing was paraphrased."""
    rows = []
    for name, result in run["benchmarks"].items():
        if found := result.get("paraphrases"):
            for scorer in MAIN:
                if spread := found["spread"][scorer]:
                    ranges = {
                        kind: own["max"] - own["min"] if (own := of_type["spread"][scorer]) else 0.0
                        for kind, of_type in found["types"].items()
                    }
                    numbers = [found["wordings"][0][scorer]["f1"], *spread.values()]
                    cells = " | ".join(f"{100 * number:.1f}" for number in numbers)
                    widest = max(ranges, key=lambda kind: ranges[kind])
                    rows.append(f"| {escape(name)} | {scorer} | {cells} | {escape(widest)} |")
    if not rows:
        return ""
    head = ["| benchmark | scorer | own name | mean | std | least | most | widest type |"]
    head.append("|---|---|" + "--:|" * 5 + "---|")
    return "\n".join([f"F1 of {escape(run['model']['id'])} by the wording of the types:", "", *head, *rows])


def plot_paraphrases(runs: list[RunResults], path: Path) -> bool:
    """Draw a dot for each wording, benchmark by benchmark; return False if no run was paraphrased."""
    drawn = [
        (run["model"]["id"], name, [100 * row["official"]["f1"] for row in result["paraphrases"]["wordings"]])
        for run in runs
        for name, result in run["benchmarks"].items()
        if "paraphrases" in result
    ]
    if not drawn:
        return False
    names = list(dict.fromkeys(name for _, name, _ in drawn))
    models = list(dict.fromkeys(model for model, _, _ in drawn))
    figure = new_figure(max(6, 1.3 * len(names)), 4)
    axes = figure.subplots()
    for model, name, values in drawn:
        number = models.index(model)
        x = names.index(name) + 0.16 * (number - (len(models) - 1) / 2)
        color = COLORS[number % len(COLORS)]
        axes.plot([x, x], [min(values), max(values)], color=color, linewidth=1)
        axes.scatter([x] * len(values[1:]), values[1:], s=18, color=color, zorder=3)
        label = f"{model} (hollow: the type's own name)" if name == names[0] else None
        axes.scatter([x], values[:1], s=34, facecolors="white", edgecolors=color, zorder=4, label=label)
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.set(ylabel="official F1 (%)", title="F1 by the wording of the types")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.1, y=0.15)
    figure.legend(loc="outside lower center", ncols=min(2, len(models)), frameon=False, fontsize=8)
    save(figure, path)
    return True


def _scores(lines: list[PredictionLine]) -> dict[Scorer, Scores]:
    return {scorer: found for scorer in MAIN if (found := score(lines, scorer))}


def _spread(parts: list[list[PredictionLine]]) -> dict[Scorer, dict[str, float] | None]:
    """Compute mean, standard deviation, minimum and maximum of F1 over the wordings, under each main scorer."""
    spread: dict[Scorer, dict[str, float] | None] = {}
    for scorer in MAIN:
        f1 = [found["f1"] for part in parts if (found := score(part, scorer))]
        numbers = {"mean": statistics.mean, "std": statistics.pstdev, "min": min, "max": max}
        spread[scorer] = {name: f(f1) for name, f in numbers.items()} if len(f1) == len(parts) else None
    return spread
