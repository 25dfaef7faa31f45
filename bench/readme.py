"""Write the measured parts of README.md: a real answer as Python output and as a picture, and the scores.

python -m bench.readme          # from the files in results/quickstart
python -m bench.readme --ask    # ask runs/quickstart/model first, and write answer.txt and answer.svg
"""

import argparse
import io
import json
import re
import textwrap
from contextlib import redirect_stdout
from pathlib import Path
from statistics import fmean
from unittest.mock import patch

import yaml
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from open_ner.tools.files import read_json

RESULTS = Path("results/quickstart")
LONGER = Path("results/distilled")  # the student that was trained for longer
ANSWERS = Path("results/answers/distilled.json")  # scores of that student in each reading
WIDTH = 125  # characters per line of the README
PICTURE = RESULTS / "figures" / "answer.svg"
CODE = """import open_ner

tagger = open_ner.load("runs/quickstart/model")  # a folder or a Hub id
for entity in tagger("Ada Lovelace met Charles Babbage in London in 1833.", types=["person", "city", "date"]):
    print(entity)
"""
# written for this picture; in neither the training passages nor the benchmarks
TEXT = (
    "Marie Curie shared the 1903 Nobel Prize in Physics with her husband Pierre and with Henri Becquerel. She named "
    "polonium after her native Poland, and during the First World War she drove X-ray vans to field hospitals in "
    "France."
)
TYPES = ["person", "country", "award", "chemical element", "war", "date"]


def ask() -> None:
    """Run CODE and keep its output; show the answer to TEXT as the command line does, and keep the picture."""
    from open_ner.tools import terminal

    names: dict = {}
    with redirect_stdout(io.StringIO()) as output:
        exec(CODE, names)
    (RESULTS / "answer.txt").write_text(output.getvalue(), encoding="utf-8")
    console = Console(record=True, width=100, file=io.StringIO(), markup=False, emoji=False, highlight=False)
    command = f'$ open-ner "$TEXT" --model runs/quickstart/model \\\n    --types "{",".join(TYPES)}"\n'
    console.print(Text(command, "bold"))
    with patch.object(terminal, "Console", lambda **_: console):
        terminal.show(TEXT, names["tagger"](TEXT, types=TYPES))
    svg = re.sub(r"@font-face \{.*?\}\n", "", console.export_svg(title="open-ner", theme=MONOKAI), flags=re.DOTALL)
    PICTURE.write_text(svg, encoding="utf-8")  # without web fonts, which a viewer would download


def parts() -> dict[str, str]:
    """Return the parts of the README by the name of their marks."""
    output = (RESULTS / "answer.txt").read_text(encoding="utf-8")
    return {"answer": f"```python\n{CODE}```\n\n```\n{output}```", "scores": scores(), "longer": longer()}


def scores() -> str:
    """Write the quick-start's gain as a sentence, and the zero-shot F1 of two students beside published rows."""
    files = ["training.json", "zero_shot/results.json", "models--*.json", "runs--*.json"]
    training, ours, before, after = (json.loads(next(RESULTS.glob(file)).read_text("utf-8")) for file in files)
    published = yaml.safe_load(Path("zero_shot/published.yaml").read_text(encoding="utf-8"))
    before, after, names = before["benchmarks"]["sample"], after["benchmarks"]["sample"], published["benchmarks"]
    found = before["official"], after["official"], after["strict"]
    was, now, exact = (f"{100 * part['f1']:.1f}" for part in found)
    size = "samples" if any(ours["benchmarks"][name]["sampled"] for name in names) else "whole test sets"
    rows = {"that student": [100 * ours["benchmarks"][name]["official"]["f1"] for name in names]}
    answers, second = (json.loads(file.read_text("utf-8")) for file in (ANSWERS, LONGER / "training.json"))
    label = f"the same model, {second['seconds'] / 3600:.1f} hours of training on {second['passages']:,} passages"
    rows[label] = [answers["sets"][name]["free"]["official"]["f1"] for name in names]
    rows |= {f"{row['model']}, published": row["f1"] for row in published["rows"] if "shown" in row}
    gain = (
        f"Watch a real model learn open NER in minutes: {training['trained_on']['conversations']} annotated passages "
        f"and {training['seconds']:.0f} seconds of training on two CPU cores raise SmolLM2-135M's F1 on the "
        f"{after['n_passages']} held-out passages of other domains from {was} (untuned, it answers in prose) to {now} "
        f"(types compete; exact spans: {exact}). On the paper's seven zero-shot sets, each type by itself as there:"
    )
    lines = [
        textwrap.fill(gain, WIDTH, break_on_hyphens=False),
        "",
        f"| F1 in percent, {size} | MIT (2) | CrossNER (5) | all seven |",
        "|---|--:|--:|--:|",
    ]
    for label, f1 in rows.items():
        means = [
            fmean(f1[at] for at, name in enumerate(names) if name.startswith(g)) for g in ("mit_", "crossner_", "")
        ]
        lines.append(f"| {label} | {' | '.join(f'{mean:.1f}' for mean in means)} |")
    return "\n".join(lines)


def longer() -> str:
    """Write what the same model gains from more passages, on the reporting half of the development set."""
    rows = read_json(LONGER / "development.json")["students"]
    short, long = (rows[name] for name in ("quickstart", "distilled"))
    before, after = (part["free"]["official"]["f1"] for part in (short, long))
    fitted, hours = long["fitted"]["strict"], long["seconds"] / 3600
    gain = f"{fitted['gain']:+.1f} [{', '.join(f'{bound:.1f}' for bound in fitted['interval'])}]"
    measured = (
        f"The same model, trained for {hours:.1f} hours on {long['passages']:,} real passages of 16 domains, and "
        f"asked sentences of other passages of these domains: official F1 is {after}, and {before} for the "
        f"quick-start's student. If types compete, strict F1 is {fitted['f1']} ({gain} over the quick-start; paired "
        "95 % interval)."
    )
    return textwrap.fill(measured, WIDTH, break_on_hyphens=False)


def main() -> None:
    """Ask the student if told to, and write the parts between their marks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ask", action="store_true", help="ask runs/quickstart/model first")
    if parser.parse_args().ask:
        ask()
    text = Path("README.md").read_text(encoding="utf-8")
    for name, part in parts().items():
        before, begin, rest = text.partition(f"<!-- {name}: begin -->\n")
        _, end, after = rest.partition(f"<!-- {name}: end -->")
        text = f"{before}{begin}{part}\n{end}{after}"
    Path("README.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
