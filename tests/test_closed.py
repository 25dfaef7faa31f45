"""A closed world: the types of the recipe are asked and no others, with exact negatives, over real HTTP."""

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import DatasetCard
from pyarrow import parquet

from command_line.recipes import read_recipe
from dataset_builder.__main__ import main
from dataset_builder.annotation.annotate import Annotations, Rules, annotate_passages
from dataset_builder.config import DatasetConfig, TeacherConfig
from dataset_builder.corpus.cutting import Passage
from dataset_builder.corpus.sources import text_sha256
from dataset_builder.dataset.conversations import ConversationCounts, to_conversations
from dataset_builder.dataset.negatives import NegativeSampler
from dataset_builder.rejects import Reject
from dataset_builder.teacher import batch_provider
from dataset_builder.teacher.journal import Journal
from dataset_builder.teacher.questions import questions
from dataset_builder.teacher.requests import request_parameters
from dataset_builder.teacher.stage import fetch_replies
from dataset_builder.teacher.type_set import load_type_set
from fake_batch import FakeBatch
from fake_teacher import FakeTeacher, completion
from made_up import passages
from ner_sets.benchmarks import read_passages
from ner_sets.config import BenchmarkConfig
from open_ner.tools.errors import UserError

ROOT = Path(__file__).parent.parent
TYPES = {"Drug": "a substance that treats a disease", "antibiotic": "", "disease": ""}
EXAMPLE = {
    "text": 'He took "Bactrim" twice.',
    "entities": [{"start": 9, "end": 16, "text": "Bactrim", "type": "drug"}],
}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "guide.md").write_text("Mark brand names.\n", encoding="utf-8")
    (tmp_path / "examples.jsonl").write_text(json.dumps(EXAMPLE) + "\n\n", encoding="utf-8")
    return {"guidelines": str(tmp_path / "guide.md"), "examples": str(tmp_path / "examples.jsonl")}


def prompt(**options: Any) -> str:
    [question] = questions(passages(1), TeacherConfig(types=options.pop("types", TYPES), **options))
    assert [message["role"] for message in question.messages] == ["system", "user"]
    assert question.messages[1]["content"] == "Passage: Passage number 0 about Ada.\nEntities:"
    return question.messages[0]["content"]


def test_the_prompt_has_types_definitions_guidelines_examples_and_the_rule_about_overlaps(files: dict) -> None:
    plain, full, nested = prompt(), prompt(**files), prompt(overlaps="nested")
    assert '- "Drug": a substance that treats a disease\n- "antibiotic"\n- "disease"\n' in plain
    assert "Guidelines" not in plain and "Examples" not in plain and "\n\n\n" not in plain + full
    assert "Mark brand names.\n" in full
    assert 'Passage: He took "Bactrim" twice.\nEntities: [("Bactrim", "Drug")]' in full
    assert "must not overlap" in plain and "must not overlap" not in nested and "may overlap" in nested


def test_what_explains_the_types_is_part_of_the_key_and_texts_are_never_templates(files: dict) -> None:
    def key(**options: Any) -> str:
        return next(questions(passages(1), TeacherConfig(**{"types": TYPES, "model": "m"} | options))).key

    keys = [key(), key(types=[*TYPES]), key(overlaps="nested"), key(response_format="json_schema")]
    keys += [key(guidelines=files["guidelines"]), key(examples=files["examples"]), key(**files)]
    assert len(set(keys)) == len(keys) and key() == key()
    Path(files["guidelines"]).write_text("Mark {{ 7 * 7 }} too.", encoding="utf-8")
    assert key(guidelines=files["guidelines"]) not in keys
    assert "{{ 7 * 7 }}" in prompt(guidelines=files["guidelines"], types={"x": "{{ 6 * 6 }}"})


def test_a_prompt_of_ones_own_has_the_same_variables_and_an_open_one_has_none_of_them(tmp_path: Path) -> None:
    own = tmp_path / "own.jinja"
    own.write_text(
        "{% block user %}{{ types | map(attribute='name') | join('/') }} {{ overlaps }}: {{ passage }}{% endblock %}"
    )
    [question] = questions(passages(1), TeacherConfig(types=TYPES, prompts={"closed": str(own)}))
    assert question.messages == [
        {"role": "user", "content": "Drug/antibiotic/disease flat: Passage number 0 about Ada."}
    ]
    with pytest.raises(UserError, match="'types' is undefined; the variables are `passage`"):
        list(questions(passages(1), TeacherConfig(prompts={"type": str(own)})))
    with pytest.raises(UserError, match="teacher.prompts: type is not one of the variants closed"):
        TeacherConfig(types=TYPES, prompts={"type": str(own)})


