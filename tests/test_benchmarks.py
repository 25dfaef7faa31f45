"""Benchmarks: all formats become the same queries, and rejects are counted by reason."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from command_line.recipes import read_recipe
from open_ner.tools.errors import UserError
from zero_shot.suite import Benchmark, SuiteConfig, load_benchmark

TEXT = "Paris is in France ."


def official(text: str, name: str, gold: str, number: int) -> dict[str, Any]:
    turns = [f"Text: {text}", "I've read this text.", f"What describes {name} in the text?", gold]
    values = [{"from": "human" if i % 2 == 0 else "gpt", "value": turn} for i, turn in enumerate(turns)]
    return {"id": f"x_{number}", "conversations": values}


def load(tmp_path: Path, recipe: str, **options: Any) -> Benchmark:
    (tmp_path / "b.yaml").write_text("name: b\nlicense: mine\ndomain: none\n" + recipe)
    suite = SuiteConfig(name="s", benchmarks=["b"], data_dir=str(tmp_path), **{"protocol": "p", **options})
    return load_benchmark(tmp_path / "b.yaml", suite)


def offsets_row(number: int = 0, **changes: Any) -> dict[str, Any]:
    row = {
        "id": f"r{number}",
        "text": TEXT,
        "types": ["city", "country", "river"],
        "entities": [
            {"start": 0, "end": 5, "text": "Paris", "type": "city"},
            {"start": 12, "end": 18, "text": "France", "type": "country"},
        ],
    }
    return {**row, **changes}


def test_offsets_become_queries_with_gold_and_spans(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text(json.dumps(offsets_row()))
    benchmark = load(tmp_path, "path: b.jsonl\nformat: offsets\n")
    queries = benchmark.passages[0].queries
    assert [(query.type, query.gold, query.gold_spans) for query in queries] == [
        ("city", '["Paris"]', [(0, 5)]),
        ("country", '["France"]', [(12, 18)]),
        ("river", "[]", []),
    ]


def test_labels_are_verbalized_and_dropped(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text(json.dumps(offsets_row(types=["town", "country"])))
    benchmark = load(tmp_path, "path: b.jsonl\nformat: offsets\nverbalize: {city: town}\ndrop: [country]\n")
    assert [(query.type, query.gold) for query in benchmark.passages[0].queries] == [("town", '["Paris"]')]
    assert benchmark.rejects == {}


def test_the_types_of_a_row_are_labels(tmp_path: Path) -> None:
    rows = [offsets_row(), offsets_row() | {"id": "2", "types": ["river"], "entities": []}]
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, rows)))
    recipe = "path: b.jsonl\nformat: offsets\nverbalize: {city: town, river: stream}\ndrop: [river]\n"
    benchmark = load(tmp_path, recipe)
    assert not any(passage.queries for passage in benchmark.passages[1:])  # all its labels are dropped
    queries = [(query.type, query.gold) for query in benchmark.passages[0].queries]
    assert queries == [("town", '["Paris"]'), ("country", '["France"]')] and benchmark.rejects == {"no_type_to_ask": 1}


def test_a_row_with_an_empty_list_of_types_is_asked_none(tmp_path: Path) -> None:
    rows = [offsets_row(0), offsets_row(1, types=[], entities=[]), offsets_row(2, types=None)]
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, rows)))
    benchmark = load(tmp_path, "path: b.jsonl\nformat: offsets\n")
    asked = {passage.id: [query.type for query in passage.queries] for passage in benchmark.passages}
    assert asked == {"r0": ["city", "country", "river"], "r2": ["city", "country"]}
    assert benchmark.rejects == {"no_type_to_ask": 1}


def test_a_pattern_may_have_wildcards_in_its_folders(tmp_path: Path) -> None:
    (tmp_path / "part1").mkdir()
    (tmp_path / "part1" / "b.jsonl").write_text(json.dumps(offsets_row()))
    assert load(tmp_path, "path: part*/b.jsonl\nformat: offsets\n").size == 1


def test_gold_outside_the_text_and_labels_not_asked_are_counted(tmp_path: Path) -> None:
    entities = [
        {"start": 1, "end": 5, "text": "Paris", "type": "city"},
        {"start": 12, "end": 18, "text": "France", "type": "state"},
    ]
    (tmp_path / "b.jsonl").write_text(json.dumps(offsets_row(entities=entities)))
    benchmark = load(tmp_path, "path: b.jsonl\nformat: offsets\n")
    assert benchmark.rejects == {"gold_span_not_in_text": 1, "label_not_asked: state": 1}


def test_the_authors_files_are_joined_with_offsets_by_text(tmp_path: Path) -> None:
    elements = [official(TEXT, "city", '["Paris"]', 0), official(TEXT, "country", '["France"]', 1)]
    elements += [official("Other .", "city", "[]", 2), official("Other .", "country", "[]", 3)]
    elements += [official("Other .", "city", "[]", 4)]  # the same sentence again is another passage
    with gzip.open(tmp_path / "o.json.gz", "wt") as file:
        json.dump(elements, file)
    (tmp_path / "spans.jsonl").write_text(json.dumps(offsets_row()))
    benchmark = load(tmp_path, "path: o.json.gz\nformat: official\nspans: spans.jsonl\n")
    assert [(p.id, [q.type for q in p.queries]) for p in benchmark.passages] == [
        ("x_0", ["city", "country"]),
        ("x_2", ["city", "country"]),
        ("x_4", ["city"]),
    ]
    assert benchmark.passages[0].queries[0].gold_spans == [(0, 5)]
    assert benchmark.passages[1].queries[0].gold_spans is None
    assert benchmark.rejects == {"text_without_offsets": 2}
    some = load(tmp_path, "path: o.json.gz\nformat: official\ntypes: [country, person]\n")
    assert [(p.id, [q.type for q in p.queries]) for p in some.passages] == [("x_1", ["country"]), ("x_3", ["country"])]


def test_a_limit_takes_a_seeded_sample_and_keeps_the_order(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text("\n".join(json.dumps(offsets_row(i)) for i in range(30)))
    recipe = "path: b.jsonl\nformat: offsets\n"
    first, again, other = (load(tmp_path, recipe, limit=7, seed=seed) for seed in (1, 1, 2))
    ids = [passage.id for passage in first.passages]
    assert ids == [passage.id for passage in again.passages] != [passage.id for passage in other.passages]
    assert len(ids) == 7 and first.size == 30
    assert ids == sorted(ids, key=lambda name: int(name[1:]))


@pytest.mark.parametrize("content", ["", "{not json", '{"id": "a"}', "[[1]]", "[3]"])
def test_empty_and_broken_files_give_a_one_line_error(content: str, tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text(content)
    for format_name in ("offsets", "official"):
        with pytest.raises(UserError, match=r"b\.jsonl"):
            load(tmp_path, f"path: b.jsonl\nformat: {format_name}\n")


def test_a_missing_file_points_to_data_dir(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--data_dir"):
        load(tmp_path, "path: absent.jsonl\nformat: offsets\n")


def tagged(tmp_path: Path, *rows: tuple[list[str], list[str]]) -> None:
    lines = [json.dumps({"id": "same", "tokens": tokens, "ner_tags": tags}) for tokens, tags in rows]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))


def test_tags_and_conll_become_the_same_queries(tmp_path: Path) -> None:
    tagged(tmp_path, (["Ada", "Byron", "saw", "Rome"], ["B-PER", "I-PER", "O", "B-LOC"]), (["Hi"], ["O"]))
    (tmp_path / "t.conll").write_text("-DOCSTART- O\n\nAda B-PER\nByron I-PER\nsaw O\nRome B-LOC\n\nHi O\n")
    common = "verbalize: {PER: person}\ndrop: [LOC]\n"
    for recipe in ("path: t.jsonl\nformat: tags\n", "path: t.conll\nformat: conll\n"):
        benchmark = load(tmp_path, recipe + common)
        assert [passage.text for passage in benchmark.passages] == ["Ada Byron saw Rome", "Hi"]
        queries = [[(q.type, q.gold, q.gold_spans) for q in p.queries] for p in benchmark.passages]
        assert queries == [[("person", '["Ada Byron"]', [(0, 9)])], [("person", "[]", [])]]
        assert len({passage.id for passage in benchmark.passages}) == 2


def test_rows_that_cannot_be_read_are_left_out_and_counted(tmp_path: Path) -> None:
    tagged(tmp_path, (["Ada"], ["B-PER"]), (["Ada", "x"], ["O"]), ([], []), (["Bo"], ["B-PER"]))
    benchmark = load(tmp_path, "path: t.jsonl\nformat: tags\n")
    assert len(benchmark.passages) == 2
    assert benchmark.rejects == {"tags_do_not_match_tokens": 1, "empty_text": 1}


def test_repeats_are_counted_and_overlaps_are_kept(tmp_path: Path) -> None:
    paris = {"start": 0, "end": 5, "text": "Paris", "type": "city"}
    (tmp_path / "b.jsonl").write_text(
        json.dumps(offsets_row(entities=[paris, paris, {**paris, "end": 8, "text": "Paris is"}]))
    )
    benchmark = load(tmp_path, "path: b.jsonl\nformat: offsets\n")
    assert benchmark.passages[0].queries[0].gold_spans == [(0, 5), (0, 8)]
    assert benchmark.rejects == {"gold_span_given_twice": 1, "overlapping_gold_spans_kept": 1}


def test_a_protocol_changes_what_is_asked(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text(json.dumps(offsets_row(types=["city", "country", "misc"])))
    recipe = "path: b.jsonl\nformat: offsets\ndrop: [misc]\nprotocols: {p: {drop: []}, other: {drop: [city]}}\n"
    assert [query.type for query in load(tmp_path, recipe).passages[0].queries] == ["city", "country", "misc"]
    with pytest.raises(UserError, match=r"protocols\.p\.color"):
        load(tmp_path, "path: b.jsonl\nformat: offsets\nprotocols: {p: {color: red}}\n")
    with pytest.raises(UserError, match=r"drop: 'misc' is not a list: write \[misc\]"):
        load(tmp_path, "path: b.jsonl\nformat: offsets\nprotocols: {p: {drop: misc}}\n")


@pytest.mark.parametrize(("protocol", "meant"), [("fien", "fine"), ("instructui", "instructuie"), ("unner", "uniner")])
def test_a_misspelt_protocol_is_refused(tmp_path: Path, protocol: str, meant: str) -> None:
    (tmp_path / "b.jsonl").write_text(json.dumps(offsets_row()))
    recipe = "path: b.jsonl\nformat: offsets\nprotocols: {fine: {drop: [city]}}\n"
    with pytest.raises(UserError, match=f"--protocol {protocol}: did you mean {meant}"):
        load(tmp_path, recipe, protocol=protocol)
    added = recipe.replace("}}", f"}}, {protocol}: {{}}}}")
    assert len(load(tmp_path, added, protocol=protocol).passages[0].queries) == 3


def test_other_wordings_are_asked_after_the_types_own_name(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text(json.dumps(offsets_row()))
    recipe = "path: b.jsonl\nformat: offsets\nwordings: {city: [town, place where people live]}\n"
    plain, reworded = load(tmp_path, recipe), load(tmp_path, recipe, wordings=True)
    assert [query.asked for query in plain.passages[0].queries] == ["city", "country", "river"]
    asked = [(query.type, query.asked, query.wording) for query in reworded.passages[0].queries]
    assert asked[:3] == [("city", "city", 0), ("city", "town", 1), ("city", "place where people live", 2)]
    assert len(asked) == 5 and reworded.digest != plain.digest


def test_a_dataset_of_this_project_is_read_by_its_conversations(tmp_path: Path) -> None:
    import datasets

    from open_ner.conversation import build_conversation

    messages = build_conversation(TEXT, [("city", ["Paris"]), ("river", [])])
    entities = [{"start": 0, "end": 5, "text": "Paris", "type": "city"}]
    folder = tmp_path / "dataset"
    rows = datasets.Dataset.from_list([{"id": "x", "text": TEXT, "messages": messages, "entities": entities}])
    rows.to_parquet(folder / "validation-00000-of-00001.parquet")
    benchmark = load(tmp_path, "path: dataset\nformat: conversations\nsplit: validation\n")
    [passage] = benchmark.passages
    assert [(q.type, q.gold, q.gold_spans) for q in passage.queries] == [
        ("city", '["Paris"]', [(0, 5)]),
        ("river", "[]", []),
    ]
    assert passage.dataset is None
    recipe = "path: dataset\nformat: conversations\nsplit: validation\n"
    [passage] = load(tmp_path, f"{recipe}types: [river, person]\n").passages
    assert [query.type for query in passage.queries] == ["river"]
    with pytest.raises(UserError, match="benchmark b: .*remove `verbalize`"):
        load(tmp_path, f"{recipe}verbalize: {{city: town}}\n")
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path, "path: dataset\nformat: conversations\nsplit: test\n")


def test_a_student_is_asked_with_the_dataset_line_of_its_training(tmp_path: Path) -> None:
    """A held-out conversation has it; for another benchmark it is an option."""
    import datasets

    from open_ner.conversation import build_conversation

    messages = build_conversation(TEXT, [("city", ["Paris"])], "wikigold")
    entities = [{"start": 0, "end": 5, "text": "Paris", "type": "city"}]
    rows = datasets.Dataset.from_list([{"id": "x", "text": TEXT, "messages": messages, "entities": entities}])
    rows.to_parquet(tmp_path / "dataset" / "validation-00000-of-00001.parquet")
    [passage] = load(tmp_path, "path: dataset\nformat: conversations\nsplit: validation\n").passages
    assert passage.dataset == "wikigold"
    (tmp_path / "b.jsonl").write_text(json.dumps({"id": "x", "text": TEXT, "entities": entities}) + "\n")
    plain, named = (load(tmp_path, f"path: b.jsonl\nformat: offsets\n{line}") for line in ("", "dataset: wikigold\n"))
    assert [one.passages[0].dataset for one in (plain, named)] == [None, "wikigold"]
    assert plain.digest != named.digest


DATA = Path(__file__).parents[2] / "shared" / "data" / "zero_shot"


@pytest.mark.skipif(not DATA.exists(), reason="the authors' test files are not on this machine")
def test_the_seven_sets_have_the_published_number_of_queries() -> None:
    recipes = Path(__file__).parents[1] / "recipes" / "eval"
    suite = read_recipe(SuiteConfig, recipes / "uniner.yaml", {"data_dir": str(DATA)})
    loaded = [load_benchmark(recipes / "benchmarks" / f"{name}.yaml", suite) for name in suite.benchmarks]
    assert sum(len(p.queries) for benchmark in loaded for p in benchmark.passages) == 71_111
    assert sum(len({p.text for p in benchmark.passages}) for benchmark in loaded) == 6_446
    assert all(set(b.rejects) <= {"official_gold_differs_from_offsets"} for b in loaded)
