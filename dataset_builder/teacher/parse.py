"""Parse a teacher's reply into `(string, type)` pairs, or into the reason to reject it. Replies are never evaluated.

The parser makes one pass with an explicit stack, so neither a long nor a deeply nested reply can exhaust it.
"""

import re
from typing import TypeAlias

from open_ner.tools.files import replace_surrogates

Pair = tuple[str, ...]  # string, type, and the third string if there is one
Value: TypeAlias = "str | int | None | list[Value] | tuple[tuple[str, Value], ...]"

# an apostrophe inside a word or after a plural's s does not end the string: ('O'Brien', 'person')
DOUBLE = r'"[^"\\]*+(?:\\.[^"\\]*+)*"'
SINGLE = r"'[^'\\]*+(?:(?:\\.|(?<=\w)'(?=\w)|(?<=s)'(?= \w))[^'\\]*+)*'"
CURLY_DOUBLE = r"[“„][^“”\\]*+(?:\\.[^“”\\]*+)*[“”]"
CURLY_SINGLE = r"‘[^’\\]*+(?:(?:\\.|(?<=\w)’(?=\w)|(?<=s)’(?= \w))[^’\\]*+)*’"
WIDE_QUOTED = (rf"{left}[^{right}\\]*+(?:\\.[^{right}\\]*+)*{right}" for left, right in ("「」", "『』", "＂＂"))
STRING = "|".join((DOUBLE, SINGLE, CURLY_DOUBLE, CURLY_SINGLE, *WIDE_QUOTED))
WIDE = str.maketrans("（）［］【】｛｝，、：", "()[][]{},,:")  # Chinese and Japanese marks between strings
TOKEN = re.compile(
    rf"\s*+(?:(?:([(（])|[\[［【])\s*+({STRING})\s*+[,，、]\s*+({STRING})\s*+(?:[,，、]\s*+)?"
    rf"(?(1)[)）]|[\]］】])"  # matches most pairs at once
    rf"|([\[({{［【（｛])|([\])}}］】）｝])|([,:，、：])|({STRING})|(-?\d[\d.eE+-]*+)"
    r"|(true|false|null|True|False|None)\b)",
    re.DOTALL,
)
SPAN, TYPE, OPEN, CLOSE, SEPARATOR, TEXT, NUMBER, WORD = range(2, 10)  # groups of TOKEN: its `lastindex`
OPENING = re.compile(r"[\[{［【｛][\[({［【（｛\s]*+")
# may follow the opening brackets of data; anything else is prose: "[of entities]"
DATA = frozenset("\"'“„‘「『＂])}］】）｝")
# a heading such as 【「会社」の一覧】: its quoted words are followed by neither a separator nor a bracket
HEADING = re.compile(rf"(?:[［【｛]|[\[{{](?=\s*+[「『]))\s*+(?:{STRING})\s*+(?=[^\s,，、:：\])}}］】）｝])")
CLOSING = {"[": "]", "(": ")", "{": "}"}
MAX_DEPTH = 16
MAX_PAIRS = 5_000  # per reply; no passage has more, and each may become a reject
MAX_VALUES = 3 * MAX_PAIRS  # each pair is a list and two strings

ENTITY_FIELDS = ("entity", "text", "span", "mention", "name")
TYPE_FIELDS = ("type", "types", "label", "entity_type", "category", "definition")
WRAPPERS = ("entities", "results", "result", "answer", "output", "data")  # names of objects around the whole list
PASSAGE_CODES = frozenset({"content_filter", "context_length_exceeded"})  # error codes that concern one passage alone
FINAL = PASSAGE_CODES | {"refusal", "endpoint_error"}  # finish reasons of replies without annotations
# finish reasons of all APIs by parts of their names; the first match counts
REASONS = {
    "content_filter": r"filter|safety|recitation|blocklist|prohibited|spii|sensitive|toxic|guardrail",
    "length": r"length|max_|token_limit|context_window|incomplete",
    "endpoint_error": r"error|abort|timeout|fail|cancel|insufficient|pause|malformed",
    "stop": r"stop|eos|end_turn|complete",
}
# the end of a reasoning model's thoughts, in every form they come in, and the beginning of thoughts without an end
NAMES = r"(?:\w+:)?(?:think|thinking|thoughts?|reason|reasoning|reflection|scratchpad|analysis)"
THOUGHT = re.compile(
    rf"</{NAMES}\s*>|\[/(?:think|thinking|reasoning)\]|◁/think▷|<\|(?:end_thinking|end_of_thought)\|>|<channel\|>"
    r"|<\|channel\|>\s*final\b[^\[({<]{0,40}(?:<\|constrain\|>\w*)?\s*<\|message\|>|assistantfinal",
    re.IGNORECASE,
)
DRAFT = re.compile(
    rf"^[ \t]*+(?:<{NAMES}\b[^<>]{{0,40}}>|\[(?:think|thinking|reasoning)\]|◁think▷|<\|(?:start|begin)_(?:of_)?think"
    r"|<\|channel>|(?:<\|start\|>\s*\w*\s*)?<\|channel\|>\s*(?!final))",
    re.IGNORECASE | re.MULTILINE,
)
REFUSAL = re.compile(r"\b(i'?m sorry|i am sorry|i can(?:no|')t|i am unable|i'm unable|as an ai)\b", re.IGNORECASE)
ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)", re.DOTALL)
ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


