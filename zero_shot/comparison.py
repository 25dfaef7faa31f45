"""`eval_zero_shot.py --compare`: results.json files of several runs side by side."""

from pathlib import Path

from open_ner.tools.errors import UserError
from open_ner.tools.files import write_atomic

from .records import read_predictions, read_results
from .report import beside_published, markdown_table, read_published, write_report
from .scoring import compare

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def compare_files(files: list[Path], readme: Path | None = None, output_dir: Path | None = None) -> None:
    """Print the table of several results.json files, the first being the baseline.

    Gains are computed for every run whose predictions.jsonl is beside its results.json, as is the baseline's. With
    `readme`, the table is written between the marks of that file instead; `output_dir` gets tables and figures too.
    """
    runs = [read_results(file) for file in files]
    paths = [file.with_name("predictions.jsonl") for file in files]
    predictions = [read_predictions(path) if path.exists() else [] for path in paths]
    for run, lines in zip(runs[1:], predictions[1:], strict=True):
        if lines and predictions[0]:
            # the file does not hold the types seen in training: gains that were computed with them are kept
            run["gains"] = {**compare(lines, predictions[0], None, run["seed"]), **run.get("gains", {})}
    table = f"{markdown_table(runs)}\n\nMeasured on: {runs[0]['hardware']}."
    if published := read_published(runs):
        table = f"{beside_published(runs, published)}\n\n{table}"
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
    write_atomic(readme, f"{before}{BEGIN}\n{table}\n{END}{after}")
