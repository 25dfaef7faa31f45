"""The scorers: every rule and defect of the published one, the strict one, and both through `evaluate.load`."""

import doctest
import gzip
import json
import random
import re
from pathlib import Path

import evaluate
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics import f1_score
from seqeval.scheme import IOB2

from hub.records import SCORERS
from metrics.entity_f1.entity_f1 import (
    CONFIGS,
    Counts,
    f1_official,
    f1_strict,
    official_counts,
    overlap_counts,
    strict_counts,
)

ROOT = Path(__file__).parents[1]
CITY = {"start": 0, "end": 5, "type": "city"}

entities = st.fixed_dictionaries(
    {"start": st.integers(0, 9), "end": st.integers(1, 9), "type": st.sampled_from(["city", "person"])}
)
passages = st.lists(entities, max_size=6)
# Text that often looks like a list, so that the parser is reached and not only its first character.
replies = st.one_of(
    st.text(),
    st.text(alphabet='["],C a\\u0{}\n', max_size=30),
    st.lists(st.one_of(st.text(), st.integers(), st.lists(st.text(), max_size=2)), max_size=4).map(json.dumps),
)


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Load the metric from the repository root, as a user does, with the cache in a temporary folder."""
    monkeypatch.chdir(ROOT)
    return lambda *config: evaluate.load("metrics/entity_f1", *config, cache_dir=str(tmp_path))


# --- official: what counts as a list, seen through n_pred ------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "n_pred"),
    [
        ("[]", 0),
        ("", 0),
        ('["Paris", "Rome"]', 2),
        ('  \n["Paris"]\n ', 1),  # stripped
        ('["Paris",\t"Rome"]', 2),
        ('["Paris"] and nothing else', 1),  # what follows the first `]` is not read
        ('["Paris"]["Rome"]', 1),
        ('[\n  "Paris"\n]', 0),  # pretty-printed
        ('["Paris",\n"Rome"]', 0),
        ('["Paris",\r"Rome"]', 2),  # a carriage return is not a newline for the pattern, and is white space in JSON
        ("['Paris']", 0),  # single quotes
        ('Answer: ["Paris"]', 0),  # prefixed
        ('```json\n["Paris"]\n```', 0),
        ('["Paris", "Ro', 0),  # truncated
        ('["Paris", "Rome"', 0),
        ('["Paris",]', 0),
        ("[Paris]", 0),
        ('"Paris"', 0),
        ('{"a": ["Paris"]}', 0),
        ('["Paris", "see [1] there"]', 0),  # `]` inside a mention
        ('["a]"]', 0),
        ('["Paris", "see [1 there"]', 2),  # an opening bracket does no harm
        (r'["Paris", "\u005d"]', 2),  # nor does an escaped closing one, which then normalizes to ""
        (r'["\ud800"]', 1),  # half a surrogate pair is still a string
        ('["Paris", 3]', 0),  # one item that is not a string empties the list
        ('["Paris", null]', 0),
        ('["Paris", true]', 0),
        ('["Paris", NaN]', 0),
        ('["Paris", {"name": "Rome"}]', 0),
        ('[["Paris", "city"]]', 0),  # a list inside the list: its `]` ends the match before the JSON does
        ('["Rome", ["Paris", "city"]]', 0),
        ("[" * 100_000 + "]", 0),  # deeper than JSON can recurse
        ("[" + "9" * 5_000 + "]", 0),  # longer than an integer may be
    ],
)
def test_official_reads_a_list(reply, n_pred):
    assert official_counts(reply, "[]") == Counts(0, n_pred, 0)


def test_official_strips_the_prediction_alone():
    assert official_counts(' ["Paris"]', ' ["Paris"]') == Counts(0, 1, 0)


def test_official_gold_goes_through_the_same_parser():
    with_bracket = '["Paris", "see [1] there"]'
    assert official_counts(with_bracket, with_bracket) == Counts(0, 0, 0)
    assert official_counts('["Paris"]', with_bracket) == Counts(0, 1, 0)
    assert official_counts('["Paris"]', '[\n"Paris"\n]') == Counts(0, 1, 0)


# --- official: which mentions are equal ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        ("Paris", "paris", True),
        ("C++", "C#", True),
        ("U.S.", "us", True),
        ("The Beatles", "beatles", True),
        ("Bank of the West", "bank  of west", True),
        ("an apple", "a apple", True),
        ("  New \t York ", "new york", True),
        ("New\u00a0York", "new york", True),
        # the order: punctuation goes first, so that it can make an article or hide one
        ("t.h.e Beatles", "beatles", True),
        ("the-Beatles", "beatles", False),
        ("the-Beatles", "thebeatles", True),
        ("A. Smith", "smith", True),
        ("New-York", "new york", False),
        ("Theatre", "atre", False),  # whole words only
        ("der Spiegel", "spiegel", False),  # English articles only
        ("l’Oréal", "loréal", False),  # ASCII punctuation only
        ("Zürich", "Zurich", False),
        ("!?", "", True),
        ("The", "...", True),
        ("New York", "York", False),  # no credit for a part
    ],
)
def test_official_normalizes(left, right, equal):
    assert official_counts(json.dumps([left]), json.dumps([right])) == Counts(int(equal), 1, 1)


def test_official_counts_an_item_of_which_nothing_is_left():
    assert official_counts('["the"]', "[]") == Counts(0, 1, 0)
    assert official_counts('["", "Paris"]', '["?!", "Paris"]') == Counts(2, 2, 2)


def test_official_collapses_repeats_after_normalizing():
    assert official_counts('["Paris", "Paris", "the paris!"]', '["Paris"]') == Counts(1, 1, 1)
    assert official_counts('["C++", "C#", "C"]', '["C++", "Java"]') == Counts(1, 1, 2)
    assert official_counts('["the", "a", ""]', "[]") == Counts(0, 1, 0)


def test_official_ignores_the_order_of_the_list():
    assert official_counts('["Rome", "Paris"]', '["Paris", "Rome"]') == Counts(2, 2, 2)


def test_official_matches_inside_one_query_only():
    queries = [('["Paris"]', '["Rome"]'), ('["Rome"]', '["Paris"]')]
    assert sum((official_counts(*query) for query in queries), Counts()) == Counts(0, 2, 2)


# --- official: the ratios --------------------------------------------------------------------------------------------


def test_official_ratios_are_those_of_the_paper():
    scores = f1_official(Counts(1, 2, 3))
    precision, recall = 1 / (2 + 1e-10), 1 / (3 + 1e-10)
    assert scores["precision"] == precision
    assert scores["recall"] == recall
    assert scores["f1"] == 2 * precision * recall / (precision + recall + 1e-10)
    assert (scores["tp"], scores["n_pred"], scores["n_gold"]) == (1, 2, 3)


@pytest.mark.parametrize("n", [1, 10, 10_000, 10_000_000, 10**12])
def test_official_f1_is_never_one(n):
    assert 0.9999999 < f1_official(Counts(n, n, n))["f1"] < 1


@pytest.mark.parametrize("score", [f1_official, f1_strict])
@pytest.mark.parametrize("counts", [Counts(), Counts(0, 3, 0), Counts(0, 0, 3), Counts(0, 3, 3)])
def test_nothing_right_gives_zero(score, counts):
    assert [score(counts)[name] for name in ("precision", "recall", "f1")] == [0.0, 0.0, 0.0]


# --- strict ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prediction", "reference", "counts"),
    [
        ([], [], Counts(0, 0, 0)),
        ([CITY], [CITY], Counts(1, 1, 1)),
        ([CITY, CITY], [CITY], Counts(1, 1, 1)),  # repeats count once
        ([CITY], [], Counts(0, 1, 0)),
        ([], [CITY], Counts(0, 0, 1)),
        ([{**CITY, "end": 4}], [CITY], Counts(0, 1, 1)),
        ([{**CITY, "start": 1}], [CITY], Counts(0, 1, 1)),
        ([{**CITY, "type": "City"}], [CITY], Counts(0, 1, 1)),  # a type is compared as it is written
        ([CITY, {**CITY, "type": "place"}], [CITY], Counts(1, 2, 1)),  # one span may carry two types
        ([CITY, {**CITY, "end": 9}], [CITY, {**CITY, "end": 9}], Counts(2, 2, 2)),  # and spans may nest
        ([{**CITY, "text": "Paris"}], [CITY], Counts(1, 1, 1)),
    ],
)
def test_strict_counts_compare_spans_and_types(prediction, reference, counts):
    assert strict_counts(prediction, reference) == counts


def test_strict_ratios_are_plain_fractions():
    scores = f1_strict(Counts(1, 2, 4))
    assert scores == {"precision": 0.5, "recall": 0.25, "f1": 1 / 3, "tp": 1, "n_pred": 2, "n_gold": 4}
    assert f1_strict(Counts(3, 3, 3))["f1"] == 1.0


def test_counts_add_up():
    assert Counts(1, 2, 3) + Counts(10, 20, 30) == Counts(11, 22, 33)
    assert sum([Counts(1, 2, 3)] * 3, Counts()) == Counts(3, 6, 9)
    assert sum([], Counts()) == Counts(0, 0, 0)


# --- properties ------------------------------------------------------------------------------------------------------


@given(passages.filter(bool))
def test_strict_gold_against_itself_is_perfect(passage):
    scores = f1_strict(strict_counts(passage, list(reversed(passage))))
    assert scores["precision"] == scores["recall"] == scores["f1"] == 1.0


@given(passages, passages)
def test_strict_counts_are_symmetric(left, right):
    there, back = strict_counts(left, right), strict_counts(right, left)
    assert there == Counts(back.tp, back.n_gold, back.n_pred)
    assert there.tp <= min(there.n_pred, there.n_gold)


@given(replies, replies)
def test_official_never_raises_and_is_symmetric(left, right):
    left, right = left.strip(), right.strip()
    there, back = official_counts(left, right), official_counts(right, left)
    assert there == Counts(back.tp, back.n_gold, back.n_pred)
    assert 0 <= f1_official(there)["f1"] < 1


@given(st.lists(st.text(st.characters(blacklist_characters="]")), max_size=5))
def test_official_reads_back_what_the_answers_look_like(strings):
    counts = official_counts(*[json.dumps(strings, ensure_ascii=False)] * 2)
    assert counts.tp == counts.n_pred == counts.n_gold <= len(strings)
    assert (counts.tp > 0) == (len(strings) > 0)


# --- agreement with seqeval on flat token tags -----------------------------------------------------------------------


def random_tags(rng: random.Random, length: int) -> list[str]:
    """Valid IOB2 tags: an `I-` that continues nothing becomes a `B-`."""
    tags = []
    for _ in range(length):
        tag = rng.choice(["O", "O", "B-city", "I-city", "B-person", "I-person"])
        continues = tags and tags[-1][2:] == tag[2:]
        tags.append("B" + tag[1:] if tag[0] == "I" and not continues else tag)
    return tags


def spans_of(tags: list[str], tokens: list[str]) -> list[dict]:
    """The entities of IOB2 tags as character spans of the tokens joined by a space."""
    spans, start = [], 0
    for tag, token in zip(tags, tokens, strict=True):
        end = start + len(token)
        if tag[0] == "B":
            spans.append({"start": start, "end": end, "type": tag[2:]})
        elif tag[0] == "I":
            spans[-1]["end"] = end
        start = end + 1
    return spans


@pytest.mark.parametrize("seed", range(25))
def test_strict_agrees_with_seqeval(seed):
    rng = random.Random(seed)
    gold, predicted, counts = [], [], []
    for _ in range(40):
        tokens = ["x" * rng.randint(1, 8) for _ in range(rng.randint(1, 15))]
        gold.append(random_tags(rng, len(tokens)))
        predicted.append(gold[-1] if rng.random() < seed / 25 else random_tags(rng, len(tokens)))
        counts.append(strict_counts(spans_of(predicted[-1], tokens), spans_of(gold[-1], tokens)))
    expected = f1_score(gold, predicted, mode="strict", scheme=IOB2, average="micro")
    assert f1_strict(sum(counts, Counts()))["f1"] == pytest.approx(expected, abs=1e-12)


# --- the partial schemes, and their agreement with nervaluate ------------------------------------------------------


@pytest.mark.parametrize(
    ("prediction", "partial", "type_only", "boundary_only"),
    [
        ([CITY], 1, 1, 1),
        ([{**CITY, "type": "person"}], 1, 0, 1),
        ([{**CITY, "end": 3}], 0.5, 1, 0),
        ([{**CITY, "end": 3, "type": "person"}], 0.5, 0, 0),
        ([{**CITY, "start": 5, "end": 9}], 0, 0, 0),  # the end is exclusive: they only touch
        ([CITY, {**CITY, "type": "person"}], 1, 1, 1),  # the gold span is found once
        ([{**CITY, "end": 3}, {**CITY, "start": 3}], 0.5, 1, 0),
        ([{**CITY, "end": 3}, CITY], 1, 1, 1),  # and by the better of the two
        ([], 0, 0, 0),
    ],
)
def test_the_partial_schemes_count_overlaps_types_and_boundaries(prediction, partial, type_only, boundary_only):
    found = {scheme: counts.tp for scheme, counts in overlap_counts(prediction, [CITY]).items()}
    assert found == {"partial": partial, "type-only": type_only, "boundary-only": boundary_only}
    assert all(c == Counts(c.tp, len(prediction), 1) for c in overlap_counts(prediction, [CITY]).values())


@given(passages, passages)
def test_the_schemes_are_ordered_and_bounded(left, right):
    left, right = ([e for e in part if e["start"] < e["end"]] for part in (left, right))
    strict, found = strict_counts(left, right), overlap_counts(left, right)
    assert strict.tp <= found["boundary-only"].tp <= found["partial"].tp <= min(strict.n_pred, strict.n_gold)
    assert strict.tp <= found["type-only"].tp
    mirrored = overlap_counts(right, left)
    assert {scheme: counts.tp >= strict.tp for scheme, counts in mirrored.items()} == dict.fromkeys(found, True)


def chunks(rng: random.Random, count: int) -> list[dict]:
    """Entities that lie apart, in places of ten characters each."""
    kinds = ("city", "person")
    places = sorted(rng.sample(range(20), count))
    return [{"start": 10 * n, "end": 10 * n + rng.randint(2, 6), "type": rng.choice(kinds)} for n in places]


@pytest.mark.parametrize("seed", range(25))
def test_the_schemes_agree_with_nervaluate(seed):
    """If predictions and gold entities overlap one to one; otherwise our rule differs."""
    from nervaluate import Evaluator

    rng = random.Random(seed)
    gold = [chunks(rng, rng.randint(0, 8)) for _ in range(30)]
    predicted = [
        [{**e, "start": e["start"] + rng.randint(0, 1)} for e in chunks(rng, 6)] if rng.random() < 0.5 else list(own)
        for own in gold
    ]
    inclusive = [  # nervaluate's `end` belongs to the entity
        [[{"label": e["type"], "start": e["start"], "end": e["end"] - 1} for e in own] for own in part]
        for part in (gold, predicted)
    ]
    theirs = Evaluator(*inclusive, tags=["city", "person"], loader="dict").evaluate()["overall"]
    ours = [overlap_counts(p, g) for p, g in zip(predicted, gold, strict=True)]
    for scheme, name in (("partial", "partial"), ("type-only", "ent_type"), ("boundary-only", "exact")):
        scores = f1_strict(sum((counts[scheme] for counts in ours), Counts()))
        assert scores["precision"] == pytest.approx(theirs[name].precision), scheme
        assert scores["recall"] == pytest.approx(theirs[name].recall), scheme
        assert scores["f1"] == pytest.approx(theirs[name].f1), scheme


# --- official against the published rules, on the published files ---------------------------------------------------


def published_rules(prediction: str, reference: str) -> tuple[int, int, int]:
    """The authors' scorer, rewritten step by step as an oracle: hits, predicted, gold."""

    def mentions(reply: str) -> list[str]:
        end = reply.find("]")
        if not reply.startswith("[") or end < 0 or "\n" in reply[:end]:
            return []
        try:
            items = json.loads(reply[: end + 1])
        except ValueError:
            return []
        kept = []
        for item in items:
            if not isinstance(item, str):
                return []
            letters = [c for c in item.lower() if c not in "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"]
            words = re.split(r"\b(?:a|an|the)\b", "".join(letters))
            mention = " ".join(" ".join(words).split())
            if mention not in kept:
                kept.append(mention)
        return kept

    predicted, gold = mentions(prediction.strip()), mentions(reference)
    return sum(mention in gold for mention in predicted), len(predicted), len(gold)


