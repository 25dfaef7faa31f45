"""Find the spans of a corrected file in their passage, whatever its tool counts; a span's text is always compared."""

import re
from typing import Any, NamedTuple

from open_ner.conversation import Span

# in a span's text the editor of Label Studio writes each line break as a backslash and an n, and spaces as displayed
SPACE = re.compile(r"(?:\\n|\s)+")


class Region(NamedTuple):
    """A span as in the file; `text`, or `start` and `end`, are None if the file does not have them."""

    start: Any
    end: Any
    text: Any
    label: Any


def anchor(text: str, regions: list[Region]) -> list[Span | str]:
    """Return the span of each region of a passage, or why there is none.

    Offsets count code points, as in Label Studio's editor, if each region has its text there. Otherwise they count
    UTF-16 units, as some clients of its API do, if each region has its text there. A region without text fits wherever
    its offsets are in the passage. Otherwise a region is where one of the two finds its text, or at the only
    occurrence of its text, as is a region without offsets in any case.
    """
    by_characters = [_by_code_points(text, region) for region in regions]
    if all(by_characters):
        return [span for span in by_characters if span]
    by_units = [_by_utf16(text, region) for region in regions]
    if all(by_units):
        return [span for span in by_units if span]
    return [_only(text, *each) for each in zip(regions, by_characters, by_units, strict=True)]


def _by_code_points(text: str, region: Region) -> Span | None:
    start, end, string = region.start, region.end, region.text
    if start is None and end is None:
        return _by_text(text, string)
    if type(start) is not int or type(end) is not int or not 0 <= start < end <= len(text):
        return None
    return (start, end) if string is None or _reads(text[start:end], string) else None


def _by_utf16(text: str, region: Region) -> Span | None:
    start, end, units = region.start, region.end, text.encode("utf-16-le", "surrogatepass")
    if start is None and end is None:
        return _by_text(text, region.text)
    if type(start) is not int or type(end) is not int or not 0 <= start < end <= len(units) // 2:
        return None
    before, inside = (units[2 * i : 2 * j].decode("utf-16-le", "replace") for i, j in ((0, start), (start, end)))
    if not text.startswith(before + inside):  # an offset halves a character
        return None
    return (len(before), len(before + inside)) if region.text is None or _reads(inside, region.text) else None


def _by_text(text: str, string: object) -> Span | None:
    """Return the only occurrence of a string."""
    if not isinstance(string, str) or not string or not 0 <= text.find(string) == text.rfind(string):
        return None
    return text.index(string), text.index(string) + len(string)


def _only(text: str, region: Region, *places: Span | None) -> Span | str:
    """Return the only place that a region can mean, or why there is none."""
    string, without_offsets = region.text or "", (region.start, region.end) == (None, None)
    numbers = type(region.start) is int and type(region.end) is int
    if not isinstance(string, str) or not (numbers or (without_offsets and string)):
        return "start and end are not whole numbers, or text is not a string"
    found = {place for place in places if place} or {_by_text(text, string)}
    if len(found) == 1 and (place := found.pop()):
        return place
    if without_offsets:
        where = "at several places: give its start and end" if string in text else "not in the passage"
        return f"{string!r} is {where}"
    if region.text is None:
        if any(places):
            return "it has no text that tells whether its offsets count characters or UTF-16 units: add its text"
        return f"it is not in a text of {len(text)} characters"
    there = text[max(0, region.start) : max(0, region.end)]
    return f"the passage has {there!r} there and {string!r} {'at several places' if string in text else 'nowhere'}"


def _reads(span: str, string: object) -> bool:
    return isinstance(string, str) and SPACE.sub(" ", span) == SPACE.sub(" ", string)
