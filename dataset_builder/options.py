"""The options that name and change a build recipe on the command line, for all commands that read one."""

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path

from command_line.recipes import parse_overrides, read_recipe
from open_ner.tools.errors import UserError
from open_ner.tools.files import write_atomic

from .config import BuildConfig


def add_recipe_options(parser: ArgumentParser) -> None:
    """Add the recipe, the folder of the run, and short names of some options of the teacher."""
    parser.add_argument("--config", required=True, help="recipe, e.g. recipes/build/your_corpus.yaml")
    parser.add_argument("--output_dir", help="folder of the run")
    parser.add_argument("--base_url", help="OpenAI-compatible endpoint (teacher.base_url)")
    parser.add_argument("--model", help="name of the teacher at the endpoint (teacher.model)")
    parser.add_argument("--prompt", metavar="[VARIANT=]FILE", help="file of a custom prompt (teacher.prompts)")
    parser.add_argument("--max_cost", type=float, help="budget in dollars (teacher.max_cost)")
    batch = "use the provider's Batch API; set its prices in the recipe, which --pilot and --preview then use too"
    parser.add_argument("--batch", action="store_true", default=None, help=batch)


def read_config(args: Namespace, rest: list[str]) -> BuildConfig:
    """Read the recipe with the options of `add_recipe_options` and those of `rest`, such as `--corpus.path FILE`."""
    given = {f"teacher.{name}": getattr(args, name) for name in ("base_url", "model", "max_cost", "batch")}
    given["output_dir"] = args.output_dir or None
    overrides = parse_overrides(rest) | {name: value for name, value in given.items() if value is not None}
    config = read_recipe(BuildConfig, args.config, overrides)
    if args.prompt:
        variant, named, file = args.prompt.rpartition("=")
        if (named and variant not in config.teacher.variants) or (not named and len(config.teacher.variants) > 1):
            raise UserError(f"--prompt {args.prompt}: name one of the variants {config.teacher.variants}: type=FILE")
        config.teacher.prompts[variant or config.teacher.variants[0]] = file
    return config


def read_kept_recipe(folder: Path) -> BuildConfig:
    """Read the recipe that `keep_recipe` wrote; raise UserError if the folder has none."""
    path = folder / "recipe.yaml"
    if not path.exists():
        hint = "name the folder of a run; for one of an earlier version, run its --stage annotate again, which is free"
        raise UserError(f"{path} does not exist: {hint}")
    return read_recipe(BuildConfig, path)


def keep_recipe(config: BuildConfig, folder: Path) -> None:
    """Write the options of the run, with those of the command line, to `recipe.yaml` in its folder."""
    import yaml

    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "recipe.yaml", yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True))
