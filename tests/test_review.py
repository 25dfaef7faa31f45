"""`python -m dataset_builder.review`: passages leave the dataset, people correct them, corrections come back."""

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from pyarrow import parquet

import dataset_builder.__main__ as builder
import dataset_builder.review.__main__ as review
import eval_zero_shot
import open_ner
import tiny
from command_line.recipes import read_recipe
from dataset_builder.corpus.sources import text_sha256
from dataset_builder.review.anchor import Region, anchor
from dataset_builder.review.changes import compare
from ner_sets.benchmarks import read_passages
from ner_sets.config import BenchmarkConfig
from ner_sets.mentions import Mention
from open_ner.tools.errors import UserError
from open_ner.tools.files import read_jsonl, write_jsonl

EXPORTED = Path(__file__).parent / "data" / "label_studio_1.23.json"  # by Label Studio 1.23.2, see docs/review.md
TEXTS = [f"Ada saw Rome on day {i} of a long year." for i in range(10)] + [*tiny.LEARNED]
Command = Callable[..., str]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Command:
    """Runs a command of the builder or of the review in this process, and returns what it prints."""

    def call(module: Any, *arguments: object) -> str:
        monkeypatch.setattr("sys.argv", ["", *map(str, arguments)])
        module.main()
        return capsys.readouterr().out

    return call


def write_recipe(folder: Path, tokenizer: Path, texts: list[str], replies: dict[str, str], **teacher: Any) -> Path:
    """Write a corpus, the recorded replies to it and their recipe; return the recipe."""
    folder.mkdir(exist_ok=True)
    write_jsonl(folder / "corpus.jsonl", [{"id": f"p{i}", "text": text} for i, text in enumerate(texts)])
    rows = [{"text_sha256": text_sha256(t), "reply": replies[t], "finish_reason": "stop"} for t in texts]
    write_jsonl(folder / "replies.jsonl", rows)
    corpus = {
        "path": str(folder / "corpus.jsonl"),
        "tokenizer": str(tokenizer),
        "near_duplicates": None,
        "min_words": 1,
    }
    variant = "closed" if "types" in teacher else "type"
    teacher |= {"recorded": {variant: str(folder / "replies.jsonl")}, "recorded_by": "a model"}
    recipe = {"corpus": corpus | {"language": None}, "output_dir": str(folder / "run"), "teacher": teacher}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"dataset": {"validation_one_in": 0}}))
    return folder / "recipe.yaml"


@pytest.fixture
def run(tmp_path: Path, tiny_student: Path, command: Command) -> Path:
    """The folder of a run whose teacher has replied about all passages; it has no dataset yet."""
    replies = dict.fromkeys(TEXTS, '[("Ada", "person"), ("Rome", "city"), ("year", "time")]')
    recipe = write_recipe(tmp_path / "corpus", tiny_student, TEXTS, replies)
    command(builder, "--config", recipe, "--stage", "passages")
    command(builder, "--config", recipe, "--stage", "annotate")
    return tmp_path / "corpus" / "run"


def edit(path: Path, change: Callable[[Any], None]) -> None:
    """Change the rows of a JSONL file, as a person in an editor."""
    rows = list(read_jsonl(path))
    for row in rows:
        change(row)
    write_jsonl(path, rows)


def test_passages_under_review_leave_the_dataset_by_id_and_by_text(run: Path, command: Command) -> None:
    recipe = run.parent / "recipe.yaml"
    command(builder, "--config", recipe, "--stage", "build")
    printed = command(review, "export", "--run", run, "--to", "jsonl", "--sample", 4)
    assert "tasks: 4 passages" in printed and f"{run / 'dataset'} was built before" in printed
    held_out = list(read_jsonl(run / "review" / "held_out.jsonl"))
    assert [set(line) for line in held_out] == 4 * [{"id", "text_sha256"}]
    held_out[0]["id"] = "the id of another corpus"
    held_out[1]["text_sha256"] = "the text of another cut"
    write_jsonl(run / "review" / "held_out.jsonl", held_out)
    printed = command(builder, "--config", recipe, "--stage", "build")
    assert "type: 4 passages are under review" in printed
    tasks = {row["text"] for row in read_jsonl(run / "review" / "tasks.jsonl")}
    for config in ("type", "annotations"):
        [shard] = (run / "dataset" / config).glob("*.parquet")
        built = set(parquet.read_table(shard)["text"].to_pylist())
        assert built and not built & tasks
    assert json.loads((run / "dataset" / "stats.json").read_text())["variants"]["type"]["counts"]["under_review"] == 4
    rejects = parquet.read_table(run / "dataset" / "rejects" / "rejects.parquet").to_pylist()
    assert sum(row["reason"] == "under_review" for row in rejects) == 4
    (run / "review" / "held_out.jsonl").write_text("{broken\n")
    with pytest.raises(UserError, match="held_out.jsonl is damaged"):
        command(builder, "--config", recipe, "--stage", "build")


