"""Cut documents into pieces of whole words that tokenize to at most `max_tokens` tokens.

Tokenization dominates the cost, so pieces are planned from the cached token counts of single words. With a tokenizer
that splits at spaces first (GPT-2's pattern, and the default student's), the sum over the words is the exact count.
With any other it is an estimate: each planned piece is tokenized, and a piece that is too long is cut again.
"""

import json
import re
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

from tokenizers import Tokenizer

from open_ner.tools.errors import UserError

LONGEST_WORD = 50_000  # characters; tokenizing a longer word may take minutes
KNOWN_WORDS = 500_000  # cached counts, about 60 MiB
KNOWN_LENGTH = 64  # characters; longer words rarely occur again
WORDS_PER_TEXT = 200  # words counted in one text: a text per word costs four times as much
NON_SPACE = re.compile(r"\S")
SPACE = re.compile(r"\s")
WORD = re.compile(r"\s*\S+")  # with the space before it; linear only where the text does not end with space
SEPARATORS = re.compile("[\x1c-\x1f]")  # space to Python, but not to tokenizers

Piece = tuple[int, int, int]  # start, end, tokens


@dataclass
class Passage:
    """`text == document[start:end]`; `tokens` is counted by the corpus's tokenizer."""

    id: str
    text: str
    source: str
    source_id: str
    license: str
    start: int
    end: int
    tokens: int


