"""The demo without gradio: what its page shows for a call, what it says about mistakes, and what a Space needs."""

import json
from pathlib import Path

import pytest
import yaml

from open_ner.tools.errors import UserError
from space.app import find, main, to_queries

FOLDER = Path(__file__).parent.parent / "space"


class Tagger:
    """Finds `University of Rome` and the `Rome` in it, and notes its options."""

    def __call__(self, text: str, **options: object) -> list[dict]:
        self.options = options
        place = text.index("University of Rome")
        return [
            {
                "entity_group": "<b>org</b>",
                "word": "University of Rome",
                "start": place,
                "end": place + 18,
                "score": 0.9,
            },
            {"entity_group": "city", "word": "Rome", "start": place + 14, "end": place + 18, "score": 0.25},
        ]


def test_an_answer_is_marked_text_and_a_table_in_which_what_was_given_is_escaped() -> None:
    tagger, text = Tagger(), "<script>alert(1)</script> The University of Rome & more."
    html, entities = find(tagger, text, ["<b>org</b>", "city=a town"], 0.2, 0.3, "nested")
    assert tagger.options == {
        "types": {"<b>org</b>": "<b>org</b>", "city": "a town"},
        "threshold": 0.2, "overlaps": "nested", "expected_present": 0.3,
    }  # fmt: skip
    assert [text[one["start"] : one["end"]] for one in entities] == ["University of Rome", "Rome"]
    assert "<script" not in html and "<b>org" not in html and "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    outer, inner = html.index("University of <mark"), html.index("Rome<bdi")
    assert outer < inner  # nested
    assert "<td><bdi>Rome</bdi></td>" in html and ">0.250<" in html and "data-score" in html
    find(tagger, text, ["city"] + ["<b>org</b>"], 0.0, 0, "flat")
    assert "expected_present" not in tagger.options  # 0 keeps the saved presence bias


@pytest.mark.parametrize(
    ("text", "types", "message"),
    [
        (" \n", ["city"], "The text is empty"),
        ("a" * 50_001, ["city"], "50,001 characters"),
        ("Rome", [], "No type is chosen"),
        ("Rome", ["city", " city =a town"], "type city is given twice"),
    ],
)
def test_a_mistake_is_one_line(text: str, types: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find(Tagger(), text, types, 0.0, 0.0, "flat")


def test_without_a_student_it_says_which_variable_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODEL_ID", raising=False)
    with pytest.raises(UserError, match="MODEL_ID is not set"):
        main()


def test_the_folder_is_a_space_whose_examples_can_be_asked() -> None:
    card = yaml.safe_load((FOLDER / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert card["sdk"] == "gradio" and (FOLDER / card["app_file"]).is_file()
    examples = json.loads((FOLDER / "examples.json").read_text(encoding="utf-8"))
    assert len(examples) >= 5 and all(text and to_queries(types) for text, types in examples)
