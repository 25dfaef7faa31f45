"""Recipes: YAML files read strictly into dataclasses, with overrides from the command line."""

import dataclasses
import difflib
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from open_ner.tools.errors import UserError

Recipe = TypeVar("Recipe")
KINDS: dict[Any, str] = {
    list: "a list", dict: "a mapping {NAME: VALUE}", str: "text", int: "a whole number", float: "a number",
    bool: "true or false",
}  # fmt: skip


def option(default: Any, help: str) -> Any:  # noqa: A002  (the word argparse uses)
    """Return a field of a recipe's dataclass; `default` may be a function, or `...` for a required option."""
    given: dict[str, Any] = {} if default is ... else {"default_factory" if callable(default) else "default": default}
    return dataclasses.field(**given, metadata={"help": help})


def find_recipe(name: str, shipped: Path, what: str) -> Path:
    """Return the YAML file `name`, or the one of this name in the folder `shipped`.

    Raises UserError for an unknown name; the message begins with `what` it is a name of.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else shipped / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(sorted(recipe.stem for recipe in shipped.glob("*.yaml")))
        raise UserError(f"{what} {name!r} is neither a file nor one of {known}")
    return path


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file that contains a mapping; raise UserError for anything else."""
    import yaml

    try:
        data = parse_yaml(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such recipe; the shipped ones are under recipes/") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not readable as YAML: {error}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: a recipe is a mapping of options, but this file contains {type(data).__name__}")
    return data


def parse_yaml(text: str) -> Any:
    """Parse YAML as `yaml.safe_load` does, but raise yaml.YAMLError if a mapping has a key twice."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen: set[str] = set()
            for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
                if key.value in seen:
                    what = f"{key.value!r} is given twice, again in line {key.start_mark.line + 1}: remove one of them"
                    raise yaml.constructor.ConstructorError(problem=what)
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    return yaml.load(text, Loader)  # noqa: S506  (a safe loader)


def read_recipe(cls: type[Recipe], path: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe into the (nested) dataclass `cls`.

    Args:
        cls: the dataclass of the recipe's options.
        path: the YAML file.
        overrides: values that replace those of the file, by dotted option such as `corpus.path`; a string is parsed as
            YAML unless the option is a string.

    Raises:
        UserError: an option is unknown (the message suggests the nearest one), missing or of the wrong type.
    """
    import dacite

    data = read_yaml(path)
    for dotted, value in (overrides or {}).items():
        first, *names = dotted.split(".")
        target, last, kinds = data, first, _option_types([cls], first)
        for name in names:
            target[last] = target.get(last) or {}
            target, kinds = target[last], _option_types(kinds, name)
            if not kinds or not isinstance(target, dict):
                raise UserError(f"{path}: unknown option {dotted}: {last} has no options of its own")
            last = name
        target[last] = _parse_value(dotted, value, kinds) if isinstance(value, str) else value
    _check(data, [cls], path, [*_dotted_names(cls)])
    hooks: dict[Any, Any] = {float: lambda value: float(value) if type(value) is int else value}  # YAML's 5 is an int
    try:
        return dacite.from_dict(cls, data, dacite.Config(strict=True, type_hooks=hooks))
    except dacite.DaciteError as error:
        raise UserError(f"{path}: {error}") from None


def describe(cls: type, prefix: str = "") -> str:
    """Return the help of a recipe's dataclass: a line per option with its dotted name, default and help text."""
    lines, kinds = [], get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(kinds[field.name]):
            lines.append(describe(kinds[field.name], f"{prefix}{field.name}."))
        elif field.metadata.get("help"):
            default = "required" if field.default is dataclasses.MISSING else repr(field.default)
            if field.default_factory is not dataclasses.MISSING:
                default = repr(field.default_factory())
            lines.append(f"  {prefix}{field.name} ({default}): {field.metadata['help']}")
    return "\n".join(lines)


def parse_overrides(arguments: list[str]) -> dict[str, str]:
    """Return `["--corpus.path", "x.jsonl"]` as `{"corpus.path": "x.jsonl"}`, the overrides of `read_recipe`."""
    overrides = {}
    rest = iter(arguments)
    for given in rest:
        name, equals, value = given.partition("=")
        value = value if equals else next(rest, "--")
        if not name.startswith("--") or (not equals and value.startswith("--")):
            raise UserError(f"unknown argument {given!r}: options of the recipe are written --option VALUE")
        overrides[name[2:]] = value
    return overrides


def _option_types(kinds: Iterable[Any], name: str) -> list[Any]:
    """Return the types that the option `name` of one of `kinds` may have; empty if these have no options."""
    for kind in kinds:
        found = get_args(kind)[1] if get_origin(kind) is dict else Any if kind is Any else None
        if dataclasses.is_dataclass(kind):  # an unknown name is an error later, in read_recipe
            found = get_type_hints(kind).get(name, Any)
        if found is not None:
            return _alternatives(found)
    return []


def _alternatives(kind: Any) -> list[Any]:
    """Return the types of a union, or the type itself."""
    return [*get_args(kind)] if get_origin(kind) in (UnionType, Union) else [kind]


