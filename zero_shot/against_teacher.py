"""Is the student as good as the teacher? Compare them, and optionally a second teacher, on a benchmark of your own.

    python -m zero_shot.against_teacher --benchmark MINE.yaml --run runs/my-dataset --model runs/my-model
    python -m zero_shot.against_teacher --benchmark MINE.yaml --run runs/my-dataset --other_run runs/other-teacher

The spans of a teacher are read from the journal of its run, so no requests are sent and nothing is paid. Passages
without a reply there are left out of the comparison and listed, with the command that asks them. The student runs on
this machine, with the decoding `flat` and its saved calibration; its predictions are kept in --output_dir. It is an
error if the student was trained on passages of the benchmark. If a teacher was asked open types (variant `type`), only
spans of the benchmark's types count.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from command_line.public import public_path, public_value
from dataset_builder.annotation.types import normalize_type
from hub.markdown import escape
from hub.model_card import write_against_teacher
from hub.records import Comparison, PerThousand, run_name
from open_ner.tools.errors import UserError, run
from open_ner.tools.files import write_atomic, write_json

from .comparison import (
    Contender,
    differences,
    disagreement_table,
    disagreements,
    print_disagreements,
    print_table,
    tables,
    to_markdown,
    verdict,
)
from .figures import plot_against_teacher
from .journaled import JournaledTeacher
from .predict import EvaluatedModel, PredictionRun, Todo, finish, folder_name, predict
from .records import PredictionLine
from .results import describe_run
from .student import Student
from .suite import Benchmark, SuiteConfig, load_benchmarks
from .trained_on import refuse_trained

NAME = "against_teacher"  # name of the suite and of the output files
SCHEMA = 1


class TimedStudent(Student):
    """A student that measures its loading time (`loading`, in seconds), which does not count as time per passage."""

    loading = 0.0

    def ask(self, todo: Todo, suite: SuiteConfig) -> Iterator[list[PredictionLine]]:
        """Yield the lines of each passage, in order; see `Student.ask`."""
        if self.decoder is None:
            started = time.monotonic()
            self.decoder = self._load(suite.dtype)
            self.loading = time.monotonic() - started
        yield from super().ask(todo, suite)


def main() -> None:
    """Compare, print the tables, and write them with the figure and the results."""
    args = parse_arguments()
    suite = SuiteConfig(
        name=NAME, benchmarks=[args.benchmark], protocol="own", decoding="flat", data_dir=args.data_dir,
        max_new_tokens=args.max_new_tokens, seed=args.seed,
    )  # fmt: skip
    [benchmark] = load_benchmarks(suite)
    folder = Path(args.output_dir or f"runs/{NAME}/{folder_name(benchmark.config.name)}")
    suite.output_dir = str(folder)
    if any(query.gold_spans is None for passage in benchmark.passages for query in passage.queries):
        raise UserError(f"{args.benchmark}: the gold has no offsets: use a benchmark of the format offsets")
    student = TimedStudent(args.model, "flat") if args.model else None
    notes = [refuse_trained(args.model, benchmark, args.dataset)] if student else []
    teachers = [JournaledTeacher(Path(each), benchmark.passages) for each in (args.run, args.other_run) if each]
    names = [args.model, *(teacher.name for teacher in teachers)]
    if len(set(names)) < len(names):  # two runs used the same model
        for teacher in teachers:
            teacher.name = teacher.record["id"] = f"{teacher.name} in {public_path(teacher.run)}"
    common = answered_by_all(benchmark, teachers, Path(args.data_dir))
    contenders = [ask_teacher(teachers[0], "teacher", common, suite)]
    if student:
        contenders.append(ask_student(student, benchmark, common, suite))
    contenders += [ask_teacher(each, "second teacher", common, suite) for each in teachers[1:]]
    comparison = compare_all(contenders, common, [*notes, *notes_on(common, teachers)], suite.seed)
    for table in tables(comparison):
        print_table(table)
    print_disagreements(comparison)
    print("\n".join([comparison["answer"], *comparison["notes"]]))
    write(comparison, folder)
    print(f"results: {folder}")
    if args.model and (Path(args.model) / "training.json").exists():
        card = write_against_teacher(Path(args.model), {**comparison, "disagreements": []}, folder / f"{NAME}.png")
        print(f"model card: {card}")


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        "python -m zero_shot.against_teacher", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--benchmark", required=True, help="YAML file of the benchmark, as `review import` writes it")
    parser.add_argument("--run", required=True, help="folder of the build run whose journal has the teacher's replies")
    parser.add_argument("--model", help="folder or Hub id of the student")
    parser.add_argument("--other_run", help="folder of the build run of a second teacher")
    parser.add_argument("--dataset", help="the student's training set, if it is not where its training.json says")
    parser.add_argument("--data_dir", default=".", help="folder that the benchmark's path is relative to")
    parser.add_argument("--max_new_tokens", type=int, default=256, help="longest answer of the student, in tokens")
    parser.add_argument("--seed", type=int, default=42, help="seed of the bootstrap and of the shown disagreements")
    parser.add_argument("--output_dir", help="folder of the results (default: runs/against_teacher/NAME)")
    args = parser.parse_args()
    if not args.model and not args.other_run:
        raise UserError("nothing to compare the teacher with: give --model STUDENT, --other_run RUN, or both")
    return args


def answered_by_all(benchmark: Benchmark, teachers: list[JournaledTeacher], data_dir: Path) -> Benchmark:
    """Return the benchmark with only the passages that all teachers replied to; print how to ask the others.

    Raises UserError if no passage is left.
    """
    for teacher in teachers:
        for line in teacher.how_to_ask(data_dir / benchmark.config.path):
            print(line)
    common = [p for p in benchmark.passages if all(p.id in teacher.records for teacher in teachers)]
    if not common:
        raise UserError(f"{benchmark.config.name}: 0 passages in common: no passage has a reply of every teacher")
    rejects = benchmark.rejects
    if left := len(benchmark.passages) - len(common):
        rejects = {**rejects, "no_reply": left}
    return replace(benchmark, passages=common, size=len(common), rejects=rejects)


def ask_teacher(teacher: JournaledTeacher, role: str, common: Benchmark, suite: SuiteConfig) -> Contender:
    """Read the teacher's spans on the common passages, and score them."""
    # the folder's name contains the run, because two runs may have used the same model
    place = Path(suite.output_dir, folder_name(f"{public_path(teacher.run)}-{teacher.name}"))
    predicted = predict(teacher, [common], suite, place / run_name(NAME, suite.protocol, suite.decoding))
    price = teacher.per_thousand(passage.id for passage in common.passages)
    return to_contender(teacher, role, predicted, common, suite, price)


