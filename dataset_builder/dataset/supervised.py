"""Human-annotated sets become the same rows as the teacher's annotations, with the name of their set.

The same word means different things in two sets, so that each keeps its own label set: absent types are only ever
drawn from it, and a conversation may open with `Dataset: {name}` (paper, section 3.3).
"""

import bisect
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from command_line.recipes import read_recipe
from ner_sets.config import AnnotatedSetConfig
from ner_sets.sets import SetPassage, read_set
from open_ner.tools.errors import UserError
from open_ner.tools.files import replace_surrogates

from ..annotation.annotate import Annotations
from ..config import DatasetConfig, SupervisedConfig
from ..corpus.cutting import load_tokenizer
from ..corpus.sources import text_sha256
from .mixture import DISTILLED, cap_set

RECIPES = Path(__file__).parents[2] / "recipes" / "build" / "supervised"
SET_COUNTS = ("rows_read", "windows_added", "entities_read", "entities_kept", "entities_of_rejected_passages")
Mention = dict[str, Any]


def load_set_configs(config: SupervisedConfig) -> list[AnnotatedSetConfig]:
    """The recipes of the sets; raises UserError for an unknown one and for two sets of one name."""
    sets = []
    for name in config.sets:
        path = Path(name) if name.endswith((".yaml", ".yml")) else RECIPES / f"{name}.yaml"
        if not path.exists():
            known = ", ".join(sorted(recipe.stem for recipe in RECIPES.glob("*.yaml")))
            raise UserError(f"supervised.sets: {name!r} is neither a .yaml file nor one of {known}")
        sets.append(read_recipe(AnnotatedSetConfig, path))
    for name, times in Counter([DISTILLED, *(one.name for one in sets)]).items():
        if times > 1:
            raise UserError(f"supervised.sets: {times} parts have the name {name!r}: give each set one of its own")
    return sets


def load_sets(config: SupervisedConfig, tokenizer: str, max_tokens: int, seed: int) -> dict[str, Annotations]:
    """Every set of the recipe by name, judged, capped and counted; raises UserError where nothing of one is left."""
    configs = load_set_configs(config)
    encoder = load_tokenizer(tokenizer) if configs else None
    count = lambda text: len(encoder.encode(text, add_special_tokens=False).ids)  # noqa: E731
    # of a passage without entities nothing is asked, unless absent types are asked whatever is present
    asked = config.negatives == "all" or (config.negatives != "none" and config.negatives_per_passage)
    empty_ratio = config.empty_ratio if asked else 0.0
    sets = {}
    for one in configs:
        part = annotate_set(one, read_set(one, config.data_dir), config.long_passages, max_tokens, count)
        most = config.max_passages if one.max_passages is None else one.max_passages
        part = cap_set(part, empty_ratio, most, seed)
        if not any(row["entities"] for row in part.rows):
            raise UserError(f"set {one.name}: no passage with an entity is left of {one.path}: {dict(part.counts)}")
        sets[one.name] = part
    return sets


def annotate_set(
    config: AnnotatedSetConfig,
    raws: Iterable[SetPassage],
    long_passages: str,
    max_tokens: int,
    count_tokens: Callable[[str], int],
) -> Annotations:
    """Judge the passages of a set. Rows are those of `annotate_passages` and name their `dataset`.

    A mention that is out of its place costs its passage, which would otherwise teach that the mention is absent:
    `span_outside_text`, `text_differs`, `empty_span`. A label that is never asked costs the mention alone:
    `dropped_label`, `unknown_label`, `not_in_types`. Mentions may overlap. `rows_read` + `windows_added` is the number
    of rows and of rejects without a span; `entities_read` is `entities_kept`, the rejects with a span and
    `entities_of_rejected_passages`.
    """
    result = Annotations()
    seen: dict[str, list[Mention]] = {}
    ids: set[str] = set()
    for raw in raws:
        result.counts["rows_read"] += 1
        digest = text_sha256(raw.text)
        name = replace_surrogates(f"{config.name}/{raw.id or digest[:16]}")
        name = f"{name}~{digest[:8]}" if name in ids else name  # the set gives an id twice
        asked = _asked(config, raw, name, result)
        mentions, problem, fault = _mentions(raw, asked)
        if not problem and digest in seen:
            problem = "duplicate" if seen[digest] == mentions else "duplicate_annotated_otherwise"
        if problem:
            result.counts["entities_of_rejected_passages"] += len(asked)
            _reject(result, name, problem, raw=fault or raw.text)
            continue
        seen[digest] = mentions
        ids.add(name)
        for start, end in _windows(name, raw.text, mentions, long_passages, max_tokens, count_tokens, result):
            inside = [mention for mention in mentions if start <= mention["start"] and mention["end"] <= end]
            result.counts["entities_kept"] += len(inside)
            result.rows.append(_row(config, name, raw, start, end, inside))
    return result


def _asked(config: AnnotatedSetConfig, raw: SetPassage, name: str, result: Annotations) -> list[Mention]:
    """The passage's entities in the words of the question; each distinct one whose label is asked."""
    asked: dict[tuple[int, int, str], Mention] = {}
    for entity in raw.entities:
        result.counts["entities_read"] += 1
        kind = " ".join(config.verbalize.get(entity["type"], entity["type"]).split())
        key = (*_trim(raw.text, entity["start"], entity["end"]), kind)
        reason = _why_not_asked(config, entity["type"], kind) or ("duplicate_mention" if key in asked else "")
        if reason:
            span = raw.text[max(0, entity["start"]) : max(0, entity["end"])]
            _reject(result, name, reason, span or repr(span), entity["type"], json.dumps(entity))
        else:
            asked[key] = {**entity, "type": kind}
    return list(asked.values())


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    """A span without white space at its edges; one that leaves the text, as it is."""
    if not 0 <= start < end <= len(text):
        return start, end
    span = text[start:end]
    start += len(span) - len(span.lstrip())
    return start, start + len(span.strip())


