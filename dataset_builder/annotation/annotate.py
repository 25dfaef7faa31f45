"""Replies become annotations: they are parsed, grounded and filtered, and every reject is counted. This is free."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NotRequired, TypedDict

from command_line.public import public_path
from ner_sets.mentions import Mention
from open_ner.tools.files import replace_surrogates

from ..config import ENGLISH
from ..corpus.cutting import Passage
from ..rejects import Reject
from ..teacher.parse import Pair, parse_reply
from ..teacher.records import JournalRecord
from ..teacher.type_set import TypeSet
from .grounding import ground
from .types import merge_plurals, normalize_type, why_reject

Found = dict[tuple[int, int, str], Pair]  # start, end and type of a mention -> string and type in the reply


class TeacherReply(TypedDict):
    """The fields of a journal record that become part of an annotation."""

    reply: str
    finish_reason: str
    model: str | None
    time: str


def to_reply(record: JournalRecord) -> TeacherReply:
    """Return the fields of a journal record that become part of an annotation."""
    return {
        "reply": record["reply"], "finish_reason": record["finish_reason"], "model": record["model"],
        "time": record.get("time", ""),
    }  # fmt: skip


class AnnotationRow(TypedDict):
    """A passage with its mentions; distilled rows have `tokens`, rows of human-annotated sets have `dataset`.

    Rows of a closed world have `doubtful`: types of entities that the teacher named, but which were all rejected.
    These types are not asked, because the answer `[]` could be wrong.
    """

    id: str
    text: str
    source: str
    source_id: str
    license: str
    start: int
    end: int
    entities: list[Mention]
    teacher: str  # empty if people annotated the passage
    annotated: str  # UTC, ISO 8601
    tokens: NotRequired[int]
    dataset: NotRequired[str]
    doubtful: NotRequired[list[str]]
    types: NotRequired[list[str]]  # all types asked of the passage, if its human-annotated set is `closed`


Answered = tuple[Passage, TeacherReply | None, str | None]  # a passage, its reply, and the reason to reject it


@dataclass
class Annotations:
    """One row per annotated passage, the rejects, counts for the card, and the singular of each merged plural."""

    rows: list[AnnotationRow] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    merged_types: dict[str, str] = field(default_factory=dict)

    @property
    def hallucination_rate(self) -> float:
        """Share of the teacher's entities whose string is not in the passage."""
        return self.counts["not_in_passage"] / max(1, self.counts["entities_read"])

    def reject(self, reason: str, passage_id: str, span: str = "", type_name: str = "", reply: str = "") -> None:
        """Add a reject, without lone surrogates, and count its reason."""
        self.counts[reason] += 1
        self.rejects.append(Reject(passage_id, reason, *map(replace_surrogates, (reply, span, type_name))))


@dataclass
class Rules:
    """How replies are read.

    Attributes:
        variant: "type", "definition" or "closed"; plurals are only merged for "type", in English.
        max_words: maximum length of a mention.
        why_not_type: a filter that is applied last; it returns the reason to reject a type, or None.
        types: the types of a closed world, in which passages without a mention become rows too.
        language: code of the passages' language, or None for any.
        type_language: language in which the teacher was asked to name types.
    """

    variant: str
    max_words: int
    why_not_type: Callable[[str], str | None] = lambda name: None
    types: TypeSet | None = None
    language: str | None = "en"
    type_language: str = ENGLISH

    def name_of(self, raw: str) -> str:
        """Return the name of a type in a reply, before plurals are merged; "" for a type outside a closed world."""
        if self.types:
            return self.types.find(raw) or ""
        return normalize_type(raw) if self.variant == "type" else " ".join(raw.split()).rstrip(". ")

    def why_not(self, string: str, name: str, text: str) -> str | None:
        """Return the first reason to reject a mention of a text, or None."""
        if self.types and not name:
            return "type_not_in_set"
        own = None if self.types else name
        reason = why_reject(string, own, text, self.max_words, self.language, self.type_language)
        return reason or self.why_not_type(name)


def annotate_passages(
    passages: Iterable[Passage], replies: Mapping[str, TeacherReply], rules: Rules,
    reasons: Mapping[str, str] | None = None,
) -> Annotations:  # fmt: skip
    """Turn the teacher's replies into annotations, all of them in memory; the counts are those of `annotate_replies`.

    `replies` and `reasons` map ids of passages to their replies and to the reasons to reject them.
    """
    result, rejected = Annotations(), reasons or {}
    answered = [(passage, replies.get(passage.id), rejected.get(passage.id)) for passage in passages]
    result.rows = [row for row in annotate_replies(lambda: answered, rules, result) if row]
    return result


