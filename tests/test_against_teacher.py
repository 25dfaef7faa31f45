"""`python -m zero_shot.against_teacher` as a user runs it: a student, its teacher and a second one on a benchmark."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest

import tiny
from dataset_builder import __main__ as builder
from fake_teacher import FakeTeacher
from hub.model_card import write_model_card
from open_ner.conversation import build_conversation
from open_ner.tools.errors import UserError
from zero_shot import against_teacher
from zero_shot.comparison import Contender, disagreements, find_places, verdict
from zero_shot.records import read_results

ROOT = Path(__file__).parent.parent
TYPES = ["person", "city", "date"]
TEXTS = list(tiny.LEARNED)
OTHER = "A text of the corpus that the benchmark does not have."


def reply_to(text: str, types: list[str] = TYPES, **words: str) -> str:
    """The right reply about these types, with other words for some of them."""
    pairs = [(word, words.get(kind, kind)) for kind in types for word in tiny.LEARNED.get(text, {}).get(kind, [])]
    return json.dumps([list(pair) for pair in pairs])


def ask(monkeypatch: pytest.MonkeyPatch, replies: dict[str, Any], *options: str) -> int:
    """Run the builder's stages `passages` and `annotate` on a fake teacher; return the number of requests."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    with FakeTeacher(replies) as teacher:
        for stage in ("passages", "annotate"):
            line = [
                "dataset_builder",
                *options,
                "--stage",
                stage,
                "--base_url",
                teacher.base_url,
                "--allow_incomplete",
            ]
            monkeypatch.setattr(sys, "argv", line)
            builder.main()
        return len(teacher.requests)


