"""The import rules: what travels to the Hub depends on nothing of ours, and each package on at most the runtime."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = {"open_ner", "dataset_builder", "sft", "hub", "zero_shot", "metrics", "train_sft", "eval_zero_shot"}
ALLOWED = {
    "open_ner": set(),
    "dataset_builder": {"open_ner"},
    "sft": {"open_ner"},
    "hub": {"open_ner"},
    "zero_shot": {"open_ner", "metrics", "dataset_builder", "hub"},
    "metrics": set(),
}
COMMANDS = {ROOT / "dataset_builder" / "__main__.py"}


def imported(path: Path) -> set[tuple[int, str]]:
    """`(level, module)` of every import statement, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {(0, alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.level, node.module or ""))
    return found


def travelling() -> set[Path]:
    """pipeline.py and what it reaches by relative imports: the files that go to the Hub."""
    todo, seen = [ROOT / "open_ner" / "pipeline.py"], set()
    while todo:
        path = todo.pop()
        if path not in seen:
            seen.add(path)
            todo += [ROOT / "open_ner" / f"{module}.py" for level, module in imported(path) if level == 1]
    return seen


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_packages_import_only_what_they_may(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in set(files) - COMMANDS:
        ours = {module.split(".")[0] for level, module in imported(path) if level == 0} & OURS
        assert ours - {package} <= ALLOWED[package], path


def test_what_travels_with_the_weights_needs_only_torch_and_transformers() -> None:
    files = travelling()
    names = {"pipeline", "decoding", "packing", "prompts", "answers", "grammar", "conversation", "windows"}
    assert {path.stem for path in files} == names
    for path in files:
        for level, module in imported(path):
            top = module.split(".")[0]
            assert level == 1 or top in {"torch", "transformers"} or top in sys.stdlib_module_names, (path, module)


def test_only_the_teacher_and_the_served_runtime_use_openai() -> None:
    allowed = {"teacher.py", "batch_api.py", "batch_provider.py", "server.py"}
    for package in ALLOWED:
        for path in (ROOT / package).rglob("*.py"):
            if any(module.split(".")[0] == "openai" for _, module in imported(path)):
                assert path.name in allowed, path


def test_only_publish_writes_to_the_hub() -> None:
    writers = ("upload_folder(", "upload_file(", "create_commit(", "create_repo(", ".push_to_hub(")
    files = [path for package in ALLOWED for path in (ROOT / package).rglob("*.py")]
    files += [ROOT / "train_sft.py", ROOT / "eval_zero_shot.py"]
    found = {path.name for path in files if any(word in path.read_text(encoding="utf-8") for word in writers)}
    assert found == {"publish.py"}


def test_annotating_needs_neither_datasets_nor_pyarrow() -> None:
    for name in (
        "teacher",
        "journal",
        "passages",
        "sources",
        "windows",
        "sampling",
        "passage_filters",
        "config",
        "parse",
        "grounding",
        "filters",
        "annotations",
        "annotated_sets",
        "supervised",
        "mixture",
        "contamination",
        "batch_api",
    ):
        tree = ast.parse((ROOT / "dataset_builder" / f"{name}.py").read_text(encoding="utf-8"))
        top = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
        top |= {node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)}
        assert not {module.split(".")[0] for module in top} & {"datasets", "pyarrow", "torch", "transformers"}, name
