"""Models behind an endpoint, over real HTTP: the dialogue, a baseline's prompts, paid once, and rubbish counted."""

import json
from pathlib import Path
from typing import Any

import pytest

from dataset_builder.config import TeacherConfig
from fake_teacher import FakeTeacher, completion
from ner_sets.benchmarks import BenchmarkPassage, Query
from ner_sets.config import BenchmarkConfig
from open_ner.tools.errors import UserError
from zero_shot.baseline import BaselineConfig
from zero_shot.endpoint import EndpointModel
from zero_shot.predict import PredictionRun, finish, predict
from zero_shot.suite import Benchmark, SuiteConfig

TEXT = "Rome and Oslo are cities of Italy and Norway."
TYPES = {"city": [(0, 4), (9, 13)], "country": [(28, 33), (38, 44)], "river": []}


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")


def benchmark(*texts: str) -> Benchmark:
    passages = []
    for number, text in enumerate(texts or (TEXT,)):
        queries = [Query(name, json.dumps([text[a:b] for a, b in spans]), spans) for name, spans in TYPES.items()]
        passages.append(BenchmarkPassage(f"p{number}", text, queries))
    config = BenchmarkConfig(name="b", path="b.jsonl", format="offsets")
    return Benchmark(config, passages, len(passages), digest="d")


def suite(folder: Path, **endpoint: Any) -> SuiteConfig:
    return SuiteConfig(
        name="s", benchmarks=["b"], protocol="p", output_dir=str(folder), endpoint=TeacherConfig(**endpoint)
    )


def score(asker: EndpointModel, options: SuiteConfig, data: Benchmark | None = None) -> PredictionRun:
    return predict(asker, [data or benchmark()], options, Path(options.output_dir) / "m" / "s-p-free")


def baseline(**changes: Any) -> BaselineConfig:
    given = {"name": "mine", "model": "m", "user": "{{ text }}|{{ types | join(',') }}", "verified_in": "here"}
    return BaselineConfig(**{**given, **changes})


def in_the_dialogue(request: dict[str, Any]) -> str:
    asked = request["messages"][-1]["content"]
    return next(json.dumps([TEXT[a:b] for a, b in spans]) for name, spans in TYPES.items() if name in asked)


def test_the_dialogue_is_asked_type_by_type_and_paid_once(tmp_path: Path) -> None:
    with FakeTeacher(in_the_dialogue) as server:
        options = suite(tmp_path, base_url=server.base_url)
        run = score(EndpointModel("gpt", options.endpoint), options)
        assert len(server.requests) == 3
        assert [message["role"] for message in server.requests[0]["messages"]] == [
            "system", "user", "assistant", "user",
        ]  # fmt: skip
        assert server.requests[0]["max_tokens"] == options.max_new_tokens
        again = score(EndpointModel("gpt", options.endpoint), options)
        assert len(server.requests) == 3 and again.lines == run.lines
    assert [line["raw"] for line in run.lines] == ['["Rome", "Oslo"]', '["Italy", "Norway"]', "[]"]
    assert run.lines[0]["spans"] == [{"start": a, "end": b, "score": None} for a, b in TYPES["city"]]
    [journal] = [path.read_text() for path in (tmp_path / "gpt").glob("journal*.jsonl")]
    assert "sk-secret" not in journal and journal.count('"reply"') == 3


def test_another_suite_with_the_same_questions_pays_nothing(tmp_path: Path) -> None:
    with FakeTeacher(in_the_dialogue) as server:
        options = suite(tmp_path, base_url=server.base_url)
        score(EndpointModel("gpt", options.endpoint), options)
        twice = benchmark(TEXT, TEXT)
        run = predict(EndpointModel("gpt", options.endpoint), [twice], options, tmp_path / "other")
    assert len(server.requests) == 3 and len(run.lines) == 6


