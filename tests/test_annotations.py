"""Passages and replies become rows, rejects and counts."""

from dataset_builder.annotation.annotate import Rules, TeacherReply, annotate_passages
from dataset_builder.corpus.cutting import Passage


def passage(number: int, text: str) -> Passage:
    return Passage(f"p{number}", text, "news", f"p{number}", "", 0, len(text), 9)


def record(reply: str, finish_reason: str = "stop") -> TeacherReply:
    return {"reply": reply, "finish_reason": finish_reason, "model": "m", "time": "t"}


def test_every_passage_ends_as_a_row_or_a_reject_and_every_entity_is_counted() -> None:
    passages = [passage(i, "Ada met Bob in Rome. Ada left.") for i in range(4)]
    replies = {
        "p0": record('[("Ada", "Person"), ("Ada", "person"), ("Eve", "person"), ("Rome", "other"), ("Rome", "city")]'),
        "p1": record("[]"),
        "p2": record('[("Eve", "person")]'),
    }
    result = annotate_passages(passages, replies, Rules("type", 10))
    assert [row["id"] for row in result.rows] == ["p0"]
    assert [(e["start"], e["end"], e["type"]) for e in result.rows[0]["entities"]] == [
        (0, 3, "person"), (15, 19, "city"), (21, 24, "person"),
    ]  # fmt: skip
    assert dict(result.counts) == {
        "replies": 3, "entities_read": 6, "entities_kept": 2, "duplicate": 1, "not_in_passage": 2, "else_type": 1,
        "no_entities": 1, "no_entities_left": 1, "no_answer": 1,
    }  # fmt: skip
    assert {reject.id for reject in result.rejects} == {"p0", "p1", "p2", "p3"}
    assert result.hallucination_rate == 2 / 6


def test_a_teacher_named_by_a_folder_is_published_without_the_path() -> None:
    reply = record('[("Ada", "person")]') | {"model": "/home/alice/models/Qwen3-32B"}
    [row] = annotate_passages([passage(0, "Ada left Rome.")], {"p0": reply}, Rules("type", 10)).rows
    assert row["teacher"] == "Qwen3-32B"


def test_plurals_merge_over_the_whole_run_and_leave_duplicates_behind() -> None:
    passages = [passage(i, "Ada met Bob in Rome.") for i in range(2)]
    replies = {
        "p0": record('[("Rome", "Cities"), ("Rome", "city"), ("Ada", "news")]'),
        "p1": record('[("Rome", "cities")]'),
    }
    result = annotate_passages(passages, replies, Rules("type", 10))
    assert [[e["type"] for e in row["entities"]] for row in result.rows] == [["news", "city"], ["city"]]
    assert result.merged_types == {"cities": "city"}
    assert result.counts["duplicate"] == 1
    definition = annotate_passages(passages, replies, Rules("definition", 10))
    assert definition.merged_types == {} and definition.rows[1]["entities"][0]["type"] == "cities"


def test_a_third_string_is_counted_and_kept() -> None:
    result = annotate_passages([passage(0, "Ada")], {"p0": record('[("Ada", "person", "a poet")]')}, Rules("type", 10))
    assert result.counts["extra_string"] == 1 and result.rejects[0].type == "a poet"


def test_a_hallucination_counts_as_one_whatever_its_type() -> None:
    replies = {"p0": record('[("Eve", "other"), ("Ada", "person"), ("", "person")]')}
    result = annotate_passages([passage(0, "Ada and Bob")], replies, Rules("type", 10))
    assert (result.counts["not_in_passage"], result.counts["empty"]) == (1, 1)


def test_rejected_passages_and_types_have_their_reasons() -> None:
    passages = [passage(0, "Ada met Bob in Rome."), passage(1, "Eve met Bob.")]
    reply = record('[("Bob", "person"), ("Rome", "city"), ("Oz", "city")]')
    rules = Rules("type", 10, {"city": "asked elsewhere"}.get)
    result = annotate_passages(passages, {"p0": reply, "p1": reply}, rules, {"p1": "seen elsewhere"})
    assert [[e["type"] for e in row["entities"]] for row in result.rows] == [["person"]]
    assert [(r.id, r.reason, r.span, r.type, r.text) for r in result.rejects] == [
        ("p0", "asked elsewhere", "Rome", "city", reply["reply"]),
        ("p0", "not_in_passage", "Oz", "city", reply["reply"]),
        ("p1", "seen elsewhere", "", "", reply["reply"]),
    ]
    assert (result.counts["replies"], result.counts["entities_read"], result.counts["entities_kept"]) == (2, 3, 1)
