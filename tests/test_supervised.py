"""Human-annotated sets become rows: reasons of rejects, windows, label sets, and the whole command."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from command_line.recipes import read_recipe
from dataset_builder.__main__ import main
from dataset_builder.annotation.annotate import Annotations
from dataset_builder.config import DatasetConfig, SupervisedConfig
from dataset_builder.dataset.supervised import (
    RECIPES,
    annotate_set,
    conversation_options,
    cut_around,
    load_set_configs,
    load_sets,
)
from ner_sets.config import AnnotatedSetConfig
from ner_sets.sets import SetPassage
from open_ner.conversation import passage_turns
from open_ner.tools.errors import UserError

ROOT = Path(__file__).parent.parent
TEXT = "Ada Byron met Rome in May"
PER = {"start": 0, "end": 9, "type": "PER", "text": "Ada Byron"}
LOC = {"start": 14, "end": 18, "type": "LOC"}


def words(text: str) -> int:
    return len(text.split())


def judge(*raws: SetPassage, most: int = 1000, long: str = "window", **options: Any) -> Annotations:
    config = AnnotatedSetConfig(name="set", path="p", format="offsets", **options)
    return annotate_set(config, raws, long, most, words)


def raw(*entities: dict[str, Any], text: str = TEXT, name: str = "1") -> SetPassage:
    return SetPassage(name, text, list(entities))


def test_a_row_has_the_fields_of_a_distilled_one_and_the_name_of_its_set() -> None:
    (row,) = judge(raw(LOC, PER), verbalize={"PER": "person"}, license="MIT").rows
    assert row == {
        "id": "set/1", "text": TEXT, "source": "set", "source_id": "1", "license": "MIT", "start": 0, "end": 25,
        "entities": [
            {"start": 0, "end": 9, "text": "Ada Byron", "type": "person"},
            {"start": 14, "end": 18, "text": "Rome", "type": "LOC"},
        ],
        "teacher": "", "annotated": "", "dataset": "set",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"start": 20, "end": 99, "type": "LOC"}, "span_outside_text"),
        ({"start": -3, "end": 4, "type": "LOC"}, "span_outside_text"),
        ({"start": 9, "end": 3, "type": "LOC"}, "span_outside_text"),
        ({"start": 14, "end": 18, "type": "LOC", "text": "Roma"}, "text_differs"),
        ({"start": 3, "end": 4, "type": "LOC"}, "empty_span"),
        ({"start": 3, "end": 3, "type": "LOC"}, "empty_span"),
    ],
)
def test_a_passage_with_an_invalid_span_is_rejected(fault: dict[str, Any], reason: str) -> None:
    result = judge(raw(PER, fault), raw(PER, text=TEXT + ".", name="2"))
    assert [row["id"] for row in result.rows] == ["set/2"]
    (reject,) = result.rejects
    assert (reject.id, reject.reason, json.loads(reject.text)) == ("set/1", reason, fault)
    assert (result.counts[reason], result.counts["entities_of_rejected_passages"]) == (1, 2)
    # an invalid span does no harm if its label is not asked
    assert len(judge(raw(PER, fault), drop=["LOC"]).rows) == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"drop": ["LOC"]}, "dropped_label: LOC"),
        ({"verbalize": {"LOC": "place"}, "drop": ["place"]}, "dropped_label: LOC"),
        ({"verbalize": {"PER": "person"}, "complete": True}, "unknown_label: LOC"),
        ({"verbalize": {"LOC": " "}}, "unknown_label: LOC"),
        ({"types": ["PER", "person"]}, "not_in_types: LOC"),
    ],
)
def test_a_mention_whose_label_is_not_asked_is_rejected_alone(options: dict[str, Any], reason: str) -> None:
    result = judge(raw(PER, LOC), **options)
    assert [entity["text"] for entity in result.rows[0]["entities"]] == ["Ada Byron"]
    (reject,) = result.rejects
    assert (reject.reason, reject.span, reject.type) == (reason, "Rome", "LOC") and result.counts[reason] == 1


@pytest.mark.parametrize(
    "options",
    [
        {"types": ["LOC"]},
        {"verbalize": {"LOC": "LOC"}, "complete": True},
        {"verbalize": {"PER": " "}},
        {"verbalize": {"PER": "person"}, "drop": ["person"]},
    ],
)
def test_a_closed_row_is_not_asked_a_type_whose_mentions_are_rejected(options: dict[str, Any]) -> None:
    result = judge(SetPassage("1", TEXT, [PER, LOC], types=["PER", "LOC"]), closed=True, **options)
    assert [entity["type"] for entity in result.rows[0]["entities"]] == result.rows[0]["types"] == ["LOC"]


def test_mentions_may_overlap_and_repeat_only_once() -> None:
    nested = [PER, {"start": 4, "end": 9, "type": "PER"}, {"start": 4, "end": 9, "type": "LOC"}]
    result = judge(raw(*nested, {"start": 0, "end": 10, "type": "PER"}))
    assert [(e["start"], e["end"], e["type"]) for e in result.rows[0]["entities"]] == [
        (0, 9, "PER"), (4, 9, "LOC"), (4, 9, "PER"),
    ]  # fmt: skip
    assert result.counts["duplicate_mention"] == 1


@pytest.mark.parametrize(
    ("passage", "reason"),
    [
        (raw(text=" \n"), "empty"),
        (raw(PER, text="Ada \ud800yron met"), "not_unicode"),
        (raw({"start": 0, "end": 3, "type": "P\udfff"}), "not_unicode"),
        (SetPassage("1", problem="tag_without_name", raw="[-100]"), "tag_without_name"),
    ],
)
def test_unfit_passages_are_named(passage: SetPassage, reason: str) -> None:
    result = judge(passage)
    assert not result.rows and result.counts[reason] == 1
    json.dumps([vars(reject) for reject in result.rejects], ensure_ascii=False).encode()


def test_texts_and_ids_are_unique() -> None:
    result = judge(
        raw(PER), raw(PER, name="2"), raw(LOC, name="3"), raw(LOC, text=TEXT + "!"), raw(text="Nobody.", name="")
    )
    assert result.counts["duplicate"] == result.counts["duplicate_annotated_otherwise"] == 1
    ids = [row["id"] for row in result.rows]
    assert len(set(ids)) == 3 and ids[0] == "set/1" and ids[1].startswith("set/1~")
    assert re.fullmatch(r"set/[0-9a-f]{16}", ids[2])


def test_ids_stay_unique_if_duplicates_are_kept() -> None:
    result = judge(*[raw(PER)] * 4, raw(LOC), raw(PER, text=TEXT + "!"), duplicates="keep")
    first, second, *others, last = [row["id"] for row in result.rows]
    assert first == "set/1" and re.fullmatch(r"set/1~[0-9a-f]{8}", second)
    assert others == [f"{second}~{number}" for number in (2, 3, 4)] and last not in (first, second, *others)


@given(
    st.lists(
        st.tuples(
            st.text("ab \n", max_size=12),
            st.lists(st.tuples(st.integers(-1, 13), st.integers(-1, 13), st.sampled_from("XYZ")), max_size=4),
        ),
        max_size=6,
    ),
    st.integers(1, 4),
    st.sampled_from(["window", "reject"]),
)
def test_nothing_is_lost_uncounted(passages: list, most: int, long: str) -> None:
    raws = [
        SetPassage("", text, [{"start": a, "end": b, "type": kind} for a, b, kind in entities])
        for text, entities in passages
    ]
    result = judge(*raws, most=most, long=long, verbalize={"X": "x", "Y": "x"}, complete=True)
    counts = result.counts
    of_mentions = [reject for reject in result.rejects if reject.span]
    assert counts["entities_read"] == (
        counts["entities_kept"] + len(of_mentions) + counts["entities_of_rejected_passages"]
    )
    assert counts["rows_read"] + counts["windows_added"] == len(result.rows) + len(result.rejects) - len(of_mentions)
    assert counts["entities_kept"] == sum(len(row["entities"]) for row in result.rows)
    for row in result.rows:
        assert words(row["text"]) <= most
        for entity in row["entities"]:
            assert row["text"][entity["start"] : entity["end"]] == entity["text"] == entity["text"].strip() != ""


@given(st.text("ab \n", max_size=40).filter(str.strip), st.integers(1, 6), st.data())
def test_windows_cut_no_word_and_no_mention_and_cover_the_text(text: str, most: int, data: st.DataObject) -> None:
    spans = [match.span() for match in re.finditer(r"\S+", text)]
    mentions = []
    for _ in range(data.draw(st.integers(0, 3))):
        first = data.draw(st.integers(0, len(spans) - 1))
        last = data.draw(st.integers(first, len(spans) - 1))
        mentions.append({"start": spans[first][0], "end": spans[last][1]})
    windows = list(cut_around(text, mentions, most, words))
    assert [word for start, end, _ in windows for word in text[start:end].split()] == text.split()
    for start, end, fits in windows:
        assert fits == (words(text[start:end]) <= most)
        for mention in mentions:
            assert (
                mention["end"] <= start
                or end <= mention["start"]
                or (start <= mention["start"] and mention["end"] <= end)
            )


def test_a_script_without_spaces_is_cut_between_characters() -> None:
    text = "艾达在罗马见到了查尔斯。" * 3
    mentions = [{"start": 3, "end": 5}, {"start": 8, "end": 11}]
    windows = list(cut_around(text, mentions, 10, len))
    assert "".join(text[start:end] for start, end, _ in windows) == text and all(fits for *_, fits in windows)
    assert [text[start:end] for start, end, _ in windows][:2] == ["艾达在罗马见到了", "查尔斯。艾达在罗马见"]
    two_characters = list(cut_around(text, [], 10, lambda part: -(-len(part) // 2)))  # a token of two characters
    assert [end - start for start, end, _ in two_characters] == [20, 16]


def test_long_passages_are_cut_or_rejected_by_option() -> None:
    cut = judge(raw(PER, LOC), most=4)
    assert [(row["id"], row["text"], row["start"]) for row in cut.rows] == [
        ("set/1:0", "Ada Byron met Rome", 0), ("set/1:19", "in May", 19),
    ]  # fmt: skip
    assert cut.rows[0]["entities"][1]["text"] == "Rome" and cut.counts["windows_added"] == 1
    whole = judge(raw(PER, LOC), most=4, long="reject")
    assert not whole.rows and whole.counts["longer_than_max_tokens"] == 1
    stuck = judge(raw({"start": 0, "end": 18, "type": "X"}), most=3)
    assert [row["text"] for row in stuck.rows] == ["in May"] and stuck.counts["longer_than_max_tokens"] == 1


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_of_sets_parse(path: Path) -> None:
    config = read_recipe(AnnotatedSetConfig, path)
    assert config.license and path.stem == re.sub(r"\W", "_", config.name).lower()
    assert not set(config.verbalize) & set(config.drop)


def test_sets_are_named_once_and_exist() -> None:
    with pytest.raises(UserError, match=r"'no_set' is neither a file nor one of .*wikigold"):
        load_set_configs(SupervisedConfig(sets=["no_set"]))
    with pytest.raises(UserError, match="2 parts have the name 'wikigold'"):
        load_set_configs(SupervisedConfig(sets=["wikigold", str(RECIPES / "wikigold.yaml")]))


def test_all_is_every_type_of_the_set_and_sampling_follows_the_options() -> None:
    distilled = DatasetConfig(max_queries=3, seed=7)
    every = conversation_options(SupervisedConfig(), distilled)
    assert (every.negatives, every.max_queries, every.seed) == ("all", None, 7)
    some = conversation_options(SupervisedConfig(negatives="frequency", negatives_per_passage=2), distilled)
    assert (some.negatives, some.negatives_per_passage) == ("frequency", 2)


SETS = {
    "people": ("conll", "people.conll", {"verbalize": {"PER": "person", "LOC": "place"}, "complete": True}),
    "places": ("offsets", "places.jsonl", {"drop": ["misc"], "license": "CC0"}),
}
TYPES = {"people": {"person", "place"}, "places": {"city", "river"}}


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """Two sets with different label sets, and their recipes."""
    names = ["Paris", "Rome", "Oslo", "Lima", "Cairo", "Quito", "Delhi", "Tunis", "Minsk", "Seoul", "Accra", "Dakar"]
    sentences = [
        f"Ada B-PER\nByron I-PER\nmet O\n{name} B-{'LOC' if i % 2 else 'PER'}\n" for i, name in enumerate(names)
    ]
    (tmp_path / "people.conll").write_text("\n".join([*sentences, "Nobody O\ncame O\n", "A B-GOD\n"]))
    rows = [
        {"id": i, "text": f"{name} lies by a river", "entities": [{"start": 0, "end": len(name), "type": kind}]}
        for i, name in enumerate(names)
        for kind in (["city", "misc", "river"][i % 3],)
    ]
    rows.append({"id": "bad", "text": "Bonn", "entities": [{"start": 0, "end": 9, "type": "city"}]})
    (tmp_path / "places.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, (form, path, options) in SETS.items():
        (tmp_path / f"{name}.yaml").write_text(json.dumps({"name": name, "path": path, "format": form, **options}))
    return tmp_path


def build(workplace: Path, student: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """Run `python -m dataset_builder` on both sets."""
    sets = [str(workplace / f"{name}.yaml") for name in SETS]
    recipe = {
        "output_dir": str(workplace / "run"),
        "supervised": {"sets": sets, "data_dir": str(workplace)} | options.pop("supervised", {}),
        "dataset": {"validation_one_in": 5, "max_conversation_tokens": 2000},
        "corpus": {"tokenizer": str(student)} | options.pop("corpus", {}),
        **options,
    }
    (workplace / "recipe.yaml").write_text(json.dumps(recipe))
    monkeypatch.setattr(sys, "argv", ["dataset_builder", "--config", str(workplace / "recipe.yaml")])
    main()


def rows_of(workplace: Path, config: str) -> Iterator[dict[str, Any]]:
    splits = datasets.load_dataset(str(workplace / "run" / "dataset"), config, cache_dir=str(workplace / config))
    return (row for split in splits.values() for row in split)


@pytest.mark.parametrize("line", [True, False])
def test_sets_alone_make_a_dataset(
    line: bool, workplace: Path, tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(workplace, tiny_student, monkeypatch, supervised={"dataset_line": line})
    rows = list(rows_of(workplace, "supervised"))
    assert {row["dataset"] for row in rows} == set(TYPES)
    for row in rows:
        asked = {entity["type"] for entity in row["entities"]} | set(row["negatives"])
        assert asked == TYPES[row["dataset"]] and len(row["messages"]) == 7
        assert row["messages"][:3] == passage_turns(row["text"], row["dataset"] if line else None)
    stats = json.loads((workplace / "run" / "dataset" / "stats.json").read_text())["supervised"]
    assert stats["places"]["rejected"] == {"dropped_label: misc": 4, "span_outside_text": 1}
    assert stats["people"]["rejected"] == {"unknown_label: GOD": 1}
    rejects = parquet.read_table(workplace / "run" / "dataset" / "rejects" / "rejects.parquet").to_pylist()
    assert len(rejects) == 6 and {reject["variant"] for reject in rejects} == {
        "supervised: people",
        "supervised: places",
    }
    card = (workplace / "run" / "dataset" / "README.md").read_text()
    assert str(workplace) not in card + (workplace / "run" / "dataset" / "stats.json").read_text()
    assert "| places | CC0 | 2 | 12 | 4 | 8 | 12 | 24 | 16 |" in card
    assert "Teacher" not in card and "Not checked" in card and "the entities people found in them" in card


def test_a_mixture_has_both_in_the_sizes_asked(
    workplace: Path, tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = ROOT / "dataset_builder" / "sample"
    corpus = {"path": str(sample / "passages.jsonl"), "max_tokens": 1000}
    teacher = {"recorded": str(sample / "answers.jsonl")}
    mixture = {"mixture": {"distilled": 3, "people": 1}}
    build(workplace, tiny_student, monkeypatch, supervised=mixture, corpus=corpus, teacher=teacher)
    rows = [row for row in rows_of(workplace, "mixture") if "#" not in row["id"]]
    sizes = {name: sum(row["dataset"] == name for row in rows) for name in ("", "people", "places")}
    assert sizes == {"": 42, "people": 14, "places": 12}
    order = [row["dataset"] for row in rows]
    assert order != sorted(order)
    for row in rows:
        assert row["messages"][:3] == passage_turns(row["text"], row["dataset"] or None)
        if row["dataset"]:  # every type of its own set, and no other
            assert {entity["type"] for entity in row["entities"]} | set(row["negatives"]) == TYPES[row["dataset"]]
    stats = json.loads((workplace / "run" / "dataset" / "stats.json").read_text())
    kept = stats["variants"]["type"]["passages"]
    assert stats["supervised_options"]["passages_outside_mixture"] == kept - 42
    assert set(stats["variants"]) == {"type", "supervised", "mixture"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"supervised": {"sets": []}}, "nothing to build from"),
        ({"supervised": {"mixture": {}}}, "supervised.mixture needs distilled passages and sets"),
        ({"supervised": {"sets": ["nothing"]}}, "'nothing' is neither a file nor one of"),
        ({"supervised": {"sets": ["wikigold"], "data_dir": "no"}}, "no/wikigold/all.jsonl.gz: no such file"),
        ({"supervised": {"max_passages": -1}}, "supervised.max_passages is -1"),
        ({"supervised": {"empty_ratio": -0.5}}, "supervised.empty_ratio is -0.5"),
        ({"supervised": {"negative_ratio": -1.0}}, "supervised.negative_ratio is -1.0"),
        ({"supervised": {"negatives_per_passage": 2}}, "supervised.negatives_per_passage has no effect with"),
        ({"supervised": {"negative_ratio": 2.0}}, "no effect with supervised.negatives: all: set that to frequency"),
        ({"supervised": {"negatives": "none", "negative_ratio": 2.0}}, "supervised.negative_ratio has no effect"),
        ({"dataset": {"max_queries": 2}}, "dataset.max_queries has no effect on human-annotated sets"),
        ({"dataset": {"negatives": "frequency"}}, "dataset.negatives has no effect on human-annotated sets"),
        ({"supervised": {"max_passages": 0}}, "set people: no passage with an entity is left"),
        ({"contamination": {"benchmarks": ["none"]}}, "'none' is neither a file nor one of"),
        (
            {"contamination": {"benchmarks": ["cities.jsonl"], "types": "remove"}},
            "set places: decontamination removed all of its entities; remove it from supervised.sets",
        ),
    ],
)
def test_a_mistake_gives_a_one_line_error(
    options: dict[str, Any], message: str, workplace: Path, tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cities = {"text": "Nowhere at all", "types": ["city", "river"]}
    (workplace / "cities.jsonl").write_text(json.dumps(cities))
    if "contamination" in options:
        options["contamination"]["data_dir"] = str(workplace)
    with pytest.raises(UserError, match=re.escape(message)):
        build(workplace, tiny_student, monkeypatch, **options)


def test_a_missing_file_of_a_set_is_named_before_passages_are_made(
    workplace: Path, tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = ROOT / "dataset_builder" / "sample"
    (workplace / "places.jsonl").unlink()
    with pytest.raises(UserError, match=r"places.jsonl: no such file: set the path of places"):
        build(
            workplace, tiny_student, monkeypatch, corpus={"path": str(sample / "passages.jsonl"), "max_tokens": 1000},
            teacher={"recorded": str(sample / "answers.jsonl")},
        )  # fmt: skip
    assert not (workplace / "run").exists()


def test_a_negative_limit_of_one_set_gives_a_one_line_error(workplace: Path, tiny_student: Path) -> None:
    recipe = workplace / "people.yaml"
    recipe.write_text(json.dumps(json.loads(recipe.read_text()) | {"max_passages": -1}))
    config = SupervisedConfig(sets=[str(recipe)], data_dir=str(workplace))
    with pytest.raises(UserError, match="set people.max_passages is -1: it must be a number of at least 0"):
        load_sets(config, str(tiny_student), 256, 42)


def test_passages_that_would_be_asked_nothing_are_rejected(workplace: Path, tiny_student: Path) -> None:
    config = SupervisedConfig(sets=[str(workplace / "people.yaml")], data_dir=str(workplace), negatives="frequency")
    part = load_sets(config, str(tiny_student), 256, 42)["people"]
    assert all(row["entities"] for row in part.rows) and part.counts["beyond_empty_ratio"] == 2
