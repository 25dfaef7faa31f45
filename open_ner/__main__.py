"""Find entities from the shell: `python -m open_ner "text" --types person,city --model runs/quickstart/model`."""

import argparse
import json
import sys

from .cli import UserError, run


def main() -> None:
    """Print a table of spans with offsets and scores, or with `--json` one JSON list."""
    parser = argparse.ArgumentParser(prog="python -m open_ner", description=__doc__)
    parser.add_argument("text", help="the text to search")
    parser.add_argument("--model", required=True, help="folder or Hub id of a student")
    parser.add_argument("--types", help="entity types, separated by commas; default: those saved with the model")
    parser.add_argument("--threshold", type=float, default=0.0, help="keep spans scored at least this, 0 to 1")
    parser.add_argument("--free", action="store_true", help="decode freely instead of grounded in the text")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()

    from transformers import pipeline
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        tagger = pipeline("open-ner", model=args.model, trust_remote_code=True)
        types = [name.strip() for name in args.types.split(",")] if args.types else None
        entities = tagger(args.text, types=types, threshold=args.threshold, grounded=not args.free)
    except (ValueError, KeyError, OSError) as error:
        raise UserError(f"{args.model}: {error}") from error
    if args.json:
        json.dump(entities, sys.stdout, ensure_ascii=False)
        print()
        return
    width = max([len(entity["word"]) for entity in entities] + [4])
    print(f"{'span':<{width}}  {'start':>5} {'end':>5}  {'score':>5}  type")
    for entity in entities:
        print(
            f"{entity['word']!s:<{width}}  {entity['start']:>5} {entity['end']:>5}  {entity['score']:>5.2f}  "
            f"{entity['entity_group']}"
        )
    if not entities:
        print("(no spans)")


if __name__ == "__main__":
    run(main)
