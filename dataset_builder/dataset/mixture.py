"""Which rows of a part go into a dataset, and how parts are mixed: by seed and id, whatever the order of the rows."""

import hashlib
from typing import Any

from open_ner.tools.errors import UserError

from ..annotation.annotate import Annotations

DISTILLED = "distilled"  # the part of a mixture that has no set's name


def cap_set(part: Annotations, empty_ratio: float, max_passages: int | None, seed: int) -> Annotations:
    """A part with at most `empty_ratio` passages without an entity per passage with one, and `max_passages` in all.

    Which stay depends on the seed and the id alone, so that they stay as the set grows around them. Reasons:
    `beyond_empty_ratio`, `beyond_max_passages`.
    """
    ranked = sorted(part.rows, key=lambda row: rank(row["id"], seed))
    full = sum(bool(row["entities"]) for row in ranked)
    empty = [row for row in ranked if not row["entities"]]
    reasons = {row["id"]: "beyond_empty_ratio" for row in empty[int(full * empty_ratio) :]}
    left = [row for row in ranked if row["id"] not in reasons]
    reasons |= {row["id"]: "beyond_max_passages" for row in left[max_passages:]} if max_passages is not None else {}
    result = Annotations(
        [row for row in part.rows if row["id"] not in reasons], list(part.rejects), part.counts.copy()
    )
    for row in part.rows:
        if row["id"] in reasons:
            result.counts["entities_kept"] -= len(row["entities"])
            result.counts["entities_of_rejected_passages"] += len(row["entities"])
            result.reject(reasons[row["id"]], row["id"])
    return result


def mix(parts: dict[str, list[dict[str, Any]]], weights: dict[str, float], seed: int) -> list[dict[str, Any]]:
    """Rows of all parts in a seeded order: the most that have the relative sizes of `weights`, none repeated.

    A part without a weight goes in whole. Raises UserError for an unknown part and a weight that is not positive.
    """
    for name, weight in weights.items():
        if name not in parts:
            raise UserError(f"supervised.mixture: no part {name!r}: the parts are {', '.join(parts)}")
        if not weight > 0:
            raise UserError(f"supervised.mixture: the weight of {name!r} is {weight}: give a positive one, or drop it")
    scale = min((len(parts[name]) / weight for name, weight in weights.items()), default=0.0)
    mixed = []
    for name, rows in parts.items():
        size = round(scale * weights[name]) if name in weights else len(rows)
        mixed += sorted(({"dataset": "", **row} for row in rows), key=lambda row: rank(row["id"], seed))[:size]
    return sorted(mixed, key=lambda row: rank(row["id"], seed))


def rank(name: str, seed: int) -> str:
    """The place of an id in the random order of a seed, whatever other ids there are."""
    return hashlib.sha256(f"{seed}/{name}".encode("utf-8", "surrogatepass")).hexdigest()
