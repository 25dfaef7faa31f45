"""How robust a model is to the wording of a type: F1 under each wording, and the spread (the paper's Figure 7).

A benchmark's YAML lists `wordings` for its types. Wording 0 is the type's own name; wording k of all types together
makes the k-th row, so that the rows differ in nothing but the words.
"""

import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from .scoring import MAIN, Prediction, score


def paraphrases(lines: list[Prediction]) -> dict[str, Any] | None:
    """F1 by wording, over all types and for each, with mean, standard deviation, least and most over the wordings.

    `lines` are a benchmark's predictions, those of a paraphrase with `asked` and the number of their `wording`. None
    where nothing was paraphrased. Types without other wordings are left out.
    """
    by_type: dict[str, dict[int, list[Prediction]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        by_type[line["type"]][line.get("wording", 0)].append(line)
    by_type = {name: rows for name, rows in by_type.items() if len(rows) > 1}
    if not by_type:
        return None
    numbers = sorted(set.intersection(*(set(rows) for rows in by_type.values())))
    together = {number: [line for rows in by_type.values() for line in rows[number]] for number in numbers}
    return {
        "wordings": [_scores(together[number]) for number in numbers],
        "spread": {scorer: _spread([score(part, scorer) for part in together.values()]) for scorer in MAIN},
        "types": {
            name: {
                "wordings": {rows[number][0].get("asked", name): _scores(rows[number]) for number in sorted(rows)},
                "spread": {scorer: _spread([score(part, scorer) for part in rows.values()]) for scorer in MAIN},
            }
            for name, rows in sorted(by_type.items())
        },
    }


def paraphrase_table(results: dict[str, Any]) -> str:
    """A run's robustness in Markdown: a row for each benchmark; empty where nothing was paraphrased."""
    from hub.markdown import escape

    rows = []
    for name, result in results["benchmarks"].items():
        for scorer in MAIN:
            if found := result.get("paraphrases", {}).get("spread", {}).get(scorer):
                own = result["paraphrases"]["wordings"][0][scorer]["f1"]
                types = result["paraphrases"]["types"]
                widest = max(types, key=lambda kind: _range(types[kind]["spread"][scorer]))
                numbers = [own, found["mean"], found["std"], found["min"], found["max"]]
                cells = " | ".join(f"{100 * number:.1f}" for number in numbers)
                rows.append(f"| {escape(name)} | {scorer} | {cells} | {escape(widest)} |")
    if not rows:
        return ""
    head = ["| benchmark | scorer | own name | mean | std | least | most | widest type |"]
    head.append("|---|---|" + "--:|" * 5 + "---|")
    return "\n".join([f"F1 of {escape(results['model']['id'])} by the wording of the types:", "", *head, *rows])


def plot_paraphrases(runs: list[dict[str, Any]], path: Path) -> bool:
    """A dot for each wording, benchmark by benchmark; False where no run was paraphrased."""
    drawn = [
        (run, name, result["paraphrases"]["wordings"])
        for run in runs
        for name, result in run["benchmarks"].items()
        if "paraphrases" in result
    ]
    if not drawn:
        return False
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(name for _, name, _ in drawn))
    models = list(dict.fromkeys(run["model"]["id"] for run, _, _ in drawn))
    colors = ["#3b6fb6", "#c8553d", "#4f8a5b", "#8c6bb1"]
    figure, axes = pyplot.subplots(figsize=(max(6, 1.3 * len(names)), 4), layout="constrained")
    for run, name, wordings in drawn:
        number = models.index(run["model"]["id"])
        x = names.index(name) + 0.16 * (number - (len(models) - 1) / 2)
        values = [100 * row["official"]["f1"] for row in wordings]
        color = colors[number % len(colors)]
        axes.plot([x, x], [min(values), max(values)], color=color, linewidth=1)
        axes.scatter([x] * len(values[1:]), values[1:], s=18, color=color, zorder=3)
        label = f"{models[number]} (hollow: the type's own name)" if name == names[0] else None
        axes.scatter([x], values[:1], s=34, facecolors="white", edgecolors=color, zorder=4, label=label)
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.set(ylabel="official F1 (%)", title="F1 by the wording of the types")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.1, y=0.15)
    figure.legend(loc="outside lower center", ncols=min(2, len(models)), frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
    return True


def _scores(lines: list[Prediction]) -> dict[str, Any]:
    return {scorer: found for scorer in MAIN if (found := score(lines, scorer))}


def _spread(scores: list[dict[str, float] | None]) -> dict[str, float] | None:
    if not all(scores):
        return None
    values = [found["f1"] for found in scores]
    return {
        "mean": statistics.mean(values),
        "std": statistics.pstdev(values),
        "min": min(values),
        "max": max(values),
    }


def _range(spread: dict[str, float] | None) -> float:
    return spread["max"] - spread["min"] if spread else 0.0
