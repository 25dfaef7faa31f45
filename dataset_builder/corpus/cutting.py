"""Cut documents into pieces of whole words with a maximum number of tokens.

In scripts without spaces, a word is a phrase that ends at a space or at a mark such as 。 or 、. Only a phrase that is
longer than a piece is cut between characters.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import regex
from tokenizers import Tokenizer

from open_ner.borders import UNSPACED
from open_ner.conversation import Span
from open_ner.tools.errors import UserError

LONGEST_WORD = 50_000  # characters; a tokenizer may need minutes for a longer word
BLOCK = 1_000_000  # characters tokenized at once, which take about 200 bytes of memory each
MARGIN = 8  # a phrase alone may have this many more tokens than inside its document
# marks that end a phrase in Chinese and Japanese, and closing characters that may follow them
MARKS, CLOSING = "。｡．，、､；：！？", "」』）】》〉〕”’"
PHRASE = re.compile(rf"[^\s{MARKS}]+(?:[{MARKS}]+[{CLOSING}]*)?|[{MARKS}]+[{CLOSING}]*")
BREAK = re.compile(rf"\s|[{MARKS}](?![{MARKS}{CLOSING}])")  # where a document can be divided
HAS_UNSPACED = re.compile(f"[{UNSPACED}]")
# a character of a script without spaces, or a run of other characters, with the marks that follow
SMALLEST_PART = regex.compile(rf"(?:(?=[{UNSPACED}])\X|(?:(?![{UNSPACED}{MARKS}])\X)+|[{MARKS}])[{MARKS}{CLOSING}]*")

Piece = tuple[int, int, int]  # start, end, tokens


@dataclass
class Passage:
    """A piece of a document: `text == document[start:end]`; `tokens` is its length by the corpus's tokenizer."""

    id: str
    text: str
    source: str
    source_id: str
    license: str
    start: int
    end: int
    tokens: int


def load_tokenizer(name: str) -> Tokenizer:
    """Load the tokenizer of a folder or Hub id, without torch. Raises UserError if it cannot be loaded."""
    file = Path(name) / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(file)) if file.exists() else Tokenizer.from_pretrained(name)
    except Exception as error:  # tokenizers raises bare Exception
        raise UserError(
            f"tokenizer {name!r} is neither a folder with a tokenizer.json nor a Hub id that can be reached "
            f"({str(error):.120}); `make setup` installs the default one"
        ) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


class PassageCutter:
    """Cuts documents with one tokenizer.

    A document is tokenized once to estimate how many words fit into each piece. Each piece is then tokenized alone,
    because it may have a few tokens more or fewer than inside the document.
    """

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        self.tokenizer, self.max_tokens = tokenizer, max_tokens

    def cut(self, document: str) -> Iterator[Piece]:
        """Yield the pieces `(start, end, tokens)` of a document, in order; every word is in one of them.

        A piece has at most `max_tokens` tokens, except for a single longer word, which is a piece of its own; in a
        script without spaces, this is a single character. A word of more than `LONGEST_WORD` characters counts as
        `max_tokens + 1`. The document must be valid Unicode.
        """
        done = 0
        for word in re.finditer(rf"[^\s{MARKS}]{{{LONGEST_WORD + 1},}}", document):
            yield from self._cut_blocks(document, done, word.start())
            yield word.start(), word.end(), self.max_tokens + 1
            done = word.end()
        yield from self._cut_blocks(document, done, len(document))

    def _cut_blocks(self, document: str, begin: int, stop: int) -> Iterator[Piece]:
        """Cut a part of a document in blocks, so that one large file does not fill the memory."""
        while begin < stop:
            found = BREAK.search(document, min(begin + BLOCK, stop), stop)
            end = found.end() if found else stop
            yield from self._cut(document, begin, end)
            begin = end

    def _cut(self, document: str, begin: int, stop: int) -> Iterator[Piece]:
        whole = [*PHRASE.finditer(document, begin, stop)]
        if not whole:
            return
        offsets = self.tokenizer.encode(document[begin:stop], add_special_tokens=False).offsets
        ends = [begin + end for _, end in offsets]
        words = [part for word in whole for part in self._divide(word, ends)]
        tokens = [0, *(bisect_right(ends, end) for _, end in words)]  # tokens before each word, and in total

        def count() -> int:
            piece = document[words[first][0] : words[last - 1][1]]
            return len(self.tokenizer.encode_batch_fast([piece], add_special_tokens=False)[0])

        first = 0
        while first < len(words):
            last = max(first + 1, bisect_right(tokens, tokens[first] + self.max_tokens) - 1)
            size = count()
            while last < len(words) and size + tokens[last + 1] - tokens[last] <= self.max_tokens:
                last += 1
                size = count()
            while size > self.max_tokens and last > first + 1:
                last -= 1
                size = count()
            yield words[first][0], words[last - 1][1], size
            first = last

    def _divide(self, word: re.Match[str], ends: list[int]) -> Iterator[Span]:
        """Yield a word, or its characters if it has too many tokens and its script has no spaces."""
        start, end = word.span()
        tokens = bisect_right(ends, end) - bisect_right(ends, start)
        if tokens <= self.max_tokens - MARGIN or not HAS_UNSPACED.search(word[0]):
            yield start, end
        else:
            yield from (part.span() for part in SMALLEST_PART.finditer(word.string, start, end))