def load_tokenizer(name: str) -> Tokenizer:
    """Load the tokenizer of a folder or Hub id without truncation and padding; needs neither torch nor the model."""
    file = Path(name) / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(file)) if file.exists() else Tokenizer.from_pretrained(name)
    except Exception as error:  # tokenizers raises bare Exception
        raise UserError(
            f"corpus.tokenizer {name!r} is neither a folder with a tokenizer.json nor a Hub id that can be reached "
            f"({str(error):.120}); `make setup` installs the default one"
        ) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def counts_add_up(tokenizer: Tokenizer) -> bool:
    """Whether a text has as many tokens as its words have together, each with the space before it.

    True for byte-level BPE with GPT-2's pattern, where no match extends from a word into the space after it. (In the
    patterns of Llama 3 and Qwen, a full stop and the line break after it are one match.)
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
class _Progress:
    """A document and the pieces cut so far."""

    document: str
    budget: int  # tokens planned for the next piece
    exact: bool  # whether the planned counts need no check
    start: int = 0  # of the next piece
    ahead: int = LONGEST_WORD  # pieces planned at once
    pieces: list[Piece] = field(default_factory=list)

    def skip_space(self) -> bool:
        """Move to the next word; False at the end of the document."""
        word = NON_SPACE.search(self.document, self.start)
        self.start = word.start() if word else len(self.document)
        return word is not None

    def next_words(self) -> list[str]:
        """The next words, each with the space before it; none if the first one is too long to count."""
        stop = self.start + LONGEST_WORD
        words = WORD.findall(self.document[self.start : stop].rstrip())
        if self.document[stop : stop + 1].strip() and self.document[stop - 1].strip():
            words.pop()  # `stop` cuts it in two
        return words

    def accept(self, planned: list[Piece], max_tokens: int) -> None:
        """Append the planned pieces up to the first that is too long, and continue after them."""
        for start, end, tokens in planned:
            if tokens > max_tokens and SPACE.search(self.document, start, end):
                # plan fewer words, and one piece at a time: the pieces after this one will begin elsewhere
                self.start, self.budget, self.ahead = start, self.budget - (tokens - max_tokens), 1
                return
            self.pieces.append((start, end, tokens))
            self.start, self.budget = end, max_tokens
        self.ahead *= 2


class PassageCutter:
    """Cuts documents with one tokenizer; keeps its cache of token counts between calls."""

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        self.tokenizer, self.max_tokens = tokenizer, max_tokens
        self.exact = counts_add_up(tokenizer)
        self.within: dict[str, int] = {}  # tokens of a word with the space before it, inside a text
        self.leading: dict[str, int] = {}  # tokens of a word at the start of a text
        self.temporary: list[str] = []  # keys of `within` to forget at the next call

    def count(self, texts: list[str]) -> list[int]:
        """Tokens of each text."""
        return [len(encoding) for encoding in self.tokenizer.encode_batch(texts, add_special_tokens=False)]

    def cut(self, documents: list[str]) -> list[list[Piece]]:
        """Cut each document into pieces of whole words, in order, with every word in exactly one piece.

        Documents must be valid Unicode. Returns for each document its pieces `(start, end, tokens)`, where `tokens`
        counts `document[start:end]` and is at most `max_tokens`. A single word above the limit is a piece by itself
        with its count (`max_tokens + 1` if it was too long to tokenize), for the caller to reject.
        """
        everything = [
            _Progress(document, self.max_tokens, self.exact and not SEPARATORS.search(document))
            for document in documents
        ]
        todo = [one for one in everything if one.skip_space()]
        while todo:
            blocks = [one.next_words() for one in todo]
            self._learn(blocks)
            plans = [self._plan(words, one) for words, one in zip(blocks, todo, strict=True)]
            checked = [(one, plan) for one, plan in zip(todo, plans, strict=True) if not one.exact]
            counts = iter(self.count([one.document[a:b] for one, plan in checked for a, b, _ in plan]))
            for one, plan in zip(todo, plans, strict=True):
                if plan:
                    one.accept(plan if one.exact else [(a, b, next(counts)) for a, b, _ in plan], self.max_tokens)
                else:  # a word longer than LONGEST_WORD
                    space = SPACE.search(one.document, one.start)
                    stop = space.start() if space else len(one.document)
                    one.pieces.append((one.start, stop, self.max_tokens + 1))
                    one.start = stop
            todo = [one for one in todo if one.skip_space()]
        return [one.pieces for one in everything]

    def _learn(self, blocks: list[list[str]]) -> None:
        """Count the tokens of new words, except the first of each block, which has no space before it."""
        for word in self.temporary:
            del self.within[word]
        if len(self.within) > KNOWN_WORDS:
            self.within.clear()
            self.leading.clear()
        new = list({word for words in blocks for word in words[1:]} - self.within.keys())
        groups = [new[i : i + WORDS_PER_TEXT] for i in range(0, len(new), WORDS_PER_TEXT)]
        # put the same word around each, so that its count does not depend on the other words of the group
        parts = [[part for word in group for part in (" x", word)] for group in groups]
        encodings = self.tokenizer.encode_batch(["".join(each) for each in parts], add_special_tokens=False)
        for group, each, encoding in zip(groups, parts, encodings, strict=True):
            ends = list(accumulate(map(len, each)))
            counts, at = [0] * len(ends), 0
            for _, end in encoding.offsets:  # a token belongs to the part it ends in
                while end > ends[at]:
                    at += 1
                counts[at] += 1
            self.within.update(zip(group, counts[1::2], strict=True))
        self.temporary = [word for word in new if len(word) > KNOWN_LENGTH]

    def _plan(self, words: list[str], one: _Progress) -> list[Piece]:
        """Plan the next pieces with their expected token counts."""
        tokens = list(accumulate(map(self.within.__getitem__, words[1:]), initial=0))
        ends = list(accumulate(map(len, words), initial=one.start))
        plan, first, budget = [], 0, one.budget
        while first < len(words) and len(plan) < one.ahead:
            word = words[first].lstrip()
            leading = self.leading.get(word)
            if leading is None:
                (leading,) = self.count([word])
                if len(word) <= KNOWN_LENGTH:
                    self.leading[word] = leading
            after = bisect_right(tokens, budget - leading + tokens[first], lo=first + 1)
            count = leading + tokens[after - 1] - tokens[first]
            plan.append((ends[first + 1] - len(word), ends[after], count))
            first, budget = after, self.max_tokens
        if len(plan) > 1 and first == len(words) and NON_SPACE.search(one.document, ends[-1]):
            plan.pop()  # not full: the document continues after these words
        return plan