def noisy(rng: random.Random, gold: str) -> str:
    """A reply that a model might give instead of the gold, or that triggers one of the scorer's defects."""
    strings = json.loads(gold)
    rng.shuffle(strings)
    return rng.choice([
        lambda: json.dumps(strings),
        lambda: json.dumps(strings, indent=1),
        lambda: json.dumps(strings + strings[:1]),
        lambda: json.dumps([s.upper() for s in strings]),
        lambda: json.dumps(["The " + s + "." for s in strings]),
        lambda: json.dumps([*strings, "C++ [3]"]),
        lambda: json.dumps([*strings, 7]),
        lambda: json.dumps([strings]),
        lambda: json.dumps([*strings, "-", "the"]),
        lambda: "Answer: " + json.dumps(strings),
        lambda: str(strings),
        lambda: json.dumps(strings)[: rng.randint(0, 12)],
        lambda: json.dumps(strings) + " and " + json.dumps(["more"]),
        lambda: " \n" + json.dumps(strings, ensure_ascii=False) + "\n",
        lambda: "[]",
        lambda: "",
    ])()  # fmt: skip


@given(replies, replies)
def test_official_follows_the_published_rules(prediction, reference):
    assert official_counts(prediction, reference) == Counts(*published_rules(prediction, reference))


