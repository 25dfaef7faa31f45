"""`python -m dataset_builder` as a user runs it: the sample, one's own corpus and teacher, mistakes, Ctrl-C."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partialmethod
from pathlib import Path
from typing import Any

import datasets
import pytest
from huggingface_hub import DatasetCard
from pyarrow import parquet

from dataset_builder.__main__ import main
from dataset_builder.corpus.passages import StoredPassages
from fake_batch import FakeBatch
from fake_teacher import FakeTeacher, completion
from open_ner.conversation import order_strings
from open_ner.tools.errors import UserError

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "dataset_builder" / "sample"
HELD_OUT_TYPES = {
    "spacecraft", "planet", "constellation", "aircraft", "airline", "airport", "deity", "mythical creature",
    "magical object", "video game", "game console", "game character",
}  # fmt: skip
REASONS = {
    "truncated", "malformed_list", "no_list", "refusal", "content_filter", "no_entities", "no_entities_left",
    "not_in_passage", "else_type", "empty", "duplicate", "non_english", "whole_passage", "too_long",
}  # fmt: skip


def build(*arguments: str, cwd: Path = ROOT, key: str | None = None) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "dataset_builder", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment(key),
    )


def environment(key: str | None) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.endswith(("_API_KEY", "_TOKEN"))}
    return {**clean, "PYTHONPATH": str(ROOT), **({"OPENAI_API_KEY": key} if key else {})}


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (SAMPLE / name).read_text(encoding="utf-8").splitlines()]


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*.parquet")
    }


@pytest.fixture(scope="module")
def sample_arguments(tiny_student: Path) -> list[str]:
    # the tiny tokenizer makes more tokens of a word than a real one: leave the passages whole
    return [
        "--config", "recipes/build/sample.yaml", "--corpus.tokenizer", str(tiny_student),
        "--corpus.max_tokens", "1000", "--dataset.max_conversation_tokens", "2000",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def sample(sample_arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("sample")
    ended = build(*sample_arguments, "--output_dir", str(folder))
    assert ended.returncode == 0, ended.stderr
    return folder, ended.stdout


def test_the_sample_is_built_from_recorded_answers_and_nothing_is_paid(sample: tuple[Path, str]) -> None:
    folder, printed = sample
    assert "270 replies came from the journal and recorded files, nothing was paid" in printed
    stats = json.loads((folder / "dataset" / "stats.json").read_text())
    counts = stats["variants"]["type"]["counts"]
    assert set(counts) >= REASONS
    assert counts["replies"] == 216
    assert stats["answers"] == {"paid": 0, "cost": 0}
    assert (folder / "dataset" / "figures" / "types_by_rank.png").read_bytes().startswith(b"\x89PNG")


def test_every_reject_is_kept_with_its_reason_and_reply(sample: tuple[Path, str]) -> None:
    stats = json.loads((sample[0] / "dataset" / "stats.json").read_text())
    rejects = parquet.read_table(sample[0] / "dataset" / "rejects" / "rejects.parquet").to_pylist()
    counted = Counter(reject["reason"] for reject in rejects if reject["variant"] == "type")
    assert {reason: stats["variants"]["type"]["counts"][reason] for reason in REASONS} == dict(counted)
    replies = parquet.read_table(sample[0] / "dataset" / "rejects" / "replies.parquet").to_pylist()
    told = {(reply["variant"], reply["passage_id"]) for reply in replies if reply["reply"]}
    silent = ("content_filter", "no_answer")
    assert all((r["variant"], r["passage_id"]) in told for r in rejects if r["reason"] not in silent)


def test_the_card_reads_back_with_configs_and_the_statistics(sample: tuple[Path, str]) -> None:
    card = DatasetCard.load(sample[0] / "dataset" / "README.md")
    assert [config["config_name"] for config in card.data.configs] == ["type", "definition", "annotations"]
    assert card.data.license == "apache-2.0"
    stats = json.loads((sample[0] / "dataset" / "stats.json").read_text())
    assert f"| entities | {stats['variants']['type']['entities']:,} | 240,725 |" in card.text


@pytest.mark.parametrize("config", ["type", "definition"])
def test_conversations_ask_present_and_absent_types_and_answer_in_order(
    config: str, sample: tuple[Path, str], tmp_path: Path
) -> None:
    rows = datasets.load_dataset(str(sample[0] / "dataset"), config, split="train", cache_dir=str(tmp_path))
    assert len(rows) >= (180 if config == "type" else 40)
    for row in rows:
        turns = row["messages"]
        assert turns[1]["content"] == f"Text: {row['text']}"
        answers = {}
        for asked, answer in zip(turns[3::2], turns[4::2], strict=True):
            name = re.fullmatch(r"What describes (.*) in the text\?", asked["content"])[1]
            answers[name] = json.loads(answer["content"])
        assert len(answers) <= 4
        assert {name for name, strings in answers.items() if not strings} == set(row["negatives"])
        for entity in row["entities"]:
            assert row["text"][entity["start"] : entity["end"]] == entity["text"]
        mentions = {(entity["type"], entity["start"], entity["text"]) for entity in row["entities"]}
        for name, strings in answers.items():
            of_type = [(start, string) for kind, start, string in mentions if kind == name]
            assert strings == order_strings(of_type), name  # by first mention, the longer first, each once


def test_building_twice_gives_the_same_files(
    sample: tuple[Path, str], sample_arguments: list[str], tmp_path: Path
) -> None:
    again = build(*sample_arguments, "--output_dir", str(tmp_path))
    assert again.returncode == 0, again.stderr
    # the annotations config carries the time of each answer
    first, second = hashes(sample[0] / "dataset"), hashes(tmp_path / "dataset")
    compared = [name for name in first if not name.startswith("annotations")]
    assert len(compared) >= 5
    assert {name: first[name] for name in compared} == {name: second[name] for name in compared}


def test_changed_options_do_not_return_an_old_build(sample_arguments: list[str], tmp_path: Path) -> None:
    sizes = []
    for number in ("2", "3"):
        ended = build(*sample_arguments, "--output_dir", str(tmp_path), "--dataset.max_queries", number)
        assert ended.returncode == 0, ended.stderr
        table = parquet.read_table(next((tmp_path / "dataset" / "type").glob("train-*.parquet")))
        sizes.append({len(messages) for messages in table["messages"].to_pylist()})
    assert sizes == [{7}, {9}]


def test_the_sample_holds_out_its_domains_and_types() -> None:
    passages, held_out = lines("passages.jsonl"), lines("held_out.jsonl")
    answers = lines("answers.jsonl") + lines("definitions.jsonl")
    assert len(passages) >= 216 and len({row["source"] for row in passages}) >= 16
    assert len(lines("definitions.jsonl")) >= 40
    assert not {row["domain"] for row in held_out} & {row["source"] for row in passages}
    trained = {name.lower() for row in answers for name in re.findall(r', "([^"]*)"\)', row["reply"])}
    assert len(trained) > 300 and not trained & HELD_OUT_TYPES
    assert {name for row in held_out for name in row["types"]} >= HELD_OUT_TYPES
    assert not {row["text"] for row in held_out} & {row["text"] for row in passages}
    for row in passages + held_out:
        assert 60 <= len(row["text"].split()) <= 160


def word_runs(row: dict[str, Any], length: int = 8) -> set[str]:
    words = re.findall(r"\w+", row["text"].lower())
    return {" ".join(words[i : i + length]) for i in range(len(words) - length + 1)}


def test_the_passages_to_fit_on_share_no_eight_words_and_no_domain_with_the_others() -> None:
    fit, others = lines("fit.jsonl"), lines("passages.jsonl") + lines("held_out.jsonl")
    seen = set().union(*map(word_runs, others))
    assert not [row["id"] for row in fit if word_runs(row) & seen]
    assert not {row["domain"] for row in fit} & {row.get("domain", row.get("source")) for row in others}
    replies = " ".join(row["reply"] for row in lines("answers.jsonl")).lower()
    asked = {name for row in fit for name in row["types"]}
    assert len([name for name in asked if f', "{name}")' not in replies]) * 2 >= len(asked)


@pytest.mark.parametrize(("file", "domains", "most_types"), [("held_out.jsonl", 4, 8), ("fit.jsonl", 8, 12)])
def test_the_gold_is_sound_and_mostly_empty(file: str, domains: int, most_types: int) -> None:
    rows = lines(file)
    assert len(rows) >= 40 and len({row["domain"] for row in rows}) == domains
    empty = total = 0
    for row in rows:
        assert 6 <= len(row["types"]) == len(set(row["types"])) <= most_types
        for entity in row["entities"]:
            assert row["text"][entity["start"] : entity["end"]] == entity["text"]
            assert entity["type"] in row["types"]
        spans = sorted((entity["start"], entity["end"]) for entity in row["entities"])
        assert all(a[1] <= b[0] for a, b in zip(spans, spans[1:], strict=False))
        total += len(row["types"])
        empty += len(set(row["types"]) - {entity["type"] for entity in row["entities"]})
    assert empty * 2 >= total


@pytest.fixture
def workplace(tiny_student: Path, tmp_path: Path) -> Path:
    """A folder with a corpus and the default tokenizer, where your_corpus.yaml runs with three lines changed."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "smollm2-135m-instruct").symlink_to(tiny_student)
    names = ["Paris", "Rome", "Oslo", "Lima", "Cairo", "Quito", "Delhi", "Tunis", "Minsk", "Seoul", "Accra", "Dakar"]
    corpus = [
        {"text": f"The mayor of {name} met Ada Byron on Monday in town hall number {i}."}
        for i, name in enumerate(names)
    ]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in corpus))
    return tmp_path