def annotate_replies(
    read: Callable[[], Iterable[Answered]], rules: Rules, result: Annotations
) -> Iterator[AnnotationRow | None]:
    """Yield the row of each passage in turn, or None if the passage is rejected.

    Args:
        read: yields each passage with its reply and the reason to reject it, or None; is called twice if plurals are
            merged, because a plural is merged only if its singular is a type of some reply.
        rules: how replies are read.
        result: receives the rejects, and counts `replies`, `entities_read`, `entities_kept`, and each reason. A
            passage without a reply counts as `no_answer`, one without a kept mention as `no_entities_left`, a tuple's
            third string as `extra_string`. In a closed world, a mention of another type counts as `type_not_in_set`.
            If overlaps are not allowed, a mention whose spans all overlap longer mentions counts as `overlap`, and a
            mention with only some such spans, which is kept, as `overlap_in_part`.
    """
    types = rules.types
    if rules.variant == "type" and not types and rules.type_language == ENGLISH:
        parsed = (_parse(*answered, rules) for answered in read())
        raw = {pair[1] for pairs in parsed if not isinstance(pairs, str) for pair in pairs}
        result.merged_types = merge_plurals({rules.name_of(name) for name in raw})
    for passage, record, reason in read():
        pairs = _parse(passage, record, reason, rules)
        if record is None:
            result.reject("no_answer", passage.id)
            yield None
            continue
        result.counts["replies"] += 1
        reply = replace_surrogates(record["reply"])
        if isinstance(pairs, str):
            result.reject(pairs, passage.id, reply=reply)
            yield None
            continue
        names = {pair[1]: rules.name_of(pair[1]) for pair in pairs}
        names = {raw: result.merged_types.get(name, name) for raw, name in names.items()}
        found = _find_mentions(passage, pairs, reply, names, rules.why_not, result)
        if types and types.overlaps == "flat":
            _reject_overlaps(passage, found, reply, result)
        mentions = [_mention(passage, *key) for key in sorted(found, key=lambda key: (key[0], -key[1], key[2]))]
        if not mentions and not types:
            result.reject("no_entities_left", passage.id, reply=reply)
            yield None
            continue
        teacher = public_path(record["model"] or "")  # vLLM names a model by its folder
        row = AnnotationRow(**vars(passage), entities=mentions, teacher=teacher, annotated=record["time"])
        if types:
            named = {names[pair[1]] for pair in pairs if pair[0].strip()}
            row["doubtful"] = sorted(named - {"", *(mention["type"] for mention in mentions)})
        yield row


def _parse(passage: Passage, record: TeacherReply | None, reason: str | None, rules: Rules) -> list[Pair] | str:
    """Return the pairs of a reply, or the reason to reject its passage."""
    if record is None or reason:
        return reason or "no_answer"
    pairs = parse_reply(replace_surrogates(record["reply"]), record["finish_reason"], passage.text)
    return [] if pairs == "no_entities" and rules.types else pairs


def _find_mentions(
    passage: Passage, pairs: list[Pair], reply: str, names: dict[str, str],
    why_not: Callable[[str, str, str], str | None], result: Annotations,
) -> Found:  # fmt: skip
    """Return the spans and types of the pairs that pass every filter; reject the other pairs."""
    found: Found = {}
    for string, raw_type, *extra in pairs:
        result.counts["entities_read"] += 1
        for third in extra:
            result.reject("extra_string", passage.id, string, third, reply)
        name = names[raw_type]
        spans, reason = ground(passage.text, string), "not_in_passage"
        if spans or not string.strip():
            reason = why_not(string, name, passage.text)
        if reason is None and all((start, end, name) in found for start, end in spans):
            reason = "duplicate"
        if reason:
            result.reject(reason, passage.id, string, raw_type, reply)
            continue
        result.counts["entities_kept"] += 1
        for start, end in spans:
            found.setdefault((start, end, name), (string, raw_type))
    return found


def _reject_overlaps(passage: Passage, found: Found, reply: str, result: Annotations) -> None:
    """Remove all but the longest of the mentions that overlap; of equally long ones, the first in the reply stays."""
    taken, lost = bytearray(len(passage.text)), list[Pair]()
    for start, end, name in sorted(found, key=lambda key: key[0] - key[1]):
        if any(taken[start:end]):
            lost.append(found.pop((start, end, name)))
        else:
            taken[start:end] = b"x" * (end - start)
    kept = set(found.values())
    for pair in dict.fromkeys(lost):
        result.reject("overlap_in_part" if pair in kept else "overlap", passage.id, *pair, reply)
        result.counts["entities_kept"] -= pair not in kept


def _mention(passage: Passage, start: int, end: int, name: str) -> Mention:
    return {"start": start, "end": end, "text": passage.text[start:end], "type": name}
