"""`open-ner view`: what it opens, that hostile data stay data, offsets, paging, the terminal, and invalid input."""

import gzip
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from open_ner.__main__ import main
from open_ner.tools.errors import run
from open_ner.view import ShownPassage, render_html
from open_ner.view.passages import Mark, levels_of, marks_of
from terminal import in_a_terminal

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;<!--"
TEXT = "Ada Lovelace من لندن met 👩‍🔬 Bob.\r\nEnd"
VOID = {"meta", "input"}
Call = Callable[..., tuple[int, str, str]]


@dataclass
class Page(HTMLParser):
    """What a browser sees: elements, attributes, the script, and of each passage its text and marks."""

    tags: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    script: str = ""
    data: list[str] = field(default_factory=list)  # all text outside of script and style
    texts: list[str] = field(default_factory=list)
    marks: list[dict[str, Any]] = field(default_factory=list)  # data-*, `inside` and `label`; fragments are joined
    policy: str = ""

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[tuple[str, dict[str, str]]] = []
        self.shown: dict[str, dict[str, Any]] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.tags.add(tag)
        self.attributes |= set(found)
        if found.get("http-equiv"):
            self.policy = found["content"]
        if tag not in VOID:
            self.open.append((tag, found))
        if found.get("class") == "text":
            self.texts.append("")
        if tag == "mark":
            one = {name.removeprefix("data-"): value for name, value in found.items()} | {"inside": "", "label": ""}
            self.shown.setdefault(found["data-key"], one)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag, "the page is not well-formed"
        if tag == "html":
            assert not self.open
            self.marks = list(self.shown.values())

    def handle_data(self, data: str) -> None:
        tags = [tag for tag, _ in self.open]
        if tags[-1:] == ["script"]:
            self.script += data
        elif tags[-1:] != ["style"]:
            self.data.append(data)
        classes = [found.get("class", "") for _, found in self.open]
        if "text" not in classes:
            return
        around = [found["data-key"] for tag, found in self.open if tag == "mark"]
        if "type" in classes[-1].split() or (classes[-1] == "odd" and "type" in " ".join(classes[-2:]).split()):
            self.shown[around[-1]]["label"] += data
            return
        if classes[-1] == "odd":
            data = chr(ord(data) - 0x2400) if len(data) == 1 else chr(int(data, 16))
        self.texts[-1] += data
        for key in around:
            self.shown[key]["inside"] += data


def read(html: str) -> Page:
    page = Page()
    page.feed(html)
    page.close()
    return page


