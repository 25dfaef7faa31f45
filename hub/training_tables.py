"""Tables about a student's training: data, compute, and overlap with benchmarks."""

from collections.abc import Sequence

from command_line.build_statistics import Overlap

from .markdown import escape
from .records import TrainingData, TrainingRecord
from .results_tables import table_head, table_row

COUNTS = {
    "conversations": "conversations", "queries": "queries", "present": "queries whose type occurs",
    "answer_tokens": "answer tokens", "tokens": "tokens of the conversations",
}  # fmt: skip


def training_table(training: TrainingRecord, data: TrainingData, types: int) -> str:
    """Write the size of the training data, its teacher, and the compute of a training run."""
    counts, last = training["trained_on"], (training["history"] or [{}])[-1]
    rows = [(label, f"{counts[name]:,}") for name, label in COUNTS.items() if name in counts]
    if types:
        rows.append(("types", f"{types:,}"))
    if data["teacher"]:
        rows.append(("teacher", escape(", ".join(data["teacher"]))))
    if "num_tokens" in last:
        rows.append(("tokens processed, over all epochs", f"{last['num_tokens']:,.0f}"))
    if "epoch" in last:
        rows.append(("epochs", f"{last['epoch']:g}"))
    rows.append(("time", duration(training["seconds"])))
    rows.append(("hardware", escape(training.get("hardware") or "not recorded")))
    if peak := training.get("peak_gpu_bytes"):
        rows.append(("peak GPU memory", f"{peak / 2**30:.1f} GiB"))
    return "\n".join([*table_head("training", "value"), *(table_row(*row) for row in rows)])


def duration(seconds: float) -> str:
    """Write a duration in hours, or in minutes if it is shorter than an hour."""
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"


def contamination_table(overlaps: Sequence[Overlap]) -> str:
    """Write what the dataset shared with each benchmark; empty if it was compared with none."""
    lines = table_head("benchmark", "texts | found in passages | passages | removed | types | types shared")
    for overlap in overlaps:
        names = ("texts", "texts_found", "passages", "removed", "types")
        numbers = (f"{overlap[name]:,}" for name in names)
        lines.append(table_row(escape(overlap["benchmark"]), *numbers, f"{len(overlap['types_shared']):,}"))
    return "\n".join(lines) if overlaps else ""
