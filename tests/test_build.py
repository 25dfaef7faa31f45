"""The stage `build`: passages and journal become a complete folder, and every reject has a reason."""

import json
import re
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pytest
from pyarrow import parquet

from dataset_builder.annotation.annotate import Annotations
from dataset_builder.build import build, replaced
from dataset_builder.config import BuildConfig, ContaminationConfig, CorpusConfig, DatasetConfig, TeacherConfig
from dataset_builder.corpus.passages import StoredPassages
from dataset_builder.corpus.stage import write_passages
from dataset_builder.dataset.contamination import make_screen
from dataset_builder.dataset.parts import Parts
from dataset_builder.rejects import Reject, RejectFiles
from dataset_builder.teacher.journal import Journal
from dataset_builder.teacher.questions import questions
from dataset_builder.uniner_distill import features_of
from hub.dataset_card import write_dataset_card
from open_ner.tools.errors import UserError

TEACHER = TeacherConfig(model="m", variants=["type", "definition"], price_input=1.0, price_output=2.0)
REPLIES = {"type": '[("Ada", "person"), ("Rome", "city"), ("Oz", "place")]', "definition": '[("Ada", "a human")]'}


@pytest.fixture
def run(tmp_path: Path, tiny_student: Path) -> tuple[BuildConfig, Path]:
    """Twelve passages, and a journal with replies to both questions about each."""
    corpus = tmp_path / "corpus.jsonl"
    rows = [{"id": f"p{i}", "text": f"Ada saw Rome on day {i} of a long year.", "source": "news"} for i in range(12)]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = BuildConfig(
        corpus=CorpusConfig(path=str(corpus), tokenizer=str(tiny_student)),
        output_dir=str(tmp_path / "run"),
        teacher=TEACHER,
        dataset=DatasetConfig(validation_one_in=4),
    )
    folder = tmp_path / "run"
    write_passages(config.corpus, folder)
    answer(folder)
    return config, folder


def answer(folder: Path, skip: set[tuple[str, str]] = frozenset(), **record: Any) -> None:
    """Write a new journal with a reply to each question except those of `skip`, `(variant, passage)`."""
    (folder / "journal.jsonl").unlink(missing_ok=True)
    with Journal(folder / "journal.jsonl") as journal:
        for question in questions(StoredPassages(folder), TEACHER):
            if (question.variant, question.passage_id) not in skip:
                usage = {"prompt_tokens": 1000, "completion_tokens": 500}
                given = {"reply": REPLIES[question.variant], "finish_reason": "stop", "usage": usage, "model": "m-1"}
                given["cost"] = (1000 * TEACHER.price_input + 500 * TEACHER.price_output) / 1e6
                journal.append({"key": question.key, "passage_id": question.passage_id, **given, **record})


def finished(config: BuildConfig, folder: Path) -> Path:
    return build(config, folder, write_dataset_card)


def test_statistics_say_what_is_in_the_files(run: tuple[BuildConfig, Path], tmp_path: Path) -> None:
    dataset = finished(*run)
    stats = json.loads((dataset / "stats.json").read_text())
    assert stats["answers"] == {"paid": 24, "cost": pytest.approx(24 * 0.002)}
    assert stats["teacher"] == ["m-1"] and len(stats["annotated"]) in (1, 2)
    assert stats["sources"] == {"news": 12}
    assert stats["corpus"] == {
        "kept": 12, "rejected": {}, "candidates": 12, "documents": {"corpus.jsonl": 12}, "sources": {"news": 12},
        "licenses": {"": 12}, "revisions": {},
    }  # fmt: skip
    part = stats["variants"]["type"]
    assert (part["passages"], part["entities"], part["spans"], part["types"]) == (12, 24, 24, 2)
    assert part["hallucination_rate"] == pytest.approx(1 / 3)
    rows = datasets.load_dataset(str(dataset), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows[split]) for split in rows} == part["conversations"]
    for name in ("type", "definition", "annotations"):  # without the files: from the card
        info = datasets.load_dataset_builder(str(dataset), name, cache_dir=str(tmp_path / "cache")).info
        assert info.features == features_of(name) and info.dataset_size > 0
    turns = [turn for split in rows.values() for line in split for turn in line["messages"][3:]]
    assert len(turns) == 2 * part["queries"]
    assert sum(turn["content"] == "[]" for turn in turns) == part["negative_queries"]
    assert json.loads((dataset / "types.json").read_text()) == {"person": 12, "city": 12}
    assert {path.name for path in (dataset / "figures").iterdir()} == {
        "types_by_rank.png", "entities_per_passage.png", "sources.png", "rejects.png",
    }  # fmt: skip


