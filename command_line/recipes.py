"""Recipes: YAML files read strictly into dataclasses, with overrides from the command line."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from open_ner.tools.errors import UserError

Recipe = TypeVar("Recipe")


def option(default: Any, help: str) -> Any:  # noqa: A002  (the word argparse uses)
    """A recipe's field with its default (or a function that makes it) and its help; `...` marks a required one."""
    given: dict[str, Any] = {} if default is ... else {"default_factory" if callable(default) else "default": default}
    return dataclasses.field(**given, metadata={"help": help})


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file that holds a mapping; raises UserError for anything else."""
    import yaml

    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such recipe; the shipped ones are under recipes/") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not readable as YAML: {error}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: a recipe is a mapping of options, this file holds {type(data).__name__}")
    return data


def read_recipe(cls: type[Recipe], path: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe into the (nested) dataclass `cls`.

    Args:
        cls: The dataclass of the recipe's options.
        path: The YAML file.
        overrides: Values that replace those of the file, by dotted option such as `corpus.path`. A string is taken as
            it is by an option of type string, and read as YAML by any other.

    Raises:
        UserError: For an unknown option, with the nearest known one; for a missing or wrongly typed value.
    """
    import dacite

    data = read_yaml(path)
    for dotted, value in (overrides or {}).items():
        *parents, last = dotted.split(".")
        target, kinds = data, _kinds_below([cls], dotted.split(".")[0])
        for parent, name in zip(parents, dotted.split(".")[1:], strict=True):
            target[parent] = target.get(parent) or {}
            target, kinds = target[parent], _kinds_below(kinds, name)
            if not kinds or not isinstance(target, dict):
                raise UserError(f"{path}: unknown option {dotted}: {parent} has no options of its own")
        target[last] = _read_value(dotted, value, kinds) if isinstance(value, str) else value
    _refuse_unknown_nested(cls, data, path)
    # YAML reads 5 where a float is meant
    hooks: dict[Any, Any] = {float: lambda value: float(value) if type(value) is int else value}
    try:
        return dacite.from_dict(cls, data, dacite.Config(strict=True, type_hooks=hooks))
    except dacite.DaciteError as error:
        raise UserError(f"{path}: {error}") from None


def describe(cls: type, prefix: str = "") -> str:
    """One line per option of a recipe's dataclass: its dotted name, its default and its help."""
    lines = []
    for field, kind in _fields(cls):
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            lines.append(describe(kind, f"{prefix}{field.name}."))
        elif field.metadata.get("help"):
            default = "required" if field.default is dataclasses.MISSING else repr(field.default)
            if field.default_factory is not dataclasses.MISSING:
                default = repr(field.default_factory())
            lines.append(f"  {prefix}{field.name} ({default}): {field.metadata['help']}")
    return "\n".join(lines)


def parse_overrides(arguments: list[str]) -> dict[str, str]:
    """`["--corpus.path", "x.jsonl"]` as `{"corpus.path": "x.jsonl"}`; `read_recipe` reads the values."""
    overrides = {}
    rest = iter(arguments)
    for given in rest:
        name, equals, value = given.partition("=")
        value = value if equals else next(rest, "--")
        if not name.startswith("--") or (not equals and value.startswith("--")):
            raise UserError(f"unknown argument {given!r}: options of the recipe are written --option VALUE")
        overrides[name[2:]] = value
    return overrides


def _kinds_below(kinds: Iterable[Any], name: str) -> list[Any]:
    """The types of an option below one of these types, which are dataclasses or dicts; none if it cannot be there."""
    for kind in kinds:
        below = get_args(kind)[1] if get_origin(kind) is dict else Any if kind is Any else None
        if dataclasses.is_dataclass(kind):  # unknown names fail in read_recipe
            below = {field.name: found for field, found in _fields(kind)}.get(name, Any)
        if below is not None:
            return [*get_args(below)] if get_origin(below) in (types.UnionType, typing.Union) else [below]
    return []


def _read_value(dotted: str, value: str, kinds: list[Any]) -> Any:
    """The value of an option on the command line, of one of these types."""
    import yaml

    is_text = str in kinds or any(get_origin(kind) is Literal for kind in kinds)
    is_mapping = value.startswith("{") and any(get_origin(kind) is dict for kind in kinds)
    if is_text and not is_mapping and (value != "null" or type(None) not in kinds):
        return value
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UserError(f"--{dotted} {value}: not readable as YAML: {error}") from None


def refuse_unknown(data: Iterable[str], known: Collection[str], path: str | Path, where: str = "") -> None:
    """Raise UserError for the first option of `data` that is not `known`, naming the nearest one that is."""
    for key in data:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {where}{near[0]}?" if near else "--help lists the options"
            raise UserError(f"{path}: unknown option {where}{key!s}: {hint}")


def _refuse_unknown_nested(cls: type, data: Mapping[str, Any], path: str | Path, where: str = "") -> None:
    known = {field.name: kind for field, kind in _fields(cls)}
    refuse_unknown(data, known, path, where)
    for key, value in data.items():
        if dataclasses.is_dataclass(known[key]) and isinstance(value, Mapping):
            _refuse_unknown_nested(known[key], value, path, f"{where}{key}.")


def _fields(cls: Any) -> list[tuple[dataclasses.Field, Any]]:
    kinds = typing.get_type_hints(cls)
    return [(field, kinds[field.name]) for field in dataclasses.fields(cls)]