def passage(text: str, *spans: tuple[int, int, str], **more: Any) -> ShownPassage:
    entities = [{"start": a, "end": b, "text": text[a:b], "type": name, "score": 0.5} for a, b, name in spans]
    return {"id": "p", "text": text, "entities": entities, "rejects": [], **more}


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run `open-ner view` in this process; returns its status and both outputs."""

    def invoke(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["open-ner", "view", *map(str, arguments)])
        try:
            run(main)
            status = 0
        except SystemExit as left:
            status = left.code
        written = capsys.readouterr()
        return status, written.out, written.err

    return invoke


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_hostile_data_are_only_ever_text() -> None:
    reject = {"reason": EVIL, "text": EVIL, "type": EVIL}
    hostile: dict[str, Any] = {"id": EVIL, "about": EVIL, "absent": [EVIL], "reply": EVIL}
    one = passage(EVIL + TEXT, (0, 8, EVIL), (3, 30, "b"), **hostile)
    one["rejects"] = [reject, {**reject, "start": 2, "end": 5}]
    page, plain = read(render_html([one], EVIL, [EVIL], EVIL)), read(render_html([passage("a b", (0, 1, "t"))], "x"))
    assert page.tags - plain.tags <= {"i", "b", "q", "ul", "li", "p", "details", "summary"}
    assert not {name for name in page.attributes if name.startswith("on") or name in ("style", "src", "href")}
    assert page.script == plain.script and "alert" not in page.script
    assert page.texts == [EVIL + TEXT]
    shown = "".join(page.data)
    assert shown.count("<script>alert(1)</script>") >= 12  # title twice, note, id, about, text, types, reject, reply
    assert EVIL in page.data
    policy = dict(part.split(maxsplit=1) for part in page.policy.split("; "))
    assert policy["default-src"] == "'none'" and policy["script-src"].startswith("'sha256-")
    assert "unsafe" not in page.policy and not re.search(r"https?://|url\(|@import", render_html([one], "x"))


def test_characters_that_hide_or_reorder_text_are_shown_by_number() -> None:
    text = "a\x00b\u202ec\ud800d\x1b[2J\u200f e"
    html = render_html([passage(text, (1, 3, "t\u202e"))], "n\u202e")
    html.encode()  # no lone surrogate is left
    assert not set("\x00\u202e\x1b\u200f") & set(html)
    page = read(html)
    assert page.texts == [text] and page.marks[0]["inside"] == text[1:3]


@given(st.text("ab <&é👩\u200d", min_size=1, max_size=30), st.data())
def test_every_span_is_marked_at_its_offsets_however_spans_cross(text: str, data: st.DataObject) -> None:
    edges = st.tuples(st.integers(0, len(text) - 1), st.integers(1, len(text))).filter(lambda edge: edge[0] < edge[1])
    spans = data.draw(st.lists(st.tuples(edges, st.sampled_from(["x", "y"])), max_size=8, unique=True))
    one = passage(text, *[(a, b, name) for (a, b), name in spans])
    page = read(render_html([one], "t"))
    assert page.texts == [text]
    found = {(int(m["start"]), int(m["end"]), m["label"], m["score"]): m["inside"] for m in page.marks}
    assert found == {(a, b, name, "0.5"): text[a:b] for (a, b), name in spans}
    levels = levels_of(marks := marks_of(one))
    for first in marks:
        for other in marks:
            assert first == other or first.end <= other.start or other.end <= first.start or (
                levels[first] != levels[other]
            )  # fmt: skip


def test_a_page_works_by_keyboard_and_names_what_it_shows() -> None:
    rejects = [{"reason": "too_long", "text": "Bob", "type": "x"}]
    html = render_html(
        [passage(TEXT, (0, 12, "person"), (0, 3, "name")), passage("b", rejects=rejects)], "t", ["A note."]
    )
    page = read(html)
    assert all(mark["tabindex"] == "0" for mark in page.marks) and len(page.marks) == 2
    assert {
        "Tab",
        "n",
        "p",
        "j",
        "k",
        "/",
        "Esc",
        "too_long",
        "A note.",
        "2 passages · 2 spans · 2 types · 1 reject",
    } <= {*page.data}
    assert 'dir="auto"' in html and "prefers-color-scheme: dark" in html
    assert html.count('<input type="checkbox" checked data-choice=') == 3  # two types and a reason


def luminance(color: str) -> float:
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_contrasts_are_those_of_wcag(scheme: int) -> None:
    css = Path(render_html.__code__.co_filename).with_name("page.css").read_text(encoding="utf-8")
    colors = dict(re.findall(r"--(\w+): (#\w{6});", css.split(":root {")[1 + scheme].split("}")[0]))
    contrast = {
        name: (max(pair) + 0.05) / (min(pair) + 0.05)
        for name, color in colors.items()
        for pair in [(luminance(color), luminance(colors["page"]))]
    }
    assert all(contrast[name] >= 4.5 for name in ("ink", "quiet", "accent"))
    assert all(contrast[f"c{number}"] >= 3 for number in range(8)) and "c8" not in contrast


ROWS = [
    {"id": f"r{n}", "text": f"Row {n} of Ada.", "entities": [{"start": 9, "end": 12, "type": "p"}]} for n in range(30)
]


def ids(path: Path) -> list[str]:
    return re.findall(r"<bdi>(r\d+)</bdi>", path.read_text(encoding="utf-8"))


def test_a_long_file_is_paged_or_sampled_and_says_how_to_see_the_rest(call: Call, tmp_path: Path) -> None:
    path, output = write_lines(tmp_path / "annotations.x.jsonl", ROWS), tmp_path / "page.html"
    status, said, _ = call(path, "--output", output, "--limit", 4)
    assert status == 0 and "Passages 1 to 4 of 30." in said and "--start 5" in said and "--sample 4" in said
    assert ids(output) == ["r0", "r1", "r2", "r3"] and "--start 5" in output.read_text(encoding="utf-8")
    _, said, _ = call(path, "--output", output, "--limit", 4, "--start", 27)
    assert ids(output) == ["r26", "r27", "r28", "r29"] and "The next ones" not in said
    _, said, _ = call(path, "--output", output, "--sample", 5)
    drawn = ids(output)
    assert len(drawn) == 5 == len(set(drawn)) and "random sample of 30" in said
    call(path, "--output", output, "--sample", 5)
    assert ids(output) == drawn
    call(path, "--output", output, "--sample", 5, "--seed", 1)
    assert ids(output) != drawn
    call(path, "--output", output)
    assert len(ids(output)) == 30
    packed = tmp_path / "x.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    call(packed, "--output", output, "--limit", 2, "--start", 3)
    assert ids(output) == ["r2", "r3"]


def test_long_texts_end_the_page_early(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("open_ner.view.sources.PAGE_CHARACTERS", 100)
    path = write_lines(tmp_path / "long.jsonl", [{"id": f"r{n}", "text": "w" * 60} for n in range(5)])
    status, said, _ = call(path, "--output", tmp_path / "p.html")
    assert status == 0 and ids(tmp_path / "p.html") == ["r0", "r1"]
    assert "after 2 of 5 passages" in said and "--start 3" in said


def test_results_of_the_command_and_broken_rows_are_shown(call: Call, tmp_path: Path) -> None:
    entity = {"entity_group": "person", "word": "Ada", "start": 0, "end": 3, "score": 0.25}
    bad = [{"start": 0, "end": 99, "type": "t"}, {"start": 0, "end": 3, "text": "Bob", "type": "t"}, "x"]
    bad += [{"start": True, "end": 2, "type": "t"}, {"start": 2, "end": 2, "type": "t"}]
    rows = [
        {"text": "Ada", "entities": [entity], "types": ["person", "city"]},
        {"text": "Ada", "entities": bad},
        {"error": "not JSON"},
        {"text": 5, "error": "not a string"},
        {"text": None},
    ]
    rows += [{"id": "d", "text": "cut", "reason": "too_short"}, {"id": 7, "text": "Ada", "entities": None}]
    status, _, _ = call(write_lines(tmp_path / "out.jsonl", rows), "--output", tmp_path / "p.html")
    page = read((tmp_path / "p.html").read_text(encoding="utf-8"))
    assert status == 0 and page.texts == ["Ada", "Ada", "", "", "", "cut", "Ada"]
    assert [(mark["label"], mark["score"]) for mark in page.marks] == [("person", "0.25")]
    assert page.data.count("invalid_offsets") == 1 + len(bad) and {"#1", "7", "not JSON", "too_short"} <= {*page.data}
    assert "not a string" in page.data
    assert page.data[page.data.index("Asked, no span: ") + 1] == "city"


@pytest.mark.parametrize("name", [".", "data", "data/train-0.parquet"])
def test_an_annotated_dataset_is_shown_by_its_own_columns(
    name: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [{"entity_group": "person", "word": "Ada", "start": 0, "end": 3, "score": 0.25}]
    rows = [{"body": "Ada met Bob.", "found": found}, {"body": None, "found": None}]
    rows = [{**row, "text": "the title", "entities": ["of the source"], "id": f"r{n}"} for n, row in enumerate(rows)]
    (tmp_path / "data").mkdir()
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / "train-0.parquet")
    record = {"text_column": "body", "entities_column": "found"}
    (tmp_path / "annotation.json").write_text(json.dumps(record), encoding="utf-8")
    (tmp_path / "pages").mkdir()
    monkeypatch.chdir((tmp_path / name).parent if name.endswith("parquet") else tmp_path / name)
    relative = Path(name).name if name.endswith("parquet") else "."
    status, _, err = call(relative, "--output", tmp_path / "pages" / "p.html")
    assert status == 0, err
    page = read((tmp_path / "pages" / "p.html").read_text(encoding="utf-8"))
    assert page.texts == ["Ada met Bob.", ""] and ids(tmp_path / "pages" / "p.html") == ["r0", "r1"]
    assert [(mark["label"], mark["score"]) for mark in page.marks] == [("person", "0.25")]


def prediction(
    name: str, kind: str, text: str, spans: list[tuple[int, int]], gold: Any, **more: Any
) -> dict[str, Any]:
    found = [{"start": a, "end": b, "score": 0.9} for a, b in spans]
    line = {"benchmark": "b", "passage_id": name, "text": text, "type": kind, "raw": "[]", "parse_failure": False}
    return {**line, "spans": found, "gold": "[]", "gold_spans": gold, **more}


def test_predictions_are_shown_by_passage_with_their_errors(call: Call, tmp_path: Path) -> None:
    lines = [
        prediction("r0", "person", "Ada met Bob.", [(0, 3)], [[0, 3], [8, 11]]),
        prediction("r0", "city", "Ada met Bob.", [(8, 11)], []),
        prediction("r0", "drug", "Ada met Bob.", [], [], raw='["Eva"]'),
        prediction("r1", "drug", "None.", [], None, raw="[bad", parse_failure=True),
        prediction("r1", "city", "None.", [], [[0], [1, 2, 3]]) | {"spans": None},
        {"benchmark": "b", "passage_id": "r1", "text": "None.", "type": "date"},
    ]
    path = write_lines(tmp_path / "predictions.jsonl", lines)
    status, said, _ = call(path, "--output", tmp_path / "p.html")
    page = read((tmp_path / "p.html").read_text(encoding="utf-8"))
    assert status == 0 and "2 passages" in said and page.texts == ["Ada met Bob.", "None."]
    marks = {(mark["label"], mark["start"], mark["end"]) for mark in page.marks}
    assert marks == {("person", "0", "3"), ("city", "8", "11"), ("not_predicted: person", "8", "11")}
    items = {"not_in_gold", "not_predicted", "not_in_text", "unreadable_answer", "Eva", "[bad"}
    assert items <= {*page.data} and "2 passages · 2 spans · 2 types · 4 errors" in page.data
    call(path, "--output", tmp_path / "p.html", "--start", 2)
    assert ids(tmp_path / "p.html") == ["r1"]


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A run's folder as a build leaves it."""
    mention = {"start": 0, "end": 3, "text": "Ada", "type": "person"}
    rows = [{"id": f"r{n}", "text": f"Ada {n}", "entities": [mention], "negatives": ["city"]} for n in range(5)]
    dataset = tmp_path / "dataset"
    for name in ("type", "annotations", "rejects"):
        (dataset / name).mkdir(parents=True)
    for name in ("type", "annotations"):
        parquet.write_table(pa.Table.from_pylist(rows[:3]), dataset / name / "train-0.parquet", row_group_size=2)
        parquet.write_table(pa.Table.from_pylist(rows[3:]), dataset / name / "validation-0.parquet")
    rejects = [{"variant": "type", "passage_id": "r1", "reason": "not_in_passage", "span": "Bob", "type": "person"}]
    rejects += [{"variant": "type", "passage_id": "r9", "reason": "refusal", "span": "", "type": ""}]
    rejects += [{"variant": "definition", "passage_id": "r1", "reason": "no_list", "span": "", "type": ""}]
    parquet.write_table(pa.Table.from_pylist(rejects), dataset / "rejects" / "rejects.parquet")
    replies = [{"variant": "type", "passage_id": "r9", "reply": "I cannot."}]
    parquet.write_table(pa.Table.from_pylist(replies), dataset / "rejects" / "replies.parquet")
    (dataset / "stats.json").write_text('{"variants": {"type": {}}}')
    write_lines(tmp_path / "passages.jsonl", [{"id": "r9", "text": "Nine."}, {"id": "r1", "text": "Ada 1"}])
    write_lines(tmp_path / "annotations.type.jsonl", rows)
    return tmp_path


