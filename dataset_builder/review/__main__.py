"""Draw passages of a run for people to correct, and turn their corrections into a benchmark and a set to train on.

    python -m dataset_builder.review export --run runs/my-dataset --to label-studio --sample 200
    python -m dataset_builder.review export --run runs/my-dataset --to jsonl --by uncertain --model runs/my-model
    python -m dataset_builder.review import project-1.json --run runs/my-dataset

Exported passages stay out of the dataset: run --stage build of the recipe after `export`. See docs/review.md.
"""

import argparse
from pathlib import Path

from open_ner.tools.errors import UserError, run
from open_ner.tools.options import read_type_names

from .passages import MOST_TYPES


def main() -> None:
    """Run one of the two commands."""
    args = parse_arguments()
    folder = args.review or args.run / "review"
    if args.command == "export":
        from .export import ExportOptions, export

        given = {name: value for name, value in vars(args).items() if name not in ("command", "run", "review", "to")}
        if "types" in given:
            given["types"] = read_type_names(args.types)
        export(ExportOptions(args.run, folder, args.to, **given), [*given])
        return
    from .importing import ImportOptions, import_review  # slow to import: the scorer needs `evaluate`

    if args.train_one_in < 0 or args.train_one_in == 1:
        raise UserError(f"--train_one_in {args.train_one_in}: it must be 0, or at least 2")
    name = args.name or f"{args.run.resolve().name}-review"
    output = args.output_dir or folder / "gold"
    import_review(ImportOptions(args.file, folder, output, args.annotator, args.train_one_in, name, args.license))


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        "python -m dataset_builder.review", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    draw = commands.add_parser(
        "export", help="draw passages and write them as tasks", allow_abbrev=False,
        argument_default=argparse.SUPPRESS,  # only given options, which a review that was drawn before rejects
    )  # fmt: skip
    take = commands.add_parser("import", help="read a corrected file", allow_abbrev=False)
    for command in (draw, take):
        command.add_argument("--run", type=Path, required=True, help="folder of the run (output_dir of its recipe)")
        where = "folder of the review (default: review/ in that of the run)"
        command.add_argument("--review", type=Path, default=None, help=where)
    draw.add_argument("--to", choices=["label-studio", "jsonl"], required=True, help="form of the tasks")
    draw.add_argument("--sample", type=int, help="number of passages (default: 200)")
    draw.add_argument("--by", choices=["random", "uncertain"], help="which passages (default: random)")
    draw.add_argument("--model", help="student that is asked about the passages: folder or Hub id")
    draw.add_argument("--predictions", type=Path, help="JSONL of texts with entities, or an evaluation's predictions")
    draw.add_argument("--other_run", type=Path, help="folder of another run over the same passages")
    draw.add_argument("--show", choices=["teacher", "other"], help="whose spans the tasks have (default: teacher)")
    draw.add_argument("--blank", action="store_true", help="tasks without spans, so that the gold favors no model")
    default = f"default: teacher.types, or the {MOST_TYPES} most frequent ones"
    types = f"types to review, separated by commas or as a JSON list ({default})"
    draw.add_argument("--types", help=types)
    pool = "with --by uncertain --model: number of random passages that the student is asked about (default: 1000)"
    draw.add_argument("--pool", type=int, help=pool)
    draw.add_argument("--seed", type=int, help="seed of the random order (default: 42)")
    take.add_argument("file", type=Path, help="JSON or JSON_MIN of Label Studio, or the corrected tasks.jsonl")
    take.add_argument("--annotator", help="read only the corrections of this person, by the id in the file")
    part = "train on one in N passages and score on the others; default: both files have all, so use one"
    take.add_argument("--train_one_in", type=int, default=0, metavar="N", help=part)
    take.add_argument("--output_dir", type=Path, help="where to write (default: gold/ in the folder of the review)")
    take.add_argument("--name", help="name of the benchmark and of the set (default: that of the run, and -review)")
    take.add_argument("--license", default="other", help="license of the set (default: other)")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
