"""Long texts: cut into overlapping windows of whole sentences, with the spans of the windows merged.

A student answers best on passages as long as those it was trained on, so a longer text is read window by window.
Windows are cut lazily, in one pass, from any text, even one without sentence ends or spaces.
"""

import re
from bisect import bisect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate, chain, islice
from typing import NamedTuple, NotRequired, TypedDict

from transformers import PreTrainedTokenizerBase

from .answers import Answer, Entity, to_entities
from .borders import is_border
from .conversation import LONE_SURROGATE, Span, build_query, neutralize
from .decoding import Decoder
from .selection import Selection

Count = Callable[[Sequence[str]], list[int]]  # tokens of each text

# A sentence ends at a mark before a space that no lower-case letter follows, except after an initial or a title; at a
# Chinese or Japanese mark; at another script's full stop; at an empty line. Mistakes cost little: windows overlap.
SENTENCE_END = re.compile(
    r"(?<![\s.][A-Z])(?<!\b(?:Mr|Ms|Dr|St|Lt))(?<!\b(?:Mrs|Gen|Sen|Rep))(?<!\bProf)"
    r"[.!?…]+[\"'”’»)\]]*(?=\s[^a-z])|[。！？｡]+[”’」』）]*|[।॥؟۔።։။។།]+(?=\s)|\n(?=\s)"
)
LONGEST_PIECE = 32  # bytes, hence at most as many tokens
PIECES_AT_A_TIME = 512  # pieces tokenized in one call
CHARACTERS_A_TOKEN = 32  # a text with more characters per token of the limit cannot fit and is not counted whole
SMALLEST = 16  # tokens; with less room, the window is not reduced, and the decoder raises an error with the numbers
SLACK = 8  # tokens that a passage may gain when it is tokenized together with the text around it


class Window(NamedTuple):
    """The part `text[start:end]`; `before` is the end of the window before it, `after` the start of the next one."""

    start: int
    end: int
    before: int | None = None
    after: int | None = None

    def gives(self, start: int, end: int) -> bool:
        """Return whether a span found in this window counts.

        A span at an edge may be part of a longer one. It does not count if a neighbor contains it away from its edge.
        """
        in_next = self.after is not None and end == self.end and self.after < start
        in_last = self.before is not None and start == self.start and end < self.before
        return not (in_next or in_last)


Answered = tuple[Window, Mapping[str, Answer]]  # a window and its answers, by entity group


class _Piece(NamedTuple):
    """A sentence or a part of one, with the space before it; windows consist of whole pieces."""

    start: int
    end: int
    ends_sentence: bool
    tokens: int


class RawResult(TypedDict):
    """The result of a text with `return_raw`; a text of several windows has lists of answers, and `windows`."""

    entities: list[Entity]
    raw: dict[str, str] | dict[str, list[str]]
    windows: NotRequired[list[Span]]


def token_counter(tokenizer: PreTrainedTokenizerBase, special_tokens: Collection[str]) -> Count:
    """Return a function that counts the tokens of texts as the decoder reads them, with special tokens neutralized.

    A lone surrogate counts as a character, because no tokenizer accepts it; the decoder rejects it later.
    """
    return partial(_count_tokens, tokenizer, special_tokens)  # a partial can be pickled, a closure cannot


def _count_tokens(tokenizer: PreTrainedTokenizerBase, special: Collection[str], texts: Sequence[str]) -> list[int]:
    safe = neutralize([{"content": LONE_SURROGATE.sub("?", text)} for text in texts], special)
    contents = [message["content"] for message in safe]
    encoded = tokenizer(contents, add_special_tokens=False, return_attention_mask=False, verbose=False)
    return [len(ids) for ids in encoded["input_ids"]]


def fitting_window(
    window: int, decoder: Decoder, wordings: Sequence[str], dataset: str | None, max_new_tokens: int
) -> int:
    """Return how many tokens of a passage are read at once: `window`, or fewer if the model has few positions.

    The positions also hold the longest query (one of `wordings`), the turns around it and the answer.
    """
    if decoder.positions is None:
        return window
    count = token_counter(decoder.tokenizer, decoder.special_tokens)
    turns = decoder.encoder.template.render(build_query("", "", dataset and "x"), prompt=True)
    around = len(decoder.tokenizer.encode(turns, add_special_tokens=False)) + sum(count([dataset or ""]))
    left = decoder.positions - around - max(count(wordings)) - max_new_tokens - SLACK
    return min(window, left) if left >= SMALLEST else window


def cut(text: str, count: Count, limit: int) -> Iterator[Window]:
    """Yield windows of at most `limit` tokens that together contain all of `text`; the last one has no `after`.

    A text within the limit is one window. A longer text is cut at a sentence end in the second half of a window, else
    between words, else inside a word but never inside a character with its combining marks. Neighbors share at least
    an eighth of the limit, and up to a quarter if the next window can then begin with a sentence.
    """
    short = len(text) <= limit * CHARACTERS_A_TOKEN
    if LONE_SURROGATE.search(text) or (short and count([text])[0] <= limit):
        yield Window(0, len(text))  # with a surrogate too, so that the decoder's error names its place in the text
        return
    pieces = _pieces(text, count, min(LONGEST_PIECE, limit))
    held: list[_Piece] = []  # from the window's start on, one more than fits
    before, total = None, 0
    while True:
        while (total <= limit or len(held) < 2) and (piece := next(pieces, None)):
            held.append(piece)
            total += piece.tokens
        size = _fitting(text, held, count, limit)
        start, end = _skip_space(text, held[:size]), held[size - 1].end if held else 0
        if size == len(held):
            yield Window(start, end, before)
            return
        first = _first_of_next(held, size, limit)
        if start < end:  # not blank
            yield Window(start, end, before, _skip_space(text, held[first:]))
        before = end
        total -= sum(piece.tokens for piece in held[:first])
        del held[:first]


