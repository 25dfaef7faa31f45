"""Results as Markdown: the main table, the details, and measured rows beside the published ones."""

from pathlib import Path
from typing import Any

from command_line.recipes import read_yaml
from hub.markdown import escape

from . import calibration, figures
from .paraphrase import paraphrase_table, plot_paraphrases
from .scoring import SCORERS

PARTS = [("all", "all types"), ("seen", "types seen in training"), ("held_out", "held-out types")]
PUBLISHED = Path(__file__).with_name("published.yaml")
Results = dict[str, Any]


def write_report(runs: list[Results], folder: Path) -> str:
    """Write table.md, details.md and the figures of several runs, the first the baseline; returns the main table."""
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
    scored = {run["model"]["id"]: run["calibration"] for run in runs if run.get("calibration")}
    if scored:
        calibration.plot(scored, folder / "figures" / "calibration.png")
    return table


def rows(results: Results) -> list[tuple[str, str, str, str, str]]:
    """`(benchmark, types, official F1, strict F1, parse failures)` for each line of a model's table, F1 in percent."""
    lines = []
    for name, result in results["benchmarks"].items():
        for key, label in PARTS:
            part = result if key == "all" else result.get("by_seen", {}).get(key)
            if part:
                failures = f"{result['parse_failures']} of {result['n_queries']}" if key == "all" else ""
                lines.append((escape(name), label, percent(part["official"]), percent(part["strict"]), failures))
    if average := results.get("average"):
        lines.append(("average", "all types", percent(average.get("official")), percent(average.get("strict")), ""))
    return lines


def percent(scores: dict[str, Any] | None) -> str:
    """F1 in percent with its interval where there is one; a dash where there is no score."""
    if not scores:
        return "-"
    interval = scores.get("interval")
    return f"{100 * scores['f1']:.1f}" + (f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else "")


def markdown_table(runs: list[Results]) -> str:
    """All runs side by side in one Markdown table, and beneath it the gains over the first run."""
    head = "| model | benchmark | types | official F1 [95 %] | strict F1 [95 %] | replies that do not parse |"
    lines = [head, "|---|---|---|--:|--:|--:|"]
    for run in runs:
        lines += [f"| {escape(run['model']['id'])} | " + " | ".join(row) + " |" for row in rows(run)]
    if sampled := samples(runs[0]):
        lines += ["", f"Seeded samples, not whole benchmarks (passages): {sampled}."]
    for run in runs[1:]:
        if not run.get("gains"):
            continue
        lines += ["", f"Gain of {escape(run['model']['id'])} over {escape(runs[0]['model']['id'])} "
                  "(points of F1, paired bootstrap):", ""]  # fmt: skip
        lines += ["| queries: scorer | gain | 95 % interval |", "|---|--:|--:|"]
        for name, gain in run["gains"].items():
            low, high = gain["interval"]
            lines.append(f"| {name} | {100 * gain['gain']:+.1f} | {100 * low:+.1f} to {100 * high:+.1f} |")
    return "\n".join(lines)


def samples(run: Results) -> str:
    """Which benchmarks of a run are samples, and of what size; empty where all are whole."""
    parts = [(name, result["sampled"]) for name, result in run["benchmarks"].items() if result.get("sampled")]
    return ", ".join(f"{escape(name)} {part['passages']} of {part['of']}" for name, part in parts)


def read_published(runs: list[Results]) -> dict[str, Any] | None:
    """The published rows that may stand beside these runs: those of the same suite, protocol and decoding."""
    published = read_yaml(PUBLISHED)
    same = all(run[name] == published[name] for run in runs for name in ("suite", "protocol", "decoding"))
    return published if same else None


