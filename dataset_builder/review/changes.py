"""What people changed: precision and recall of the spans they were shown, and the kind of each change."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import TypedDict

from metrics.entity_f1.entity_f1 import Counts, f1_strict
from ner_sets.mentions import Mention
from open_ner.tools.escapes import in_a_cell

CHANGES = ("kept", "added", "removed", "boundary", "retyped")


class TypeChanges(TypedDict):
    """Scores of one type against the corrections, and numbers of spans by kind of change."""

    precision: float
    recall: float
    f1: float
    spans: int  # before the correction
    gold: int
    changes: dict[str, int]


def compare(pairs: Iterable[tuple[Sequence[Mention], Sequence[Mention]]]) -> dict[str, TypeChanges]:
    """Compare the spans of passages with their corrections, by type; the entry "" is for all types together.

    A span counts as `kept`, or as `retyped` if its type was changed, or as `boundary` if a span of its type overlaps
    it, or as `removed`. Each corrected span matches at most one span; those without a match are `added`. A change
    counts under the type of the span before the correction, `added` under that of the corrected span.
    """
    counts: dict[str, Counts] = defaultdict(Counts)
    changes: dict[str, Counter[str]] = defaultdict(Counter)
    for before, gold in pairs:
        for kind, name in _changes(before, gold):
            changes[name][kind] += 1
        for name in {mention["type"] for mention in (*before, *gold)}:
            ours, theirs = (_places(mentions, name) for mentions in (before, gold))
            counts[name] += Counts(len(ours & theirs), len(ours), len(theirs))
    counts[""], changes[""] = sum(counts.values(), Counts()), sum(changes.values(), Counter[str]())
    table: dict[str, TypeChanges] = {}
    for name, own in sorted(counts.items()):
        scores = f1_strict(own)
        table[name] = {
            "precision": scores["precision"], "recall": scores["recall"], "f1": scores["f1"],
            "spans": own.n_pred, "gold": own.n_gold, "changes": {kind: changes[name][kind] for kind in CHANGES},
        }  # fmt: skip
    return table


def _places(mentions: Sequence[Mention], name: str) -> set[tuple[int, int]]:
    return {(mention["start"], mention["end"]) for mention in mentions if mention["type"] == name}


def _changes(before: Sequence[Mention], gold: Sequence[Mention]) -> list[tuple[str, str]]:
    """Return the `(kind, type)` of each change in a passage."""
    old, new = ([(m["start"], m["end"], m["type"]) for m in mentions] for mentions in (before, gold))
    found = [("kept", span[2]) for span in old if span in new]
    old, new = [span for span in old if span not in new], [span for span in new if span not in old]
    for kind in ("retyped", "boundary"):
        for span in list(old):
            start, end, name = span
            if kind == "retyped":
                match = next((other for other in new if other[:2] == (start, end)), None)
            else:
                match = next((o for o in new if o[2] == name and o[0] < end and start < o[1]), None)
            if match:
                found.append((kind, name))
                old.remove(span)
                new.remove(match)
    return found + [("removed", name) for *_, name in old] + [("added", name) for *_, name in new]


def show(title: str, table: dict[str, TypeChanges]) -> None:
    """Print the comparison as a table; types are escaped, because other people's files may contain any text."""
    rows = [["type", "precision", "recall", "F1", "spans", "gold", *CHANGES]]
    for name, row in sorted(table.items(), key=lambda item: (item[0] == "", item[0])):
        scores = [f"{row[key]:.3f}" for key in ("precision", "recall", "f1")]
        rows.append([
            in_a_cell(name) or "all types", *scores,
            *(str(number) for number in (row["spans"], row["gold"], *row["changes"].values())),
        ])  # fmt: skip
    width = max(len(row[0]) for row in rows)
    print(f"\n{in_a_cell(title)}")
    for name, *cells in rows:
        columns = zip(cells, rows[0][1:], strict=True)
        print(name.ljust(width), *(cell.rjust(len(heading)) for cell, heading in columns), sep="  ")
    print()
