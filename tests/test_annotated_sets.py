"""Human-annotated sets as they come: offsets, tag columns of every scheme, CoNLL files, Parquet, and broken ones."""

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from fake_hub import FakeHub
from ner_sets.config import AnnotatedSetConfig
from ner_sets.mentions import decode_tags, split_tag
from ner_sets.rows import read_json_rows
from ner_sets.sets import from_offsets, from_tags, read_set
from open_ner.tools.errors import UserError

ROOT = Path(__file__).parent.parent
TOKENS = ["Ada", "Byron", "met", "Rome", "Oslo"]
TEXT = "Ada Byron met Rome Oslo"
MENTIONS = [
    {"start": start, "end": end, "type": kind}
    for start, end, kind in [(0, 9, "PER"), (14, 18, "LOC"), (19, 23, "LOC")]
]
SCHEMES = {
    "BIO": ["B-PER", "I-PER", "O", "B-LOC", "B-LOC"],
    "IOB1": ["I-PER", "I-PER", "O", "I-LOC", "B-LOC"],
    "BIOES": ["B-PER", "E-PER", "O", "S-LOC", "S-LOC"],
    "BILOU": ["B-PER", "L-PER", "O", "U-LOC", "U-LOC"],
}


def config(path: str, form: str, **options: Any) -> AnnotatedSetConfig:
    return AnnotatedSetConfig(name="set", path=path, format=form, **options)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_gives_the_same_mentions(scheme: str) -> None:
    passage = from_tags("a", TOKENS, SCHEMES[scheme])
    assert (passage.text, passage.entities, passage.problem) == (TEXT, MENTIONS, "")


def test_bare_labels_are_read_whole() -> None:
    assert split_tag("art-film") == ("I", "art-film")
    assert decode_tags(["art-film", "art-film", "O", "person-actor", "art-film"]) == [
        (0, 1, "art-film"), (3, 3, "person-actor"), (4, 4, "art-film"),
    ]  # fmt: skip


@given(st.lists(st.sampled_from(["O", *(f"{p}-{k}" for p in "BIES" for k in ("A", "B"))]), max_size=12))
def test_tags_give_the_mentions_of_conlleval(tags: list[str]) -> None:
    assert decode_tags(tags) == [(first, last, kind) for kind, first, last in get_entities(tags)]


@given(st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=8), st.data())
def test_offsets_of_tokens_name_the_tokens(tokens: list[str], data: st.DataObject) -> None:
    tags = [data.draw(st.sampled_from(["O", "B-A", "I-A"])) for _ in tokens]
    passage = from_tags("a", tokens, tags)
    spans = [" ".join(tokens[first : last + 1]) for first, last, _ in decode_tags(tags)]
    assert [passage.text[e["start"] : e["end"]] for e in passage.entities] == spans


@pytest.mark.parametrize(
    ("passage", "problem"),
    [
        (from_tags("a", ["x", "y"], ["O"]), "tags_do_not_match_tokens"),
        (from_tags("a", ["x"], [7], ["O", "B-A"]), "tag_without_name"),
        (from_tags("a", ["x"], [-100], ["O"]), "tag_without_name"),
        (from_tags("a", ["x"], [True], ["O", "B-A"]), "tag_without_name"),
        (from_tags("a", "x y", ["O"]), "tokens_are_not_strings"),
        (from_tags("a", ["x", None], ["O", "O"]), "tokens_are_not_strings"),
        (from_offsets("a", None, []), "text_is_not_a_string"),
        (from_offsets("a", "x", [{"start": 0, "type": "A"}]), "entity_without_offsets"),
        (from_offsets("a", "x", [{"start": "0", "end": 1, "type": "A"}]), "entity_without_offsets"),
        (from_offsets("a", "x", [{"start": 0, "end": 1}]), "entity_without_offsets"),
        (from_offsets("a", "x", ["x"]), "entity_without_offsets"),
        (from_offsets("a", "x", None), "entity_without_offsets"),
        (from_offsets("a", "x", {"start": [0], "end": [1], "type": ["A"], "note": []}), "entity_without_offsets"),
    ],
)
def test_what_cannot_be_read_is_named_and_kept(passage: Any, problem: str) -> None:
    assert passage.problem == problem and passage.raw and not passage.entities


