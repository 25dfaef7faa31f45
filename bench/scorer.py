"""Score the gold answers against themselves, on each benchmark of a suite.

    python bench/scorer.py --data_dir FOLDER [--config recipes/eval/uniner.yaml] [--output results/bench/scorer.json]

Every score is 1, with two exceptions: `official` adds 1e-10 to every denominator, and its parser reads a gold list as
empty if a mention contains `]`. `unread_gold` counts those lists.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from bench.parts.provenance import provenance  # noqa: E402
from command_line.recipes import read_recipe  # noqa: E402
from hub.records import SCORERS  # noqa: E402
from metrics.entity_f1.entity_f1 import official_counts  # noqa: E402
from ner_sets.benchmarks import find_benchmark  # noqa: E402
from open_ner.conversation import read_answer  # noqa: E402
from open_ner.tools.errors import run  # noqa: E402
from open_ner.tools.files import write_json  # noqa: E402
from zero_shot.records import PredictedSpan, PredictionLine, make_line  # noqa: E402
from zero_shot.scoring import score  # noqa: E402
from zero_shot.suite import Benchmark, SuiteConfig, load_benchmark  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=str(ROOT / "recipes" / "eval" / "uniner.yaml"))
    parser.add_argument("--data_dir", default=".", help="folder that the benchmarks' paths are relative to")
    parser.add_argument("--output", type=Path, help="JSON file of all numbers")
    args = parser.parse_args()
    suite = read_recipe(SuiteConfig, args.config, {"data_dir": args.data_dir})
    benchmarks = {name: load_benchmark(find_benchmark(name), suite) for name in suite.benchmarks}
    results = {name: measure(benchmark) for name, benchmark in benchmarks.items()}
    for name, row in results.items():
        print(f"{name:<22} " + ", ".join(f"{key} {value}" for key, value in row.items()))
    print(f"{sum(row['queries'] or 0 for row in results.values())} queries")
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        sources = [Path(args.data_dir) / benchmark.config.path for benchmark in benchmarks.values()]
        local = [path for path in sources if path.is_file()]  # the others are on the Hub
        write_json(args.output, {**provenance(*local), "sets": results})


def measure(benchmark: Benchmark) -> dict[str, float | None]:
    """Return the numbers of one benchmark: its size, the gold lists read as empty, and F1 by scorer."""
    lines: list[PredictionLine] = []
    for passage in benchmark.passages:
        for query in passage.queries:
            spans: list[PredictedSpan] = [{"start": a, "end": b, "score": None} for a, b in query.gold_spans or []]
            lines.append(make_line(benchmark.config.name, passage, query, query.gold, spans))
    unread = sum(bool(read_answer(line["gold"])) and official_counts("[]", line["gold"]).n_gold == 0 for line in lines)
    scores = {scorer: score(lines, scorer) for scorer in SCORERS}
    f1 = {scorer: found and found["f1"] for scorer, found in scores.items()}
    return {"passages": len(benchmark.passages), "queries": len(lines), "unread_gold": unread, **f1}


if __name__ == "__main__":
    run(main)
