"""Mentions: spans with a type, and how tag sequences are decoded to them."""

import re
from collections.abc import Collection, Sequence
from typing import NotRequired, TypedDict


class Mention(TypedDict):
    """A typed span of a passage: character offsets, `end` exclusive, and `passage[start:end] == text`."""

    start: int
    end: int
    text: str
    type: str


class RawMention(TypedDict):
    """A mention as in the file of a set, not checked; some files give its text."""

    start: int
    end: int
    type: str
    text: NotRequired[str]


Shape = re.Pattern[str] | None  # how tags are split into prefix and label; None: tags are bare labels
PLAIN = re.compile(r"(?P<prefix>[BIESLUM])-(?P<label>.+)", re.DOTALL)
SHAPES = [
    re.compile(shape, re.IGNORECASE | re.DOTALL)
    for shape in (r"(?P<prefix>[BIESLUM])[-_:](?P<label>.+)", r"(?P<label>.+)[-_:](?P<prefix>[BIESLUM])")
]
BEGINS, ENDS = frozenset("BSU"), frozenset("ESLU")  # prefixes of BIO, BIOES and BILOU


def trim(text: str, start: int, end: int) -> tuple[int, int]:
    """Strip white space from the ends of a span; an invalid span is returned as it is."""
    if not 0 <= start < end <= len(text):
        return start, end
    span = text[start:end]
    start += len(span) - len(span.lstrip())
    return start, start + len(span.strip())


def decode_tags(tags: Sequence[str], shape: Shape = PLAIN) -> list[tuple[int, int, str]]:
    """Return the mentions `(first token, last token, label)` of BIO (IOB2), IOB1, BIOES, BILOU or bare IO tags.

    The rules of conlleval cover all of them: an I- tag after O or after another label starts a mention.
    """
    mentions: list[tuple[int, int, str]] = []
    opened: tuple[int, str] | None = None
    closed = True  # whether the previous tag ended its mention
    for position, tag in enumerate([*tags, "O"]):
        prefix, label = split_tag(tag, shape)
        if opened and (not label or closed or prefix in BEGINS or label != opened[1]):
            mentions.append((opened[0], position - 1, opened[1]))
            opened = None
        if label and not opened:
            opened = (position, label)
        closed = prefix in ENDS
    return mentions


def split_tag(tag: str, shape: Shape = PLAIN) -> tuple[str, str]:
    """Split `B-PER` into `("B", "PER")`; a bare label such as `art-film` has the prefix I, and `O` no label."""
    if tag.strip().upper() in ("O", ""):
        return "O", ""
    match = shape.fullmatch(tag) if shape else None
    return (match["prefix"].upper(), match["label"]) if match else ("I", tag)


def tag_shape(tags: Collection[str]) -> Shape:
    """Return how all the tags of a set are written: `B-PER`, `b-per`, `B_PER`, `PER-B`, or None for bare labels.

    A shape is recognized if some label has B and a later prefix (I, E, L, M) in it, or if all tags are like `B-PER`;
    so labels such as `E-mail` and `B-cell` stay whole. Raises ValueError if the tags are prefixes without a label.
    """
    named = {tag for tag in tags if split_tag(tag)[1]}
    if {"B", "I"} & {tag.strip().upper() for tag in named} and all(len(tag.strip()) == 1 for tag in named):
        raise ValueError(f"the tags {sorted(named)} name no type")
    for shape in SHAPES:
        prefixes: dict[str, set[str]] = {}
        for match in filter(None, map(shape.fullmatch, named)):
            prefixes.setdefault(match["label"], set()).add(match["prefix"].upper())
        if any("B" in found and found & set("IELM") for found in prefixes.values()):
            return shape
    begun = {split_tag(tag)[1] for tag in named if tag[0] in "BI"}
    plain = all(PLAIN.fullmatch(tag) and (tag[0] in "BISU" or tag[2:] in begun) for tag in named)
    return PLAIN if plain else None
