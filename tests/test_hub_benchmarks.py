"""Benchmarks by Hub id, loaded with the shipped recipes from a fake Hub over HTTP."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from command_line.recipes import read_yaml
from fake_hub import FakeHub, File
from open_ner.tools.errors import UserError
from zero_shot.suite import SuiteConfig, load_benchmark

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "recipes" / "eval" / "benchmarks"
TOKENS = ["Ada", "Lovelace", "visited", "Rome"]
LOAD = """
import json, sys
from pathlib import Path
from zero_shot.suite import SuiteConfig, load_benchmark

suite = SuiteConfig(name="s", benchmarks=[], protocol=sys.argv[1])
for path in sys.argv[2:]:
    found = load_benchmark(Path(path), suite)
    passages = [[p.text, [[q.type, q.gold, q.gold_spans] for q in p.queries]] for p in found.passages]
    print(json.dumps([found.hub_id, found.revision, found.rejects, passages]))
"""


def parquet(rows_of_tags: list[list], names: list[str] | None, tmp_path: Path, column: str = "ner_tags") -> bytes:
    """A Parquet file as the Hub's conversion writes it, one sentence per row of tags; names go into the features."""
    import datasets

    kind = datasets.ClassLabel(names=names) if names else datasets.Value("int32")
    features = datasets.Features({"tokens": datasets.List(datasets.Value("string")), column: datasets.List(kind)})
    rows = {"tokens": [TOKENS] * len(rows_of_tags), column: rows_of_tags}
    path = tmp_path / "rows.parquet"
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
    return path.read_bytes()


def put(hub: FakeHub, repo: str, files: dict[str, bytes], revision: str | None) -> str:
    """A dataset on the fake Hub whose files are at `revision`; a later commit has none of them."""
    if ("dataset", repo) not in hub.repos:
        namespace, name = repo.split("/")
        hub.create({"type": "dataset", "organization": namespace, "name": name})
    stored = hub.repos["dataset", repo]
    known = dict(stored.commits[-1].files) if stored.commits else {}
    sha = stored.add_commit("data", known | {path: File(content, lfs=True) for path, content in files.items()}).sha
    if revision:
        stored.refs[revision] = sha
    return sha


def load(hub: FakeHub, home: Path, protocol: str, *names: str) -> list:
    environment = {**hub.env(home), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    home.mkdir(exist_ok=True)
    arguments = [protocol, *(str(BENCHMARKS / f"{name}.yaml") for name in names)]
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *arguments], capture_output=True, text=True, env=environment, cwd=home
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]


def test_the_user_recipe_loads_its_sets_by_hub_id(tmp_path: Path) -> None:
    names = read_yaml(ROOT / "recipes" / "eval" / "uniner_hub.yaml")["benchmarks"]
    labels = ["O", "B-person", "I-person", "B-misc", "I-misc"]
    with FakeHub() as hub:
        shas = []
        for name in names:
            recipe = read_yaml(BENCHMARKS / f"{name}.yaml")
            is_restaurant = name == "mit_restaurant_hub"
            content = (
                parquet([[0, 0, 0, 5]], None, tmp_path, "tags")
                if is_restaurant
                else parquet([[1, 2, 0, 3]], labels, tmp_path)
            )
            path = recipe["data_files"].replace("*", "0000")
            shas.append(put(hub, recipe["path"], {path: content}, recipe["revision"]))
        loaded = load(hub, tmp_path / "home", "uniner", *names)
        [[*_, instructuie]] = load(hub, tmp_path / "home", "instructuie", "crossner_ai_hub")
    assert len(loaded) == len(names) == 6
    for name, (hub_id, revision, rejects, passages) in zip(names, loaded, strict=True):
        [[text, queries]] = passages
        found = {kind: gold for kind, gold, _ in queries}
        assert text == "Ada Lovelace visited Rome" and revision in shas and rejects == {}
        if name == "mit_restaurant_hub":
            assert hub_id == "tner/mit_restaurant"
            assert len(found) == 8 and found["Location"] == '["Rome"]' and found["Dish"] == "[]"
        else:
            assert found["person"] == '["Ada Lovelace"]' and "misc" not in found
    assert {kind: gold for kind, gold, _ in instructuie[0][1]}["misc"] == '["Rome"]'


