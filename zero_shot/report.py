"""Results as Markdown: the main table, the details, and measured rows beside the published ones."""

from pathlib import Path

from hub.markdown import escape
from hub.records import MAIN, SCORERS, RunResults, Scorer
from hub.results_tables import (
    beside_published,
    markdown_table,
    percent,
    read_published,
    run_label,
    table_head,
    table_row,
)
from open_ner.tools.errors import UserError
from open_ner.tools.files import write_atomic

from . import figures, reliability
from .records import read_predictions, read_results
from .scoring import compare

ERRORS = ("missed", "boundary", "type", "spurious")
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"  # marks in a README


def write_report(runs: list[RunResults], folder: Path) -> str:
    """Write table.md, details.md and the figures of several runs, and return the main table.

    The first run is the reference of the others.
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
    calibrations = [(run_label(run, runs), run.get("calibration")) for run in runs]
    reliability.plot(calibrations, folder / "figures" / "calibration.png")
    return table


def compare_files(files: list[Path], readme: Path | None = None, output_dir: Path | None = None) -> None:
    """Print the table of several results.json files.

    Args:
        files: the first is the reference. Saved gains are shown if they were measured against this reference; others
            are computed if both files have a predictions.jsonl beside them. A run that differs from the reference in
            protocol, decoding, or the content or sample of a benchmark has no gain, and a line says why.
        readme: file with a begin and an end mark; the table is written between them instead of being printed.
        output_dir: folder to write tables and figures to.
    """
    runs = [read_results(file) for file in files]
    before, after = around_the_table(readme) if readme else ("", "")
    paths = [file.with_name("predictions.jsonl") for file in files]
    predictions = [read_predictions(path) if path.exists() else [] for path in paths]
    for run, lines in zip(runs[1:], predictions[1:], strict=True):
        if reasons := why_not_comparable(run, runs[0]):
            names = f"{run_label(run, runs)} over {run_label(runs[0], runs)}"
            print(f"the gain of {names} is left out: {'; '.join(reasons)}")
            run.pop("gains", None)
        elif has_gains_over(run, runs[0]):
            continue  # with those on types seen in training, which results.json does not list
        elif lines and predictions[0]:
            run["gains"] = compare(lines, predictions[0], None, run["seed"])
        else:
            run.pop("gains", None)
    table = f"{markdown_table(runs)}\n\nMeasured on: {runs[0]['hardware']}."
    if published := read_published(runs):
        table = f"{beside_published(runs, published)}\n\n{table}"
    if output_dir:
        write_report(runs, output_dir)
        print(f"tables and figures: {output_dir}")
    if readme is None:
        print(table)
        return
    write_atomic(readme, f"{before}{BEGIN}\n{table}\n{END}{after}")


def why_not_comparable(run: RunResults, reference: RunResults) -> list[str]:
    """Say in what the questions of two runs differ: protocol, decoding, or content or sample of a benchmark of both.

    A gain over the passages of both samples would not be the difference of the F1 in the table.
    """

    def digest(results: RunResults, name: str) -> str:
        # what follows the + is about other wordings, which gains do not cover; an older file has no digest
        given = results["benchmarks"][name].get("dataset", {}).get("digest") or "unknown"
        return given.partition("+")[0]

    def passages(results: RunResults, name: str) -> str:
        sample = results["benchmarks"][name].get("sampled")
        return f"{sample['passages']} passages (seed {sample['seed']})" if sample else "all passages"

    options = [name for name in ("protocol", "decoding") if run[name] != reference[name]]
    shared = [name for name in run["benchmarks"] if name in reference["benchmarks"]]
    changed = [(name, digest(run, name), digest(reference, name)) for name in shared]
    sampled = [(name, passages(run, name), passages(reference, name)) for name in shared]
    return [
        *(f"{name} {run[name]}, not {reference[name]}" for name in options),
        *(f"{name} has other content (digest {new}, not {old})" for name, new, old in changed if new != old),
        *(f"{name} was asked on {new}, not on {old}" for name, new, old in sampled if new != old),
    ]


def has_gains_over(run: RunResults, reference: RunResults) -> bool:
    """Whether a run has saved gains over this reference: each then equals the difference in F1."""

    def pooled_f1(results: RunResults, scorer: Scorer) -> float:
        found = [part for result in results["benchmarks"].values() if (part := result.get(scorer))]
        total = sum(part["n_pred"] + part["n_gold"] for part in found)
        return 2 * sum(part["tp"] for part in found) / total if total else 0.0

    gains = run.get("gains", {})
    return "all: official" in gains and all(
        abs(gain["gain"] - (pooled_f1(run, scorer) - pooled_f1(reference, scorer))) < 1e-6
        for scorer in MAIN
        if (gain := gains.get(f"all: {scorer}"))
    )


def around_the_table(readme: Path) -> tuple[str, str]:
    """Return a file's text before and after its marks; raise UserError unless it has each mark once, in order."""
    try:
        text = readme.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--readme {readme} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    if (text.count(BEGIN), text.count(END), rest.count(END)) != (1, 1, 1):
        raise UserError(f"--readme {readme}: write the marks {BEGIN} and {END} once each, in this order")
    return before, after


