"""Options of the commands that ask a student, and the loading of that student."""

import json
import re
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from .errors import UserError

if TYPE_CHECKING:
    from ..pipeline import OpenNERPipeline

SHARD = re.compile(r"([1-9][0-9]{0,5})/([1-9][0-9]{0,5})")  # at most 999,999 shards


def add_answer_options(parser: ArgumentParser) -> None:
    """Add the options of a call of a student: the types, and which spans it returns."""
    add = parser.add_argument
    types = "entity types, separated by commas, each a name or name=definition; or a JSON list or object (for "
    add("--types", help=f"{types}definitions with commas); default: those saved with the model")
    add("--threshold", help="keep spans with at least this score, 0 to 1; or scores by type: person=0.4,city=0.3")
    overlaps = "flat: no two spans share a character, the surest is kept; nested: types compete only for the same span"
    add("--overlaps", choices=("flat", "nested", "all"), help=f"{overlaps}; all: every span")
    add("--best", action="store_true", help="keep only the surest span of each type")
    add(
        "--occurrences",
        choices=("all", "first"),
        help="keep all places of an answered string, or the first",
    )
    add("--max_new_tokens", type=int, metavar="N", help="longest answer for one type, in tokens")


def answer_options(args: Namespace) -> dict[str, Any]:
    """Return the given options of `add_answer_options` except the types; the student has defaults for the rest."""
    options = {name: value for name in ("overlaps", "occurrences", "best") if (value := getattr(args, name))}
    if args.max_new_tokens is not None:
        options["max_new_tokens"] = args.max_new_tokens
    return options | ({} if args.threshold is None else {"threshold": read_threshold(args.threshold)})


def parse_types(option: str | None) -> list[str] | dict[str, str] | None:
    """Read `person,city` as a list, `person,town=a small city` as `{name: definition}`, and JSON of either."""
    if option is None:
        return None
    if option.lstrip()[:1] in ("{", "["):
        try:
            types = json.loads(option, object_pairs_hook=_once_each)
        except ValueError as error:
            raise UserError(f"--types begins like JSON but is not valid ({error}): {option!r:.80}") from None
        if wrong := [name for name in types if not isinstance(name, str)]:
            raise UserError(f"--types: {wrong[0]!r} is not a string: write a list of names, or {{name: definition}}")
        return types
    parts = [part.strip() for part in option.split(",") if part.strip()]
    if not parts:
        raise UserError(f"--types {option!r} names no type: write person,city")
    if not any("=" in part for part in parts):
        return parts
    pairs = (part.partition("=") for part in parts)
    return _once_each([(name.strip(), definition.strip() if equals else name) for name, equals, definition in pairs])


def read_type_names(option: str | None) -> list[str] | None:
    """Read types by their names alone, as `person,city` or a JSON list; raise UserError for anything else."""
    types = parse_types(option)
    if isinstance(types, dict):
        hint = 'give the names alone, and names that contain "=" as a JSON list'
        raise UserError(f"--types {option!r:.80} has definitions, which this command does not read: {hint}")
    if types is not None and not (types and all(name.strip() for name in types)):
        raise UserError(
            f"--types is empty or has an empty name ({option!r:.80}): name types, as in --types person,city"
        )
    return None if types is None else list(_once_each([(name, None) for name in types]))


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return pairs as a dict; raise UserError for a name that is given twice."""
    result: dict[str, Any] = {}
    for name, definition in pairs:
        if name in result:
            raise UserError(f"--types: {name!r} is given twice: remove one of them")
        result[name] = definition
    return result


def read_threshold(option: str) -> float | dict[str, float]:
    """Read `0.4` as a number, and `person=0.4,city=0.3` as `{type: number}`."""
    pairs = [part.rpartition("=") for part in option.split(",")]
    try:
        numbers = {name.strip(): float(number) for name, _, number in pairs}
    except ValueError:
        numbers = {}
    if len(numbers) < len(pairs) or ("" in numbers and len(numbers) > 1):
        raise UserError(f"--threshold {option!r}: write 0.4, or person=0.4,city=0.3 with each type once")
    if bad := [number for number in numbers.values() if not 0 <= number <= 1]:
        raise UserError(f"--threshold {bad[0]}: scores are in 0 to 1")
    return numbers.get("", numbers)


def read_shard(option: str) -> tuple[int, int]:
    """Read a shard from the form I/N: 2/4 is the second of four."""
    found = SHARD.fullmatch(option)
    if not found or int(found[1]) > int(found[2]):
        why = "give I/N, the number of the shard and of all shards, from 1/4 to 4/4 for four shards"
        raise UserError(f"--shard {option[:40]!r}: {why}")
    return int(found[1]), int(found[2])


def load_student(model: str, device: str | None, revision: str | None = None) -> "OpenNERPipeline":
    """Load a student as `open_ner.load` does; raises UserError if it fails."""
    from transformers.utils import logging

    from .. import load

    logging.disable_progress_bar()
    try:
        return load(model, device=device, revision=revision)
    except (ValueError, KeyError, OSError, RuntimeError) as error:
        place = "name" if revision is None else "name, --revision"
        raise UserError(f"{model!r} cannot be loaded ({error!s:.200}): check {place}, files and device") from None