def test_rubbish_is_counted_and_scored_as_unread(tmp_path: Path) -> None:
    def answer(request: dict[str, Any]) -> Any:
        asked = request["messages"][-1]["content"]
        if "city" in asked:
            return {"body": completion('["Rome", "Os', request, finish_reason="length")}
        if "country" in asked:
            return {"status": 400, "body": {"error": {"code": "content_filter", "message": "no"}}}
        return "There are no rivers."

    with FakeTeacher(answer) as server:
        options = suite(tmp_path, base_url=server.base_url)
        asker = EndpointModel("gpt", options.endpoint)
        run = score(asker, options)
    assert [(line["parse_failure"], line["spans"]) for line in run.lines] == [(True, [])] * 3
    assert run.lines[2]["raw"] == "There are no rivers."
    assert asker.faults == {"length": 1, "content_filter": 1}


def test_one_question_that_fails_does_not_stop_the_others_and_is_tried_again(tmp_path: Path) -> None:
    broken = [True]

    def answer(request: dict[str, Any]) -> Any:
        if "river" in request["messages"][-1]["content"] and broken[0]:
            return {"status": 200, "raw": "<html>proxy</html>"}
        return in_the_dialogue(request)

    with FakeTeacher(answer) as server:
        options = suite(tmp_path, base_url=server.base_url, max_retries=0)
        asker = EndpointModel("gpt", options.endpoint)
        run = score(asker, options)
        assert asker.faults == {"no_answer": 1} and [line["parse_failure"] for line in run.lines] == [0, 0, 1]
        broken[0] = False
        run = score(EndpointModel("gpt", options.endpoint), options)
    assert [line["parse_failure"] for line in run.lines] == [0, 0, 0]


def test_an_endpoint_that_is_down_gives_a_one_line_error_and_nothing_is_lost(tmp_path: Path) -> None:
    options = suite(tmp_path, base_url="http://127.0.0.1:9/v1", max_retries=0)
    with pytest.raises(UserError, match="gave no usable answer"):
        score(EndpointModel("gpt", options.endpoint), options)


def test_the_cap_holds_and_a_plan_says_what_is_open(tmp_path: Path) -> None:
    with FakeTeacher(in_the_dialogue) as server:
        paid = {"base_url": server.base_url, "price_output": 1000.0, "concurrency": 1}
        options = suite(tmp_path, **paid, max_cost=0.258)  # a reply of 256 tokens may cost 0.256
        todo = [(benchmark(), passage) for passage in benchmark().passages]
        requests, most = EndpointModel("gpt", options.endpoint).plan(todo, options)
        assert requests == 3 and most == pytest.approx(3 * 0.256)
        with pytest.raises(UserError, match="--max_cost"):
            score(EndpointModel("gpt", options.endpoint), options)
        assert 1 <= len(server.requests) < 3
        asked = len(server.requests)
        assert EndpointModel("gpt", options.endpoint).plan(todo, options)[0] == 3 - asked
        richer = suite(tmp_path, **paid, max_cost=3.0)
        score(EndpointModel("gpt", richer.endpoint), richer)
    assert len(server.requests) == 3


def test_the_models_of_a_command_share_the_cap(tmp_path: Path) -> None:
    with FakeTeacher(in_the_dialogue) as server:
        paid = {"base_url": server.base_url, "price_output": 1000.0, "concurrency": 1}
        score(EndpointModel("gpt", (alone := suite(tmp_path / "alone", **paid)).endpoint), alone)
        [journal] = (tmp_path / "alone" / "gpt").glob("journal*.jsonl")
        cost = sum(json.loads(line).get("cost", 0.0) for line in journal.read_text().splitlines())
        options = suite(tmp_path, **paid, max_cost=cost + 0.257)  # a reply of 256 tokens may cost 0.256
        first, second = (EndpointModel(name, options.endpoint) for name in ("gpt", "other"))
        score(first, options)
        with pytest.raises(UserError, match="other: [12] questions are open: raise --max_cost"):
            score(second, options)


