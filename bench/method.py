"""Write the measured tables of docs/method.md from the files in results/.

python -m bench.method
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from open_ner.tools.files import read_json, write_atomic

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "method.md"
STUDENTS = {"quickstart": "quick-start's student", "distilled": "student of real passages"}
LAWS = {
    "negatives_none": "none",
    "negatives_uniform": "uniform over the types",
    "frequency": "in proportion to their frequency",
}  # arms of bench/ablations.py
SUPERVISED = {
    "distilled": "distilled only",
    "supervised": "the sets only",
    "all_negatives": "distilled, then the sets with all absent types",
    "without_line": "distilled, then the sets, without the line",
    "both": "distilled, then the sets",
}  # students of bench/supervised.py
FORMS = {
    "list, each type by itself": "lists, each type by itself",
    "list, flat": "lists, types compete",
    "list, fitted": "lists, types compete, fitted",
    "marks, without a bias": "marks",
    "marks, fitted": "marks, fitted",
}
STEPS = {
    "free": "each type by itself, as in the paper",
    "in the text": "answers are strings of the text",
    "nested": "types compete for the same span",
    "flat": "no two spans share a character",
    "flat, fitted": "with a fitted threshold and calibration",
}


def main() -> None:
    """Replace the tables between their marks."""
    page = PAGE.read_text(encoding="utf-8")
    for name, part in parts().items():
        begin, end = marks(name)
        before, _, rest = page.partition(begin)
        page = f"{before}{begin}\n{part}\n{end}{rest.partition(end)[2]}"
    write_atomic(PAGE, page)


def marks(name: str) -> tuple[str, str]:
    """Return the comments around a table."""
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def parts() -> dict[str, str]:
    """Return the tables by their names."""
    return {
        "negatives": negatives(), "supervised": supervised(), "teacher": teacher(), "branches": branches(),
        "speed": speed(), "answers": answers(), "definitions": definitions(), "marks": marked_copies(),
    }  # fmt: skip


def negatives() -> str:
    """Compare the laws by which absent types are drawn, on the choosing half of the development set."""
    arms, rows = _read("ablations/arms.json"), []
    for name, words in LAWS.items():
        free, fitted = arms[name]["free"]["official"], arms[name]["fitted"]["strict"]
        gains = ["", ""] if name == arms[name]["base"] else [_gain(free), _gain(fitted)]
        answered = f"{100 * arms[name]['free']['answered']:.0f} %"
        shown = [answered, *(f"{value:.1f}" for value in (free["precision"], free["recall"], free["f1"]))]
        rows.append([words, *shown, gains[0], f"{fitted['f1']:.1f}", gains[1]])
    head = ["negatives", "answered", "precision", "recall", "official F1", "gain [95 %]", "fitted: strict F1"]
    return table([*head, "gain [95 %]"], rows)


def supervised() -> str:
    """Compare students of human-annotated sets on the test splits of these sets."""
    students, rows = _read("bench/supervised.json"), []
    for name, row in students.items():
        gains = [_gain(row["all"][scorer]) if row["all"][scorer]["gain"] else "" for scorer in ("official", "strict")]
        f1 = [f"{row['all'][scorer]['f1']:.1f}" for scorer in ("official", "strict")]
        sets = [f"{scores['official']['f1']:.1f}" for scores in row["sets"].values()]
        rows.append([SUPERVISED[name], *sets, f1[0], gains[0], f1[1], gains[1]])
    one, every = (students[name]["trained_on"] for name in ("both", "all_negatives"))
    difference = "against the last row [95 %]"
    shown = table(["official F1", *students["both"]["sets"], "all", difference, "strict F1", difference], rows)
    sample = students["both"]
    size = f"Trained on {sample['passages']} passages of each set, asked {sample['texts']} texts of each test split."
    share = f"With one absent type per present one {one['present']} of {one['queries']} queries have an answer,"
    return f"{shown}\n\n{size}\n{share}\nwith all absent types {every['present']} of {every['queries']}."


def branches() -> str:
    """Compare multi-turn training with branches on the development set."""
    arms, rows = _read("ablations/arms.json"), []
    for name, words in (("frequency", "branches"), ("multi_turn", "multi-turn, as in the paper")):
        free, fitted = arms[name]["free"]["official"], arms[name]["fitted"]["strict"]
        gains = ["", ""] if name == arms[name]["base"] else [_gain(free), _gain(fitted)]
        tokens = f"{arms[name]['trained_on']['tokens']:,}"
        rows.append([words, tokens, f"{free['f1']:.1f}", gains[0], f"{fitted['f1']:.1f}", gains[1]])
    size, earlier = arms["multi_turn"]["trained_on"], _read("bench/branches.json")
    shown = table(["training", "tokens", "official F1", "gain [95 %]", "fitted: strict F1", "gain [95 %]"], rows)
    gain = _gain(earlier["gain of branches"]["all: strict"], 100)  # stored as a fraction
    return (
        f"{shown}\n\nTrained on {size['conversations']} conversations with {size['queries']:,} queries. In an earlier "
        f"comparison, on {earlier['ways']['branched']['trained_on']['conversations']} conversations\n"
        f"with fewer absent types, branches had the higher strict F1: {gain}."
    )


def speed() -> str:
    """Compare the seconds for a passage of each way of answering."""
    measured = _read("bench/inference.json")
    names = list(measured["speed"][0]["ways"])
    rows = []
    for name in names:
        ways = [part["ways"][name] for part in measured["speed"]]
        rows.append([name, *(f"{way['seconds_a_passage']:.2f}" for way in ways)])
    shown = table(["seconds a passage", *(f"{part['types']} types" for part in measured["speed"])], rows)
    return f"{shown}\n\nMeasured on: {measured['hardware']}, {measured['passages']} passages."


def answers() -> str:
    """Show what each step of reading the answers gains, on the half of the development set that chose nothing."""
    rows = []
    for name, words in STEPS.items():
        row = [words]
        for student in STUDENTS:
            scores = _read(f"answers/{student}.json")["sets"]["reporting half"][name]["official"]
            row += [f"{scores['f1']:.1f}", "" if name == "free" else _gain(scores)]
        rows.append(row)
    head = [cell for words in STUDENTS.values() for cell in (words, "gain [95 %]")]
    return table(["official F1", *head], rows)


def definitions() -> str:
    """Compare students of names and of definitions, each asked names and definitions."""
    measured, rows = _read("bench/definitions.json"), []
    for pair, row in measured["pairs"].items():
        trained, asked = pair.split(", asked ")
        free, fitted = row["free"]["official"], row["fitted"]["strict"]
        gains = ["", ""] if trained == asked == "names" else [_gain(free), _gain(fitted)]
        scores = (f"{value:.1f}" for value in (free["precision"], free["recall"], free["f1"]))
        rows.append([trained, asked, *scores, gains[0], f"{fitted['f1']:.1f}", gains[1]])
    head = ["trained on", "asked", "precision", "recall", "official F1", "against the first row [95 %]"]
    sizes = [student["trained_on"] for student in measured["students"].values()]
    sample = " and ".join(f"{size['conversations']} passages ({size['tokens']:,} tokens)" for size in sizes)
    shown = table([*head, "fitted: strict F1", "against the first row [95 %]"], rows)
    return f"{shown}\n\nTrained on {sample}."


def marked_copies() -> str:
    """Compare lists per type with a copy of the passage in which the entities of all types are marked."""
    measured, rows = _read("bench/marks.json"), []
    for name in FORMS:
        row = measured["forms"][name]
        cells = [f"{row['official'][key]:.1f}" for key in ("precision", "recall", "f1")]
        gains = ["", ""] if name == "list, fitted" else [_gain(row[scorer]) for scorer in ("official", "strict")]
        rows.append([FORMS[name], *cells, gains[0], f"{row['strict']['f1']:.1f}", gains[1]])
    difference = "against the fitted lists [95 %]"
    head = ["form", "precision", "recall", "official F1", difference, "strict F1", difference]
    chosen = {str(bias): measured["passes"][str(bias)] for bias in measured["bias"].values()}
    biased = " or ".join(f"{passes:.1f} with the chosen bias of {bias}" for bias, passes in chosen.items())
    trained = f"{measured['trained_on']['conversations']} passages, {measured['trained_on']['tokens']:,} tokens"
    cost = f"A sentence takes {measured['passes']['0.0']:.1f} forward passes without a bias, and {biased}."
    return f"{table(head, rows)}\n\nMarks: trained on {trained}. {cost}"


def teacher() -> str:
    """Compare clients on an endpoint with faults."""
    rows = [
        [one["way"], f"{one['lost']} of {one['answers']}", f"{one['seconds']:.1f}"]
        for one in _read("bench/annotate.json")["faults"]
    ]
    return table(["client", "replies lost", "seconds"], rows)


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    """Return a Markdown table whose columns after the first are numbers."""
    body = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"| {' | '.join(head)} |\n|---|{'--:|' * (len(head) - 1)}\n{body}"


def _gain(measured: dict[str, Any], scale: float = 1) -> str:
    low, high = measured["interval"]
    return f"{scale * measured['gain']:+.1f} [{scale * low:.1f}, {scale * high:.1f}]"


def _read(name: str) -> Any:
    return read_json(ROOT / "results" / name)


if __name__ == "__main__":
    main()
