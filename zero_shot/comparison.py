"""Compare models on the same passages: differences in F1, places where the first two disagree, and tables."""

import random
from collections import Counter, defaultdict
from itertools import combinations
from typing import NamedTuple

from rich.console import Console
from rich.table import Column
from rich.table import Table as RichTable

from hub.markdown import escape
from hub.records import MAIN, Comparison, Difference, Disagreement, Gain, PerThousand, RunResults
from hub.results_tables import percent
from open_ner.conversation import Span
from open_ner.tools.escapes import in_a_cell

from .records import PredictionLine
from .scoring import compare

GOLD = "gold"
SHOWN = 10  # disagreements in a table
AROUND = 60  # characters of text on each side of a disagreement


class Contender(NamedTuple):
    """A model in a comparison: its name in tables, its role (teacher, student, second teacher), its predictions."""

    name: str
    role: str
    lines: list[PredictionLine]
    results: RunResults


class Table(NamedTuple):
    """A table; the columns from `numbers` on are right-aligned."""

    title: str
    head: list[str]
    rows: list[list[str]]
    numbers: int


class Place(NamedTuple):
    """A stretch of a passage where two models differ, with the spans `(start, end, type)` of each and of the gold."""

    passage_id: str
    text: str
    start: int
    end: int
    spans: dict[str, list[tuple[int, int, str]]]


def differences(contenders: list[Contender], seed: int) -> list[Difference]:
    """Compute the paired difference in F1 between each model and every model before it."""
    result: list[Difference] = []
    for first, second in combinations(contenders, 2):
        gains = compare(second.lines, first.lines, None, seed)
        official, strict = (gains[f"all: {scorer}"] for scorer in MAIN)
        result.append({"of": second.name, "over": first.name, "official": official, "strict": strict})
    return result


def verdict(difference: Difference, n_passages: int) -> str:
    """Say in one sentence which of two models is better by strict F1, or that the passages do not show it."""
    low, high = (100 * bound for bound in difference["strict"]["interval"])
    of, over, points = difference["of"], difference["over"], 100 * difference["strict"]["gain"]
    measured = f"{points:+.1f} points of strict F1, 95 % interval {low:+.1f} to {high:+.1f}"
    if low > 0:
        return f"{of} is better than {over}: {measured}."
    if high < 0:
        return f"{of} is worse than {over}: {measured}."
    few = f"{n_passages} passages do not tell them apart"
    return f"No difference of {of} from {over} is shown: {measured}; {few}."


def find_places(contenders: list[Contender]) -> list[Place]:
    """Find where the first two models differ; overlapping differences are one place."""
    found: dict[str, dict[str, list[tuple[int, int, str]]]] = defaultdict(lambda: defaultdict(list))
    texts: dict[str, str] = {}
    for name, lines in ((GOLD, contenders[0].lines), *((each.name, each.lines) for each in contenders)):
        for line in lines:
            texts[line["passage_id"]] = line["text"]
            own = line["gold_spans"] or []
            if name != GOLD:
                own = [(span["start"], span["end"]) for span in line["spans"]]
            found[line["passage_id"]][name] += [(start, end, line["type"]) for start, end in own]
    places: list[Place] = []
    for passage_id, spans in found.items():
        stretches: list[Span] = []
        first, second = ({*spans[each.name]} for each in contenders[:2])
        for start, end, _ in sorted(first ^ second):
            if stretches and start < stretches[-1][1]:
                stretches[-1] = (stretches[-1][0], max(end, stretches[-1][1]))
            else:
                stretches.append((start, end))
        for a, b in stretches:
            names = (GOLD, *(each.name for each in contenders))
            there = {name: sorted({span for span in spans[name] if span[0] < b and a < span[1]}) for name in names}
            places.append(Place(passage_id, texts[passage_id], a, b, there))
    return places


def disagreements(
    contenders: list[Contender], seed: int, most: int = SHOWN
) -> tuple[list[Disagreement], dict[str, int]]:
    """Sample places where the first two models differ, from different passages if possible.

    Returns:
        The sampled places in the order of the passages; and for each of the two models, the number of all places
        where it has the spans of the gold. The empty name counts the places where neither has them.
    """
    places = find_places(contenders)
    order = list(range(len(places)))
    random.Random(seed).shuffle(order)
    before: Counter[str] = Counter()
    rank: dict[int, int] = {}  # number of places of the same passage that come earlier
    for number in order:
        rank[number] = before[places[number].passage_id]
        before[places[number].passage_id] += 1
    drawn = sorted(sorted(order, key=lambda number: rank[number])[:most])
    right = [_right(place, contenders) for place in places]
    return [_describe(places[number], right[number]) for number in drawn], dict(Counter(right).most_common())


def _right(place: Place, contenders: list[Contender]) -> str:
    """Return which of the first two models has the gold's spans; they differ, so at most one does."""
    return next((each.name for each in contenders[:2] if place.spans[each.name] == place.spans[GOLD]), "")


