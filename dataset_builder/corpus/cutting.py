"""Documents cut to windows of whole words that re-tokenize to at most so many tokens.

Tokenizing is nearly all of the cost. So windows are planned from the token counts of single words, which are looked
up: with a tokenizer that splits at spaces before it does anything else (GPT-2's way, and the default student's) their
sum is the window's count. With any other the sum is an estimate, every planned window is tokenized, what that counts
decides, and a window that turns out too long is cut again.
"""

import json
import re
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from open_ner.tools.errors import UserError

LONGEST_WORD = 50_000  # characters; a longer one is not tokenized: that may take minutes
KNOWN_WORDS = 500_000  # counts kept: some 60 MiB
KNOWN_LENGTH = 64  # characters; longer words hardly come back
WORDS_PER_TEXT = 200  # tokenized together to count each: a call of its own for each costs four times as much
NON_SPACE = re.compile(r"\S")
SPACE = re.compile(r"\s")
PIECE = re.compile(r"\s*\S+")  # a word with the space before it; linear only where no space ends the text
SEPARATORS = re.compile("[\x1c-\x1f]")  # space for Python, not for the tokenizers

Window = tuple[int, int, int]


def load_tokenizer(name: str) -> Any:
    """The tokenizer `name` (folder or Hub id), which never cuts or pads; light: no torch, no model."""
    from tokenizers import Tokenizer

    file = Path(name) / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(file)) if file.exists() else Tokenizer.from_pretrained(name)
    except Exception as error:  # tokenizers raises bare Exception
        raise UserError(
            f"corpus.tokenizer {name!r} is neither a folder with a tokenizer.json nor a Hub id that can be reached "
            f"({str(error):.120}); `make setup` puts the default one in place"
        ) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def counts_add_up(tokenizer: Any) -> bool:
    """Whether a text has as many tokens as its words, each with the space before it, have together.

    True for byte-level BPE behind GPT-2's pattern, none of whose matches goes from a word into the space after it.
    (Llama 3's and Qwen's do: a full stop and the line break after it are one match.)
    """
    options = json.loads(tokenizer.to_str())
    model, splitter = options["model"], options["pre_tokenizer"] or {}
    steps = splitter.get("pretokenizers", [splitter])
    return (
        model["type"] == "BPE"
        and not (model["dropout"] or options["normalizer"])
        and steps[-1].get("type") == "ByteLevel"
        and steps[-1]["use_regex"]
        and not steps[-1]["add_prefix_space"]
        and all(step["type"] == "Digits" for step in steps[:-1])
        and not any(
            token["lstrip"] or token["rstrip"] or token["single_word"] or SPACE.search(token["content"])
            for token in options["added_tokens"]
        )
    )


@dataclass
class _Place:
    """Where a document's next window begins, what it may hold, and how many windows are tried at once."""

    document: str
    windows: list[Window]
    budget: int
    exact: bool
    start: int = 0
    ahead: int = LONGEST_WORD


