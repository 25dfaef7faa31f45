"""A model behind an OpenAI-compatible endpoint, asked through the teacher's client: paced, capped, never paid twice.

Its journal lies beside the results, so that every suite and protocol with the same questions shares the answers.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dataset_builder.teacher.asking import Asking
from dataset_builder.teacher.client import TeacherConfig, open_endpoint
from dataset_builder.teacher.endpoint import read_key
from dataset_builder.teacher.journal import Journal, request_key
from dataset_builder.teacher.questions import Passage, Question, request_parameters
from dataset_builder.teacher.records import ReplyCounts, record_cost, request_ceiling
from ner_sets.benchmarks import BenchmarkPassage, Query
from open_ner.conversation import build_query
from open_ner.tools.errors import UserError

from .baseline import BaselineConfig, read, render, requests_of, to_lines
from .predict import Line, Todo, folder_name
from .suite import SuiteConfig


class EndpointModel:
    """`model` at `teacher.base_url`, in the dialogue or with the prompts of a baseline.

    `model["served_as"]` holds, once asked, the names by which the endpoint itself calls what answered.

    `replies` counts, once asked, the replies that did not end by themselves (cut, filtered, refused), those that no
    try could get, and answers about types that were not asked.
    """

    shared = False

    def __init__(self, name: str, teacher: TeacherConfig, baseline: BaselineConfig | None = None) -> None:
        if teacher.batch or teacher.recorded:
            raise UserError("endpoint.batch and endpoint.recorded are the builder's: an evaluation asks at once")
        self.name, self.baseline, self.replies = baseline.name if baseline else name, baseline, Counter[str]()
        self.teacher = replace(teacher, model=baseline.model if baseline else name)
        self.model: dict[str, Any] = {
            "id": self.teacher.model,
            "revision": None,
            "kind": "endpoint",
            "base_url": _public(teacher.base_url),
            "baseline": baseline.name if baseline else None,
            "prompt": None if baseline is None else [baseline.system, baseline.user, baseline.per, baseline.reply],
        }

    def ask(self, todo: Todo, suite: SuiteConfig) -> Iterator[list[Line]]:
        """The lines of each passage, once all are answered; see `Asker`."""
        config = self._config(suite)
        path = self._journal(suite)
        with Journal(path) as journal:
            tally = ReplyCounts(cost_before=sum(record_cost(record, config) for record in journal.records()))
            open_questions = {q.key: q for q in self._questions(todo, config) if q.key not in journal.keys}
            if open_questions:
                key = read_key(config, len(open_questions))
                tally.unanswered[self.name] = len(open_questions)
                asking = Asking(
                    iter(open_questions.values()), lambda: len(open_questions), journal, config, tally,
                    open_endpoint(config, key),
                )  # fmt: skip
                asyncio.run(asking.run())
            missing = len(open_questions) - tally.asked - tally.failed
            if missing:
                raise UserError(f"{self.name}: {missing} questions are left: raise --max_cost and run again to go on")
            if tally.failed:
                print(
                    f"{self.name}: {tally.failed} questions got no answer ({tally.last_fault}): they count as unread"
                )
            wanted = {q.key for q in self._questions(todo, config)}
            records = {r["key"]: r for r in journal.records() if r["key"] in wanted}
        self.model["served_as"] = sorted({record["model"] or self.name for record in records.values()})
        yield from self._lines(todo, suite, config, records)

    def plan(self, todo: Todo, suite: SuiteConfig) -> tuple[int, float]:
        """Requests that a run would send, and the most they can cost in dollars."""
        config, path = self._config(suite), self._journal(suite)
        known: set[str] = set()
        if path.exists():
            with Journal(path) as journal:
                known = set(journal.keys)
        open_questions = {q.key: q for q in self._questions(todo, config) if q.key not in known}
        return len(open_questions), sum(request_ceiling(question, config) for question in open_questions.values())

    def _lines(
        self, todo: Todo, suite: SuiteConfig, config: TeacherConfig, records: dict[str, dict[str, Any]]
    ) -> Iterator[list[Line]]:
        from open_ner.tools.served import ServedAnswer

        from .student import to_line

        for benchmark, passage in todo:
            lines: list[Line] = []
            for queries in self._requests(passage):
                record = records.get(self._question(passage, queries, config).key)
                reply, finish = (record["reply"], record["finish_reason"]) if record else ("", "no_answer")
                if finish != "stop":
                    self.replies[finish] += 1
                if self.baseline is None:
                    answer = ServedAnswer(reply)
                    lines.append(to_line(benchmark.config.name, passage, queries[0], answer, suite.occurrences))
                else:
                    reading = read(self.baseline, reply, finish, passage.text, [query.type for query in queries])
                    self.replies["type_not_asked"] += reading.not_asked
                    lines += to_lines(self.baseline, benchmark.config.name, passage, queries, reading, reply, suite)
            yield lines

    def _requests(self, passage: BenchmarkPassage) -> list[list[Query]]:
        return [[query] for query in passage.queries] if self.baseline is None else requests_of(self.baseline, passage)

    def _questions(self, todo: Todo, config: TeacherConfig) -> Iterator[Question]:
        for _, passage in todo:
            for queries in self._requests(passage):
                yield self._question(passage, queries, config)

    def _question(self, passage: BenchmarkPassage, queries: list[Query], config: TeacherConfig) -> Question:
        if self.baseline is None:
            messages = build_query(passage.text, queries[0].asked)
        else:
            messages = render(self.baseline, passage.text, [query.asked for query in queries])
        key = request_key(config.model, request_parameters(config), messages)
        asked = Passage(passage.id, passage.text, "", passage.id, "", 0, len(passage.text), 0)
        return Question(key, self.name, asked, messages)

    def _config(self, suite: SuiteConfig) -> TeacherConfig:
        return replace(self.teacher, max_answer_tokens=suite.max_new_tokens)

    def _journal(self, suite: SuiteConfig) -> Path:
        return Path(suite.output_dir) / folder_name(self.name) / "journal.jsonl"


def _public(base_url: str | None) -> str | None:
    """An address without what may be secret in it: user, password, query."""
    if base_url is None:
        return None
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"