@pytest.mark.parametrize("name", ["dataset", "dataset/type", "dataset/type/train-0.parquet", "annotations.type.jsonl"])
def test_a_dataset_is_shown_from_its_folder_or_files(name: str, call: Call, built: Path) -> None:
    status, said, err = call(built / name, "--output", built / "p.html", "--start", 2)
    assert status == 0, err
    assert ids(built / "p.html") == (["r1", "r2"] if name.endswith("parquet") else ["r1", "r2", "r3", "r4"])
    page = read((built / "p.html").read_text(encoding="utf-8"))
    assert page.texts[0] == "Ada 1" and page.marks[0]["label"] == "person" and "city" in page.data
    with_rejects = name in ("dataset", "annotations.type.jsonl")
    assert ("not_in_passage" in page.data) == with_rejects == ("Rejects are those of" in said)
    assert "no_list" not in page.data  # of the other variant


def test_a_file_of_any_name_is_shown(call: Call, built: Path) -> None:
    path = (built / "annotations.type.jsonl").rename(built / "annotations")
    status, out, _ = call(path, "--limit", 1)
    assert status == 0 and "[Ada|person] 0" in out


def test_rejects_are_shown_with_their_texts_and_replies(call: Call, built: Path) -> None:
    for path in (built / "dataset" / "rejects", built / "dataset" / "rejects" / "rejects.parquet"):
        status, _, err = call(path, "--output", built / "p.html")
        assert status == 0, err
        page = read((built / "p.html").read_text(encoding="utf-8"))
        assert page.texts == ["Ada 1", "Nine.", "Ada 1"] and {"refusal", "I cannot.", "no_list"} <= {*page.data}
    (built / "passages.jsonl").unlink()
    call(path, "--output", built / "p.html")
    assert "the text is not in a passages.jsonl" in (built / "p.html").read_text(encoding="utf-8")


