"""The command line: a marked text, JSON, files, standard input, JSON lines, and errors."""

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import pipeline

from fake_teacher import MODEL, FakeTeacher
from open_ner.__main__ import cli, main, parse_types
from open_ner.pipeline import OpenNERPipeline
from open_ner.tools.errors import UserError, run
from open_ner.tools.escapes import printable
from open_ner.tools.jsonl import answer_jsonl
from open_ner.tools.terminal import marked
from terminal import in_a_terminal

ROOT = Path(__file__).parent.parent
TEXT = "Angela Merkel met Barack Obama in Berlin."
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the command in this process; returns its status and both outputs."""

    def invoke(*arguments: str, stdin: str | bytes = b"") -> tuple[int, str, str]:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "argv", ["open_ner", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        try:
            run(main)
            status = 0
        except SystemExit as left:
            status = left.code
        written = capsys.readouterr()
        return status, written.out, written.err

    return invoke


@pytest.fixture(scope="module")
def tagger(tuned_student: Path) -> OpenNERPipeline:
    return pipeline("open-ner", model=str(tuned_student))


def places(entities: list[dict[str, Any]]) -> list[tuple[str, int, int]]:
    return [(entity["entity_group"], entity["start"], entity["end"]) for entity in entities]


def test_json_is_the_result_of_the_pipeline(call: Call, tuned_student: Path, tagger: OpenNERPipeline) -> None:
    status, out, _ = call(TEXT, "--model", str(tuned_student), "--types", "person, city", "--json")
    assert status == 0
    expected = tagger(TEXT, types=["person", "city"])
    assert expected and places(json.loads(out)) == places(expected)
    given = ["--types", "person,town=a small city", "--occurrences", "first", "--threshold", "1e-6", "--dataset", "x"]
    _, out, _ = call(TEXT, "--model", str(tuned_student), *given, "--json", "--device", "cpu")
    options = {"types": {"person": "person", "town": "a small city"}, "occurrences": "first", "threshold": 1e-6}
    assert places(json.loads(out)) == places(tagger(TEXT, **options, dataset="x"))
    given = ["--types", "person,city", "--overlaps", "all", "--best", "--threshold", "person=0.1,city=1"]
    _, out, _ = call(TEXT, "--model", str(tuned_student), *given, "--json")
    expected = tagger(TEXT, types=["person", "city"], overlaps="all", best=True, threshold={"person": 0.1, "city": 1})
    assert json.loads(out) == expected and [entity["entity_group"] for entity in expected] == ["person"]
    given = ["--types", "person,city", "--max_new_tokens", "2"]
    _, out, _ = call(TEXT, "--model", str(tuned_student), *given, "--json")
    short, full = (tagger(TEXT, types=["person", "city"], max_new_tokens=longest) for longest in (2, 256))
    assert json.loads(out) == short != full


def test_a_person_sees_the_text_marked_and_every_span(
    call: Call, tuned_student: Path, tagger: OpenNERPipeline
) -> None:
    status, out, _ = call(TEXT, "--model", str(tuned_student), "--types", "person,city")
    assert status == 0 and "\x1b" not in out
    text, blank, header, *rows = out.splitlines()
    first, *_ = expected = tagger(TEXT, types=["person", "city"])
    assert f"[{first['word']}|" in text and blank == ""
    assert header.split() == ["span", "start", "end", "score", "type"]
    assert [(row.split()[-1], *map(int, row.split()[-4:-2])) for row in rows] == places(expected)
    _, out, _ = call(TEXT, "--model", str(tuned_student), "--types", "person", "--threshold", "1")
    assert out == f"{TEXT}\n\n(no spans)\n"


def test_files_and_standard_input_are_read_with_their_own_line_ends(
    call: Call, tuned_student: Path, tmp_path: Path, tagger: OpenNERPipeline
) -> None:
    text = f"\r\n{TEXT}\r\nÀ Paris. 💙\n"
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    (tmp_path / "b.txt").write_text(TEXT)
    model = ["--model", str(tuned_student), "--types", "city", "--json"]
    expected = places(tagger(text, types=["city"]))
    for arguments, stdin in (([], text), (["--file", "-"], text), (["--file", str(tmp_path / "a.txt")], "")):
        status, out, _ = call(*arguments, *model, stdin=stdin)
        assert (status, places(json.loads(out))) == (0, expected)
    _, out, _ = call("--file", str(tmp_path / "a.txt"), str(tmp_path / "b.txt"), *model)
    lines = [json.loads(line) for line in out.splitlines()]
    assert [Path(line["file"]).name for line in lines] == ["a.txt", "b.txt"]
    assert places(lines[0]["entities"]) == expected
    _, out, _ = call("--file", str(tmp_path / "a.txt"), str(tmp_path / "b.txt"), *model[:-1])
    assert out.count("== ") == 2


def test_json_lines_keep_their_order_and_keys_and_bring_their_own_types(
    call: Call, tuned_student: Path, tagger: OpenNERPipeline
) -> None:
    rows = [
        {"id": 1, "text": TEXT, "entities": ["of the caller"], "error": None},
        {"text": "", "meta": {"a": [None, "é\ud800"]}},
        {"text": TEXT, "types": ["person"]},
        {"text": TEXT, "types": {"who": "a person"}},
        {"text": "Rome " * 500, "types": None},
    ]
    stdin = "\n\n".join(map(json.dumps, rows)) + "\n"
    status, out, err = call(
        "--jsonl", "--model", str(tuned_student), "--types", "city", "--batch_size", "3", stdin=stdin
    )
    assert (status, err.count("line")) == (0, 0)
    found = [json.loads(line) for line in out.splitlines()]
    assert any(line["entities"] for line in found)
    for row, answered in zip(rows, found, strict=True):
        entities = answered.pop("entities")
        own = {f"input_{key}" if key in ("entities", "error") else key: value for key, value in row.items()}
        assert answered == own
        assert places(entities) == places(tagger(row["text"], types=row.get("types") or ["city"]))


def test_entities_and_errors_of_the_input_are_kept_however_often_it_is_answered(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = b'{"error": "of the caller", "text": "Rome", "entities": 0, "id": 1}'
    for number in range(1, 4):
        answer_jsonl([line], "-", lambda texts, types, answer=number: [[answer]], None, batch_size=1)
        line = capsys.readouterr().out.encode()
    kept = {"input_error": "of the caller", "input_entities": 0, "input_input_entities": [1]}
    assert json.loads(line) == {"text": "Rome", "id": 1, "entities": [3], "input_input_input_entities": [2], **kept}


def test_the_batch_size_is_the_number_of_texts_that_the_student_is_given(
    call: Call, tuned_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    answer = OpenNERPipeline._forward

    def counted(tagger: OpenNERPipeline, items: list[Any], **options: Any) -> Iterator[Any]:
        sizes.append(len(items))
        return answer(tagger, items, **options)

    monkeypatch.setattr(OpenNERPipeline, "_forward", counted)
    options = ["--jsonl", "--model", str(tuned_student), "--types", "city", "--batch_size", "40"]
    status, out, _ = call(*options, stdin='{"text": "Rome"}\n' * 60)
    assert (status, sizes, len(out.splitlines())) == (0, [40, 20], 60)


def test_lines_that_cannot_be_answered_are_named_counted_and_keep_their_place(call: Call, tuned_student: Path) -> None:
    bad = [
        b"{",
        b"[]",
        b'{"text": 3}',
        b'{"t": "x"}',
        b'{"text": "\xff"}',
        b"[" * 100_000,
        b'{"text": "a\\ud800", "id": 7}',
    ]
    bad += [b'{"text": "Rome", "types": []}', b'{"text": "Rome", "types": 5}', b'{"id": 2, "text": null}']
    good = b'{"text": "Rome"}'
    stdin = b"\n".join([good, *bad, good, b""])
    status, out, err = call("--jsonl", "--model", str(tuned_student), "--types", "city", stdin=stdin)
    lines = [json.loads(line) for line in out.splitlines()]
    assert ["entities" in line for line in lines] == [True, *[False] * len(bad), True]
    assert ["error" in line for line in lines] == [False, *[True] * len(bad), False]
    assert lines[len(bad)]["id"] == 2 and lines[len(bad)]["text"] is None
    assert lines[7]["id"] == 7 and "surrogate" in lines[7]["error"]
    said = [line for line in err.splitlines() if line.startswith(("-, line", "error"))]
    assert [line.split(":")[0] for line in said[:-1]] == [f"-, line {number}" for number in range(2, len(bad) + 2)]
    assert (status, said[-1]) == (
        2,
        f"error: -: {len(bad)} of {len(bad) + 2} lines could not be answered and have an error in their place",
    )


def test_the_types_of_a_line_are_checked_and_keep_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[tuple[int, list[str]]] = []

    def ask(texts: list[str], types: Any) -> list[list[Any]]:
        asked.append((len(texts), list(types)))
        return [[] for _ in texts]

    lists = [["city"], ["person"]]  # as many as neighbors with them: the pipeline reads one for each text
    types = [{"a": "x", "b": "y"}, {"b": "y", "a": "x"}, lists, lists]
    lines = [json.dumps({"text": "Rome", "types": own}).encode() for own in types]
    with pytest.raises(UserError, match="2 of 4 lines"):
        answer_jsonl(lines, "-", ask, None, batch_size=4)
    assert asked == [(1, ["a", "b"]), (1, ["b", "a"])]
    assert "line 3: \"types\" is neither a list of strings nor an object: [['city'], ['person']]" in (
        capsys.readouterr().err
    )


def test_a_line_ignores_the_thresholds_of_types_that_only_other_lines_are_asked(
    call: Call, tuned_student: Path
) -> None:
    rows = [{"text": TEXT, "types": ["person"]}, {"text": TEXT}, {"text": TEXT, "types": {"city": "city"}}]
    options = ["--jsonl", "--model", str(tuned_student), "--types", "person,city"]
    stdin = "\n".join(map(json.dumps, rows))
    status, out, _ = call(*options, "--threshold", "person=0.1,city=1", stdin=stdin)
    found = [{entity["entity_group"] for entity in json.loads(line)["entities"]} for line in out.splitlines()]
    assert (status, found) == (0, [{"person"}, {"person"}, set()])
    status, out, _ = call(*options, "--threshold", "person=0.1,town=1", stdin=stdin)
    assert status == 2 and out.count("'town' is not one of the types") == 3


def test_json_lines_are_answered_as_they_come(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[int] = []

    def lines() -> Iterator[bytes]:
        for number in range(1000):
            seen.append(number)
            yield b"\n" if number % 3 else b'{"text": "Rome"}'
            if number == 20:
                assert len(capsys.readouterr().out.splitlines()) == 7  # those of the batches before this one

    answer_jsonl(lines(), "-", lambda texts, types: [[] for _ in texts], None, batch_size=5)
    assert len(capsys.readouterr().out.splitlines()) == 334 - 7


def test_a_served_model_is_asked_with_the_same_options(call: Call) -> None:
    with FakeTeacher(lambda request: '["Berlin"]') as server:
        served = ["--base_url", server.base_url, "--json"]
        status, out, _ = call(TEXT, *served, "--types", "city")
        assert status == 0
        assert json.loads(out) == [{"entity_group": "city", "word": "Berlin", "start": 34, "end": 40, "score": None}]
        status, _, err = call(TEXT, *served, "--types", "city", "--threshold", "0.5")
        assert status == 2 and "no probabilities" in err
        call(TEXT, *served, "--types", "city", "--max_new_tokens", "7")
        assert server.requests[-1]["max_tokens"] == 7
        status, out, _ = call(TEXT, *served[:2], "--types", "city", "--model", MODEL)
        assert status == 0 and "[Berlin|city]" in out and " -  city" in out
    status, _, err = call(TEXT, "--base_url", "http://127.0.0.1:9/v1", "--model", MODEL)
    assert status == 2 and "cannot be reached" in err and err.count("\n") == 1


@pytest.mark.parametrize("option", ["--json", "--jsonl"])
def test_a_reader_that_exits_early_is_not_a_users_mistake(monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with FakeTeacher(lambda request: "[]") as server:
        monkeypatch.setattr(sys, "argv", ["open_ner", "--base_url", server.base_url, option])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"text": "Rome"}')))
        monkeypatch.setattr(sys, "stdout", Closed())
        with pytest.raises(BrokenPipeError):
            main()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["x"], "--model is missing"),
        (["x", "--model", "no/such-model"], "no/such-model"),
        (["x", "--model", "STUDENT", "--types", ","], "names no type"),
        (["x", "--model", "STUDENT", "--types", "city="], "city"),
        (["x", "--model", "STUDENT", "--types", "{1"], "begins like JSON"),
        (["x", "--model", "STUDENT", "--types", "{}"], "types is empty"),
        (["x", "--model", "STUDENT", "--types", "town=a place,town=a city"], "'town' is given twice"),
        (["x", "--model", "STUDENT", "--types", '{"town": "a place", "town": "a city"}'], "'town' is given twice"),
        (["x", "--model", "STUDENT", "--threshold", "2"], "--threshold 2.0"),
        (["x", "--model", "STUDENT", "--threshold", "nan"], "--threshold nan"),
        (["x", "--model", "STUDENT", "--threshold", "person=0.4,0.3"], "'person=0.4,0.3'"),
        (["x", "--model", "STUDENT", "--threshold", "person"], "'person'"),
        (["x", "--model", "STUDENT", "--types", "city", "--threshold", "town=0.5"], "'town' is not one of the types"),
        (["x", "--model", "STUDENT", "--batch_size", "0"], "--batch_size 0"),
        (["x", "--model", "STUDENT", "--max_new_tokens", "0"], "max_new_tokens=0"),
        (["x", "--base_url", "http://127.0.0.1:1/v1", "--max_new_tokens", "0"], "max_new_tokens=0"),
        (["x", "--model", "STUDENT", "--device", "nowhere"], "nowhere"),
        (["x", "--model", "STUDENT", "--device", "cuda:99"], "check name, files and device"),
        (["x", "--model", "STUDENT", "--file", "a.txt"], "beside --file"),
        (["x", "--model", "STUDENT", "--jsonl"], "beside --jsonl"),
        (["--model", "STUDENT", "--jsonl", "--file", "a", "b"], "reads one file"),
        (["--model", "STUDENT", "--file", "no/such/file"], "no/such/file"),
        (["--model", "STUDENT", "--jsonl", "--file", "no/such/file"], "no/such/file"),
        (["--model", "STUDENT", "--file", "."], "'.' cannot be read"),
        (["x", "--model", "STUDENT", "--tokenizer", "y"], "--base_url"),
        (["x", "--base_url", "http://127.0.0.1:1/v1", "--device", "cpu"], "--device"),
        (["x", "--base_url", "localhost"], "localhost"),
        (["x", "--base_url", "http://localhost:80a0/v1"], "'http://localhost:80a0/v1' is not an address"),
        (["x", "--model", "STUDENT", "--treshold", "1"], "--treshold"),
    ],
)
def test_a_mistake_gives_a_one_line_error_and_status_two(
    call: Call, tuned_student: Path, arguments: list[str], said: str
) -> None:
    status, out, err = call(*[str(tuned_student) if part == "STUDENT" else part for part in arguments])
    assert (status, out) == (2, "")
    last = err.splitlines()[-1]
    assert said in last and "error: " in last and "Traceback" not in err


def test_weights_that_cannot_be_read_give_a_one_line_error(call: Call, tiny_student: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_student, tmp_path / "student")
    (tmp_path / "student" / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    status, _, err = call(TEXT, "--model", str(tmp_path / "student"))
    assert status == 2 and "a git-LFS pointer: download them again" in err.splitlines()[-1] and "Traceback" not in err


@pytest.mark.parametrize(("arguments", "goes_on"), [(["annotate"], True), (["x"], False)])
def test_only_a_command_that_resumes_says_so_after_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], goes_on: bool
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["open-ner", *arguments])
    monkeypatch.setattr("open_ner.__main__.main", interrupted)
    with pytest.raises(SystemExit) as left:
        cli()
    said = capsys.readouterr().err
    assert left.value.code == 130 and said.startswith("interrupted") and ("run the same command" in said) == goes_on


def test_a_server_without_the_extra_gives_a_one_line_error(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    monkeypatch.delitem(sys.modules, "open_ner.tools.served", raising=False)
    status, _, err = call(TEXT, "--base_url", "http://127.0.0.1:1/v1")
    assert status == 2 and "pip install openai" in err


def test_text_that_is_no_utf8_is_refused_by_its_place(call: Call, tuned_student: Path) -> None:
    status, _, err = call("--model", str(tuned_student), stdin=b"caf\xe9")
    assert status == 2 and "byte 3" in err


def test_without_input_on_a_terminal_it_does_not_wait(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["open_ner", "--model", "x"])
    monkeypatch.setattr(sys, "stdin", Terminal())
    with pytest.raises(SystemExit) as left:
        run(main)
    assert left.value.code == 2 and "nothing to search" in capsys.readouterr().err


def test_types_are_names_definitions_or_json() -> None:
    assert parse_types(None) is None
    assert parse_types(" person , city,") == ["person", "city"]
    assert parse_types("person,town = a small city,x==y") == {"person": "person", "town": "a small city", "x": "=y"}
    assert parse_types('{"town": "a place, with = a mayor"}') == {"town": "a place, with = a mayor"}
    assert parse_types(' ["a,b"]') == ["a,b"]


class Terminal(io.StringIO):
    """A terminal that keeps its output."""

    def isatty(self) -> bool:
        return True


SHOW = "import json, sys; from open_ner.tools.terminal import show; show(*json.loads(sys.argv[1]))"


def on_terminal(text: str, entities: list[dict[str, Any]], **variables: str) -> str:
    command = [sys.executable, "-c", SHOW, json.dumps([text, entities])]
    return in_a_terminal(command, {"TERM": "xterm-256color", "COLUMNS": "60", "PYTHONPATH": str(ROOT)} | variables)


SPANS = [
    {"entity_group": "person", "word": "Ada \x1b]0;x\x07", "start": 0, "end": 10, "score": 0.5},
    {"entity_group": "part", "word": "Ada", "start": 0, "end": 3, "score": None},
    {"entity_group": "city\n\x1b[2J", "word": "Rome", "start": 14, "end": 18, "score": 1.0},
    {"entity_group": "town", "word": "Rome", "start": 14, "end": 18, "score": 0.25},
]
SPANNED = "Ada \x1b]0;x\x07 in Rome\u202e\r\n\tok"


def test_colors_only_on_a_terminal_that_wants_them() -> None:
    colored = on_terminal(SPANNED, SPANS)
    assert "\x1b[1;36m[Ada " in colored
    codes = on_terminal(SPANNED, SPANS, NO_COLOR="1").split("\x1b[")[1:]
    assert not any("3" in code.split("m")[0] for code in codes)  # 30 to 37, 38: colors; bold may stay
    assert "\x1b" not in on_terminal(SPANNED, SPANS, TERM="dumb")


def test_no_text_can_steer_the_terminal() -> None:
    plain = on_terminal(SPANNED, SPANS, TERM="dumb", COLUMNS="200")
    assert all(character.isprintable() or character in "\n\t" for character in plain)
    lines = plain.splitlines()
    assert lines[0] == r"[Ada \x1b]0;x\x07|person] in [Rome|city\n\x1b[2J, town]\u202e\r"
    assert lines[4].split() == ["Ada", r"\x1b]0;x\x07", "0", "10", "0.50", "person"]
    assert lines[5].split() == ["Ada", "0", "3", "-", "part"]
    assert printable("é👩\u200d👩 \u00a0京\u200c") == "é👩\u200d👩 \u00a0京\u200c"


def test_no_text_in_an_error_can_steer_the_terminal(call: Call, tuned_student: Path) -> None:
    row = {"text": "Rome", "types": ["\x1b]0;x\x07", "a\nb"]}
    options = ["--jsonl", "--model", str(tuned_student), "--threshold", "gene=0.4"]
    status, out, err = call(*options, stdin=json.dumps(row))
    named = [line for line in err.splitlines() if "is not one of the types" in line]
    assert status == 2 and len(named) == 1 and named[0].endswith(r"types \x1b]0;x\x07, a\nb")
    assert "\x1b" not in out + err and "\x07" not in out + err

    def reason(request: Any) -> dict[str, Any]:
        return {"status": 400, "body": {"error": {"message": "too long\x1b]0;x\x07"}}}

    with FakeTeacher(reason) as server:
        status, _, err = call(TEXT, "--base_url", server.base_url, "--model", MODEL)
    assert status == 2 and r"too long\x1b]0;x\x07" in err and "\x1b" not in err


def test_a_long_span_is_never_cut() -> None:
    word = "w" * 300
    spans = [{"entity_group": "x", "word": word, "start": 0, "end": 300, "score": 1.0}]
    assert on_terminal(word, spans, TERM="dumb").count("w") == 600
    assert marked(word, [], {}).plain == word


def test_help_needs_neither_torch_nor_time() -> None:
    helped = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "open_ner", "--help"], capture_output=True, text=True, cwd=ROOT
    )
    assert helped.returncode == 0 and "--jsonl" in helped.stdout
    assert "torch" not in helped.stderr and "rich" not in helped.stderr
