"""Long texts: cut to windows of whole sentences that overlap, and the spans of the windows merged.

A student answers best on passages as long as those it was trained on, so a longer text is asked window by window.
Windows are cut as they are asked for, in one pass over the text, whatever it holds: no sentence ends, no spaces, or
one word of ten megabytes.
"""

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .conversation import LONE_SURROGATE, build_query, neutralize

Count = Callable[[Sequence[str]], list[int]]  # tokens of each text
Entity = dict[str, Any]

# What ends a sentence: a mark before a space and no small letter, but not that of an initial or a title; a mark of
# Chinese or Japanese; an empty line. Where it is wrong little is lost: the overlap holds the name whole.
SENTENCE_END = re.compile(
    r"(?<![\s.][A-Z])(?<!\b(?:Mr|Ms|Dr|St|Lt))(?<!\b(?:Mrs|Gen|Sen|Rep))(?<!\bProf)"
    r"[.!?…]+[\"'”’»)\]]*(?=\s[^a-z])|[。！？｡]+[”’」』）]*|\n(?=\s)"
)
NON_SPACE = re.compile(r"\S")
LONGEST_PIECE = 32  # bytes, and so at most as many tokens
PIECES_AT_A_TIME = 512  # tokenized in one call
CHARACTERS_A_TOKEN = 32  # a text with more for each token of the limit is not counted whole: it does not fit
SMALLEST = 16  # tokens; with less room for a passage the decoder says what takes the place
SLACK = 8  # tokens by which a passage may grow where it meets the words around it


class Window(NamedTuple):
    """The part `text[start:end]`. `before` is where the window before it ends, `after` where the next one begins."""

    start: int
    end: int
    before: int | None = None
    after: int | None = None

    def gives(self, start: int, end: int) -> bool:
        """Whether a span of the text is this window's to give.

        One that touches an edge may be half of a longer one; it is left to the neighbour that holds it with text
        around it, where there is one.
        """
        left_to_next = self.after is not None and end == self.end and self.after < start
        left_to_last = self.before is not None and start == self.start and end < self.before
        return not (left_to_next or left_to_last)


@dataclass(frozen=True)
class _Piece:
    """A sentence or a part of one, with the space before it: the smallest thing that is moved between windows."""

    start: int
    end: int
    ends_sentence: bool
    tokens: int


def token_counter(tokenizer: Any, special_tokens: Collection[str]) -> Count:
    """A function that counts the tokens of texts as the decoder reads them, with special tokens neutralized.

    A lone surrogate, which the decoder refuses and no tokenizer takes, counts as a character.
    """

    def count(texts: Sequence[str]) -> list[int]:
        contents = [{"content": LONE_SURROGATE.sub("?", text)} for text in texts]
        safe = [message["content"] for message in neutralize(contents, special_tokens)]
        options = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
        return [len(ids) for ids in tokenizer(safe, **options)["input_ids"]]

    return count


def fitting_window(
    window: int,
    positions: int | None,
    tokenizer: Any,
    special_tokens: Collection[str],
    wordings: Sequence[str],
    dataset: str | None,
    max_new_tokens: int,
) -> int:
    """Tokens of passage that can be asked at once: `window`, or less where the model's `positions` leave less.

    The longest question, the turns around it and the answer come off the positions.
    """
    if positions is None:
        return window
    count = token_counter(tokenizer, special_tokens)
    turns = tokenizer.apply_chat_template(
        build_query("", "", dataset and "x"), add_generation_prompt=True, tokenize=True, return_dict=False
    )
    taken = len(turns) + max(count(wordings)) + sum(count([dataset or ""])) + max_new_tokens + SLACK
    return min(window, positions - taken) if positions - taken >= SMALLEST else window


def cut(text: str, count: Count, limit: int) -> Iterator[Window]:
    """Windows of at most `limit` tokens that together hold all of `text`; the last one has no `after`.

    A text within the limit is one window, as it is. A longer one is cut where a sentence ends in the second half of a
    window, else between words, else inside a word but never inside a character with its combining marks. Neighbours
    share at least an eighth of the limit, up to a quarter where that lets the next one begin a sentence.
    """
    short = len(text) <= limit * CHARACTERS_A_TOKEN
    if LONE_SURROGATE.search(text) or (short and count([text])[0] <= limit):
        yield Window(0, len(text))  # a surrogate is refused by the decoder, which names its place in the text
        return
    pieces = _pieces(text, count, min(LONGEST_PIECE, limit))
    held: list[_Piece] = []  # from the window's start on, until they exceed the limit
    before, total, more = None, 0, True
    while True:
        while more and (total <= limit or len(held) < 2):
            piece = next(pieces, None)
            more = piece is not None
            if piece:
                held.append(piece)
                total += piece.tokens
        if total <= limit or len(held) < 2:
            start = _skip_space(text, held[0].start, held[-1].end) if held else 0
            yield Window(start, held[-1].end if held else 0, before)
            return
        size = _fitting(text, held, count, limit)
        first = _first_of_next(held, size, limit)
        end = held[size - 1].end
        start, after = (_skip_space(text, held[n].start, held[-1].end) for n in (0, first))
        if start < end:  # not blank
            yield Window(start, end, before, after)
        before = end
        total -= sum(piece.tokens for piece in held[:first])
        del held[:first]


