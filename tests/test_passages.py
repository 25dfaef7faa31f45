"""Documents to passages: whole words, full cover, never above the limit, every drop counted."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from dataset_builder.config import CorpusConfig
from dataset_builder.passages import Dropped, Passage, cut_windows, load_passages, make_passages, write_passages
from open_ner.cli import UserError


def counter() -> Callable[[str], list[int]]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(["the quick brown fox jumps over the lazy dog " * 5], trainer)
    return lambda text: [start for start, _ in tokenizer.encode(text).offsets]


COUNT = counter()


@given(
    st.lists(st.sampled_from(["the", "quick", "fox", "Zürich", "😀", "a" * 12, "\n", " "]), max_size=60),
    st.integers(1, 30),
)
def test_windows_cover_the_document_in_whole_words_within_the_limit(words: list[str], limit: int) -> None:
    document = " ".join(words)
    windows = list(cut_windows(document, limit, COUNT))
    assert [word for a, b, _ in windows for word in document[a:b].split()] == document.split()
    for start, end, tokens in windows:
        assert tokens == len(COUNT(document[start:end]))
        assert tokens <= limit or len(document[start:end].split()) == 1


def corpus(tmp_path: Path, rows: list[dict[str, Any]], tiny_student: Path, **options: Any) -> CorpusConfig:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return CorpusConfig(path=str(path), tokenizer=str(tiny_student), **options)


def test_each_drop_has_its_reason(tmp_path: Path, tiny_student: Path) -> None:
    rows = [
        {"text": "Ada Byron met Charles in London."},
        {"text": "Ada Byron met Charles in London."},
        {"text": "too short"},
        {"text": "  \n "},
        {"text": "x" * 4000},
    ]
    items = list(make_passages(corpus(tmp_path, rows, tiny_student, min_words=1, max_tokens=60)))
    reasons = [item.reason for item in items if isinstance(item, Dropped)]
    assert reasons == ["duplicate", "empty", "word_too_long"]
    config = corpus(tmp_path, rows, tiny_student, max_tokens=60)
    assert [i.reason for i in make_passages(config) if isinstance(i, Dropped)].count("too_short") == 2


def test_a_passage_knows_its_document(tmp_path: Path, tiny_student: Path) -> None:
    text = " ".join(f"word{i}" for i in range(80))
    rows = [{"id": "doc", "text": text, "source": "wiki", "licence": "CC0"}, {"text": "no id here but five words"}]
    items = list(make_passages(corpus(tmp_path, rows, tiny_student, max_tokens=60)))
    assert all(isinstance(item, Passage) for item in items) and len(items) > 3
    for item in items[:-1]:
        assert text[item.start : item.end] == item.text and item.id == f"doc:{item.start}"
        assert (item.source, item.licence, item.source_id) == ("wiki", "CC0", "doc")
    assert items[-1].id == items[-1].source_id and len(items[-1].id) == 16


def test_ids_are_the_corpus_own_and_each_is_given_once(tmp_path: Path, tiny_student: Path) -> None:
    rows = [{"id": name, "text": f"Ada Byron met Charles in {i} towns."} for i, name in enumerate([0, "a", "a", "a"])]
    items = list(make_passages(corpus(tmp_path, rows, tiny_student)))
    assert [item.id for item in items][:2] == ["0", "a"] and len({item.id for item in items}) == 4
    assert [item.source_id for item in items] == ["0", "a", "a", "a"]
    assert items == list(make_passages(corpus(tmp_path, rows, tiny_student)))


def test_a_document_that_is_no_unicode_is_dropped(tmp_path: Path, tiny_student: Path) -> None:
    rows = [{"text": "Ada Byron met \ud800 in London."}, {"text": "Ada Byron met Charles in London."}]
    config = corpus(tmp_path, rows, tiny_student)
    assert write_passages(config, tmp_path / "out") == {"kept": 1, "dropped": {"not_unicode": 1}}


def test_a_byte_order_mark_is_no_part_of_the_corpus(tmp_path: Path, tiny_student: Path) -> None:
    config = corpus(tmp_path, [{"text": "Ada Byron met Charles in London."}], tiny_student)
    Path(config.path).write_bytes(b"\xef\xbb\xbf" + Path(config.path).read_bytes())
    assert [item.text for item in make_passages(config)] == ["Ada Byron met Charles in London."]


def test_passages_are_reused_until_corpus_or_options_change(tmp_path: Path, tiny_student: Path) -> None:
    rows = [{"text": f"Ada Byron met Charles in London {i} times."} for i in range(3)]
    config, out = corpus(tmp_path, rows, tiny_student), tmp_path / "out"
    assert write_passages(config, out)["kept"] == 3
    written = (out / "passages.jsonl").stat().st_mtime_ns
    write_passages(config, out)
    assert (out / "passages.jsonl").stat().st_mtime_ns == written
    config.limit = 2
    assert write_passages(config, out)["kept"] == 2 and len(list(load_passages(out))) == 2
    assert (
        write_passages(corpus(tmp_path, rows * 1 + [{"text": "one more passage of words"}], tiny_student), out)["kept"]
        == 4
    )


@pytest.mark.parametrize("kind", ["parquet", "txt", "csv", "jsonl.gz"])
def test_other_files_are_read(kind: str, tmp_path: Path, tiny_student: Path) -> None:
    path, text = tmp_path / f"corpus.{kind}", "Ada Byron met Charles in London."
    table = datasets.Dataset.from_list([{"text": text}])
    if kind == "parquet":
        table.to_parquet(str(path))
    elif kind == "csv":
        table.to_csv(str(path))
    elif kind == "txt":
        path.write_text(text + "\n")
    else:
        path.write_bytes(gzip.compress(json.dumps({"text": text}).encode()))
    config = CorpusConfig(path=str(path), tokenizer=str(tiny_student))
    assert [item.text for item in make_passages(config)] == [text]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("c.jsonl", b'{"text": "a"}\n{"text": \n', "line 2 is not JSON"),
        ("c.jsonl", b'{"text": "a"}\n[1]\n', "line 2 is no JSON object"),
        ("c.jsonl", b'{"body": "a"}\n', "has no column 'text'"),
        ("c.jsonl", b'{"text": 5}\n', "holds 5, not text"),
        ("c.jsonl", b'{"text": "\xff"}\n', "not readable after line"),
        ("c.jsonl.gz", gzip.compress(b'{"text": "a b c d e f"}\n' * 999)[:-20], "not readable after line"),
        ("c.jsonl.gz", gzip.compress(b"")[:10] + b"\xff" * 9, "not readable after line"),
        ("c.jsonl", b"", "no rows"),
        ("c.pdf", b"%PDF", "unknown kind of file"),
        ("c.parquet", b"not parquet", "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    name: str, content: bytes, said: str, tmp_path: Path, tiny_student: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said):
        write_passages(CorpusConfig(path=str(tmp_path / name), tokenizer=str(tiny_student)), tmp_path / "out")
