"""The spaCy component: the student's spans in a `Doc`, whole batches in one call, saved with the pipeline."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

spacy = pytest.importorskip("spacy")

from open_ner.tools import spacy_component  # noqa: E402  (needs spaCy)

ROOT = Path(__file__).parent.parent
TEXT = "Angela Merkel met Barack Obama in Berlin."
TYPES = ["person", "city", "date"]


def pipeline(model: Path | str, **config: Any) -> Any:
    nlp = spacy.blank("en")
    nlp.add_pipe("open_ner", config={"model": str(model), "types": TYPES, "threshold": 0.5, "device": "cpu"} | config)
    return nlp


def spans_of(doc: Any) -> list[tuple[str, str]]:
    return [(span.text, span.label_) for span in doc.ents]


class Answering:
    """A tagger that finds the same words in every text, and counts its calls."""

    def __init__(self, *found: tuple[str, str, float]) -> None:
        self.found, self.calls = found, []

    def __call__(self, texts: list[str], **options: Any) -> list[list[dict[str, Any]]]:
        self.calls.append((len(texts), options))
        return [
            [
                {"entity_group": kind, "word": word, "start": at, "end": at + len(word), "score": score}
                for word, kind, score in self.found
                if (at := text.find(word)) >= 0
            ]
            for text in texts
        ]


def answering(monkeypatch: pytest.MonkeyPatch, *found: tuple[str, str, float]) -> Answering:
    tagger = Answering(*found)
    monkeypatch.setattr(spacy_component, "load", lambda model, device: tagger)
    return tagger


def test_a_student_annotates_and_is_saved_with_the_pipeline(tuned_student: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tuned_student, tmp_path / "student")
    nlp = pipeline(model)
    doc, empty, blank = nlp.pipe([TEXT, "", " \n"])
    expected = [("Angela Merkel", "person"), ("Barack Obama", "person"), ("Berlin", "city")]
    assert spans_of(doc) == expected and spans_of(empty) == spans_of(blank) == []
    group = doc.spans["open_ner"]
    assert [(span.text, span.label_) for span in group] == expected
    assert all(0.5 < score <= 1 for score in group.attrs["scores"]) and group.attrs["unaligned"] == []
    copy = spacy.tokens.Doc(nlp.vocab).from_bytes(doc.to_bytes()).spans["open_ner"]
    assert copy.attrs["scores"].tolist() == group.attrs["scores"].tolist()

    nlp.to_disk(tmp_path / "pipeline")
    nlp.to_disk(tmp_path / "config_only", exclude=["open_ner"])
    assert spans_of(spacy.load(tmp_path / "config_only")(TEXT)) == expected  # reads the student where it was
    shutil.rmtree(model)
    loaded = spacy.load(tmp_path / "pipeline")
    assert spans_of(loaded(TEXT)) == expected and loaded.pipe_labels["open_ner"] == TYPES
    loaded.to_disk(tmp_path / "pipeline")  # over itself
    assert spans_of(spacy.load(tmp_path / "pipeline")(TEXT)) == expected


def test_a_batch_is_one_call_with_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    tagger = answering(monkeypatch, ("Rome", "city", 0.9))
    nlp = pipeline("x", overlaps="nested", threshold={"city": 0.3}, options={"window": 64})
    docs = list(nlp.pipe(["Rome is old."] * 5, batch_size=2))
    assert [spans_of(doc) for doc in docs] == [[("Rome", "city")]] * 5
    options = {"types": TYPES, "overlaps": "nested", "threshold": {"city": 0.3}, "window": 64, "batch_size": 2}
    assert tagger.calls == [(2, options), (2, options), (1, options)]


def test_overlapping_spans_keep_their_scores_and_the_surest_is_an_entity(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, ("Bank of Rome", "bank", 0.6), ("Rome", "city", 0.9), ("Ada", "person", 0.7))
    nlp = pipeline("x", overlaps="all", spans_key="found")
    doc = nlp("Bank of Rome hired Ada.")
    assert [span.text for span in doc.spans["found"]] == ["Bank of Rome", "Rome", "Ada"]
    assert doc.spans["found"].attrs["scores"].tolist() == [0.6, 0.9, 0.7]
    assert spans_of(doc) == [("Rome", "city"), ("Ada", "person")]

    nlp = pipeline("x", overlaps="all", annotate_ents=False)
    nlp.add_pipe("entity_ruler", first=True).add_patterns([{"label": "VERB", "pattern": "hired"}])
    assert spans_of(nlp("Bank of Rome hired Ada.")) == [("hired", "VERB")]


@pytest.mark.parametrize(("mode", "kept"), [("expand", ["Berliner"]), ("contract", []), ("strict", [])])
def test_spans_inside_a_token_are_listed(monkeypatch: pytest.MonkeyPatch, mode: str, kept: list[str]) -> None:
    answering(monkeypatch, ("Berlin", "city", 0.9))
    with pytest.warns(UserWarning, match=r"begin or end inside a token of spaCy are .*'open_ner'.*unaligned"):
        doc = pipeline("x", alignment_mode=mode)("The Berliner sang.")
    assert [span.text for span in doc.ents] == kept == [span.text for span in doc.spans["open_ner"]]
    group = spacy.tokens.Doc(doc.vocab).from_bytes(doc.to_bytes()).spans["open_ner"]
    assert [(entity["word"], entity["start"]) for entity in group.attrs["unaligned"]] == [("Berlin", 4)]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model": ""}, "open_ner: model is missing"),
        ({"types": []}, r'open_ner: types is missing: config=\{"types"'),
        ({"types": "person"}, "types"),
        ({"threshold": 2}, r"threshold=2: scores are in \[0, 1\]"),
        ({"overlaps": "some"}, "overlaps"),
        ({"alignment_mode": "some"}, "alignment_mode"),
        ({"types": {"person": "a human", "#tag": "a hashtag"}}, r"types \{'#tag': 'a hashtag'\} would change when"),
        ({"types": {"a: b": "x"}}, r"types \{'a: b': 'x'\} would change"),
        ({"types": {"a\nb": "x"}}, r"types \{'a\\nb': 'x'\} would change"),
        ({"types": ["${person}"]}, r"types \['\$\{person\}'\] would change"),
        ({"threshold": {"city": 0.5, "a=b": 0.5}}, r"threshold \{'a=b': 0.5\} would change"),
        ({"options": {"dataset": "${x}"}}, r"options \{'dataset': '\$\{x\}'\} would change"),
    ],
)
def test_mistakes_are_named_when_the_component_is_added(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline(**{"model": "x"} | config)


def test_mistakes_that_need_the_student_are_named_at_the_first_document(tuned_student: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="open_ner: model '.*nowhere' cannot be loaded"):
        pipeline(tmp_path / "nowhere")(TEXT)
    failed: list[int] = []
    nlp = pipeline(tuned_student, options={"windw": 64})
    with pytest.raises(ValueError, match="unknown option 'windw'"):
        nlp(TEXT)
    nlp.set_error_handler(lambda name, component, docs, error: failed.append(len(docs)))
    assert list(nlp.pipe([TEXT, TEXT])) == [] and failed == [2]


def test_adding_the_component_does_not_import_transformers() -> None:
    script = (
        "import sys, spacy, open_ner.tools.spacy_component\n"
        "spacy.blank('en').add_pipe('open_ner', config={'model': 'x', 'types': ['person']})\n"
        "assert not {'transformers', 'open_ner.pipeline'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
