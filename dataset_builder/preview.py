"""A preview: the teacher annotates a few passages, so that a user can check them before paying for the others."""

import heapq
from dataclasses import replace
from pathlib import Path

from open_ner.view import RejectedSpan, ShownPassage, ShownSpan

from .annotation.annotate import Annotations, TeacherReply, annotate_passages, to_reply
from .config import BuildConfig
from .corpus.passages import StoredPassages
from .corpus.sources import text_sha256
from .dataset.contamination import Decontaminator
from .dataset.parts import rules_of
from .teacher.journal import Journal
from .teacher.questions import questions
from .teacher.records import ReplyCounts
from .teacher.stage import fetch_replies
from .teacher.type_set import load_type_set


def annotate_few(
    config: BuildConfig, folder: Path, journal: Journal, number: int
) -> tuple[list[ShownPassage], ReplyCounts]:
    """Ask about `number` passages of a run, as the whole run would, and annotate them.

    The passages are those whose ids have the smallest hashes, so a second preview costs nothing, and a larger one only
    costs the additional passages. Plurals are merged if a reply to these passages has the singular as a type.

    Returns:
        The passages of each variant with their spans and rejects, and the counts and cost of the replies.
    """
    chosen = heapq.nsmallest(number, StoredPassages(folder), key=lambda passage: text_sha256(passage.id))
    counts = fetch_replies(chosen, journal, replace(config.teacher, batch=False))  # a batch takes up to a day
    replies: dict[str, dict[str, TeacherReply]] = {variant: {} for variant in config.teacher.variants}
    for question in questions(chosen, config.teacher):
        if record := journal.get(question.key):
            replies[question.variant][question.passage_id] = to_reply(record)
    types, decontaminator = load_type_set(config.teacher), Decontaminator(config.contamination)
    shown: list[ShownPassage] = []
    for variant, of_variant in replies.items():
        found = annotate_passages(chosen, of_variant, rules_of(config, variant, decontaminator))
        spans, rejects = _spans(found), _rejects(found)
        for passage in chosen:
            name = passage.id
            one: ShownPassage = {
                "id": name, "text": passage.text, "about": variant, "entities": spans.get(name, []),
                "rejects": rejects.get(name, []), "reply": of_variant[name]["reply"] if name in of_variant else "",
            }  # fmt: skip
            if types and name in spans:
                one["absent"] = [known for known in types.definitions if all(known != s["type"] for s in spans[name])]
            shown.append(one)
    return shown, counts


def _spans(found: Annotations) -> dict[str, list[ShownSpan]]:
    return {row["id"]: [ShownSpan(**mention) for mention in row["entities"]] for row in found.rows}


def _rejects(found: Annotations) -> dict[str, list[RejectedSpan]]:
    rejects: dict[str, list[RejectedSpan]] = {}
    for one in found.rejects:
        rejects.setdefault(one.id, []).append({"reason": one.reason, "text": one.span, "type": one.type})
    return rejects
