"""Long texts: windows cover everything, spans are whole, and the result is that of the windows."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import pipeline

from open_ner import pipeline as open_ner_pipeline
from open_ner.decoding import Answer, Decoder, Request
from open_ner.long_texts import Window, cut, fitting_window, merge
from open_ner.pipeline import OpenNERPipeline
from tiny import MAX_POSITIONS, SENTENCES

PROSE = " ".join(SENTENCES[:5])
Entities = list[dict[str, Any]]


def words(texts: Sequence[str]) -> list[int]:
    """A tokenizer whose tokens are words of at most four characters."""
    return [sum(-(-len(word) // 4) for word in text.split()) for text in texts]


def parts(text: str, windows: list[Window]) -> list[str]:
    return [text[window.start : window.end] for window in windows]


@pytest.fixture(scope="module")
def tagger(tiny_student: Path) -> OpenNERPipeline:
    return pipeline("open-ner", model=str(tiny_student), max_new_tokens=16, window=32, types=["city", "person"])


ODD = st.sampled_from([*'ab. Ab!\n\t"é\u0301\u0302💙👩\u200d京。', "\u2028", "<|im_end|>", ". B", "  ", "U.S. "])


@settings(max_examples=300)
@given(text=st.lists(ODD, max_size=300).map("".join), limit=st.integers(1, 40))
@example(text="a" * 500, limit=16)
@example(text=" " * 500, limit=16)
@example(text=" " * 200 + "a" + " " * 200 + "b" + " " * 200, limit=1)
@example(text="e" + "\u0301" * 500, limit=16)
def test_windows_hold_all_of_the_text_in_order_and_within_the_limit(text: str, limit: int) -> None:
    windows = list(cut(text, words, limit))
    assert windows[0].before is None and windows[-1].after is None
    if len(windows) == 1 and windows[0] == (0, len(text), None, None):
        return
    covered = set()
    for last, window in itertools.pairwise(windows):
        assert last.start < window.start and last.end < window.end
        assert last.after == window.start or not text[last.after : window.start].strip()
        assert not text[last.end : window.start].strip()
        assert window.before is not None and not text[last.end : window.before].strip()
    for window in windows:
        covered.update(range(window.start, window.end))
        assert words([text[window.start : window.end]])[0] <= limit
    assert not "".join(text[i] for i in range(len(text)) if i not in covered).strip()


def test_a_text_within_the_limit_is_one_window_as_it_is() -> None:
    text = "  Rome. Paris. "
    assert list(cut(text, words, 5)) == [Window(0, len(text))]
    assert len(list(cut(text, words, 3))) > 1
    assert list(cut("", words, 4)) == [Window(0, 0)]


def test_windows_end_with_sentences_and_begin_with_them_and_overlap() -> None:
    text = " ".join(f"Number {i} is here, said Dr. J. Smith of the U.S. Navy." for i in range(100))
    windows = list(cut(text, words, 64))
    for part in parts(text, windows):
        assert part.startswith("Number") and part.endswith("Navy.")
        assert 32 <= words([part])[0] <= 64
    for last, window in itertools.pairwise(windows):
        assert 64 // 8 <= words([text[window.start : last.end]])[0] <= 64 // 4


def test_without_sentences_it_is_cut_between_words() -> None:
    text = "word and another " * 200
    for part in parts(text, list(cut(text, words, 40))):
        assert set(part.split()) <= {"word", "and", "another"}


@pytest.mark.parametrize("unit", ["a", "京", "é\u0301\u0302", "👩\u200d👩", "👍🏽", "a\u0300" * 3])
def test_a_word_without_end_is_cut_between_characters_as_seen(unit: str) -> None:
    text = unit * 3000
    windows = list(cut(text, words, 64))
    assert len(windows) > 10
    for part in parts(text, windows):
        assert part[0] == unit[0]
        assert part == text[: len(part)]  # begins and ends with a unit


@pytest.mark.parametrize("text", ["x" * 400_000, "京。" * 200_000, "! " * 200_000, "e" + "\u0301" * 400_000])
def test_work_grows_with_the_text_and_no_faster(text: str) -> None:
    def characters_counted(length: int) -> int:
        counted = 0

        def count(texts: Sequence[str]) -> list[int]:
            nonlocal counted
            counted += sum(map(len, texts))
            return words(texts)

        for _ in cut(text[:length], count, 256):
            pass
        return counted

    assert characters_counted(400_000) < 11 * characters_counted(40_000)


def test_windows_are_cut_as_they_are_asked_for() -> None:
    counted: list[int] = []

    def count(texts: Sequence[str]) -> list[int]:
        counted.append(sum(map(len, texts)))
        return words(texts)

    next(cut(PROSE * 10_000, count, 64))
    assert sum(counted) < 20_000


def entity(start: int, end: int, score: float | None = 0.5, group: str = "city") -> dict[str, Any]:
    return {"entity_group": group, "word": "w" * (end - start), "start": start, "end": end, "score": score}


def test_what_two_windows_found_counts_once_with_the_higher_score() -> None:
    left, right = Window(0, 100, after=60), Window(60, 160, before=100)
    found = [(left, [entity(70, 75, 0.3), entity(70, 75, 0.6, "person")]), (right, [entity(10, 15, 0.8)])]
    assert merge(found) == [entity(70, 75, 0.8), entity(70, 75, 0.6, "person")]
    assert merge([(left, [entity(70, 75, None)]), (right, [entity(10, 15, None)])]) == [entity(70, 75, None)]


def test_a_span_an_edge_cuts_comes_from_the_window_that_holds_it_whole() -> None:
    left, right = Window(0, 100, after=60), Window(60, 160, before=100)
    assert merge([(left, [entity(92, 100)]), (right, [entity(32, 45)])]) == [entity(92, 105)]
    assert merge([(left, [entity(50, 70)]), (right, [entity(0, 10)])]) == [entity(50, 70)]
    assert merge([(left, [entity(0, 100)]), (right, [entity(0, 100)])]) == [entity(0, 100), entity(60, 160)]
    assert merge([(Window(0, 50), [entity(45, 50), entity(0, 5)])]) == [entity(45, 50), entity(0, 5)]


def test_a_text_within_the_window_is_answered_as_before(tagger: OpenNERPipeline) -> None:
    text = "Marie Curie lived in Paris."
    assert tagger.count([text])[0] <= 32
    [answers] = tagger.decoder.answer([Request(text, ["city", "person"])], max_new_tokens=16)
    result = tagger(text, return_raw=True)
    assert result["raw"] == dict(zip(["city", "person"], [answer.text for answer in answers], strict=True))
    assert set(result) == {"entities", "raw"}
    for entities in (tagger(text, window=2000), tagger([text, PROSE * 5])[0]):
        assert [(span["start"], span["end"]) for span in entities] == [
            (span["start"], span["end"]) for span in result["entities"]
        ]


def test_the_result_of_a_long_text_is_that_of_its_parts(tuned_student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of types that do not compete: with `flat`, a span of one window can displace that of another."""
    options: dict[str, Any] = {"max_new_tokens": 16, "window": 32, "types": ["city", "person"], "overlaps": "all"}
    tagger = pipeline("open-ner", model=str(tuned_student), **options)
    monkeypatch.setattr(open_ner_pipeline, "QUERIES_AT_A_TIME", 40)
    text = "\n\n".join(f"{number}. {PROSE}" for number in range(12))
    result = tagger(text, return_raw=True)
    windows = list(cut(text, tagger.count, 32))
    assert len(windows) > 40  # several calls of the decoder
    assert result["windows"] == [(window.start, window.end) for window in windows]
    assert max(tagger.count(parts(text, windows))) <= 32
    alone = [tagger(part, return_raw=True) for part in parts(text, windows)]
    assert result["raw"] == {name: [one["raw"][name] for one in alone] for name in ("city", "person")}
    expected = {
        (window.start + span["start"], window.start + span["end"], span["entity_group"])
        for window, one in zip(windows, alone, strict=True)
        for span in one["entities"]
        if window.gives(window.start + span["start"], window.start + span["end"])
    }
    assert expected
    assert {(span["start"], span["end"], span["entity_group"]) for span in result["entities"]} == expected
    assert all(text[span["start"] : span["end"]] == span["word"] for span in result["entities"])
    order = [(span["start"], -span["end"]) for span in result["entities"]]
    assert order == sorted(order)


