"""Find the spans of an entity's string in its passage."""

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

import regex

from open_ner.conversation import Span, find_occurrences, is_border

# quotes and dashes that NFKC does not unify
FOLDED = str.maketrans({**dict.fromkeys("‘’ʼ‛`´", "'"), **dict.fromkeys("“”„‟", '"'), **dict.fromkeys("‐‑‒–—―−", "-")})
# runs of ASCII words, because \X is slow; not the last character before a non-ASCII one, which may combine with it
PLAIN = re.compile(r"[!-~]+(?: [!-~]+)*(?=[\0-\x7f]|\Z)")
# a run of white space that no mark combines with, or else a grapheme
PIECE = regex.compile(r"\s+(?!\p{M})|\X", regex.DOTALL)
SIMPLE = regex.compile(r"\p{Grapheme_Cluster_Break=Other}{2}")
INVISIBLE = regex.compile(r"\p{Default_Ignorable_Code_Point}+")


def ground(text: str, string: str) -> list[Span] | str:
    """Find every occurrence of a string in a text; no span cuts a grapheme.

    In order of preference: exact matches on word boundaries, as in `open_ner.conversation.find_spans`; matches on word
    boundaries after folding (case, white space, compatibility forms, quotes, dashes, invisible characters); exact
    matches inside words.

    Returns:
        The `(start, end)` spans in `text`, or the reason `not_in_passage`.
    """
    string = string.strip()
    if not string or len(string) > 4 * len(text) + 100:  # invisible characters may make it longer, within limits
        return "not_in_passage"
    inside = string in text
    if inside and (spans := _whole(text, find_occurrences(text, string, on_words=True))):
        return spans
    folded, starts, ends = _fold_passage(text)
    if needle := fold(string)[0].strip():
        places = find_occurrences(folded, needle, on_words=True)
        edges = ((starts[i], ends[j - 1]) for i, j in places if starts[i] >= 0 and ends[j - 1] >= 0)
        if spans := [(i, j) for i, j in edges if is_border(text, i) and is_border(text, j)]:
            return spans
    if inside and (spans := _whole(text, find_occurrences(text, string, on_words=False))):
        return spans
    return "not_in_passage"


def fold(text: str) -> tuple[str, list[int], list[int]]:
    """Fold a text, and map each folded character to the start and end of its grapheme in `text`.

    Only the first folded character of a grapheme has a start, and only the last an end; the others have -1.
    """
    characters, starts, ends, end = list[str](), list[int](), list[int](), 0
    while end < len(text):
        start = end
        if plain := PLAIN.match(text, start):
            end = plain.end()
            characters += plain[0].lower().translate(FOLDED)
            starts += range(start, end)
            ends += range(start + 1, end + 1)
            continue
        match = PIECE.match(text, start)
        assert match  # \X matches any character
        end, piece = match.end(), match[0]
        piece = _fold_short(piece) if len(piece) < 16 else _fold_piece(piece)
        if piece == " " and characters and characters[-1] == " ":  # white space around an invisible character
            ends[-1] = end
        elif piece:
            rest = len(piece) - 1
            characters += piece
            starts += [start, *[-1] * rest]
            ends += [*[-1] * rest, end]
    return "".join(characters), starts, ends


def _fold_piece(piece: str) -> str:
    visible = INVISIBLE.sub("", piece)
    if visible.isspace():
        return " "
    visible = unicodedata.normalize("NFKC", visible).casefold()
    return unicodedata.normalize("NFKC", visible).translate(FOLDED)


_fold_short = lru_cache(maxsize=10_000)(_fold_piece)
_fold_passage = lru_cache(maxsize=4)(fold)  # called for each entity of a passage in turn


def _whole(text: str, spans: Iterator[Span]) -> list[Span]:
    """Keep the spans that begin and end between graphemes."""
    return [(start, end) for start, end in spans if _is_whole(text, start) and _is_whole(text, end)]


def _is_whole(text: str, position: int) -> bool:
    around = text[max(0, position - 1) : position + 1]
    return around.isascii() or SIMPLE.match(around) is not None or position in _borders(text)


@lru_cache(maxsize=4)
def _borders(text: str) -> frozenset[int]:
    return frozenset(match.end() for match in regex.finditer(r"\X", text)) | {0}
