"""Sources: all kinds of files and folders, columns by name, and a reason or one clear line for every fault."""

import bz2
import csv
import gzip
import json
import lzma
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
import zstandard

from dataset_builder.config import CorpusConfig, SourceConfig
from dataset_builder.corpus import stage
from dataset_builder.corpus.source_files import pin
from dataset_builder.corpus.sources import Document, read_documents, sources_of
from dataset_builder.corpus.stage import write_passages, write_shard
from dataset_builder.rejects import Reject
from dataset_builder.shards import Shard
from fake_hub import FakeHub
from ner_sets import rows as ner_rows
from open_ner.tools.errors import UserError

ROOT = Path(__file__).parent.parent
TEXT = "Ada Byron met Charles in London."


def read(path: Path, **options: Any) -> list[Document | Reject]:
    config = CorpusConfig(path=str(path), **options)
    return [item for _, item in read_documents(config, config)]


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("kind", ["parquet", "txt", "csv", "jsonl.gz", "jsonl.zst", "json"])
def test_every_type_of_file_is_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"corpus.{kind}"
    table = datasets.Dataset.from_list([{"text": TEXT}])
    line = json.dumps({"text": TEXT}).encode() + b"\n"
    if kind == "parquet":
        table.to_parquet(str(path))
    elif kind == "csv":
        table.to_csv(str(path))
    elif kind == "txt":
        path.write_text(TEXT)
    elif kind == "jsonl.zst":
        path.write_bytes(zstandard.compress(line))
    else:
        path.write_bytes(gzip.compress(line) if kind == "jsonl.gz" else line)
    assert [item.text for item in read(path)] == [TEXT]


def test_folders_and_patterns_are_read(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "texts" / name).mkdir(parents=True)
        (tmp_path / "texts" / name / "x.txt").write_text(f"{name} one\n\n{name} two\n")
        datasets.Dataset.from_list([{"text": name}]).to_parquet(str(tmp_path / "tables" / f"{name}.parquet"))
    texts = tmp_path / "texts"
    assert sorted(item.text.split()[0] for item in read(texts)) == ["a", "b"]
    assert len(read(texts, sample_by="paragraph")) == 4
    assert {item.text.strip() for item in read(texts, sample_by="line")} >= {"a one", "b two"}
    (texts / "test.txt").write_text("text files have no splits")
    assert len(read(texts)) == 3
    assert sorted(item.text for item in read(tmp_path / "tables")) == ["a", "b"]
    assert [item.text for item in read(tmp_path / "tables", data_files="b.parquet")] == ["b"]
    assert len(read(tmp_path / "tables" / "*.parquet")) == 2


def test_a_path_a_pattern_and_a_folder_give_the_same_rows(tmp_path: Path) -> None:
    rows = [{"id": "2023-01-05", "text": TEXT, "source": None}, {"id": "0012", "text": "NA", "source": None}]
    more = [{"id": 7, "text": f"{TEXT} twice", "source": "wiki"}]
    name = "data [v2].jsonl"
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        jsonl(tmp_path / folder / name, *rows)
        (tmp_path / folder / "y.txt").write_text("a text beside the corpus")
        (tmp_path / folder / ".hidden.jsonl").write_text("no corpus")
    first = read(tmp_path / "one" / name)
    assert [(item.id, item.text, item.source) for item in first] == [("2023-01-05", TEXT, ""), ("0012", "NA", "")]
    for way in (tmp_path / "one", tmp_path / "one" / "*.jsonl", tmp_path / "one" / "*"):
        assert read(way) == first
    jsonl(tmp_path / "two" / "e.jsonl", *more)
    (tmp_path / "two" / "f.json.bz2").write_bytes(bz2.compress(json.dumps(more).encode()))
    (tmp_path / "two" / "g.jsonl.xz").write_bytes(lzma.compress(json.dumps(more[0]).encode()))
    both = read(tmp_path / "two")
    assert both[:2] == first and [(item.id, item.source) for item in both[2:]] == [("7", "wiki")] * 3
    assert read(tmp_path / "two" / "*.js*") == both
    datasets.Dataset.from_list([{"text": TEXT}]).to_parquet(str(tmp_path / "t [1].parquet"))
    assert [item.text for item in read(tmp_path / "t [1].parquet")] == [TEXT]


