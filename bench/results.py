"""Train a student on all real passages, and others on fewer; score them, and write results/distilled.

    python bench/results.py --data DISTILLED --dev DEV_CLOSED [--zero_shot ZERO_SHOT --human HUMAN] [--students ...]

DISTILLED has passages.jsonl.gz and answers.jsonl.gz (recorded teacher replies). DEV_CLOSED has sentences.jsonl.gz, the
development set, which is never trained on. ZERO_SHOT is the `data_dir` of recipes/eval/uniner.yaml, HUMAN the folder
of the sets of bench/parts/sets.py. The options of data and training are those that bench/ablations.py has kept.
Threshold and calibration are fitted on the choosing half of the development set; its reporting half and the other sets
are scored only for the reported rows. The steps are those of bench/parts/steps.py: after an interruption, the same
command resumes. On a GPU give --recipe recipes/sft/smollm2_135m/distilled.yaml, or that of a larger student.
"""

import argparse
import json
import math
import shutil
import sys
from pathlib import Path
from statistics import fmean

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from bench import ablations  # noqa: E402
from bench.answers import compare, is_choosing, passage_of  # noqa: E402
from bench.parts import steps  # noqa: E402
from bench.parts.provenance import provenance  # noqa: E402
from bench.parts.sets import NGRAM, shared, write_sets  # noqa: E402
from command_line.plotting import BLUE, GREY, new_figure, save  # noqa: E402
from hub.records import MAIN  # noqa: E402
from open_ner.tools.errors import run  # noqa: E402
from open_ner.tools.files import read_json, read_jsonl, write_atomic, write_json, write_jsonl  # noqa: E402
from zero_shot.calibration import apply_decision, fit_decision  # noqa: E402
from zero_shot.records import PredictionLine, read_predictions  # noqa: E402

WORK, RESULTS = Path("runs/results"), Path("results/distilled")  # relative, as they are shown in cards and results
KEPT = "bf16"  # the arm of bench/ablations.py whose options are used
DRAWS = 2  # conversations per passage
STUDENTS = {"distilled": None, "passages_800": 800, "passages_200": 200}  # passages trained on; None: all
PAPER_PASSAGES = 45_889
READINGS = {
    "each type by itself": "free", "types compete": "flat", "with a presence bias": "flat, presence",
    "with all that is fitted": "flat, fitted",
}  # fmt: skip


def main() -> None:
    """Train and score the students, then write what is finished."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # the commands run in the project's root, so paths of data are made absolute
    parser.add_argument("--data", type=lambda path: Path(path).resolve(), required=True)
    parser.add_argument("--dev", type=lambda path: Path(path).resolve(), required=True)
    parser.add_argument("--zero_shot", type=lambda path: Path(path).resolve(), help="default: not scored")
    parser.add_argument("--human", type=lambda path: Path(path).resolve(), help="default: not scored")
    parser.add_argument("--students", nargs="*", choices=STUDENTS, default=list(STUDENTS), help="default: all")
    parser.add_argument("--recipe", default=ablations.RECIPE, help="recipe of the training")
    parser.add_argument("--sentences", type=int, default=800, help="seeded sample of the development sentences")
    parser.add_argument("--limit", type=int, help="seeded sample of this many passages per zero-shot set")
    parser.add_argument("--texts", type=int, default=200, help="seeded sample of each human-annotated set")
    parser.add_argument("--quickstart", type=Path, default=Path("runs/quickstart/model"), help="to compare with")
    args = parser.parse_args()
    if not (ROOT / WORK / "passages.jsonl").exists():
        files = args.data / "passages.jsonl.gz", args.dev / "passages.jsonl.gz"
        steps.write_passages(*files, ROOT / WORK / "passages.jsonl")
    ask_development_set(args.quickstart, WORK / "quickstart", args)
    for name in args.students:
        train(name, args)
        ask_development_set(WORK / name / "model", WORK / name, args)
        report_development_set(args.quickstart, steps.sources(args.data, args.dev))
        if name == "distilled":
            copy_training()
    if args.zero_shot and "distilled" in args.students:
        report_zero_shot(args)


def train(name: str, args: argparse.Namespace) -> None:
    """Train a student on the first `STUDENTS[name]` passages, or on all of them."""
    passages, size = WORK / "passages.jsonl", STUDENTS[name]
    if size:
        lines = (ROOT / passages).read_text(encoding="utf-8").splitlines(keepends=True)[:size]
        passages = WORK / f"{name}.jsonl"
        (ROOT / passages).write_text("".join(lines), encoding="utf-8")
    for_build, for_training, _ = ablations.options(KEPT)
    replies = {"type": args.data / "answers.jsonl.gz"}
    dataset = steps.build(WORK / name / "data", passages, replies, {**for_build, "draws": DRAWS})
    steps.train(WORK / name / "model", args.recipe, dataset, for_training)


def ask_development_set(model: Path, folder: Path, args: argparse.Namespace) -> None:
    """Ask a student sentences of both halves of the development set."""
    steps.evaluate(
        model, folder / "on_dev", "recipes/eval/dev_closed.yaml", "--data_dir", args.dev,
        "--benchmarks", "[dev_closed_sentences]", "--limit", args.sentences,
    )  # fmt: skip


def read_halves(name: str, quickstart: Path) -> tuple[list[PredictionLine], list[PredictionLine]] | None:
    """Return a student's predictions on the choosing and on the reporting half, or None if they are not finished."""
    model = quickstart if name == "quickstart" else WORK / name / "model"
    if (path := steps.predictions(model, WORK / name / "on_dev")) is None:
        return None
    lines = read_predictions(path)
    choosing = [line for line in lines if is_choosing(passage_of(line))]
    return choosing, [line for line in lines if not is_choosing(passage_of(line))]