def test_a_review_is_drawn_once_and_the_next_one_has_other_passages(run: Path, command: Command) -> None:
    command(review, "export", "--run", run, "--to", "jsonl", "--sample", 5, "--types", "person,city")
    tasks = (run / "review" / "tasks.jsonl").read_bytes()
    with pytest.raises(UserError, match="has the tasks of 5 passages already; a review is not drawn again"):
        command(review, "export", "--run", run, "--to", "jsonl", "--sample", 6)
    for option, value in (("--blank", []), ("--sample", [5]), ("--types", ["person"]), ("--seed", [1])):
        with pytest.raises(UserError, match=f"{option} has no effect: .*5 passages, .* leave out {option}, or"):
            command(review, "export", "--run", run, "--to", "label-studio", option, *value)
    assert not (run / "review" / "label-studio.json").exists()
    command(review, "export", "--run", run, "--to", "label-studio")
    studio = json.loads((run / "review" / "label-studio.json").read_text())
    assert (run / "review" / "tasks.jsonl").read_bytes() == tasks
    ids = [json.loads(line)["id"] for line in tasks.splitlines()]
    assert [task["data"]["passage_id"] for task in studio] == ids
    [prediction] = studio[0]["predictions"]
    assert prediction["model_version"] == "a model"
    assert {v["labels"][0] for r in prediction["result"] for v in [r["value"]]} <= {"person", "city"}  # no time
    labels = ElementTree.fromstring((run / "review" / "label-studio.xml").read_text()).iter("Label")
    assert [label.get("value") for label in labels] == ["person", "city"]
    printed = command(
        review, "export", "--run", run, "--to", "jsonl", "--sample", 99, "--blank", "--review", run / "two"
    )
    rows = list(read_jsonl(run / "two" / "tasks.jsonl"))
    assert len(rows) == len(TEXTS) - 5 and not {row["id"] for row in rows} & {*ids}
    assert "9 passages are all that can be drawn; excluded: {'under_review': 5}" in printed
    assert all(row["entities"] == [] for row in rows)
    assert len(list(read_jsonl(run / "review" / "held_out.jsonl"))) == len(TEXTS)


def test_a_review_of_all_passages_warns_and_can_be_drawn_again(run: Path, command: Command) -> None:
    recipe, export = run.parent / "recipe.yaml", ["export", "--run", run, "--to", "jsonl", "--sample"]
    printed = command(review, *export, 99)
    assert re.search(f"warning: no passage with a span is left .* delete {run / 'review'}, and export again", printed)
    with pytest.raises(UserError, match="all annotations were rejected: .*'under_review': 14"):
        command(builder, "--config", recipe, "--stage", "build")
    with pytest.raises(UserError, match="no passage to draw; not drawn by reason: {'under_review': 14}"):
        command(review, *export, 4, "--review", run / "two")
    shutil.rmtree(run / "review")
    assert "warning" not in command(review, *export, 4)
    command(builder, "--config", recipe, "--stage", "build")


