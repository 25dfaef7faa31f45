"""The course of a training run as a picture."""

from pathlib import Path
from typing import Any

from command_line import plotting


def plot_learning_curve(history: list[dict[str, Any]], path: Path) -> None:
    """Loss and token accuracy on the answers by step, and where a run was evaluated, held-out loss and entity F1.

    `history` holds the Trainer's log entries.
    """
    figure = plotting.new_figure(7, 4)
    left = figure.subplots()
    right = left.twinx()
    for axes, name, label, color, line, marker in (
        (left, "loss", "loss", plotting.BLUE, "-", ""),
        (left, "eval_loss", "held-out loss", plotting.BLUE, "--", "o"),
        (right, "mean_token_accuracy", "token accuracy", plotting.RED, "-", ""),
        (right, "eval_entity_f1", "held-out entity F1", plotting.GREEN, "-", "o"),
    ):
        points = [(entry["step"], entry[name]) for entry in history if name in entry]
        if points:
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, label=label, color=color, linestyle=line, marker=marker, markersize=3)
    left.set(xlabel="step", ylabel="loss on the answers", title="Learning curve", ylim=(0, None))
    right.set(ylabel="token accuracy, entity F1", ylim=(0, 1))
    left.grid(alpha=0.3, linewidth=0.4)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    plotting.save(figure, path)