@pytest.mark.parametrize("ignored", ["types", "guidelines", "examples"])
def test_a_prompt_of_ones_own_uses_what_the_recipe_sets(ignored: str, tmp_path: Path, files: dict[str, str]) -> None:
    def ask(text: str) -> str:
        own = tmp_path / f"{len(text)}.jinja"
        own.write_text(f"{{% block user %}}{text}{{% endblock %}}")
        config = TeacherConfig(types=TYPES, prompts={"closed": str(own)}, **files)
        return next(questions(passages(1), config)).messages[0]["content"]

    used = {"types": "{{ types[0].name }}", "guidelines": "{{ guidelines }}", "examples": "{{ examples[0].reply }}"}
    rest = " ".join(text for name, text in used.items() if name != ignored) + " {{ passage }}"
    with pytest.raises(UserError, match=f"does not use the variable `{ignored}`: use it as `closed.jinja` does"):
        ask(rest)
    assert ask(f"{used[ignored]} {rest}").endswith("about Ada.")
    if ignored == "types":
        assert ask(f"Drugs, antibiotics, diseases. {rest}")  # written by hand


def test_a_schema_allows_the_types_of_the_set_alone() -> None:
    parameters = request_parameters(TeacherConfig(types=TYPES, response_format="json_schema"))
    pair = parameters["response_format"]["json_schema"]["schema"]["properties"]["entities"]["items"]
    assert pair["properties"] == {"entity": {"type": "string"}, "type": {"type": "string", "enum": [*TYPES]}}
    opened = request_parameters(TeacherConfig(response_format="json_schema"))
    assert "enum" not in json.dumps(opened)


def annotated(text: str, *replies: str, **options: Any) -> Annotations:
    texts = [Passage(f"p{i}", text, "", f"p{i}", "", 0, len(text), 9) for i in range(len(replies))]
    records = {f"p{i}": {"reply": r, "finish_reason": "stop", "model": "m", "time": ""} for i, r in enumerate(replies)}
    types = load_type_set(TeacherConfig(**{"types": TYPES} | options))
    return annotate_passages(texts, records, Rules("closed", 4, types=types))


def found(result: Annotations) -> list[list[tuple[int, int, str]]]:
    return [[(m["start"], m["end"], m["type"]) for m in row["entities"]] for row in result.rows]


def test_only_types_of_the_set_are_kept_in_any_case_and_passages_without_any_too() -> None:
    reply = (
        '[("Zinc", " DRUG "), ("zinc", "drug"), ("Ada", "person"), ("flu", "diseases"), ("Oz", "drug"), ("", "drug")]'
    )
    result = annotated("Zinc is no cure for flu, Ada.", reply, "[]", '[("Ada", "person")]', "None.", types=TYPES)
    assert found(result) == [[(0, 4, "Drug")], [], []]
    assert dict(result.counts) == {
        "replies": 4, "entities_read": 7, "entities_kept": 1, "duplicate": 1, "type_not_in_set": 3,
        "not_in_passage": 1, "empty": 1, "no_list": 1,
    }  # fmt: skip
    assert ("type_not_in_set", "flu", "diseases") in {(r.reason, r.span, r.type) for r in result.rejects}
    assert [row["doubtful"] for row in result.rows] == [[], [], []]


def test_a_type_of_ones_own_may_have_any_name() -> None:
    result = annotated("Ada saw Rome.", '[("Ada", "人"), ("Rome", "Other")]', types=["人", "other", "None"])
    assert found(result) == [[(0, 3, "人"), (8, 12, "other")]]


def test_flat_keeps_the_longest_and_of_equals_the_first_and_nested_keeps_all() -> None:
    text = "Penicillin G and G were given against G fever; penicillin helped."
    reply = '[("penicillin", "antibiotic"), ("Penicillin G", "drug"), ("Penicillin G", "antibiotic"), '
    reply += '("G fever", "disease"), ("G", "drug"), ("fever", "antibiotic"), ("G fever", "drug")]'
    flat, nested = annotated(text, reply), annotated(text, reply, overlaps="nested")
    assert found(flat) == [[(0, 12, "Drug"), (17, 18, "Drug"), (38, 45, "disease"), (47, 57, "antibiotic")]]
    assert [(r.reason, r.span, r.type) for r in flat.rejects] == [
        ("overlap", "Penicillin G", "antibiotic"), ("overlap", "G fever", "drug"),
        ("overlap", "fever", "antibiotic"), ("overlap_in_part", "G", "drug"),
    ]  # fmt: skip
    assert flat.counts["entities_kept"] == 4 and not flat.rows[0]["doubtful"]
    assert len(found(nested)[0]) == 9 and nested.rejects == [] and nested.counts["entities_kept"] == 7