def beside_published(runs: list[Results], published: dict[str, Any]) -> str:
    """F1 by benchmark, a row a model: measured here, on a sample or the whole, or published with its source."""
    names = published["benchmarks"]
    lines = ["| model | " + " | ".join(names) + " | average | |", "|---|" + "--:|" * (len(names) + 1) + "---|"]
    for run in runs:
        cells = [run["benchmarks"].get(name) for name in names]
        values = [None if cell is None else 100 * cell["official"]["f1"] for cell in cells]
        mean = sum(values) / len(values) if None not in values else None
        note = "measured here" + (", on samples" if samples(run) else "")
        lines.append(_row(escape(run["model"]["id"]), [*values, mean], note))
    for row in published["rows"]:
        note = f"published, {row['source']}" + (f"; {row['note']}" if row.get("note") else "")
        lines.append(_row(row["model"], [*row["f1"], row.get("average")], note))
    return "\n".join(["Official F1 beside published numbers:", "", *lines])


def details(runs: list[Results]) -> str:
    """Every scorer, every type, the replies that went wrong and what was skipped, run by run."""
    parts = []
    for run in runs:
        parts += [
            f"# {escape(run['model']['id'])}",
            f"Protocol {escape(run['protocol'])}, {run['decoding']} decoding.",
        ]
        if run.get("replies"):
            told = ", ".join(f"{escape(reason)}: {number}" for reason, number in run["replies"].items())
            parts.append(f"Replies that did not end by themselves or did not keep to the question: {told}.")
        parts.append(_scorer_table(run))
        parts += [text for text in (_domain_table(run), paraphrase_table(run)) if text]
        for name, result in run["benchmarks"].items():
            parts.append(f"## {escape(name)}")
            if result.get("skipped"):
                told = ", ".join(f"{escape(reason)}: {number}" for reason, number in result["skipped"].items())
                parts.append(f"Counted while it was read: {told}.")
            if result.get("per_type"):
                parts.append(_type_table(result["per_type"]))
    return "\n\n".join(parts)


def _scorer_table(run: Results) -> str:
    lines = ["| benchmark | scorer | precision | recall | F1 [95 %] | macro F1 | tp | predicted | gold |"]
    lines.append("|---|---|--:|--:|--:|--:|--:|--:|--:|")
    for name, result in run["benchmarks"].items():
        for scorer in SCORERS:
            if found := result.get(scorer):
                ratios = [f"{100 * found[key]:.1f}" for key in ("precision", "recall")]
                macro = f"{100 * found['macro_f1']:.1f}" if "macro_f1" in found else ""
                counts = [f"{found[key]:g}" for key in ("tp", "n_pred", "n_gold")]
                cells = [escape(name), scorer, *ratios, percent(found), macro, *counts]
                lines.append("| " + " | ".join(cells) + " |")
    for scorer, found in (run.get("average") or {}).items():
        lines.append(f"| average | {scorer} | | | {percent(found)} | | | | |")
    return "\n".join(lines)


def _domain_table(run: Results) -> str:
    if not run.get("by_domain"):
        return ""
    lines = ["| domain | scorer | mean F1 [95 %] |", "|---|---|--:|"]
    for domain, scores in run["by_domain"].items():
        lines += [f"| {escape(domain)} | {scorer} | {percent(found)} |" for scorer, found in scores.items()]
    return "\n".join(lines)


def _type_table(per_type: dict[str, Any]) -> str:
    kinds = ("missed", "boundary", "type", "spurious")
    lines = ["| type | official F1 | strict F1 | gold | " + " | ".join(kinds) + " |", "|---|" + "--:|" * 7]
    for name, row in per_type.items():
        scores = [f"{100 * row[scorer]['f1']:.1f}" for scorer in ("official", "strict")]
        wrong = [str(row["errors"].get(kind, "")) for kind in kinds]
        lines.append("| " + " | ".join([escape(name), *scores, f"{row['official']['n_gold']}", *wrong]) + " |")
    return "\n".join(lines)


def _row(model: str, values: list[float | None], note: str) -> str:
    cells = ["" if value is None else f"{value:.1f}" for value in values]
    return f"| {model} | " + " | ".join(cells) + f" | {note} |"
