"""Which of the spans found in a text are returned: thresholds, and types that compete for the same words."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from .answers import Entity
from .conversation import OCCURRENCES, Occurrences

Overlaps = Literal["flat", "nested", "all"]


@dataclass(frozen=True)
class Selection:
    """How answers become spans.

    Args:
        threshold: lowest score of a span, in [0, 1].
        thresholds: lowest score of the spans of a type, by its name, instead of `threshold`.
        overlaps: "flat" returns no two spans that share a character: the surest one is kept. With "nested" types
            compete only for the very same span, and spans of one type do not overlap. "all" returns every span.
        best: return only the surest span of each type.
        occurrences: "all" maps an answered string to each of its occurrences, "first" to the first one.
        temperature, bias: calibration of the scores (`answers.calibrate`).
    """

    threshold: float = 0.0
    thresholds: Mapping[str, float] = field(default_factory=dict)
    overlaps: Overlaps = "flat"
    best: bool = False
    occurrences: Occurrences = OCCURRENCES
    temperature: float = 1.0
    bias: float = 0.0

    def __post_init__(self) -> None:
        choices = {"overlaps": ("flat", "nested", "all"), "occurrences": ("all", "first")}
        for name, allowed in choices.items():
            if (value := getattr(self, name)) not in allowed:
                raise ValueError(f"{name}={value!r}: choose from {', '.join(map(repr, allowed))}")
        for value in (self.threshold, *self.thresholds.values()):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ValueError(f"threshold={value!r}: scores are in [0, 1]")

    def select(self, entities: Iterable[Entity], types: Collection[str]) -> list[Entity]:
        """Return the spans to keep, in order of start, the longer first on a tie.

        The surest span wins; of equally sure ones, and where scores are unknown, the longest, then the one whose type
        comes first in `types`.
        """
        order = {name: number for number, name in enumerate(types)}
        surest_first = sorted(
            entities, key=lambda e: (-(e["score"] or 0.0), e["start"] - e["end"], order[e["entity_group"]], e["start"])
        )
        kept: list[Entity] = []
        spans: set[tuple[int, int]] = set()
        taken: dict[str, set[int]] = defaultdict(set)  # characters of the kept spans: of all types if flat, or by type
        for entity in surest_first:
            name, score, span = entity["entity_group"], entity["score"], (entity["start"], entity["end"])
            if score is not None and score < self.thresholds.get(name, self.threshold):
                continue
            if self.overlaps != "all":
                others = taken["" if self.overlaps == "flat" else name]
                if span in spans or not others.isdisjoint(range(*span)):
                    continue
                spans.add(span)
                others.update(range(*span))
            kept.append(entity)
        if self.best:
            kept = list({entity["entity_group"]: entity for entity in reversed(kept)}.values())
        return sorted(kept, key=lambda e: (e["start"], -e["end"], order[e["entity_group"]]))