def details(runs: list[RunResults]) -> str:
    """Return Markdown with the scores of every scorer and type, failed replies and rejects, run by run."""
    parts = []
    for run in runs:
        parts.append(f"# {escape(run_label(run, runs))}")
        parts.append(f"Protocol {escape(run['protocol'])}, {run['decoding']} decoding.")
        if replies := run.get("replies"):
            parts.append(f"Replies that were incomplete or did not answer the question: {_counts(replies)}.")
        lines = table_head("benchmark | scorer", "precision | recall | F1 [95 %] | macro F1 | tp | predicted | gold")
        for name, result in run["benchmarks"].items():
            for scorer in SCORERS:
                if found := result.get(scorer):
                    ratios = [f"{100 * found[key]:.1f}" for key in ("precision", "recall")]
                    macro = f"{100 * found['macro_f1']:.1f}" if "macro_f1" in found else ""
                    counts = [f"{found[key]:g}" for key in ("tp", "n_pred", "n_gold")]
                    lines.append(table_row(escape(name), scorer, *ratios, percent(found), macro, *counts))
        for scorer, mean in (run.get("average") or {}).items():
            lines.append(f"| average | {scorer} | | | {percent(mean)} | | | | |")
        parts.append("\n".join(lines))
        if domains := run.get("by_domain"):
            lines = table_head("domain | scorer", "mean F1 [95 %]")
            for domain, scores in domains.items():
                lines += [table_row(escape(domain), scorer, percent(found)) for scorer, found in scores.items()]
            parts.append("\n".join(lines))
        if robustness := paraphrase_table(run):
            parts.append(robustness)
        for name, result in run["benchmarks"].items():
            parts.append(f"## {escape(name)}")
            if rejects := result.get("skipped"):
                parts.append(f"Counted while it was read: {_counts(rejects)}.")
            if types := result.get("per_type"):
                lines = table_head("type", "official F1 | strict F1 | gold | " + " | ".join(ERRORS))
                for kind, row in types.items():
                    f1 = [f"{100 * row[scorer]['f1']:.1f}" for scorer in MAIN]
                    wrong = [str(row["errors"].get(error, "")) for error in ERRORS]
                    lines.append(table_row(escape(kind), *f1, f"{row['official']['n_gold']}", *wrong))
                parts.append("\n".join(lines))
    return "\n\n".join(parts)


def paraphrase_table(run: RunResults) -> str:
    """Return a Markdown table of F1 by wording, one row per benchmark and scorer; empty without other wordings."""
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
                rows.append(
                    table_row(escape(name), scorer, *(f"{100 * number:.1f}" for number in numbers), escape(widest))
                )
    if not rows:
        return ""
    head = [
        "| benchmark | scorer | own name | mean | std | least | most | widest type |",
        f"|---|---|{'--:|' * 5}---|",
    ]
    return "\n".join([f"F1 of {escape(run['model']['id'])} by the wording of the types:", "", *head, *rows])


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{escape(reason)}: {number}" for reason, number in counts.items())
