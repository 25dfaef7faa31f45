"""Human-annotated sets become the same rows as the teacher's annotations, with the name of their set.

Two sets may use the same type in different ways. Therefore absent types are drawn only from the types of the same set,
and conversations may begin with `Dataset: {name}` (paper, section 3.3).
"""

import bisect
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from command_line.recipes import find_recipe, read_recipe, require_at_least
from ner_sets.config import AnnotatedSetConfig
from ner_sets.mentions import Mention, RawMention, trim
from ner_sets.sets import SetPassage, read_set
from open_ner.conversation import LONE_SURROGATE
from open_ner.tools.errors import UserError
from open_ner.tools.files import replace_surrogates

from ..annotation.annotate import AnnotationRow, Annotations
from ..config import DatasetConfig, SupervisedConfig
from ..corpus.cutting import HAS_UNSPACED, SMALLEST_PART, load_tokenizer
from ..corpus.sources import text_sha256
from .mixture import DISTILLED, cap_set

RECIPES = Path(__file__).parents[2] / "recipes" / "build" / "supervised"
SET_COUNTS = ("rows_read", "windows_added", "entities_read", "entities_kept", "entities_of_rejected_passages")
CountTokens = Callable[[str], int]


def load_set_configs(config: SupervisedConfig) -> list[AnnotatedSetConfig]:
    """Read the recipes of the sets. Raises UserError for an unknown set or two sets with the same name.

    A path that begins with `./` is relative to the recipe of its set, the others to `supervised.data_dir`.
    """
    sets = []
    for name in config.sets:
        recipe = find_recipe(name, RECIPES, "supervised.sets:")
        one = read_recipe(AnnotatedSetConfig, recipe)
        require_at_least(f"set {one.name}", one, {"max_passages": 0})
        if one.path.startswith("./"):
            one.path = str(recipe.parent.absolute() / one.path)
        sets.append(one)
    for name, times in Counter([DISTILLED, *(one.name for one in sets)]).items():
        if times > 1:
            raise UserError(f"supervised.sets: {times} parts have the name {name!r}; give each set a different name")
    return sets


def load_sets(config: SupervisedConfig, tokenizer: str, max_tokens: int, seed: int) -> dict[str, Annotations]:
    """Read, check and sample the sets of the recipe, by name. Raises UserError if a set has no entity left."""
    configs, encoder = load_set_configs(config), load_tokenizer(tokenizer)
    count = lambda text: len(encoder.encode(text, add_special_tokens=False).ids)  # noqa: E731
    # passages without mentions are useless if their absent types are not asked
    asked = config.negatives == "all" or (config.negatives != "none" and config.negatives_per_passage)
    empty_ratio = config.empty_ratio if asked else 0.0
    sets = {}
    for one in configs:
        if one.closed and config.negatives != "all":
            raise UserError(f"set {one.name}: closed asks all types of a row: set supervised.negatives to all")
        part = annotate_set(one, read_set(one, config.data_dir), config.long_passages, max_tokens, count)
        most = config.max_passages if one.max_passages is None else one.max_passages
        part = cap_set(part, empty_ratio, most, seed)
        if not any(row["entities"] for row in part.rows):
            raise UserError(f"set {one.name}: no passage with an entity is left of {one.path}: {dict(part.counts)}")
        sets[one.name] = part
    return sets


