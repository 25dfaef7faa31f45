"""Train students that differ from another in one factor, and compare them on the development set.

    python bench/ablations.py --data DISTILLED --dev DEV_CLOSED [--arms start negatives_4 ...]

DISTILLED has passages.jsonl.gz and answers.jsonl.gz (recorded teacher replies); DEV_CLOSED has sentences.jsonl.gz,
the development set. Passages of the development set, by id or by text, are never trained on. An arm trains on about as
many tokens as the arm that it changes, and is asked sentences of the choosing half. It is kept if the paired 95 %
interval of its gain excludes 0; bf16 is kept for its speed, because its interval contains 0. The steps are those of
bench/parts/steps.py: the same command goes on after an interruption. The table is written to results/ablations, where
arms that this machine has not trained keep their rows.
"""

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from bench.answers import compare, passage_of  # noqa: E402
from bench.parts import steps  # noqa: E402
from bench.parts.provenance import provenance  # noqa: E402
from command_line.plotting import BLUE, GREY, ORANGE, new_figure, save  # noqa: E402
from open_ner.selection import Selection  # noqa: E402
from open_ner.tools.errors import run  # noqa: E402
from open_ner.tools.files import read_json, write_json  # noqa: E402
from zero_shot.calibration import cross_fitted, flatten  # noqa: E402
from zero_shot.records import read_predictions  # noqa: E402

RECIPE = "recipes/sft/smollm2_135m/cpu.yaml"
WORK, RESULTS = Path("runs/ablations"), Path("results/ablations")  # relative, as they are shown in cards and results
Options = dict[str, object]


@dataclass
class Arm:
    """What an arm changes in the arm `base`."""

    base: str
    build: Options = field(default_factory=dict)  # of the build recipe's section `dataset`
    train: Options = field(default_factory=dict)  # of train_sft.py
    tokens: int | None = None  # to train on; None: as many as `base`


ARMS = {
    # 10 queries of a passage, as many absent as present
    "start": Arm(
        "",
        {"negative_ratio": 1.0, "max_queries": 10},
        {"learning_rate": 1.5e-4, "seed": 42, "bf16": False},
        tokens=400_000,
    ),
    "negatives_4": Arm("start", {"negative_ratio": 4.0}),
    # bfloat16 is 1.4 times as fast where the hardware has it (results/bench/bf16.json)
    "bf16": Arm("negatives_4", train={"bf16": True}),
    "rate_4e-4": Arm("bf16", train={"learning_rate": 4e-4}),
    "negatives_source": Arm("bf16", {"negatives": "source"}),
    # with a third of the tokens: claims of the paper, and factors that there was no time to test with all of them
    "frequency": Arm("negatives_4", tokens=130_000),
    "negatives_uniform": Arm("frequency", {"negatives": "uniform"}),
    "negatives_none": Arm("frequency", {"negatives": "none"}),
    "multi_turn": Arm("frequency", train={"branches": False}),
    "queries_20": Arm("frequency", {"max_queries": 20}),
    "queries_6": Arm("frequency", {"max_queries": 6}),
    "queries_all": Arm("frequency", {"max_queries": None}),
    "seed_7": Arm("frequency", {"seed": 7}, {"seed": 7}),
    "negatives_1_seed_7": Arm("seed_7", {"negative_ratio": 1.0}),  # the largest gain once more, with another seed
    "rate_5e-5": Arm("frequency", train={"learning_rate": 5e-5}),
    "negatives_2": Arm("frequency", {"negative_ratio": 2.0}),
    "negatives_half": Arm("frequency", {"negative_ratio": 0.5}),
}


def options(name: str) -> tuple[Options, Options, int]:
    """Return all options of an arm, of the build and of the training, and the tokens to train on."""
    arm = ARMS[name]
    build, train, tokens = options(arm.base) if arm.base else ({}, {}, 0)
    return build | arm.build, train | arm.train, arm.tokens or tokens