def test_a_teacher_annotates_everything_in_one_request(tmp_path: Path) -> None:
    reply = '[("Rome", "City"), ("Oslo", "city"), ("Italy", "country"), ("Norway", "kingdom")]'
    with FakeTeacher(lambda request: reply) as server:
        options = suite(tmp_path, base_url=server.base_url)
        asker = EndpointModel("x.yaml", options.endpoint, baseline(per="passage", reply="tuples"))
        run = score(asker, options)
    assert len(server.requests) == 1 and server.requests[0]["messages"][0]["content"] == f"{TEXT}|city,country,river"
    assert [line["raw"] for line in run.lines] == ['["Rome", "Oslo"]', '["Italy"]', "[]"]
    assert all(line["reply"] == reply for line in run.lines)
    assert asker.faults == {"type_not_asked": 1}
    assert asker.record["baseline"] == "mine" and asker.record["kind"] == "endpoint"


def test_an_address_is_told_without_its_secrets() -> None:
    teacher = TeacherConfig(base_url="https://user:pass@host:8000/v1?key=abc")
    assert EndpointModel("gpt", teacher).record["base_url"] == "https://host:8000/v1"
    assert EndpointModel("gpt", TeacherConfig()).record["base_url"] == "https://api.openai.com/v1"


def test_another_address_or_overwrite_asks_anew_and_keeps_what_is_there(tmp_path: Path) -> None:
    with FakeTeacher(in_the_dialogue) as first, FakeTeacher(lambda request: "[]") as second:
        one, two = (suite(tmp_path, base_url=server.base_url) for server in (first, second))
        run = score(EndpointModel("gpt", one.endpoint), one)
        finish(run.folder, {"run": run.identity, "seconds": 4.5, "hardware": "elsewhere"})
        other = score(EndpointModel("gpt", two.endpoint), two)
        assert (len(first.requests), len(second.requests)) == (3, 3)
        assert [line["raw"] for line in other.lines] == ["[]"] * 3 and other.folder != run.folder
        again = score(EndpointModel("gpt", one.endpoint), one)
        assert len(first.requests) == 3 and again.lines == run.lines and again.saved["hardware"] == "elsewhere"
        anew = EndpointModel("gpt", one.endpoint, anew=True)
        assert anew.plan([(benchmark(), passage) for passage in benchmark().passages], one)[0] == 3
        final = predict(anew, [benchmark()], one, tmp_path / "m" / "s-p-free", overwrite=True)
        assert len(first.requests) == 6 and final.lines == run.lines and not final.saved


@pytest.mark.parametrize("changed", [{"temperature": 0.7}, {"parameters": {"top_p": 0.5}}])
def test_other_parameters_of_the_requests_are_another_run(changed: dict[str, Any], tmp_path: Path) -> None:
    with FakeTeacher(in_the_dialogue) as server:
        one, two = (suite(tmp_path, base_url=server.base_url, **given) for given in ({}, changed))
        run = score(EndpointModel("gpt", one.endpoint), one)
        finish(run.folder, {"run": run.identity, "seconds": 4.5})
        other = score(EndpointModel("gpt", two.endpoint), two)
    assert other.folder != run.folder and other.identity != run.identity and len(server.requests) == 6


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ({"response_format": "json_schema"}, "only baselines with `reply: tuples` use it"),
        ({"max_answer_tokens": 99}, "give --max_new_tokens"),
        ({"types": ["city"]}, "endpoint.types is"),
        ({"model": "gpt"}, "name it by --model"),
        ({"batch": True}, "endpoint.batch is.*does not use it, remove it"),
        ({"recorded": "replies.jsonl"}, "endpoint.recorded is"),
    ],
)
def test_options_that_only_the_builder_uses_are_refused(option: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        EndpointModel("gpt", TeacherConfig(**option))


def test_a_baseline_that_asks_as_the_builder_may_ask_for_its_schema(tmp_path: Path) -> None:
    reply = json.dumps({"entities": [{"entity": "Rome", "type": "city"}]})
    with FakeTeacher(lambda request: reply) as server:
        options = suite(tmp_path, base_url=server.base_url, response_format="json_schema")
        run = score(EndpointModel("x.yaml", options.endpoint, baseline(per="passage", reply="tuples")), options)
    assert server.requests[0]["response_format"]["type"] == "json_schema"
    assert [line["raw"] for line in run.lines] == ['["Rome"]', "[]", "[]"]