def annotate_set(
    config: AnnotatedSetConfig, passages: Iterable[SetPassage], long_passages: str, max_tokens: int,
    count_tokens: CountTokens,
) -> Annotations:  # fmt: skip
    """Check the passages of a set and turn them into rows with their `dataset`; mentions may overlap.

    Reasons to reject a passage: `empty`, `not_unicode`, `duplicate`, `duplicate_annotated_otherwise`, problems of the
    file, `longer_than_max_tokens` (also for a window that cannot be split), and invalid spans, because without the
    mention the passage would teach that the type is absent: `span_outside_text`, `text_differs`, `empty_span`.
    Reasons to reject a mention: `dropped_label`, `unknown_label`, `not_in_types`, `not_in_types_of_row`,
    `duplicate_mention`.

    Args:
        config: the set.
        passages: its passages as read.
        long_passages: "window" to cut passages longer than `max_tokens`, "reject" to reject them.
        max_tokens: maximum length of a passage.
        count_tokens: counts the tokens of a text.

    Returns:
        Annotations whose counts balance: `rows_read` + `windows_added` equals the rows plus the rejects without a
        span; `entities_read` equals `entities_kept` plus the rejects with a span plus `entities_of_rejected_passages`.
    """
    result = Annotations()
    seen: dict[str, list[Mention]] = {}
    ids: set[str] = set()
    for passage in passages:
        result.counts["rows_read"] += 1
        digest = text_sha256(passage.text)
        name = replace_surrogates(f"{config.name}/{passage.id or digest[:16]}")
        name = _make_unique(name, digest, ids)
        asked = _asked_mentions(config, passage, name, result)
        mentions, problem, fault = _check(passage, asked)
        if not problem and config.closed and passage.types is None:
            problem = "row_without_types"
        if not problem and config.duplicates == "reject" and digest in seen:
            problem = "duplicate" if seen[digest] == mentions else "duplicate_annotated_otherwise"
        if problem:
            result.counts["entities_of_rejected_passages"] += len(asked)
            result.reject(problem, name, reply=fault or passage.text)
            continue
        seen[digest] = mentions
        ids.add(name)
        source, license_ = _origin(config, passage)
        text, pieces = passage.text, [(0, len(passage.text), True)]
        if len(text.encode()) > max_tokens and count_tokens(text) > max_tokens:  # a token has at least one byte
            whole = [(0, len(text), False)]
            pieces = whole if long_passages == "reject" else list(cut_around(text, mentions, max_tokens, count_tokens))
            result.counts["windows_added"] += len(pieces) - 1
        for start, end, fits in pieces:
            if not fits:
                lost = sum(start <= mention["start"] < end for mention in mentions)
                result.counts["entities_of_rejected_passages"] += lost
                result.reject("longer_than_max_tokens", name, reply=text[start:end])
                continue
            inside = [mention for mention in mentions if start <= mention["start"] and mention["end"] <= end]
            result.counts["entities_kept"] += len(inside)
            row: AnnotationRow = {
                "id": name if (start, end) == (0, len(text)) else f"{name}:{start}", "text": text[start:end],
                "source": source, "source_id": replace_surrogates(passage.id), "license": license_,
                "start": start, "end": end,
                "entities": [{**m, "start": m["start"] - start, "end": m["end"] - start} for m in inside],
                "teacher": "", "annotated": "", "dataset": config.name,
            }  # fmt: skip
            if config.closed:
                row["types"] = _own_types(config, passage)
            result.rows.append(row)
    return result


def _make_unique(name: str, digest: str, ids: Collection[str]) -> str:
    """Return an id that is not one of `ids`: with the hash of the text if it is repeated, and then with a number."""
    unique = hashed = name if name not in ids else f"{name}~{digest[:8]}"
    number = 1
    while unique in ids:
        number += 1
        unique = f"{hashed}~{number}"
    return unique


def _origin(config: AnnotatedSetConfig, passage: SetPassage) -> tuple[str, str]:
    """Return the source and the license of a passage; raises UserError if the recipe names no license for it."""
    source = str(passage.row.get(config.source_column) or config.name) if config.source_column else config.name
    own = passage.row.get(config.license_column) if config.license_column else None
    if not own and config.licenses and source not in config.licenses:
        raise UserError(f"set {config.name}: row {passage.id!r} is from {source!r}, which has no license: add it to "
                        "licenses in the set's recipe")  # fmt: skip
    names = source, str(own or config.licenses.get(source, config.license))
    return replace_surrogates(names[0]), replace_surrogates(names[1])


def _own_types(config: AnnotatedSetConfig, passage: SetPassage) -> list[str]:
    """Return the types that a row of a closed set is asked, in the words of the query."""
    named = [(label, _in_words(config, label)) for label in passage.types or []]
    return [*dict.fromkeys(kind for label, kind in named if not _why_not_asked(config, label, kind))]


def _in_words(config: AnnotatedSetConfig, label: str) -> str:
    return " ".join(config.verbalize.get(label, label).split())


