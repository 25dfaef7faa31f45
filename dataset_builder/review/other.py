"""A second opinion about passages: from a student, a file of predictions, or another run."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ner_sets.mentions import Mention
from open_ner.tools.errors import UserError
from open_ner.tools.files import read_jsonl
from open_ner.tools.options import load_student

from .passages import ScoredMention, read_run

TEXTS_AT_A_TIME = 64
Opinions = dict[str, list[ScoredMention]]  # by the text of the passage


def ask_student(model: str, texts: list[str], types: Collection[str]) -> tuple[Opinions, float]:
    """Ask a student (folder or Hub id) for the spans of these types in each text, with any score.

    Returns:
        The opinions, and the threshold that is saved with the student; by default, spans below it are not returned.

    Raises:
        UserError: the student cannot be loaded, or cannot be asked for these types.
    """
    from tqdm import tqdm

    tagger = load_student(model, None)
    found: Opinions = {}
    with tqdm(total=len(texts), desc=model, unit=" passages") as bar:
        for begin in range(0, len(texts), TEXTS_AT_A_TIME):
            batch = texts[begin : begin + TEXTS_AT_A_TIME]
            try:  # a span below the saved threshold may be the most uncertain one
                answers = tagger(batch, types=[*types], threshold=0.0)
            except ValueError as error:
                raise UserError(f"--model {model}: {error!s:.300}") from None
            for text, entities in zip(batch, answers, strict=True):
                found[text] = [_mention(text, entity) for entity in entities]
            bar.update(len(batch))
    return found, tagger.defaults["threshold"]


def read_opinions(path: Path) -> Opinions:
    """Read a JSONL file of texts with their `entities`, or the predictions.jsonl of an evaluation.

    An entity has `start`, `end`, a `type` or `entity_group`, and perhaps a `score`. Raises UserError for anything else
    and for spans outside of the text.
    """
    found: Opinions = {}
    lines = 0
    try:
        for line in read_jsonl(path):
            text = line["text"]
            spans = line["entities"] if "entities" in line else [{**s, "type": line["type"]} for s in line["spans"]]
            found.setdefault(text, []).extend(_mention(text, span) for span in spans)
            lines += 1
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        form = '{"text", "entities": [{"start", "end", "type", "score"}]} or of a predictions.jsonl'
        raise UserError(f"{path}: the line after {lines} good ones is not of the form {form} ({error!r})") from None
    return found


def read_other_run(run: Path) -> Opinions:
    """Read the annotations of another run over the same passages."""
    other = read_run(run)
    return {text: [{**mention} for mention in other.mentions.get(name, [])] for name, text in other.texts.items()}


def _mention(text: str, entity: Mapping[str, Any]) -> ScoredMention:
    start, end = entity["start"], entity["end"]
    if not 0 <= start < end <= len(text):
        raise ValueError(f"the span {start}-{end} is not in a text of {len(text)} characters")
    name = entity["type"] if "type" in entity else entity["entity_group"]
    if not isinstance(name, str):
        raise ValueError(f"the type {name!r} is not a string")
    mention: ScoredMention = {"start": start, "end": end, "text": text[start:end], "type": name}
    if entity.get("score") is not None:
        mention["score"] = round(float(entity["score"]), 4)
    return mention


def uncertainty(teacher: Collection[Mention], other: Collection[ScoredMention], by_scores: bool) -> float:
    """Return how uncertain a passage is, between 0 and 1.

    With `by_scores`, it is that of the span with a score nearest to 0.5: 4 * score * (1 - score), or 0 without spans.
    Otherwise it is the disagreement with the teacher: 1 - F1 of the spans with their types.
    """
    if by_scores:
        return max(
            (4 * mention["score"] * (1 - mention["score"]) for mention in other if "score" in mention), default=0
        )
    ours, theirs = ({(m["start"], m["end"], m["type"]) for m in mentions} for mentions in (teacher, other))
    return 1 - 2 * len(ours & theirs) / (len(ours) + len(theirs)) if ours or theirs else 0.0