def test_passages_without_an_answer_are_counted_rejects(
    run: tuple[BuildConfig, Path], capsys: pytest.CaptureFixture
) -> None:
    config, folder = run
    answer(folder, skip={("type", "p3"), ("definition", "p3"), ("definition", "p7")})
    dataset = finished(config, folder)
    printed = capsys.readouterr().out
    assert "type: 1 of 12 passages have no reply yet" in printed and "definition: 2 of 12 passages" in printed
    stats = json.loads((dataset / "stats.json").read_text())
    assert [stats["variants"][name]["counts"]["no_answer"] for name in ("type", "definition")] == [1, 2]
    rejects = parquet.read_table(dataset / "rejects" / "rejects.parquet").to_pylist()
    assert {(r["variant"], r["passage_id"]) for r in rejects if r["reason"] == "no_answer"} == {
        ("type", "p3"), ("definition", "p3"), ("definition", "p7"),
    }  # fmt: skip
    counted = Counter((r["variant"], r["reason"]) for r in rejects)
    for name, part in stats["variants"].items():
        for reason, number in {**part["counts"], **part["rejected"]}.items():
            if reason not in ("replies", "entities_read", "entities_kept"):
                assert counted.pop((name, reason)) == number
    assert not counted
    assert "| type: replies and entities | no\\_answer | 1 |" in (dataset / "README.md").read_text()


def test_a_foreign_or_missing_journal_stops_a_build_and_damaged_lines_are_counted(
    run: tuple[BuildConfig, Path], capsys: pytest.CaptureFixture
) -> None:
    config, folder = run
    other = TeacherConfig(**{**vars(TEACHER), "model": "another"})
    with pytest.raises(UserError, match="no type reply to any of 12 passages; run --stage annotate"):
        Parts(replace(config, teacher=other), folder).annotations("type")
    journal = folder / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b"Ada", b"Eve", 1)
    journal.write_bytes(b"".join(lines))
    parts = Parts(config, folder)
    replies = [parts.annotations(variant).counts["replies"] for variant in ("type", "definition")]
    assert sum(replies) == 23 and "1 damaged lines" in capsys.readouterr().out
    journal.unlink()
    with pytest.raises(UserError, match="run --stage annotate first"):
        finished(config, folder)
    assert not journal.exists()


def test_what_exceeds_the_budget_is_a_reject_and_stands_on_the_card(run: tuple[BuildConfig, Path]) -> None:
    config, folder = run
    corpus = Path(str(config.corpus.path))
    corpus.write_text(corpus.read_text().replace("day 7 of a", "day 7 of a long and" + " very" * 60))
    write_passages(config.corpus, folder)
    answer(folder)
    config = replace(config, dataset=DatasetConfig(validation_one_in=0, max_conversation_tokens=200))
    dataset = finished(config, folder)
    stats = json.loads((dataset / "stats.json").read_text())
    assert stats["variants"]["type"]["rejected"] == {"passage_too_long": 1}
    assert [stats["configs"][name]["splits"] for name in ("type", "annotations")] == [{"train": 11}, {"train": 12}]
    rejects = parquet.read_table(dataset / "rejects" / "rejects.parquet").to_pylist()
    assert sum(r["reason"] == "passage_too_long" for r in rejects) == 2
    assert "| type: conversations | passage\\_too\\_long | 1 |" in (dataset / "README.md").read_text()


def test_an_interrupted_build_leaves_the_dataset_of_before_and_the_next_one_no_old_file(
    run: tuple[BuildConfig, Path], tmp_path: Path
) -> None:
    config, folder = run
    dataset = finished(config, folder)
    before = {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file()}

    def interrupt(partial: Path) -> None:
        assert (partial / "type" / "train-00000-of-00001.parquet").exists()
        raise KeyboardInterrupt

    config = replace(config, dataset=DatasetConfig(validation_one_in=0))
    with pytest.raises(KeyboardInterrupt):
        build(config, folder, interrupt)
    assert {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file()} == before
    assert finished(config, folder) == dataset
    assert not list(dataset.glob("*/validation-*")) and not list(folder.glob("dataset.*"))
    assert datasets.get_dataset_config_names(str(dataset)) == ["type", "definition", "annotations"]
    rows = datasets.load_dataset(str(dataset), "annotations", cache_dir=str(tmp_path / "cache"))
    assert {split: len(part) for split, part in rows.items()} == {"train": 12}