def _why_not_asked(config: AnnotatedSetConfig, label: str, kind: str) -> str:
    """Return why a label, whose words in a query are `kind`, is not asked; an empty string if it is."""
    if label in config.drop or kind in config.drop:
        return f"dropped_label: {label}"
    if not kind or (config.complete and label not in config.verbalize):
        return f"unknown_label: {label}"
    return f"not_in_types: {kind}" if config.types is not None and kind not in config.types else ""


def _asked_mentions(
    config: AnnotatedSetConfig, passage: SetPassage, name: str, result: Annotations
) -> list[RawMention]:
    """Return the mentions with verbalized labels; reject repeated mentions and labels that are not asked."""
    asked: dict[tuple[int, int, str], RawMention] = {}
    of_row = _own_types(config, passage) if config.closed else []
    for mention in passage.entities:
        result.counts["entities_read"] += 1
        label = mention["type"]
        kind = _in_words(config, label)
        key = (*trim(passage.text, mention["start"], mention["end"]), kind)
        reason = _why_not_asked(config, label, kind)
        if not reason and config.closed and kind not in of_row:
            reason = f"not_in_types_of_row: {kind}"
        if not reason and key in asked:
            reason = "duplicate_mention"
        if not reason:
            asked[key] = {**mention, "type": kind}
            continue
        span = passage.text[max(0, mention["start"]) : max(0, mention["end"])]
        result.reject(reason, name, span or repr(span), label, json.dumps(mention))
    return list(asked.values())


def _check(passage: SetPassage, asked: list[RawMention]) -> tuple[list[Mention], str, str]:
    """Return the sorted mentions; or no mentions, the reason to reject the passage, and its invalid part."""
    if passage.problem:
        return [], passage.problem, passage.raw
    if not passage.text.strip():
        return [], "empty", ""
    if LONE_SURROGATE.search("".join([passage.text, *(mention["type"] for mention in asked)])):
        return [], "not_unicode", ""
    mentions: list[Mention] = []
    for mention in asked:
        start, end = mention["start"], mention["end"]
        if not 0 <= start <= end <= len(passage.text):
            return [], "span_outside_text", json.dumps(mention)
        if mention.get("text", passage.text[start:end]) != passage.text[start:end]:
            return [], "text_differs", json.dumps(mention)
        start, end = trim(passage.text, start, end)
        if start == end:
            return [], "empty_span", json.dumps(mention)
        mentions.append({"start": start, "end": end, "text": passage.text[start:end], "type": mention["type"]})
    return sorted(mentions, key=lambda mention: (mention["start"], -mention["end"], mention["type"])), "", ""


def cut_around(
    text: str, mentions: list[Mention], max_tokens: int, count_tokens: CountTokens
) -> Iterator[tuple[int, int, bool]]:
    """Cut a text into windows `(start, end, fits)` of whole words and mentions, each as long as possible.

    In a script without spaces a word is a character.
    """
    words = [
        part.span()
        for word in re.finditer(r"\S+", text)
        for part in (SMALLEST_PART.finditer(text, *word.span()) if HAS_UNSPACED.search(word[0]) else [word])
    ]
    inside = bytearray(len(text) + 1)
    for mention in mentions:
        for place in range(mention["start"] + 1, mention["end"]):
            inside[place] = 1
    ends = [end for _, end in words if not inside[end]]
    starts = [start for start, _ in words]
    first, position = 0, starts[0]
    while first < len(ends):
        # bisection, because a longer text has at least as many tokens; a window has fewer than 4 * max_tokens words,
        # even where a word is a character, since few tokens have more than four characters
        size = lambda end, position=position: count_tokens(text[position:end])  # noqa: E731
        beyond = bisect.bisect_right(ends, max_tokens, first, min(first + 4 * max_tokens, len(ends)), key=size)
        last = max(beyond - 1, first)
        yield position, ends[last], beyond > first
        first = last + 1
        if first < len(ends):
            position = starts[bisect.bisect_left(starts, ends[last])]


def conversation_options(config: SupervisedConfig, distilled: DatasetConfig) -> DatasetConfig:
    """Return the options of human-annotated sets; what `config` does not set is as for distilled passages."""
    return replace(
        distilled,
        negatives=config.negatives,
        negatives_per_passage=config.negatives_per_passage,
        negative_ratio=config.negative_ratio,
        max_queries=None,
    )