def conversations(result: Annotations, **options: Any) -> tuple[list[dict[str, Any]], ConversationCounts]:
    sampler, counts = NegativeSampler(dict.fromkeys(TYPES, 0), "all", 1), ConversationCounts()
    given = {"": DatasetConfig(negatives="all", **options)}
    return list(to_conversations(result.rows, {"": sampler}, given, None, counts)), counts


def test_each_passage_is_asked_the_whole_set_but_not_a_type_whose_entities_were_all_rejected() -> None:
    replies = [
        '[("Zinc", "drug")]',
        "[]",
        '[("a b c d e", "disease"), ("Oz", "drug")]',
        '[("Oz", "drug"), ("Zinc", "drug")]',
    ]
    result = annotated("Zinc or a b c d e.", *replies)
    asked, counts = conversations(result)
    assert [row["doubtful"] for row in result.rows] == [[], [], ["Drug", "disease"], []]
    assert [sorted(row["negatives"]) for row in asked] == [
        ["antibiotic", "disease"], ["Drug", "antibiotic", "disease"], ["antibiotic"], ["antibiotic", "disease"],
    ]  # fmt: skip
    assert counts.rejects == [Reject("p2", "doubtful_type", type=name) for name in ("Drug", "disease")]
    assert (counts.queries[""], counts.negative_queries[""]) == (10, 8)
    few, counts = conversations(result, max_queries=2)
    assert counts.queries[""] == 7 and all(len(row["messages"]) <= 7 for row in few)


WORDS = ["zinc", "aspirin", "flu", "nothing"]


def recipe(folder: Path, student: Path, count: int = 12, **teacher: Any) -> list[str]:
    """Write a corpus of `count` passages and a recipe; return the arguments that run it."""
    rows = [
        {"id": f"p{i}", "text": f"On day {i} of a long year Ada had {WORDS[i % 4]} at home."} for i in range(count)
    ]
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"model": "fake-teacher", "price_input": 1.0, "price_output": 2.0, "types": TYPES} | teacher
    config = {
        "corpus": {"path": "mine.jsonl", "tokenizer": str(student), "near_duplicates": None},
        "output_dir": "run", "teacher": options, "dataset": {"validation_one_in": 4},
    }  # fmt: skip
    (folder / "mine.yaml").write_text(json.dumps(config))  # JSON is YAML
    return ["--config", "mine.yaml"]


def answer(request: dict[str, Any]) -> Any:
    text = request["messages"][-1]["content"]
    pairs = {
        "zinc": '[("zinc", "drug")]',
        "aspirin": '[("aspirin", "Drug"), ("Ada", "person")]',
        "flu": "[('flu', 'DISEASE')]",
    }
    reply = next((reply for word, reply in pairs.items() if f" {word} " in text), "[]")
    return {"body": completion(reply, request)}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")

    def command(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["dataset_builder", *arguments])
        main()

    return command