FILES = sorted((ROOT.parent / "shared" / "data" / "zero_shot" / "official_json").glob("*.json.gz"))


@pytest.mark.skipif(not FILES, reason="the authors' test files are not on this machine")
@pytest.mark.parametrize("path", FILES or [Path("absent")], ids=lambda path: path.name.split(".")[0])
def test_official_equals_the_published_rules_on_the_published_files(path):
    with gzip.open(path, "rt", encoding="utf-8") as file:
        golds = [element["conversations"][-1]["value"] for element in json.load(file)]
    rng = random.Random(0)
    shuffled = rng.sample(golds, len(golds))
    for predictions in (golds, shuffled, [noisy(rng, gold) for gold in golds]):
        ours = sum(map(official_counts, predictions, golds), Counts())
        theirs = [sum(column) for column in zip(*map(published_rules, predictions, golds), strict=True)]
        assert ours == Counts(*theirs)
    # gold against gold is as perfect as the 1e-10 in the ratios lets it be
    assert 1 - 1e-9 < f1_official(sum(map(official_counts, golds, golds), Counts()))["f1"] < 1


# --- through evaluate ------------------------------------------------------------------------------------------------


def test_load_gives_strict_by_default(load):
    wrong = {"start": 7, "end": 9, "type": "city"}
    predictions, references = [[CITY, wrong], [], []], [[CITY], [], [CITY]]
    scores = {"precision": 0.5, "recall": 0.5, "f1": 0.5, "tp": 1, "n_pred": 2, "n_gold": 2}
    assert load().compute(predictions=predictions, references=references) == scores
    assert load("strict").compute(predictions=predictions, references=references) == scores


