"""Mentions: spans with a type, and how tag sequences are decoded to them."""

from collections.abc import Sequence
from typing import NotRequired, TypedDict


class Mention(TypedDict):
    """A typed span of a passage: character offsets, `end` exclusive, and `passage[start:end] == text`."""

    start: int
    end: int
    text: str
    type: str


class RawMention(TypedDict):
    """A mention as a set's file has it, not checked yet; `text` is there if the file gives one."""

    start: int
    end: int
    type: str
    text: NotRequired[str]


BEGINS, ENDS = frozenset("BSU"), frozenset("ESLU")  # of BIO, BIOES and BILOU


def decode_tags(tags: Sequence[str]) -> list[tuple[int, int, str]]:
    """Mentions `(first token, last token, label)` of BIO (IOB2), IOB1, BIOES, BILOU or bare IO tags.

    The rules of conlleval cover all of them: an I- tag after O or after another label starts a mention.
    """
    mentions: list[tuple[int, int, str]] = []
    opened: tuple[int, str] | None = None
    closed = True  # whether the previous tag ended its mention
    for position, tag in enumerate([*tags, "O"]):
        prefix, label = split_tag(tag)
        if opened and (not label or closed or prefix in BEGINS or label != opened[1]):
            mentions.append((opened[0], position - 1, opened[1]))
            opened = None
        if label and not opened:
            opened = (position, label)
        closed = prefix in ENDS
    return mentions


def split_tag(tag: str) -> tuple[str, str]:
    """`B-PER` as `("B", "PER")`; a bare label (`art-film`) continues itself; `O` has no label."""
    if tag.strip().upper() in ("O", ""):
        return "O", ""
    if tag[:1] in "BIESLUM" and tag[1:2] == "-" and tag[2:]:
        return tag[0], tag[2:]
    return "I", tag