class WindowCutter:
    """Cuts documents with one tokenizer; remembers the token counts of words from one call to the next."""

    def __init__(self, tokenizer: Any, max_tokens: int) -> None:
        self.tokenizer, self.max_tokens = tokenizer, max_tokens
        self.exact = counts_add_up(tokenizer)
        self.within: dict[str, int] = {}  # tokens of a word with the space before it, inside a text
        self.leading: dict[str, int] = {}  # tokens of a word that starts a text
        self.passing: list[str] = []  # those of `within` that are not worth keeping

    def count(self, texts: list[str]) -> list[int]:
        """Tokens of each text."""
        return [len(encoding) for encoding in self.tokenizer.encode_batch(texts, add_special_tokens=False)]

    def cut(self, documents: list[str]) -> list[list[Window]]:
        """For each document its windows `(start, end, tokens)`: whole words, in order, every word in one of them.

        `tokens` is what `document[start:end]` tokenizes to, at most `max_tokens`, but for a single word beyond the
        limit: that one is a window of its own with its count (`max_tokens + 1` where it was too long to count), for
        the caller to reject. Documents must be valid Unicode; those of one call are in memory together.
        """
        places = [
            _Place(document, [], self.max_tokens, self.exact and not SEPARATORS.search(document))
            for document in documents
        ]
        todo = [place for place in places if _skip_space(place)]
        while todo:
            blocks = [_next_words(place) for place in todo]
            self._learn(blocks)
            plans = [self._plan(pieces, place) for pieces, place in zip(blocks, todo, strict=True)]
            checked = [(place, plan) for place, plan in zip(todo, plans, strict=True) if not place.exact]
            counts = iter(self.count([place.document[a:b] for place, plan in checked for a, b, _ in plan]))
            for place, plan in zip(todo, plans, strict=True):
                if plan:
                    self._accept(plan if place.exact else [(a, b, next(counts)) for a, b, _ in plan], place)
                else:  # a word longer than LONGEST_WORD
                    space = SPACE.search(place.document, place.start)
                    stop = space.start() if space else len(place.document)
                    place.windows.append((place.start, stop, self.max_tokens + 1))
                    place.start = stop
            todo = [place for place in todo if _skip_space(place)]
        return [place.windows for place in places]

    def _learn(self, blocks: list[list[str]]) -> None:
        """Count the tokens of the words not met yet; the first of a block has no space before it."""
        for piece in self.passing:
            del self.within[piece]
        if len(self.within) > KNOWN_WORDS:
            self.within.clear()
            self.leading.clear()
        new = list({piece for pieces in blocks for piece in pieces[1:]} - self.within.keys())
        groups = [new[i : i + WORDS_PER_TEXT] for i in range(0, len(new), WORDS_PER_TEXT)]
        # the same word before and after each, so that no count depends on which words were met together
        parts = [[part for piece in group for part in (" x", piece)] for group in groups]
        encodings = self.tokenizer.encode_batch(["".join(each) for each in parts], add_special_tokens=False)
        for group, each, encoding in zip(groups, parts, encodings, strict=True):
            self.within.update(zip(group, _tokens_of(each, encoding.offsets)[1::2], strict=True))
        self.passing = [piece for piece in new if len(piece) > KNOWN_LENGTH]

    def _plan(self, pieces: list[str], place: _Place) -> list[Window]:
        """Windows that should fit, each with the tokens it should have."""
        tokens = list(accumulate(map(self.within.__getitem__, pieces[1:]), initial=0))
        ends = list(accumulate(map(len, pieces), initial=place.start))
        plan, first, budget = [], 0, place.budget
        while first < len(pieces) and len(plan) < place.ahead:
            word = pieces[first].lstrip()
            leading = self.leading.get(word)
            if leading is None:
                (leading,) = self.count([word])
                if len(word) <= KNOWN_LENGTH:
                    self.leading[word] = leading
            after = bisect_right(tokens, budget - leading + tokens[first], lo=first + 1)
            count = leading + tokens[after - 1] - tokens[first]
            plan.append((ends[first + 1] - len(word), ends[after], count))
            first, budget = after, self.max_tokens
        if len(plan) > 1 and first == len(pieces) and NON_SPACE.search(place.document, ends[-1]):
            plan.pop()  # not full: more words of the document follow
        return plan

    def _accept(self, found: list[Window], place: _Place) -> None:
        """Move the windows that fit to the document's, and the place behind the last of them."""
        for start, end, tokens in found:
            if tokens > self.max_tokens and SPACE.search(place.document, start, end):
                # fewer words next time, and few windows until one fits: those behind it are tried in vain
                place.start, place.budget, place.ahead = start, place.budget - (tokens - self.max_tokens), 1
                return
            place.windows.append((start, end, tokens))
            place.start, place.budget = end, self.max_tokens
        place.ahead *= 2


def _tokens_of(parts: list[str], offsets: list[tuple[int, int]]) -> list[int]:
    """How many tokens of the joined parts end in each of them."""
    ends = list(accumulate(map(len, parts)))
    counts, at = [0] * len(ends), 0
    for _, end in offsets:
        while end > ends[at]:
            at += 1
        counts[at] += 1
    return counts


def _skip_space(place: _Place) -> bool:
    """Move the place to its document's next word; False where there is none."""
    word = NON_SPACE.search(place.document, place.start)
    place.start = word.start() if word else len(place.document)
    return word is not None


def _next_words(place: _Place) -> list[str]:
    """The words from the place on, each with the space before it; none where the next one is too long to count."""
    stop = place.start + LONGEST_WORD
    pieces = PIECE.findall(place.document[place.start : stop].rstrip())
    if place.document[stop : stop + 1].strip() and place.document[stop - 1].strip():
        pieces.pop()  # the stop cuts it in two
    return pieces
