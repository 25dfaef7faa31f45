"""Find the spans of an entity's string in its passage."""

import unicodedata
from collections.abc import Iterable
from functools import lru_cache

import regex

from open_ner.borders import is_border
from open_ner.conversation import Span, find_composed, find_occurrences

# quotes and dashes that NFKC does not unify
FOLDED = str.maketrans({**dict.fromkeys("‘’ʼ‛`´", "'"), **dict.fromkeys("“”„‟", '"'), **dict.fromkeys("‐‑‒–—―−", "-")})
PIECE = regex.compile(r"\s+(?!\p{M})|\X", regex.DOTALL)  # a run of white space, unless a mark follows; or a grapheme
INVISIBLE = regex.compile(r"\p{Default_Ignorable_Code_Point}+")


def ground(text: str, string: str) -> list[Span]:
    """Find every occurrence of a string in a text; no span cuts a grapheme.

    In order of preference: exact matches on word boundaries, as in `open_ner.conversation.find_spans`; matches on word
    boundaries after folding (case, white space, compatibility forms, quotes, dashes, invisible characters); exact
    matches inside words; matches inside words of another Unicode form (composed or decomposed).

    Returns:
        The `(start, end)` spans in `text`; an empty list if there is none.
    """
    string = string.strip()
    if not string or len(string) > 4 * len(text) + 100:  # allow for invisible characters; a longer string cannot match
        return []
    if spans := _exact(text, string, on_words=True):
        return spans
    folded, starts, ends = _fold_passage(text)
    if needle := fold(string)[0].strip():
        places = find_occurrences(folded, needle, on_words=True)
        edges = ((starts[i], ends[j - 1]) for i, j in places if starts[i] >= 0 and ends[j - 1] >= 0)
        if spans := [(i, j) for i, j in edges if is_border(text, i) and is_border(text, j)]:
            return spans
    return _exact(text, string, on_words=False) or _whole(text, find_composed(text, string))


def _exact(text: str, string: str, on_words: bool) -> list[Span]:
    return _whole(text, find_occurrences(text, string, on_words))


def _whole(text: str, spans: Iterable[Span]) -> list[Span]:
    """The spans that begin and end between graphemes."""
    return [span for span in spans if all(_is_whole(text, position) for position in span)]


def fold(text: str) -> tuple[str, list[int], list[int]]:
    """Fold a text, and map each folded character to the start and end of its grapheme in `text`.

    Only the first folded character of a grapheme has a start, and only the last has an end; the others have -1.
    """
    characters, starts, ends = list[str](), list[int](), list[int]()
    for match in PIECE.finditer(text):
        (start, end), piece = match.span(), _fold_piece(match[0])
        if piece == " " and characters and characters[-1] == " ":  # white space around an invisible character
            ends[-1] = end
        elif piece:
            rest = len(piece) - 1
            characters += piece
            starts += [start, *[-1] * rest]
            ends += [*[-1] * rest, end]
    return "".join(characters), starts, ends


_fold_passage = lru_cache(maxsize=4)(fold)  # cached, because it is called for each entity of a passage


@lru_cache(maxsize=10_000)
def _fold_piece(piece: str) -> str:
    visible = INVISIBLE.sub("", piece)
    if visible.isspace():
        return " "
    visible = unicodedata.normalize("NFKC", visible).casefold()
    return unicodedata.normalize("NFKC", visible).translate(FOLDED)


def _is_whole(text: str, position: int) -> bool:
    return text[max(0, position - 1) : position + 1].isascii() or position in _borders(text)


@lru_cache(maxsize=4)
def _borders(text: str) -> frozenset[int]:
    return frozenset(match.end() for match in regex.finditer(r"\X", text)) | {0}