def report_development_set(quickstart: Path, sources: list[Path]) -> None:
    """Compare the finished students on the reporting half, each with the fit to its answers on the choosing half.

    Args:
        quickstart: folder of the student that the others are compared with.
        sources: files of the data, whose hash is written.
    """
    names = ["quickstart", *reversed(STUDENTS)]
    halves = {name: found for name in names if (found := read_halves(name, quickstart))}
    free = compare({name: reporting for name, (_, reporting) in halves.items()}, "quickstart")
    fitted = {
        name: apply_decision(reporting, fit_decision(choosing)) for name, (choosing, reporting) in halves.items()
    }
    rows = {}
    for name, scores in compare(fitted, "quickstart").items():
        model = quickstart if name == "quickstart" else WORK / name / "model"
        training = read_json(ROOT / model / "training.json")
        rows[name] = {
            "passages": training["trained_on"]["conversations"] if name == "quickstart" else count_passages(name),
            "trained_on": training["trained_on"], "seconds": whole_seconds(training),
            "free": free[name], "fitted": scores,
        }  # fmt: skip
    (ROOT / RESULTS / "figures").mkdir(parents=True, exist_ok=True)
    write_json(ROOT / RESULTS / "development.json", {**provenance(*sources), "students": rows})
    print(json.dumps({name: row["fitted"]["strict"] for name, row in rows.items()}, indent=1))
    plot_scaling({row["passages"]: row["fitted"]["strict"]["f1"] for row in list(rows.values())[1:]})


def copy_training() -> None:
    """Copy the final student's training record, with the number of passages, and its learning curve."""
    model = WORK / "distilled" / "model"
    training = read_json(ROOT / model / "training.json")
    whole = {"passages": count_passages("distilled"), "seconds": whole_seconds(training)}
    write_json(ROOT / RESULTS / "training.json", training | whole)
    shutil.copy(ROOT / model / "figures" / "learning_curve.png", ROOT / RESULTS / "figures")


def whole_seconds(training: dict) -> float:
    """Return the estimated seconds of a whole training; training.json has those since the last interruption."""
    steps, before = training["history"][-1]["step"], int((training["resumed_from"] or "-0").rpartition("-")[2])
    return round(training["seconds"] * steps / (steps - before), 1)


def count_passages(name: str) -> int:
    """Return the number of passages that a student was trained on."""
    report = read_json(ROOT / WORK / name / "data" / "passages.report.json")
    return report["counts"]["kept"]


def plot_scaling(points: dict[int, float]) -> None:
    """Draw F1 by training passages, and the line through the last two extrapolated to the paper's number."""
    if len(points) < 2:
        return
    figure = new_figure(6, 3.5)
    axes = figure.subplots()
    passages, f1 = list(points), list(points.values())
    axes.plot(passages, f1, "o-", color=BLUE, label="measured")
    slope = (f1[-1] - f1[-2]) / math.log(passages[-1] / passages[-2])
    reached = f1[-1] + slope * math.log(PAPER_PASSAGES / passages[-1])
    axes.plot([passages[-1], PAPER_PASSAGES], [f1[-1], reached], "--", color=GREY, label="extrapolated, not measured")
    axes.set_xscale("log")
    axes.set_xlabel("training passages")
    axes.set_ylabel("strict F1, reporting half")
    axes.legend()
    save(figure, ROOT / RESULTS / "figures" / "scaling.png")


