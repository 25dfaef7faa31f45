"""The course of a training run as a picture."""

from pathlib import Path
from typing import Any


def plot_learning_curve(history: list[dict[str, Any]], path: Path) -> None:
    """Loss and token accuracy on the answers by step, and where a run was evaluated, held-out loss and entity F1.

    `history` holds the Trainer's log entries.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, left = pyplot.subplots(figsize=(7, 4), layout="constrained")
    right = left.twinx()
    for axes, name, label, style in (
        (left, "loss", "loss", {"color": "#3b6fb6"}),
        (left, "eval_loss", "held-out loss", {"color": "#3b6fb6", "linestyle": "--", "marker": "o", "markersize": 3}),
        (right, "mean_token_accuracy", "token accuracy", {"color": "#c8553d"}),
        (right, "eval_entity_f1", "held-out entity F1", {"color": "#4f8a5b", "marker": "o", "markersize": 3}),
    ):
        points = [(entry["step"], entry[name]) for entry in history if name in entry]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, **style)
    left.set(xlabel="step", ylabel="loss on the answers", title="Learning curve", ylim=(0, None))
    right.set(ylabel="token accuracy, entity F1", ylim=(0, 1))
    left.grid(alpha=0.3, linewidth=0.4)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
