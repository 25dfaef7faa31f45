"""`eval_zero_shot.py --compare`: results.json files of several runs side by side."""

import json
from pathlib import Path
from typing import Any

from open_ner.tools.errors import UserError

from .report import beside_published, markdown_table, read_published, write_report
from .scoring import compare

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def compare_files(files: list[Path], readme: Path | None = None, output_dir: Path | None = None) -> None:
    """Print the table of several results.json files, the first the baseline; or write it into a README's marks.

    Gains are computed anew where the predictions lie beside both files. `output_dir` gets tables and figures too.
    """
    try:
        runs = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        predictions = [_predictions(file) for file in files]
        for run, lines in zip(runs[1:], predictions[1:], strict=True):
            if lines and predictions[0]:
                seen = None  # results hold no vocabulary: the gains that were computed with it stay
                run["gains"] = {**compare(lines, predictions[0], seen, run["seed"]), **run.get("gains", {})}
        table = f"{markdown_table(runs)}\n\nMeasured on: {runs[0]['hardware']}."
        if published := read_published(runs):
            table = f"{beside_published(runs, published)}\n\n{table}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        names = ", ".join(str(file) for file in files)
        raise UserError(f"--compare wants results.json files of this program, not {names} ({error!r:.150})") from None
    if output_dir:
        write_report(runs, output_dir)
        print(f"tables and figures: {output_dir}")
    if readme is None:
        print(table)
        return
    text = readme.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise UserError(f"{readme}: the marks {BEGIN} and {END} are missing")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    readme.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


def _predictions(results: Path) -> list[dict[str, Any]]:
    path = results.with_name("predictions.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