def test_a_folder_with_splits_is_read_by_its_split(tmp_path: Path) -> None:
    jsonl(tmp_path / "train.jsonl", {"text": TEXT})
    jsonl(tmp_path / "test.jsonl", {"text": "for a test"})
    assert [item.text for item in read(tmp_path)] == [TEXT]
    assert [item.text for item in read(tmp_path, split="test")] == ["for a test"]
    with pytest.raises(UserError, match=r"no files of the split 'dev', only of \['test', 'train'\]: set split"):
        read(tmp_path, split="dev")


def test_a_folder_as_on_the_hub_is_read_by_its_split(tmp_path: Path) -> None:
    for split in ("train", "test"):
        path = tmp_path / "data" / f"{split}-00000-of-00001.parquet"
        datasets.Dataset.from_list([{"text": split}]).to_parquet(str(path))
    (tmp_path / "README.md").write_text("# a card")
    (tmp_path / "dataset_info.json").write_text("{}")
    assert [item.text for item in read(tmp_path)] == ["train"]
    assert [item.text for item in read(tmp_path, split="test")] == ["test"]


def test_names_of_splits_of_other_types_of_files_and_files_that_are_never_read_do_not_matter(tmp_path: Path) -> None:
    for name in ("part1.jsonl", "part2.jsonl"):
        jsonl(tmp_path / name, {"text": TEXT})
    for name in ("dev-notes.md", "config.json", "README.md"):
        (tmp_path / name).write_text("{}")
    assert [item.text for item in read(tmp_path)] == [TEXT, TEXT]
    (tmp_path / "part2.jsonl").rename(tmp_path / "train.jsonl")
    (tmp_path / "part1.jsonl").rename(tmp_path / "dev.jsonl")
    assert [item.text for item in read(tmp_path)] == [TEXT]


