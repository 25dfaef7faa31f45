"""Corpora in Korean, Chinese, Arabic and Hindi: from passages and replies to offsets, training tokens and a call."""

import hashlib
import json
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import regex
from datasets import load_dataset
from transformers import AutoTokenizer, pipeline

from bench import languages as bench
from dataset_builder.__main__ import main
from dataset_builder.annotation.types import why_reject
from dataset_builder.config import BuildConfig, CorpusConfig, TeacherConfig
from dataset_builder.corpus.filters import NearDuplicates, make_filter, markup_share
from dataset_builder.dataset.contamination import Decontaminator, NgramIndex
from dataset_builder.dataset.parts import rules_of
from dataset_builder.languages import count_words, split_words
from dataset_builder.teacher.questions import build_messages, questions
from made_up import passages as made_up
from open_ner.answers import Answer
from open_ner.conversation import read_conversation
from open_ner.long_texts import SENTENCE_END, Window, read_entities
from open_ner.pipeline import OpenNERPipeline
from open_ner.selection import Selection
from open_ner.tools.errors import UserError
from sft.conversations import check_spelling, tokenize

ROOT = Path(__file__).parent.parent
# by language: passages with the pairs of a reply; every entity is in its passage, if not in the same Unicode form
PASSAGES: dict[str, list[tuple[str, list[tuple[str, str]]]]] = {
    "ko": [
        (
            "서울에서 열린 회의에 참석한 김민수 교수는 서울대학교와 삼성전자가 함께 만든 인공지능을 소개했다. "
            "회의는 2024년 3월 5일에 시작되었으며 서울은 눈이 많이 내렸다.",
            [("서울", "city"), ("김민수", "person"), ("서울대학교", "university"), ("삼성전자", "company"),
             ("2024년 3월 5일", "date")],
        ),
        (
            "부산국제영화제는 해마다 부산에서 열린다. "
            "봉준호 감독의 영화 「기생충」은 칸 영화제에서 황금종려상을 받았다.",
            [("부산국제영화제", "festival"), ("부산", "city"), ("봉준호", "person"), ("기생충", "film"),
             ("칸 영화제", "festival"), ("황금종려상", "award")],
        ),
    ],
    "zh": [
        (
            "北京市市长张伟星期一与交通运输部部长李娜一起，为横跨永定河的新桥举行了通车仪式。来自清华大学的学生也到场观看，"
            "他们说，永定河是北京的母亲河。",
            [("北京", "city"), ("张伟", "person"), ("交通运输部", "government agency"), ("李娜", "person"),
             ("永定河", "river"), ("清华大学", "university")],
        ),
        (
            "鲁迅原名周树人，1881年9月25日出生于浙江绍兴。他的短篇小说《狂人日记》发表在《新青年》杂志上。",
            [("鲁迅", "person"), ("周树人", "person"), ("1881年9月25日", "date"), ("浙江绍兴", "city"),
             ("狂人日记", "short story"), ("新青年", "magazine")],
        ),
    ],
    "ar": [
        (
            "افتتح محافظ القاهرة يوم الاثنين جسرًا جديدًا فوق نهر النيل، وقال إن الجسر يربط بين الجيزة والقاهرة. "
            "وحضر الافتتاح وزير النقل كامل الوزير.",
            [("القاهرة", "city"), ("نهر النيل", "river"), ("الجيزة", "city"), ("كامل الوزير", "person"),
             ("الاثنين", "weekday")],
        ),
        (
            "وُلِدَ الأديب نجيب محفوظ في القاهرة عام 1911، "
            "وحصل على جائزة نوبل في الأدب عام 1988 عن رواياته مثل أولاد حارتنا.",
            [("نجيب محفوظ", "person"), ("القاهرة", "city"), ("1911", "year"), ("جائزة نوبل في الأدب", "award"),
             ("أولاد حارتنا", "novel")],
        ),
    ],
    "hi": [
        (
            "दिल्ली के मुख्यमंत्री ने सोमवार को यमुना नदी पर नए पुल का उद्घाटन किया। भारतीय प्रौद्योगिकी संस्थान दिल्ली के "
            "प्रोफ़ेसर राजेश कुमार भी वहाँ थे।",
            [("दिल्ली", "city"), ("यमुना नदी", "river"), ("भारतीय प्रौद्योगिकी संस्थान दिल्ली", "university"),
             ("राजेश कुमार", "person"), ("सोमवार", "weekday")],
        ),
        (
            "क्षत्रिय कुल में जन्मे महाराणा प्रताप ने हल्दीघाटी का युद्ध लड़ा। उनका घोड़ा चेतक राजस्थान में आज भी याद किया जाता है।",
            [("महाराणा प्रताप", "person"), ("हल्दीघाटी का युद्ध", "battle"), ("चेतक", "horse"), ("राजस्थान", "state")],
        ),
    ],
}  # fmt: skip
OUTSIDE = {"ko": "Москва", "zh": "서울", "ar": "東京", "hi": "Αθήνα"}  # in another script


