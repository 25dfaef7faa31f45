"""The grammar of a grounded answer: a JSON list of distinct strings, each a substring of the passage, in order.

It works on bytes, because a byte-level token may end in the middle of a character. A state is advanced byte by byte
and never enumerates the vocabulary: the decoder tries the model's own best tokens in turn and takes the first one
allowed, which is the greedy choice under the grammar.
"""

import json
from dataclasses import dataclass, replace
from enum import IntEnum

QUOTE = ord('"')


class Phase(IntEnum):
    """What an answer expects next; the comment shows where the cursor stands."""

    START = 0  # |["Paris", "Rome"]
    OPEN = 1  # [|"Paris", "Rome"]   or [|]
    STRING = 2  # ["Par|is", "Rome"]
    AFTER = 3  # ["Paris"|, "Rome"]
    SEPARATOR = 4  # ["Paris",| "Rome"]
    ITEM = 5  # ["Paris", |"Rome"]
    END = 6  # ["Paris", "Rome"]|
    LEAD = 7  # | ["Paris", "Rome"]  or START: of a template whose prompt leaves the space before an answer to it


@dataclass(frozen=True)
class State:
    """Where an answer stands: the phase, the open string's possible end positions and length, the strings closed."""

    phase: Phase = Phase.START
    ends: tuple[int, ...] = ()
    length: int = 0
    closed: tuple[bytes, ...] = ()
    last_start: int = 0


class AnswerGrammar:
    """The answers that one passage allows. `text` is the passage; positions are bytes of its JSON-escaped form."""

    def __init__(self, text: str) -> None:
        source, cuts = bytearray(), [0]
        for character in text:  # an escape such as \n is one unit: a string may not begin or end inside it
            source += json.dumps(character, ensure_ascii=False)[1:-1].encode("utf-8", "surrogatepass")
            cuts.append(len(source))
        self.source = bytes(source)
        self.cuts = set(cuts)
        self.starts: dict[int, list[int]] = {}
        for cut in cuts[:-1]:
            self.starts.setdefault(source[cut], []).append(cut + 1)

    def advance(self, state: State, token: bytes) -> State | None:
        """The state after `token`, or None where the grammar forbids it."""
        current: State | None = state
        for byte in token:
            current = self._step(current, byte)
            if current is None:
                return None
        return current if token else None

    def strings(self, state: State) -> list[str]:
        """The strings closed so far, unescaped."""
        return [json.loads(b'"' + string + b'"') for string in state.closed]

    def _step(self, state: State, byte: int) -> State | None:
        match state.phase:
            case Phase.STRING:
                return self._inside(state, byte)
            case Phase.LEAD if byte == ord(" "):
                return replace(state, phase=Phase.START)
            case Phase.START | Phase.LEAD if byte == ord("["):
                return replace(state, phase=Phase.OPEN)
            case Phase.OPEN | Phase.AFTER if byte == ord("]"):
                return replace(state, phase=Phase.END)
            case Phase.OPEN | Phase.ITEM if byte == QUOTE:
                return replace(state, phase=Phase.STRING, ends=(), length=0)
            case Phase.AFTER if byte == ord(","):
                return replace(state, phase=Phase.SEPARATOR)
            case Phase.SEPARATOR if byte == ord(" "):
                return replace(state, phase=Phase.ITEM)
        return None

    def _inside(self, state: State, byte: int) -> State | None:
        if state.length == 0:
            ends = tuple(self.starts.get(byte, ()))
        else:
            ends = tuple(end + 1 for end in state.ends if end < len(self.source) and self.source[end] == byte)
        if ends:
            return replace(state, ends=ends, length=state.length + 1)
        return self._close(state) if byte == QUOTE else None

    def _close(self, state: State) -> State | None:
        """Close the open string: whole characters, not said before, somewhere not ahead of the string before it."""
        starts = [
            end - state.length for end in state.ends if end in self.cuts and end - state.length >= state.last_start
        ]
        if not starts:
            return None
        string = self.source[starts[0] : starts[0] + state.length]
        if string in state.closed:
            return None
        return State(Phase.AFTER, closed=(*state.closed, string), last_start=starts[0])
