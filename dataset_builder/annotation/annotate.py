"""Replies become annotations: parse, ground and filter them, and count every reason for a reject. Costs nothing."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NotRequired, TypedDict

from ner_sets.mentions import Mention
from open_ner.conversation import Span
from open_ner.tools.files import replace_surrogates

from ..corpus.cutting import Passage
from ..rejects import Reject
from ..teacher.parse import Pair, parse_reply
from .grounding import ground
from .types import merge_plurals, normalize_type, why_reject


class TeacherReply(TypedDict):
    """The fields of a journal record that an annotation is made from."""

    reply: str
    finish_reason: str
    model: str | None
    time: str


class AnnotationRow(TypedDict):
    """A passage with its mentions, its origin and its annotator."""

    id: str
    text: str
    source: str
    source_id: str
    license: str
    start: int
    end: int
    entities: list[Mention]
    teacher: str  # empty: annotated by people
    annotated: str  # UTC, ISO 8601
    dataset: NotRequired[str]  # name of the human-annotated set
    tokens: NotRequired[int]  # of a distilled passage, by the corpus's tokenizer


@dataclass
class Annotations:
    """The outcome of one variant: one row per passage with mentions, the rejects, and counts for the card.

    `merged_types` maps each plural type to its singular; `merged_mentions` counts the mentions read with each plural.
    """

    rows: list[AnnotationRow] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    merged_types: dict[str, str] = field(default_factory=dict)
    merged_mentions: dict[str, int] = field(default_factory=dict)

    @property
    def hallucination_rate(self) -> float:
        """Share of the teacher's entities whose string is not in the passage."""
        return self.counts["not_in_passage"] / max(1, self.counts["entities_read"])

    def reject(self, reason: str, passage_id: str, span: str = "", type_name: str = "", reply: str = "") -> None:
        """Add a reject and count its reason."""
        self.counts[reason] += 1
        self.rejects.append(Reject(passage_id, reason, reply, span, type_name))


def annotate_passages(
    passages: Iterable[Passage], replies: Mapping[str, TeacherReply], variant: str, max_words: int,
    rejected: Mapping[str, str] | None = None, why_not_type: Callable[[str], str | None] = lambda name: None,
) -> Annotations:  # fmt: skip
    """Turn the teacher's replies, by passage id, into the annotations of one variant ("type" or "definition").

    `max_words` is the length of the longest mention, `rejected` maps passage ids to reasons to reject the passage, and
    `why_not_type` is the last filter of a mention's type.

    The counts are `replies`, `entities_read`, `entities_kept`, and one per reason. A passage without a reply counts as
    `no_answer`, one left without mentions as `no_entities_left`, the third string of a tuple as `extra_string`.
    """
    result = Annotations()
    parsed = []  # hold all replies: whether a plural is merged depends on the types of the whole run
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
    names = _name_types(Counter(pair[1] for *_, pairs in parsed for pair in pairs), variant, result)
    for passage, record, reply, pairs in parsed:
        mentions = _find_mentions(passage, pairs, reply, names, max_words, why_not_type, result)
        if not mentions:
            result.reject("no_entities_left", passage.id, reply=reply)
            continue
        origin = {"teacher": record["model"] or "", "annotated": record["time"]}
        result.rows.append(AnnotationRow(**vars(passage), entities=mentions, **origin))
    return result


def _name_types(read: Counter[str], variant: str, result: Annotations) -> dict[str, str]:
    """Map each type as read to its name in the dataset, and note merged plurals in the result."""
    if variant != "type":
        return {raw: " ".join(raw.split()).rstrip(". ") for raw in read}
    names = {raw: normalize_type(raw) for raw in read}
    result.merged_types = merge_plurals(names.values())
    for raw, name in names.items():
        if name in result.merged_types:
            result.merged_mentions[name] = result.merged_mentions.get(name, 0) + read[raw]
            names[raw] = result.merged_types[name]
    return names


def _find_mentions(
    passage: Passage, pairs: list[Pair], reply: str, names: dict[str, str], max_words: int,
    why_not_type: Callable[[str], str | None], result: Annotations,
) -> list[Mention]:  # fmt: skip
    """Mentions of the pairs that pass every filter, in order of start; the other pairs become rejects."""
    mentions: dict[tuple[int, int, str], Mention] = {}
    grounded: dict[str, list[Span] | str] = {}  # teachers often give one string several types
    for string, raw_type, *extra in pairs:
        result.counts["entities_read"] += 1
        for third in extra:
            result.reject("extra_string", passage.id, string, third, reply)
        type_name = names[raw_type]
        if string not in grounded:
            grounded[string] = ground(passage.text, string)
        found = grounded[string]
        spans, reason = ([], found) if isinstance(found, str) else (found, None)
        if not reason or not string.strip():
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
