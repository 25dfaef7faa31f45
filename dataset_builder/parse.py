"""A teacher's reply to `(span, type)` pairs, or to the reason why it has none. Pure: replies are never evaluated."""

import json
import re
from collections.abc import Iterator
from typing import Any

Pair = tuple[str, str]

STRING = r'"(?:[^"\\]|\\.)*"|' + r"'(?:[^'\\]|\\.)*'"
PAIR = re.compile(rf"[(\[]\s*({STRING})\s*,\s*({STRING})\s*(?:,\s*)?[)\]]", re.DOTALL)
SEPARATOR = re.compile(r"\s*(,)?\s*")
REFUSAL = re.compile(r"\b(i'?m sorry|i am sorry|i can(?:no|')t|i am unable|i'm unable|as an ai)\b", re.IGNORECASE)
ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


def parse_reply(reply: str, finish_reason: str = "stop") -> list[Pair] | str:
    """Pairs of a complete list of tuples or of JSON pairs, also inside fences or prose; else why it is rejected.

    Reasons: `truncated`, `content_filter`, `refusal`, `context_length_exceeded`, `no_list`, `malformed_list`,
    `no_entities`.
    """
    if finish_reason == "length":
        return "truncated"
    if finish_reason in ("content_filter", "refusal", "context_length_exceeded"):
        return finish_reason
    pairs = _read_json(reply)
    if pairs is None:
        pairs = _read_tuples(reply)
    if pairs is None:
        if REFUSAL.search(reply.replace("’", "'")):
            return "refusal"
        return "malformed_list" if "[" in reply else "no_list"
    return pairs or "no_entities"


def mend_surrogates(text: str) -> str:
    """The text with a pair of surrogates as one character and U+FFFD for a lone one, which no file can hold."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _read_json(reply: str) -> list[Pair] | None:
    """Pairs of a reply that is JSON as a whole: lists of two, or objects with an entity and a type."""
    body = re.sub(r"\A```\w*|```\Z", "", reply.strip())
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if isinstance(data, dict):
        data = data.get("entities")
    if not isinstance(data, list):
        return None
    pairs = [_json_pair(item) for item in data]
    return None if None in pairs else pairs


def _json_pair(item: Any) -> Pair | None:
    if isinstance(item, dict):
        item = [item.get("entity", item.get("text")), item.get("type", item.get("label"))]
    if isinstance(item, list) and len(item) == 2 and all(isinstance(part, str) for part in item):
        return mend_surrogates(item[0]), mend_surrogates(item[1])
    return None


def _read_tuples(reply: str) -> list[Pair] | None:
    """Pairs of the first complete list of tuples in the reply."""
    for opening in re.finditer(r"\[", reply):
        pairs = list(_tuples_from(reply, opening.end()))
        if pairs[-1] is not None:
            return pairs[:-1]
    return None


def _tuples_from(reply: str, position: int) -> Iterator[Pair]:
    """The tuples of a list whose `[` ends at `position`, then `()` when it is closed properly, else None."""
    while match := PAIR.match(reply, SEPARATOR.match(reply, position).end()):
        yield _unquote(match[1]), _unquote(match[2])
        position = match.end()
    yield () if reply.startswith("]", SEPARATOR.match(reply, position).end()) else None


def _unquote(quoted: str) -> str:
    return mend_surrogates(ESCAPE.sub(_escaped, quoted[1:-1]))


def _escaped(match: re.Match[str]) -> str:
    code = match[1]
    return chr(int(code[1:], 16)) if len(code) == 5 else ESCAPES.get(code, code)