def test_a_kill_between_the_renames_that_replace_a_dataset_loses_none(
    run: tuple[BuildConfig, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder = run
    dataset = finished(config, folder)
    rename = Path.rename

    def die(path: Path, target: Path) -> Path:
        if path.name == "dataset.partial":
            raise KeyboardInterrupt
        return rename(path, target)

    def interrupt(_: Path) -> None:
        raise KeyboardInterrupt

    config.license = "mit"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", die)
        finished(config, folder)
    assert not dataset.exists()
    with pytest.raises(KeyboardInterrupt):
        build(config, folder, interrupt)
    assert json.loads((dataset / "stats.json").read_text())["license"] == "mit"
    assert "license: mit" in (dataset / "README.md").read_text()


def test_a_folder_with_files_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="holds files that are not a dataset"), replaced(tmp_path / "mine"):
        pass
    assert (tmp_path / "mine" / "thesis.tex").exists()


@pytest.mark.parametrize("name", [".", "thesis.tex"])
def test_the_current_folder_and_a_file_are_not_replaced(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("thesis.tex").write_text("years of work")
    said = f"^{re.escape(name)} cannot become the folder of a dataset"
    with pytest.raises(UserError, match=said), replaced(Path(name)):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_backup_beside_a_folder_that_is_replaced_stays(tmp_path: Path) -> None:
    for name in ("mine", "mine.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "stats.json").write_text(name)
    with replaced(tmp_path / "mine") as partial:
        (partial / "stats.json").write_text("new")
    assert (tmp_path / "mine" / "stats.json").read_text() == "new"
    assert (tmp_path / "mine.old" / "stats.json").read_text() == "mine.old"
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "mine.old"}


def test_one_journal_gives_several_datasets(run: tuple[BuildConfig, Path], tmp_path: Path) -> None:
    config, folder = run
    for law in ("none", "frequency"):
        config.dataset, config.dataset_dir = DatasetConfig(negatives=law), str(tmp_path / law)
        assert finished(config, folder) == tmp_path / law
    counts = [
        json.loads((tmp_path / law / "stats.json").read_text())["variants"]["type"] for law in ("none", "frequency")
    ]
    assert counts[0]["negative_queries"] == 0 and not (folder / "dataset").exists()
    assert counts[0]["entities"] == counts[1]["entities"]


def test_a_reply_is_written_once_however_many_of_its_entities_are_rejected(tmp_path: Path) -> None:
    reply = "x" * 100_000
    found = Annotations(rejects=[Reject("p", "not_in_passage", reply, f"span {i}", "t") for i in range(500)])
    found.rejects.append(Reject("q", "query_too_long", type="a\ttype"))
    with RejectFiles(tmp_path / "rejects") as files:
        files.add("type", found.rejects)
    rows = parquet.read_table(tmp_path / "rejects" / "rejects.parquet").to_pylist()
    assert len(rows) == 501
    assert rows[-1] == {
        "variant": "type",
        "passage_id": "q",
        "reason": "query_too_long",
        "span": "",
        "type": "a\ttype",
    }
    replies = parquet.read_table(tmp_path / "rejects" / "replies.parquet").to_pylist()
    assert replies == [{"variant": "type", "passage_id": "p", "reply": reply}]


def test_a_variant_that_is_named_twice_is_built_once(run: tuple[BuildConfig, Path], tmp_path: Path) -> None:
    config, folder = run
    rejects = []
    for variants in (["type"], ["type", "type"]):
        config.teacher, config.dataset_dir = TeacherConfig(model="m", variants=variants), str(tmp_path / str(variants))
        rejects.append(parquet.read_table(finished(config, folder) / "rejects" / "rejects.parquet"))
    assert rejects[0].num_rows == rejects[1].num_rows > 0


def test_a_reply_that_no_file_can_hold_is_written_with_its_rejects(run: tuple[BuildConfig, Path]) -> None:
    """JSON can contain a lone surrogate and UTF-8 cannot; such a reply must not stop a build that was paid for."""
    config, folder = run
    answer(folder, reply='[("Rome", "ci\ud800ty"), ["Ada", "per\\ud800son"], ("Eve\ud800", "person")]')
    dataset = finished(config, folder)
    rejects = parquet.read_table(dataset / "rejects" / "rejects.parquet").to_pylist()
    assert ("not_in_passage", "Eve\N{REPLACEMENT CHARACTER}") in {(r["reason"], r["span"]) for r in rejects}
    assert parquet.read_table(dataset / "rejects" / "replies.parquet").num_rows == 24


@pytest.fixture
def benchmark(tmp_path: Path) -> ContaminationConfig:
    """A benchmark that contains the third passage and asks for cities."""
    rows = [
        {"text": "Ada saw Rome on day 3 of a long year.", "entities": [{"start": 8, "end": 12, "type": "City"}]},
        {"text": "Another text that stands in no passage of this corpus.", "entities": []},
    ]
    (tmp_path / "bench.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ContaminationConfig(benchmarks=["bench.jsonl"], data_dir=str(tmp_path))


def conserved(counts: dict[str, int], passages: int) -> bool:
    """Whether every passage and entity is kept or rejected with a reason; `no_entities_left` counts passages."""
    reasons = Counter(counts)
    kept, read = reasons.pop("entities_kept"), reasons.pop("entities_read")
    replies = reasons.pop("replies")
    of_passages = sum(n for name, n in reasons.items() if name.startswith(("contaminated", "no_")))
    return read == kept + reasons.total() - of_passages and replies == passages - reasons["no_answer"]


def test_passages_of_a_benchmark_are_rejected_before_the_teacher_is_paid(
    run: tuple[BuildConfig, Path], benchmark: ContaminationConfig
) -> None:
    config, folder = run
    config.contamination = benchmark
    counts = write_passages(config.corpus, folder, partial(make_screen, config.contamination))
    assert counts["kept"] == 11 and counts["rejected"] == {"contaminated: bench": 1}
    (reject,) = StoredPassages(folder).rejects()
    assert (reject.id, reject.reason) == ("p3", "contaminated: bench")
    answer(folder)
    stats = json.loads((finished(config, folder) / "stats.json").read_text())
    assert stats["contamination"] == [
        {"benchmark": "bench", "texts": 2, "too_short": 0, "texts_found": 1, "passages": 1, "removed": 1, "types": 1,
         "types_shared": ["city"]}
    ]  # fmt: skip
    assert stats["corpus"]["rejected"] == {"contaminated: bench": 1} and stats["answers"]["paid"] == 22
    assert stats["variants"]["type"]["counts"] == {
        "replies": 11, "entities_read": 33, "entities_kept": 22, "not_in_passage": 11,
    }  # fmt: skip


@pytest.mark.parametrize("types", ["report", "remove"])
@pytest.mark.parametrize("passages", ["report", "remove"])
def test_what_is_removed_at_the_build_is_a_reject_and_the_counts_conserve(
    passages: str, types: str, run: tuple[BuildConfig, Path], benchmark: ContaminationConfig
) -> None:
    config, folder = run
    config.contamination = replace(benchmark, passages=passages, types=types)
    dataset = finished(config, folder)
    stats = json.loads((dataset / "stats.json").read_text())
    part = stats["variants"]["type"]
    removed = int(passages == "remove")
    assert part["passages"] == 12 - removed and conserved(part["counts"], 12)
    assert part["counts"].get("contaminated: bench", 0) == removed
    assert part["counts"].get("type_of_benchmark: bench", 0) == (part["passages"] if types == "remove" else 0)
    assert part["entities"] == part["counts"]["entities_kept"]
    (overlap,) = stats["contamination"]
    assert (overlap["passages"], overlap["removed"], overlap["types_shared"]) == (1, removed, ["city"])
    rejects = parquet.read_table(dataset / "rejects" / "rejects.parquet").to_pylist()
    assert ("p3" in {r["passage_id"] for r in rejects if r["reason"] == "contaminated: bench"}) == bool(removed)
    card = (dataset / "README.md").read_text()
    assert f"were\n{'removed' if removed else 'kept'} (a passage" in card
    assert "| bench | 2 | 0 | 1 | 1 |" in card and "| 1: city |" in card
