"""The grammar of a grounded answer: a JSON list of distinct strings, each a substring of the passage, in order.

It works on bytes, because a byte-level token may end inside a character, and finds the open string in the passage's
JSON-escaped bytes. The vocabulary is never enumerated: the decoder tries the model's best tokens in turn and takes the
first that is allowed, which is the greedy choice under the grammar.

Libraries express less or cost more: xgrammar has JSON lists of strings but no substrings; llguidance has substrings,
but neither their order nor their distinctness, and fills a mask of the whole vocabulary for every token.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum

from transformers.convert_slow_tokenizer import bytes_to_unicode

QUOTE, BACKSLASH = ord('"'), ord("\\")
INNER = 256  # added to all bytes of a unit but the first, so that no match begins inside an escape


class Phase(IntEnum):
    """What may come next in an answer; the comments show the position as |."""

    START = 0  # |["Paris", "Rome"]
    OPEN = 1  # [|"Paris", "Rome"]   or [|]
    STRING = 2  # ["Par|is", "Rome"]
    AFTER = 3  # ["Paris"|, "Rome"]
    SEPARATOR = 4  # ["Paris",| "Rome"]
    ITEM = 5  # ["Paris", |"Rome"]
    END = 6  # ["Paris", "Rome"]|
    REPEAT = 7  # ["Paris", "Paris"|   the answer repeats itself: it ends before this string
    LEAD = 8  # | ["Paris", "Rome"]  or START: the template's prompt may leave the space before an answer to it
    OUTSIDE = 9  # a freely decoded answer that is no longer allowed


@dataclass(frozen=True)
class State:
    """The state of an answer: its phase, its open string and its closed strings.

    `start` is the first byte of the passage where the open string occurs, or the last closed one, at or after the
    strings before it; `left` is the number of bytes that the open string's last character or escape still needs.
    """

    phase: Phase = Phase.START
    start: int = 0
    length: int = 0
    left: int = 0
    closed: tuple[bytes, ...] = ()


class AnswerGrammar:
    """The answers that a passage allows. Positions are bytes of the passage's JSON-escaped form."""

    def __init__(self, text: str) -> None:
        units = [
            character.encode("utf-8", "surrogatepass")
            if character >= " " and character not in '"\\'
            else json.dumps(character)[1:-1].encode()  # an escape such as \n is one unit, which is never cut
            for character in text
        ]
        self.source = b"".join(units)
        codes = (byte + INNER if place else byte for unit in units for place, byte in enumerate(unit))
        self._codes = "".join(map(chr, codes))

    def advance(self, state: State, token: bytes) -> State | None:
        """Return the state after `token`, or None if the grammar forbids it."""
        for byte in token:
            following = self._inside(state, byte) if state.phase is Phase.STRING else self._between(state, byte)
            if following is None:
                return None
            state = following
        return state if token else None

    def strings(self, state: State) -> list[str]:
        """Return the closed strings, unescaped."""
        return [json.loads(b'"' + string + b'"') for string in state.closed]

    def upcoming(self, state: State, size: int) -> bytes:
        """Return at most `size` bytes that follow the open string where it first occurs; none between strings."""
        begin = state.start + state.length
        return self.source[begin : begin + size] if state.phase is Phase.STRING and state.length else b""

    def _between(self, state: State, byte: int) -> State | None:
        match state.phase:
            case Phase.LEAD if byte == ord(" "):
                return replace(state, phase=Phase.START)
            case Phase.START | Phase.LEAD if byte == ord("["):
                return replace(state, phase=Phase.OPEN)
            case Phase.OPEN | Phase.AFTER if byte == ord("]"):
                return replace(state, phase=Phase.END)
            case Phase.OPEN | Phase.ITEM if byte == QUOTE and self.source:
                return replace(state, phase=Phase.STRING, length=0, left=0)
            case Phase.AFTER if byte == ord(","):
                return replace(state, phase=Phase.SEPARATOR)
            case Phase.SEPARATOR if byte == ord(" "):
                return replace(state, phase=Phase.ITEM)
            case Phase.REPEAT:
                return state  # the rest of the token that closed it
        return None

    def _inside(self, state: State, byte: int) -> State | None:
        """A byte of the open string, which must occur at or after the start of the string before it."""
        start, end = state.start, state.start + state.length
        if byte == QUOTE and state.left == 0:
            string = self.source[start:end]
            if string in state.closed:
                return replace(state, phase=Phase.REPEAT)
            return replace(state, phase=Phase.AFTER, closed=(*state.closed, string)) if string else None
        code = chr(byte + INNER if state.left else byte)
        if self._codes[end : end + 1] != code:
            start = self._codes.find(self._codes[start:end] + code, start + 1 if state.length else start)
            if start < 0:
                return None
        if state.left:  # an escape's second byte tells whether more follow: u has four digits, as in \u001f
            left = 4 if state.left == 1 and byte == ord("u") else state.left - 1
        else:
            left = 1 if byte == BACKSLASH else (byte >= 0xC0) + (byte >= 0xE0) + (byte >= 0xF0)
        return State(Phase.STRING, start, state.length + 1, left, state.closed)


def token_bytes(vocabulary: Mapping[str, int], size: int, special: Iterable[str]) -> list[bytes]:
    """Return the bytes that each token writes, for at least `size` ids; none for special tokens.

    The vocabulary is byte-level if it has "Ġ", else SentencePiece's, with bytes as `<0x0A>`.
    """
    table = [b""] * max(size, *(index + 1 for index in vocabulary.values()))
    byte_level = {character: byte for byte, character in bytes_to_unicode().items()} if "Ġ" in vocabulary else {}
    special = set(special)
    for token, index in vocabulary.items():
        if token in special:
            continue
        if byte_level:
            table[index] = bytes(byte_level[c] for c in token if c in byte_level)
        elif re.fullmatch(r"<0x[0-9A-F]{2}>", token):
            table[index] = bytes([int(token[3:5], 16)])
        else:
            table[index] = token.replace("▁", " ").encode("utf-8", "surrogatepass")
    return table
