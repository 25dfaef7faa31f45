"""Find the spans of a corrected file in their passage, in whatever units offsets are; texts are always compared."""

import re
from typing import Any, NamedTuple

from open_ner.conversation import Span

# in a span's text, Label Studio's editor writes a line break as a backslash and an n, and spaces as displayed
SPACE = re.compile(r"(?:\\n|\s)+")


class Region(NamedTuple):
    """A span as in the file; `text`, or `start` and `end`, are None if the file does not have them."""

    start: Any
    end: Any
    text: Any
    label: Any


def anchor(text: str, regions: list[Region]) -> list[Span | str]:
    """Return the span of each region of a passage, or the reason why it has none.

    Offsets are read as code points, as in Label Studio's editor, if the text of every region is then at its offsets.
    Otherwise they are read as UTF-16 units, as in some clients of its API, under the same condition. If neither fits
    all regions, each region is where one of the two finds its text, or at the only occurrence of its text. A region
    without text fits if its offsets are in the passage; one without offsets is at the only occurrence of its text.
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
    if not text.startswith(before + inside):  # an offset is inside a surrogate pair
        return None
    return (len(before), len(before + inside)) if region.text is None or _reads(inside, region.text) else None


def _by_text(text: str, string: object) -> Span | None:
    """Return the span of a string that occurs exactly once in a text; None for any other string."""
    if not isinstance(string, str) or not string or not 0 <= text.find(string) == text.rfind(string):
        return None
    return text.index(string), text.index(string) + len(string)


def _only(text: str, region: Region, *places: Span | None) -> Span | str:
    """Return the only possible span of a region, or the reason why it has none."""
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
