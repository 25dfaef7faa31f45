"""Ask a model at an OpenAI-compatible endpoint with the teacher's client: paced, cost-capped, never paid twice.

Each address has a journal in the model's results folder; suites and protocols that ask the same questions share its
replies.
"""

import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

from dataset_builder.config import TeacherConfig
from dataset_builder.teacher.client import TeacherClient
from dataset_builder.teacher.journal import Journal
from dataset_builder.teacher.requests import Question, address, request_key, request_parameters
from hub.records import ModelRecord
from open_ner.answers import Answer
from open_ner.conversation import build_query
from open_ner.long_texts import Window
from open_ner.selection import Selection
from open_ner.tools.errors import UserError

from .baseline import BaselineConfig, baseline_lines, render, requests_of
from .predict import Todo, folder_name
from .records import PredictionLine
from .student import passage_lines
from .suite import SuiteConfig

# options of TeacherConfig that an evaluation uses; the others are about what the dataset builder asks and keeps
USED = {
    "base_url", "api_key_env", "temperature", "parameters", "concurrency", "requests_per_minute", "tokens_per_minute",
    "max_retries", "timeout", "price_input", "price_output", "max_cost",
}  # fmt: skip
INSTEAD = {
    "model": "name it by --model",
    "max_answer_tokens": "give --max_new_tokens",
    "response_format": "only baselines with `reply: tuples` use it, ask other models by another command, without it",
}


class EndpointModel:
    """An `EvaluatedModel` at `teacher.base_url`, asked in the student's dialogue or with the prompts of a baseline.

    After `ask`, `record["served_as"]` holds the names the endpoint gives the model. `faults` counts replies that did
    not end normally (truncated, filtered), questions without a reply, and answers about types that were not asked.

    Args:
        name: the model's name at the endpoint, if there is no baseline.
        teacher: the options of the endpoint.
        baseline: prompts and form of the replies; default: the student's dialogue.
        anew: ask questions again that the journal already answers, and pay for them again.

    Raises:
        UserError: `teacher` sets an option that an evaluation does not use.
    """

    in_process = False

    def __init__(
        self, name: str, teacher: TeacherConfig, baseline: BaselineConfig | None = None, anew: bool = False
    ) -> None:
        refuse_unused(teacher, baseline)
        self.name, self.baseline, self.faults = baseline.name if baseline else name, baseline, Counter[str]()
        self.teacher, self.anew = replace(teacher, model=baseline.model if baseline else name), anew
        schema = {"response_format": "json_schema"} if teacher.response_format == "json_schema" else {}
        self.record: ModelRecord = {
            "id": baseline.model if baseline else name, "revision": None, "kind": "endpoint",
            "base_url": address(self.teacher), "baseline": baseline.name if baseline else None,
            "prompt": [baseline.system, baseline.user, baseline.per, baseline.reply] if baseline else None,
            "parameters": {"temperature": teacher.temperature, **schema, **teacher.parameters},
        }  # fmt: skip

    def ask(self, todo: Todo, suite: SuiteConfig) -> Iterator[list[PredictionLine]]:
        """Yield the lines of each passage, after all questions are asked; see `EvaluatedModel`."""
        with Journal(self._journal(suite)) as journal:
            client, questions = self._open(todo, suite, journal)
            if (cap := suite.endpoint.max_cost) != self.teacher.max_cost:
                print(f"{self.name}: of --max_cost ${self.teacher.max_cost:g}, ${cap:g} are left")
            client.fetch(questions, len(questions))
            records = [journal.get(question.key) for question in questions]
        failed, missing = client.counts.failed, client.counts.unanswered.total() - client.counts.failed
        if missing:
            raise UserError(f"{self.name}: {missing} questions are open: raise --max_cost and run again to go on")
        if suite.endpoint.max_cost is not None:  # all models of a command share the cap
            spent = client.counts.cost_before + client.counts.cost
            suite.endpoint = replace(suite.endpoint, max_cost=max(0.0, suite.endpoint.max_cost - spent))
        if failed:
            print(f"{self.name}: {failed} questions without a reply count as unparsed ({client.counts.last_fault})")
        served = self.record["served_as"] = sorted({record["model"] or self.name for record in records if record})
        if len(served) > 1:
            print(f"{self.name}: several models replied ({', '.join(served)}); --overwrite asks all questions again")
        replies = iter([(each["reply"], each["finish_reason"]) if each else ("", "no_answer") for each in records])
        selection = Selection(overlaps="all", occurrences=suite.occurrences)
        for benchmark, passage in todo:
            name, own = benchmark.config.name, [next(replies) for _ in requests_of(self.baseline, passage)]
            if self.baseline:
                yield baseline_lines(self.baseline, name, passage, own, self.faults, suite)
                continue
            self.faults.update(finish for _, finish in own if finish != "stop")
            window, answers = Window(0, len(passage.text)), [Answer(reply) for reply, _ in own]
            yield passage_lines(name, passage, [(window, answers)], selection)

    def plan(self, todo: Todo, suite: SuiteConfig) -> tuple[int, float]:
        """Return the number of requests that a run would send, and the most they can cost in dollars."""
        path = self._journal(suite)
        with (
            tempfile.TemporaryDirectory() as empty,  # a plan leaves no journal behind
            Journal(path if path.exists() else Path(empty) / path.name) as journal,
        ):
            client, questions = self._open(todo, suite, journal)
            return client.plan(questions)

    def _open(self, todo: Todo, suite: SuiteConfig, journal: Journal) -> tuple[TeacherClient, list[Question]]:
        """Return a client and the questions about all passages; with `anew`, the journal forgets their replies."""
        cap = suite.endpoint.max_cost
        config, questions = replace(self.teacher, max_answer_tokens=suite.max_new_tokens, max_cost=cap), []
        for _, passage in todo:
            for queries in requests_of(self.baseline, passage):
                if self.baseline:
                    messages = render(self.baseline, passage.text, [query.asked for query in queries])
                else:
                    messages = build_query(passage.text, queries[0].asked, passage.dataset)
                key = request_key(config.model or "", request_parameters(config), messages)
                questions.append(Question(key, self.name, passage.id, messages))
        client = TeacherClient(config, journal)
        if self.anew:
            journal.forget(question.key for question in questions)
            client.other_limits = []  # do not reuse replies that had another length limit either
        return client, questions

    def _journal(self, suite: SuiteConfig) -> Path:
        """Return the journal's path for this model and address: at another address a name may mean another model."""
        place = re.sub(r"[^\w.]+", "-", address(self.teacher).partition("://")[2]).strip("-").lower()
        return Path(suite.output_dir) / folder_name(self.name) / f"journal-{place}.jsonl"


def refuse_unused(teacher: TeacherConfig, baseline: BaselineConfig | None) -> None:
    """Raise UserError for an option of the endpoint that an evaluation does not use.

    `response_format` is used with a baseline that asks as the builder does, for entities with their types.
    """
    used = USED | ({"response_format"} if baseline and baseline.reply == "tuples" else set())
    for name in (field.name for field in fields(teacher) if field.name not in used):
        if getattr(teacher, name) != getattr(TeacherConfig(), name):
            hint = INSTEAD.get(name, "an evaluation does not use it, remove it")
            raise UserError(f"endpoint.{name} is for the dataset builder: {hint}")
