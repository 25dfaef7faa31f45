"""What the scorers give when the gold itself is the prediction, on each benchmark of a suite.

    python bench/scorer.py --data_dir FOLDER [--config recipes/eval/uniner.yaml] [--output results/bench/scorer.json]

1 wherever that is possible; `official` stays below it by the 1e-10 in its ratios, and a gold list that its parser
cannot read (a mention with a `]`) counts as empty on both sides. `unread_gold` counts those lists.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from command_line.recipes import read_recipe  # noqa: E402
from eval_zero_shot import find_benchmark  # noqa: E402
from metrics.entity_f1.entity_f1 import official_counts  # noqa: E402
from open_ner.conversation import read_answer  # noqa: E402
from open_ner.tools.errors import run  # noqa: E402
from zero_shot.scoring import SCORERS, score  # noqa: E402
from zero_shot.suite import Benchmark, SuiteConfig, load_benchmark  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=str(ROOT / "recipes" / "eval" / "uniner.yaml"))
    parser.add_argument("--data_dir", default=".", help="folder the benchmarks' paths start from")
    parser.add_argument("--output", type=Path, help="JSON file of all numbers")
    args = parser.parse_args()
    suite = read_recipe(SuiteConfig, args.config, {"data_dir": args.data_dir})
    results = {name: measure(load_benchmark(find_benchmark(name), suite)) for name in suite.benchmarks}
    for name, row in results.items():
        print(f"{name:<22} " + ", ".join(f"{key} {value}" for key, value in row.items()))
    print(f"{sum(row['queries'] for row in results.values())} queries")
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(results, indent=1) + "\n")


def measure(benchmark: Benchmark) -> dict[str, Any]:
    """Queries, gold lists that the official parser reads otherwise, and the F1 of gold against gold by scorer."""
    lines = [
        {
            "benchmark": benchmark.config.name,
            "passage_id": passage.id,
            "type": query.type,
            "raw": query.gold,
            "gold": query.gold,
            "gold_spans": query.gold_spans,
            "spans": [{"start": start, "end": end} for start, end in query.gold_spans or []],
        }
        for passage in benchmark.passages
        for query in passage.queries
    ]
    unread = sum(bool(read_answer(line["gold"])) and official_counts("[]", line["gold"]).n_gold == 0 for line in lines)
    scores = {scorer: score(lines, scorer) for scorer in SCORERS}
    f1 = {scorer: found and found["f1"] for scorer, found in scores.items()}
    return {"passages": len(benchmark.passages), "queries": len(lines), "unread_gold": unread, **f1}


if __name__ == "__main__":
    run(main)
