"""What a view shows: passages with spans and rejects, and how nested and crossing spans are laid out in a text."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict


class ShownSpan(TypedDict):
    """A typed span of a text: offsets in characters (code points), `end` exclusive; `text` is `passage[start:end]`."""

    start: int
    end: int
    text: str
    type: str
    score: NotRequired[float | None]  # in [0, 1]


class RejectedSpan(TypedDict):
    """A reject or an error: its reason and, if known, the string, its type, and its offsets."""

    reason: str
    text: str
    type: str
    start: NotRequired[int]
    end: NotRequired[int]


class ShownPassage(TypedDict):
    """A passage to show. `about` is shown beside the id, `absent` are asked types without a span."""

    id: str
    text: str
    entities: list[ShownSpan]
    rejects: list[RejectedSpan]
    about: NotRequired[str]
    absent: NotRequired[list[str]]
    reply: NotRequired[str]  # the teacher's verbatim reply


@dataclass(frozen=True)
class Mark:
    """A span to be drawn in a text: an entity, or the place of a reject, which has a reason."""

    start: int
    end: int
    type: str
    score: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Edge:
    """An edge of a mark in a text; `whole` is False where a crossing mark only interrupts it."""

    mark: Mark
    opens: bool
    whole: bool


def marks_of(passage: ShownPassage) -> list[Mark]:
    """Return the marks of a passage: its entities, and the rejects with offsets that are not entities as well."""
    marks = [Mark(one["start"], one["end"], one["type"], one.get("score")) for one in passage["entities"]]
    places = {(mark.start, mark.end, mark.type) for mark in marks}
    for one in passage["rejects"]:
        place = (one.get("start", -1), one.get("end", -1), one["type"])
        if is_span(passage["text"], *place[:2]) and place not in places:
            marks.append(Mark(*place, reason=one["reason"]))
    return sorted(dict.fromkeys(marks), key=lambda mark: (mark.start, -mark.end))


def is_span(text: str, start: Any, end: Any) -> bool:
    """Whether these are the offsets of a non-empty span of the text."""
    return type(start) is int and type(end) is int and 0 <= start < end <= len(text)


def lay_out(text: str, marks: Iterable[Mark]) -> Iterator[str | Edge]:
    """Yield the pieces of a text and the edges of its marks, properly nested as HTML needs them.

    A mark that crosses another one is closed and opened again where the other one ends.
    """
    starting: dict[int, list[Mark]] = {}
    for mark in marks:
        starting.setdefault(mark.start, []).append(mark)
    opened: list[Mark] = []
    at = 0
    for position in sorted({edge for found in starting.values() for mark in found for edge in (mark.start, mark.end)}):
        if position > at:
            yield text[at:position]
            at = position
        first = next((place for place, mark in enumerate(opened) if mark.end == position), len(opened))
        yield from (Edge(mark, opens=False, whole=mark.end == position) for mark in reversed(opened[first:]))
        interrupted = [mark for mark in opened[first:] if mark.end > position]
        upcoming = sorted([*interrupted, *starting.get(position, [])], key=lambda mark: -mark.end)
        yield from (Edge(mark, opens=True, whole=mark.start == position) for mark in upcoming)
        opened[first:] = upcoming
    if at < len(text):
        yield text[at:]


def levels_of(marks: Sequence[Mark]) -> dict[Mark, int]:
    """Return a level for each mark, from 0: marks that share characters have different ones, lower for shorter marks.

    `marks` are sorted by start.
    """
    touching: dict[Mark, list[Mark]] = {mark: [] for mark in marks}
    active: list[Mark] = []
    for mark in marks:
        active = [other for other in active if other.end > mark.start]
        for other in active:
            touching[mark].append(other)
            touching[other].append(mark)
        active.append(mark)
    levels: dict[Mark, int] = {}
    for mark in sorted(marks, key=lambda mark: mark.end - mark.start):
        taken = {levels[other] for other in touching[mark] if other in levels}
        levels[mark] = next(level for level in range(len(taken) + 1) if level not in taken)
    return levels