def test_files_of_json_lines_lists_and_gzip_read_the_same(tmp_path: Path) -> None:
    rows = [{"id": "1", "text": TEXT, "entities": MENTIONS}, {"id": 2, "text": "Oslo", "entities": []}]
    lines = "\n\n".join(map(json.dumps, rows))
    (tmp_path / "a.jsonl").write_text(f"\ufeff{lines}\n")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "c.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "d [v2].jsonl.zst").write_bytes(
        zstandard.compress(lines[:70].encode()) + zstandard.compress(lines[70:].encode())
    )
    for name in ("a.jsonl", "b.jsonl.gz", "c.json", "d [v2].jsonl.zst"):
        assert [(p.id, p.text, p.entities) for p in read_set(config(name, "offsets"), str(tmp_path))] == [
            ("1", TEXT, MENTIONS), ("2", "Oslo", []),
        ]  # fmt: skip
    both = list(read_set(config("*.json*", "offsets"), str(tmp_path)))
    assert len(both) == 8


def test_labels_and_columns_go_by_other_names(tmp_path: Path) -> None:
    row = {"doc": 3, "body": "Oslo", "spans": [{"start": 0, "end": 4, "label": "LOC"}]}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    options = {"id_column": "doc", "text_column": "body", "entities_column": "spans"}
    (passage,) = read_set(config("a.jsonl", "offsets", **options), str(tmp_path))
    assert (passage.id, passage.entities) == ("3", [{"start": 0, "end": 4, "type": "LOC"}])


def test_an_object_of_lists_is_a_list_of_objects() -> None:
    columns = {name: [mention[name] for mention in MENTIONS] for name in ("start", "end", "type")}
    assert from_offsets("a", TEXT, columns).entities == MENTIONS
    assert from_offsets("a", TEXT, {"start": [], "end": [], "type": []}).entities == []


@pytest.mark.parametrize("separator", [" ", "\t"])
def test_conll_files_are_read_by_their_columns(separator: str, tmp_path: Path) -> None:
    lines = [
        ["-DOCSTART-", "-X-", "O"], [], ["# id 1"], *zip(TOKENS, ["x"] * 5, SCHEMES["BIO"], strict=True), [], [],
        ["Oslo", "x", "B-LOC"],
    ]  # fmt: skip
    (tmp_path / "a.conll").write_text("\n".join(separator.join(line) for line in lines))
    first, second = read_set(config("a.conll", "conll", comment="# id"), str(tmp_path))
    assert (first.id, first.text, first.entities) == ("a_1", TEXT, MENTIONS)
    assert (second.id, second.entities) == ("a_2", [{"start": 0, "end": 4, "type": "LOC"}])
    (middle, _) = read_set(config("a.conll", "conll", comment="# id", tag_column=1), str(tmp_path))
    assert [entity["type"] for entity in middle.entities] == ["x"]