def merge(found: Iterable[tuple[Window, list[Entity]]]) -> list[Entity]:
    """Merge the entities of a text's windows, with offsets into the text.

    An entity found in several windows counts once, with its highest score.
    """
    best: dict[tuple[int, int, str], Entity] = {}
    for window, entities in found:
        for entity in entities:
            start, end = window.start + entity["start"], window.start + entity["end"]
            known = best.get((start, end, entity["entity_group"]))
            if window.gives(start, end) and (known is None or (known["score"] or 0) < (entity["score"] or 0)):
                best[start, end, entity["entity_group"]] = {**entity, "start": start, "end": end}
    return list(best.values())


def read_entities(text: str, answered: Sequence[Answered], selection: Selection) -> list[Entity]:
    """Return the spans of a text from the answers to each of its windows, by entity group."""
    settings = selection.occurrences, selection.temperature, selection.bias
    found: list[tuple[Window, list[Entity]]] = []
    for window, answers in answered:
        part = text[window.start : window.end]
        spans = (to_entities(part, name, answer, *settings) for name, answer in answers.items())
        found.append((window, list(chain.from_iterable(spans))))
    return selection.select(merge(found), list(answered[0][1]))


def read_raw(text: str, answered: Sequence[Answered], selection: Selection) -> RawResult:
    """Return the spans of a text together with the answers themselves."""
    entities = read_entities(text, answered, selection)
    raw = {name: [answers[name].text for _, answers in answered] for name in answered[0][1]}
    if len(answered) == 1:
        return {"entities": entities, "raw": {name: texts[0] for name, texts in raw.items()}}
    return {"entities": entities, "raw": raw, "windows": [(window.start, window.end) for window, _ in answered]}


def _pieces(text: str, count: Count, longest: int) -> Iterator[_Piece]:
    """Yield sentences, or their parts of at most `longest` bytes, without space at the end of the text."""
    places = _places(text, longest)
    while batch := list(islice(places, PIECES_AT_A_TIME)):
        tokens = count([text[start:end] for start, end, _ in batch])
        yield from (_Piece(*place, number) for place, number in zip(batch, tokens, strict=True))


def _places(text: str, longest: int) -> Iterator[tuple[int, int, bool]]:
    """Yield the start and the end of each piece, and whether a sentence ends there."""
    start, end_of_text = 0, len(text.rstrip())
    while start < end_of_text:
        fitting = text[start : min(start + longest, end_of_text)].encode()[:longest].decode(errors="ignore")
        stop = start + max(1, len(fitting))
        sentence = SENTENCE_END.search(text, start, stop + 2)
        if sentence and sentence.end() <= stop:
            end, ends_sentence = sentence.end(), True
        elif stop == end_of_text:
            end, ends_sentence = stop, True
        else:  # before the last space, which begins the next piece, else inside a word
            ends = range(stop, start, -1)
            spaces = (end for end in ends if text[end].isspace() and not text[end - 1].isspace())
            borders = (end for end in ends if is_border(text, end))
            end, ends_sentence = next(chain(spaces, borders), stop), False
        yield start, end, ends_sentence
        start = end


def _fitting(text: str, held: list[_Piece], count: Count, limit: int) -> int:
    """Return how many pieces form the window: all that fit, or up to the last sentence end in their second half."""
    totals = list(accumulate(piece.tokens for piece in held))
    size = max(1, bisect(totals, limit))
    while size > 1 and count([text[held[0].start : held[size - 1].end]])[0] > limit:
        size -= 1  # tokenized together, the pieces may have more tokens
    if size >= len(held):
        return len(held)
    ends = (number for number in range(size, 0, -1) if held[number - 1].ends_sentence)
    return next((number for number in ends if 2 * totals[number - 1] >= limit), size)


def _first_of_next(held: list[_Piece], size: int, limit: int) -> int:
    """Return which piece begins the next window, which must reach beyond the end of this one."""
    shared, starts = 0, [(size, 0)]  # possible first pieces, with the tokens that both windows then share
    for number in range(size - 1, 0, -1):
        shared += held[number].tokens
        if shared > min(limit // 4, limit - held[size].tokens):
            break
        starts.append((number, shared))
    enough = [number for number, shared in starts if shared >= limit // 8] or [starts[-1][0]]
    return next((number for number in enough if held[number - 1].ends_sentence), enough[0])


def _skip_space(text: str, pieces: list[_Piece]) -> int:
    """Return where the text of pieces begins after its space."""
    return pieces[-1].end - len(text[pieces[0].start : pieces[-1].end].lstrip()) if pieces else 0