def test_an_incomplete_copy_of_a_build_is_shown_as_far_as_it_is_there(call: Call, built: Path) -> None:
    (built / "dataset" / "stats.json").unlink()
    status, out, err = call(built / "dataset", "--limit", 1)
    assert status == 0 and "[Ada|person] 0" in out
    assert "Rejects are not shown. " in err and "stats.json' cannot be read: No such file" in err
    (built / "dataset" / "stats.json").write_text("{}")
    status, _, err = call(built / "dataset", "--limit", 1)
    assert status == 0 and "stats.json names no variant" in err
    (built / "dataset" / "rejects" / "replies.parquet").unlink()
    status, out, err = call(built / "dataset" / "rejects")
    assert status == 0 and "refusal" in out and "Nine." in out
    (built / "passages.jsonl").write_text('{"id": "r9", "te', encoding="utf-8")
    status, out, err = call(built / "dataset" / "rejects")
    assert (status, out) == (2, "") and "passages.jsonl: line 1 is not JSON" in err


def test_annotations_need_no_pyarrow_and_parquet_names_the_extra(
    call: Call, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "open_ner.view.parquet", raising=False)
    status, out, err = call(built / "annotations.type.jsonl", "--limit", 1)
    assert status == 0 and "[Ada|person] 0" in out and "Rejects are not shown" in err
    status, _, err = call(built / "dataset")
    assert status == 2 and "pip install pyarrow" in err


