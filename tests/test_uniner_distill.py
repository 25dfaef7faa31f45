"""The `datasets` builder: annotations become a folder of Parquet files that load without change."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
from pyarrow import parquet

from dataset_builder import uniner_distill
from dataset_builder.config import DatasetConfig
from dataset_builder.dataset.annotation_file import AnnotationFile, is_held_out
from dataset_builder.dataset.statistics import BuiltConfig
from dataset_builder.rejects import Reject
from dataset_builder.uniner_distill import materialize
from open_ner.tools.errors import UserError

TEXT = "Ada Byron met Charles in Rome; Ada left Rome in May."
WHOLE = DatasetConfig(max_conversation_tokens=100_000)


def row(name: str, text: str = TEXT, /, **types: list[str]) -> dict[str, Any]:
    """An annotated passage; `types` maps a type to its strings, and each occurrence of a string is a mention."""
    entities = [
        {"start": match.start(), "end": match.end(), "text": string, "type": kind.replace("_", " ")}
        for kind, strings in types.items()
        for string in strings
        for match in re.finditer(re.escape(string), text)
    ]
    return {
        "id": name, "text": text, "source": "news", "source_id": name, "license": "CC0", "start": 0, "end": len(text),
        "entities": entities, "teacher": "m", "annotated": "2026-01-01T00:00:00Z",
    }  # fmt: skip


def corpus(count: int) -> list[dict[str, Any]]:
    kinds = ["person", "city", "month", "river", "company", "deity"]
    names = ["Ada Byron", "Rome", "May"]
    return [row(f"p{i}", **{kinds[(i + j) % 6]: [name] for j, name in enumerate(names)}) for i in range(count)]


def test_a_passage_is_held_out_by_its_id_alone() -> None:
    held_out = [f"doc-{i}" for i in range(60) if is_held_out(f"doc-{i}", 10)]
    # published datasets depend on this split: never change it
    assert held_out == ["doc-9", "doc-16", "doc-20", "doc-42", "doc-53", "doc-57"]
    assert not any(is_held_out(f"doc-{i}", 0) for i in range(60))
    assert all(is_held_out(f"doc-{i}", 1) for i in range(60))


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in rows))
    return path


def built(folder: Path, rows: list[dict], options: DatasetConfig = WHOLE, counter: str = "") -> Path:
    """Materialize `rows` as both variants below `folder`."""
    (folder / "dataset").mkdir(parents=True)
    sources = {variant: write(folder / f"{variant}.jsonl", rows) for variant in ("type", "definition")}
    materialize(sources, options, counter, folder / "dataset")
    return folder / "dataset"


def materialized(folder: Path, options: DatasetConfig = WHOLE, **sources: list[dict]) -> dict[str, BuiltConfig]:
    """Materialize the configs given by name, without a token budget."""
    (folder / "dataset").mkdir(parents=True)
    files = {name: write(folder / f"{name}.jsonl", rows) for name, rows in sources.items()}
    return materialize(files, options, "", folder / "dataset")


def load(folder: Path, config: str, cache: Path, **options: Any) -> Any:
    return datasets.load_dataset(str(folder / config), cache_dir=str(cache), **options)


def test_each_draw_asks_every_training_passage_anew(tmp_path: Path) -> None:
    rows = corpus(30) + [row("nothing")]
    options = DatasetConfig(validation_one_in=10, max_queries=3, draws=1)
    once = load(built(tmp_path / "one", rows, options), "type", tmp_path / "a")
    folder = built(tmp_path / "three", rows, replace(options, draws=3))
    thrice = load(folder, "type", tmp_path / "b")
    assert thrice["validation"].to_list() == once["validation"].to_list()
    lines, size = thrice["train"].to_list(), len(once["train"])
    first, *others = (lines[start : start + size] for start in range(0, len(lines), size))
    assert first == once["train"].to_list() and len(others) == 2
    for number, draw in enumerate(others, 2):
        assert [line["id"] for line in draw] == [f"{line['id']}@{number}" for line in first]
        assert [line["text"] for line in draw] == [line["text"] for line in first]
        assert sum(line["messages"] == other["messages"] for line, other in zip(draw, first, strict=True)) < 3
    assert [line["messages"] for line in others[0]] != [line["messages"] for line in others[1]]
    options = replace(options, draws=3, validation_one_in=0)
    counts = materialized(tmp_path / "counts", options, type=rows)["type"].counts
    assert counts.rejects == [Reject("nothing", "nothing_to_ask")]


def test_a_type_that_another_draw_asks_is_not_counted_as_not_asked(tmp_path: Path) -> None:
    options = DatasetConfig(validation_one_in=5, negatives="none", max_queries=1)
    missing = []
    for draws in (1, 2, 12):
        counts = materialized(tmp_path / str(draws), replace(options, draws=draws), type=corpus(30))["type"].counts
        lines = parquet.read_table(tmp_path / str(draws) / "dataset" / "type").to_pylist()
        asked = {(line["id"].partition("@")[0], e["type"]) for line in lines for e in line["entities"]}
        assert counts.types_not_asked == 3 * 30 - len(asked)
        missing.append(counts.types_not_asked)
    held_out = sum(is_held_out(f"p{i}", 5) for i in range(30))
    assert missing[0] == 60 > missing[1] > missing[2] >= 2 * held_out > 0  # the split for validation has one draw


def test_a_split_without_a_conversation_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [line | {"entities": []} if is_held_out(line["id"], 10) else line for line in corpus(30)]
    configs = materialized(tmp_path, replace(WHOLE, negatives="none"), type=rows)
    assert [*configs["type"].splits] == ["train"] and [*configs["annotations"].splits] == ["train", "validation"]
    assert "type: all passages of the split validation were rejected, so it is left out" in capsys.readouterr().out
    assert [part["name"] for part in configs["type"].dataset_info["splits"]] == ["train"]
    assert [*load(tmp_path / "dataset", "type", tmp_path / "fresh")] == ["train"]


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


def test_the_info_of_a_config_is_that_of_its_files(tmp_path: Path) -> None:
    configs = materialized(tmp_path, type=corpus(30))
    for name, config in configs.items():
        files = {
            split: parquet.ParquetFile(next((tmp_path / "dataset" / name).glob(f"{split}-*")))
            for split in config.splits
        }
        assert config.splits == {split: file.metadata.num_rows for split, file in files.items()}
        info = config.dataset_info
        assert {part["name"]: part["num_examples"] for part in info["splits"]} == config.splits
        assert info["dataset_size"] == sum(part["num_bytes"] for part in info["splits"]) > 1000
        assert info["download_size"] == sum(path.stat().st_size for path in (tmp_path / "dataset" / name).iterdir())
    assert sorted(path.name for path in (tmp_path / "dataset").iterdir()) == ["annotations", "type"]


def test_a_large_config_is_written_in_shards_that_load_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uniner_distill, "SHARD_SIZE", 20_000)
    monkeypatch.setattr(uniner_distill, "ROWS_PER_TABLE", 10)
    rows = corpus(150)
    folder = built(tmp_path / "run", rows)
    names = sorted(path.name for path in (folder / "type").glob("train-*"))
    assert len(names) > 2
    assert names == [f"train-{i:05d}-of-{len(names):05d}.parquet" for i in range(len(names))]
    splits = load(folder, "type", tmp_path / "fresh")
    assert splits["train"]["id"] == [line["id"] for line in rows if not is_held_out(line["id"], 10)]
    for path in folder.rglob("*.parquet"):
        groups = parquet.ParquetFile(path).metadata
        assert max(groups.row_group(i).num_rows for i in range(groups.num_row_groups)) == 10  # a viewer reads one


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (built(tmp_path / name, corpus(30)) for name in ("a", "b"))
    files = sorted(path.relative_to(first) for path in first.rglob("*.parquet"))
    assert len(files) == 6 and all((first / file).read_bytes() == (second / file).read_bytes() for file in files)


def test_rows_of_human_annotated_sets_name_their_set_and_are_asked_only_its_types(tmp_path: Path) -> None:
    rows = [row(f"a{i}", person=["Ada"], **({"city": ["Rome"]} if i % 2 else {})) | {"dataset": "A"} for i in range(8)]
    rows += [
        row(f"b{i}", month=["May"], **({"first name": ["Ada"]} if i % 2 else {})) | {"dataset": "B"} for i in range(8)
    ]
    rows += [row(f"c{i}", deity=["Ada"], **({"empire": ["Rome"]} if i % 2 else {})) for i in range(8)]
    options = DatasetConfig(validation_one_in=0, negatives_per_passage=5, max_conversation_tokens=100_000)
    materialized(tmp_path / "run", options, type=rows[:4], mixture=rows)
    own = {"A": {"person", "city"}, "B": {"month", "first name"}, "": {"deity", "empire"}}
    seen = Counter()
    for line in load(tmp_path / "run" / "dataset", "mixture", tmp_path / "fresh", split="train"):
        asked = {turn["content"][len("What describes ") : -len(" in the text?")] for turn in line["messages"][3::2]}
        assert asked == own[line["dataset"]]
        header = f"Dataset: {line['dataset']}\nText: " if line["dataset"] else "Text: "
        assert line["messages"][1]["content"] == header + line["text"]
        seen[line["dataset"]] += 1
    assert seen == {"A": 8, "B": 8, "": 8}
    assert "dataset" not in load(tmp_path / "run" / "dataset", "type", tmp_path / "other", split="train").column_names


def test_absent_types_are_asked_too_if_all_passages_are_for_validation(tmp_path: Path) -> None:
    kinds = ("person", "city")
    distilled = [row(f"p{i}", **{kinds[i % 2]: ["Ada"]}) for i in range(4)]
    rows = [row(f"a{i}", **{kinds[i % 2]: ["Ada"]}) | {"dataset": "A"} for i in range(4)]
    options = DatasetConfig(negatives_per_passage=1, validation_one_in=1)
    materialized(tmp_path / "run", options, type=distilled, supervised=rows)
    for config in ("type", "supervised"):
        lines = load(tmp_path / "run" / "dataset", config, tmp_path / config, split="validation")
        assert [len(line["negatives"]) for line in lines] == [1, 1, 1, 1], config


def test_absent_types_are_those_of_the_passages_source(tmp_path: Path) -> None:
    kinds = {"biology": ("gene", "cell"), "news": ("city", "month")}
    rows = [
        row(f"{source}{i}", **{own[i % 2]: ["Ada"]}) | {"source": source}
        for source, own in kinds.items()
        for i in range(8)
    ]
    options = DatasetConfig(negatives="source", negatives_per_passage=1, validation_one_in=0)
    materialized(tmp_path / "run", options, type=rows)
    for line in load(tmp_path / "run" / "dataset", "type", tmp_path / "fresh", split="train"):
        assert len(line["negatives"]) == 1 and line["negatives"][0] in kinds[line["source"]]


def test_the_counts_of_an_annotation_file(tmp_path: Path) -> None:
    rows = [row("p0", person=["Ada", "Charles"], name=["Ada"]), row("p1", city=["Rome"])]
    found = AnnotationFile.read(write(tmp_path / "rows.jsonl", rows), one_in=0)
    assert found.counts == {"person": 2, "name": 1, "city": 1} == found.train_counts[""]["news"]
    assert found.per_passage == {3: 1, 1: 1} and found.present_types == 3
    assert found.mentions == 3 + 2  # Ada twice, Charles; Rome twice
    assert found.dates == {"2026-01-01"} and found.sources == {"news": 2} and found.licenses == {"CC0": 2}
    assert [line["id"] for line in found.rows("train")] == ["p0", "p1"] and not list(found.rows("validation"))


def test_nothing_to_train_on_and_no_tokenizer_give_a_one_line_error(tmp_path: Path) -> None:
    rows = corpus(1)
    one_in = next(number for number in range(2, 1000) if is_held_out(rows[0]["id"], number))
    with pytest.raises(UserError, match="validation_one_in"):
        built(tmp_path / "all", rows, DatasetConfig(validation_one_in=one_in))
    empty = [line | {"entities": []} for line in corpus(3)]
    with pytest.raises(UserError, match=r"type: all passages of the split train .* \{'nothing_to_ask': 3\}; raise"):
        built(tmp_path / "empty", empty, replace(WHOLE, negatives="none"))
    with pytest.raises(UserError, match="no/such-tokenizer"):
        built(tmp_path / "none", corpus(3), WHOLE, "no/such-tokenizer")