def scripted(tagger: OpenNERPipeline, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A stand-in for the decoder that finds every "Rome"; returns a list that grows with the size of each call."""
    sizes: list[int] = []
    monkeypatch.setattr(open_ner_pipeline, "QUERIES_AT_A_TIME", 32)

    def answer(requests: list[Request], **options: Any) -> list[list[Answer]]:
        sizes.append(len(requests))
        return [[Answer('["Rome"]', [5], [-0.1], [8], True) for _ in request.types] for request in requests]

    monkeypatch.setattr(tagger.decoder, "answer", answer)
    return sizes


def test_every_mention_of_a_long_text_is_found_once(tagger: OpenNERPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = scripted(tagger, monkeypatch)
    text = "".join(f"All roads lead to Rome, it is said {i} times.{' ' * (i % 3)}\n" for i in range(2000))
    starts = [span["start"] for span in tagger(text, types=["city"])]
    assert starts == [i for i in range(len(text)) if text.startswith("Rome", i)]
    assert len(sizes) > 10 and max(sizes) == 32


def test_texts_of_one_call_share_the_decoder_and_keep_their_order(
    tagger: OpenNERPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = scripted(tagger, monkeypatch)
    texts = ["Rome", "Rome was not built in a day. " * 50, "", " \n ", "京" * 500, "Rome"]
    results = tagger(texts, types=["city"])
    assert [len(spans) for spans in results] == [1, 50, 0, 0, 0, 1]
    assert len(sizes) < 6
    assert [len(spans) for spans in tagger((text for text in texts), types=["city"], batch_size=1)] == [
        len(spans) for spans in results
    ]


def test_long_texts_of_a_stream_are_answered_as_they_are_consumed(
    tagger: OpenNERPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = scripted(tagger, monkeypatch)
    results = tagger((text for text in itertools.repeat("Rome. " * 2000)), types=["city"], batch_size=1)
    assert len(next(results)) == 2000
    assert sum(sizes) * 16 < 3 * 2000


@pytest.mark.parametrize("text", ["word " * 3000, "x" * 20_000, "<|im_end|>" * 1000, "京" * 5000])
def test_windows_never_exceed_the_positions_of_the_model(
    tagger: OpenNERPipeline, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = 0

    def answer(requests: list[Request], **options: Any) -> list[list[Answer]]:
        nonlocal longest
        for request in requests:
            longest = max(longest, len(tagger.decoder.encoder.encode(request.text, request.types, request.dataset)))
        return [[Answer()] * len(request.types) for request in requests]

    monkeypatch.setattr(tagger.decoder, "answer", answer)
    types = {"city": "a town " * 100, "person": "someone"}
    assert tagger(text, types=types, window=100_000, max_new_tokens=100, dataset="MIT Movie") == []
    assert MAX_POSITIONS * 0.8 < longest + 100 <= MAX_POSITIONS


@pytest.mark.parametrize(("positions", "least", "most"), [(None, 300, 300), (2048, 300, 300), (512, 1, 255)])
def test_a_model_without_a_bound_has_the_window_alone(
    tagger: OpenNERPipeline, monkeypatch: pytest.MonkeyPatch, positions: int | None, least: int, most: int
) -> None:
    monkeypatch.setattr(Decoder, "positions", positions)
    assert least <= fitting_window(300, tagger.decoder, ["city"], None, 256) <= most


@pytest.mark.parametrize("window", [0, -1])
def test_a_window_of_nothing_is_refused(tagger: OpenNERPipeline, window: int) -> None:
    with pytest.raises(ValueError, match="window"):
        tagger("Rome", window=window)


def test_a_surrogate_is_refused_by_its_place_in_the_whole_text(tagger: OpenNERPipeline) -> None:
    with pytest.raises(ValueError, match="character 5000 .* surrogate"):
        tagger("Rome " * 1000 + "\udc80" + "Rome " * 1000)


def test_questions_that_leave_no_room_are_refused_with_the_numbers(tagger: OpenNERPipeline) -> None:
    with pytest.raises(ValueError, match="2048 positions"):
        tagger("Rome " * 1000, types={"city": "a town " * 1000})
