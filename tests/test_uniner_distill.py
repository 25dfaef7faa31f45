"""Annotations to conversations, and the loading script that writes them as Parquet."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from dataset_builder.__main__ import write_rejects
from dataset_builder.annotations import annotate_passages
from dataset_builder.config import DatasetConfig
from dataset_builder.passages import Passage, load_tokenizer
from dataset_builder.uniner_distill import count_types, is_held_out, materialise, to_conversations
from open_ner.cli import UserError
from open_ner.conversation import ACKNOWLEDGEMENT, SYSTEM

TEXT = "Ada Byron met Charles in Rome; Ada left Rome in May."
WHOLE = DatasetConfig(max_conversation_tokens=100_000)


def row(name: str, text: str = TEXT, /, **types: list[str]) -> dict[str, Any]:
    """An annotated passage; `types` maps a type to its strings, each of whose occurrences is a mention."""
    entities = [
        {"start": match.start(), "end": match.end(), "text": string, "type": kind.replace("_", " ")}
        for kind, strings in types.items()
        for string in strings
        for match in re.finditer(re.escape(string), text)
    ]
    return {
        "id": name, "text": text, "source": "news", "source_id": name, "licence": "CC0", "start": 0, "end": len(text),
        "entities": entities, "teacher": "m", "annotated": "2026-01-01T00:00:00Z",
    }  # fmt: skip


def corpus(count: int) -> list[dict[str, Any]]:
    kinds = ["person", "city", "month", "river", "company", "deity"]
    names = ["Ada Byron", "Rome", "May"]
    return [row(f"p{i}", **{kinds[(i + j) % 6]: [name] for j, name in enumerate(names)}) for i in range(count)]


def conversations(rows: list[dict], options: DatasetConfig = WHOLE, counter: str = "") -> list[dict[str, Any]]:
    return list(to_conversations(rows, count_types(rows), options, counter))


def asked(conversation: dict[str, Any]) -> dict[str, list[str]]:
    """Each type a conversation asks with its answer, as the student sees them."""
    turns = conversation["messages"][3:]
    names = [re.fullmatch(r"What describes (.+) in the text\?", turn["content"])[1] for turn in turns[::2]]
    return dict(zip(names, [json.loads(turn["content"]) for turn in turns[1::2]], strict=True))


def tokenizer(folder: Path, words: bool) -> str:
    """A folder with a tokenizer whose tokens are words, or letters."""
    counter = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    counter.pre_tokenizer = pre_tokenizers.WhitespaceSplit() if words else pre_tokenizers.Split(Regex("."), "isolated")
    counter.save(str(folder / "tokenizer.json"))
    return str(folder)


def test_the_dialogue_is_that_of_the_paper() -> None:
    (built,) = conversations([row("p", person=["Ada"])])
    assert built["messages"] == [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": f"Text: {TEXT}"},
        {"role": "assistant", "content": ACKNOWLEDGEMENT},
        {"role": "user", "content": "What describes person in the text?"},
        {"role": "assistant", "content": '["Ada"]'},
    ]
    assert (built["id"], built["source"], built["negatives"]) == ("p", "news", [])


def test_strings_are_distinct_in_order_of_appearance_and_the_longer_first() -> None:
    (built,) = conversations([row("p", name=["Rome", "Charles", "Ada", "Ada Byron"])])
    assert asked(built) == {"name": ["Ada Byron", "Ada", "Charles", "Rome"]}
    assert len(built["entities"]) == 6


def test_an_answer_keeps_quotes_and_letters_outside_ascii() -> None:
    text = 'Łódź has the "Żuraw".'
    (built,) = conversations([row("p", text, place=["Łódź", '"Żuraw"'])])
    assert built["messages"][-1]["content"] == r'["Łódź", "\"Żuraw\""]'


def test_absent_types_are_asked_and_answered_with_an_empty_list() -> None:
    for built in conversations(corpus(12)):
        answers = asked(built)
        present = {entity["type"] for entity in built["entities"]}
        assert len(present) == 3 and len(built["negatives"]) == 3
        assert {name for name, strings in answers.items() if strings} == present
        assert {name for name, strings in answers.items() if not strings} == set(built["negatives"])


@pytest.mark.parametrize(
    ("options", "negatives"),
    [
        ({"negatives": "none"}, 0),
        ({"negative_ratio": 0.5}, 2),
        ({"negative_ratio": 0.0}, 0),
        ({"negatives_per_passage": 1}, 1),
        ({"negatives_per_passage": 0}, 0),
        ({"negatives_per_passage": 99}, 3),
    ],
)
def test_the_number_of_absent_types_is_that_of_the_options(options: dict[str, Any], negatives: int) -> None:
    for built in conversations(corpus(6), DatasetConfig(max_conversation_tokens=100_000, **options)):
        assert len(built["negatives"]) == negatives


def test_the_seed_fixes_everything_and_another_seed_shuffles() -> None:
    rows = corpus(8)
    assert conversations(rows) == conversations(rows)
    other = conversations(rows, DatasetConfig(max_conversation_tokens=100_000, seed=7))
    assert [list(asked(built)) for built in other] != [list(asked(built)) for built in conversations(rows)]


def test_present_and_absent_types_are_mixed() -> None:
    first = Counter(bool(next(iter(asked(built).values()))) for built in conversations(corpus(60)))
    assert min(first[True], first[False]) > 10


def test_queries_beyond_the_most_are_left_out_with_their_entities() -> None:
    options = DatasetConfig(max_conversation_tokens=100_000, max_queries=2)
    left_out = 0
    for built in conversations(corpus(12), options):
        answers = asked(built)
        assert len(answers) == 2
        assert {entity["type"] for entity in built["entities"]} | set(built["negatives"]) == set(answers)
        left_out += 3 - len({entity["type"] for entity in built["entities"]})
    assert left_out > 0


@given(limit=st.integers(300, 700))
def test_a_long_conversation_is_continued_with_the_passage_and_no_query_lost(limit: int, tmp_path: Path) -> None:
    rows = corpus(4)
    whole = {built["id"]: asked(built) for built in conversations(rows)}
    parts: dict[str, dict[str, list[str]]] = {}
    folder = tokenizer(tmp_path, words=False)
    encoder = load_tokenizer(folder)
    for built in conversations(rows, DatasetConfig(max_conversation_tokens=limit), folder):
        name, _, number = built["id"].partition("#")
        answers = asked(built)
        assert (number == "") == (name not in parts) and built["messages"][1]["content"] == f"Text: {TEXT}"
        assert not set(answers) & set(parts.get(name, {}))
        assert {entity["type"] for entity in built["entities"]} | set(built["negatives"]) == set(answers)
        tokens = sum(len(encoder.encode(turn["content"]).ids) for turn in built["messages"])
        assert tokens <= limit or len(answers) == 1
        parts[name] = parts.get(name, {}) | answers
    assert parts == whole


def test_parts_of_a_conversation_are_numbered(tmp_path: Path) -> None:
    options = DatasetConfig(max_conversation_tokens=1)
    built = conversations([corpus(1)[0]], options, tokenizer(tmp_path, words=True))
    assert [part["id"] for part in built] == ["p0", "p0#2", "p0#3"]


def test_a_passage_is_held_out_by_its_id_alone() -> None:
    held_out = [f"doc-{i}" for i in range(60) if is_held_out(f"doc-{i}", 10)]
    # published datasets depend on it: never change it
    assert held_out == ["doc-9", "doc-16", "doc-20", "doc-42", "doc-53", "doc-57"]
    assert not any(is_held_out(f"doc-{i}", 0) for i in range(60))
    assert all(is_held_out(f"doc-{i}", 1) for i in range(60))


def test_a_repeated_string_counts_once_a_passage_and_type() -> None:
    assert count_types([row("p", person=["Ada"], city=["Rome"]), row("q", person=["Ada", "Charles"])]) == {
        "person": 3, "city": 1,
    }  # fmt: skip


def built(folder: Path, rows: list[dict], options: DatasetConfig = WHOLE, counter: str = "") -> Path:
    """Materialise `rows` as both variants below `folder`; a second call rebuilds over the same cache."""
    folder.mkdir(exist_ok=True)
    for variant in ("type", "definition"):
        (folder / f"{variant}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in rows))
    variants = {variant: folder / f"{variant}.jsonl" for variant in ("type", "definition")}
    materialise(variants, options, counter, folder / "dataset", folder / "cache")
    return folder / "dataset"


def load(folder: Path, config: str, cache: Path, **options: Any) -> Any:
    return datasets.load_dataset(str(folder / config), cache_dir=str(cache), **options)


@pytest.mark.parametrize("config", ["type", "definition", "annotations"])
def test_every_config_and_split_is_read_back(config: str, tmp_path: Path) -> None:
    rows = corpus(30)
    folder = built(tmp_path / "run", rows)
    splits = load(folder, config, tmp_path / "fresh")
    held_out = [line["id"] for line in rows if is_held_out(line["id"], 10)]
    assert held_out and splits["validation"]["id"] == held_out
    assert splits["train"]["id"] == [line["id"] for line in rows if line["id"] not in held_out]
    for split, table in splits.items():
        for line in table:
            for entity in line["entities"]:
                assert line["text"][entity["start"] : entity["end"]] == entity["text"]
        streamed = list(load(folder, config, tmp_path / "streamed", split=split, streaming=True))
        assert streamed == list(table)
    if config == "annotations":
        assert list(splits["train"]) == [line for line in rows if line["id"] not in held_out]
    else:
        assert {turn["role"] for turn in splits["train"][0]["messages"]} == {"system", "user", "assistant"}


def test_absent_types_come_from_the_training_part_alone(tmp_path: Path) -> None:
    rows = [line | {"id": f"p{i}"} for i, line in enumerate(corpus(30))]
    for line in rows:
        if is_held_out(line["id"], 10):
            line["entities"] = [entity | {"type": "held out"} for entity in line["entities"]]
    splits = load(built(tmp_path / "run", rows), "type", tmp_path / "fresh")
    assert {entity["type"] for line in splits["validation"] for entity in line["entities"]} == {"held out"}
    assert "held out" not in {name for split in splits.values() for line in split for name in line["negatives"]}


def test_a_rebuild_sees_changed_annotations_options_and_tokenizer(tmp_path: Path) -> None:
    def rebuilt(number: int, rows: list[dict], options: DatasetConfig, counter: str = "") -> list[dict]:
        folder = built(tmp_path / "run", rows, options, counter)
        return list(load(folder, "type", tmp_path / f"fresh{number}", split="train"))

    every = DatasetConfig(max_conversation_tokens=100_000, validation_one_in=0)
    assert len(rebuilt(0, corpus(5), every)) == 5
    assert len(rebuilt(1, corpus(6), every)) == 6
    positive = rebuilt(2, corpus(6), DatasetConfig(negatives="none", validation_one_in=0))
    assert not any(line["negatives"] for line in positive)
    narrow = DatasetConfig(max_conversation_tokens=400, validation_one_in=0)
    in_letters = rebuilt(3, corpus(6), narrow, tokenizer(tmp_path, words=False))
    in_words = rebuilt(4, corpus(6), narrow, tokenizer(tmp_path, words=True))  # in the same place
    assert len(in_letters) > len(in_words) == 6


def test_a_rebuild_leaves_no_file_of_a_split_or_config_that_is_gone(tmp_path: Path) -> None:
    folder = built(tmp_path / "run", corpus(30))
    assert (folder / "type" / "validation-00000-of-00001.parquet").exists()
    options = DatasetConfig(max_conversation_tokens=100_000, validation_one_in=0)
    variants = {"type": tmp_path / "run" / "type.jsonl"}
    materialise(variants, options, "", folder, tmp_path / "run" / "cache")
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.parquet")) == [
        "annotations/train-00000-of-00001.parquet", "type/train-00000-of-00001.parquet",
    ]  # fmt: skip


def test_nothing_to_train_on_and_no_tokenizer_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="validation_one_in"):
        built(tmp_path / "all", corpus(3), DatasetConfig(validation_one_in=1))
    with pytest.raises(UserError, match="no/such-tokenizer"):
        built(tmp_path / "none", corpus(3), WHOLE, "no/such-tokenizer")


def test_a_reply_that_no_file_can_hold_ends_among_the_rejects(tmp_path: Path) -> None:
    """JSON can say a lone surrogate, UTF-8 cannot: one such reply must not stop a build that was paid for."""
    passage = Passage("p", TEXT, "news", "p", "", 0, len(TEXT), 9)
    reply = '[("Rome", "ci\ud800ty"), ["Ada", "per\\ud800son"], ("Eve\ud800", "person")]'
    answer = {"reply": reply, "finish_reason": "stop", "model": "m", "time": "t"}
    result = annotate_passages([passage], {"p": answer}, "type", 20)
    rejects = [{"variant": "type", **vars(reject)} for reject in result.rejects]
    write_rejects(rejects, tmp_path)
    (read,) = datasets.Dataset.from_parquet(
        str(tmp_path / "rejects" / "rejects.parquet"), cache_dir=str(tmp_path / "cache")
    )
    assert (read["reason"], read["span"]) == ("not_in_passage", "Eve\N{REPLACEMENT CHARACTER}")
    json.dumps(result.rows, ensure_ascii=False).encode()