def test_a_dry_run_a_run_and_another_one(
    run: Callable[..., None], tmp_path: Path, tiny_student: Path, files: dict, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeTeacher(answer) as teacher:
        arguments = recipe(tmp_path, tiny_student, **files, base_url=teacher.base_url, response_format="json_schema")
        run(*arguments, "--dry_run")
        assert teacher.requests == [] and "dry run: 12 requests to send, at most $" in capsys.readouterr().out
        with pytest.raises(SystemExit, match="12 questions have no reply"):
            run(*arguments, "--max_cost", "0.00001")
        assert teacher.requests == []
        run(*arguments)
        run(*arguments)
    assert len(teacher.requests) == 12 and "12 replies came from the journal" in capsys.readouterr().out
    assert all("Bactrim" in request["messages"][0]["content"] for request in teacher.requests)
    assert all('"enum": ["Drug", "antibiotic", "disease"]' in json.dumps(request) for request in teacher.requests)
    stats = json.loads((tmp_path / "run" / "dataset" / "stats.json").read_text())
    part = stats["variants"]["closed"]
    assert (part["passages"], part["passages_without_entity"], part["entities"], part["types"]) == (12, 3, 9, 2)
    assert (part["queries"], part["negative_queries"], part["counts"]["type_not_in_set"]) == (36, 27, 3)
    assert stats["negatives"]["negatives"] == "all" and stats["type_set"] == {
        "types": {
            "Drug": {"definition": TYPES["Drug"], "entities": 6}, "antibiotic": {"definition": "", "entities": 0},
            "disease": {"definition": "", "entities": 3},
        },
        "overlaps": "flat", "guidelines": True, "examples": 1,
    }  # fmt: skip
    rows = [
        row
        for path in (tmp_path / "run" / "dataset" / "closed").iterdir()
        for row in parquet.read_table(path).to_pylist()
    ]
    asked = [re.findall(r"What describes (.+?) in the text", json.dumps(row["messages"])) for row in rows]
    assert len(rows) == 12 and all(sorted(names) == ["Drug", "antibiotic", "disease"] for names in asked)
    card = DatasetCard.load(tmp_path / "run" / "dataset" / "README.md")
    assert [config["config_name"] for config in card.data.configs] == ["closed", "annotations"]
    assert "| Drug | a substance that treats a disease | 6 |" in card.text and "| antibiotic |  | 0 |" in card.text
    held_out = read_recipe(BenchmarkConfig, ROOT / "recipes" / "eval" / "benchmarks" / "held_out.yaml")
    found, _ = read_passages(held_out, str(tmp_path / "run"), Counter())
    assert len(found) == 2 and all(len(passage.queries) == 3 for passage in found)
    assert "with guidelines and 1 annotated example" in card.text and "| passages without entity | 3 |" in card.text
    assert {path.name for path in (tmp_path / "run" / "dataset" / "figures").iterdir()} >= {"types_by_rank.png"}


def test_after_a_kill_nothing_is_paid_twice(tmp_path: Path, tiny_student: Path) -> None:
    children: list[subprocess.Popen[bytes]] = []

    def killing(request: dict[str, Any]) -> Any:
        if len(teacher.requests) == 5:
            children[0].send_signal(signal.SIGKILL)
        return answer(request)

    with FakeTeacher(killing) as teacher:
        arguments = recipe(tmp_path, tiny_student, base_url=teacher.base_url, concurrency=1)
        command = [sys.executable, "-m", "dataset_builder", *arguments, "--stage"]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OPENAI_API_KEY": "sk-test"}
        subprocess.run([*command, "passages"], cwd=tmp_path, env=environment, check=True)
        children.append(subprocess.Popen([*command, "annotate"], cwd=tmp_path, env=environment))
        assert children[0].wait() == -signal.SIGKILL
        subprocess.run([*command, "annotate"], cwd=tmp_path, env=environment, check=True)
    times = Counter(request["messages"][1]["content"] for request in teacher.requests)
    assert len(times) == 12 and sorted(times.values()) == [1] * 11 + [2]  # the reply in flight never arrived


def test_recorded_replies_and_batches_work_as_for_other_prompts(
    run: Callable[..., None], tmp_path: Path, tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = recipe(tmp_path, tiny_student, model=None, recorded={"closed": "replies.jsonl"})
    run(*arguments, "--stage", "passages")
    texts = [json.loads(line) for line in (tmp_path / "run" / "passages.jsonl").read_text().splitlines()]
    rows = [
        {"text_sha256": text_sha256(p["text"]), "reply": '[("Ada", "disease")]', "finish_reason": "stop"}
        for p in texts
    ]
    (tmp_path / "replies.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(*arguments)
    stats = json.loads((tmp_path / "run" / "dataset" / "stats.json").read_text())
    assert (
        stats["answers"] == {"paid": 0, "cost": 0.0} and stats["variants"]["closed"]["counts"]["entities_kept"] == 12
    )
    monkeypatch.setattr(batch_provider, "backoff", lambda attempt: 0.0)
    with FakeBatch(answer) as provider, Journal(tmp_path / "batch" / "journal.jsonl") as journal:
        config = TeacherConfig(
            base_url=provider.base_url, model="fake-teacher", types=TYPES, batch=True, batch_poll_seconds=0.01
        )
        assert fetch_replies(passages(3), journal, config).paid == 3
        assert fetch_replies(passages(3), journal, config).known == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"teacher.types": "[drug, Drug]"}, "'Drug' and 'drug' are the same type"),
        ({"teacher.types": "{drug: a, drug: b}"}, "'drug' is given twice"),
        ({"teacher.types": "[drug, ' ']"}, "a type is empty"),
        ({"teacher.types": f"[{'x' * 500}]"}, "has 500 characters, more than 100"),
        ({"teacher.types": "[no]"}, "False is not a text.*quote names"),
        ({"teacher.types": "[{drug: a substance}]"}, "is not a text.*a mapping {name: definition}"),
        ({"teacher.types": "[]"}, "teacher.types is an empty list: name the types to ask"),
        ({"teacher.types": "{}", "teacher.variants": "[closed]"}, "set the types, or remove closed"),
        ({"teacher.types": "{}", "teacher.guidelines": "guide.md"}, "teacher.guidelines needs teacher.types"),
        ({"teacher.types": "{}", "teacher.overlaps": "nested"}, "teacher.overlaps needs teacher.types"),
        ({"teacher.variants": "[closed, type]"}, "teacher.variants: type cannot be used with teacher.types"),
        ({"teacher.recorded": "{cloesd: x.jsonl}"}, "'cloesd' is not a variant"),
        ({"teacher.guidelines": "absent.md"}, "absent.md: teacher.guidelines cannot be read: No such file"),
        ({"teacher.guidelines": "latin.md"}, "latin.md: not UTF-8 at byte 1"),
        ({"teacher.guidelines": "empty"}, "teacher.guidelines is empty"),
        ({"teacher.examples": "absent.jsonl"}, "absent.jsonl: no such file: set teacher.examples"),
        ({"teacher.examples": "empty"}, "teacher.examples has no example"),
        ({"teacher.examples": "latin.md"}, "line 1 is not UTF-8"),
        ({"dataset.negatives": "frequency"}, "dataset.negatives cannot be used with teacher.types"),
        ({"dataset.negative_ratio": "2"}, "dataset.negative_ratio cannot be used with teacher.types"),
        ({"teacher.types": "{}", "dataset.negatives": "all"}, "all needs teacher.types"),
        ({"contamination.types": "remove", "contamination.benchmarks": "[sample]"}, "remove cannot be used"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(map(str, value.values()))[:40],
)
def test_mistakes_in_a_recipe_are_named_before_anything_is_asked(
    options: dict[str, str], said: str, run: Callable[..., None], tmp_path: Path, tiny_student: Path
) -> None:
    (tmp_path / "latin.md").write_bytes("Für".encode("latin-1"))
    (tmp_path / "guide.md").write_text("x")
    (tmp_path / "empty").write_text(" \n")
    arguments = recipe(tmp_path, tiny_student, base_url="http://127.0.0.1:9/v1")
    with pytest.raises(UserError, match=said):
        run(*arguments, *(word for name, value in options.items() for word in (f"--{name}", value)))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changed", "overlaps", "said"),
    [
        ({"start": 8}, "flat", "'Bactrim' \\(8 to 16\\) is not in the text there"),
        ({"end": 99, "text": "x"}, "flat", "'x' \\(9 to 99\\) is not in the text there"),
        ({"end": 9}, "flat", "is not in the text there"),
        ({"type": "person"}, "flat", "has the type 'person', which is not in teacher.types"),
        ({"start": "9"}, "flat", "example 2: entity_without_offsets"),
        ({"start": 9}, "flat", "overlaps another entity"),
        ({"start": 9}, "nested", None),
    ],
)
def test_an_example_must_follow_the_rules_that_it_explains(
    changed: dict[str, Any], overlaps: str, said: str | None, files: dict
) -> None:
    first, *_ = EXAMPLE["entities"]
    other = EXAMPLE | {"entities": [first | changed, first | {"type": "ANTIBIOTIC"}]}
    Path(files["examples"]).write_text(f"{json.dumps(EXAMPLE)}\n{json.dumps(other)}\n", encoding="utf-8")
    config = TeacherConfig(types=TYPES, overlaps=overlaps, examples=files["examples"])  # type: ignore[arg-type]
    if said:
        with pytest.raises(UserError, match=said):
            load_type_set(config)
    else:
        types = load_type_set(config)
        assert types and types.examples[1].reply == '[("Bactrim", "Drug"), ("Bactrim", "antibiotic")]'


def test_a_corpus_without_any_entity_of_the_types_is_a_mistake(
    run: Callable[..., None], tmp_path: Path, tiny_student: Path
) -> None:
    with FakeTeacher(lambda request: "[]") as teacher, pytest.raises(UserError, match="none of 12 annotated passages"):
        run(*recipe(tmp_path, tiny_student, base_url=teacher.base_url))
