"""Choose and mix rows by a seed and their ids, independent of their order."""

from open_ner.tools.errors import UserError

from ..annotation.annotate import Annotations
from ..corpus.sources import text_sha256

DISTILLED = "distilled"  # name of the distilled part in a mixture


def cap_set(part: Annotations, empty_ratio: float | None, max_passages: int | None, seed: int) -> Annotations:
    """Return a set with at most `empty_ratio` passages without mentions per passage with mentions, and `max_passages`.

    For both, None means no limit. The reasons of rejects are `beyond_empty_ratio` and `beyond_max_passages`.
    """
    ranked = sorted(part.rows, key=lambda row: rank(row["id"], seed))
    full = sum(bool(row["entities"]) for row in ranked)
    empty = [row for row in ranked if not row["entities"]]
    allowed = None if empty_ratio is None else int(full * empty_ratio)
    reasons = {} if allowed is None else {row["id"]: "beyond_empty_ratio" for row in empty[allowed:]}
    left = [row for row in ranked if row["id"] not in reasons]
    reasons |= {row["id"]: "beyond_max_passages" for row in left[max_passages:]} if max_passages is not None else {}
    result = Annotations(rejects=list(part.rejects), counts=part.counts.copy())
    for row in part.rows:
        if row["id"] in reasons:
            result.counts["entities_kept"] -= len(row["entities"])
            result.counts["entities_of_rejected_passages"] += len(row["entities"])
            result.reject(reasons[row["id"]], row["id"])
        else:
            result.rows.append(row)
    return result


def mix(parts: dict[str, list[str]], weights: dict[str, float], seed: int) -> list[tuple[str, int]]:
    """Return the largest mixture with these relative sizes and without repeated rows, in a random order.

    Args:
        parts: the ids of the rows of each part.
        weights: relative sizes; a part without a weight is used as a whole.
        seed: seed of the choice and of the order.

    Returns:
        The rows, each by its part and its index there. Raises UserError for an unknown part or a weight that is not
        positive.
    """
    for name, weight in weights.items():
        if name not in parts:
            raise UserError(f"supervised.mixture: unknown part {name!r}; the parts are {', '.join(parts)}")
        if not weight > 0:
            raise UserError(f"supervised.mixture: the weight of {name!r} is {weight}; it must be positive")
    scale = min((len(parts[name]) / weight for name, weight in weights.items()), default=0.0)

    def place(row: tuple[str, int]) -> str:
        return rank(parts[row[0]][row[1]], seed)

    mixed: list[tuple[str, int]] = []
    for name, ids in parts.items():
        size = round(scale * weights[name]) if name in weights else len(ids)
        mixed += sorted(((name, index) for index in range(len(ids))), key=place)[:size]
    return sorted(mixed, key=place)


def rank(row_id: str, seed: int) -> str:
    """Return the sort key of an id in the random order of a seed."""
    return text_sha256(f"{seed}/{row_id}")