def parse_reply(reply: str, finish_reason: str = "stop", passage: str = "") -> list[Pair] | str:
    """Parse all lists of a reply, between any prose and code fences.

    Accepts lists of tuples (Python or JSON, any quotes), lists of objects with an entity and a type, `{type:
    [entities]}`, whose entities may be objects too, and `{entity: type}` if `passage` tells which of the two are
    entities. Everything that starts like a
    list must be complete: a reply that breaks off is rejected as a whole. A third string of a tuple is kept.

    Returns:
        The pairs, or the reason to reject the reply: `truncated`, `content_filter`, `refusal`,
        `context_length_exceeded`, `endpoint_error`, `no_list`, `malformed_list`, `too_many_entities`, `no_entities`.
    """
    finish_reason = plain_reason(finish_reason)
    if finish_reason == "length":
        return "truncated"
    if finish_reason in FINAL:
        return finish_reason
    reply = without_thoughts(reply)
    passage, position = passage.casefold(), 0
    pairs: list[Pair] = []
    lists = 0
    while opening := OPENING.search(reply, position):
        position = opening.end()
        if reply[position : position + 1] not in DATA or HEADING.match(reply, opening.start()):
            continue
        value, position = _read_value(reply, opening.start())
        if isinstance(value, str):
            return value
        more = _pairs(value, passage)
        if more is None:
            return "malformed_list"
        pairs += more
        lists += 1
        if len(pairs) + lists > MAX_PAIRS:
            return "too_many_entities"
    if not lists:
        if REFUSAL.search(reply.replace("’", "'")):
            return "refusal"
        return "malformed_list" if "[" in reply else "no_list"
    return pairs or "no_entities"


def plain_reason(finish_reason: str) -> str:
    """A finish reason as `stop`, `length`, `content_filter` or `endpoint_error`; any other one as it is."""
    if finish_reason in FINAL:
        return finish_reason
    found = (plain for plain, parts in REASONS.items() if re.search(parts, finish_reason, re.IGNORECASE))
    return next(found, finish_reason)


def without_thoughts(reply: str) -> str:
    """Return the reply after the last thoughts of a reasoning model, which may contain drafts; cut unfinished ones."""
    reply = reply[max((match.end() for match in THOUGHT.finditer(reply)), default=0) :]
    draft = DRAFT.search(reply)
    return reply[: draft.start()] if draft else reply


def _read_value(reply: str, position: int) -> tuple[Value, int]:
    """Read the value that opens at `position`; return it, or the reason to reject it, and its end.

    Objects become tuples of (name, value), to keep repeated names; numbers become 0; true, false and null become None.
    """
    outer: list[tuple[str, list[Value]]] = []
    items: list[Value] = []
    closing, ready, count = "", True, 0
    while match := TOKEN.match(reply, position):
        position, kind = match.end(), match.lastindex
        if kind == SEPARATOR:
            if ready or (match[SEPARATOR].translate(WIDE) == ":") != (closing == "}" and len(items) % 2 == 1):
                break
            ready = True
            continue
        if kind == OPEN:
            if not ready or len(outer) == MAX_DEPTH:
                break
            outer.append((closing, items))
            closing, items = CLOSING[match[OPEN].translate(WIDE)], []
            continue
        if kind == CLOSE:
            if match[CLOSE].translate(WIDE) != closing:
                break
            value: Value = items
            if closing == "}":
                names = [name for name in items[::2] if isinstance(name, str)]
                if 2 * len(names) != len(items):  # a value is missing, or a name is not a string
                    break
                value = tuple(zip(names, items[1::2], strict=True))
            closing, items = outer.pop()
        elif not ready:
            break
        elif kind == TYPE:
            value = [_unquote(match[SPAN]), _unquote(match[TYPE])]
        else:
            value = _unquote(match[TEXT]) if kind == TEXT else 0 if kind == NUMBER else None
        if not outer:
            return value, position
        items.append(value)
        ready = False
        count += 3 if kind == TYPE else 1
        if count > MAX_VALUES:
            return "too_many_entities", position
    return "malformed_list", position


