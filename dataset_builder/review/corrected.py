"""Read a corrected file: the export of Label Studio (JSON or JSON_MIN), or the JSONL of the tasks."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ner_sets.mentions import Mention, trim
from open_ner.tools.errors import UserError

from .anchor import Region, anchor
from .label_studio import CONTROL
from .passages import Review


class Correction(NamedTuple):
    """The regions of one passage by one person; `regions` is None if that person has not corrected it."""

    passage_id: Any
    text: Any
    annotator: str
    regions: list[Region] | None


@dataclass
class Corrected:
    """The corrected passages of a review: gold mentions by passage id, and counts of what was found."""

    mentions: dict[str, list[Mention]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)  # not_in_file, not_corrected, moved, trimmed, repeated


def read_corrected(path: Path, review: Review, annotator: str | None = None) -> Corrected:
    """Read a corrected file of a review.

    Args:
        path: the file.
        review: the review that was exported.
        annotator: id or e-mail address, as in the file, of the person whose corrections are read; default: everybody.

    Raises:
        UserError: the file has an unknown form; a passage is not in the review or has another text; a label is not
            under review; a span's text is not in the passage, or is at several places; two people disagree.
    """
    exported = {passage["id"]: passage["text"] for passage in review.passages}
    by_passage: dict[str, dict[str, list[Region]]] = defaultdict(dict)
    seen: set[str] = set()
    people: set[str] = set()
    for one in _read(path):
        if not isinstance(one.passage_id, str) or one.passage_id not in exported:
            raise UserError(f"{path}: passage {one.passage_id!r} is not of this review: name its folder by --review")
        if one.text != exported[one.passage_id]:
            hint = "offsets would be wrong; restore the text, or remove the passage from the file"
            raise UserError(f"{path}: passage {one.passage_id!r} does not have the text that was exported: {hint}")
        seen.add(one.passage_id)
        if one.regions is None:
            continue
        people.add(one.annotator)
        if annotator in (None, one.annotator):
            if one.annotator in by_passage[one.passage_id]:
                who = one.annotator or "one person"
                raise UserError(f"{path}: passage {one.passage_id!r} has two annotations by {who}: delete one")
            by_passage[one.passage_id][one.annotator] = one.regions
    if annotator is not None and annotator not in people:
        raise UserError(f"{path}: --annotator {annotator}: only {', '.join(sorted(people)) or 'nobody'} corrected it")
    result = Corrected()
    for name, versions in by_passage.items():
        found = {who: _mentions(path, name, exported[name], own, review, result) for who, own in versions.items()}
        if any(mentions != next(iter(found.values())) for mentions in found.values()):
            hint = "agree on one version, or choose a person by --annotator"
            raise UserError(f"{path}: passage {name!r} is annotated differently by {', '.join(sorted(found))}: {hint}")
        result.mentions[name] = next(iter(found.values()))
    result.counts["not_in_file"] = len(exported.keys() - seen)
    result.counts["not_corrected"] = len(seen - result.mentions.keys())
    if not result.mentions:
        hint = "submit annotations in Label Studio, or set `reviewed` to true in each line that you have checked"
        raise UserError(f"{path}: none of {len(seen)} passages is corrected: {hint}")
    return result


def _mentions(
    path: Path, name: str, text: str, regions: list[Region], review: Review, result: Corrected
) -> list[Mention]:
    found: dict[tuple[int, int, str], Mention] = {}
    for region, span in zip(regions, anchor(text, regions), strict=True):
        where = f"{path}: passage {name!r}, span {region.start!r}-{region.end!r}"
        if not isinstance(region.label, str) or region.label not in review.types:
            known = ", ".join(review.types)
            raise UserError(f"{where}: label {region.label!r} is not under review ({known}): correct it in the file")
        if isinstance(span, str):
            raise UserError(f"{where}: {span}: correct the span in the file")
        result.counts["moved"] += region.start is not None and span != (region.start, region.end)
        start, end = trim(text, *span)
        if start == end:
            raise UserError(f"{where}: only white space: remove the span from the file")
        result.counts["trimmed"] += (start, end) != span
        result.counts["repeated"] += (start, end, region.label) in found
        found[start, end, region.label] = {"start": start, "end": end, "text": text[start:end], "type": region.label}
    return sorted(found.values(), key=lambda mention: (mention["start"], -mention["end"], mention["type"]))


def _read(path: Path) -> Iterator[Correction]:
    """Yield the corrections of a file of any known form."""
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable: {error}") from None
    if not content.strip():
        raise UserError(f"{path}: is empty: export the corrected tasks again")
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        data = None
    if isinstance(data, list):
        for number, task in enumerate(data, 1):
            if not isinstance(task, dict):
                raise UserError(f"{path}: task {number} is not an object")
            yield from _label_studio(path, number, task)
        return
    for number, line in enumerate(content.split("\n"), 1):
        if line.strip():
            yield _jsonl(path, number, line)


def _jsonl(path: Path, number: int, line: str) -> Correction:
    """Read a line of tasks.jsonl; without `reviewed` it counts as corrected."""
    form = '{"id", "text", "entities": [{"start", "end", "text", "type"}], "reviewed": true}'
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        hint = f"give Label Studio's export as JSON, or lines of {form}"
        raise UserError(f"{path}: line {number} is not JSON ({error}): {hint}") from None
    entities = row.get("entities") if isinstance(row, dict) else None
    if not isinstance(entities, list) or not all(isinstance(entity, dict) for entity in entities):
        raise UserError(f"{path}: line {number} is not of the form {form}")
    regions = [Region(e.get("start"), e.get("end"), e.get("text"), e.get("type")) for e in entities]
    return Correction(row.get("id"), row.get("text"), "", regions if row.get("reviewed", True) is True else None)


def _label_studio(path: Path, number: int, task: Mapping[str, Any]) -> Iterator[Correction]:
    """Yield the annotations of a task of Label Studio's JSON or JSON_MIN."""
    data = task.get("data", task)
    if not isinstance(data, dict) or "passage_id" not in data or "text" not in data:
        hint = "import the tasks as they were exported, and export them as JSON or JSON_MIN"
        raise UserError(f"{path}: task {number} has no passage_id and text: {hint}")
    passage_id, text = data["passage_id"], data["text"]
    if "data" not in task:  # JSON_MIN: one object for each annotation, without those that were skipped
        regions = _regions(path, number, task.get(CONTROL, []))
        yield Correction(passage_id, text, str(task.get("annotator", "")), regions)
        return
    annotations = task.get("annotations", [])
    if not isinstance(annotations, list) or not all(isinstance(one, dict) for one in annotations):
        raise UserError(f"{path}: task {number} has no list of annotations: export the tasks as JSON or JSON_MIN")
    for one in annotations:
        who = one.get("completed_by", "")
        who = who.get("email", who.get("id", "")) if isinstance(who, dict) else who
        results = one.get("result")
        results = [r for r in results if isinstance(r, dict)] if isinstance(results, list) else []
        values = [result.get("value") for result in results if result.get("from_name") == CONTROL]
        cancelled = bool(one.get("was_cancelled"))
        yield Correction(passage_id, text, str(who), None if cancelled else _regions(path, number, values))
    if not annotations:
        yield Correction(passage_id, text, "", None)


def _regions(path: Path, number: int, values: Any) -> list[Region]:
    regions = []
    for value in values if isinstance(values, list) else [values]:
        given = value if isinstance(value, dict) else {}
        labels = given.get("labels")
        if not isinstance(labels, list) or not labels:
            hint = "give it one or delete it"
            raise UserError(f"{path}: task {number} has a region without a label ({value!r:.120}): {hint}")
        for label in labels:
            regions.append(Region(given.get("start"), given.get("end"), given.get("text"), label))
    return regions
