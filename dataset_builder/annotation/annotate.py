"""Replies become annotations: parse, ground, filter, count every reason. Nothing is paid here and nothing is lost."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NotRequired, TypedDict

from ner_sets.mentions import Mention
from open_ner.conversation import Span
from open_ner.tools.files import replace_surrogates

from ..corpus.passages import Passage
from ..rejects import Reject
from ..teacher.parse import Pair, parse_reply
from .grounding import ground
from .types import merge_plurals, normalize_type, why_drop


class AnnotationRow(TypedDict):
    """An annotated passage as a line of JSON: the passage, its mentions, and who annotated it when."""

    id: str
    text: str
    source: str
    source_id: str
    license: str
    start: int  # of the text in its document, in characters
    end: int
    entities: list[Mention]
    teacher: str  # "" for a human
    annotated: str  # UTC, ISO 8601; "" for a human
    dataset: NotRequired[str]  # the human-annotated set; none or "" for a distilled passage
    tokens: NotRequired[int]  # of the text, in the corpus's tokenizer


@dataclass
class Annotations:
    """The outcome of one variant: a row per passage with entities, the rejects, and counts for the card.

    `merged_types` names the plural types that became their singular, `merged_entities` how many entities had been
    read under each.
    """

    rows: list[AnnotationRow] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    merged_types: dict[str, str] = field(default_factory=dict)
    merged_entities: dict[str, int] = field(default_factory=dict)

    @property
    def hallucination_rate(self) -> float:
        """Share of the teacher's entities whose span is not in the passage."""
        return self.counts["not_in_passage"] / max(1, self.counts["entities_read"])

    def reject(self, reason: str, passage_id: str, span: str = "", type_name: str = "", reply: str = "") -> None:
        """Leave something out: counted, and kept with its reason."""
        self.counts[reason] += 1
        self.rejects.append(Reject(passage_id, reason, reply, span, type_name))


def annotate_passages(
    passages: Iterable[Passage],
    replies: dict[str, dict[str, Any]],
    variant: str,
    max_words: int,
    unwanted: Mapping[str, str] | None = None,
    why_not_type: Callable[[str], str | None] = lambda name: None,
) -> Annotations:
    """Turn journal records, by passage id, into annotations of one variant ("type" or "definition").

    `unwanted` maps the ids of passages that may not be in the dataset to the reason; `why_not_type` is the last filter
    of an entity's type.

    Counts: `replies`, `entities_read`, `entities_kept`, and one per reason. A passage without a record counts as
    `no_answer`, one left without entities as `no_entities_left`, a third string of a tuple as `extra_string`.
    """
    result = Annotations()
    parsed = []  # all replies before the first row: only the whole run's types say which plurals have a singular
    for passage in passages:
        record = replies.get(passage.id)
        if record is None:
            result.reject("no_answer", passage.id)
            continue
        result.counts["replies"] += 1
        reply = replace_surrogates(record["reply"])
        if unwanted and passage.id in unwanted:
            result.reject(unwanted[passage.id], passage.id, reply=reply)
            continue
        pairs = parse_reply(reply, record["finish_reason"], passage.text)
        if isinstance(pairs, str):
            result.reject(pairs, passage.id, reply=reply)
            continue
        parsed.append((passage, record, reply, pairs))
    names = _name_types(Counter(pair[1] for *_, pairs in parsed for pair in pairs), variant, result)
    for passage, record, reply, pairs in parsed:
        entities = _entities(passage, pairs, reply, names, max_words, why_not_type, result)
        if entities:
            result.rows.append(_row(passage, record, entities))
        else:
            result.reject("no_entities_left", passage.id, reply=reply)
    return result


def _name_types(read: Counter[str], variant: str, result: Annotations) -> dict[str, str]:
    """The dataset's name for each type as read; merged plurals are noted in the result."""
    if variant != "type":
        return {raw: " ".join(raw.split()).rstrip(". ") for raw in read}
    names = {raw: normalize_type(raw) for raw in read}
    result.merged_types = merge_plurals(names.values())
    merged: Counter[str] = Counter()
    for raw, name in names.items():
        if name in result.merged_types:
            merged[name] += read[raw]
            names[raw] = result.merged_types[name]
    result.merged_entities = dict(merged)
    return names


def _row(passage: Passage, record: dict[str, Any], entities: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": passage.id,
        "text": passage.text,
        "source": passage.source,
        "source_id": passage.source_id,
        "license": passage.license,
        "start": passage.start,
        "end": passage.end,
        "entities": entities,
        "teacher": record["model"] or "",
        "annotated": record["time"],
    }


def _entities(
    passage: Passage,
    pairs: list[Pair],
    reply: str,
    names: dict[str, str],
    max_words: int,
    why_not_type: Callable[[str], str | None],
    result: Annotations,
) -> list[dict[str, Any]]:
    """Mentions of the pairs that stand every test, in order of start; the others go to the rejects."""
    mentions: dict[tuple[int, int, str], dict[str, Any]] = {}
    grounded: dict[str, list[Span] | str] = {}  # a span is often given several types
    for span, raw_type, *extra in pairs:
        result.counts["entities_read"] += 1
        for third in extra:
            result.reject("extra_string", passage.id, span, third, reply)
        type_name = names[raw_type]
        if span not in grounded:
            grounded[span] = ground(passage.text, span)
        places = grounded[span]
        if isinstance(places, str) and span.strip():
            reason = places
        else:
            reason = why_drop(span, type_name, passage.text, max_words) or why_not_type(type_name)
        if reason is None and all((start, end, type_name) in mentions for start, end in places):
            reason = "duplicate"
        if reason:
            result.reject(reason, passage.id, span, raw_type, reply)
            continue
        result.counts["entities_kept"] += 1
        for start, end in places:
            mention = {"start": start, "end": end, "text": passage.text[start:end], "type": type_name}
            mentions[start, end, type_name] = mention
    return sorted(mentions.values(), key=lambda mention: (mention["start"], -mention["end"], mention["type"]))