def merge(found: Iterable[tuple[Window, list[Entity]]]) -> list[Entity]:
    """Entities of a text from those of its windows, in order of start, longer first where two begin together.

    Offsets become the text's; what several windows found counts once, with the highest score.
    """
    best: dict[tuple[int, int, str], Entity] = {}
    for window, entities in found:
        for entity in entities:
            start, end = window.start + entity["start"], window.start + entity["end"]
            known = best.get((start, end, entity["entity_group"]))
            if window.gives(start, end) and (known is None or (known["score"] or 0) < (entity["score"] or 0)):
                best[start, end, entity["entity_group"]] = {**entity, "start": start, "end": end}
    return sorted(best.values(), key=lambda entity: (entity["start"], -entity["end"]))


def _pieces(text: str, count: Count, longest: int) -> Iterator[_Piece]:
    """Sentences, or parts of at most `longest` bytes of them; space at the text's end is in none."""
    start, stop = 0, len(text.rstrip())
    while start < stop:
        begun, ends, sentences = start, [], []
        while start < stop and len(ends) < PIECES_AT_A_TIME:
            start, sentence = _end_of_piece(text, start, stop, longest)
            ends.append(start)
            sentences.append(sentence)
        starts = [begun, *ends[:-1]]
        tokens = count([text[a:b] for a, b in zip(starts, ends, strict=True)])
        yield from map(_Piece, starts, ends, sentences, tokens)


def _end_of_piece(text: str, start: int, end_of_text: int, longest: int) -> tuple[int, bool]:
    """Where the piece from `start` ends, and whether a sentence does there too."""
    stop = min(start + longest, end_of_text)
    while stop - start > 1 and (size := len(text[start:stop].encode())) > longest:
        stop = start + max(1, (stop - start) * longest // size)
    sentence = SENTENCE_END.search(text, start, stop + 2)
    if sentence and sentence.end() <= stop:
        return sentence.end(), True
    if stop == end_of_text:
        return stop, True
    end = stop  # before the last space, which begins the next piece
    while end > start and not text[end].isspace():
        end -= 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if end == start:  # inside a word
        end = stop
        while end > start and _is_joined(text[end - 1], text[end]):
            end -= 1
    return (end, False) if end > start else (stop, False)


def _is_joined(left: str, right: str) -> bool:
    """Whether two characters are parts of one that is seen: combining marks, joiners, the color of an emoji."""
    return unicodedata.category(right)[0] == "M" or "\u200d" in (left, right) or "\U0001f3fb" <= right <= "\U0001f3ff"


def _fitting(text: str, held: list[_Piece], count: Count, limit: int) -> int:
    """How many of the pieces make the window: to the last end of a sentence in its second half, or all that fit."""
    budget = limit
    while True:
        fitting = last_sentence = tokens = 0
        for number, piece in enumerate(held, 1):
            tokens += piece.tokens
            if tokens > budget:
                break
            fitting = number
            if piece.ends_sentence and 2 * tokens >= limit:
                last_sentence = number
        size = last_sentence or fitting or 1
        excess = count([text[held[0].start : held[size - 1].end]])[0] - limit  # the sum is what they have apart
        if excess <= 0 or size == 1:
            return size
        budget -= excess


def _first_of_next(held: list[_Piece], size: int, limit: int) -> int:
    """Which piece begins the next window: it must get beyond this window's end, and begins after this one's start."""
    first, enough, tokens = size, 0, 0
    for number in range(size - 1, 0, -1):
        tokens += held[number].tokens
        if tokens > min(limit // 4, limit - held[size].tokens):
            break
        first = number
        if tokens >= limit // 8:
            enough = enough or number
            if held[number - 1].ends_sentence:
                return number
    return enough or first


def _skip_space(text: str, start: int, end: int) -> int:
    """The first character from `start` that is no space; `end` where there is none."""
    found = NON_SPACE.search(text, start, end)
    return found.start() if found else end
