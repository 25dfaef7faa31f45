"""Results as Markdown: the main table, the details, and measured rows beside the published ones."""

from pathlib import Path
from typing import cast

from command_line.recipes import read_yaml
from hub.markdown import escape
from hub.records import SCORERS, MeanScore, RunResults, Scores, TypeResult

from . import figures, reliability
from .paraphrase import paraphrase_table, plot_paraphrases
from .records import Published, scores_of
from .scoring import MAIN

TYPES = {"all": "all types", "seen": "types seen in training", "held_out": "held-out types"}
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
    plot_paraphrases(runs, folder / "figures" / "paraphrases.png")
    if len(runs) > 1:
        figures.plot_pair(runs[0], runs[-1], folder / "figures" / "pair.png")
    scored = {run["model"]["id"]: found for run in runs if (found := run.get("calibration"))}
    if scored:
        reliability.plot(scored, folder / "figures" / "calibration.png")
    return table


def markdown_table(runs: list[RunResults]) -> str:
    """Write all runs into one Markdown table, and below it the gains over the first run."""
    lines = _head("model | benchmark | types", "official F1 [95 %] | strict F1 [95 %] | replies that do not parse")
    for run in runs:
        model = escape(run["model"]["id"])
        for name, result in run["benchmarks"].items():
            for types, label in TYPES.items():
                if part := scores_of(result, types):
                    failures = f"{result['parse_failures']} of {result['n_queries']}" if types == "all" else ""
                    lines.append(_row(model, escape(name), label, *(percent(part[s]) for s in MAIN), failures))
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
        measured = {name: result["official"] for name, result in run["benchmarks"].items()}
        found = [100 * scores["f1"] if (scores := measured.get(name)) else None for name in names]
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
        parts.append(_scorer_table(run))
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
                parts.append(_type_table(types))
    return "\n\n".join(parts)


def _scorer_table(run: RunResults) -> str:
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
    return "\n".join(lines)


def _type_table(per_type: dict[str, TypeResult]) -> str:
    kinds = ("missed", "boundary", "type", "spurious")
    lines = _head("type", "official F1 | strict F1 | gold | " + " | ".join(kinds))
    for name, row in per_type.items():
        scores = [f"{100 * row[scorer]['f1']:.1f}" for scorer in MAIN]
        wrong = [str(row["errors"].get(kind, "")) for kind in kinds]
        lines.append(_row(escape(name), *scores, f"{row['official']['n_gold']}", *wrong))
    return "\n".join(lines)


def _head(names: str, numbers: str) -> list[str]:
    """Write the first two lines of a table: columns of names, then right-aligned columns of numbers."""
    rule = "---|" * (names.count("|") + 1) + "--:|" * (numbers.count("|") + 1)
    return [f"| {names} | {numbers} |", f"|{rule}"]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{escape(reason)}: {number}" for reason, number in counts.items())
