"""Results as Markdown: the main table, the details, and measured rows beside the published ones."""

from pathlib import Path
from typing import cast

from command_line.recipes import read_yaml
from hub.markdown import escape
from hub.records import SCORERS, MeanScore, RunResults, Scores
from open_ner.tools.errors import UserError
from open_ner.tools.files import write_atomic

from . import figures, reliability
from .records import Published, read_predictions, read_results, scores_of
from .scoring import MAIN, compare

TYPES = {"all": "all types", "seen": "types seen in training", "held_out": "held-out types"}
ERRORS = ("missed", "boundary", "type", "spurious")
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"  # marks in a README
PUBLISHED = Path(__file__).with_name("published.yaml")


def write_report(runs: list[RunResults], folder: Path) -> str:
    """Write table.md, details.md and the figures of several runs, and return the main table.

    The first run is the baseline of the others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table, published = markdown_table(runs), read_published(runs)
    if published:
        table += f"\n\n{beside_published(runs, published)}"
    (folder / "table.md").write_text(table + "\n", encoding="utf-8")
    (folder / "details.md").write_text(details(runs) + "\n", encoding="utf-8")
    figures.plot_f1(runs, folder / "figures" / "f1.png", published)
    figures.plot_errors(runs[-1], folder / "figures" / "errors.png")
    figures.plot_paraphrases(runs, folder / "figures" / "paraphrases.png")
    if len(runs) > 1:
        figures.plot_pair(runs[0], runs[-1], folder / "figures" / "pair.png")
    calibrations = {run["model"]["id"]: run.get("calibration") for run in runs}
    reliability.plot(calibrations, folder / "figures" / "calibration.png")
    return table


def compare_files(files: list[Path], readme: Path | None = None, output_dir: Path | None = None) -> None:
    """Print the table of several results.json files, of which the first is the baseline.

    Args:
        files: gains are computed for those with a predictions.jsonl beside them, if the baseline has one too.
        readme: file with two marks, between which the table is written instead of being printed.
        output_dir: folder that gets tables and figures too.
    """
    runs = [read_results(file) for file in files]
    paths = [file.with_name("predictions.jsonl") for file in files]
    predictions = [read_predictions(path) if path.exists() else [] for path in paths]
    for run, lines in zip(runs[1:], predictions[1:], strict=True):
        if lines and predictions[0]:
            # results.json does not list the types seen in training, so the saved gains on them are kept
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
    write_atomic(readme, f"{text.split(BEGIN)[0]}{BEGIN}\n{table}\n{END}{text.split(END)[1]}")


def markdown_table(runs: list[RunResults]) -> str:
    """Write all runs into one Markdown table, and below it the gains over the first run."""
    lines = _head("model | benchmark | types", "official F1 [95 %] | strict F1 [95 %] | replies that do not parse")
    for run in runs:
        model = escape(run["model"]["id"])
        for name, result in run["benchmarks"].items():
            for types, label in TYPES.items():
                if scores_of(run, name, types, "official"):
                    failures = f"{result['parse_failures']} of {result['n_queries']}" if types == "all" else ""
                    cells = (percent(scores_of(run, name, types, scorer)) for scorer in MAIN)
                    lines.append(_row(model, escape(name), label, *cells, failures))
        if average := run.get("average"):
            lines.append(_row(model, "average", "all types", *(percent(average.get(s)) for s in MAIN), ""))
    if sampled := samples(runs[0]):
        lines += ["", f"Seeded samples, not whole benchmarks (passages): {sampled}."]
    for run in runs[1:]:
        if gains := run.get("gains"):
            models = f"{escape(run['model']['id'])} over {escape(runs[0]['model']['id'])}"
            lines += ["", f"Gain of {models} (points of F1, paired bootstrap):", ""]
            lines += _head("queries: scorer", "gain | 95 % interval")
            for name, gain in gains.items():
                low, high = gain["interval"]
                lines.append(_row(name, f"{100 * gain['gain']:+.1f}", f"{100 * low:+.1f} to {100 * high:+.1f}"))
    return "\n".join(lines)


def percent(scores: Scores | MeanScore | None) -> str:
    """Write F1 in percent, with its interval if there is one; a dash if there is no score."""
    if not scores:
        return "-"
    interval = scores.get("interval")
    return f"{100 * scores['f1']:.1f}" + (f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else "")


def samples(run: RunResults) -> str:
    """List the benchmarks of a run that are samples, with their sizes; empty if all are whole."""
    parts = [(name, result.get("sampled")) for name, result in run["benchmarks"].items()]
    return ", ".join(f"{escape(name)} {part['passages']} of {part['of']}" for name, part in parts if part)


def read_published(runs: list[RunResults]) -> Published | None:
    """Read the published rows if they are of the same suite, protocol and decoding as all runs."""
    published = cast(Published, read_yaml(PUBLISHED))
    same = all(run[name] == published[name] for run in runs for name in ("suite", "protocol", "decoding"))
    return published if same else None


def beside_published(runs: list[RunResults], published: Published) -> str:
    """Write F1 by benchmark, a row for each model, measured here or published with its source."""
    names = published["benchmarks"]
    lines = ["| model | " + " | ".join(names) + " | average | |", "|---|" + "--:|" * (len(names) + 1) + "---|"]
    rows: list[tuple[str, list[float | None], str]] = []
    for run in runs:
        found = [100 * scores["f1"] if (scores := scores_of(run, name, "all", "official")) else None for name in names]
        known = [value for value in found if value is not None]
        mean = sum(known) / len(known) if len(known) == len(names) else None
        note = "measured here" + (", on samples" if samples(run) else "")
        rows.append((escape(run["model"]["id"]), [*found, mean], note))
    for row in published["rows"]:
        note = f"published, {row['source']}" + (f"; {row['note']}" if "note" in row else "")
        rows.append((row["model"], [*row["f1"], row.get("average")], note))
    lines += [_row(m, *("" if value is None else f"{value:.1f}" for value in f1), note) for m, f1, note in rows]
    return "\n".join(["Official F1 beside published numbers:", "", *lines])


def details(runs: list[RunResults]) -> str:
    """Write every scorer, every type, the replies that went wrong and the rejects, run by run."""
    parts = []
    for run in runs:
        parts.append(f"# {escape(run['model']['id'])}")
        parts.append(f"Protocol {escape(run['protocol'])}, {run['decoding']} decoding.")
        if replies := run.get("replies"):
            parts.append(f"Replies that were incomplete or did not answer the question: {_counts(replies)}.")
        lines = _head("benchmark | scorer", "precision | recall | F1 [95 %] | macro F1 | tp | predicted | gold")
        for name, result in run["benchmarks"].items():
            for scorer in SCORERS:
                if found := result.get(scorer):
                    ratios = [f"{100 * found[key]:.1f}" for key in ("precision", "recall")]
                    macro = f"{100 * found['macro_f1']:.1f}" if "macro_f1" in found else ""
                    counts = [f"{found[key]:g}" for key in ("tp", "n_pred", "n_gold")]
                    lines.append(_row(escape(name), scorer, *ratios, percent(found), macro, *counts))
        for scorer, mean in (run.get("average") or {}).items():
            lines.append(f"| average | {scorer} | | | {percent(mean)} | | | | |")
        parts.append("\n".join(lines))
        if domains := run.get("by_domain"):
            lines = _head("domain | scorer", "mean F1 [95 %]")
            for domain, scores in domains.items():
                lines += [_row(escape(domain), scorer, percent(found)) for scorer, found in scores.items()]
            parts.append("\n".join(lines))
        if robustness := paraphrase_table(run):
            parts.append(robustness)
        for name, result in run["benchmarks"].items():
            parts.append(f"## {escape(name)}")
            if rejects := result.get("skipped"):
                parts.append(f"Counted while it was read: {_counts(rejects)}.")
            if types := result.get("per_type"):
                lines = _head("type", "official F1 | strict F1 | gold | " + " | ".join(ERRORS))
                for kind, row in types.items():
                    f1 = [f"{100 * row[scorer]['f1']:.1f}" for scorer in MAIN]
                    wrong = [str(row["errors"].get(error, "")) for error in ERRORS]
                    lines.append(_row(escape(kind), *f1, f"{row['official']['n_gold']}", *wrong))
                parts.append("\n".join(lines))
    return "\n\n".join(parts)


def paraphrase_table(run: RunResults) -> str:
    """Write F1 by the wording of the types in Markdown, a row for each benchmark; empty without other wordings."""
    rows = []
    asked = {name: result["paraphrases"] for name, result in run["benchmarks"].items() if "paraphrases" in result}
    for name, found in asked.items():
        for scorer in MAIN:
            if spread := found["spread"][scorer]:
                spreads = {
                    kind: row["spread"][scorer] or {"max": 0.0, "min": 0.0} for kind, row in found["types"].items()
                }
                widest = max(spreads, key=lambda kind: spreads[kind]["max"] - spreads[kind]["min"])
                numbers = [found["wordings"][0][scorer]["f1"], *spread.values()]
                rows.append(_row(escape(name), scorer, *(f"{100 * number:.1f}" for number in numbers), escape(widest)))
    if not rows:
        return ""
    head = [
        "| benchmark | scorer | own name | mean | std | least | most | widest type |",
        f"|---|---|{'--:|' * 5}---|",
    ]
    return "\n".join([f"F1 of {escape(run['model']['id'])} by the wording of the types:", "", *head, *rows])


def _head(names: str, numbers: str) -> list[str]:
    """Write the first two lines of a table: columns of names, then right-aligned columns of numbers."""
    rule = "---|" * (names.count("|") + 1) + "--:|" * (numbers.count("|") + 1)
    return [f"| {names} | {numbers} |", f"|{rule}"]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{escape(reason)}: {number}" for reason, number in counts.items())