def files_of(recipe: dict, tmp_path: Path) -> dict[str, bytes]:
    """A benchmark's dataset as on the Hub: for each label, a sentence in which Rome has that label."""
    names = recipe.get("tag_names", [])
    features = None
    if not names:  # they are in the dataset's features
        prefix = "" if recipe["name"] == "few_nerd" else "B-"
        names = features = ["O", *(prefix + label for label in [*recipe["verbalize"], *recipe.get("drop", [])])]
    outside = names.index("O")
    rows = [
        [outside, outside, outside, number]
        for number, name in enumerate(names)
        if number != outside and not name.startswith("I-")
    ]
    column = recipe.get("tags_column", "ner_tags")
    pattern = recipe.get("data_files", "")
    if pattern.endswith(".jsonl"):
        lines = [json.dumps({"tokens": TOKENS, column: tags}) + "\n" for tags in rows]
        return {pattern: "".join(lines).encode()}
    content = parquet(rows, features, tmp_path, column)
    if pattern:
        return {pattern.replace("*", "0000"): content}
    config, split = recipe.get("config", "default"), recipe["split"]
    path = f"{config}/{split}-00000-of-00001.parquet"
    card = f"---\nconfigs:\n- config_name: {config}\n  data_files:\n  - split: {split}\n    path: {path}\n---\n"
    return {path: content, "README.md": card.encode()}


def test_every_label_of_the_shipped_sets_is_asked_or_dropped(tmp_path: Path) -> None:
    names = read_yaml(ROOT / "recipes" / "eval" / "universal_ner.yaml")["benchmarks"]
    recipes = {name: read_yaml(BENCHMARKS / f"{name}.yaml") for name in names}
    with FakeHub() as hub:
        for recipe in recipes.values():
            put(hub, recipe["path"], files_of(recipe, tmp_path), recipe.get("revision"))
        loaded = load(hub, tmp_path / "home", "uniner", *names)
    assert len(loaded) == len(names) == 12
    for (name, recipe), (hub_id, revision, rejects, passages) in zip(recipes.items(), loaded, strict=True):
        assert hub_id == recipe["path"] and revision and rejects == {}, name
        asked = {kind for _, queries in passages for kind, _, _ in queries}
        found = {kind for _, queries in passages for kind, gold, _ in queries if gold == '["Rome"]'}
        assert found == asked == set(recipe["verbalize"].values()), name
        assert recipe["verified_in"] and recipe["domain"] and recipe["license"], name


@pytest.mark.parametrize("other", [{}, {"HF_ENDPOINT": "http://127.0.0.1:9"}], ids=["no such dataset", "no network"])
def test_a_dataset_that_is_not_there_gives_a_one_line_error(other: dict[str, str], tmp_path: Path) -> None:
    with FakeHub() as hub:
        environment = {**hub.env(tmp_path), "PYTHONPATH": str(ROOT), **other}
        arguments = ["--config", "recipes/eval/uniner_hub.yaml", "--model", "m", "--output_dir", str(tmp_path)]
        done = subprocess.run(
            [sys.executable, "eval_zero_shot.py", *arguments],
            capture_output=True, text=True, env=environment, cwd=ROOT,
        )  # fmt: skip
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert "tner/mit_restaurant" in done.stderr and "$HF_TOKEN" in done.stderr


def test_offline_gives_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("name: b\npath: org/set\nformat: tags\n")
    with pytest.raises(UserError, match="org/set"):
        load_benchmark(tmp_path / "b.yaml", SuiteConfig(name="s", benchmarks=["b"], protocol="p"))
