"""Find entities from the shell.

    open-ner "Ada Lovelace met Charles Babbage in London." --types person,city --model org/model
    open-ner --file a.txt b.txt --types '{"town": "a place with a mayor, but no bishop"}' --model runs/quickstart/model
    zcat corpus.jsonl.gz | open-ner --jsonl --types person,city --model org/model > entities.jsonl
    open-ner "Rome" --base_url http://localhost:8000/v1 --json
    open-ner view runs/my-dataset/annotations.type.jsonl --output page.html    (see open-ner view --help)
    open-ner annotate --dataset_name org/texts --output_dir runs/entities --model org/model    (see --help)

Without a text and --file, standard input is read. From a checkout, `python -m open_ner` is the same command.
Exit status: 0 done, 1 failed, 2 invalid input or options, or a server that gives no answer.
"""

import json
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from contextlib import closing
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any

from .answers import Entity
from .tools.errors import UserError, run
from .tools.jsonl import Ask, answer_jsonl
from .tools.options import add_answer_options, answer_options, load_student, parse_types


def cli() -> None:
    """Run `main` as the console script `open-ner`."""
    run(main, resumes=sys.argv[1:2] == ["annotate"])


def main() -> None:
    """Print each text with its spans marked and a table of them, or JSON, or JSON lines; or run a subcommand."""
    if sys.argv[1:2] == ["view"]:
        from .view.command import main as view

        return view(sys.argv[2:])
    if sys.argv[1:2] == ["annotate"]:
        from .tools.annotate import main as annotate

        return annotate(sys.argv[2:])
    args = _arguments()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")  # a lone surrogate is escaped as in JSON
    types = parse_types(args.types)
    try:
        if args.jsonl:
            [name] = args.file
            with closing(_open(name)) as lines:
                return answer_jsonl(lines, name, _tagger(args, types), types, args.batch_size)
        named = [("", args.text)] if args.text is not None else [(name, _read(name)) for name in args.file]
        ask = _tagger(args, types)
        for name, text in named:
            [entities] = ask([text], types)
            if args.json:
                result = entities if len(named) == 1 else {"file": name, "entities": entities}
                print(json.dumps(result, ensure_ascii=False), flush=True)
            else:
                from .tools.terminal import show

                show(text, entities, name if len(named) > 1 else "")
    except BrokenPipeError:  # a ConnectionError, but of the output; `run` handles it
        raise
    except (ValueError, ConnectionError) as error:  # documented errors of the pipeline and of a served model
        raise UserError(str(error)) from None


def _arguments() -> Namespace:
    parser = ArgumentParser("open-ner", description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("text", nargs="?", help="the text to search")
    add("--file", nargs="+", metavar="FILE", help="search these UTF-8 files; - is standard input")
    add("--model", help="folder or Hub id of a student; with --base_url, the name of the served model")
    add_answer_options(parser)
    add("--dataset", help="name of a data set, for students tuned on several")
    add("--device", help="cpu, cuda:0, mps; default: an accelerator if there is one")
    add("--base_url", help="ask an OpenAI-compatible server instead (needs the package openai)")
    add("--tokenizer", help="with --base_url: the student's tokenizer, to cut long texts as the student does")
    add("--json", action="store_true", help="print a JSON list of spans, or a line for each of several files")
    jsonl = 'read lines {"text": ...} and write them with "entities" added, in order; a line may have its own "types" '
    jsonl += 'and any other keys. A line that cannot be answered gets an "error", and the exit status is 2'
    add("--jsonl", action="store_true", help=jsonl)
    add("--batch_size", type=int, default=16, help="lines of --jsonl answered together (16)")
    args = parser.parse_args()
    if args.text is not None and (args.file or args.jsonl):
        raise UserError(f"a text ({args.text!r:.40}) beside {'--jsonl' if args.jsonl else '--file'}: give one of them")
    if args.text is None and not args.file:
        if sys.stdin.isatty():
            raise UserError("nothing to search: give a text, --file, or text on standard input (see --help)")
        args.file = ["-"]
    if args.jsonl and len(args.file) > 1:
        raise UserError("--jsonl reads one file: join them with cat and read standard input")
    if not args.model and not args.base_url:
        raise UserError("--model is missing: name a folder or Hub id of a student, or a server by --base_url")
    if args.tokenizer and not args.base_url:
        raise UserError("--tokenizer is only for --base_url; a local model has its own")
    if args.device and args.base_url:
        raise UserError("--device is only for a local model, not for the server of --base_url")
    if args.batch_size < 1:
        raise UserError(f"--batch_size {args.batch_size}: give at least 1")
    return args


def _tagger(args: Namespace, types: Any) -> Ask:
    """Return the student of the command line as a function of texts and types; `types` are those of the command."""
    options = answer_options(args) | ({"dataset": args.dataset} if args.dataset else {})
    tagger: Any
    if args.base_url:
        try:
            from .tools.served import ServedNER
        except ModuleNotFoundError as error:
            raise UserError(f"--base_url needs the package {error.name}: pip install {error.name}") from None
        longest = options.pop("max_new_tokens", None)
        tagger = ServedNER(args.base_url, args.model, tokenizer=args.tokenizer, max_new_tokens=longest)
    else:
        tagger = load_student(args.model, args.device)
        options["batch_size"] = args.batch_size
    common = tagger.defaults["types"] if types is None else types

    def ask(texts: list[str], own: Any) -> list[list[Entity]]:
        given = dict(options)
        if isinstance(threshold := options.get("threshold"), dict) and own is not None:
            # for a line with its own types, drop thresholds of types that only the other lines are asked
            given["threshold"] = {name: low for name, low in threshold.items() if name in own or name not in common}
        return tagger(texts, types=own, **given)

    return ask


def _open(name: str) -> IO[bytes]:
    """Open a file, or standard input, as bytes."""
    try:
        return sys.stdin.buffer if name == "-" else Path(name).open("rb")
    except OSError as error:
        raise UserError(f"{name!r} cannot be read: {error.strerror}") from None


def _read(name: str) -> str:
    """Read a whole file without changing its line ends, which offsets count."""
    try:
        with closing(_open(name)) as file:
            return file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{name!r} is not UTF-8 (byte {error.start}): convert it first") from None
    except OSError as error:
        raise UserError(f"{name!r} cannot be read: {error.strerror}") from None


if __name__ == "__main__":
    cli()