def _parse_value(dotted: str, value: str, kinds: list[Any]) -> Any:
    """Parse the value of a command-line option that may have one of these types."""
    import yaml

    is_text = str in kinds or any(get_origin(kind) is Literal for kind in kinds)
    is_mapping = value.startswith("{") and any(get_origin(kind) is dict for kind in kinds)
    if is_text and not is_mapping and (value != "null" or type(None) not in kinds):
        return value
    try:
        return parse_yaml(value)
    except yaml.YAMLError as error:
        raise UserError(f"--{dotted} {value}: not readable as YAML: {error}") from None


def refuse_unknown(
    data: Iterable[str], known: Collection[str], path: str | Path, where: str = "", dotted: Collection[str] = ()
) -> None:
    """Raise UserError for the first option of `data` that is not `known`, naming the nearest one.

    Args:
        data: the names of options that were given.
        known: the names that may be given.
        path: what the message begins with.
        where: what the message has before these names.
        dotted: the names of all options with their sections; they are suggested for a name outside of its section.
    """
    for key in data:
        if key in known:
            continue
        near = difflib.get_close_matches(str(key), known, n=1)
        elsewhere = [] if where else [name for name in dotted if name.rpartition(".")[2] == key]
        hint = "--help lists the options"
        if key in dotted:
            section, _, name = str(key).rpartition(".")
            hint = f"write it in its section, as in {section}: {{{name}: ...}}"
        elif near or elsewhere:
            hint = f"did you mean {' or '.join(elsewhere or [where + near[0]])}?"
        raise UserError(f"{path}: unknown option {where}{key!s}: {hint}")


def _dotted_names(cls: type, where: str = "") -> Iterator[str]:
    """Yield the names of all options of a recipe's dataclass with their sections, such as `corpus.path`."""
    for name, kind in get_type_hints(cls).items():
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            yield from _dotted_names(kind, f"{where}{name}.")
        else:
            yield where + name


def _check(value: Any, kinds: Collection[Any], path: str | Path, dotted: Collection[str], name: str = "") -> None:
    """Raise UserError for an unknown option in a value, or for a value that is of none of these kinds.

    dacite checks this too, but its messages do not say what to write instead.

    Args:
        value: the value of an option, or the whole recipe.
        kinds: the types that the option may have.
        path: the recipe, for the message.
        dotted: the names of all options of the recipe.
        name: the name of the option; empty for the whole recipe.
    """
    for kind in kinds:
        form, inner = get_origin(kind), get_args(kind)
        plain = kind is Any or type(value) is kind or (kind is float and type(value) is int)
        if dataclasses.is_dataclass(kind) and isinstance(value, dict):
            where = f"{name}." if name else ""
            refuse_unknown(value, get_type_hints(kind), path, where, dotted)
            parts = [(where + key, _option_types([kind], key), item) for key, item in value.items()]
        elif form is list and isinstance(value, list):
            parts = [(f"{name}[{number}]", _alternatives(inner[0]), item) for number, item in enumerate(value)]
        elif form is dict and isinstance(value, dict):
            parts = [(f"{name}.{key}", _alternatives(inner[1]), item) for key, item in value.items()]
        elif plain or (form is Literal and value in inner):
            parts = []
        else:
            continue
        for part, types, item in parts:
            _check(item, types, path, dotted, part)
        return
    if value is None:
        raise UserError(f"{path}: {name} is empty: give it a value, or remove it to have the default")
    raise UserError(f"{path}: {name}: {value!r:.60} is not {_what_to_write(value, kinds)}")


def _what_to_write(value: Any, kinds: Collection[Any]) -> str:
    """Say what values of these types look like, and how to write one in place of a wrong value."""
    forms = dict.fromkeys(dict if dataclasses.is_dataclass(kind) else get_origin(kind) or kind for kind in kinds)
    wanted = [KINDS[form] for form in forms if form in KINDS]
    wanted += [f"one of {', '.join(get_args(kind))}" for kind in kinds if get_origin(kind) is Literal]
    remedy = ""
    if list in forms:
        remedy = ": begin each item with a hyphen and a space"
        if not isinstance(value, dict) and "\n" not in str(value):
            remedy = f": write [{value}]"
    elif str in forms and not isinstance(value, list | dict):
        remedy = ": put it in quotes"
        remedy += ", because YAML reads yes as True and no as False" if isinstance(value, bool) else ""
    elif isinstance(value, str) and not {int, float, bool}.isdisjoint(forms):
        remedy = ": write it without quotes, as in 5, 0.5 or true"
    return " or ".join(wanted) + remedy


def require_at_least(section: str, options: Any, least: Mapping[str, float]) -> None:
    """Raise UserError for the first option of a recipe's section that is below its minimum or not finite."""
    for name, minimum in least.items():
        value = getattr(options, name)
        if value is not None and not minimum <= value < math.inf:
            raise UserError(f"{section}.{name} is {value}: it must be a number of at least {minimum}")
