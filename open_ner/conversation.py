"""The dialogue between user and student: its turns, its answers, and the spans of an answer's strings.

The wording and the order of the turns are those of UniversalNER (arXiv 2308.03279, section 3.2). The builder, the
trainer, the decoder and the scorer all use these functions, so that inference matches training.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import accumulate, pairwise
from json.encoder import encode_basestring
from typing import Literal

from .borders import begins_word, ends_word, is_border

Message = dict[str, str]
Span = tuple[int, int]
Occurrences = Literal["all", "first"]

LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # half of a UTF-16 pair, which neither tokenizers nor files accept
SYSTEM = "A virtual assistant answers questions from a user based on the provided text."
ACKNOWLEDGEMENT = "I've read this text."
OPENING = re.compile(r"(?:Dataset: (?P<dataset>[^\n]*)\n)?Text: (?P<text>.*)", re.DOTALL)
QUERY = re.compile(r"What describes (?P<type>.*) in the text\?", re.DOTALL)
OCCURRENCES: Occurrences = "all"  # had the best strict F1 on development passages


def passage_turns(text: str, dataset: str | None = None) -> list[Message]:
    """Return the opening turns: the system turn, the passage, the acknowledgement.

    `dataset` names a human-annotated set, for students trained on several sets (paper, section 3.3).
    """
    passage = f"Dataset: {dataset}\nText: {text}" if dataset else f"Text: {text}"
    return [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": passage},
        {"role": "assistant", "content": ACKNOWLEDGEMENT},
    ]


def write_query(entity_type: str) -> str:
    """Return the text of the user's turn that asks for an entity type, given by its name or its definition."""
    return f"What describes {entity_type} in the text?"


def build_query(text: str, entity_type: str, dataset: str | None = None) -> list[Message]:
    """Return the messages that ask for one type in one passage; the student's answer comes next."""
    return [*passage_turns(text, dataset), {"role": "user", "content": write_query(entity_type)}]


def build_conversation(
    text: str, answers: Iterable[tuple[str, list[str]]], dataset: str | None = None
) -> list[Message]:
    """Return a training conversation: the passage, then a query and an answer for each `(type, strings)` pair."""
    messages = passage_turns(text, dataset)
    for entity_type, strings in answers:
        messages.append({"role": "user", "content": write_query(entity_type)})
        messages.append({"role": "assistant", "content": write_answer(strings)})
    return messages


def read_conversation(messages: list[Message]) -> tuple[str, str | None, list[tuple[str, str]]]:
    """Invert `build_conversation`: return the passage, the dataset's name, and a `(type, answer)` pair per query.

    Raises:
        ValueError: the turns are not those of the dialogue.
    """
    turns = [message["content"] for message in messages if message["role"] != "system"]
    opening = OPENING.fullmatch(turns[0]) if len(turns) % 2 == 0 and turns[1:2] == [ACKNOWLEDGEMENT] else None
    asked = [match for turn in turns[2::2] if (match := QUERY.fullmatch(turn))]
    if opening is None or len(asked) != len(turns[2::2]):
        raise ValueError(f"a conversation does not follow the open-NER dialogue: it begins {turns[:1]!r:.80}")
    pairs = [(match["type"], answer) for match, answer in zip(asked, turns[3::2], strict=True)]
    return opening["text"], opening["dataset"], pairs


def order_strings(mentions: Iterable[tuple[int, str]]) -> list[str]:
    """Return the distinct texts of `(start, text)` mentions, ordered by first start; on a tie the longer is first."""
    first: dict[str, int] = {}
    for start, text in mentions:
        first[text] = min(start, first.get(text, start))
    return sorted(first, key=lambda text: (first[text], -len(text)))


def write_answer(strings: list[str]) -> str:
    """Return the answer that the student learns: a JSON list of strings on one line, `[]` for an absent type."""
    return f"[{', '.join(map(encode_basestring, strings))}]"  # as json.dumps(ensure_ascii=False), 8 times faster


def write_mentions(mentions: Iterable[tuple[int, str]]) -> str:
    """Return the answer that lists `(start, text)` mentions."""
    return write_answer(order_strings(mentions))


def read_answer(raw: str) -> list[str] | None:
    """Return the distinct strings of an answer in order, or None if the answer is not a JSON list of strings."""
    try:
        strings = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(strings, list) or not all(isinstance(string, str) for string in strings):
        return None
    return list(dict.fromkeys(strings))


def find_spans(text: str, string: str, occurrences: Occurrences = OCCURRENCES) -> list[Span]:
    """Return the spans of a string in a text, as `(start, end)` in characters with `end` exclusive.

    Args:
        text: the passage.
        string: the string to find. A match inside a word counts only if no match is a whole word, a match in another
            case only if none is exact, and a match of another Unicode form (é as one character or two) only if there
            is no other.
        occurrences: "all" or only the "first" span.
    """
    for ignore_case in (False, True):
        for on_words in (True, False):
            if spans := list(find_occurrences(text, string, on_words, ignore_case)):
                return spans[:1] if occurrences == "first" else spans
    return find_composed(text, string, occurrences)


def find_occurrences(text: str, string: str, on_words: bool, ignore_case: bool = False) -> Iterator[Span]:
    """Yield the non-overlapping spans of a string from left to right; with `on_words` only whole words."""
    may_begin, may_end = (begins_word, ends_word) if on_words else (is_border, is_border)
    pattern = re.compile(re.escape(string), re.IGNORECASE) if ignore_case else None
    start = 0
    while string:
        if pattern:
            match = pattern.search(text, start)
            begin = match.start() if match else -1
        else:  # faster than compiling a pattern for each string
            begin = text.find(string, start)
        if begin < 0:
            return
        end = begin + len(string)  # ignoring case, too, each character matches one character
        start = begin + 1
        if may_begin(text, begin) and may_end(text, end):
            yield begin, end
            start = end


def find_composed(text: str, string: str, occurrences: Occurrences = OCCURRENCES) -> list[Span]:
    """Return the spans of `text` that equal a string when both are in composed form (NFC).

    Texts and tokenizers use either form. The list is empty if both are in this form already.
    """
    if unicodedata.is_normalized("NFC", text) and unicodedata.is_normalized("NFC", string):
        return []
    borders = [position for position in range(len(text) + 1) if is_border(text, position)]
    parts = [unicodedata.normalize("NFC", text[start:end]) for start, end in pairwise(borders)]
    places = dict(zip(accumulate(map(len, parts), initial=0), borders, strict=True))
    spans = find_spans("".join(parts), unicodedata.normalize("NFC", string), occurrences)
    return [(places[start], places[end]) for start, end in spans if start in places and end in places]


def neutralize(messages: list[Message], special_tokens: Iterable[str]) -> list[Message]:
    """Insert a space into special tokens in the contents (`< |im_end|>`), so that no text can open or close a turn."""
    longest_first = sorted(filter(None, special_tokens), key=len, reverse=True)
    if not longest_first:
        return messages
    pattern = re.compile("|".join(map(re.escape, longest_first)))
    return [
        {**message, "content": pattern.sub(lambda found: f"{found[0][0]} {found[0][1:]}", message["content"])}
        for message in messages
    ]