def _mentions(raw: SetPassage, asked: list[Mention]) -> tuple[list[Mention], str, str]:
    """The mentions in order; or the reason why their passage cannot stay, and what is at fault."""
    if raw.problem:
        return [], raw.problem, raw.raw
    if not raw.text.strip():
        return [], "empty", ""
    if re.search("[\ud800-\udfff]", "".join([raw.text, *(entity["type"] for entity in asked)])):
        return [], "not_unicode", ""
    mentions = []
    for entity in asked:
        start, end = entity["start"], entity["end"]
        if not 0 <= start <= end <= len(raw.text):
            return [], "span_outside_text", json.dumps(entity)
        if entity.get("text", raw.text[start:end]) != raw.text[start:end]:
            return [], "text_differs", json.dumps(entity)
        start, end = _trim(raw.text, start, end)
        if start == end:
            return [], "empty_span", json.dumps(entity)
        mentions.append({"start": start, "end": end, "text": raw.text[start:end], "type": entity["type"]})
    return sorted(mentions, key=lambda mention: (mention["start"], -mention["end"], mention["type"])), "", ""


def _why_not_asked(config: AnnotatedSetConfig, label: str, kind: str) -> str:
    if label in config.drop or kind in config.drop:
        return f"dropped_label: {label}"
    if not kind or config.complete and label not in config.verbalize:
        return f"unknown_label: {label}"
    if config.types is not None and kind not in config.types:
        return f"not_in_types: {kind}"
    return ""


def _windows(
    name: str,
    text: str,
    mentions: list[Mention],
    long_passages: str,
    max_tokens: int,
    count_tokens: Callable[[str], int],
    result: Annotations,
) -> Iterator[tuple[int, int]]:
    """The passage whole, or windows of at most `max_tokens` that cut neither a word nor a mention.

    Rejects `longer_than_max_tokens`: the whole passage by option, or a window that can be cut nowhere.
    """
    if len(text.encode()) <= max_tokens or count_tokens(text) <= max_tokens:  # no token is shorter than a byte
        yield 0, len(text)
        return
    whole = [(0, len(text), False)]
    pieces = whole if long_passages == "reject" else list(cut_around(text, mentions, max_tokens, count_tokens))
    result.counts["windows_added"] += len(pieces) - 1
    for start, end, fits in pieces:
        if fits:
            yield start, end
            continue
        lost = sum(start <= mention["start"] < end for mention in mentions)
        result.counts["entities_of_rejected_passages"] += lost
        _reject(result, name, "longer_than_max_tokens", raw=text[start:end])


def cut_around(
    text: str, mentions: list[Mention], max_tokens: int, count_tokens: Callable[[str], int]
) -> Iterator[tuple[int, int, bool]]:
    """Windows `(start, end, fits)` of whole words and whole mentions that cover the text, as long as they may be."""
    words = [match.span() for match in re.finditer(r"\S+", text)]
    inside = bytearray(len(text) + 1)
    for mention in mentions:
        for place in range(mention["start"] + 1, mention["end"]):
            inside[place] = 1
    ends = [end for _, end in words if not inside[end]]
    starts = [start for start, _ in words]
    first, position = 0, starts[0]
    while first < len(ends):
        # bisection, as a longer text has no fewer tokens; and a word has at least one
        size = lambda end, position=position: count_tokens(text[position:end])  # noqa: E731
        beyond = bisect.bisect_right(ends, max_tokens, first, min(first + max_tokens, len(ends)), key=size)
        last = max(beyond - 1, first)
        yield position, ends[last], beyond > first
        first = last + 1
        if first < len(ends):
            position = starts[bisect.bisect_left(starts, ends[last])]


def conversation_options(config: SupervisedConfig, distilled: DatasetConfig) -> DatasetConfig:
    """How conversations of a set are built; what the recipe does not say of sets is as for distilled passages."""
    every = config.negatives == "all"
    return replace(
        distilled,
        negatives="uniform" if every else config.negatives,
        negatives_per_passage=10**6 if every else config.negatives_per_passage,  # a set has no more types than it has
        negative_ratio=config.negative_ratio,
        max_queries=None,
    )


def _row(
    config: AnnotatedSetConfig, name: str, raw: SetPassage, start: int, end: int, mentions: list[Mention]
) -> dict[str, Any]:
    moved = [{**mention, "start": mention["start"] - start, "end": mention["end"] - start} for mention in mentions]
    return {
        "id": name if (start, end) == (0, len(raw.text)) else f"{name}:{start}",
        "text": raw.text[start:end],
        "source": config.name,
        "source_id": replace_surrogates(raw.id),
        "license": config.license,
        "start": start,
        "end": end,
        "entities": moved,
        "teacher": "",  # a human
        "annotated": "",
        "dataset": config.name,
    }


def _reject(result: Annotations, name: str, reason: str, span: str = "", kind: str = "", raw: str = "") -> None:
    result.reject(reason, name, *map(replace_surrogates, (span, kind, raw)))