def write_corpus(folder: Path, language: str, reply_form: str = "NFC", text_form: str = "NFC") -> list[str]:
    """Write passages and recorded replies of a language; return the options of a build of them."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "corpus.jsonl").open("w") as corpus, (folder / "replies.jsonl").open("w") as replies:
        for number, (text, pairs) in enumerate(PASSAGES[language]):
            text = unicodedata.normalize(text_form, text)
            said = [(unicodedata.normalize(reply_form, span), kind) for span, kind in pairs]
            said.append((OUTSIDE[language], "city"))
            print(json.dumps({"id": f"{language}{number}", "text": text}), file=corpus)
            digest = hashlib.sha256(text.encode()).hexdigest()
            reply = json.dumps(said, ensure_ascii=False)
            print(json.dumps({"text_sha256": digest, "reply": reply, "finish_reason": "stop"}), file=replies)
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        f"output_dir: {folder / 'run'}\n"
        f"corpus: {{path: {folder / 'corpus.jsonl'}, language: {language}, max_tokens: 1000}}\n"
        f"teacher: {{recorded: {folder / 'replies.jsonl'}}}\n"
        "dataset: {validation_one_in: 0, max_conversation_tokens: 2000}\n"
    )
    return ["--config", str(recipe)]


def build(monkeypatch: pytest.MonkeyPatch, tiny_student: Path, options: list[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["dataset_builder", *options, "--corpus.tokenizer", str(tiny_student)])
    main()


def rejects(folder: Path) -> list[tuple[str, str]]:
    rows = load_dataset("parquet", data_files=str(folder / "run/dataset/rejects/rejects.parquet"), split="train")
    return [(row["reason"], row["span"]) for row in rows]


@pytest.mark.parametrize("language", PASSAGES)
def test_the_whole_way(
    language: str, tmp_path: Path, tiny_student: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    build(monkeypatch, tiny_student, write_corpus(tmp_path, language))
    printed = capsys.readouterr().out
    assert "spells this language in bytes, " in printed and "tokens per character" in printed

    annotations = load_dataset(str(tmp_path / "run/dataset"), "annotations", split="train")
    expected = dict(PASSAGES[language])
    assert set(annotations["text"]) == set(expected)
    for row in annotations:
        text, clusters = row["text"], {0} | {match.end() for match in regex.finditer(r"\X", row["text"])}
        assert {(one["text"], one["type"]) for one in row["entities"]} == set(expected[text])
        for one in row["entities"]:
            assert text[one["start"] : one["end"]] == one["text"] and {one["start"], one["end"]} <= clusters
    assert rejects(tmp_path) == [("not_in_passage", OUTSIDE[language])] * len(expected)

    rows = load_dataset(str(tmp_path / "run/dataset"), "type", split="train")
    tokenizer = AutoTokenizer.from_pretrained(tiny_student)
    assert "tokens per character" in (check_spelling(rows, tokenizer, "tiny") or "")
    tokens, report = tokenize(rows, tokenizer, 2048)
    assert report["conversations"] == len(expected) and report["present"] > 0
    learned = [
        tokenizer.decode([token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label >= 0])
        for row in tokens
    ]
    for row, answers in zip(rows, learned, strict=True):
        for _, answer in read_conversation(row["messages"])[2]:
            assert answer in answers  # no byte of a character is lost or replaced

    spans = {row["text"]: {(e["start"], e["end"], e["type"]) for e in row["entities"]} for row in annotations}
    for row in rows:  # a student that answers as it was taught finds the spans of the builder
        answers = {kind: Answer(text=raw) for kind, raw in read_conversation(row["messages"])[2]}
        window = Window(0, len(row["text"]))
        found = read_entities(row["text"], [(window, answers)], Selection(overlaps="all"))
        assert {(e["start"], e["end"], e["entity_group"]) for e in found} == spans[row["text"]]

    tagger = pipeline("open-ner", model=str(tiny_student), pipeline_class=OpenNERPipeline, device="cpu")
    texts = [text for text, _ in PASSAGES[language]]
    for result in tagger(texts, types=["city", "사람"], max_new_tokens=16, return_raw=True):
        assert {*result["raw"]} == {"city", "사람"}


@pytest.mark.parametrize("language", PASSAGES)
@pytest.mark.parametrize(("reply_form", "text_form"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_another_unicode_form_loses_no_entity(
    language: str, reply_form: str, text_form: str, tmp_path: Path, tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(monkeypatch, tiny_student, write_corpus(tmp_path, language, reply_form, text_form))
    rows = [json.loads(line) for line in (tmp_path / "run/annotations.type.jsonl").open()]
    found = {(unicodedata.normalize("NFC", one["text"]), one["type"]) for row in rows for one in row["entities"]}
    normalized = {(unicodedata.normalize("NFC", a), b) for _, pairs in PASSAGES[language] for a, b in pairs}
    assert found == normalized


@pytest.mark.parametrize(
    ("span", "language", "reason"),
    [
        ("서울", "ko", None),
        ("大韓民國", "ko", None),
        ("LG전자", "ko", None),
        ("β-카로틴", "ko", None),
        ("Москва", "ko", "other_script"),
        ("コーヒー", "ja", None),
        ("서울", "zh", "other_script"),
        ("القاهرة", "fa", None),
        ("दिल्ली", "mr", None),
        ("Ελλάδα", "el", None),
        ("Ελλάδα", "de", "other_script"),
        ("Москва", None, None),
        ("Москва", "en", "non_english"),
        ("中华人民共和国第十三届全国人民代表大会常务委员会", "zh", None),  # 24 characters are 12 words
        ("中" * 41, "zh", "too_long"),
    ],
)
def test_entities_are_in_a_script_of_the_language(span: str, language: str | None, reason: str | None) -> None:
    assert why_reject(span, "thing named", "", 20, language) == reason


@pytest.mark.parametrize(
    ("type_name", "type_language", "reason"),
    [
        ("도시", "English", "other_script"),
        ("도시", "Korean", None),
        ("기타", "Korean", "else_type"),
        ("अन्य", "Hindi", "else_type"),
    ],
)
def test_types_are_in_the_language_of_choice(type_name: str, type_language: str, reason: str | None) -> None:
    assert why_reject("서울", type_name, "", 20, "ko", type_language) == reason
    assert why_reject("서울", None, "", 20, "ko") is None  # a type of `teacher.types` is the user's choice


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("it's five words, no more", 5),
        ("서울에서 만난 사람", 3),
        ("दिल्ली के मुख्यमंत्री", 3),
        ("北京市市长，张伟。", 4),
        ("使用Python编程", 3),
        ("", 0),
    ],
)
def test_words_are_counted_by_spaces_or_by_characters(text: str, words: int) -> None:
    assert count_words(text) == words


def test_words_keep_their_marks_and_characters_stand_alone() -> None:
    assert split_words("दिल्ली का café, cafe\u0301 x_1") == ["दिल्ली", "का", "café", "cafe\u0301", "x_1"]
    assert split_words("北京の、Python3か\u3099น้ำ") == ["北", "京", "の", "Python3", "か\u3099", "น้ำ"]


@pytest.mark.parametrize("language", PASSAGES)
def test_passages_are_kept_and_other_languages_are_rejected(language: str) -> None:
    for other, passages in PASSAGES.items():
        for text, _ in passages:
            assert make_filter(CorpusConfig(path="x", language=language))(text, 9) == (
                None if other == language else "other_language"
            )
            assert make_filter(CorpusConfig(path="x", language=None))(text, 9) is None
            assert markup_share(text) < 0.3
    assert make_filter(CorpusConfig(path="x", language="zh"))("北京市长来了。", 9) == "too_short"


@pytest.mark.parametrize("language", PASSAGES)
def test_near_duplicates_and_benchmark_texts_are_found(language: str) -> None:
    first, second = (text for text, _ in PASSAGES[language])
    near = NearDuplicates(0.7)
    assert near.add(first * 3) and near.add(second * 3)
    assert not near.add(unicodedata.normalize("NFD", first * 3 + "!")) and not near.add(f"{second * 3} 1988")
    index = NgramIndex([first], 8, 5)
    assert index.overlaps(f"x {first[10:]}") == {0} and not index.overlaps(second)


def test_a_run_of_characters_that_any_text_may_have_is_no_contamination() -> None:
    index = NgramIndex(["中华人民共和国国务院总理在北京会见了来访的外国客人。"], 8, 5)
    assert not index.overlaps("他是中华人民共和国国务院的一名工作人员。")
    assert index.overlaps("昨天，中华人民共和国国务院总理在北京会见了来访的外国客人。") == {0}


def test_prompts_name_the_language_of_types_and_english_prompts_stay_as_they_are() -> None:
    def asked(**options: Any) -> tuple[str, str]:
        config = BuildConfig(**options)
        (question,) = questions(made_up(1), config.teacher)
        return question.messages[-1]["content"], question.key

    corpus = CorpusConfig(path="x")
    text, key = asked(corpus=corpus)
    # the key of this question before there was `teacher.type_language`: no English run pays again
    assert key == "bc8701650ccad04eac0a9bfa692ac6349088fa81ee8fccac2674c92af31f9800"
    for spelled in ("English", "english "):
        teacher = TeacherConfig(type_language=spelled)
        assert asked(corpus=corpus, teacher=teacher) == (text, key)
        korean = BuildConfig(
            corpus=CorpusConfig(path="x", language="ko"), teacher=TeacherConfig(type_language=spelled)
        )
        assert rules_of(korean, "type", Decontaminator(korean.contamination)).type_language == "English"
    assert asked(corpus=CorpusConfig(path="x", language=None)) == (text, key)
    assert "in English" in asked(corpus=CorpusConfig(path="x", language="ko"))[0]
    assert "in Korean" in asked(corpus=corpus, teacher=TeacherConfig(type_language="Korean"))[0]
    assert "definitions in Korean" in build_messages("definition", "x", {"type_language": "Korean"})[-1]["content"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (lambda: CorpusConfig(path="x", language="kr"), "corpus.language 'kr' is not a language code"),
        (lambda: TeacherConfig(type_language=" "), "teacher.type_language ' '"),
        (lambda: TeacherConfig(type_language="Korean\nIgnore"), "teacher.type_language"),
        (lambda: TeacherConfig(type_language="Korean", types=["city"]), "has no effect with teacher.types"),
    ],
)
def test_a_language_that_cannot_be_used_is_an_error(options: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        options()


def test_a_prompt_that_ignores_the_language_of_types_is_an_error(tmp_path: Path) -> None:
    prompt = tmp_path / "own.jinja"
    prompt.write_text("{% block user %}Entities of {{ passage }}{% endblock %}")
    config = TeacherConfig(type_language="Korean", prompts={"type": str(prompt)})
    with pytest.raises(UserError, match="does not use the variable `type_language`"):
        list(questions(made_up(1), config))


def test_the_table_of_the_docs_is_that_of_the_results() -> None:
    table = (ROOT / "results/languages/table.md").read_text(encoding="utf-8").strip()
    assert table in (ROOT / "docs/languages.md").read_text(encoding="utf-8")
    assert [line.split(" | ")[0].strip("| ") for line in table.splitlines()[2:]] == [*bench.ARTICLE_1]


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("दिल्ली बड़ी है। मुंबई भी।", ["दिल्ली बड़ी है।"]),
        ("هل زرت القاهرة؟ نعم.", ["هل زرت القاهرة؟"]),
        ("北京很大。上海也是。", ["北京很大。", "上海也是。"]),
        ("서울은 크다. 부산도 크다.", ["서울은 크다."]),
    ],
)
def test_long_texts_are_cut_at_the_full_stops_of_each_script(text: str, ends: list[str]) -> None:
    stops = [match.end() for match in SENTENCE_END.finditer(text)]
    assert [text[a:b].strip() for a, b in zip([0, *stops], stops, strict=False)] == ends
