"""Look at annotated passages.

    open-ner view runs/my-dataset/annotations.type.jsonl --output page.html
    open-ner view results/my-model/predictions.jsonl --output page.html --sample 100
    open-ner view runs/my-dataset/dataset --config type
    open-ner view runs/my-dataset/dataset/rejects --output rejects.html

Opens JSONL with texts and spans (also .gz, and the output of `open-ner --jsonl`), predictions of an evaluation, the
folder of a dataset or of `open-ner annotate`, rejects, and Parquet files. Without --output, passages are printed in
the terminal.
"""

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from ..tools.errors import UserError
from ..tools.files import write_atomic
from .html import render_html
from .sources import open_page
from .terminal import render_terminal

ON_A_PAGE, IN_A_TERMINAL = 200, 10  # passages shown by default


def main(arguments: Sequence[str]) -> None:
    """Write a page, or print passages in the terminal."""
    parser = ArgumentParser("open-ner view", description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("file", type=Path, help="file or folder to look at")
    add("--output", type=Path, metavar="FILE.html", help="write one HTML file, which needs no server and no network")
    add("--start", type=int, default=1, metavar="N", help="number of the first passage to show, from 1 (1)")
    help = f"passages to show ({ON_A_PAGE} in a file, {IN_A_TERMINAL} in the terminal)"
    add("--limit", type=int, metavar="N", help=help)
    add("--sample", type=int, metavar="N", help="show a random sample of N passages of the whole file")
    add("--seed", type=int, default=0, help="seed of the sample (0)")
    add("--config", help="config of a dataset's folder; default: annotations, or the first one")
    args = parser.parse_args(arguments)
    for name in ("start", "limit", "sample"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise UserError(f"--{name} {value}: give at least 1")
    if args.sample and (args.start != 1 or args.limit):
        raise UserError(f"--sample {args.sample} beside --start or --limit: a sample is of the whole file, give one")
    if args.output and args.output.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--output {args.output}: the page is HTML, name it {args.output.with_suffix('.html')}")
    limit = args.limit or (ON_A_PAGE if args.output else IN_A_TERMINAL)
    page = open_page(args.file, limit, args.start, args.sample, args.seed, args.config)
    if not args.output:
        render_terminal(page.passages)
        print("\n".join(page.notes), file=sys.stderr)
        return
    try:
        write_atomic(args.output, render_html(page.passages, args.file.name, page.notes, page.noun))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise UserError(f"--output {args.output} cannot be written: {error.strerror}") from None
    print(" ".join([f"{args.output}: {len(page.passages):,} passages.", *page.notes]))
