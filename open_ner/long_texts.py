"""Long texts: cut into overlapping windows of whole sentences, with the spans of the windows merged.

A student answers best on passages as long as those it was trained on, so a longer text is read window by window. The
windows are cut lazily, in one pass over any text: without sentence ends, without spaces, or one word of ten megabytes.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import NamedTuple, NotRequired, TypedDict

from transformers import PreTrainedTokenizerBase

from .answers import Answer, Entity, to_entities
from .conversation import LONE_SURROGATE, Span, build_query, is_border, neutralize
from .prompts import ChatTemplate
from .selection import Selection

Count = Callable[[Sequence[str]], list[int]]  # tokens of each text

# A sentence ends at a mark before a space and no lower-case letter, unless it belongs to an initial or a title; at a
# mark of Chinese or Japanese; and at an empty line. A mistake costs little, because windows overlap.
SENTENCE_END = re.compile(
    r"(?<![\s.][A-Z])(?<!\b(?:Mr|Ms|Dr|St|Lt))(?<!\b(?:Mrs|Gen|Sen|Rep))(?<!\bProf)"
    r"[.!?…]+[\"'”’»)\]]*(?=\s[^a-z])|[。！？｡]+[”’」』）]*|\n(?=\s)"
)
NON_SPACE = re.compile(r"\S")
LONGEST_PIECE = 32  # bytes, hence at most as many tokens
PIECES_AT_A_TIME = 512  # pieces tokenized in one call
CHARACTERS_A_TOKEN = 32  # a text with more characters per token of the limit is never counted whole: it cannot fit
SMALLEST = 16  # tokens; with less room for a passage, the decoder's error names what takes the positions
SLACK = 8  # tokens by which a passage may grow next to the words around it


class Window(NamedTuple):
    """The part `text[start:end]`; `before` is the end of the window before it, `after` the start of the next one."""

    start: int
    end: int
    before: int | None = None
    after: int | None = None

    def gives(self, start: int, end: int) -> bool:
        """Whether a span found in this window counts.

        One at the edge may be part of a longer one: if a neighbor has it with text around it, only that one counts.
        """
        in_next = self.after is not None and end == self.end and self.after < start
        in_last = self.before is not None and start == self.start and end < self.before
        return not (in_next or in_last)


Answered = tuple[Window, Mapping[str, Answer]]  # with its answers by entity group


@dataclass(frozen=True)
class _Piece:
    """A sentence or a part of one, with the space before it; never divided between windows."""

    start: int
    end: int
    ends_sentence: bool
    tokens: int


class RawResult(TypedDict):
    """The result of a text with `return_raw`: a text of several windows has an answer for each, and `windows`."""

    entities: list[Entity]
    raw: dict[str, str] | dict[str, list[str]]
    windows: NotRequired[list[Span]]


def token_counter(tokenizer: PreTrainedTokenizerBase, special_tokens: Collection[str]) -> Count:
    """Return a function that counts the tokens of texts as the decoder reads them, with special tokens neutralized.

    A lone surrogate counts as a character, because no tokenizer accepts it; the decoder rejects it later.
    """
    return partial(_count_tokens, tokenizer, special_tokens)  # which can be pickled


def _count_tokens(tokenizer: PreTrainedTokenizerBase, special: Collection[str], texts: Sequence[str]) -> list[int]:
    contents = [{"content": LONE_SURROGATE.sub("?", text)} for text in texts]
    safe = [message["content"] for message in neutralize(contents, special)]
    encoded = tokenizer(safe, add_special_tokens=False, return_attention_mask=False, verbose=False)
    return [len(ids) for ids in encoded["input_ids"]]


def fitting_window(
    window: int,
    positions: int | None,
    tokenizer: PreTrainedTokenizerBase,
    special_tokens: Collection[str],
    wordings: Sequence[str],
    dataset: str | None,
    max_new_tokens: int,
) -> int:
    """Return the tokens of a passage that are read at once: `window`, or less if the model's `positions` leave less.

    The positions also hold the longest query (one of `wordings`), the turns around it and the answer.
    """
    if positions is None:
        return window
    count = token_counter(tokenizer, special_tokens)
    turns = ChatTemplate.from_tokenizer(tokenizer).render(build_query("", "", dataset and "x"), prompt=True)
    around = len(tokenizer.encode(turns, add_special_tokens=False)) + sum(count([dataset or ""]))
    taken = around + max(count(wordings)) + max_new_tokens + SLACK
    return min(window, positions - taken) if positions - taken >= SMALLEST else window


def cut(text: str, count: Count, limit: int) -> Iterator[Window]:
    """Yield windows of at most `limit` tokens that together contain all of `text`; the last one has no `after`.

    A text within the limit is one window. A longer text is cut at a sentence end in the second half of a window, else
    between words, else inside a word but never inside a character with its combining marks. Neighbors share at least
    an eighth of the limit, and up to a quarter if the next window can then begin with a sentence.
    """
    short = len(text) <= limit * CHARACTERS_A_TOKEN
    if LONE_SURROGATE.search(text) or (short and count([text])[0] <= limit):
        yield Window(0, len(text))  # whole if it has a surrogate, so that the decoder's error names the right place
        return
    pieces = _pieces(text, count, min(LONGEST_PIECE, limit))
    held: list[_Piece] = []  # from the window's start, until they exceed the limit
    before, total = None, 0
    while True:
        while (total <= limit or len(held) < 2) and (piece := next(pieces, None)):
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


def read_entities(text: str, answered: Iterable[Answered], selection: Selection) -> list[Entity]:
    """Return the spans of a text from the answers to each of its windows, by entity group."""
    settings = selection.occurrences, selection.temperature, selection.bias
    found: list[tuple[Window, list[Entity]]] = []
    types: list[str] = []
    for window, answers in answered:
        part, types = text[window.start : window.end], list(answers)
        spans = [span for name, answer in answers.items() for span in to_entities(part, name, answer, *settings)]
        found.append((window, spans))
    return selection.select(merge(found), types)


def read_raw(text: str, answered: Iterable[Answered], selection: Selection) -> RawResult:
    """Return the spans of a text together with the answers themselves."""
    windows, answers = zip(*answered, strict=True)
    entities = read_entities(text, zip(windows, answers, strict=True), selection)
    raw = {name: [own[name].text for own in answers] for name in answers[0]}
    if len(windows) == 1:
        return {"entities": entities, "raw": {name: own for name, [own] in raw.items()}}
    return {"entities": entities, "raw": raw, "windows": [(window.start, window.end) for window in windows]}


def up_to_last(answers: Iterator[Answered]) -> Iterator[Answered]:
    """Yield the part of a stream that belongs to one text; the rest stays in the stream."""
    for window, answer in answers:
        yield window, answer
        if window.after is None:
            return


def _pieces(text: str, count: Count, longest: int) -> Iterator[_Piece]:
    """Yield sentences, or their parts of at most `longest` bytes, without space at the end of the text."""
    start, stop = 0, len(text.rstrip())
    while start < stop:
        places: list[tuple[int, int, bool]] = []
        while start < stop and len(places) < PIECES_AT_A_TIME:
            end, sentence = _end_of_piece(text, start, stop, longest)
            places.append((start, end, sentence))
            start = end
        tokens = count([text[a:b] for a, b, _ in places])
        yield from (_Piece(*place, number) for place, number in zip(places, tokens, strict=True))


def _end_of_piece(text: str, start: int, end_of_text: int, longest: int) -> tuple[int, bool]:
    """Return where the piece from `start` ends, and whether a sentence ends there."""
    stop = min(start + longest, end_of_text)
    while stop - start > 1 and (size := len(text[start:stop].encode())) > longest:
        stop = start + max(1, (stop - start) * longest // size)
    sentence = SENTENCE_END.search(text, start, stop + 2)
    if sentence and sentence.end() <= stop:
        return sentence.end(), True
    if stop == end_of_text:
        return stop, True
    # before the last space, which begins the next piece, else inside a word
    spaces = (end for end in range(stop, start, -1) if text[end].isspace() and not text[end - 1].isspace())
    borders = (end for end in range(stop, start, -1) if is_border(text, end))
    return next(chain(spaces, borders), stop), False


def _fitting(text: str, held: list[_Piece], count: Count, limit: int) -> int:
    """Return how many pieces form the window: up to its last sentence end, if in the second half, or all that fit."""
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
        excess = count([text[held[0].start : held[size - 1].end]])[0] - limit  # tokenized together, they may have more
        if excess <= 0 or size == 1:
            return size
        budget -= excess


def _first_of_next(held: list[_Piece], size: int, limit: int) -> int:
    """Return which piece begins the next window, which must reach beyond the end of this one."""
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
    """Return the first position from `start` that is not white space, or `end`."""
    found = NON_SPACE.search(text, start, end)
    return found.start() if found else end