def ask_student(student: TimedStudent, benchmark: Benchmark, common: Benchmark, suite: SuiteConfig) -> Contender:
    """Ask the student about the whole benchmark, so that its predictions stay valid if a teacher replies later."""
    place = Path(suite.output_dir, folder_name(student.name))
    predicted = predict(student, [benchmark], suite, place / run_name(NAME, suite.protocol, suite.decoding))
    predicted.seconds -= student.loading
    measured: PerThousand = {
        "dollars": 0.0, "seconds": 1000 * predicted.seconds / len(benchmark.passages), "note": ""
    }  # fmt: skip
    price = predicted.saved.get("per_thousand", measured)
    return to_contender(student, "student", predicted, common, suite, price)


def to_contender(
    model: EvaluatedModel, role: str, predicted: PredictionRun, common: Benchmark, suite: SuiteConfig,
    price: PerThousand,
) -> Contender:  # fmt: skip
    """Score the predictions on the common passages, and write the results of the model."""
    names = {passage.id for passage in common.passages}
    own = replace(predicted, lines=[line for line in predicted.lines if line["passage_id"] in names])
    results = describe_run(model, [common], suite, own, None)
    if role == "student":
        price = {**price, "note": f"measured on {results['hardware']}, without loading the model"}
    results["per_thousand"] = price
    finish(predicted.folder, results)
    return Contender(results["model"]["id"], role, own.lines, results)


def compare_all(contenders: list[Contender], common: Benchmark, notes: list[str], seed: int) -> Comparison:
    """Return the content of against_teacher.json."""
    found, shown = differences(contenders, seed), disagreements(contenders, seed)
    prices = [(each, each.results.get("per_thousand")) for each in contenders]
    comparison: Comparison = {
        "schema": SCHEMA, "benchmark": common.config.name, "version": common.config.version,
        "n_passages": len(common.passages), "roles": [each.role for each in contenders],
        "runs": [each.results for each in contenders], "differences": found,
        "answer": verdict(found[0], len(common.passages)),
        "notes": [*filter(None, notes), *(f"{each.name}: {price['note']}." for each, price in prices if price)],
        "disagreements": shown[0], "n_disagreements": shown[1], "section": "",
    }  # fmt: skip
    parts = [escape(comparison["answer"]), *map(to_markdown, tables(comparison)), *map(escape, comparison["notes"])]
    return {**comparison, "section": "\n\n".join(parts)}


def notes_on(common: Benchmark, teachers: list[JournaledTeacher]) -> list[str]:
    """Return notes for the reader: who made the gold, which types counted, which passages are missing."""
    notes = []
    if common.config.made_by == "corrected":
        model = common.config.corrected_from or "the teacher"
        notes.append(f"The gold was made by correcting the spans of {model}, which favors {model}.")
    if number := common.rejects.get("no_reply"):
        notes.append(f"{number} passages of the benchmark have no reply of a teacher and are left out.")
    asked = {query.type for passage in common.passages for query in passage.queries}
    for teacher in teachers:
        if teacher.is_closed:
            known = {normalize_type(name) for name in teacher.recipe.teacher.definitions}
            if unknown := sorted(name for name in asked if normalize_type(name) not in known):
                notes.append(f"{teacher.name}: not asked these types of the benchmark: {', '.join(unknown)}.")
        else:
            others = teacher.faults["type_not_asked"]
            what = "asked open types, so a span counts if its type is one of the benchmark's, ignoring case and plural"
            notes.append(f"{teacher.name}: {what}; {others} spans do not.")
    return notes


def write(comparison: Comparison, folder: Path) -> None:
    """Write against_teacher.json, table.md and the figure."""
    write_json(folder / f"{NAME}.json", public_value(comparison))
    table = disagreement_table(comparison)
    parts = [comparison["section"], *([to_markdown(table)] if table else [])]
    write_atomic(folder / "table.md", "\n\n".join(parts) + "\n")
    plot_against_teacher(comparison, folder / f"{NAME}.png")


if __name__ == "__main__":
    run(main, resumes=True)
