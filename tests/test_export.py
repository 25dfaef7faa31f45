"""The export: what other trainers read has the mentions of the dataset, and nothing is left out without a reason."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, load_dataset

from dataset_builder.export.__main__ import main
from dataset_builder.export.passages import Tally, find_passages, read_passages
from dataset_builder.uniner_distill import features_of
from ner_sets.mentions import decode_tags
from open_ner.tools.errors import UserError

CARD = """---
configs:
- {config_name: type, default: true, data_files: [{split: train, path: type/tr*}, {split: validation, path: type/v*}]}
- {config_name: annotations, data_files: [{split: train, path: annotations/*}]}
---
"""
NESTED = "Ada studied at the University of Paris."
INSIDE = "A Paris-based bank and Ada's sister-in-law."
# a family emoji, Devanagari with vowel signs, Chinese without spaces, Arabic with a prefix
SCRIPTS = "👩‍👩‍👧 हिन्दी भाषा, 王小明住在北京。 في الرياض"


def mentions(text: str, *typed: tuple[str, str]) -> list[dict[str, Any]]:
    """The first occurrence of each string, with its type."""
    return [
        {"start": text.index(word), "end": text.index(word) + len(word), "text": word, "type": kind}
        for word, kind in typed
    ]


ENTITIES = {
    NESTED: mentions(NESTED, ("Ada", "person"), ("University of Paris", "university"), ("Paris", "city")),
    INSIDE: mentions(INSIDE, ("Paris", "city"), ("Ada", "person"), ("bank", "company")),
    SCRIPTS: mentions(
        SCRIPTS, ("👩‍👩‍👧", "emoji"), ("हिन्दी", "language"), ("王小明", "person"), ("北京", "city"), ("الرياض", "city")
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder with the columns of the builder; the nested passage is continued in a second conversation."""
    folder = tmp_path_factory.mktemp("built") / "dataset"
    rows: dict[str, list[dict[str, Any]]] = {"annotations/train": [], "type/train": [], "type/validation": []}

    def add(part: str, name: str, text: str, entities: list[dict[str, Any]], negatives: list[str] | None) -> None:
        features = features_of(part.split("/")[0])
        given = {"id": name, "text": text, "entities": entities, "negatives": negatives, "messages": []}
        rows[part].append({column: given.get(column, 0 if column in ("start", "end") else "") for column in features})

    for number, (text, entities) in enumerate(ENTITIES.items()):
        add("annotations/train", f"p{number}", text, entities, None)
    nested = ENTITIES[NESTED]
    add("type/train", "p0", NESTED, nested[:1], ["date"])
    add("type/train", "p0#2", NESTED, nested[1:], ["river"])
    add("type/train", "p1", INSIDE, [*ENTITIES[INSIDE], {**nested[0], "start": 3, "end": 4}], ["date"])
    add("type/train", "blank", " \n", [], ["date"])
    add("type/validation", "p2", "Ada met Ada.", mentions("Ada met Ada.", ("Ada", "person")), [])
    for part, own in rows.items():
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        Dataset.from_list(own, features=features_of(part.split("/")[0])).to_parquet(
            folder / f"{part}-00000-of-00001.parquet"
        )
    (folder / "README.md").write_text(CARD)
    return folder


@pytest.fixture
def export(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the command on the dataset; returns the folder it wrote."""

    def run(form: str, *options: str, source: Path | str = dataset) -> Path:
        output = tmp_path / "out"
        words = ["export", str(source), "--to", form, "--output", str(output), *options]
        monkeypatch.setattr(sys, "argv", words)
        main()
        return output

    return run


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def rejected(folder: Path) -> list[tuple[str, str, str]]:
    lines = (folder / "rejects.jsonl").read_text(encoding="utf-8").splitlines()
    return sorted((row["id"], row["reason"], row["span"]) for row in map(json.loads, lines))


def test_gliner_gets_words_nested_spans_and_absent_types(export: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder = export("gliner")
    nested, inside = read(folder / "train.json")
    assert nested == {
        "id": "p0",
        "tokenized_text": ["Ada", "studied", "at", "the", "University", "of", "Paris", "."],
        "ner": [[0, 0, "person"], [4, 6, "university"], [6, 6, "city"]],
        "ner_negatives": ["date", "river"],
    }
    assert inside["ner"] == [[2, 2, "company"], [4, 4, "person"]] and inside["ner_negatives"] == ["date"]
    assert read(folder / "validation.json")[0]["ner_negatives"] == []
    expected = [("blank", "no_words", ""), ("p1", "not_on_word_borders", "Paris"), ("p1", "span_not_in_text", "Ada")]
    assert rejected(folder) == expected
    counts = read(folder / "export.json")["splits"]["train"]
    assert counts["rejected"] == dict.fromkeys(("not_on_word_borders", "span_not_in_text", "no_words"), 1)
    assert (counts["passages"], counts["entities_read"], counts["entities_kept"]) == (2, 7, 5)
    said = capsys.readouterr().out
    assert "train: 2 passages, 5 of 7 entities" in said and "1 not_on_word_borders: begin or end" in said

    folder = export("gliner", "--alignment", "expand", "--types", "city")  # replaces the first export
    assert [row["ner"] for row in read(folder / "train.json")] == [[[6, 6, "city"]], [[1, 1, "city"]]]
    assert read(folder / "export.json")["splits"]["train"]["entities_widened"] == 1
    assert ("p0", "type_not_chosen", "Ada") in rejected(folder)


@pytest.mark.parametrize("alignment", ["strict", "expand"])
def test_text_without_spaces_is_not_widened_to_a_clause(
    export: Any, capsys: pytest.CaptureFixture[str], alignment: str
) -> None:
    folder = export("gliner", "--dataset_config", "annotations", "--alignment", alignment)
    row = read(folder / "train.json")[2]
    assert "王小明住在北京" in row["tokenized_text"] and {kind for *_, kind in row["ner"]} == {
        "emoji",
        "language",
        "city",
    }
    inside = [("p2", "inside_unspaced_word", word) for word in ("北京", "王小明")]
    assert [one for one in rejected(folder) if one[0] == "p2"] == inside
    assert "2 inside_unspaced_word: begin or end inside text without spaces" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["gliner", "token-classification"])
def test_human_annotated_passages_are_not_left_out_in_silence(
    form: str, export: Any, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = shutil.copytree(dataset, tmp_path / "mixed")
    shutil.copytree(mixed / "type", mixed / "mixture")
    own = "- {config_name: mixture, data_files: [{split: train, path: mixture/tr*}]}\n---\n"
    (mixed / "README.md").write_text(CARD.removesuffix("---\n") + own)
    export(form)
    assert "human-annotated ones" not in capsys.readouterr().out
    export(form, source=mixed)
    assert "no human-annotated ones: for these give --dataset_config mixture" in capsys.readouterr().out
    export(form, "--dataset_config", "mixture", source=mixed)
    assert "human-annotated ones" not in capsys.readouterr().out


def test_ids_with_a_number_sign_stay_as_they_are() -> None:
    given = [("x#1", "a"), ("x#2", "b"), ("x#3", "b"), ("p@2", "c"), ("p@2#2", "c"), ("p@2#3", "c"), ("p@2#4", "d")]
    rows = [{"id": name, "text": text, "entities": [], "negatives": [name]} for name, text in given]
    found = {passage.id: passage.negatives for passage in read_passages(rows, find_passages(rows), None, Tally())}
    assert found == {name: [name] for name in ("x#1", "x#2", "x#3", "p@2#4")} | {"p@2": ["p@2", "p@2#2", "p@2#3"]}


def test_the_draws_of_a_passage_are_one_passage() -> None:
    ada, paris = mentions(NESTED, ("Ada", "person"), ("Paris", "city"))
    given = [
        ("p", NESTED, [ada], ["date"]), ("p#2", NESTED, [], ["river"]), ("mail@2", INSIDE, [], ["drug"]),
        ("p@2", NESTED, [ada, paris], ["river", "food"]), ("p@2#2", NESTED, [{**paris, "text": "Rome"}], []),
        ("p@3", INSIDE, [], ["another text"]),
    ]  # fmt: skip
    rows = [{"id": name, "text": text, "entities": e, "negatives": n} for name, text, e, n in given]
    tally = Tally()
    first, second, third = read_passages(rows, find_passages(rows), None, tally)
    assert (first.id, first.mentions, first.negatives) == ("p", [ada, paris], ["date", "river", "food"])
    assert (second.id, second.negatives, third.id, third.negatives) == ("mail@2", ["drug"], "p@3", ["another text"])
    assert tally.counts["entities_read"] == 3 and [one.reason for one in tally.rejects] == ["span_not_in_text"]


def test_gliner_trains_a_step(export: Any, tmp_path: Path) -> None:
    gliner = pytest.importorskip("gliner")
    rows = read(export("gliner") / "train.json")
    backbone = tiny_bert(tmp_path / "bert", [" ".join(row["tokenized_text"]) for row in rows])
    encoder = read(backbone / "config.json")
    config = gliner.GLiNERConfig(model_name=str(backbone), hidden_size=32, num_rnn_layers=0, encoder_config=encoder)
    model = gliner.GLiNER.from_config(config)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    trainer = model.train_model(
        rows, None, output_dir=tmp_path / "gliner", max_steps=1, per_device_train_batch_size=2, use_cpu=True,
        report_to="none", save_strategy="no", eval_strategy="no", warmup_ratio=0.0, dataloader_num_workers=0,
    )  # fmt: skip
    assert trainer.state.global_step == 1
    assert any(not torch.equal(before[name], weight) for name, weight in model.named_parameters())


def test_spacy_loads_the_docs(export: Any) -> None:
    spacy = pytest.importorskip("spacy")
    folder = export("spacy")
    docs = list(spacy.tokens.DocBin().from_disk(folder / "train.spacy").get_docs(spacy.blank("en").vocab))
    assert [doc.text for doc in docs] == list(ENTITIES)
    assert [doc.user_data["id"] for doc in docs] == ["p0", "p1", "p2"]
    assert [(span.text, span.label_) for span in docs[0].ents] == [
        ("Ada", "person"),
        ("University of Paris", "university"),
    ]
    assert [span.text for span in docs[0].spans["sc"]] == ["Ada", "University of Paris", "Paris"]
    assert [span.text for span in docs[1].ents] == ["Paris", "bank", "Ada"]  # spaCy splits at hyphens
    counts = read(folder / "export.json")
    assert counts["config"] == "annotations" and counts["splits"]["train"]["entities_outside_doc_ents"] == 1
    assert ("p2", "inside_unspaced_word", "王小明") in rejected(folder)

    nlp = spacy.blank("en")
    nlp.add_pipe("ner")
    examples = list(spacy.training.Corpus(folder / "train.spacy")(nlp))
    assert nlp.initialize(lambda: examples) and nlp.update(examples)["ner"] > 0

    folder = export("spacy", "--language", "zh")  # a tokenizer that divides Chinese
    docs = list(spacy.tokens.DocBin().from_disk(folder / "train.spacy").get_docs(spacy.blank("zh").vocab))
    assert {"王小明", "北京"} <= {span.text for span in docs[2].ents}


def test_iob2_has_every_flat_mention_in_every_script(export: Any) -> None:
    folder = export("token-classification")
    rows = load_dataset(str(folder), split="train", cache_dir=str(folder / "cache"))
    names = rows.features["ner_tags"].feature.names
    assert names[:3] == ["O", "B-city", "I-city"] and len(names) == 1 + 2 * 6
    for row, (text, entities) in zip(rows, ENTITIES.items(), strict=True):
        assert "".join(row["tokens"]) == "".join(text.split())
        tags = [names[tag] for tag in row["ner_tags"]]
        found = [("".join(row["tokens"][first : last + 1]), kind) for first, last, kind in decode_tags(tags)]
        assert sorted(found) == sorted(
            (entity["text"].replace(" ", ""), entity["type"])
            for entity in entities
            if entity["text"] != "Paris" or text == INSIDE
        )
    assert rejected(folder) == [("p0", "overlaps_longer_span", "Paris")]


def test_token_classification_trains_a_step(export: Any, tmp_path: Path) -> None:
    from transformers import AutoModelForTokenClassification, AutoTokenizer, DataCollatorForTokenClassification

    folder = export("token-classification", "--dataset_config", "type")
    splits = load_dataset(str(folder), cache_dir=str(folder / "cache"))
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 2, "validation": 1}
    names = splits["train"].features["ner_tags"].feature.names
    assert names == splits["validation"].features["ner_tags"].feature.names
    backbone = tiny_bert(tmp_path / "bert", [" ".join(row["tokens"]) for row in splits["train"]])
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    model = AutoModelForTokenClassification.from_pretrained(
        backbone, num_labels=len(names), id2label=dict(enumerate(names)), label2id={n: i for i, n in enumerate(names)}
    )

    def tokenize(row: dict[str, Any]) -> dict[str, Any]:  # as transformers' run_ner.py does
        encoded = tokenizer(row["tokens"], is_split_into_words=True)
        encoded["labels"] = [-100 if word is None else row["ner_tags"][word] for word in encoded.word_ids()]
        return encoded

    features = [tokenize(row) for row in splits["train"]]
    batch = DataCollatorForTokenClassification(tokenizer)(features)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    first = model(**batch).loss
    first.backward()
    optimizer.step()
    assert model(**batch).loss < first


def tiny_bert(folder: Path, texts: list[str]) -> Path:
    """Write a random one-layer BERT with a tokenizer of these texts."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep")}
    words.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=200, special_tokens=[*special.values()]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=64, **special)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("form", "options", "message"),
    [
        ("gliner", ["--types", "persn"], "'persn' does not occur in .*: person, city"),
        ("gliner", ["--language", "de"], "--language de has an effect with --to spacy only"),
        ("gliner", ["--dataset_config", "closed"], "cannot be read as a dataset: .*closed"),
        ("gliner", ["--types", ","], "names no type"),
        ("gliner", ["--types", "[]"], r"--types is empty .*'\[\]'"),
        ("token-classification", ["--types", "person,city,person"], "'person' is given twice: remove one"),
        ("gliner", ["--types", "person=a human"], "'person=a human' has definitions, .*: give the names alone"),
    ],
)
def test_mistakes_are_named(export: Any, tmp_path: Path, form: str, options: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        export(form, *options)
    assert not (tmp_path / "out").exists()


def test_what_is_not_a_dataset_is_named(export: Any, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(UserError, match="other' cannot be read as a dataset"):
        export("gliner", source=other)
    (other / "train.jsonl").write_text('{"text": "Rome", "label": 1}\n')
    with pytest.raises(UserError, match="its columns are label, text; a dataset of this project has id"):
        export("gliner", source=other)
    with pytest.raises(UserError, match="train.jsonl is a file: give the folder"):
        export("gliner", source=other / "train.jsonl")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="holds files that are not an export"):
        export("gliner")
    assert (tmp_path / "out" / "thesis.tex").read_text() == "mine"
    with pytest.raises(UserError, match="thesis.tex cannot become the folder of an export"):
        export("gliner", "--output", str(tmp_path / "out" / "thesis.tex"))