def main() -> None:
    """Build, train and ask every arm, then compare those that are finished."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # the commands run in the project's root, so paths of data are made absolute
    parser.add_argument("--data", type=lambda path: Path(path).resolve(), required=True)
    parser.add_argument("--dev", type=lambda path: Path(path).resolve(), required=True)
    parser.add_argument("--arms", nargs="*", choices=ARMS, default=list(ARMS), help="default: all, in this order")
    parser.add_argument("--sentences", type=int, default=400, help="seeded sample of the choosing half's sentences")
    args = parser.parse_args()
    passages = WORK / "passages.jsonl"
    if not (ROOT / passages).exists():
        steps.write_passages(args.data / "passages.jsonl.gz", args.dev / "passages.jsonl.gz", ROOT / passages)
    steps.write_choosing_half(args.dev / "sentences.jsonl.gz", ROOT / WORK / "dev" / "sentences.jsonl.gz")
    for name in args.arms:
        for_build, for_training, tokens = options(name)
        dataset = steps.build(WORK / name / "data", passages, {"type": args.data / "answers.jsonl.gz"}, for_build)
        for_training = {**for_training, "max_conversations": steps.count_conversations(dataset, tokens)}
        model = steps.train(WORK / name / "model", RECIPE, dataset, for_training)
        steps.evaluate(
            model, WORK / name / "on_dev", "recipes/eval/dev_closed.yaml", "--data_dir", WORK / "dev",
            "--benchmarks", "[dev_closed_sentences]", "--limit", args.sentences,
        )  # fmt: skip
        report(steps.sources(args.data, args.dev))


def predictions(arm: str) -> Path | None:
    """Return the predictions of an arm, or None if it is not finished."""
    return steps.predictions(WORK / arm / "model", WORK / arm / "on_dev")


def report(sources: list[Path]) -> None:
    """Compare the finished arms with the arms that they change; write arms.json, table.md and the figure.

    Args:
        sources: files of the data, whose hash is written.
    """
    files = {name: file for name in ARMS if (file := predictions(name))}
    lines = {name: read_predictions(file) for name, file in files.items()}
    ways = {
        "free": lines,  # each type by itself, as in published rows
        "flat": {name: flatten(own, Selection(), None) for name, own in lines.items()},
        "fitted": {name: cross_fitted(own, passage_of) for name, own in lines.items()},
    }
    known = {}
    if (ROOT / RESULTS / "arms.json").exists():
        known = read_json(ROOT / RESULTS / "arms.json")
    trained = {name: read_training(name) for name in files}
    for name, training in trained.items():
        base = ARMS[name].base or name
        if base not in trained:
            if name in known:
                continue  # its row was measured where its base was trained too
            base = name
        elif base != name and all(training[key] == trained[base][key] for key in ("options", "trained_on")):
            continue  # bf16, on a machine that trains in float32
        known[name] = {
            **provenance(*sources), "base": base, **training["options"],
            "trained_on": training["trained_on"], "seconds": training["seconds"],
            **{way: compare({one: by_arm[one] for one in (base, name)}, base)[name] for way, by_arm in ways.items()},
        }  # fmt: skip
    rows = {name: known[name] for name in ARMS if name in known}
    if not rows:
        return
    (ROOT / RESULTS).mkdir(parents=True, exist_ok=True)
    write_json(ROOT / RESULTS / "arms.json", rows)
    table = [
        "| arm | gain over | conversations | tokens | seconds | free: official F1 | gain [95 %] "
        "| flat: official F1 | gain [95 %] | flat: strict F1 | gain [95 %] | fitted: strict F1 | gain [95 %] |",
        "|---|---|" + "--:|" * 11,
    ]
    for name, row in rows.items():
        size, cells = row["trained_on"], []
        for way, scorer in (("free", "official"), ("flat", "official"), ("flat", "strict"), ("fitted", "strict")):
            score = row[way][scorer]
            low, high = score["interval"]
            cells += [f"{score['f1']:.1f}", f"{score['gain']:+.1f} [{low:+.1f}, {high:+.1f}]"]
        numbers = [str(size["conversations"]), f"{size['tokens']:,}", f"{row['seconds']:.0f}"]
        table.append(f"| {' | '.join([name, row['base'], *numbers, *cells])} |")
    (ROOT / RESULTS / "table.md").write_text("\n".join(table) + "\n", encoding="utf-8")
    print("\n".join(table), flush=True)
    plot(rows)


def read_training(arm: str) -> dict[str, Any]:
    """Return the training record of an arm, with the options of build and training that were used as `options`."""
    training = read_json(ROOT / WORK / arm / "model" / "training.json")
    for_build, for_training, _ = options(arm)
    used = {name: training["recipe"].get(name, value) for name, value in for_training.items()}
    return {**training, "options": {"build": for_build, "train": used}}


def plot(rows: dict[str, dict]) -> None:
    """Draw the gains of each arm over the arm that it changes, with their intervals."""
    arms = [name for name in reversed(rows) if rows[name]["base"] != name]
    if not arms:
        return
    figure = new_figure(7.5, 1.3 + 0.45 * len(arms))
    axes = figure.subplots()
    shown = {"each type by itself: official": ("free", "official", BLUE, 0.12)}
    shown |= {"types compete, fitted: strict": ("fitted", "strict", ORANGE, -0.12)}
    for label, (way, scorer, color, shift) in shown.items():
        gains = [rows[name][way][scorer] for name in arms]
        for place, (low, high) in enumerate(gain["interval"] for gain in gains):
            axes.plot([low, high], [place + shift] * 2, color=color, linewidth=2)
        places = [place + shift for place in range(len(arms))]
        axes.plot([gain["gain"] for gain in gains], places, "o", color=color, label=label)
    axes.set_yticks(range(len(arms)), [f"{name} over {rows[name]['base']}" for name in arms])
    axes.set_ylim(-0.5, len(arms) - 0.5)
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set_xlabel("gain in F1 on the development set, with 95 % interval")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, fontsize="small")  # above, where no interval is
    save(figure, ROOT / RESULTS / "gains.png")


if __name__ == "__main__":
    run(main, resumes=True)