def test_a_no_break_space_is_part_of_a_token_and_a_row_of_tabs_is_blank(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text("10\u00a0000 B-num\nmen O\n", encoding="utf-8")
    (passage,) = read_set(config("a.conll", "conll"), str(tmp_path))
    assert passage.text == "10\u00a0000 men" and passage.entities == [{"start": 0, "end": 6, "type": "num"}]
    (tmp_path / "b.conll").write_text("Ada\tB-PER\r\n\t\r\nParis\tB-LOC\r\n", encoding="utf-8")
    assert [passage.text for passage in read_set(config("b.conll", "conll"), str(tmp_path))] == ["Ada", "Paris"]


def test_the_token_column_of_a_conll_file_can_be_chosen(tmp_path: Path) -> None:
    lines = [*([str(i), *pair] for i, pair in enumerate(zip(TOKENS, SCHEMES["BIO"], strict=True), 1)), ["6", "lost"]]
    (tmp_path / "a.tsv").write_text("\n".join("\t".join(line) for line in lines[:-1]) + "\n\n6\tlost\n")
    (tmp_path / "b.bio").write_text(
        "\n".join(f"{tag}\t{word}" for word, tag in zip(TOKENS, SCHEMES["BIO"], strict=True))
    )
    first, short = read_set(config("a.tsv", "conll", token_column=1, tag_column=2), str(tmp_path))
    assert (first.text, first.entities, short.problem) == (TEXT, MENTIONS, "tags_do_not_match_tokens")
    (first,) = read_set(config("b.bio", "conll", token_column=-1, tag_column=0), str(tmp_path))
    assert (first.text, first.entities) == (TEXT, MENTIONS)
    for same in ({"token_column": -1}, {"tag_column": 0}, {"token_column": 2}):
        with pytest.raises(UserError, match=r"a\.tsv: token_column and tag_column are the same column"):
            list(read_set(config("a.tsv", "conll", **same), str(tmp_path)))


def test_a_tab_after_the_tags_of_a_conll_file_makes_no_tag_empty(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("EU\tB-ORG\t\r\nsaid\tO\t\r\n")
    with pytest.raises(UserError, match=r"a\.tsv: column -1 of the tags is empty in every row, .*: set tag_column"):
        list(read_set(config("a.tsv", "conll"), str(tmp_path)))
    (passage,) = read_set(config("a.tsv", "conll", tag_column=1), str(tmp_path))
    assert passage.entities == [{"start": 0, "end": 2, "type": "ORG"}]
    (tmp_path / "b.tsv").write_text("EU\tB-ORG\nsaid\t\n")  # no tag in place of O
    assert [p.entities for p in read_set(config("b.tsv", "conll"), str(tmp_path))] == [passage.entities]
    (tmp_path / "c.tsv").write_text("EU\tB-ORG\t\nsaid\tO\n")
    with pytest.raises(UserError, match=r"c\.tsv: column -1 of the tags is empty in rows with more columns"):
        list(read_set(config("c.tsv", "conll"), str(tmp_path)))


def tagged(tmp_path: Path, *sentences: list[str]) -> list[list[tuple[str, str]]]:
    """The mentions and types of a set that has these tags, in two files."""
    for number, tags in enumerate(sentences):
        lines = [f"{word} {tag}" for word, tag in zip(TOKENS, tags, strict=False)]
        (tmp_path / f"{number}.conll").write_text("\n".join(lines))
    passages = read_set(config("*.conll", "conll"), str(tmp_path))
    return [[(p.text[e["start"] : e["end"]], e["type"]) for e in p.entities] for p in passages]


@pytest.mark.parametrize("form", ["{0}-{1}", "{2}-{1}", "{1}-{0}", "{0}_{1}", "{1}_{2}", "{0}:{1}"])
def test_the_shape_of_tags_is_that_of_the_whole_set(form: str, tmp_path: Path) -> None:
    spelled = [
        [tag if tag == "O" else form.format(tag[0], tag[2:], tag[0].lower()) for tag in tags]
        for tags in (SCHEMES["BIOES"], ["O", "B-PER", "I-PER"], ["S-LOC"])
    ]
    assert tagged(tmp_path, *spelled) == [
        [("Ada Byron", "PER"), ("Rome", "LOC"), ("Oslo", "LOC")], [("Byron met", "PER")], [("Ada", "LOC")],
    ]  # fmt: skip


def test_labels_of_a_set_without_such_a_shape_stay_whole(tmp_path: Path) -> None:
    assert tagged(tmp_path, ["E-mail", "E-mail", "O", "B-cell"]) == [[("Ada Byron", "E-mail"), ("Rome", "B-cell")]]
    assert tagged(tmp_path, ["B-cell", "O", "art-film"]) == [[("Ada", "B-cell"), ("met", "art-film")]]
    assert tagged(tmp_path, ["B-PER", "O", "B-LOC"]) == [[("Ada", "PER"), ("met", "LOC")]]
    assert tagged(tmp_path, ["vitamin-B", "O", "group_1"]) == [[("Ada", "vitamin-B"), ("met", "group_1")]]
    with pytest.raises(UserError, match=r"set set: the tags \['B', 'I'\] name no type"):
        tagged(tmp_path, ["B", "I", "O"])


def test_a_conll_line_without_a_tag_rejects_its_sentence_alone(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text("Ada B-PER\nByron\n\nOslo B-LOC\n")
    assert [passage.problem for passage in read_set(config("a.conll", "conll"), str(tmp_path))] == [
        "tags_do_not_match_tokens", "",
    ]  # fmt: skip


def test_parquet_brings_the_names_of_its_tags(tmp_path: Path) -> None:
    names = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    features = datasets.Features(
        {
            "tokens": datasets.List(datasets.Value("string")),
            "ner_tags": datasets.List(datasets.ClassLabel(names=names)),
        }
    )
    numbers = [names.index(tag) for tag in SCHEMES["BIO"]]
    rows = datasets.Dataset.from_dict({"tokens": [TOKENS], "ner_tags": [numbers]}, features=features)
    rows.to_parquet(str(tmp_path / "a.parquet"))
    (passage,) = read_set(config("a.parquet", "tags"), str(tmp_path))
    assert passage.entities == MENTIONS
    bare = datasets.Dataset.from_dict({"tokens": [TOKENS], "ner_tags": [numbers]})
    bare.to_parquet(str(tmp_path / "bare.parquet"))
    with pytest.raises(UserError, match="tag_names"):
        list(read_set(config("bare.parquet", "tags"), str(tmp_path)))
    (passage,) = read_set(config("bare.parquet", "tags", tag_names=names), str(tmp_path))
    assert passage.entities == MENTIONS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "x"}', "no column 'entities'"),
        (b'{"text": "x", "entities": []}\n{oops', "line 2 is not JSON"),
        (b'\n[{"text": "x", "entities": []},\n2]', "element 2 is not a JSON object: 2"),
        (b'\n[\n {"text": "x",\n\n  "id": 1\n  "entities": []}\n]', r"line 6 is not JSON \(.* at column 3\)"),
        (b'[\n {"text": "\xff"}]', r"line 2 is not UTF-8 \(invalid start byte at byte 11\)"),
        (b'[{"text": "x"}', "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"text": "\xff"}', "line 1 is not UTF-8"),
    ],
)
def test_a_broken_file_gives_a_one_line_error(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=message):
        list(read_set(config("a.jsonl", "offsets"), str(tmp_path)))


def test_a_missing_file_gives_a_one_line_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"b\.jsonl: no such file"):
        list(read_set(config("b.jsonl", "offsets"), str(tmp_path)))
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"text": "x"}' * 99)[:-9])
    with pytest.raises(UserError, match="not readable"):
        list(read_json_rows(tmp_path / "cut.jsonl.gz"))