@pytest.mark.parametrize("name", ["train_delays", "dev-notes", "test/x1"])
def test_a_name_like_that_of_a_split_among_others_is_an_error_with_a_remedy(name: str, tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    for part in ("x1", "x2", name):
        jsonl(tmp_path / f"{part}.jsonl", {"text": part})
    said = rf'{name}\.jsonl is named .* x1\.jsonl like none.*: set data_files \(.*of the source\) to "\*"'
    with pytest.raises(UserError, match=said):
        read(tmp_path)
    for pattern in ("*", "*.jsonl"):
        assert {item.text for item in read(tmp_path, data_files=pattern)} == {"x1", "x2", name}
    assert {"x1", "x2"} <= {item.text for item in read(tmp_path, data_files="x*.jsonl")}


@pytest.mark.parametrize("kind", ["TXT", "CSV", "JSONL", "JSONL.gz", "Parquet"])
def test_the_case_of_a_suffix_does_not_matter(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"corpus.{kind}"
    rows = {"TXT": TEXT, "CSV": f"text\n{TEXT}\n"}.get(kind, json.dumps({"text": TEXT}))
    path.write_bytes(gzip.compress(rows.encode()) if kind.endswith("gz") else rows.encode())
    if kind == "Parquet":
        datasets.Dataset.from_list([{"text": TEXT}]).to_parquet(str(path))
    for way in (path, tmp_path):
        assert [item.text for item in read(way)] == [TEXT]


@pytest.mark.parametrize("kind", ["txt", "csv"])
def test_a_file_that_is_not_utf8_is_named_with_the_remedy(kind: str, tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"{number}.{kind}").write_text(f"text\n{TEXT}\n")
    (tmp_path / f"4.{kind}").write_bytes("text\nZoë met Ada\n".encode("latin-1"))
    said = rf"/4\.{kind}: line 2 is not UTF-8 \(.* at byte 2\): save the file as UTF-8$"
    with pytest.raises(UserError, match=said):
        read(tmp_path)


def test_a_path_below_the_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "texts").mkdir()
    jsonl(tmp_path / "texts" / "c.jsonl", {"text": TEXT})
    for path in ("~/texts", "~/texts/c.jsonl", "~/texts/*.jsonl"):
        config = CorpusConfig(path=path)
        assert [item.text for _, item in read_documents(config, config)] == [TEXT]
        assert pin(config)


@pytest.mark.parametrize("path", ["~/absent", "./absent", "a/b/c", "/a/b", "absent.jsonl", "absent/*.txt"])
def test_a_missing_file_or_folder_is_not_looked_up_on_the_hub(path: str) -> None:
    config = CorpusConfig(path=path)
    with pytest.raises(UserError, match=r"absent.*|a/b.*: no such file or folder: set corpus\.path"):
        [*read_documents(config, config)]


def test_a_run_never_reads_its_own_files(tmp_path: Path) -> None:
    jsonl(tmp_path / "c.jsonl", {"text": TEXT})
    for run, pattern in (("run", None), ("a/run", "*.jsonl"), (".", "*.json"), ("run", "run/dataset/*.parquet")):
        config = CorpusConfig(path=str(tmp_path), data_files=pattern)
        with pytest.raises(UserError, match="is in the corpus .*: set output_dir to a folder outside"):
            write_passages(config, tmp_path / run)


@pytest.mark.parametrize("kind", ["txt", "csv"])
def test_a_run_in_a_folder_of_texts_is_made_once_and_reads_only_these(
    kind: str, tmp_path: Path, tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"a.{kind}").write_text(f"text\n{TEXT}\n")
    config = CorpusConfig(path=str(tmp_path), tokenizer=str(tiny_student), language=None, min_words=1)
    counts = write_passages(config, tmp_path / "run")
    assert counts["kept"] == counts["candidates"] == 1
    jsonl(tmp_path / "run" / "journal.jsonl", {"text": "of the teacher"})
    monkeypatch.setattr(stage, "merge_shards", None)
    assert write_passages(config, tmp_path / "run") == counts
    assert write_shard(config, tmp_path / "run", Shard(1, 2)).startswith("shard 1/2 is already merged")
    with pytest.raises(UserError, match="is in the corpus"):  # whose most frequent files are now those of the run
        write_passages(replace(config, min_words=2), tmp_path / "run")


def test_values_of_a_csv_file_are_text(tmp_path: Path) -> None:
    values = [("007", "NA"), ("12345678901234567890", "None"), ("1.50", 'in "quotes", and\ntwo lines'), ("x", "")]
    with (tmp_path / "c.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "text"), *values])
    *items, empty = read(tmp_path / "c.csv")
    assert [(item.id, item.text) for item in items] == values[:3] and (empty.id, empty.reason) == ("x", "empty")


def test_text_behind_a_comma_without_quotes_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text(f"id,text\n1,{TEXT},,\n2,Ada met Charles, in London.\n3,{TEXT}\n")
    with pytest.raises(UserError, match=r"c\.csv: line 3 has more fields than the header: quote texts"):
        read(path)
    first, broken, last = read(path, skip_broken_lines=True)
    assert first.text == last.text == TEXT
    assert broken == Reject("c.csv:3", "broken_line", "2,Ada met Charles, in London.")


def test_an_unbalanced_quotation_mark_swallows_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    lines = [f"1,{TEXT}", "", '2,"Never again" said Ada', '3,"open', f"4,{TEXT}", f'5,"{TEXT}"', '6,"end', f"7,{TEXT}"]
    path.write_text("\n".join(["id,text", *lines]))
    with pytest.raises(UserError, match=r"c\.csv: the row in line 4 cannot be read .*: quote texts .* the marks in"):
        read(path)
    items = read(path, skip_broken_lines=True)
    assert [(item.id, item.text) for item in items if isinstance(item, Document)] == [(i, TEXT) for i in "1457"]
    assert [item for item in items if isinstance(item, Reject)] == [
        Reject("c.csv:4", "broken_line", '2,"Never again" said Ada'), Reject("c.csv:5", "broken_line", '3,"open'),
        Reject("c.csv:8", "broken_line", '6,"end'),
    ]  # fmt: skip
    path.write_text(f'"id,text\n1,{TEXT}\n')
    with pytest.raises(UserError, match="the row in line 1 cannot be read"):  # the names of the columns
        read(path, skip_broken_lines=True)


@pytest.mark.parametrize("kind", ["txt", "txt.gz", "jsonl", "csv"])
def test_a_byte_order_mark_is_no_part_of_the_text(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"c.{kind}"
    rows = {"jsonl": json.dumps({"text": TEXT}), "csv": f"text\n{TEXT}\n"}.get(kind, TEXT)
    content = b"\xef\xbb\xbf" + rows.encode()
    path.write_bytes(gzip.compress(content) if kind.endswith("gz") else content)
    assert [item.text for item in read(path)] == [TEXT]


@pytest.mark.parametrize(
    ("path", "options", "said"),
    [
        ("c.jsonl", {"split": "test"}, "corpus.split 'test' has no effect on local json files: remove it"),
        ("c.jsonl", {"name": "de"}, "corpus.name 'de'"),
        ("c.jsonl", {"revision": "main"}, "corpus.revision 'main'"),
        ("c.jsonl", {"data_files": "*.jsonl"}, "corpus.data_files"),
        ("c.jsonl", {"sample_by": "line"}, "corpus.sample_by 'line' has no effect on local json files"),
        ("*.jsonl", {"split": "test"}, "corpus.split 'test'"),
        (".", {"revision": "main"}, "corpus.revision 'main' has no effect on this folder of json files"),
        (".", {"data_files": "c.jsonl", "split": "test"}, "corpus.split 'test'"),
    ],
)
def test_an_option_without_an_effect_on_the_source_is_named(
    path: str, options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    jsonl(tmp_path / "c.jsonl", {"text": TEXT})
    with pytest.raises(UserError, match=re.escape(said)):
        read(tmp_path / path, **options)


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_a_small_file_cannot_hold_a_line_that_fills_the_memory(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ner_rows, "LONGEST_LINE", 2**20)
    path = tmp_path / f"c.jsonl.{ending}"
    line = json.dumps({"text": "a" * 2**22}).encode()
    content = json.dumps({"text": TEXT}).encode() + b"\n" + line
    path.write_bytes(gzip.compress(content) if ending == "gz" else zstandard.compress(content))
    with pytest.raises(UserError, match=r"c\.jsonl\..*: line 2 has more than 1 MiB"):
        read(path)


def test_columns_are_named_and_may_be_nested(tmp_path: Path) -> None:
    row = {"body": TEXT, "meta": {"pile_set_name": "Books", "n": 7}, "key": 3}
    path = jsonl(tmp_path / "c.jsonl", row)
    columns = {"text_column": "body", "source_column": "meta.pile_set_name", "id_column": "key"}
    assert read(path, **columns, license="CC0") == [Document("3", TEXT, "Books", "CC0")]
    assert read(path, text_column="body", source="mine", id_column=None)[0].source == "mine"


def test_the_default_license_column_is_also_found_in_british_spelling(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "c.jsonl", {"text": TEXT, "licence": "CC0"}, {"text": TEXT, "license": "MIT", "licence": "x"}
    )
    assert [item.license for item in read(path)] == ["CC0", "MIT"]
    assert [item.license for item in read(path, license_column="rights", license="other")] == ["other"] * 2


def test_each_rejected_document_has_its_reason(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "c.jsonl", {"text": TEXT}, {"text": None}, {"x": 1}, {"text": " \n"}, {"text": "\ud800 x"})
    with path.open("ab") as file:
        file.write(b'{"text": \n\xff\xfe\n[1]\n')
    items = read(path, skip_broken_lines=True)
    assert [item.reason for item in items[1:]] == ["no_text"] * 2 + ["empty", "not_unicode"] + ["broken_line"] * 3
    assert items[-1].id == "c.jsonl:8"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("c.jsonl", b'{"text": "a"}\n{"text": \n', "line 2 is not JSON"),
        ("c.jsonl", b'{"text": "a"}\n[1]\n', "line 2 is not a JSON object"),
        ("c.jsonl", b"[" * 100_000, "nested too deep"),
        ("c.jsonl", b'{"body": "a"}\n', "has no column 'text', only"),
        ("c.jsonl", b'{"text": 5}\n', "contains 5, which is not text"),
        ("c.jsonl", b'{"text": "\xff"}\n', "line 1 is not UTF-8"),
        ("c.jsonl.gz", gzip.compress(b'{"text": "a b c d e f"}\n' * 999, mtime=0)[:-20], "not readable after line"),
        ("c.jsonl.gz", gzip.compress(b"", mtime=0)[:10] + b"\xff" * 9, "not readable after line"),
        ("c.pdf", b"%PDF", "unknown file type"),
        ("c.parquet", b"not parquet", "cannot be read"),
        ("c.txt", b"\xff\xfe\x00", "line 1 is not UTF-8"),
        ("d/c.jsonl", b'{"text": \n', "line 1 is not JSON"),
    ],
)
def test_an_unreadable_source_gives_a_one_line_error(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        read(path.parent if "/" in name else path)
    with pytest.raises(UserError, match="no such file"):
        read(tmp_path / "absent.parquet")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "either corpus.path or corpus.sources"),
        ({"path": "a", "sources": [SourceConfig(path="b")]}, "either"),
        ({"sources": [SourceConfig(weight=1.0)]}, "needs a path"),
        ({"path": "a", "sample": 5, "limit": 5}, "set one"),
        ({"path": "a", "sample": 0}, "corpus.sample is 0"),
        ({"path": "a", "near_duplicates": 7.0}, "near_duplicates is 7.0"),
        ({"sources": [SourceConfig(path="b", weight=1.0)]}, "weights divide corpus.sample"),
        ({"sample": 5, "sources": [SourceConfig(path="b", weight=1.0), SourceConfig(path="c")]}, "or none"),
        ({"path": "a", "shuffle_buffer": 9}, "max_documents"),
        ({"path": "a", "shuffle_buffer": -1}, "corpus.shuffle_buffer is -1"),
        ({"sources": [SourceConfig(path="b")], "text_column": "body"}, "text_column has no effect with corpus.source"),
        ({"sources": [SourceConfig(path="b")], "license": "CC0"}, "corpus.license has no effect with corpus.sources"),
    ],
)
def test_options_that_contradict_each_other_give_a_one_line_error(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        sources_of(CorpusConfig(**options))


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_stream_is_cut_and_shuffled_the_same_way_twice(kind: str, tmp_path: Path) -> None:
    rows, path = [{"text": f"text {i}"} for i in range(200)], tmp_path / f"c.{kind}"
    if kind == "jsonl":
        jsonl(path, *rows)
    else:
        datasets.Dataset.from_list(rows).to_parquet(str(path))
    assert [item.text for item in read(path, max_documents=3)] == ["text 0", "text 1", "text 2"]
    first = [item.text for item in read(path, max_documents=50, shuffle_buffer=100)]
    assert first == [item.text for item in read(path, max_documents=50, shuffle_buffer=100)]
    assert len(set(first)) == 50 and first != [f"text {i}" for i in range(50)]
    assert first != [item.text for item in read(path, max_documents=50, shuffle_buffer=100, seed=1)]
    whole = read(path, max_documents=999, shuffle_buffer=100)
    assert sorted(item.text for item in whole) == sorted(row["text"] for row in rows)


def test_a_changed_file_or_folder_has_another_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    path = jsonl(tmp_path / "d" / "c.jsonl", {"text": "a"})
    seen = set()
    for number in range(3):
        seen |= {pin(SourceConfig(path=str(p))) for p in (path, tmp_path / "d", tmp_path / "d" / "*.jsonl")}
        jsonl(path, *[{"text": "a"}] * (number + 2))
    assert len(seen) == 3 and None not in seen  # one state a version: the three name the same file


HUB = """
import json, sys
from pathlib import Path
from dataset_builder.config import CorpusConfig
from dataset_builder.corpus.passages import StoredPassages
from dataset_builder.corpus.stage import write_passages
out = Path(sys.argv[1])
config = CorpusConfig(path="org/corpus", tokenizer=sys.argv[2], **json.loads(sys.argv[3]))
counts = write_passages(config, out)
print(json.dumps([counts["revisions"], sorted(passage.text for passage in StoredPassages(out))]))
"""


def test_a_hub_dataset_is_streamed_with_config_split_and_revision(tiny_student: Path, tmp_path: Path) -> None:
    with FakeHub() as hub:
        environment = {**hub.env(tmp_path / "home"), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        push = """
import datasets
for config in ("a", "b"):
    for split in ("train", "test"):
        rows = [{"text": f"number {i} of {split} in config %s" % config + WORD} for i in range(3)]
        datasets.Dataset.from_list(rows).push_to_hub("org/corpus", config, split=split)
"""

        def run(*arguments: str) -> str:
            ended = subprocess.run(
                [sys.executable, "-c", *arguments], capture_output=True, text=True, env=environment, cwd=tmp_path
            )
            assert ended.returncode == 0, ended.stderr[-3000:]
            return ended.stdout.splitlines()[-1] if ended.stdout else ""

        def passages(folder: str, **options: Any) -> list[Any]:
            options = {"near_duplicates": None, "language": None, **options}
            return json.loads(run(HUB, str(tmp_path / folder), str(tiny_student), json.dumps(options)))

        run(push.replace("WORD", "''"))
        first = hub.repos["dataset", "org/corpus"].commits[-1].sha
        revisions, texts = passages("out", name="b", split="test")
        assert revisions == {"org/corpus:b": first}
        assert texts == [f"number {i} of test in config b" for i in range(3)]
        run(push.replace("WORD", "' again'"))
        assert passages("out", name="b", split="test")[1][0].endswith("again")  # a new commit is noticed
        assert passages("old", name="b", split="test", revision=first)[1] == texts
        assert len(passages("some", name="a", sample=2)[1]) == 2
        environment["HF_HUB_OFFLINE"] = "1"
        assert passages("old", name="b", split="test", revision=first)[1] == texts
        assert os.path.exists(tmp_path / "old" / "passages.jsonl")
