"""A span's string to its places in the passage, or to the reason why it has none. Pure."""

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

import regex

from open_ner.conversation import Span

# quotes and dashes that NFKC leaves apart
FOLDED = str.maketrans({**dict.fromkeys("‘’ʼ‛`´", "'"), **dict.fromkeys("“”„‟", '"'), **dict.fromkeys("‐‑‒–—―−", "-")})
# plain words, many at once because \X is slow; the last character is left to what may combine with it
PLAIN = re.compile(r"[!-~]+(?: [!-~]+)*(?=[\0-\x7f]|\Z)")
# white space as one piece, unless a mark combines with it; else a grapheme
PIECE = regex.compile(r"\s+(?!\p{M})|\X", regex.DOTALL)
SIMPLE = regex.compile(r"\p{Grapheme_Cluster_Break=Other}{2}")
INVISIBLE = regex.compile(r"\p{Default_Ignorable_Code_Point}+")
Folded = tuple[str, list[int], list[int]]


def ground(text: str, string: str) -> list[Span] | str:
    """Every occurrence `(start, end)` of a string, so that `text[start:end]` holds the passage's own characters.

    In order of preference: the string itself on word boundaries, as `open_ner.conversation.find_spans` has it; folded
    (case, white space, Unicode's compatible forms, quotes, dashes, what is invisible) on word boundaries; the string
    itself inside words. No span cuts a grapheme. The only reason is `not_in_passage`.
    """
    string = string.strip()
    if not string or len(string) > 4 * len(text) + 100:  # the passage may lack much that is invisible, but not that
        return "not_in_passage"
    inside = string in text
    if inside and (spans := _whole(text, _occurrences(text, string, on_words=True))):
        return spans
    if spans := _folded_spans(text, string):
        return spans
    if inside and (spans := _whole(text, _occurrences(text, string, on_words=False))):
        return spans
    return "not_in_passage"


def fold(text: str) -> Folded:
    """A text's folded form, and for each of its characters where in `text` its grapheme starts and ends.

    -1 stands in place of a start for all but the first, and of an end for all but the last character of a grapheme.
    """
    characters: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    end = 0
    while end < len(text):
        start, plain = end, PLAIN.match(text, end)
        if plain:
            end = plain.end()
            characters += plain[0].lower().translate(FOLDED)
            starts += range(start, end)
            ends += range(start + 1, end + 1)
            continue
        end = PIECE.match(text, start).end()
        piece = text[start:end]
        piece = _fold_short(piece) if len(piece) < 16 else _fold_piece(piece)
        if piece == " " and characters and characters[-1] == " ":  # white space around something invisible
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
_fold_passage = lru_cache(maxsize=4)(fold)  # asked for each entity of a passage in turn


def _folded_spans(text: str, string: str) -> list[Span]:
    folded, starts, ends = _fold_passage(text)
    needle = fold(string)[0].strip()
    if not needle:
        return []
    places = _occurrences(folded, needle, on_words=True)
    return [(starts[i], ends[j - 1]) for i, j in places if starts[i] >= 0 and ends[j - 1] >= 0]


def _occurrences(text: str, string: str, on_words: bool) -> Iterator[Span]:
    """Occurrences that do not overlap, from left to right, without a pattern to compile for every string."""
    left, right = on_words and _is_word(string[0]), on_words and _is_word(string[-1])
    start = text.find(string)
    while start >= 0:
        end = start + len(string)
        if (left and start and _is_word(text[start - 1])) or (right and end < len(text) and _is_word(text[end])):
            start = text.find(string, start + 1)
        else:
            yield start, end
            start = text.find(string, end)


def _is_word(character: str) -> bool:
    r"""What `\w` of the standard `re` means."""
    return character.isalnum() or character == "_"


def _whole(text: str, spans: Iterator[Span]) -> list[Span]:
    """The spans that begin and end between graphemes."""
    return [(start, end) for start, end in spans if _is_border(text, start) and _is_border(text, end)]


def _is_border(text: str, position: int) -> bool:
    around = text[max(0, position - 1) : position + 1]
    return around.isascii() or SIMPLE.match(around) is not None or position in _borders(text)


@lru_cache(maxsize=4)
def _borders(text: str) -> frozenset[int]:
    return frozenset(match.end() for match in regex.finditer(r"\X", text)) | {0}
