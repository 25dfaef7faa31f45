"""Replies become annotations: they are parsed, grounded and filtered, and every reject is counted. This is free."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NotRequired, TypedDict

from ner_sets.mentions import Mention
from open_ner.tools.files import replace_surrogates

from ..corpus.cutting import Passage
from ..rejects import Reject
from ..teacher.parse import Pair, parse_reply
from .grounding import ground
from .types import merge_plurals, normalize_type, why_reject


class TeacherReply(TypedDict):
    """The fields of a journal record that become part of an annotation."""

    reply: str
    finish_reason: str
    model: str | None
    time: str


class AnnotationRow(TypedDict):
    """A passage with its mentions; distilled rows have `tokens`, rows of human-annotated sets have `dataset`."""

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


@dataclass
class Annotations:
    """One row per passage with mentions, the rejects, counts for the card, and the singular of each merged plural."""

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


def annotate_passages(
    passages: Iterable[Passage], replies: Mapping[str, TeacherReply], variant: str, max_words: int,
    rejected: Mapping[str, str] | None = None, why_not_type: Callable[[str], str | None] = lambda name: None,
) -> Annotations:  # fmt: skip
    """Turn the teacher's replies into annotations.

    Args:
        passages: the passages that were asked.
        replies: the reply to each passage, by its id.
        variant: "type" or "definition"; plurals are only merged for types.
        max_words: maximum length of a mention.
        rejected: reasons to reject passages, by their ids.
        why_not_type: a last filter, which returns the reason to reject a type.

    Returns:
        Annotations that count `replies`, `entities_read`, `entities_kept`, and each reason. A passage without a reply
        counts as `no_answer`, one without a kept mention as `no_entities_left`, a tuple's third string as
        `extra_string`.
    """
    result = Annotations()
    parsed = []  # all replies, because a plural is merged only if its singular is a type of some reply
    for passage in passages:
        record = replies.get(passage.id)
        if record is None:
            result.reject("no_answer", passage.id)
            continue
        result.counts["replies"] += 1
        reply = replace_surrogates(record["reply"])
        known = rejected and rejected.get(passage.id)
        pairs = known or parse_reply(reply, record["finish_reason"], passage.text)
        if isinstance(pairs, str):
            result.reject(pairs, passage.id, reply=reply)
            continue
        parsed.append((passage, record, reply, pairs))
    raw_types = {pair[1] for *_, pairs in parsed for pair in pairs}
    if variant == "type":
        normalized = {raw: normalize_type(raw) for raw in raw_types}
        result.merged_types = merge_plurals(normalized.values())
        names = {raw: result.merged_types.get(name, name) for raw, name in normalized.items()}
    else:
        names = {raw: " ".join(raw.split()).rstrip(". ") for raw in raw_types}
    for passage, record, reply, pairs in parsed:
        mentions = _find_mentions(passage, pairs, reply, names, max_words, why_not_type, result)
        if not mentions:
            result.reject("no_entities_left", passage.id, reply=reply)
            continue
        origin = {"teacher": record["model"] or "", "annotated": record["time"]}
        result.rows.append(AnnotationRow(**vars(passage), entities=mentions, **origin))
    return result


def _find_mentions(
    passage: Passage, pairs: list[Pair], reply: str, names: dict[str, str], max_words: int,
    why_not_type: Callable[[str], str | None], result: Annotations,
) -> list[Mention]:  # fmt: skip
    """Return the mentions of the pairs that pass every filter, in order of start; reject the other pairs."""
    mentions: dict[tuple[int, int, str], Mention] = {}
    for string, raw_type, *extra in pairs:
        result.counts["entities_read"] += 1
        for third in extra:
            result.reject("extra_string", passage.id, string, third, reply)
        type_name = names[raw_type]
        spans, reason = ground(passage.text, string), "not_in_passage"
        if spans or not string.strip():
            reason = why_reject(string, type_name, passage.text, max_words) or why_not_type(type_name)
        if reason is None and all((start, end, type_name) in mentions for start, end in spans):
            reason = "duplicate"
        if reason:
            result.reject(reason, passage.id, string, raw_type, reply)
            continue
        result.counts["entities_kept"] += 1
        for start, end in spans:
            mention: Mention = {"start": start, "end": end, "text": passage.text[start:end], "type": type_name}
            mentions[start, end, type_name] = mention
    return sorted(mentions.values(), key=lambda mention: (mention["start"], -mention["end"], mention["type"]))