def _describe(place: Place, right: str) -> Disagreement:
    start, end = max(0, place.start - AROUND), min(len(place.text), place.end + AROUND)
    excerpt = "…" * (start > 0) + place.text[start:end] + "…" * (end < len(place.text))
    found = {name: [f"{place.text[a:b]} ({kind})" for a, b, kind in own] for name, own in place.spans.items()}
    return {"passage_id": place.passage_id, "text": excerpt, "found": found, "right": right}


def tables(comparison: Comparison) -> list[Table]:
    """Return the tables of a comparison: F1 and costs, differences in F1, F1 by type."""
    name, runs = comparison["benchmark"], comparison["runs"]
    names = [run["model"]["id"] for run in runs]
    head = ["model", "role", *(f"{scorer} F1 [95 %]" for scorer in MAIN), "$ per 1,000 passages", "s per 1,000"]
    rows = [
        [each, role, *(percent(run["benchmarks"][name][scorer]) for scorer in MAIN), *_prices(run)]
        for each, role, run in zip(names, comparison["roles"], runs, strict=True)
    ]
    result = [Table(f"{name}: {comparison['n_passages']} passages", head, rows, 2)]
    head = ["of", "over", *(f"{scorer} F1 [95 %]" for scorer in MAIN)]
    rows = [
        [each["of"], each["over"], *(_points(each[scorer]) for scorer in MAIN)] for each in comparison["differences"]
    ]
    result.append(Table("Difference in points, paired bootstrap over passages", head, rows, 2))
    types = [run["benchmarks"][name]["per_type"] for run in runs]
    rows = [
        [kind, f"{row['strict']['n_gold']:g}", *(f"{100 * own[kind]['strict']['f1']:.1f}" for own in types)]
        for kind, row in types[0].items()
    ]
    result.append(Table("Strict F1 by type", ["type", "gold", *names], rows, 1))
    return result


def _prices(run: RunResults) -> list[str]:
    price: PerThousand = run.get("per_thousand") or {"dollars": None, "seconds": None, "note": ""}
    dollars, seconds = price["dollars"], price["seconds"]
    shown = "-" if dollars is None else f"{dollars:.4f}" if dollars else "0"
    return [shown, "-" if seconds is None else f"{seconds:,.0f}" if seconds >= 10 else f"{seconds:.1f}"]


def _points(gain: Gain) -> str:
    low, high = gain["interval"]
    return f"{100 * gain['gain']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def disagreement_table(comparison: Comparison) -> Table | None:
    """Return the sampled disagreements as a table; None if the models agree everywhere."""
    if not comparison["disagreements"]:
        return None
    counts = comparison["n_disagreements"]
    right = ", ".join(f"{name or 'neither'} {number}" for name, number in counts.items())
    shown = f"{len(comparison['disagreements'])} of {sum(counts.values())} places where they disagree"
    names = [run["model"]["id"] for run in comparison["runs"]]
    rows = [
        [each["passage_id"], each["text"], *("; ".join(each["found"][name]) or "-" for name in (*names, GOLD))]
        for each in comparison["disagreements"]
    ]
    return Table(f"{shown}; the gold agrees with: {right}", ["passage", "text", *names, GOLD], rows, 99)


def print_disagreements(comparison: Comparison) -> None:
    """Print the sampled disagreements to the terminal, each as a block of lines."""
    console = Console(markup=False, emoji=False, highlight=False, soft_wrap=True)
    if table := disagreement_table(comparison):
        console.print(in_a_cell(table.title), style="bold")
        for passage, text, *found in table.rows:
            console.print(f"{in_a_cell(passage)}: {in_a_cell(text)}")
            for name, spans in zip(table.head[2:], found, strict=True):
                console.print(f"    {in_a_cell(name)}: {in_a_cell(spans)}")
        console.print()


def to_markdown(table: Table) -> str:
    """Write a table in Markdown below its title."""
    rule = "".join("--:|" if number >= table.numbers else "---|" for number in range(len(table.head)))
    rows = [f"| {' | '.join(map(escape, cells))} |" for cells in (table.head, *table.rows)]
    return "\n".join([f"{escape(table.title)}:", "", rows[0], f"|{rule}", *rows[1:]])


def print_table(table: Table) -> None:
    """Print a table to the terminal; in a file or pipe it is as wide as its longest row."""
    console = Console(markup=False, emoji=False, highlight=False)
    columns = [
        Column(in_a_cell(name), justify="right" if number >= table.numbers else "left", overflow="fold")
        for number, name in enumerate(table.head)
    ]
    shown = RichTable(*columns, title=in_a_cell(table.title), title_justify="left", title_style="bold", box=None)
    shown.pad_edge = False
    for row in table.rows:
        shown.add_row(*map(in_a_cell, row))
    console.print(shown, width=None if console.is_terminal else max(console.measure(shown).maximum, 1))
    console.print()
