"""Replies become annotations: parse, ground, filter, count every reason. Nothing is paid here and nothing is lost."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .filters import normalise_type, why_drop
from .grounding import ground
from .parse import mend_surrogates, parse_reply
from .passages import Passage


@dataclass
class Reject:
    """A reply (`span` is empty) or an entity that was left out, with the verbatim reply it came from."""

    passage_id: str
    reason: str
    span: str
    type: str
    reply: str


@dataclass
class Annotations:
    """The outcome of one variant: a row per passage with entities, the rejects, and counts for the card."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def hallucination_rate(self) -> float:
        """Share of the teacher's entities whose span is not in the passage."""
        return self.counts["not_in_passage"] / max(1, self.counts["entities_read"])


def annotate_passages(
    passages: Iterable[Passage], replies: dict[str, dict[str, Any]], variant: str, max_words: int
) -> Annotations:
    """Turn journal records, by passage id, into annotations of one variant ("type" or "definition").

    Counts: `replies`, `entities_read`, `entities_kept`, and one per reason. A passage without a record counts as
    `no_answer`; one left without entities as `no_entities_left`.
    """
    result = Annotations()
    for passage in passages:
        record = replies.get(passage.id)
        if record is None:
            result.counts["no_answer"] += 1
            result.rejects.append(Reject(passage.id, "no_answer", "", "", ""))
            continue
        result.counts["replies"] += 1
        reply = mend_surrogates(record["reply"])
        pairs = parse_reply(reply, record["finish_reason"])
        if isinstance(pairs, str):
            result.counts[pairs] += 1
            result.rejects.append(Reject(passage.id, pairs, "", "", reply))
            continue
        entities = _entities(passage, pairs, reply, variant, max_words, result)
        if not entities:
            result.counts["no_entities_left"] += 1
            result.rejects.append(Reject(passage.id, "no_entities_left", "", "", reply))
            continue
        result.rows.append(
            {
                "id": passage.id,
                "text": passage.text,
                "source": passage.source,
                "source_id": passage.source_id,
                "licence": passage.licence,
                "start": passage.start,
                "end": passage.end,
                "entities": entities,
                "teacher": record["model"] or "",
                "annotated": record["time"],
            }
        )
    return result


def _entities(
    passage: Passage, pairs: list[tuple[str, str]], reply: str, variant: str, max_words: int, result: Annotations
) -> list[dict[str, Any]]:
    """Mentions of the pairs that stand every test, in order of start; the others go to the rejects."""
    mentions: dict[tuple[int, int, str], dict[str, Any]] = {}
    for span, raw_type in pairs:
        result.counts["entities_read"] += 1
        type_name = normalise_type(raw_type) if variant == "type" else " ".join(raw_type.split()).rstrip(". ")
        reason = why_drop(span, type_name, passage.text, max_words)
        places = ground(passage.text, span) if reason is None else []
        if isinstance(places, str):
            reason = places
        elif reason is None and all((start, end, type_name) in mentions for start, end in places):
            reason = "duplicate"
        if reason:
            result.counts[reason] += 1
            result.rejects.append(Reject(passage.id, reason, span, raw_type, reply))
            continue
        result.counts["entities_kept"] += 1
        for start, end in places:
            mention = {"start": start, "end": end, "text": passage.text[start:end], "type": type_name}
            mentions[start, end, type_name] = mention
    return sorted(mentions.values(), key=lambda mention: (mention["start"], -mention["end"], mention["type"]))