def test_a_broken_parquet_file_gives_a_one_line_error(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict({"tokens": [TOKENS] * 9000, "ner_tags": [SCHEMES["BIO"]] * 9000})
    rows.to_parquet(str(tmp_path / "a.parquet"))
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    for broken in (content[:200], content[:4] + bytes(300) + content[304:]):  # no footer; pages that are none
        (tmp_path / "a.parquet").write_bytes(broken)
        with pytest.raises(UserError, match=r"set set: .*a\.parquet' cannot be read"):
            list(read_set(config("a.parquet", "tags"), str(tmp_path)))


def test_a_set_of_the_hub_is_read_by_config_split_and_revision(tmp_path: Path) -> None:
    names = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    code = f"""
import json, sys
import datasets
from huggingface_hub import HfApi
from ner_sets.sets import read_set
from ner_sets.config import AnnotatedSetConfig

names = {names}
features = datasets.Features(
    {{"tokens": datasets.List(datasets.Value("string")), "ner_tags": datasets.List(datasets.ClassLabel(names=names))}}
)
def rows(token):
    return datasets.Dataset.from_dict({{"tokens": [[token, "Rome"]], "ner_tags": [[1, 3]]}}, features=features)
rows("Ada").push_to_hub("org/set", config_name="fine", split="validation")
sha = HfApi().dataset_info("org/set").sha
rows("Eve").push_to_hub("org/set", config_name="fine", split="validation")
for revision in (None, sha):
    config = AnnotatedSetConfig(
        name="set", path="org/set", format="tags", config="fine", split="validation", revision=revision
    )
    print(json.dumps([vars(passage) for passage in read_set(config, "nowhere")]))
"""
    with FakeHub() as hub:
        environment = {**hub.env(tmp_path), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stderr[-3000:]
    ((new,), (old,)) = map(json.loads, ended.stdout.splitlines()[-2:])
    assert (new["text"], old["text"]) == ("Eve Rome", "Ada Rome")
    assert [entity["type"] for entity in old["entities"]] == ["PER", "LOC"]


def test_a_set_of_the_hub_that_is_not_there_gives_a_one_line_error() -> None:
    with pytest.raises(UserError, match=r"set set: 'no/such-set' cannot be read"):
        list(read_set(config("no/such-set", "tags"), "."))
