"""Figure of a training run: loss and accuracy by step."""

from pathlib import Path

from command_line.plotting import BLUE, GREEN, RED, new_figure, save


def plot_learning_curve(history: list[dict[str, float]], path: Path) -> None:
    """Plot loss and token accuracy of the answers by step, and held-out loss and entity F1 where they were measured.

    `history` has the Trainer's log entries.
    """
    figure = new_figure(7, 4)
    left = figure.subplots()
    right = left.twinx()
    drawn = []
    for axes, name, label, color, line, marker in (
        (left, "loss", "loss", BLUE, "-", ""),
        (left, "eval_loss", "held-out loss", BLUE, "--", "o"),
        (right, "mean_token_accuracy", "token accuracy", RED, "-", ""),
        (right, "eval_entity_f1", "held-out entity F1", GREEN, "-", "o"),
    ):
        logged = [entry for entry in history if name in entry]
        if logged:
            steps, values = [entry["step"] for entry in logged], [entry[name] for entry in logged]
            axes.plot(steps, values, label=label, color=color, linestyle=line, marker=marker, markersize=3)
            drawn.append((axes, label))
    left.set(xlabel="step", ylabel="loss on the answers", title="Learning curve", ylim=(0, None))
    right.set(ylabel=", ".join(label for axes, label in drawn if axes is right), ylim=(0, 1))
    left.grid(alpha=0.3, linewidth=0.4)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    save(figure, path)
