"""Results as Markdown tables: scores of runs, beside published ones, and their calibration."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import cast

from command_line.recipes import read_yaml

from .markdown import escape
from .records import MAIN, MeanScore, Published, RunResults, Scores, scores_of

COVERAGES = (0.25, 0.5, 0.75, 1.0)  # shares of the spans with the highest scores
TYPES = {"all": "all types", "seen": "types seen in training", "held_out": "held-out types"}
PUBLISHED = Path(__file__).parent.parent / "zero_shot" / "published.yaml"


def markdown_table(runs: list[RunResults]) -> str:
    """Write all runs into one Markdown table, and below it the gains over the first run."""
    lines = table_head(
        "model | benchmark | types", "official F1 [95 %] | strict F1 [95 %] | answers that do not parse"
    )
    for run in runs:
        model = escape(run_label(run, runs))
        for name, result in run["benchmarks"].items():
            for types, label in TYPES.items():
                if scores_of(run, name, types, "official"):
                    failures = f"{result['parse_failures']} of {result['n_queries']}" if types == "all" else ""
                    cells = (percent(scores_of(run, name, types, scorer)) for scorer in MAIN)
                    lines.append(table_row(model, escape(name), label, *cells, failures))
        if average := run.get("average"):
            lines.append(table_row(model, "average", "all types", *(percent(average.get(s)) for s in MAIN), ""))
    sampled = [(f" of {escape(run_label(run, runs))}", samples(run)) for run in runs]
    if len({names for _, names in sampled}) == 1:  # all runs have the same samples
        sampled = [("", sampled[0][1])]
    for whose, names in sampled:
        if names:
            lines += ["", f"Seeded samples{whose}, not whole benchmarks (passages): {names}."]
    for run in runs[1:]:
        if gains := run.get("gains"):
            models = f"{escape(run_label(run, runs))} over {escape(run_label(runs[0], runs))}"
            lines += ["", f"Gain of {models} (points of F1, paired bootstrap):", ""]
            lines += table_head("queries: scorer", "gain | 95 % interval")
            for name, gain in gains.items():
                low, high = gain["interval"]
                lines.append(table_row(name, f"{100 * gain['gain']:+.1f}", f"{100 * low:+.1f} to {100 * high:+.1f}"))
    return "\n".join(lines)


def run_label(run: RunResults, runs: list[RunResults]) -> str:
    """Return a run's name in a table: its model, and what sets it apart from the others.

    This is its protocol and its decoding if they are not those of all. If others have the same name, it is how the
    model was asked, if they were asked in another way, and the revision of its weights, if they have other ones.
    Parameters and revisions that are not known, as in older files and of endpoints, are not compared.
    """
    model = run["model"]
    apart = [f"{name} {run[name]}" for name in ("protocol", "decoding") if len({each[name] for each in runs}) > 1]
    namesakes = [each["model"] for each in runs if each["model"]["id"] == model["id"]]
    for name in ("baseline", "base_url"):
        if model.get(name) and any(other.get(name) != model.get(name) for other in namesakes):
            apart.append(f"{name} {model.get(name)}")
    if (given := model.get("parameters")) and any(other.get("parameters", given) != given for other in namesakes):
        apart.append(f"parameters {json.dumps(given)}")
    if (own := model.get("revision")) and any((other.get("revision") or own) != own for other in namesakes):
        apart.append(f"revision {own[:8]}")
    return model["id"] + (f" ({', '.join(apart)})" if apart else "")


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
        rows.append((escape(run_label(run, runs)), [*found, mean], note))
    for row in published["rows"]:
        note = f"published, {row['source']}" + (f"; {row['note']}" if "note" in row else "")
        rows.append((row["model"], [*row["f1"], row.get("average")], note))
    lines += [table_row(m, *("" if value is None else f"{value:.1f}" for value in f1), note) for m, f1, note in rows]
    return "\n".join(["Official F1 beside published numbers:", "", *lines])


def table_head(names: str, numbers: str) -> list[str]:
    """Write the first two lines of a table: columns of names, then right-aligned columns of numbers."""
    rule = "---|" * (names.count("|") + 1) + "--:|" * (numbers.count("|") + 1)
    return [f"| {names} | {numbers} |", f"|{rule}"]


def table_row(*cells: str) -> str:
    """Write a row of a table; the cells are escaped already."""
    return f"| {' | '.join(cells)} |"


def suite_section(run: RunResults, reference: RunResults | None) -> str:
    """Write the results of one run under a heading, beside those of its reference and the published ones."""
    runs = [reference, run] if reference else [run]
    parts = [
        f"### {escape(run['suite'])}, protocol {escape(run['protocol'])}, {escape(run['decoding'])} decoding",
        markdown_table(runs),
        f"Measured on: {escape(run['hardware'])}.",
    ]
    if published := read_published(runs):
        parts.append(beside_published(runs, published))
    return "\n\n".join(parts)


def calibration_table(runs: list[RunResults]) -> str:
    """Write calibration error and risk by coverage of each run that has scores; empty without such a run."""
    shares = [f"surest {share:.0%}" for share in COVERAGES[:-1]] + ["all"]
    lines = table_head("suite | decoding", " | ".join(["spans", "ECE", "ECE, calibrated", *shares]))
    for run in runs:
        if found := run.get("calibration"):
            points = found["risk_coverage"]
            risks = [next((p["risk"] for p in points if p["coverage"] >= share), None) for share in COVERAGES]
            shown = [*(found[part]["ece"] for part in ("raw", "calibrated")), *risks]
            cells = ("" if value is None else f"{100 * value:.1f}" for value in shown)
            lines.append(table_row(escape(run["suite"]), escape(run["decoding"]), f"{found['n_spans']:,}", *cells))
    return "\n".join(lines) if len(lines) > 2 else ""


def seen_types_table(runs: list[RunResults], trained: Collection[str]) -> str:
    """Write how many types of each benchmark were seen in training; empty if that is not known."""
    known = {name.lower() for name in trained}
    lines = table_head("benchmark", "types | seen in training")
    asked = {name: part.get("per_type") for run in runs for name, part in run["benchmarks"].items()}
    for name, types in asked.items():
        if types and known:
            lines.append(table_row(escape(name), f"{len(types)}", f"{sum(kind.lower() in known for kind in types)}"))
    return "\n".join(lines) if len(lines) > 2 else ""
