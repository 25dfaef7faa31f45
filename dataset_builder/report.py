"""What the dataset's card shows: statistics of a build beside the paper's, and the figure of types by rank."""

from collections import Counter
from pathlib import Path
from typing import Any

import datasets

PAPER = {
    "type": {"passages": 45_889, "entities": 240_725, "types": 13_020, "bands": [0.74, 0.19, 0.07]},
    "definition": {"types": 353_092},
}  # arXiv 2308.03279, section 3.1


def summarise(counts: Counter[str], annotated: list[dict], rows: datasets.DatasetDict) -> dict[str, Any]:
    """Statistics of one config: passages, conversations, queries, entities, types and the share of each rank band.

    `types_not_asked` counts the (passage, type) pairs that `max_queries` left out of the conversations.
    """
    conversations = [row for split in rows.values() for row in split.select_columns(["text", "messages", "negatives"])]
    queries = sum((len(row["messages"]) - 3) // 2 for row in conversations)
    present = sum(len({entity["type"] for entity in row["entities"]}) for row in annotated)
    negatives = sum(len(row["negatives"]) for row in conversations)
    return {
        "passages": len({row["text"] for row in conversations}),
        "conversations": {split: len(part) for split, part in rows.items()},
        "queries": queries,
        "negative_queries": negatives,
        "types_not_asked": present - (queries - negatives),
        "entities": sum(counts.values()),
        "types": len(counts),
        "bands": rank_bands(counts),
        "top_types": [name for name, _ in counts.most_common(10)],
    }


def rank_bands(counts: Counter[str]) -> list[float]:
    """Shares of entities in the top 1 %, the next 9 % and the rest of the types by rank."""
    ranked = sorted(counts.values(), reverse=True)
    total = max(1, sum(ranked))
    first, second = max(1, round(len(ranked) / 100)), max(1, round(len(ranked) / 10))
    return [sum(part) / total for part in (ranked[:first], ranked[first:second], ranked[second:])]


def plot_types(counts: Counter[str], path: Path) -> None:
    """Frequency of types by rank, both axes logarithmic, the head named."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    ranked = counts.most_common()
    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    axes.loglog(range(1, len(ranked) + 1), [count for _, count in ranked], ".", color="#3b6fb6", markersize=5)
    for rank, (name, count) in enumerate(ranked, 1):
        if rank in (1, 2, 4, 8, 16, 32, 64, 128):
            axes.annotate(name, (rank, count), xytext=(4, 5), textcoords="offset points", fontsize=8)
    axes.set(xlabel="rank of the entity type", ylabel="entities", title=f"{len(ranked):,} entity types by frequency")
    axes.grid(alpha=0.3, which="both", linewidth=0.4)
    axes.margins(x=0.12, y=0.12)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