def ask_human_sets(model: Path, args: argparse.Namespace) -> Path:
    """Ask the final student samples of the human-annotated sets, and write how many texts were removed."""
    folder = WORK / "human"
    if not (ROOT / folder / "suite.yaml").exists():
        counts = write_sets(args.human, training_texts(), ROOT / folder, args.texts)
        write_json(ROOT / RESULTS / "human_sets.json", counts)
    return steps.evaluate(model, WORK / "distilled" / "human", folder / "suite.yaml", "--data_dir", folder)


def training_texts() -> list[str]:
    """Return the texts of all training passages."""
    return [row["text"] for row in read_jsonl(ROOT / WORK / "passages.jsonl")]


def count_shared_texts(predictions: Path) -> None:
    """Write how many texts of the paper's sets share words with a training passage."""
    texts: dict[str, dict[str, None]] = {}  # distinct, in their order
    for line in read_predictions(predictions):
        texts.setdefault(line["benchmark"], {})[line["text"]] = None
    training = training_texts()
    counts = {name: {"texts": len(own), "shared": len(shared([*own], training))} for name, own in texts.items()}
    write_json(ROOT / RESULTS / "zero_shot" / "shared_texts.json", counts)


def report_zero_shot(args: argparse.Namespace) -> None:
    """Fit the final student, score it on the paper's seven sets, and copy its files to results/distilled."""
    model, folder = WORK / "distilled" / "model", WORK / "distilled" / "zero_shot"
    choosing, _ = read_halves("distilled", args.quickstart) or ([], [])
    write_jsonl(ROOT / WORK / "choosing.jsonl", choosing)
    figure = RESULTS / "figures" / "fit.png"
    fit = "-m", "zero_shot.calibration", "--predictions", WORK / "choosing.jsonl", "--model", model
    steps.command(*fit, "--figure", figure)
    limit = ["--limit", args.limit] if args.limit else []
    data = "--data_dir", args.zero_shot
    seven = steps.evaluate(model, folder, "recipes/eval/uniner.yaml", *data, *limit)
    human = [ask_human_sets(model, args)] if args.human else []
    dev = steps.predictions(model, WORK / "distilled" / "on_dev")
    output = ("--report", "--output", "results/answers/distilled.json")
    steps.command("bench/answers.py", "--dev", dev, "--test", seven, *human, *output)
    (ROOT / RESULTS / "zero_shot" / "figures").mkdir(parents=True, exist_ok=True)
    for name in ("table.md", "details.md"):
        shutil.copy(ROOT / folder / name, ROOT / RESULTS / "zero_shot")
    for picture in (ROOT / folder / "figures").glob("*.png"):
        shutil.copy(picture, ROOT / RESULTS / "zero_shot" / "figures")
    results = seven.with_name("results.json").read_text(encoding="utf-8").replace(str(args.zero_shot), "ZERO_SHOT")
    (ROOT / RESULTS / "zero_shot" / "results.json").write_text(results, encoding="utf-8")
    count_shared_texts(seven)
    write_table()


def write_table() -> None:
    """Write the final student's F1 on the paper's seven sets and on the human-annotated ones, in each reading.

    The last column counts texts that share words with a training passage; in human-annotated sets these are not asked.
    """
    rows = read_json(ROOT / "results" / "answers" / "distilled.json")["sets"]
    files = ROOT / RESULTS / "zero_shot" / "shared_texts.json", ROOT / RESULTS / "human_sets.json"
    seven, human = (read_json(file) if file.exists() else {} for file in files)
    names = {"seven sets": [*seven]} | ({"ten sets": [*human]} if human else {})
    lines = [
        f"| F1 in percent: official / strict | {' | '.join(READINGS)} | share {NGRAM} words with a training passage |",
        "|---|" + "--:|" * (len(READINGS) + 1),
    ]
    for group, own in names.items():
        cells = {
            name: [[rows[name][way][scorer]["f1"] for scorer in MAIN] for way in READINGS.values()] for name in own
        }
        cells[f"mean of the {group}"] = [
            [fmean(values) for values in zip(*way, strict=True)] for way in zip(*cells.values(), strict=True)
        ]
        for name, ways in cells.items():
            same = ""
            if counts := (seven | human).get(name):  # a mean has none
                same = f"{counts['shared']} of {counts['texts']}"
                same += ", not asked" * (name in human and counts["shared"] > 0)
            shown = [" / ".join(f"{value:.1f}" for value in way) for way in ways]
            lines.append(f"| {' | '.join([name, *shown, same])} |")
    write_atomic(ROOT / RESULTS / "table.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    run(main, resumes=True)
