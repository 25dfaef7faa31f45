"""Tasks for Label Studio, and the files that it exports.

Label Studio's editor counts characters as Python does: Unicode code points (`charsToCodePoints` in the source of its
editor; docs/review.md says how that was checked). Other clients of its API store their own counts, often UTF-16 units.
"""

import hashlib
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from .passages import ReviewPassage

CONTROL, OBJECT = "label", "text"  # names of the tags in the labeling configuration
COLORS = ("#3b6fb6", "#c8553d", "#4f8a5b", "#8c6bb1", "#e0a458", "#2a9d9d", "#b4548f", "#6f7a87")


def labeling_config(types: Mapping[str, str]) -> str:
    """Return the labeling configuration (XML) of the types, with their definitions as hints."""
    view = ElementTree.Element("View")
    labels = ElementTree.SubElement(view, "Labels", name=CONTROL, toName=OBJECT)
    for number, (name, definition) in enumerate(types.items()):
        label = ElementTree.SubElement(labels, "Label", value=name, background=COLORS[number % len(COLORS)])
        if definition:
            label.set("hint", definition)
    ElementTree.SubElement(view, "Text", name=OBJECT, value="$text", saveTextResult="yes")
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def to_task(passage: ReviewPassage, shown_by: str) -> dict[str, Any]:
    """Return a task of Label Studio's import format; its predictions have the spans, if `shown_by` is not empty."""
    data: dict[str, Any] = {"passage_id": passage["id"], "text": passage["text"]}
    if "uncertainty" in passage:
        data["uncertainty"] = passage["uncertainty"]
    if not shown_by:
        return {"data": data}
    result = []
    for mention in passage["entities"]:
        place = f"{passage['id']} {mention['start']} {mention['end']} {mention['type']}"
        region: dict[str, Any] = {
            "id": hashlib.sha256(place.encode("utf-8", "replace")).hexdigest()[:10], "type": "labels",
            "from_name": CONTROL, "to_name": OBJECT,
            "value": {
                "start": mention["start"], "end": mention["end"], "text": mention["text"], "labels": [mention["type"]]
            },
        }  # fmt: skip
        if "score" in mention:
            region["score"] = mention["score"]
        result.append(region)
    prediction: dict[str, Any] = {"model_version": shown_by, "result": result}
    if "uncertainty" in passage:
        prediction["score"] = round(1 - passage["uncertainty"], 4)  # Label Studio sorts tasks by this score
    return {"data": data, "predictions": [prediction]}
