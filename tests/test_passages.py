"""Documents become passages: offsets, ids, every reject counted, reuse until something changes."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from dataset_builder.config import CorpusConfig, SourceConfig
from dataset_builder.corpus.cutting import Passage
from dataset_builder.corpus.filters import Screen
from dataset_builder.corpus.passages import StoredPassages
from dataset_builder.corpus.stage import write_passages
from dataset_builder.rejects import Reject
from open_ner.tools.errors import UserError

OFF = {"language": None, "max_markup": None, "near_duplicates": None}


def corpus(tmp_path: Path, rows: list[dict[str, Any]], tiny_student: Path, **options: Any) -> CorpusConfig:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return CorpusConfig(path=str(path), tokenizer=str(tiny_student), **options)


def made(config: CorpusConfig, folder: Path) -> list[Passage | Reject]:
    write_passages(config, folder)
    return [*StoredPassages(folder), *StoredPassages(folder).rejects()]


def test_each_reject_has_its_reason(tmp_path: Path, tiny_student: Path) -> None:
    near = "Ada Byron met Charles in London on a rainy day in June of the year 1833 at a party"
    rows = [
        {"text": "Ada Byron met Charles in London."},
        {"text": "Ada Byron met Charles in London."},
        {"text": "too short"},
        {"text": "  \n "},
        {"text": "x" * 4000},
        {"text": "Ada Byron \0 met Charles in London."},
        {"text": near + "."},
        {"text": near + " indeed."},
        {"text": "Der Bürgermeister von Köln eröffnete am Montag gemeinsam mit der Ministerin die neue Brücke."},
    ]
    config = corpus(tmp_path, rows, tiny_student, max_tokens=120)
    counts = write_passages(config, tmp_path / "out")
    reasons = ["duplicate", "too_short", "empty", "word_too_long", "binary", "near_duplicate", "other_language"]
    assert counts["rejected"] == dict.fromkeys(reasons, 1) and counts["kept"] == 2
    assert counts["documents"] == {Path(config.path).name: 9} and counts["candidates"] == 8
    rejects = (tmp_path / "out" / "rejected_passages.jsonl").read_text().splitlines()
    assert [json.loads(line)["reason"] for line in rejects] == reasons


def test_a_passage_knows_its_document(tmp_path: Path, tiny_student: Path) -> None:
    text = " ".join(f"word{i}" for i in range(80))
    rows = [{"id": "doc", "text": text, "source": "wiki", "license": "CC0"}, {"text": "no id here but five words"}]
    items = made(corpus(tmp_path, rows, tiny_student, max_tokens=60, **OFF), tmp_path / "out")
    assert all(isinstance(item, Passage) for item in items) and len(items) > 3
    for item in items[:-1]:
        assert text[item.start : item.end] == item.text and item.id == f"doc:{item.start}"
        assert (item.source, item.license, item.source_id) == ("wiki", "CC0", "doc")
    assert items[-1].id == items[-1].source_id and len(items[-1].id) == 16


def test_ids_come_from_the_corpus_and_are_unique(tmp_path: Path, tiny_student: Path) -> None:
    rows = [{"id": name, "text": f"Ada Byron met Charles in {i} towns."} for i, name in enumerate([0, "a", "a", "a"])]
    items = made(corpus(tmp_path, rows, tiny_student, **OFF), tmp_path / "out")
    assert [item.id for item in items][:2] == ["0", "a"] and len({item.id for item in items}) == 4
    assert [item.source_id for item in items] == ["0", "a", "a", "a"]
    assert items == made(corpus(tmp_path, rows, tiny_student, **OFF), tmp_path / "again")


def test_a_byte_order_mark_is_not_part_of_the_corpus(tmp_path: Path, tiny_student: Path) -> None:
    config = corpus(tmp_path, [{"text": "Ada Byron met Charles in London."}], tiny_student)
    Path(config.path).write_bytes(b"\xef\xbb\xbf" + Path(config.path).read_bytes())
    assert [item.text for item in made(config, tmp_path / "out")] == ["Ada Byron met Charles in London."]


def test_passages_are_reused_until_corpus_or_options_change(tmp_path: Path, tiny_student: Path) -> None:
    rows = [{"text": f"Ada Byron met Charles in London {i} times."} for i in range(3)]
    config, out = corpus(tmp_path, rows, tiny_student, **OFF), tmp_path / "out"
    assert write_passages(config, out)["kept"] == 3
    written = (out / "passages.jsonl").stat().st_mtime_ns
    write_passages(config, out)
    assert (out / "passages.jsonl").stat().st_mtime_ns == written
    config.limit = 2
    assert write_passages(config, out)["kept"] == 2 and len(list(StoredPassages(out))) == 2
    more = [*rows, {"text": "one more passage of words"}]
    assert write_passages(corpus(tmp_path, more, tiny_student, **OFF), out)["kept"] == 4


def documents(number: int) -> list[dict[str, Any]]:
    chooser = random.Random(0)
    words = [f"{a}{b}" for a in ("lo", "ma", "ti", "ven", "rus") for b in ("da", "kel", "mi", "port", "sa", "zur")]
    return [{"id": str(i), "text": " ".join(chooser.choices(words, k=40))} for i in range(number)]


def test_a_sample_is_the_same_whatever_the_order_of_the_corpus(tmp_path: Path, tiny_student: Path) -> None:
    rows = documents(300)
    rows += rows[:20]
    options = {"sample": 50, "max_tokens": 60, "language": None}
    first = made(corpus(tmp_path, rows, tiny_student, **options), tmp_path / "first")
    random.Random(1).shuffle(rows)
    again = made(config := corpus(tmp_path, rows, tiny_student, **options), tmp_path / "again")
    counts = write_passages(config, tmp_path / "again")
    kept = [item for item in again if isinstance(item, Passage)]
    assert len(kept) == 50 and [item for item in first if isinstance(item, Passage)] == kept
    assert counts["candidates"] == len(again) + counts["not_sampled"] and counts["documents"] == {"corpus.jsonl": 320}
    other = made(corpus(tmp_path, rows, tiny_student, seed=1, **options), tmp_path / "other")
    assert {item.id for item in other} != {item.id for item in again}


def test_weights_divide_the_sample_among_sources(tmp_path: Path, tiny_student: Path) -> None:
    for name, offset in (("a", 0), ("b", 200)):
        lines = [json.dumps(row) for row in documents(400)[offset : offset + 200]]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    sources = [SourceConfig(path=str(tmp_path / f"{n}.jsonl"), weight=w, source=n, license="CC0") for n, w in
               (("a", 3.0), ("b", 1.0))]  # fmt: skip
    counts = write_passages(
        CorpusConfig(sources=sources, sample=40, tokenizer=str(tiny_student), language=None), tmp_path / "out"
    )
    assert counts["sources"] == {"a": 30, "b": 10} and counts["licenses"] == {"CC0": 40}


def test_quotas_of_equal_sources_sum_up_to_the_sample(
    tmp_path: Path, tiny_student: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        rows = documents(180)[60 * number : 60 * (number + 1)]
        (tmp_path / f"{number}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    sources = [SourceConfig(path=str(tmp_path / f"{n}.jsonl"), weight=1.0, source=str(n)) for n in range(3)]
    counts = write_passages(
        CorpusConfig(sources=sources, sample=100, tokenizer=str(tiny_student), **OFF), tmp_path / "o"
    )
    assert sorted(counts["sources"].values()) == [33, 33, 34] and capsys.readouterr().out == ""


def test_a_sample_larger_than_the_corpus_says_so(
    tmp_path: Path, tiny_student: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = corpus(tmp_path, documents(5), tiny_student, sample=50, language=None)
    counts = write_passages(config, tmp_path / "out")
    assert counts["kept"] < 50 and counts["not_sampled"] == 0
    assert f"has {counts['kept']} of the 50" in capsys.readouterr().out


def test_files_of_a_folder_that_are_not_read_are_named(
    tmp_path: Path, tiny_student: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name in ("train.jsonl", "test.jsonl"):
        (folder / name).write_text(json.dumps({"text": f"Ada Byron met Charles in London, says {name}."}))
    config = CorpusConfig(path=str(folder), tokenizer=str(tiny_student), **OFF)
    assert write_passages(config, tmp_path / "one")["documents"] == {"corpus": 1}
    said = f"passages: 1 files of {folder}, of another type or split, are not read: test.jsonl\n"
    assert capsys.readouterr().out == said
    for number in range(5):
        (folder / f"scan {number}.pdf").write_bytes(b"%PDF")
    write_passages(config, tmp_path / "two")
    names = ", ".join(f"scan {number}.pdf" for number in range(5))
    assert f"passages: 6 files of {folder}, of another type or split, are not read: {names}, ...\n" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize("options", [{}, {"sample": 5}])
def test_a_corpus_without_a_passage_gives_a_one_line_error(options: dict, tmp_path: Path, tiny_student: Path) -> None:
    with pytest.raises(UserError, match="no rows"):
        write_passages(corpus(tmp_path, [], tiny_student, **options), tmp_path / "out")
    with pytest.raises(UserError, match=r"no passage of this corpus is left; rejected: \{'not_unicode': 1\}"):
        write_passages(corpus(tmp_path, [{"text": "a \ud800"}], tiny_student, **options), tmp_path / "out")


@pytest.mark.parametrize("sample", [None, 20])
def test_a_screen_is_the_last_filter_and_a_sample_stays_whole(
    sample: int | None, tmp_path: Path, tiny_student: Path
) -> None:
    rows = [{"id": f"d{i}", "text": f"Passage number {i} of a small corpus."} for i in range(60)]
    config = corpus(tmp_path, rows, tiny_student, sample=sample, **OFF)
    odd = Screen("odd", lambda text: "odd" if int(text.split()[2]) % 2 else None)
    counts = write_passages(config, tmp_path / "out", lambda: odd)
    kept, rejects = list(StoredPassages(tmp_path / "out")), list(StoredPassages(tmp_path / "out").rejects())
    assert counts["kept"] == len(kept) == (sample or 30) and all(int(p.id[1:]) % 2 == 0 for p in kept)
    assert counts["rejected"] == {"odd": len(rejects)} and {item.reason for item in rejects} == {"odd"}
    assert counts["candidates"] == 60 == len(kept) + len(rejects) + counts.get("not_sampled", 0)
    assert write_passages(config, tmp_path / "out", lambda: odd) == counts
    # another screen, or none, is another choice of passages
    assert write_passages(config, tmp_path / "out", lambda: Screen("all", lambda text: None))["rejected"] == {}
    assert write_passages(config, tmp_path / "out", lambda: odd) == counts
    assert write_passages(config, tmp_path / "out")["rejected"] == {}
