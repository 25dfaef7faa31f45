"""The import rules, read off the tree: rooms stand in one order, stages too, nothing runs in a circle."""

import ast
import re
import sys
import tomllib
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOT_PRODUCT = {"tests", "bench", "models", "runs", "results"}
# each room imports only rooms to its left; those of one tuple do not import each other
ORDER = [
    ("open_ner", "metrics"),
    ("command_line",),
    ("ner_sets",),
    ("dataset_builder", "sft", "hub"),
    ("zero_shot",),
    ("train_sft", "eval_zero_shot", "jobs", "space", "cluster"),
]
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
STAGES = ["corpus", "teacher", "annotation", "dataset"]  # of dataset_builder, in the order of the data
SHARED = {f"dataset_builder.{name}" for name in ("config", "languages", "rejects", "shards")}  # serve all stages
COMMANDS = {"dataset_builder.__main__", "train_sft", "eval_zero_shot"}
HEAVY = {"datasets", "pyarrow", "torch", "transformers"}


@cache
def modules() -> dict[str, Path]:
    """Every product module by its dotted name."""
    paths = [
        path
        for path in ROOT.rglob("*.py")
        if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
        and path.relative_to(ROOT).parts[0] not in NOT_PRODUCT
        and path.relative_to(ROOT).parts[0] not in {"build", "dist"}
    ]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imports(name: str, top_level: bool = False) -> set[str]:
    """Full names of what a module imports, inside functions too unless `top_level`; ours down to the module."""
    path = modules()[name]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = parts[: len(parts) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            submodules = {f"{module}.{alias.name}" for alias in node.names} & set(modules())
            found |= submodules or {module}
    return found


def ours(name: str, top_level: bool = False) -> set[str]:
    return imports(name, top_level) & set(modules())


def reached(name: str) -> set[str]:
    """A module and all of ours that importing it imports."""
    todo, seen = [name], set()
    while todo:
        module = todo.pop()
        if module not in seen:
            seen.add(module)
            todo += ours(module, top_level=True)
    return seen


def room(module: str) -> str:
    return module.split(".")[0]


def test_every_room_has_its_place_in_the_order() -> None:
    assert {room(module) for module in modules()} == set(RANK)


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_room_imports_only_rooms_before_it(name: str) -> None:
    rank = len(ORDER) if name in COMMANDS else RANK[room(name)]
    for module in ours(name):
        assert room(module) == room(name) or RANK[room(module)] < rank, module


def test_the_evaluation_uses_of_the_builder_what_reads_the_teacher_alone() -> None:
    """Its client and journal; and to read a run's replies as the builder does, its recipe, passages and annotation."""
    used = {module for name in modules() if room(name) == "zero_shot" for module in ours(name)}
    foreign = {module for module in used if room(module) == "dataset_builder"}
    recipe, passages = {"dataset_builder.config", "dataset_builder.options"}, {"cutting", "passages"}
    foreign -= recipe | {f"dataset_builder.corpus.{name}" for name in passages}
    assert {module.split(".")[1] for module in foreign} == {"teacher", "annotation"}


def test_a_stage_imports_only_earlier_stages() -> None:
    stages = {name: name.split(".")[1] for name in modules() if room(name) == "dataset_builder" and "." in name}
    assert {stages[name] for name in stages} >= {*STAGES}
    for name, stage in stages.items():
        if stage in STAGES or name in SHARED:
            before = STAGES[: STAGES.index(stage) + 1] if stage in STAGES else []
            used = {module for module in ours(name) - SHARED if room(module) == "dataset_builder"}
            assert {stages[module] for module in used} <= {*before}, name


def test_nothing_runs_in_a_circle() -> None:
    try:
        list(TopologicalSorter({name: ours(name) - {name} for name in modules()}).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_what_travels_with_the_weights_needs_only_torch_and_transformers() -> None:
    files = reached("open_ner.pipeline")
    names = {"pipeline", "decoding", "packing", "prompts", "answers", "borders", "conversation", "long_texts"}
    names |= {"selection"}
    assert files == {f"open_ner.{name}" for name in names}
    for name in files:
        for node in ast.walk(ast.parse(modules()[name].read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level == 0 and room(node.module or "") == "open_ner")
        foreign = {room(module) for module in imports(name) - files}
        assert foreign <= {"torch", "transformers"} | set(sys.stdlib_module_names), name


def test_the_runtime_is_whole_without_the_rest() -> None:
    for name in modules():
        if room(name) in ("open_ner", "metrics"):
            assert {room(module) for module in ours(name)} <= {room(name)}, name


def test_only_the_teacher_and_the_served_runtime_use_openai() -> None:
    users = {name for name in modules() if "openai" in {room(module) for module in imports(name)}}
    others = {name for name in users if not name.startswith("dataset_builder.teacher.")}
    assert others == {"open_ner.tools.served"} != users


def test_only_publish_writes_to_the_hub() -> None:
    writers = ("upload_folder(", "upload_file(", "create_commit(", "create_repo(", ".push_to_hub(", "create_tag(")
    found = {
        name for name, path in modules().items() if any(word in path.read_text(encoding="utf-8") for word in writers)
    }
    assert found == {"hub.publish"}


def test_annotating_needs_neither_datasets_nor_pyarrow() -> None:
    for name in ("dataset_builder.__main__", "dataset_builder.teacher.client", "dataset_builder.annotation.annotate"):
        for module in reached(name):
            used = {room(other) for other in imports(module, top_level=True)} & HEAVY
            assert not used, f"{name} reaches {module}, which imports {used}"


def test_every_direct_import_is_declared() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines() + sum(extras.values(), [])
    declared = {
        re.split(r"[\[<>=~! ]", line)[0].lower().replace("_", "-")
        for line in lines
        if line and not line.startswith("#")
    }
    used = {room(module) for name in modules() for module in imports(name)} - set(RANK) - set(sys.stdlib_module_names)
    distributions = packages_distributions()
    for module in used:
        names = {name.lower().replace("_", "-") for name in distributions.get(module, [module])}
        assert names & declared, f"{module} is imported, and neither in requirements.txt nor in an extra"