@pytest.fixture(scope="module")
def work(tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a benchmark of four passages and two runs whose teachers were asked its types and others."""
    folder = tmp_path_factory.mktemp("work")
    rows = []
    for number, (text, answers) in enumerate(tiny.LEARNED.items()):
        spans = [(text.index(word), word, kind) for kind, words in answers.items() for word in words]
        entities = [{"start": start, "end": start + len(word), "type": kind} for start, word, kind in spans]
        rows.append({"id": str(number), "text": text, "types": TYPES, "entities": entities})
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = "made_by: corrected\ncorrected_from: gpt-one\n"
    (folder / "mine.yaml").write_text(f"name: mine\npath: mine.jsonl\nformat: offsets\n{made}")
    (folder / "corpus.jsonl").write_text("".join(json.dumps({"id": t[:9], "text": t}) + "\n" for t in [*TEXTS, OTHER]))
    recipe = {
        "corpus": {
            "path": str(folder / "corpus.jsonl"), "tokenizer": str(tiny_student), "min_words": 1, "language": None,
            "near_duplicates": None, "max_markup": None,
        },
        "teacher": {"price_input": 1.0, "price_output": 2.0},
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    replies = {text: reply_to(text, date="year", city="Cities", person="person") for text in TEXTS}
    replies[TEXTS[0]] = replies[TEXTS[0]].removesuffix("]") + ', ["", ""]]'  # a blank pair spoils no other pair
    with pytest.MonkeyPatch.context() as patch:
        common = ["--config", str(folder / "recipe.yaml"), "--model"]
        ask(patch, {**replies, OTHER: "[]"}, *common, "gpt-one", "--output_dir", str(folder / "open"))
        closed = [
            *common,
            "gpt-two",
            "--output_dir",
            str(folder / "closed"),
            "--teacher.types",
            "[Person, city, fish]",
        ]
        right = {text: reply_to(text, ["person", "city"]) for text in TEXTS}
        ask(patch, {**right, TEXTS[1]: "I cannot say.", OTHER: "[]"}, *closed)
    return folder


@pytest.fixture
def student(tuned_student: Path, tmp_path: Path) -> Path:
    """A copy of the tuned student with the files of a training run on one text that no benchmark has."""
    folder = shutil.copytree(tuned_student, tmp_path / "student")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "open_ner": {"types": ["city"]}}))
    train_on(folder, tmp_path / "set", [OTHER])
    return folder


def train_on(student: Path, dataset: Path, texts: list[str]) -> None:
    """Write a dataset of these texts, and a training.json that names it."""
    rows = [{"id": str(n), "messages": build_conversation(text, [("city", "[]")])} for n, text in enumerate(texts)]
    dataset.mkdir(exist_ok=True)
    datasets.Dataset.from_list(rows).to_parquet(dataset / "train.parquet")
    trained_on = dict.fromkeys(("conversations", "queries", "answer_tokens", "tokens"), 1)
    training = {"name": "s", "base_model": "b", "dataset": str(dataset), "history": [], "seconds": 60.0}
    recipe = {"license": "mit", "dataset_train_split": "train"}
    (student / "training.json").write_text(json.dumps({**training, "trained_on": trained_on, "recipe": recipe}))


def compare(work: Path, *options: str) -> None:
    benchmark = ["--benchmark", str(work / "mine.yaml"), "--data_dir", str(work)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["against_teacher", *benchmark, *options])
        against_teacher.main()


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "against_teacher.json").read_text())


def test_a_student_and_two_teachers_are_compared_on_the_same_passages(
    work: Path, student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = ["--run", str(work / "open"), "--other_run", str(work / "closed")]
    compare(work, *runs, "--model", str(student), "--output_dir", str(tmp_path / "out"))
    printed, result = capsys.readouterr().out, read(tmp_path / "out")
    assert result["roles"] == ["teacher", "student", "second teacher"] and result["n_passages"] == 4
    names = [run["model"]["id"] for run in result["runs"]]
    assert names[0] == "gpt-one" and names[2] == "gpt-two"
    first, own, second = (run["benchmarks"]["mine"] for run in result["runs"])
    # gpt-one calls cities "Cities", which is the plural of an asked type, and dates "year", which is not asked
    assert first["per_type"]["city"]["strict"]["f1"] == first["per_type"]["person"]["strict"]["f1"] == 1.0
    assert first["per_type"]["date"]["strict"] | {"n_pred": 0, "f1": 0.0} == first["per_type"]["date"]["strict"]
    assert own["strict"]["f1"] > 0.9 and len(own["strict"]["interval"]) == 2
    # gpt-two was not asked dates, and its second reply cannot be read
    assert second["parse_failures"] == 3 and second["per_type"]["date"]["strict"]["n_pred"] == 0
    assert second["per_type"]["person"]["strict"]["f1"] == 1.0
    gains = {(one["of"], one["over"]): one["strict"]["gain"] for one in result["differences"]}
    assert gains[names[1], names[0]] == pytest.approx(own["strict"]["f1"] - first["strict"]["f1"])
    assert len(gains) == 3
    notes = " ".join(result["notes"])
    assert "correcting the spans of gpt-one, which favors gpt-one" in notes
    assert "gpt-one: asked open types" in notes and "2 spans do not" in notes
    assert "gpt-two: not asked these types of the benchmark: date" in notes
    for part in (result["answer"], *names, "gpt-one: asked open types", "Strict F1 by type"):
        assert part in printed
    table = (tmp_path / "out" / "table.md").read_text()
    assert "Strict F1 by type" in table and "5 June 2013 (date)" in table
    assert (tmp_path / "out" / "against_teacher.png").read_bytes().startswith(b"\x89PNG")
    # the files of each model are those of an evaluation
    written = sorted((tmp_path / "out").glob("*/*/results.json"))
    assert {read_results(path)["model"]["id"] for path in written} == {*names} and len(written) == 3


def test_the_price_of_a_teacher_is_in_its_journal_and_a_student_is_measured(
    work: Path, student: Path, tmp_path: Path
) -> None:
    compare(work, "--run", str(work / "closed"), "--model", str(student), "--output_dir", str(tmp_path / "out"))
    teacher, own = (run["per_thousand"] for run in read(tmp_path / "out")["runs"])
    lines = map(json.loads, (work / "closed" / "journal.jsonl").read_text().splitlines())
    kept = json.loads((work / "closed" / "passages.jsonl").read_text().splitlines()[-1])["id"]
    paid = [line for line in lines if "reply" in line and line["passage_id"] != kept]
    assert len(paid) == 4
    assert teacher["dollars"] == pytest.approx(250 * sum(line["cost"] for line in paid))
    assert teacher["seconds"] == pytest.approx(250 * sum(line["seconds"] for line in paid))
    assert own["dollars"] == 0 and own["seconds"] > 0 and "without loading" in own["note"]


def test_a_second_call_asks_the_student_nothing(work: Path, student: Path, tmp_path: Path, capsys: Any) -> None:
    options = ["--run", str(work / "open"), "--model", str(student), "--output_dir", str(tmp_path / "out")]
    compare(work, *options)
    before = read(tmp_path / "out")
    capsys.readouterr()
    compare(work, *options)
    assert "has finished before" in capsys.readouterr().out
    after = read(tmp_path / "out")
    assert after["runs"][1]["per_thousand"] == before["runs"][1]["per_thousand"]
    assert after["differences"] == before["differences"]


def test_the_card_of_the_student_gets_a_section_and_keeps_the_rest(work: Path, student: Path, tmp_path: Path) -> None:
    write_model_card(student)
    before = (student / "README.md").read_text()
    options = ["--run", str(work / "open"), "--model", str(student), "--output_dir", str(tmp_path / "out")]
    for _ in range(2):  # the section is replaced, not repeated
        compare(work, *options)
    card = (student / "README.md").read_text()
    head, section, rest = card.partition("## Against the teacher\n")
    assert head + rest[rest.index("## Training") :] == before and rest.count("Against the teacher") == 0
    assert section and "gpt-one" in rest and "(figures/against_teacher.png)" in rest
    assert (student / "figures" / "against_teacher.png").exists()
    kept = (student / "results" / "against_teacher.json").read_text()
    assert json.loads(kept)["disagreements"] == [] and TEXTS[0] not in kept  # a published folder has no passages
    write_model_card(student)  # an evaluation after it keeps the section
    assert (student / "README.md").read_text() == card


def test_texts_that_the_student_was_trained_on_are_an_error(
    work: Path, student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--run", str(work / "open"), "--model", str(student), "--output_dir", str(tmp_path / "out")]
    train_on(student, tmp_path / "contaminated", [OTHER, f"{TEXTS[2]} \n", TEXTS[2]])
    with pytest.raises(UserError, match=r"1 of 4 passages of mine \(2\) are in the dataset .*contaminated"):
        compare(work, *options)
    with pytest.raises(UserError, match="1 of 4 passages"):  # also if the student was trained from another one
        second = shutil.copytree(student, tmp_path / "second")
        train_on(second, tmp_path / "set", [OTHER])
        training = json.loads((second / "training.json").read_text())
        (second / "training.json").write_text(json.dumps({**training, "base_model": str(student)}))
        compare(work, "--run", str(work / "open"), "--model", str(second), "--output_dir", str(tmp_path / "out"))
    shutil.rmtree(tmp_path / "contaminated")
    compare(work, *options)
    assert "Not checked whether the student was trained on these texts" in capsys.readouterr().out
    compare(work, *options, "--dataset", str(tmp_path / "set"))
    assert "Not checked" not in capsys.readouterr().out


def test_a_passage_without_a_reply_is_named_with_the_command_that_asks_it(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(work / "open", tmp_path / "run")
    lines = (run / "journal.jsonl").read_text().splitlines(keepends=True)
    (run / "journal.jsonl").write_text("".join(line for line in lines if f'"{TEXTS[0][:9]}"' not in line))
    monkeypatch.chdir(tmp_path)
    others = ["--other_run", str(work / "closed"), "--output_dir", str(tmp_path / "out")]
    compare(work, "--run", "run", *others)
    printed = capsys.readouterr().out
    assert "run: passages without a reply: 1 (0)" in printed
    assert "python -m dataset_builder --config run/recipe.yaml --stage annotate" in printed
    result = read(tmp_path / "out")
    assert result["n_passages"] == 3 and result["runs"][0]["benchmarks"]["mine"]["skipped"] == {"no_reply": 1}
    # the command asks this passage and no other; here the output_dir of the recipe is that of the copied run
    options = ["--config", "run/recipe.yaml", "--output_dir", "run"]
    assert ask(monkeypatch, {TEXTS[0]: reply_to(TEXTS[0])}, *options) == 1
    compare(work, "--run", "run", *others)
    assert "without a reply" not in capsys.readouterr().out and read(tmp_path / "out")["n_passages"] == 4


def test_passages_that_a_run_does_not_have_are_asked_in_a_run_of_their_own(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(work, tmp_path / "work")
    work = tmp_path / "work"
    row = {"id": "new", "text": "Oslo is far from Rome and Paris.", "types": TYPES}
    row["entities"] = [{"start": 0, "end": 4, "type": "city"}]
    with (work / "mine.jsonl").open("a") as file:
        print(json.dumps(row), file=file)
    monkeypatch.chdir(work)
    compare(work, "--run", "open", "--other_run", "closed", "--output_dir", "out")
    printed = capsys.readouterr().out
    assert "open: passages that it does not have: 1 (new)" in printed
    [copy] = [line for line in printed.splitlines() if "cp open/journal.jsonl" in line]
    assert "mkdir -p open-asked" in copy
    [asks] = [line.split()[3:-2] for line in printed.splitlines() if "open-asked --stage annotate" in line]
    (work / "open-asked").mkdir()
    shutil.copy("open/journal.jsonl", "open-asked")
    assert ask(monkeypatch, {row["text"]: '[["Oslo", "city"]]'}, *asks) == 1
    compare(work, "--run", "open-asked", "--other_run", "closed", "--output_dir", "out2")
    assert "passages that it does not have" not in capsys.readouterr().out.replace("closed: passages", "")


@pytest.mark.parametrize(
    ("change", "options", "named"),
    [
        ({}, ["--run", "open"], "nothing to compare the teacher with: give --model"),
        ({}, ["--run", "nowhere", "--other_run", "closed"], "nowhere: no journal.jsonl there"),
        ({}, ["--run", "old", "--other_run", "closed"], "old/recipe.yaml does not exist"),
        ({}, ["--run", "open", "--model", "no/student"], "student 'no/student' cannot be loaded"),
        ({}, ["--run", "open", "--other_run", "closed", "--max_new_tokens", "-1"], "--max_new_tokens -1"),
        ({"types": []}, ["--run", "open", "--other_run", "closed"], "benchmark mine has no type to ask"),
        ({"text": "Other."}, ["--run", "open", "--other_run", "closed"], "mine: 0 passages in common"),
    ],
)
def test_mistakes_are_one_clear_line(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], options: list[str], named: str
) -> None:
    for name in ("open", "closed"):
        shutil.copytree(work / name, tmp_path / name)
    shutil.copytree(work / "open", tmp_path / "old")
    (tmp_path / "old" / "recipe.yaml").unlink()
    row = {"id": "0", "text": TEXTS[0], "types": TYPES, "entities": [], **change}
    (tmp_path / "mine.jsonl").write_text(json.dumps(row) + "\n")
    shutil.copy(work / "mine.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=named):
        compare(tmp_path, *options, "--output_dir", "out")


def test_two_runs_of_one_model_are_told_apart_by_their_folders(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(work / "open", tmp_path / "again")
    monkeypatch.chdir(tmp_path)
    compare(work, "--run", str(work / "open"), "--other_run", "again", "--output_dir", "out")
    result = read(tmp_path / "out")
    assert [run["model"]["id"] for run in result["runs"]] == ["gpt-one in open", "gpt-one in again"]
    assert result["differences"][0]["strict"] == {"gain": 0.0, "interval": [0.0, 0.0]}
    assert result["disagreements"] == [] and "do not tell them apart" in result["answer"]


def test_a_run_of_definitions_has_nothing_to_compare(work: Path, tmp_path: Path) -> None:
    run = shutil.copytree(work / "open", tmp_path / "run")
    text = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(text.replace("variants:\n  - type", "variants:\n  - definition"))
    with pytest.raises(UserError, match="definitions"):
        compare(work, "--run", str(run), "--other_run", str(work / "closed"), "--output_dir", str(tmp_path / "out"))


def contender(name: str, spans: dict[str, list[tuple[int, int, str]]]) -> Contender:
    """Predictions of two types on two passages, whose gold is the city 0-4."""
    lines: list[Any] = []
    for passage, found in spans.items():
        for kind in ("city", "river"):
            own = [{"start": a, "end": b, "score": None} for a, b, t in found if t == kind]
            gold = [(0, 4)] if kind == "city" else []
            lines.append({"benchmark": "b", "passage_id": passage, "text": "Rome and Oslo", "type": kind})
            lines[-1] |= {"spans": own, "gold_spans": gold, "raw": "[]", "gold": "[]"}
    return Contender(name, "teacher", lines, {})  # type: ignore[arg-type]


def test_disagreements_are_places_and_the_gold_says_who_is_right() -> None:
    first = contender("a", {"1": [(0, 4, "city"), (9, 13, "city")], "2": [(0, 4, "city")]})
    second = contender("b", {"1": [(0, 8, "city"), (2, 4, "river")], "2": [(0, 4, "city")]})
    places = find_places([first, second])
    assert [(place.passage_id, place.start, place.end) for place in places] == [("1", 0, 8), ("1", 9, 13)]
    shown, counts = disagreements([first, second], seed=0)
    assert [one["right"] for one in shown] == ["a", "b"] and counts == {"a": 1, "b": 1}
    assert shown[0]["found"] == {
        "a": ["Rome (city)"], "b": ["Rome and (city)", "me (river)"], "gold": ["Rome (city)"],
    }  # fmt: skip
    assert disagreements([first, first], seed=0) == ([], {})


def test_few_disagreements_come_from_as_many_passages_as_possible() -> None:
    many = {str(n): [(at, at + 1, "river") for at in range(0, 12, 2)] for n in range(5)}
    shown, counts = disagreements([contender("a", many), contender("b", dict.fromkeys(many, []))], 0, most=5)
    assert sorted(one["passage_id"] for one in shown) == ["0", "1", "2", "3", "4"] and sum(counts.values()) == 30


@pytest.mark.parametrize(
    ("bounds", "said"), [([0.01, 0.2], "better"), ([-0.2, -0.01], "worse"), ([-0.1, 0.2], "No difference")]
)
def test_the_answer_follows_from_the_interval(bounds: list[float], said: str) -> None:
    gain: Any = {"gain": sum(bounds) / 2, "interval": bounds}
    assert said in verdict({"of": "s", "over": "t", "official": gain, "strict": gain}, 40)