def test_a_command_that_fails_leaves_the_recipe_of_the_replies(
    run: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    recipe, kept = run.parent / "recipe.yaml", (run / "recipe.yaml").read_bytes()
    other = ["--model", "other", "--teacher.recorded", "null", "--teacher.recorded_by", ""]
    for stage in ("build", "annotate"):
        with pytest.raises(UserError, match="no type reply|OPENAI_API_KEY is not set"):
            command(builder, "--config", recipe, "--stage", stage, *other)
        assert (run / "recipe.yaml").read_bytes() == kept
    command(builder, "--config", recipe, "--stage", "build", "--dataset.validation_one_in", 3)
    assert yaml.safe_load((run / "recipe.yaml").read_text())["dataset"]["validation_one_in"] == 3


def test_corrections_become_gold_and_every_change_is_counted(run: Path, command: Command) -> None:
    command(review, "export", "--run", run, "--to", "jsonl", "--sample", 99, "--types", '["person", "city"]')
    tasks = run / "review" / "tasks.jsonl"
    with pytest.raises(UserError, match="none of 14 passages is corrected: .* set `reviewed` to true"):
        command(review, "import", tasks, "--run", run)

    def correct(row: dict[str, Any]) -> None:
        if row["text"] not in TEXTS[:6]:
            return
        row["reviewed"] = True
        number = TEXTS.index(row["text"])
        ada, rome = row["entities"]
        if number == 0:
            row["entities"] = [ada]
        elif number == 1:
            rome["type"] = "person"
        elif number == 2:
            rome |= {"end": 15, "text": "Rome on"}
        elif number == 3:
            row["entities"].append({"text": "day", "type": "person"})
        elif number == 4:
            row["entities"] = []

    edit(tasks, correct)
    printed = command(review, "import", tasks, "--run", run)
    assert "8 passages in the file are not corrected" in printed
    assert "by correcting the spans of a model, so it favors a model" in printed
    report = json.loads((run / "review" / "gold" / "report.json").read_text())
    [table] = report["scores"].values()
    every = table[""]
    assert every["changes"] == {"kept": 7, "added": 1, "removed": 3, "boundary": 1, "retyped": 1}
    assert (every["spans"], every["gold"]) == (12, 10)
    assert (every["precision"], every["recall"]) == (pytest.approx(7 / 12), pytest.approx(7 / 10))
    assert table["city"]["changes"] == {"kept": 2, "added": 0, "removed": 2, "boundary": 1, "retyped": 1}
    assert re.search(r"^all types +0\.583 +0\.700 +0\.636 +12 +10 +7 +1 +3 +1 +1$", printed, re.M)

    benchmark = read_recipe(BenchmarkConfig, run / "review" / "gold" / "benchmark.yaml")
    assert (benchmark.made_by, benchmark.corrected_from) == ("corrected", "a model")
    rejects = Counter[str]()
    passages, _ = read_passages(benchmark, ".", rejects)
    assert len(passages) == 6 and not +rejects
    assert all([query.type for query in passage.queries] == ["person", "city"] for passage in passages)
    found = {p.text: {q.type: q.gold for q in p.queries} for p in passages}
    assert found[TEXTS[1]] == {"person": '["Ada", "Rome"]', "city": "[]"}
    assert found[TEXTS[2]]["city"] == '["Rome on"]'


def test_the_gold_can_be_trained_on_and_scored_on_without_a_common_passage(
    run: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command(review, "export", "--run", run, "--to", "jsonl", "--sample", 99)
    tasks = run / "review" / "tasks.jsonl"
    edit(tasks, lambda row: row.update(reviewed=True))
    printed = command(review, "import", tasks, "--run", run, "--train_one_in", 2, "--output_dir", tmp_path / "gold")
    texts = [
        {row["text"] for row in read_jsonl(tmp_path / "gold" / f"{n}.jsonl")} for n in ("benchmark", "supervised")
    ]
    assert all(texts) and not texts[0] & texts[1] and texts[0] | texts[1] == {*TEXTS}
    assert f"supervised: {len(texts[1])} passages" in printed
    sets = f"[{tmp_path}/gold/supervised.yaml]"
    (tmp_path / "elsewhere").mkdir()  # with a set of the same name
    write_jsonl(tmp_path / "elsewhere" / "supervised.jsonl", [{"id": "p", "text": "Not of this gold", "entities": []}])
    monkeypatch.chdir(tmp_path / "elsewhere")
    options = f"{{sets: {sets}, data_dir: {tmp_path}/elsewhere}}"
    (tmp_path / "set.yaml").write_text(f"supervised: {options}\noutput_dir: {tmp_path}/set\n")
    tokenizer = yaml.safe_load((run / "recipe.yaml").read_text())["corpus"]["tokenizer"]
    command(builder, "--config", tmp_path / "set.yaml", "--corpus.tokenizer", tokenizer)
    [shard] = (tmp_path / "set" / "dataset" / "supervised").glob("train*")
    assert {*parquet.read_table(shard)["text"].to_pylist()} <= texts[1]


def test_a_student_is_not_scored_on_passages_it_was_trained_on(
    run: Path, command: Command, tuned_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, student = run.parent / "recipe.yaml", tmp_path / "student"
    shutil.copytree(tuned_student, student)
    training = {"dataset": str(run / "dataset"), "base_model": "base", "recipe": {"dataset_config": "type"}}
    (student / "training.json").write_text(json.dumps(training))
    command(builder, "--config", recipe, "--stage", "build")
    command(review, "export", "--run", run, "--to", "jsonl", "--sample", 3, "--types", "person,city")
    tasks = run / "review" / "tasks.jsonl"
    edit(tasks, lambda row: row.update(reviewed=True))
    command(review, "import", tasks, "--run", run)
    score = [
        "--config",
        run / "review" / "gold" / "suite.yaml",
        "--model",
        student,
        "--output_dir",
        tmp_path / "results",
    ]
    with pytest.raises(UserError, match="3 of 3 passages of run-review .* which .*student was trained on"):
        command(eval_zero_shot, *score)
    assert not (tmp_path / "results").exists()
    command(builder, "--config", recipe, "--stage", "build")  # now without the passages under review
    monkeypatch.setattr(eval_zero_shot, "update_card", lambda *_: None)  # this training.json is not a whole one
    assert "run-review" in command(eval_zero_shot, *score)


def test_uncertain_passages_come_first(
    run: Path, command: Command, tuned_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sure = [{"text": t, "entities": [{"start": 0, "end": 3, "type": "person", "score": 0.9}]} for t in TEXTS]
    sure[3]["entities"][0]["score"] = 0.45
    sure[7]["entities"][0]["score"] = 0.2
    write_jsonl(tmp_path / "scores.jsonl", sure)
    uncertain = ["export", "--run", run, "--to", "jsonl", "--by", "uncertain", "--sample", 2]
    command(review, *uncertain, "--predictions", tmp_path / "scores.jsonl", "--show", "other")
    drawn = list(read_jsonl(run / "review" / "tasks.jsonl"))
    assert [row["text"] for row in drawn] == [TEXTS[3], TEXTS[7]]
    assert [row["entities"][0]["score"] for row in drawn] == [0.45, 0.2]
    shown = json.loads((run / "review" / "review.json").read_text())
    assert shown["shown"] == shown["compared_with"] == "scores.jsonl"
    monkeypatch.chdir(run)  # so that the paths of the gold, which the commands need, are relative
    command(review, "export", "--run", run, "--to", "label-studio")
    edit(run / "review" / "tasks.jsonl", lambda row: row.update(reviewed=True))
    command(review, "import", run / "review" / "tasks.jsonl", "--run", run)
    written = {file.name: file.read_text() for file in (run / "review").rglob("*.*") if file.is_file()}
    assert {"label-studio.json", "report.json", "benchmark.yaml"} <= written.keys()
    assert not [name for name, content in written.items() if str(tmp_path) in content]

    # the other run agrees about all passages but one
    replies = dict.fromkeys(TEXTS, '[("Ada", "person"), ("Rome", "city"), ("year", "time")]')
    replies[TEXTS[5]] = '[("Ada", "city")]'
    tokenizer = yaml.safe_load((run / "recipe.yaml").read_text())["corpus"]["tokenizer"]
    recipe = write_recipe(tmp_path / "other", tokenizer, TEXTS, replies)
    command(builder, "--config", recipe, "--stage", "passages")
    command(builder, "--config", recipe, "--stage", "annotate")
    command(review, *uncertain, "--other_run", tmp_path / "other" / "run", "--review", run / "two")
    first, second = read_jsonl(run / "two" / "exported.jsonl")
    assert first["text"] == TEXTS[5] and first["uncertainty"] > second["uncertainty"] == 0

    shutil.copytree(run, tmp_path / "again")
    student = ["--model", tuned_student, "--show", "other", "--types", "person,city"]
    command(review, *uncertain, *student, "--review", run / "3")
    rows = list(read_jsonl(run / "3" / "exported.jsonl"))
    scored = [m for row in rows for m in row["entities"]]
    assert rows[0]["uncertainty"] >= rows[1]["uncertainty"]
    assert scored and all(0 <= m["score"] <= 1 and m["type"] in ("person", "city") for m in scored)

    # its saved threshold hides spans, and none of the uncertainty
    threshold = sorted(m["score"] for m in scored)[len(scored) // 2]
    careful = tmp_path / "careful"
    shutil.copytree(tuned_student, careful)
    config = json.loads((careful / "config.json").read_text())
    (careful / "config.json").write_text(json.dumps(config | {"open_ner": {"threshold": threshold}}))
    command(review, *uncertain, *student, "--model", careful, "--run", tmp_path / "again", "--review", run / "4")
    for row in rows:
        row["entities"] = [mention for mention in row["entities"] if mention["score"] >= threshold]
    assert list(read_jsonl(run / "4" / "exported.jsonl")) == rows
    assert 0 < sum(len(row["entities"]) for row in rows) < len(scored)


def test_a_student_that_cannot_answer_is_one_line(
    run: Path, command: Command, tuned_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uncertain = ["export", "--run", run, "--to", "jsonl", "--by", "uncertain", "--model", tuned_student]
    with pytest.raises(UserError, match=f"--model {tuned_student}: .*positions"):
        command(review, *uncertain, "--types", "a kind of city " * 999)
    monkeypatch.setattr(open_ner, "load", lambda *_, **__: {}["no such part"])
    with pytest.raises(UserError, match=f"'{tuned_student}' cannot be loaded .*no such part"):
        command(review, *uncertain)
    assert not (run / "review").exists()


def test_a_run_without_a_span_has_no_types_to_review(tmp_path: Path, tiny_student: Path, command: Command) -> None:
    texts = [f"Ada saw Rome on day {i} of a long year." for i in range(3)]
    recipe = write_recipe(tmp_path / "empty", tiny_student, texts, dict.fromkeys(texts, "[]"))
    for stage in ("passages", "annotate"):
        command(builder, "--config", recipe, "--stage", stage)
    with pytest.raises(UserError, match="the teacher found no span, so name the types to review: --types person"):
        command(review, "export", "--run", tmp_path / "empty" / "run", "--to", "jsonl")


@pytest.mark.parametrize(
    ("entity", "fault"),
    [
        ({"start": 0, "end": 3, "type": ["person"]}, r"the type \['person'\] is not a string"),
        ({"start": 0, "end": 99, "type": "person"}, "the span 0-99 is not in a text of"),
    ],
)
def test_a_wrong_prediction_is_one_line(
    run: Path, command: Command, tmp_path: Path, entity: dict[str, Any], fault: str
) -> None:
    write_jsonl(tmp_path / "scores.jsonl", [{"text": TEXTS[0], "entities": [entity]}])
    options = ["--by", "uncertain", "--predictions", tmp_path / "scores.jsonl"]
    with pytest.raises(UserError, match=f"the line after 0 good ones is not of the form .*{fault}"):
        command(review, "export", "--run", run, "--to", "jsonl", *options)


def test_a_dataset_in_another_folder_is_to_be_built_again_too(run: Path, command: Command, tmp_path: Path) -> None:
    recipe = run.parent / "recipe.yaml"
    command(builder, "--config", recipe, "--stage", "build", "--dataset_dir", tmp_path / "elsewhere")
    printed = command(review, "export", "--run", run, "--to", "jsonl", "--sample", 4)
    assert f"{tmp_path / 'elsewhere'} was built before: run --stage build again" in printed


def test_types_of_a_closed_world_are_the_labels(tmp_path: Path, tiny_student: Path, command: Command) -> None:
    texts = [f"Ada saw Rome on day {i} of a long year." for i in range(6)]
    replies = {text: '[{"text": "Ada", "type": "a < b"}]' if i % 2 else "[]" for i, text in enumerate(texts)}
    types = {"a < b": 'the "first" type', "never": None}
    recipe = write_recipe(tmp_path / "closed", tiny_student, texts, replies, types=types)
    for stage in ("passages", "annotate"):
        command(builder, "--config", recipe, "--stage", stage)
    run = tmp_path / "closed" / "run"
    with pytest.raises(UserError, match="'nevr' is not one of the types of this run: a < b, never"):
        command(review, "export", "--run", run, "--to", "label-studio", "--types", "nevr")
    command(review, "export", "--run", run, "--to", "label-studio")
    labels = ElementTree.fromstring((run / "review" / "label-studio.xml").read_text()).iter("Label")
    assert [(label.get("value"), label.get("hint")) for label in labels] == [
        ("a < b", 'the "first" type'),
        ("never", None),
    ]
    tasks = json.loads((run / "review" / "label-studio.json").read_text())
    assert sorted(len(task["predictions"][0]["result"]) for task in tasks) == [0, 0, 0, 1, 1, 1]


# --- corrected files ---


def exported(
    folder: Path, texts: dict[str, str], types: tuple[str, ...] = ("person", "city"), shown: str = "m"
) -> Path:
    """Write a review of these passages, in which the teacher found nothing; return the folder of its run."""
    folder = folder / "review"
    folder.mkdir()
    rows = [{"id": name, "text": text, "entities": [], "teacher": []} for name, text in texts.items()]
    write_jsonl(folder / "exported.jsonl", rows)
    options = {"types": dict.fromkeys(types, ""), "by": "random", "seed": 0, "shown": shown}
    (folder / "review.json").write_text(json.dumps({**options, "teacher": "m", "compared_with": ""}))
    return folder.parent


def task(name: str, text: str, *spans: tuple[int, int, str, str], who: object = 1) -> dict[str, Any]:
    """Return a task with one annotation, as Label Studio exports it."""
    keys = {"type": "labels", "from_name": "label", "to_name": "text"}
    result = [{**keys, "value": {"start": s, "end": e, "text": t, "labels": [k]}} for s, e, t, k in spans]
    return {"data": {"passage_id": name, "text": text}, "annotations": [{"completed_by": who, "result": result}]}


@pytest.mark.parametrize("form", ["", "_min"])
def test_a_file_that_label_studio_wrote_is_read_with_its_offsets(tmp_path: Path, command: Command, form: str) -> None:
    tasks = json.loads(EXPORTED.read_text(encoding="utf-8"))
    run = exported(tmp_path, {one["data"]["passage_id"]: one["data"]["text"] for one in tasks})
    printed = command(review, "import", EXPORTED.with_name(f"{EXPORTED.stem}{form}.json"), "--run", run)
    where = "passages of the review are not in the file" if form else "passages in the file are not corrected"
    assert f"2 {where}" in printed  # one was skipped, one was not opened
    assert "found by their text" not in printed  # the editor counts characters
    gold = {row["id"]: row for row in read_jsonl(run / "review" / "gold" / "benchmark.jsonl")}
    regions = 0
    for one in tasks:
        for annotation in one["annotations"]:
            if annotation["was_cancelled"]:
                continue
            row = gold[one["data"]["passage_id"]]
            spans = {(e["start"], e["end"], e["type"]) for e in row["entities"]}
            assert all(row["text"][e["start"] : e["end"]] == e["text"] for e in row["entities"])
            for value in (result["value"] for result in annotation["result"]):
                regions += 1
                assert (value["start"], value["end"], value["labels"][0]) in spans
    assert regions > 30
    words = {name: {entity["text"] for entity in row["entities"]} for name, row in gold.items()}
    assert (
        "👨\u200d👩\u200d👧\u200d👦" in words["zwj"]
        and "👩🏽\u200d🚀" in words["hangul"]
        and "Ame\u0301lie" in words["combining"]
    )
    assert {"Ada\r\nLovelace", "Bob  Ray"} <= words["lines"] and words["arabic"] == {"مريم", "القاهرة"}
    assert not {"skipped", "untouched"} & gold.keys()


FLAGS = "🇫🇷🇫🇷 Ada, Ada met مريم"


@pytest.mark.parametrize(
    ("text", "regions", "expected"),
    [
        (FLAGS, [(5, 8, "Ada")], [(5, 8)]),  # code points
        (FLAGS, [(9, 12, "Ada"), (22, 26, "مريم")], [(5, 8), (18, 22)]),  # UTF-16 units
        (FLAGS, [(0, 4, "مريم")], [(18, 22)]),  # neither: the only occurrence
        ("a\r\nb", [(0, 4, "a\\n\\nb")], [(0, 4)]),  # how Label Studio writes line breaks
        ("😀 Bob  Ray", [(2, 10, "Bob Ray")], [(2, 10)]),  # and several spaces, as a browser shows them
        ("😀aa", [(1, 2, "a"), (2, 3, "a")], [(1, 2), (2, 3)]),  # both could be: code points, as the editor counts
        ("😀aab", [(2, 3, "a"), (4, 5, "b")], [(1, 2), (3, 4)]),  # the second span shows that it is UTF-16
        ("Ada", [(0, 3, None)], [(0, 3)]),
        ("😀 Ada met", [(3, 6, None), (7, 10, "met")], [(2, 5), (6, 9)]),  # as "met" shows
        ("😀aab", [(2, 3, "a"), (None, None, "b")], [(2, 3), (3, 4)]),  # a line edited by hand, without offsets
    ],
)  # fmt: skip
def test_offsets_of_another_count_are_found_by_the_text(text: str, regions: list, expected: list) -> None:
    assert anchor(text, [Region(start, end, string, "person") for start, end, string in regions]) == expected


@pytest.mark.parametrize(
    ("text", "region", "fault"),
    [
        (FLAGS, (0, 3, "Ada"), "at several places"), (FLAGS, (0, 3, "Eve"), "nowhere"),
        (FLAGS, (0, 99, None), "not in"),
        (FLAGS, (-4, 3, None), "not in"), (FLAGS, (3, 3, ""), "nowhere|several"), (FLAGS, ("0", 3, "Ada"), "whole"),
        (FLAGS, (True, 3, "Ada"), "whole numbers"), (FLAGS, (1, 2, 7), "not a string"), ("", (0, 1, "a"), "nowhere"),
        (FLAGS, (None, None, "Ada"), "several places: give"), (FLAGS, (None, None, "Eve"), "not in"),
        (FLAGS, (None, None, None), "whole numbers"), (FLAGS, (None, 9, "met"), "whole numbers"),
    ],
)  # fmt: skip
def test_a_span_whose_text_is_elsewhere_is_not_taken(text: str, region: tuple, fault: str) -> None:
    start, end, string = region
    [found] = anchor(text, [Region(start, end, string, "person")])
    assert isinstance(found, str) and re.search(fault, found)


def test_a_span_without_text_whose_count_is_unknown_is_not_taken() -> None:
    regions = [Region(3, 6, None, "person"), Region(0, 1, "met", "verb")]  # the second one is in neither count
    unknown, moved = anchor("😀 Ada met", regions)
    assert isinstance(unknown, str) and "characters or UTF-16 units: add its text" in unknown and moved == (6, 9)


def test_two_people_must_agree_or_one_is_chosen(tmp_path: Path, command: Command) -> None:
    run = exported(tmp_path, {"p": "Ada saw Rome."})
    first, second = (task("p", "Ada saw Rome.", span, who=who) for span, who in (
        ((0, 3, "Ada", "person"), 1), ((8, 12, "Rome", "city"), {"id": 2, "email": "eve@example.com"}),
    ))  # fmt: skip
    first["annotations"] += second["annotations"]
    file = tmp_path / "project.json"
    file.write_text(json.dumps([first]))
    with pytest.raises(UserError, match="passage 'p' is annotated differently by 1, eve@example.com: .*--annotator"):
        command(review, "import", file, "--run", run)
    command(review, "import", file, "--run", run, "--annotator", "eve@example.com")
    [row] = read_jsonl(run / "review" / "gold" / "benchmark.jsonl")
    assert [entity["text"] for entity in row["entities"]] == ["Rome"]
    with pytest.raises(UserError, match="--annotator bob: only 1, eve@example.com corrected it"):
        command(review, "import", file, "--run", run, "--annotator", "bob")
    first["annotations"][1]["result"] = first["annotations"][0]["result"]
    file.write_text(json.dumps([first]))
    command(review, "import", file, "--run", run)
    [row] = read_jsonl(run / "review" / "gold" / "benchmark.jsonl")
    assert [entity["text"] for entity in row["entities"]] == ["Ada"]


def test_json_min_and_deleted_tasks(tmp_path: Path, command: Command) -> None:
    run = exported(tmp_path, {"p": " Ada saw Rome.", "q": "Gone.", "r": "Kept."}, shown="")
    regions = [{"start": 0, "end": 4, "text": " Ada", "labels": ["person"]}]
    common = {"id": 7, "annotator": 1, "annotation_id": 9}
    rows = [{**common, "passage_id": "p", "text": " Ada saw Rome.", "label": regions}]
    rows.append({**common, "passage_id": "r", "text": "Kept."})  # an annotation without a span
    (tmp_path / "min.json").write_text("\ufeff" + json.dumps(rows), encoding="utf-8")
    printed = command(review, "import", tmp_path / "min.json", "--run", run)
    assert "1 passages of the review are not in the file" in printed and "1 spans lost white space" in printed
    assert "favors" not in printed  # the review is blank
    gold = {row["id"]: row["entities"] for row in read_jsonl(run / "review" / "gold" / "benchmark.jsonl")}
    assert gold == {"p": [{"start": 1, "end": 4, "text": "Ada", "type": "person"}], "r": []}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("", "is empty: export the corrected tasks again"),
        ("PK\x03\x04 a zip", "line 1 is not JSON"),
        ('{"id": "p", "text": "Ada saw Rome."}', "line 1 is not of the form"),
        ('{"id": "p", "text": "Ada saw Rome.", "entities": []}\n{oops', "line 2 is not JSON"),
        ([task("p", "Ada saw Oslo.")], "passage 'p' does not have the text that was exported"),
        ([task("x", "Ada saw Rome.")], "passage 'x' is not of this review: name its folder by --review"),
        ([task("p", "Ada saw Rome.", (0, 3, "Ada", ["city"]))], r"label \['city'\] is not under review"),
        ([task("p", "Ada saw Rome.", (0, 3, "Ada", "drug"))], r"label 'drug' is not under review \(person, city\)"),
        ([task("p", "Ada saw Rome.", (0, 3, "Bob", "person"))], "span 0-3: the passage has 'Ada' .* 'Bob' nowhere"),
        ([task("p", "Ada saw Rome.", (3, 4, " ", "person"))], "only white space"),
        ([task("p", "Ada saw Rome."), task("p", "Ada saw Rome.")], "two annotations by 1: delete one"),
        ([{"data": {"text": "Ada saw Rome."}}], "task 1 has no passage_id and text"),
        ([{"data": {"passage_id": "p", "text": "Ada saw Rome."}, "annotations": [3]}], "no list of annotations"),
        ([[]], "task 1 is not an object"),
        ([], "none of 0 passages is corrected"),
        ([{"passage_id": "p", "text": "Ada saw Rome.", "label": [{"start": 0, "end": 3}]}], "region without a label"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_one_line_and_writes_nothing(
    tmp_path: Path, command: Command, content: Any, fault: str
) -> None:
    run = exported(tmp_path, {"p": "Ada saw Rome."})
    file = tmp_path / "corrected.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UserError, match=fault):
        command(review, "import", file, "--run", run)
    assert not (run / "review" / "gold").exists()


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--by", "uncertain"], "needs a second opinion"), (["--model", "m"], "--model has no effect"),
        (["--show", "other"], "--show other needs"), (["--sample", "0"], "at least 1"),
        (["--types", "drug=a substance"], "has definitions, which this command does not read"),
        (["--types", "city,city"], "twice"), (["--types", " "], "names no type"),
        (["--types", "[]"], "--types is empty"), (["--types", "[[1]]"], r"\[1\] is not a string"),
        (["--by", "uncertain", "--model", "m", "--other_run", "r"], "give one of them"),
        (["--by", "uncertain", "--model", "m", "--sample", "9", "--pool", "4"], "raise --pool"),
        (["--by", "uncertain", "--predictions", "no.jsonl"], "no.jsonl: No such file"),
        (["--by", "uncertain", "--other_run", "no"], "no/recipe.yaml does not exist"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_are_one_line(run: Path, command: Command, options: list[str], fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        command(review, "export", "--run", run, "--to", "jsonl", *options)
    assert not (run / "review").exists()


def test_each_corrected_span_accounts_for_one_change() -> None:
    def spans(*places: tuple[int, int, str]) -> list[Mention]:
        return [{"start": start, "end": end, "text": "", "type": name} for start, end, name in places]

    before = spans((0, 4, "a"), (2, 6, "a"), (10, 12, "b"))
    gold = spans((0, 5, "a"), (10, 12, "a"), (20, 21, "c"))
    table = compare([(before, gold)])
    changes = {name: {k: n for k, n in row["changes"].items() if n} for name, row in table.items()}
    assert changes["a"] == {"boundary": 1, "removed": 1} and changes["b"] == {"retyped": 1}
    assert changes["c"] == {"added": 1}
    assert changes[""] == {"boundary": 1, "removed": 1, "retyped": 1, "added": 1}
