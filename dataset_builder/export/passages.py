"""Rows of a dataset as passages with checked mentions, and mentions as spans of words."""

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from ner_sets.mentions import Mention
from open_ner.borders import UNSPACED

from ..rejects import Reject

if TYPE_CHECKING:
    from datasets import Dataset

UNSPACED_CHARACTER = re.compile(f"[{UNSPACED}]")
Alignment = Literal["strict", "expand"]
Offsets = Sequence[tuple[int, int]]  # of each word in characters, end exclusive
Row = dict[str, Any]  # of the dataset; the command has checked its columns
Rows: TypeAlias = "Dataset | Sequence[Row]"
DRAW = re.compile(r"(.+)@\d+", re.DOTALL)  # id of a further conversation of a passage


class WordSpan(NamedTuple):
    """A mention on the words of its passage; `last` is included."""

    first: int
    last: int
    type: str


@dataclass
class ExportPassage:
    """A passage with its mentions; `negatives` are the types that are known to be absent, None if none were asked."""

    id: str
    text: str
    mentions: list[Mention]
    negatives: list[str] | None


@dataclass
class Tally:
    """Counts of one split, and what could not be carried over."""

    counts: Counter[str] = field(default_factory=Counter)
    rejects: list[Reject] = field(default_factory=list)

    def reject(self, passage_id: str, mention: Mention, reason: str) -> None:
        """Count a mention that is left out."""
        self.rejects.append(Reject(passage_id, reason, span=mention["text"], type=mention["type"]))

    def summary(self) -> dict[str, Any]:
        """Return the counts for the report, with the rejects by reason."""
        return {**dict(self.counts), "rejected": dict(Counter(one.reason for one in self.rejects).most_common())}


def find_passages(rows: Iterable[Any]) -> list[list[range]]:
    """Return the places of the rows of each passage, one range for each of its conversations (`dataset.draws`).

    A row `id#2` continues `id` if it is the next row, and `id@2` is the second conversation of `id`. Both must have
    the same text as `id`, because the id of a passage may contain these signs.
    """
    passages: list[list[range]] = []
    by_key: dict[tuple[str, int], list[range]] = {}
    name, text, places = "", "", list[range]()
    for place, row in enumerate(rows):
        if places and (row["id"], row["text"]) == (f"{name}#{len(places[-1]) + 1}", text):
            places[-1] = range(places[-1].start, place + 1)
            continue
        name, text = row["id"], row["text"]
        draw = DRAW.fullmatch(name)
        key = draw[1] if draw else name, hash(text)  # the hash, because the texts would take much memory
        if draw is None or key not in by_key:
            by_key[key] = []
            passages.append(by_key[key])
        places = by_key[key]
        places.append(range(place, place + 1))
    return passages


def read_passages(
    rows: Rows, passages: Iterable[list[range]], types: Collection[str] | None, tally: Tally
) -> Iterator[ExportPassage]:
    """Yield the passages of a split, each with the entities and the absent types of all its rows.

    Args:
        rows: rows with the columns `id`, `text` and `entities`, and perhaps `negatives`.
        passages: the places of the rows of each passage, as `find_passages` returns them.
        types: the types to export; None for all of them.
        tally: receives the counts, and the rejects `type_not_chosen`, `span_not_in_text` and `given_twice`.
    """
    for draws in passages:
        first = rows[draws[0].start]
        name, text = first["id"], first["text"]
        mentions: list[Mention] = []
        negatives: dict[str, None] | None = None
        earlier: set[tuple[int, int, str]] = set()  # in other draws, which repeat most entities
        for draw in draws:
            seen: set[tuple[int, int, str]] = set()
            for row in (rows[place] for place in draw):
                if row.get("negatives") is not None:
                    asked = [kind for kind in row["negatives"] if types is None or kind in types]
                    negatives = (negatives or {}) | dict.fromkeys(asked)
                for entity in row["entities"]:
                    start, end, kind = entity["start"], entity["end"], entity["type"]
                    if (start, end, kind) in earlier:
                        continue
                    word = text[start:end]
                    mention: Mention = {"start": start, "end": end, "text": entity.get("text", word), "type": kind}
                    tally.counts["entities_read"] += 1
                    if types is not None and kind not in types:
                        tally.reject(name, mention, "type_not_chosen")
                    elif not 0 <= start < end <= len(text) or mention["text"] != word:
                        tally.reject(name, mention, "span_not_in_text")
                    elif (start, end, kind) in seen:
                        tally.reject(name, mention, "given_twice")
                    else:
                        mentions.append(mention)
                    seen.add((start, end, kind))
            earlier |= seen
        yield ExportPassage(name, text, mentions, None if negatives is None else list(negatives))


def place(
    passage: ExportPassage, words: Offsets, alignment: Alignment, tally: Tally, divides_unspaced: bool
) -> dict[WordSpan, Mention]:
    """Map spans of words of a passage to the mentions that cover them.

    Args:
        passage: the passage.
        words: offsets of its words, in order.
        alignment: what happens to a mention that begins or ends inside a word: "strict" rejects it as
            `not_on_word_borders`, "expand" widens it to whole words.
        tally: receives the counts `entities_kept` and `entities_widened`, and the rejects `not_on_word_borders`,
            `inside_unspaced_word` and `given_twice`.
        divides_unspaced: whether scripts without spaces, such as Chinese, are divided into words or characters. If
            not, a word may be a whole clause, and a mention of a part of it is rejected as `inside_unspaced_word`.
    """
    starts, ends = [start for start, _ in words], [end for _, end in words]
    placed: dict[WordSpan, Mention] = {}
    for mention in passage.mentions:
        first, last = bisect_right(starts, mention["start"]) - 1, bisect_left(ends, mention["end"])
        if first < 0 or ends[first] <= mention["start"]:  # the mention begins with white space
            first += 1
        if last == len(words) or starts[last] >= mention["end"]:  # or ends with it
            last -= 1
        exact = first <= last and (starts[first], ends[last]) == (mention["start"], mention["end"])
        span = WordSpan(first, last, mention["type"])
        cut = [] if exact or first > last or divides_unspaced else [words[first], words[last]]
        cut = [(start, end) for start, end in cut if start < mention["start"] or mention["end"] < end]
        if any(UNSPACED_CHARACTER.search(passage.text, start, end) for start, end in cut):
            tally.reject(passage.id, mention, "inside_unspaced_word")
        elif first > last or (not exact and alignment == "strict"):
            tally.reject(passage.id, mention, "not_on_word_borders")
        elif span in placed:
            tally.reject(passage.id, mention, "given_twice")
        else:
            placed[span] = mention
            tally.counts["entities_kept"] += 1
            tally.counts["entities_widened"] += not exact
    return placed


def flat(spans: Iterable[WordSpan]) -> list[WordSpan]:
    """Return spans that share no word, in order: the longest are kept, and of equally long ones the first."""
    kept: list[WordSpan] = []
    taken: set[int] = set()
    for span in sorted(spans, key=lambda span: (span.first - span.last, span.first)):
        covered = range(span.first, span.last + 1)
        if taken.isdisjoint(covered):
            taken.update(covered)
            kept.append(span)
    return sorted(kept)