def _pairs(value: Value, passage: str) -> list[Pair] | None:
    """The pairs of a complete value; None if it is malformed."""
    pairs: list[Pair] = []
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, list):  # an entity, its type, perhaps a third string, and numbers (offsets, scores)
            strings = [part for part in item if isinstance(part, str)]
            whole = len(strings) in (2, 3) and len(strings) + item.count(0) == len(item)
            found: list[Pair] | None = [tuple(strings)] if whole else None
        else:
            found = _object_pairs(item, passage) if isinstance(item, tuple) else None
        if found is None:
            return None
        pairs += found
    return pairs


def _object_pairs(item: tuple[tuple[str, Value], ...], passage: str) -> list[Pair] | None:
    """The pairs of an object: a wrapper around a list, an entity with its type, or a mapping."""
    item = tuple((name, value if name.lower() in WRAPPERS else _without_objects(value)) for name, value in item)
    fields = {name.lower(): value for name, value in item}
    wrapped = fields.get("entities", item[0][1] if len(item) == 1 else None)
    if isinstance(wrapped, tuple) or (isinstance(wrapped, list) and not any(isinstance(x, str) for x in wrapped)):
        return _pairs(wrapped, passage)
    entity = next((fields[name] for name in ENTITY_FIELDS if name in fields), None)
    type_name = next((fields[name] for name in TYPE_FIELDS if name in fields), None)
    if isinstance(entity, str) and isinstance(type_name, str):
        return [(entity, type_name)]
    if isinstance(entity, str) and isinstance(type_name, list):
        names = [name for name in type_name if isinstance(name, str)]
        return [(entity, name) for name in names] if len(names) == len(type_name) else None
    if isinstance(entity, list) and isinstance(type_name, str):
        names = [name for name in entity if isinstance(name, str)]
        return [(name, type_name) for name in names] if len(names) == len(entity) else None
    return None if "entities" in fields else _mapping_pairs(item, passage)


def _without_objects(value: Value) -> Value:
    """A value in which each object that has an entity and no type, such as `{"text": "Acme"}`, is the entity alone."""
    if isinstance(value, list):
        return [_without_objects(part) if isinstance(part, tuple) else part for part in value]
    if isinstance(value, tuple):
        strings = [(name, part) for name, part in value if part not in (0, None)]  # offsets and scores are 0
        if len(strings) == 1 and strings[0][0].lower() in ENTITY_FIELDS and isinstance(strings[0][1], str):
            return strings[0][1]
    return value


def _mapping_pairs(fields: tuple[tuple[str, Value], ...], passage: str) -> list[Pair] | None:
    """The pairs of `{type: [entities]}`, or of `{entity: type}` if all names and no values are in the passage.

    An entity without a type, such as `{"text": "Acme", "label": null}`, is not a mapping, and neither are lists of
    entities and of types, `{"entity": ["Acme"], "type": ["company"]}`.
    """
    names = {name.lower() for name, value in fields if value is not None}
    no_types = names <= {*ENTITY_FIELDS, *TYPE_FIELDS}
    if no_types and any(isinstance(value, str) for _, value in fields):
        return None
    parts = [(name, part) for name, value in fields for part in (value if isinstance(value, list) else [value])]
    flat = [(name, part) for name, part in parts if isinstance(part, str)]
    if len(flat) + sum(part is None for _, part in parts) < len(parts):
        return None
    names_there = [name.casefold() in passage for name, _ in flat]
    values_there = [part.casefold() in passage for _, part in flat]
    if no_types and not (names.isdisjoint(ENTITY_FIELDS) or names.isdisjoint(TYPE_FIELDS) or all(values_there)):
        return None
    if flat and all(names_there) and not any(values_there):
        return flat
    if any(isinstance(value, list) for _, value in fields) or (all(values_there) and not any(names_there)):
        return [(part, name) for name, part in flat]
    return None


def _unquote(quoted: str) -> str:
    def escaped(match: re.Match[str]) -> str:
        code = match[1]
        return chr(int(code[1:], 16)) if len(code) > 1 else ESCAPES.get(code, code)

    return replace_surrogates(ESCAPE.sub(escaped, quoted[1:-1]))