def parquet_file(rows: list[dict[str, Any]], damaged: bool = False) -> bytes:
    """A Parquet file; the header of the first page of a damaged one cannot be read."""
    parquet.write_table(pa.Table.from_pylist(rows), sink := io.BytesIO())
    content = sink.getvalue()
    return content[:4] + b"\xff" * 16 + content[20:] if damaged else content


@pytest.mark.parametrize(
    ("name", "content", "options", "said"),
    [
        ("none.jsonl", None, [], "cannot be read: No such file"),
        ("empty.jsonl", "\n", [], "has no passages"),
        ("a.jsonl", "{", [], "line 1 is not JSON"),
        ("a.jsonl", "[1]", [], "line 1 is not a JSON object: [1]"),
        ("a.jsonl", '{"id": 1, "txt": ""}', [], "line 1 has no string \"text\", but 'id', 'txt'"),
        ("a.jsonl", '{"text": "", "entities": {"a": 1}}', [], "`entities` is not a list"),
        ("a.jsonl", '{"text": ""}', ["--start", "2"], "has only 1 passages"),
        ("a.jsonl", '{"text": ""}', ["--start", "0"], "--start 0: give at least 1"),
        ("a.jsonl", '{"text": ""}', ["--sample", "2", "--limit", "1"], "a sample is of the whole file"),
        ("a.jsonl", '{"text": ""}', ["--output", "x.txt"], "name it x.html"),
        ("a.jsonl", '{"text": ""}', ["--output", "no/where/x.html"], "cannot be written: No such file or directory"),
        ("a.jsonl", '{"text": ""}', ["--output", "TMP/folder.html"], "cannot be written: Is a directory"),
        ("a.jsonl", '{"text": ""}', ["--config", "type"], "only the folder of a dataset has configs"),
        ("a.jsonl", '{"passage_id": 1, "text": "", "spans": {"a": 1}}', [], "`spans` is not a list"),
        ("a.parquet", "no", [], "cannot be read as Parquet"),
        ("a.parquet", parquet_file([{"body": "", "x": 1}]), [], "has no column \"text\", but 'body', 'x': rename"),
        ("a.parquet", parquet_file([{"text": "Ada"}], damaged=True), [], "a.parquet' cannot be read"),
        ("a.jsonl.gz", "no", [], "cannot be read"),
        ("a.jsonl.gz", gzip.compress(b'{"text": ""}', mtime=0)[:-9], [], "cannot be read: Compressed file ended"),
        ("a.jsonl.gz", gzip.compress(b"", mtime=0)[:10] + b"\xff" * 9, [], "cannot be read: Error -3"),
        (".", None, [], "has no Parquet files"),
        ("dataset", None, ["--config", "x"], "has annotations, type"),
    ],
)
def test_invalid_input_gives_one_line_with_the_remedy(
    name: str, content: str | bytes | None, options: list[str], said: str, call: Call, built: Path
) -> None:
    if content is not None:
        (built / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    (built / "folder.html").mkdir()
    status, out, err = call(built / name, *[option.replace("TMP", str(built)) for option in options])
    assert (status, out) == (2, "") and said in err and len(err.splitlines()) == 1 and err.startswith("error: ")


def test_a_terminal_shows_nested_and_crossing_spans_in_color_only_where_wanted(tmp_path: Path) -> None:
    one = passage("University of Rome\x1b[2J here", (0, 18, "org"), (14, 18, "city\n"), (11, 27, "x"), source="type")
    elsewhere = {"start": 98, "end": 99, "text": "a\x1b", "type": "t"}
    one = one | {"entities": [*one["entities"], elsewhere], "reason": "refusal"}
    path = write_lines(tmp_path / "a.jsonl", [one])
    marked = r"[University [of [Rome|city\n 0.50]…]|org 0.50][…\x1b[2J here|x 0.50]"
    expected = f"== p · type\n{marked}\n  invalid_offsets: a\\x1b [98:99] (t)\n  refusal\n\n"
    terminal = {"TERM": "xterm-256color"}
    for environment, codes in (
        (terminal, {"0", "1", "32", "35", "36", "1;32", "1;35", "1;36"}),
        (terminal | {"NO_COLOR": "1"}, {"0", "1"}),
        ({"TERM": "dumb"}, set()),
    ):
        shown = in_a_terminal([sys.executable, "-m", "open_ner", "view", str(path)], environment)
        assert set(re.findall(r"\x1b\[([\d;]*)m", shown)) == codes, environment
        assert re.sub(r"\x1b\[[\d;]*m", "", shown) == expected, environment


def test_the_command_is_light_and_its_help_complete(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", ROWS[:1])
    for arguments in ([str(path)], ["--help"]):
        ran = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "open_ner", "view", *arguments], capture_output=True, text=True
        )
        assert ran.returncode == 0 and not {"torch", "transformers"} & set(re.findall(r"\| +(\w+)$", ran.stderr, re.M))
    assert all(f"--{name}" in ran.stdout for name in ("output", "start", "limit", "sample", "seed", "config"))


def test_a_mark_of_a_reject_is_shown_once() -> None:
    one = passage("Ada met Bob.", (0, 3, "person"))
    one["rejects"] = [
        {"reason": "not_in_gold", "text": "Ada", "type": "person", "start": 0, "end": 3},
        {"reason": "not_predicted", "text": "Bob", "type": "person", "start": 8, "end": 11},
    ]
    assert marks_of(one) == [Mark(0, 3, "person", 0.5), Mark(8, 11, "person", reason="not_predicted")]
