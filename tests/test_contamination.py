"""Overlap with benchmarks: the index against brute force, short texts, rejects, and the card's counts."""

import gzip
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from command_line.recipes import read_yaml
from dataset_builder.annotation.annotate import Annotations
from dataset_builder.annotation.types import normalize_type
from dataset_builder.config import ContaminationConfig
from dataset_builder.dataset.contamination import Decontaminator, NgramIndex, load_benchmarks, normalize
from dataset_builder.uniner_distill import CONVERSATION_FEATURES
from fake_hub import FakeHub
from ner_sets.benchmarks import RECIPES
from open_ner.conversation import build_conversation
from open_ner.tools.errors import UserError
from test_hub_benchmarks import TOKENS, files_of, put

LONG = "the quick brown fox jumps over the lazy dog near the river"
TEXTS = st.lists(st.text("abc_\u00fc\n \ud800", max_size=30), max_size=6)


def words_of(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", normalize(text))


def brute_force(text: str, benchmark: str, ngram: int, min_words: int) -> bool:
    words, wanted = words_of(text), words_of(benchmark)
    length = min(ngram, len(wanted))
    runs = {tuple(words[i : i + length]) for i in range(len(words) - length + 1)}
    return length >= min_words and any(tuple(wanted[i : i + length]) in runs for i in range(len(wanted) - length + 1))


@given(TEXTS, TEXTS, st.integers(1, 5), st.integers(1, 5))
def test_the_index_finds_what_brute_force_finds(texts: list[str], passages: list[str], ngram: int, least: int) -> None:
    least = min(least, ngram)
    index = NgramIndex(texts, ngram, least)
    assert [index.overlaps(passage) for passage in passages] == [
        {number for number, text in enumerate(texts) if brute_force(passage, text, ngram, least)}
        for passage in passages
    ]
    assert index.too_short == [number for number, text in enumerate(texts) if len(words_of(text)) < least]


def test_no_run_reaches_into_the_next_passage() -> None:
    first, second = LONG[:22], LONG[22:]
    index = NgramIndex([LONG], 8, 5)
    assert [index.overlaps(text) for text in (f"A {first}", second, first + second)] == [set(), set(), {0}]


@pytest.mark.parametrize(
    "variant",
    ["The quick, brown FOX jumps over the 'lazy' dog", "the quick brown fox\njumps over the lazy\tdog .",
     "the quick-brown fox_jumps over the lazy\N{NO-BREAK SPACE}dog", "the ｑuick brown fox jumps over the lazy dog"],
)  # fmt: skip
def test_case_punctuation_and_tokenization_hide_nothing(variant: str) -> None:
    assert NgramIndex([LONG], 8, 5).overlaps(variant) == {0}


def test_words_of_tokenized_and_running_text_are_the_same() -> None:
    assert words_of("The system 's can not , U.S.") == words_of("The system's can not, U.S.")
    assert words_of("Zu\u0308rich") == words_of("Z\u00fcrich")


def row(name: str, text: str, *types: str) -> dict[str, Any]:
    return {"id": name, "text": text, "entities": [{"start": 0, "end": 3, "text": "the", "type": t} for t in types]}


@pytest.fixture
def benchmarks(tmp_path: Path) -> Path:
    """One benchmark with offsets and one in the authors' format."""
    offsets = [
        {"text": LONG, "types": ["Animal", "body_of_water"], "entities": [{"start": 4, "end": 9, "type": "Animal"}]},
        {"text": "find me some cheap tacos", "entities": []},
        {"text": "tacos please", "entities": []},
    ]
    (tmp_path / "animals.jsonl").write_text("".join(json.dumps(line) + "\n" for line in offsets))
    roles = {"user": "human", "assistant": "gpt"}
    official = [
        {"conversations": [{"from": roles[turn["role"]], "value": turn["content"]} for turn in messages[1:]]}
        for name in ("dish", "city")
        for messages in [build_conversation("where may I find some cheap tacos near the old river", [(name, [])])]
    ]
    (tmp_path / "food.json").write_text(json.dumps(official))
    return tmp_path


def config(folder: Path, **options: Any) -> ContaminationConfig:
    return ContaminationConfig(benchmarks=["animals.jsonl", "food.json"], data_dir=str(folder), **options)


PART = [
    row("clean", "nothing of the kind is here at all", "animal", "person"),
    row("long", f"He wrote: {LONG}!", "person"),
    row("short", "Please find me some cheap tacos now", "person"),
    row(
        "both",
        "Where may I find some cheap tacos near the old mill? The quick brown fox jumps over the lazy dog.",
        "x",
    ),
    row("labeled", "something else again", "dish"),
]


def test_benchmarks_of_both_forms_are_read(benchmarks: Path) -> None:
    animals, food = load_benchmarks(config(benchmarks))
    assert (animals.name, len(animals.texts), animals.types) == ("animals", 3, ["animal", "body of water"])
    assert (food.name, food.types) == ("food", ["city", "dish"])
    assert food.texts == ["where may I find some cheap tacos near the old river"]


def test_passages_are_removed_with_the_benchmarks_name(benchmarks: Path) -> None:
    decontaminator = Decontaminator(config(benchmarks))
    part = Annotations(PART, counts=Counter(entities_kept=6))
    result = decontaminator.clean(part)
    assert [r["id"] for r in result.rows] == ["clean", "labeled"] and len(part.rows) == 5
    assert result.counts["entities_kept"] == sum(len(row["entities"]) for row in result.rows) == 3
    assert [(reject.id, reject.reason) for reject in result.rejects] == [
        ("long", "contaminated: animals"), ("short", "contaminated: animals"), ("both", "contaminated: animals"),
    ]  # fmt: skip
    assert result.counts == {
        "contaminated: animals": 3, "entities_kept": 3, "entities_of_rejected_passages": 3,
    }  # fmt: skip
    # passages that are looked up again count once
    decontaminator.clean(Annotations(PART))
    animals, food = decontaminator.overlaps()
    assert animals == {
        "benchmark": "animals", "texts": 3, "too_short": 1, "texts_found": 2, "passages": 3, "removed": 3,
        "types": 2, "types_shared": ["animal"],
    }  # fmt: skip
    assert (food["texts_found"], food["passages"], food["removed"], food["types_shared"]) == (1, 1, 0, ["dish"])


def test_a_screen_says_what_cleaning_removes_and_its_name_changes_with_the_verdicts(benchmarks: Path) -> None:
    screen = Decontaminator(config(benchmarks)).screen()
    reasons = {row["id"]: screen.why_reject(row["text"]) for row in PART}
    assert {name for name, reason in reasons.items() if reason == "contaminated: animals"} == {"long", "short", "both"}
    assert reasons["clean"] is reasons["labeled"] is None
    assert Decontaminator(config(benchmarks)).screen().name == screen.name
    assert Decontaminator(config(benchmarks, ngram=9)).screen().name != screen.name
    (benchmarks / "food.json").write_text((benchmarks / "food.json").read_text().replace("tacos", "burgers"))
    assert Decontaminator(config(benchmarks)).screen().name != screen.name
    assert Decontaminator(config(benchmarks, passages="report")).screen() is None


def test_types_are_the_same_whatever_their_spelling(benchmarks: Path) -> None:
    decontaminator = Decontaminator(config(benchmarks))
    decontaminator.clean(Annotations([row("a", "nothing here", "Body_of  Water", "waters")]))
    assert [overlap["types_shared"] for overlap in decontaminator.overlaps()] == [["body of water"], []]


def test_reporting_removes_nothing(benchmarks: Path) -> None:
    decontaminator = Decontaminator(config(benchmarks, passages="report"))
    result = decontaminator.clean(Annotations(PART))
    assert result.rows == PART and not result.rejects
    assert [(overlap["passages"], overlap["removed"]) for overlap in decontaminator.overlaps()] == [(3, 0), (1, 0)]


def test_types_are_removed_by_option(benchmarks: Path) -> None:
    result = Decontaminator(config(benchmarks, passages="report", types="remove")).clean(Annotations(PART))
    assert [r["id"] for r in result.rows] == ["clean", "long", "short", "both"]
    assert [entity["type"] for entity in result.rows[0]["entities"]] == ["person"]
    assert result.counts == {
        "type_of_benchmark: animals": 1, "type_of_benchmark: food": 1, "no_entities_left": 1, "entities_kept": -2,
    }  # fmt: skip
    assert [(reject.id, reject.type) for reject in result.rejects] == [
        ("clean", "animal"), ("labeled", "dish"), ("labeled", ""),
    ]  # fmt: skip


def test_a_removed_type_is_not_asked_of_a_passage_with_types_of_its_own(benchmarks: Path) -> None:
    closed = row("a", "nothing here", "animal", "person") | {"types": ["animal", "person", "city"]}
    [kept] = Decontaminator(config(benchmarks, types="remove")).clean(Annotations([closed])).rows
    assert [entity["type"] for entity in kept["entities"]] == ["person"] == kept["types"]
    assert closed["types"] == ["animal", "person", "city"]


def test_without_benchmarks_a_part_is_left_as_it_is() -> None:
    part = Annotations(PART)
    decontaminator = Decontaminator(ContaminationConfig())
    result = decontaminator.clean(part)
    assert result.rows == part.rows and not result.rejects and not result.counts
    assert decontaminator.overlaps() == [] and decontaminator.screen() is None


def test_the_shipped_benchmark_is_found_by_its_name() -> None:
    (sample,) = load_benchmarks(ContaminationConfig(benchmarks=["sample"]))
    assert len(sample.texts) == 48 and len(sample.types) == 16
    result = Decontaminator(ContaminationConfig(benchmarks=["sample"])).clean(Annotations([row("a", sample.texts[0])]))
    assert result.counts["contaminated: sample"] == 1 and not result.rows


def test_a_folder_with_the_name_of_a_shipped_benchmark_does_not_hide_it(tmp_path: Path) -> None:
    (tmp_path / "sample").mkdir()
    (tmp_path / "dataset_builder").symlink_to(Path(__file__).parents[1] / "dataset_builder")  # the benchmark's file
    (sample,) = load_benchmarks(ContaminationConfig(benchmarks=["sample"], data_dir=str(tmp_path)))
    assert len(sample.texts) == 48


TEXT = " ".join(TOKENS)
LOAD = """
import json, sys
from dataset_builder.config import ContaminationConfig
from dataset_builder.dataset.contamination import load_benchmarks

for benchmark in load_benchmarks(ContaminationConfig(benchmarks=sys.argv[2:], data_dir=sys.argv[1])):
    print(json.dumps([benchmark.name, benchmark.texts, benchmark.types]))
"""


def make_local_benchmark(recipe: dict[str, Any], folder: Path) -> None:
    """Write the files of a benchmark in its form: one sentence, in which Rome is a city."""
    annotated = json.dumps({"text": TEXT, "entities": [{"start": 22, "end": 26, "type": "city"}], "types": ["city"]})
    messages = build_conversation(TEXT, [("city", ["Rome"])])
    path = folder / recipe["path"]
    path.parent.mkdir(parents=True, exist_ok=True)
    if recipe["format"] == "offsets":
        path.write_bytes(gzip.compress(annotated.encode()) if path.suffix == ".gz" else annotated.encode())
    elif recipe["format"] == "tags":
        path.write_text(json.dumps({"tokens": TOKENS, "ner_tags": ["O", "O", "O", "B-city"]}))
    elif recipe["format"] == "conll":
        path.write_text("".join(f"{token} {'B-city' if token == 'Rome' else 'O'}\n" for token in TOKENS))
    elif recipe["format"] == "official":
        turns = [{"from": turn["role"], "value": turn["content"]} for turn in messages[1:]]
        path.write_bytes(gzip.compress(json.dumps([{"conversations": turns}]).encode()))
        spans = folder / recipe["spans"]
        spans.parent.mkdir(parents=True)
        spans.write_bytes(gzip.compress(annotated.encode()))
    else:
        row = {"id": "1", "text": TEXT, "source": "", "messages": messages, "negatives": [], "entities": []}
        config = recipe.get("config", "type")
        file = f"{config}/{recipe['split']}-00000-of-00001.parquet"
        files = [{"split": recipe["split"], "path": file}]
        card = json.dumps({"configs": [{"config_name": config, "data_files": files}]})
        (path / config).mkdir(parents=True)
        (path / "README.md").write_text(f"---\n{card}\n---\n")
        datasets.Dataset.from_list([row], features=CONVERSATION_FEATURES).to_parquet(path / file)


def test_every_shipped_benchmark_and_every_form_is_read_by_name(tmp_path: Path) -> None:
    recipes = {path.stem: read_yaml(path) for path in sorted(RECIPES.glob("*.yaml"))}
    own = recipes["bring_your_own"] | {"types": ["city"], "verbalize": {}}
    for form in ("tags", "conll"):  # forms that no shipped recipe reads from a local file
        options = own | {"name": f"own_{form}", "path": f"own.{form}.jsonl", "format": form}
        (tmp_path / f"own_{form}.yaml").write_text(json.dumps(options))
        recipes[str(tmp_path / f"own_{form}.yaml")] = options
    with FakeHub() as hub:
        for name, recipe in recipes.items():
            if recipe["format"] == "tags" and not name.endswith(".yaml"):
                put(hub, recipe["path"], files_of(recipe, tmp_path), recipe.get("revision"))
            else:
                make_local_benchmark(recipe, tmp_path / "data")
        environment = {**hub.env(tmp_path / "home"), "PYTHONPATH": str(RECIPES.parents[2]), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", LOAD, str(tmp_path / "data"), *recipes],
            capture_output=True, text=True, env=environment, cwd=tmp_path,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    loaded = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    forms = {"offsets", "tags", "conll", "official", "conversations"}
    assert len(loaded) >= 28 + 2 and {recipe["format"] for recipe in recipes.values()} == forms
    for (name, texts, types), recipe in zip(loaded, recipes.values(), strict=True):
        assert name == recipe["name"] and texts == [TEXT], name
        asked = recipe.get("types") or recipe.get("verbalize", {}).values()
        assert types == sorted({normalize_type(kind) for kind in asked} or {"city"}), name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no text"),
        ('{"body": "x"}', "no column 'text'"),
        ('{"conversations": [1]}', "not in the format 'official'"),
        ("{", "not JSON"),
    ],
)
def test_a_broken_benchmark_gives_a_one_line_error(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text(content)
    with pytest.raises(UserError, match=message):
        load_benchmarks(ContaminationConfig(benchmarks=["b.jsonl"], data_dir=str(tmp_path)))


def test_texts_whose_annotations_cannot_be_read_are_compared_too(tmp_path: Path) -> None:
    texts = [f"{LONG} number {i}" for i in range(6)]
    rows = [{"text": text, "entities": [[4, 9, "animal"]] * (text != texts[5])} for text in texts]
    path = tmp_path / "b.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in rows))
    options = ContaminationConfig(benchmarks=["b.jsonl"], data_dir=str(tmp_path))
    [benchmark] = load_benchmarks(options)
    assert sorted(benchmark.texts) == texts and benchmark.unread == {"entity_without_offsets": 5}
    screen = Decontaminator(options).screen()
    assert [screen.why_reject(text) for text in texts] == ["contaminated: b"] * 6
    path.write_text(path.read_text() + json.dumps({"text": None, "entities": []}))
    with pytest.raises(UserError, match=r"b: the text of some rows cannot be read: \{'text_is_not_a_string': 1\}"):
        load_benchmarks(options)


def test_texts_whose_types_are_not_asked_are_compared_too(benchmarks: Path) -> None:
    recipe = {"name": "food", "path": "food.json", "format": "official", "types": ["dish"], "drop": ["dish"]}
    (benchmarks / "food.yaml").write_text(json.dumps(recipe))
    options = ContaminationConfig(benchmarks=[str(benchmarks / "food.yaml")], data_dir=str(benchmarks))
    [food] = load_benchmarks(options)
    assert (food.types, food.texts) == ([], ["where may I find some cheap tacos near the old river"])


def test_min_words_must_fit() -> None:
    with pytest.raises(UserError, match="min_words 9"):
        NgramIndex([LONG], 8, 9)
