"""Write the measured parts of README.md: a real answer as Python output and as a picture, and the scores.

python -m bench.readme          # from the files in results/quickstart
python -m bench.readme --ask    # ask runs/quickstart/model first, and write answer.txt and answer.svg
"""

import argparse
import io
import json
import re
from contextlib import redirect_stdout
from pathlib import Path
from unittest.mock import patch

import yaml
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

RESULTS = Path("results/quickstart")
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
    PICTURE.write_text(svg, encoding="utf-8")  # without the fonts, which it would download


def parts() -> dict[str, str]:
    """Return the parts of the README by the name of their marks."""
    output = (RESULTS / "answer.txt").read_text(encoding="utf-8")
    return {"answer": f"```python\n{CODE}```\n\n```\n{output}```", "scores": scores()}


def scores() -> str:
    """Write the quick-start's gain as a sentence, and its student's zero-shot F1 beside two published rows."""
    ours = json.loads((RESULTS / "zero_shot" / "results.json").read_text(encoding="utf-8"))
    published = yaml.safe_load(Path("zero_shot/published.yaml").read_text(encoding="utf-8"))
    training = json.loads((RESULTS / "training.json").read_text(encoding="utf-8"))
    before, after = (
        json.loads(next(RESULTS.glob(pattern)).read_text(encoding="utf-8"))["benchmarks"]["sample"]
        for pattern in ("models--*.json", "runs--*.json")
    )
    passages, seconds, held_out = training["trained_on"]["conversations"], training["seconds"], after["n_passages"]
    names = published["benchmarks"]
    sets = [ours["benchmarks"][name] for name in names]
    f1 = [100 * scores["official"]["f1"] for scores in (*sets, ours["average"])]
    rows = [("that student", f1)]
    rows += [
        (f"{row['model']}, published", [*row["f1"], row["average"]]) for row in published["rows"] if "shown" in row
    ]
    heads = [name.replace("mit_", "MIT ").replace("crossner_ai", "AI").removeprefix("crossner_") for name in names]
    size = "samples of the test sets" if any(scores["sampled"] for scores in sets) else "whole test sets"
    found = before["official"], after["official"], after["strict"]
    was, now, exact = (f"{100 * part['f1']:.1f}" for part in found)
    return "\n".join(
        [
            f"Watch a real model learn open NER in minutes: {passages} annotated passages and {seconds:.0f} seconds",
            f"on two CPU cores raise SmolLM2-135M's F1 on {held_out} held-out passages of other domains from {was}",
            f"(untuned, it answers in prose) to {now} (exact spans: {exact}).",
            "",
            "That student on the paper's seven sets, zero-shot, beside the paper's own numbers",
            f"({size}, the authors' scorer):",
            "",
            f"| F1, percent | {' | '.join(heads)} | mean |",
            "|---|" + "--:|" * len(f1),
            *(f"| {label} | {' | '.join(f'{value:.1f}' for value in values)} |" for label, values in rows),
        ]
    )


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