def your_recipe(workplace: Path, base_url: str) -> list[str]:
    recipe = (ROOT / "recipes" / "build" / "your_corpus.yaml").read_text()
    changed = recipe.replace("path: my_corpus.jsonl", "path: mine.jsonl").replace(
        "https://api.openai.com/v1", base_url
    )
    assert sum(a != b for a, b in zip(recipe.splitlines(), changed.splitlines(), strict=True)) == 2
    (workplace / "mine.yaml").write_text(changed)
    return ["--config", "mine.yaml"]


def reply(request: dict[str, Any]) -> str:
    passage = request["messages"][-1]["content"].split("Passage: ")[1]
    name = re.search(r"mayor of (\w+)", passage)[1]
    return f'[("{name}", "city"), ("Ada Byron", "person"), ("Monday", "date")]'


@pytest.fixture
def teacher() -> Iterator[FakeTeacher]:
    with FakeTeacher(reply) as teacher:
        yield teacher


def test_your_corpus_url_and_key_are_all_it_takes(workplace: Path, teacher: FakeTeacher, tmp_path: Path) -> None:
    arguments = your_recipe(workplace, teacher.base_url)
    dry = build(*arguments, "--dry_run", cwd=workplace, key="sk-secret")
    assert dry.returncode == 0 and "12 requests to send" in dry.stdout and teacher.requests == []
    ended = build(*arguments, cwd=workplace, key="sk-secret")
    assert ended.returncode == 0, ended.stderr
    assert "12 were paid for ($0.0" in ended.stdout
    assert len(teacher.requests) == 12
    folder = workplace / "runs" / "my-dataset"
    rows = datasets.load_dataset(str(folder / "dataset"), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(rows) >= 8
    assert json.loads((folder / "dataset" / "stats.json").read_text())["answers"]["paid"] == 12
    again = build(*arguments, cwd=workplace, key="sk-secret")
    assert "nothing was paid, $0.0" in again.stdout and len(teacher.requests) == 12
    written = b"".join(
        path.read_bytes() for path in workplace.rglob("*") if path.is_file() and "cache" not in str(path)
    )
    assert b"sk-secret" not in written


def test_a_pilot_gives_an_expectation_and_a_custom_prompt_asks_again(workplace: Path, teacher: FakeTeacher) -> None:
    arguments = your_recipe(workplace, teacher.base_url)
    pilot = build(*arguments, "--dry_run", "--pilot", "4", cwd=workplace, key="k")
    assert pilot.returncode == 0 and len(teacher.requests) == 4, pilot.stderr
    assert "pilot: 4 replies for $0.0" in pilot.stdout and "8 requests to send, at most $0.0" in pilot.stdout
    assert re.search(r"expected .*: \$0\.0\d+ \+- \$0\.\d+, \d+ s \+- \d+ s with 64 in flight", pilot.stdout)
    (workplace / "own.jinja").write_text(
        "{% block system %}S{% endblock %}{% block user %}Passage: {{ passage }}{% endblock %}"
    )
    own = build(*arguments, "--prompt", "type=own.jinja", cwd=workplace, key="k")
    assert own.returncode == 0 and "12 were paid for" in own.stdout, own.stderr
    assert {request["messages"][0]["content"] for request in teacher.requests[4:]} == {"S"}
    (workplace / "own.jinja").write_text("{% block user %}Only a user. Passage: {{ passage }}{% endblock %}")
    own = build(*arguments, "--prompt", "own.jinja", "--stage", "annotate", cwd=workplace, key="k")
    assert own.returncode == 0 and "12 were paid for" in own.stdout, own.stderr
    assert {tuple(m["role"] for m in request["messages"]) for request in teacher.requests[16:]} == {("user",)}
    for code in ("passage.__class__.__mro__[1].__subclasses__()", "cycler.__init__.__globals__.os.popen('id').read()"):
        (workplace / "own.jinja").write_text("{% block user %}{{ CODE }}{% endblock %}".replace("CODE", code))
        own = build(*arguments, "--prompt", "own.jinja", "--stage", "annotate", cwd=workplace, key="k")
        assert own.returncode == 2 and "unsafe" in own.stderr and "Traceback" not in own.stderr, own.stderr
    assert len(teacher.requests) == 28


@pytest.mark.parametrize("older", ["licence", "dropped_passages.jsonl"])
def test_passages_of_an_older_version_are_made_again_and_nothing_is_paid_again(
    older: str, workplace: Path, teacher: FakeTeacher
) -> None:
    arguments = your_recipe(workplace, teacher.base_url)
    assert build(*arguments, cwd=workplace, key="k").returncode == 0
    folder = workplace / "runs" / "my-dataset"
    written = (folder / "passages.jsonl").read_text()
    if older == "licence":
        (folder / "passages.jsonl").write_text(written.replace('"license": ', '"licence": '))
    else:
        (folder / "rejected_passages.jsonl").rename(folder / older)
    for stage in ("annotate", "build"):
        ended = build(*arguments, "--stage", stage, cwd=workplace, key="k")
        assert ended.returncode == 2 and "Traceback" not in ended.stderr
        assert "older version: run --stage passages again" in ended.stderr.splitlines()[-1]
    ended = build(*arguments, cwd=workplace, key="k")
    assert ended.returncode == 0 and "nothing was paid, $0.0" in ended.stdout and len(teacher.requests) == 12
    assert (folder / "passages.jsonl").read_text() == written and (folder / "rejected_passages.jsonl").exists()


def test_passages_of_another_corpus_section_are_named_before_they_are_paid_for(
    workplace: Path, teacher: FakeTeacher, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = your_recipe(workplace, teacher.base_url)
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("OPENAI_API_KEY", "k")

    def run(*options: str) -> str:
        monkeypatch.setattr(sys, "argv", ["dataset_builder", *recipe, *options])
        main()
        return capsys.readouterr().out

    said = run("--stage", "passages") + run("--stage", "annotate", "--corpus.num_proc", "1") + run("--stage", "build")
    assert "warning" not in said + run()
    said = run("--stage", "annotate", "--corpus.min_words", "9")
    [line] = [line for line in said.splitlines() if line.startswith("warning")]
    assert "passages.jsonl was made with another corpus.min_words" in line and "run --stage passages" in line


def test_a_prompt_without_the_passage_is_an_error_before_anything_is_made(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workplace / "own.jinja").write_text("{% block user %}Passage: {passage}{% endblock %}")
    recipe = your_recipe(workplace, "http://127.0.0.1:9/v1")
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(sys, "argv", ["dataset_builder", *recipe, "--prompt", "own.jinja"])
    with pytest.raises(UserError, match="'own.jinja' does not use the variable `passage`: use it as `type.jinja`"):
        main()
    assert not (workplace / "runs").exists()


def test_an_interrupted_passages_stage_never_mixes_two_runs(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the stage is interrupted, what it leaves is one run's passages and rejects, or asks for the stage."""
    with (workplace / "mine.jsonl").open("a") as corpus:
        corpus.write('{"text": "Ada was here."}\n')
    folder, recipe = workplace / "runs" / "my-dataset", your_recipe(workplace, "http://127.0.0.1:9/v1")
    monkeypatch.chdir(workplace)

    def passages(min_words: int, interrupted_at: int | None = None) -> None:
        calls = 0

        def interrupted(path: Path, method: Any, *arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == interrupted_at:
                raise KeyboardInterrupt
            return method(path, *arguments, **options)

        with monkeypatch.context() as patch:
            options = ["--stage", "passages", "--corpus.language", "null", "--corpus.min_words", str(min_words)]
            patch.setattr(sys, "argv", ["dataset_builder", *recipe, *options])
            for name in ("replace", "unlink"):
                patch.setattr(Path, name, partialmethod(interrupted, getattr(Path, name)))
            main()

    def left() -> tuple[int, int] | None:
        try:
            stored = StoredPassages(folder)
        except UserError as error:
            assert "run --stage passages again" in str(error)
            return None
        return len(list(stored)), len(list(stored.rejects()))

    found = []
    for number in range(1, 7):
        passages(5)
        assert left() == (12, 1)
        with pytest.raises(KeyboardInterrupt):
            passages(2, number)
        found.append(left())
        passages(2)
        assert left() == (13, 0)
    assert found == [(12, 1), (12, 1), (12, 1), None, None, (13, 0)]
    (folder / "passages.report.json").write_text("")  # a full disk, with an older version
    passages(2)
    assert json.loads((folder / "passages.report.json").read_text())["counts"]["kept"] == 13
    with (folder / "rejected_passages.jsonl").open("a") as file:
        file.write('{"id": "a')
    with pytest.raises(UserError, match=r"rejected_passages\.jsonl is damaged .*: delete it and run --stage passages"):
        list(StoredPassages(folder).rejects())


def test_the_batch_api_is_one_flag_away(workplace: Path) -> None:
    with FakeBatch(reply, polls=1) as provider:
        arguments = [*your_recipe(workplace, provider.base_url), "--batch", "--teacher.batch_poll_seconds", "0.05"]
        ended = build(*arguments, cwd=workplace, key="k")
        assert ended.returncode == 0, ended.stderr
        assert "12 were paid for" in ended.stdout and set(provider.paid.values()) == {1}
        again = build(*arguments, cwd=workplace, key="k")
        assert "nothing was paid" in again.stdout and len(provider.batches) == 1


def test_an_interrupted_run_asks_only_what_is_missing(workplace: Path) -> None:
    started: list[subprocess.Popen] = []

    def interrupt_the_fifth(request: dict[str, Any]) -> str:
        if len(teacher.requests) == 5:
            started[0].send_signal(signal.SIGINT)
        return reply(request)

    with FakeTeacher(interrupt_the_fifth, latency=0.05) as teacher:
        arguments = [*your_recipe(workplace, teacher.base_url), "--teacher.concurrency", "1"]
        command = [sys.executable, "-m", "dataset_builder", *arguments]
        started.append(
            subprocess.Popen(command, cwd=workplace, env=environment("k"), stderr=subprocess.PIPE, text=True)
        )
        message = started[0].communicate()[1]
        assert started[0].returncode == 130, message
        assert "run the same command again" in message.splitlines()[-1]
        journal = (workplace / "runs" / "my-dataset" / "journal.jsonl").read_text().splitlines()
        answered = sum('"finish_reason"' in line for line in journal)
        assert 3 <= answered <= 5
        ended = build(*arguments, cwd=workplace, key="k")
        assert ended.returncode == 0, ended.stderr
        assert f"{12 - answered} were paid for" in ended.stdout


def test_replies_of_todays_models_are_read_or_named(workplace: Path) -> None:
    """Errors in a response of status 200 are faults; what is an answer is journaled once, whatever surrounds it."""

    def answer(request: dict[str, Any]) -> Any:
        pairs, body = reply(request), completion(reply(request), request)
        choice = body["choices"][0]
        if "Rome" in pairs:
            return {"body": {"choices": []}}
        if "Oslo" in pairs:
            choice["finish_reason"] = "error"
        if "Lima" in pairs:
            choice["message"] = {"role": "assistant", "content": None, "reasoning_content": pairs}
        if "Cairo" in pairs:
            del choice["message"]
            choice["finish_reason"] = "content_filter"
        if "Quito" in pairs:
            return {"body": {"error": {"message": "flagged", "code": "content_filter"}}}
        if "Delhi" in pairs:
            choice["finish_reason"] = "MAX_TOKENS"
        if "Tunis" in pairs:
            choice["finish_reason"] = {"why": 1}
            body |= {"model": {"id": 1}, "usage": {"prompt_tokens": float("inf"), "completion_tokens": float("nan")}}
        if "Minsk" in pairs:
            choice["message"]["content"] = f'Or [("Minsk", "person")]?\n</think>\n\n{pairs}'
            choice["finish_reason"] = "STOP"
        if "Seoul" in pairs:
            choice["message"]["content"] = [{"type": "thinking", "thinking": []}, {"type": "text", "text": pairs}]
        return {"body": body}

    broke = {"error": {"message": "Insufficient credits for key-of-nobody", "code": 402}}
    with FakeTeacher(lambda request: {"body": broke}) as endpoint:
        ended = build(*your_recipe(workplace, endpoint.base_url), "--stage", "all", cwd=workplace, key="key-of-nobody")
    assert ended.returncode == 2 and ended.stderr.strip().endswith("is used up: Insufficient credits for ***")
    assert len(endpoint.requests) == 1
    with FakeTeacher(answer) as endpoint:
        arguments = [*your_recipe(workplace, endpoint.base_url), "--teacher.max_retries", "0"]
        ended = build(*arguments, "--stage", "annotate", cwd=workplace, key="k")
        build(*arguments, "--stage", "annotate", cwd=workplace, key="k")
    assert "3 failed" in ended.stdout
    assert Counter(Counter(request["messages"][-1]["content"] for request in endpoint.requests).values()) == {
        1: 9,
        2: 3,
    }
    build(*arguments, "--stage", "build", cwd=workplace)
    folder = workplace / "runs" / "my-dataset"
    records = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()[1:]]
    finished = Counter(record["finish_reason"] for record in records if "finish_reason" in record)
    assert finished == {"stop": 5, "content_filter": 2, "length": 1, "{'why': 1}": 1}
    rows = [json.loads(line) for line in (folder / "annotations.type.jsonl").read_text().splitlines()]
    types = {entity["text"]: entity["type"] for row in rows for entity in row["entities"]}
    assert {types[name] for name in ("Paris", "Tunis", "Minsk", "Seoul", "Accra", "Dakar")} == {"city"}


@pytest.mark.parametrize(
    ("arguments", "corpus", "named"),
    [
        (["--config", "absent.yaml"], None, "absent.yaml"),
        (["--config", "mine.yaml", "--corpus.path", "absent.jsonl"], None, "absent.jsonl"),
        (["--config", "mine.yaml"], '{"text": "fine"}\n{"text": broken}\n', "line 2"),
        (["--config", "mine.yaml"], '{"body": "no text column"}\n', "'text'"),
        (["--config", "mine.yaml"], "", "no rows"),
        (["--config", "mine.yaml", "--dataset.negativs", "none"], None, "did you mean dataset.negatives"),
        (["--config", "mine.yaml", "--corpus.licence_column", "x"], None, "did you mean corpus.license_column"),
        (["--config", "mine.yaml", "--licence", "x"], None, "did you mean license"),
        (["--config", "mine.yaml", "--corpus.tokenizer", "/nowhere"], None, "/nowhere"),
        (["--config", "mine.yaml"], None, "OPENAI_API_KEY"),
        (["--config", "mine.yaml", "--prompt", "definition=x.jinja"], None, "name one of the variants ['type']"),
        (["--config", "mine.yaml", "--stage", "build"], None, "run --stage passages first"),
    ],
)
def test_mistakes_give_a_one_line_error(
    arguments: list[str], corpus: str | None, named: str, workplace: Path, teacher: FakeTeacher
) -> None:
    your_recipe(workplace, teacher.base_url)
    if corpus is not None:
        (workplace / "mine.jsonl").write_text(corpus)
    ended = build(*arguments, cwd=workplace)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    errors = [line for line in ended.stderr.splitlines() if "error: " in line]
    assert len(errors) == 1 and named in errors[0], ended.stderr
    assert teacher.requests == []
