"""A model behind an OpenAI-compatible endpoint, asked through the teacher's client: paced, capped, never paid twice.

The journal of an address is in the model's results folder: all suites and protocols with the same questions share
the replies.
"""

import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from dataset_builder.teacher.client import TeacherClient, TeacherConfig
from dataset_builder.teacher.journal import Journal
from dataset_builder.teacher.requests import Question, address, request_key, request_parameters
from hub.records import ModelRecord
from open_ner.answers import Answer
from open_ner.conversation import build_query
from open_ner.tools.errors import UserError

from .baseline import BaselineConfig, read, render, requests_of, to_lines
from .predict import Todo, folder_name
from .records import PredictionLine
from .student import to_line
from .suite import SuiteConfig


class EndpointModel:
    """A model at `teacher.base_url`, asked in the dialogue or with the prompts of a baseline; `anew` pays again.

    After `ask`, `record["served_as"]` holds the names the endpoint gives the model. `replies` counts replies that did
    not end normally (truncated, filtered), questions without a reply, and answers about types that were not asked.
    """

    in_process = False

    def __init__(
        self, name: str, teacher: TeacherConfig, baseline: BaselineConfig | None = None, anew: bool = False
    ) -> None:
        if teacher.batch or teacher.recorded:
            raise UserError("endpoint.batch and endpoint.recorded are the builder's: an evaluation asks at once")
        self.name, self.baseline, self.replies = baseline.name if baseline else name, baseline, Counter[str]()
        model = baseline.model if baseline else name
        self.teacher, self.anew = replace(teacher, model=model), anew
        self.record: ModelRecord = {
            "id": model,
            "revision": None,
            "kind": "endpoint",
            "base_url": address(self.teacher),
            "baseline": baseline.name if baseline else None,
            "prompt": None if baseline is None else [baseline.system, baseline.user, baseline.per, baseline.reply],
        }

    def ask(self, todo: Todo, suite: SuiteConfig) -> Iterator[list[PredictionLine]]:
        """Yield the lines of each passage, after all questions are asked; see `EvaluatedModel`."""
        questions = self._questions(todo, suite)
        with Journal(self._journal(suite)) as journal:
            client = self._client(suite, journal, questions)
            client.fetch(questions, len(questions))
            records = [journal.get(question.key) for question in questions]
        failed, missing = client.counts.failed, client.counts.unanswered.total() - client.counts.failed
        if missing:
            raise UserError(f"{self.name}: {missing} questions are left: raise --max_cost and run again to go on")
        if failed:
            print(f"{self.name}: {failed} questions got no reply ({client.counts.last_fault}): they count as unread")
        served = self.record["served_as"] = sorted({record["model"] or self.name for record in records if record})
        if len(served) > 1:
            print(f"{self.name}: its replies are of several models ({', '.join(served)}); --overwrite asks all again")
        replies = iter(records)
        for benchmark, passage in todo:
            lines: list[PredictionLine] = []
            for queries in requests_of(self.baseline, passage):
                record = next(replies)
                reply, finish = (record["reply"], record["finish_reason"]) if record else ("", "no_answer")
                if finish != "stop":
                    self.replies[finish] += 1
                if self.baseline is None:
                    answers = [Answer(reply)]
                    lines.append(to_line(benchmark.config.name, passage, queries[0], answers, suite.occurrences))
                else:
                    reading = read(self.baseline, reply, finish, passage.text, [query.type for query in queries])
                    self.replies["type_not_asked"] += reading.not_asked
                    lines += to_lines(self.baseline, benchmark.config.name, passage, queries, reading, reply, suite)
            yield lines

    def plan(self, todo: Todo, suite: SuiteConfig) -> tuple[int, float]:
        """Requests that a run would send, and the most they can cost in dollars."""
        path = self._journal(suite)
        with (
            tempfile.TemporaryDirectory() as empty,  # a plan leaves no journal behind
            Journal(path if path.exists() else Path(empty) / path.name) as journal,
        ):
            questions = self._questions(todo, suite)
            return self._client(suite, journal, questions).plan(questions)

    def _client(self, suite: SuiteConfig, journal: Journal, questions: list[Question]) -> TeacherClient:
        client = TeacherClient(self._config(suite), journal)
        if self.anew:
            journal.forget(question.key for question in questions)
            client.others = []  # nor take replies under another limit of their length
        return client

    def _questions(self, todo: Todo, suite: SuiteConfig) -> list[Question]:
        questions, config = [], self._config(suite)
        for _, passage in todo:
            for queries in requests_of(self.baseline, passage):
                if self.baseline is None:
                    messages = build_query(passage.text, queries[0].asked)
                else:
                    messages = render(self.baseline, passage.text, [query.asked for query in queries])
                key = request_key(config.model or "", request_parameters(config), messages)
                questions.append(Question(key, self.name, passage.id, messages))
        return questions

    def _config(self, suite: SuiteConfig) -> TeacherConfig:
        return replace(self.teacher, max_answer_tokens=suite.max_new_tokens)

    def _journal(self, suite: SuiteConfig) -> Path:
        """Return the journal of this model's name at this address: a name may stand for another model elsewhere."""
        place = re.sub(r"[^\w.]+", "-", address(self.teacher).partition("://")[2]).strip("-").lower()
        return Path(suite.output_dir) / folder_name(self.name) / f"journal-{place}.jsonl"
