"""The dataset card: its numbers, and text from corpus and replies that cannot change its layout."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import DatasetCard

from dataset_builder.dataset.figures import plot_bars, plot_entities, plot_types
from dataset_builder.dataset.statistics import PAPER, rank_bands
from hub.dataset_card import write_dataset_card
from hub.markdown import escape
from hub.publish import name_repository

HOSTILE = (
    '<img src=x onerror="alert(1)"> | [click](http://evil.example) `code` **b** $x$ www.evil.example @all\n# head'
)


OVERLAP = {
    "benchmark": "bench", "texts": 1200, "too_short": 3, "texts_found": 2, "passages": 5, "removed": 5, "types": 9,
    "types_shared": ["person", "city"],
}  # fmt: skip
SET = {
    "license": "CC0", "passages": 12, "passages_without_entity": 4, "entities": 8, "types": {"city": 5, "river": 3},
    "conversations": 12, "queries": 24, "negative_queries": 16, "rejected": {"dropped_label: misc": 4},
}  # fmt: skip


def corpus_counts(name: str) -> dict[str, Any]:
    return {
        "kept": 3, "rejected": {name: 4}, "documents": {name: 1000}, "candidates": 1207, "not_sampled": 1200,
        "sources": {name: 3}, "licenses": {name: 3}, "revisions": {name: name},
    }  # fmt: skip


def stats(**changes: Any) -> dict[str, Any]:
    part = {
        "counts": {"replies": 3, "entities_read": 9, "entities_kept": 7, "not_in_passage": 2},
        "hallucination_rate": 2 / 9, "merged_types": {}, "passages": 1234, "entities": 7, "spans": 8, "types": 3,
        "bands": [0.5, 0.3, 0.2], "top_types": ["person", "city"], "entities_per_passage": 2.3,
        "types_per_passage": 1.5, "conversations": {"train": 3}, "queries": 12, "negative_queries": 6,
        "types_not_asked": 0, "rejected": {"query_too_long": 1},
    }  # fmt: skip
    negatives = {
        "negatives": "frequency", "negative_ratio": 1.0, "negatives_per_passage": None, "max_queries": None,
        "draws": 1, "max_conversation_tokens": 1024, "validation_one_in": 10, "seed": 42, "tokenizer": "org/student",
    }  # fmt: skip
    info = {"splits": [{"name": "train", "num_bytes": 10, "num_examples": 3}], "dataset_size": 10, "download_size": 5}
    config = {"splits": {"train": 3}, "dataset_info": info}
    return {
        "name": "my dataset", "license": "cc0-1.0", "corpus": {"kept": 3, "rejected": {"too_short": 4}},
        "answers": {"paid": 3, "cost": 0.5}, "negatives": negatives, "prompts": {"type": "0" * 16},
        "teacher": ["some-model"], "annotated": ["2026-01-01", "2026-01-03"], "sources": {"news": 3},
        "licenses": {"": 3}, "variants": {"type": part}, "configs": {"type": config, "annotations": config},
        "paper": PAPER, "versions": {}, "supervised": {}, "contamination": [],
        "supervised_options": {
            "dataset_line": True, "negatives": "all", "negative_ratio": 1.0, "negatives_per_passage": None,
            "mixture": None, "passages_outside_mixture": 0,
        },
        "contamination_options": {"passages": "remove", "types": "report", "ngram": 8, "min_words": 5},
    } | changes  # fmt: skip


def card(folder: Path, **changes: Any) -> DatasetCard:
    (folder / "stats.json").write_text(json.dumps(stats(**changes)))
    write_dataset_card(folder)
    return DatasetCard.load(folder / "README.md")


def test_the_language_is_that_of_the_corpus(tmp_path: Path) -> None:
    assert card(tmp_path, language="de").data.language == ["de"]
    assert card(tmp_path, language=None).data.get("language") is None
    assert "\x1b" not in card(tmp_path, sources={"a\x1b[31m": 3}).text


def test_numbers_stand_beside_the_papers(tmp_path: Path) -> None:
    text = card(tmp_path).text
    for line in (
        "| passages | 1,234 | 45,889 |",
        "| types | 3 | 13,020 |",
        "| entities per passage | 2.3 | 5.2 |",
        "| entities of the top 1 % of types by rank | 50% | 74% |",
        "| `type` | a conversation that asks types by name | 3 |",
        "| passages | too\\_short | 4 |",
        "| type: replies and entities | not\\_in\\_passage | 2 |",
        "| type: conversations | query\\_too\\_long | 1 |",
        "- Teacher: some-model, 2026-01-01 to 2026-01-03. "
        "Prompts: type (SHA-256 0000000000000000). 3 replies were paid for, $0.5000.",
        "- Their licenses: not named (3).",
        "- type: 22.22% of the teacher's entities were rejected because their string is not in the passage.",
    ):
        assert line in text.replace("\n  ", " ").splitlines(), line
    assert "those of the teacher's provider" in text and "Not checked" in text and "merged" not in text
    assert "Human-annotated" not in text


def test_the_example_names_the_repository_it_is_pushed_to(tmp_path: Path) -> None:
    assert 'load_dataset("path/to/this/folder", split="train")' in card(tmp_path).text
    assert 'load_dataset("org/name", split="train")' in name_repository(tmp_path / "README.md", "org/name", None)


def test_metadata_name_configs_files_license_and_sizes(tmp_path: Path) -> None:
    data = card(tmp_path).data
    assert data.license == "cc0-1.0" and data.size_categories == ["n<1K"]
    assert data.configs[0] == {
        "config_name": "type", "data_files": [{"split": "train", "path": "type/train-*.parquet"}], "default": True,
    }  # fmt: skip
    assert [info["config_name"] for info in data.dataset_info] == ["type", "annotations"]


def test_text_of_corpus_and_teacher_is_shown_as_text(tmp_path: Path) -> None:
    part = stats()["variants"]["type"] | {"top_types": [HOSTILE], "merged_types": {HOSTILE: "x"}}
    loaded = card(
        tmp_path, name=HOSTILE, teacher=[HOSTILE], sources={HOSTILE: 1}, licenses={HOSTILE: 1},
        variants={"type": part}, contamination=[OVERLAP | {"benchmark": HOSTILE, "types_shared": [HOSTILE]}],
        supervised={HOSTILE: SET | {"license": HOSTILE, "rejected": {HOSTILE: 1}}}, corpus=corpus_counts(HOSTILE),
    )  # fmt: skip
    plain = card(tmp_path, variants={"type": part | {"top_types": ["x"], "merged_types": {"x": "x"}}},
                 contamination=[OVERLAP], supervised={"x": SET}, corpus=corpus_counts("x"))  # fmt: skip
    for mark in ("<img", "](http://evil", "://evil", "www.evil", "@all", "`code`", "**b**", "$x$"):
        assert mark not in loaded.text
    assert loaded.text.count("\n") == plain.text.count("\n")  # hostile text adds no line, so no heading or row either
    assert [line.count("|") - line.count("\\|") for line in loaded.text.splitlines()] == [
        line.count("|") for line in plain.text.splitlines()
    ]
    assert loaded.data.pretty_name == HOSTILE and "1,200" in loaded.text
    assert "Plural types merged into their singular (1)" in loaded.text


def test_corpus_sets_mixture_and_contamination_are_shown(tmp_path: Path) -> None:
    config = stats()["configs"]["type"]
    options = stats()["supervised_options"] | {
        "mixture": {"distilled": 2.0, "places": 1.0},
        "passages_outside_mixture": 1234,
    }
    text = card(
        tmp_path, corpus=corpus_counts("org/corpus"), supervised={"places": SET}, contamination=[OVERLAP],
        supervised_options=options, configs={"type": config, "supervised": config, "mixture": config},
    ).text  # fmt: skip
    for line in (
        "- 3 passages were kept of 1,207 cut from 1,000 documents; 1,200 were not drawn into the sample.",
        "- Documents read: org/corpus (1,000).",
        "- Revisions on the Hub: org/corpus at org/corpus.",
        "| places | CC0 | 2 | 12 | 4 | 8 | 12 | 24 | 16 |",
        "| supervised: places | dropped\\_label: misc | 4 |",
        "| bench | 1,200 | 3 | 2 | 5 | 5 | 9 | 2: person, city |",
    ):
        assert line in text.splitlines(), line
    assert "(relative sizes distilled 2, places 1; 1,234 passages are not in it)" in text
    assert "in human-annotated sets: every type of the set that is absent" in text and "Not checked" not in text


def test_escaped_text_is_one_line_without_markup() -> None:
    assert escape("a|b\n*c*") == r"a\|b \*c\*"
    assert escape("<b>&") == "&lt;b&gt;&amp;"


@pytest.mark.parametrize("name", ["$\\frac{", "_x_ ^", "数据", "a" * 500, "\x00\t", ""])
def test_figures_draw_any_name(name: str, tmp_path: Path) -> None:
    plot_types(Counter({name: 3, "city": 1}), tmp_path / "types.png")
    plot_bars(Counter({f"{name}{i}": i + 1 for i in range(30)}), "t", "u", tmp_path / "bars.png", log=True)
    plot_bars(Counter(), "nothing", "u", tmp_path / "none.png", log=True)
    plot_entities(Counter({1: 5, 2: 9, 3_000_000: 1}), tmp_path / "entities.png")
    for path in (tmp_path / f"{figure}.png" for figure in ("types", "bars", "none", "entities")):
        assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size < 200_000


def test_bands_of_ranks_add_up_to_all_entities() -> None:
    assert rank_bands(Counter({f"t{i}": 100 if i == 0 else 1 for i in range(100)})) == pytest.approx(
        [100 / 199, 9 / 199, 90 / 199]
    )
    assert sum(rank_bands(Counter({"only": 5}))) == 1