@pytest.mark.parametrize("empty", [[], [[]], [[], []]])
def test_strict_metric_takes_passages_without_entities(load, empty):
    assert load().compute(predictions=empty, references=empty) == f1_strict(Counts())


def test_strict_metric_takes_an_empty_passage_first(load):
    metric = load()
    metric.add(prediction=[], reference=[CITY])
    metric.add_batch(predictions=[[CITY, CITY]], references=[[]])
    assert metric.compute() == f1_strict(Counts(0, 1, 1))


def test_the_official_config_scores_replies(load):
    predictions = ['["the Paris"]', '["C#", "C++"]', "['Rome']", "[]"]
    references = ['["Paris"]', '["C++"]', '["Rome"]', "[]"]
    scores = load("official").compute(predictions=predictions, references=references)
    assert scores == f1_official(Counts(2, 2, 3))
    assert load("official").compute(predictions=["[]"], references=["[]"]) == f1_official(Counts())


@pytest.mark.parametrize(("scheme", "tp"), [("partial", 1.5), ("type-only", 2), ("boundary-only", 1)])
def test_load_the_partial_schemes(load, scheme, tp):
    predictions, references = [[CITY], [{**CITY, "end": 3}]], [[CITY], [CITY]]
    scores = load(scheme).compute(predictions=predictions, references=references)
    assert (scores["tp"], scores["n_pred"], scores["n_gold"], scores["f1"]) == (tp, 2, 2, tp / 2)


def test_an_unknown_config_is_refused_with_the_known_ones(load):
    with pytest.raises(ValueError, match="no configuration 'loose': choose one of 'strict', 'official'"):
        load("loose")


def test_the_example_of_the_documentation_runs(load):
    example = doctest.DocTestParser().get_doctest(load().inputs_description, {}, "entity_f1", None, 0)
    assert doctest.DocTestRunner().run(example) == doctest.TestResults(failed=0, attempted=8)


def test_the_results_hold_every_configuration() -> None:
    assert set(SCORERS) == set(CONFIGS)
