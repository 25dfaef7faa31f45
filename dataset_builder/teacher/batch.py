"""Questions to the journal through the provider's Batch API, which answers within a day at, usually, half the price.

The same contract as asking one by one: an answer is journaled once and never paid twice. Every batch carries as
metadata the run (the hash of the journal's header) and the part (the hash of its keys), so a batch whose creation was
not recorded, because the process died in between, is found again by listing. `state.json` adds what listing cannot
tell: which batches are collected. Answers go to the journal first, into the state after.

The recipe's `price_input` and `price_output` are taken as they are: give those of the batch endpoint.
"""

import hashlib
import json
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from open_ner.tools.errors import UserError

from ..config import TeacherConfig
from ..corpus.passages import Passage
from .batch_provider import LineFault, Provider, read_line, request_line
from .endpoint import read_key
from .journal import Journal
from .questions import Question
from .records import FINAL_REFUSALS, NO_USAGE, ReplyCounts, make_record, request_ceiling

# https://platform.openai.com/docs/guides/batch: the provider's limits of one input file
PART_REQUESTS = 50_000
PART_BYTES = 200_000_000
SMALLEST_PART = 100  # the account's queue takes not even these: better to say so than to go on in crumbs
ROUNDS = 3  # times a question is asked before it counts as failed, and times the cap may cut the queue short
ENDED = ("completed", "expired", "cancelled", "failed")
QUEUE_FULL = "token_limit_exceeded"  # of a batch that failed because others fill the account's queue
UNKNOWN = Passage(id="", text="", source="", source_id="", license="", start=0, end=0, tokens=0)


def annotate_batch(
    todo: list[Question],
    journal: Journal,
    config: TeacherConfig,
    folder: Path,
    tally: ReplyCounts,
    poll_seconds: float = 30.0,
) -> None:
    """Bring the journal up to date for the open questions; resumable at every point.

    Batches already under way for this journal are collected first of all. `folder` holds the state and, while a batch
    is under way, its input file. What the cap or `ROUNDS` leave unanswered is said and left to the next run. Raises
    UserError for what will not pass: no key or a wrong one, no quota, an unknown model, an input the provider refuses.
    """
    import openai

    if not todo:
        return
    key = read_key(config, len(todo))
    folder.mkdir(parents=True, exist_ok=True)
    # the client's own retries are off: a repeated `create` would be a second batch, and paid
    with openai.OpenAI(api_key=key, base_url=config.base_url, max_retries=0, timeout=config.timeout) as client:
        _Run(todo, journal, config, folder, tally, client).work(poll_seconds)


@dataclass
class _Batch:
    """A batch under way: its questions, the most they can still cost, and how many the provider has answered."""

    id: str
    part: str
    questions: dict[str, Question]
    ceiling: float
    done: int = 0


class _Run:
    """One run of `annotate_batch`: adopt what is under way, then submit, wait, collect, until nothing is left."""

    def __init__(
        self,
        todo: list[Question],
        journal: Journal,
        config: TeacherConfig,
        folder: Path,
        tally: ReplyCounts,
        client: Any,
    ) -> None:
        self.todo = {question.key: question for question in todo}
        self.journal, self.config, self.folder, self.tally = journal, config, folder, tally
        with journal.path.open("rb") as lines:
            name = hashlib.sha256(lines.readline()).hexdigest()[:32]
        self.provider = Provider(client, config, name)
        self.state = _read_state(folder / "state.json")
        self.open: list[_Batch] = []
        self.queue: dict[str, Question] = {}
        self.tries: Counter[str] = Counter()
        self.part_requests = PART_REQUESTS
        self.window: float = math.inf  # batches under way at once, once the account's limit is known
        self.cuts = 0
        self.said = ""

    def work(self, poll_seconds: float) -> None:
        """Everything, start to end."""
        self.adopt()
        in_flight = {key for batch in self.open for key in batch.questions}
        self.queue = {key: question for key, question in self.todo.items() if key not in in_flight}
        while self.cuts <= ROUNDS:
            self.submit()
            if not self.open:
                break
            self.wait(poll_seconds)
        if self.tally.failed:
            said = f"{self.tally.failed} requests got no usable answer, the last one: {self.tally.last_fault}"
            if not self.tally.asked:
                raise UserError(said)
            print(said)
        if self.queue:
            cap = f"stopped below max_cost ${self.config.max_cost}: {len(self.queue)} requests are not submitted"
            print(f"{cap}; raise teacher.max_cost and run again to go on")

    def adopt(self) -> None:
        """Take up the batches that earlier runs left: those the state names, and those it never came to name."""
        listed = {batch.id: batch for batch in self.provider.listed()}
        for name, entry in self.state.items():
            if not entry["collected"] and name not in listed:
                listed[name] = self.provider.retrieve(name)
        for batch in listed.values():
            entry = self.state.get(batch.id)
            if (entry and entry["collected"]) or (not entry and batch.status == "failed"):
                continue
            part = entry["part"] if entry else batch.metadata["part"]
            self.open.append(self.read_part(batch.id, part, batch.input_file_id))
            self.remember(batch.id, part)
        under_way = {self.part_file(batch.part) for batch in self.open}
        for path in self.folder.glob("part-*"):  # written by a run that died before it created the batch
            if path not in under_way:
                path.unlink()

    def read_part(self, name: str, part: str, file_id: str) -> _Batch:
        """A batch of an earlier run, from its input file; it may hold questions that are not among today's."""
        path = self.part_file(part)
        if not path.exists():
            self.provider.download(file_id, path)
        questions, ceiling = {}, 0.0
        with path.open("rb") as lines:
            for line in lines:
                row = json.loads(line)
                key, body = row["custom_id"], row["body"]
                questions[key] = self.todo.get(key) or Question(key, "", UNKNOWN, body["messages"])
                if key not in self.journal.keys:
                    ceiling += request_ceiling(questions[key], self.config, body)
        return _Batch(name, part, questions, ceiling)

    def submit(self) -> None:
        """Create batches of the queue's questions, as many as the cap and the account's limit allow."""
        self.queue = {key: question for key, question in self.queue.items() if key not in self.journal.keys}
        while self.queue and len(self.open) < self.window:
            batch = self.write_part()
            if not batch:
                self.cuts += 1
                return
            path = self.part_file(batch.part)
            batch.id = self.create(batch.part, path)
            self.remember(batch.id, batch.part)
            self.open.append(batch)
            for key in batch.questions:
                del self.queue[key]

    def write_part(self) -> _Batch | None:
        """The input file of the next questions that fit into one and under the cap; None if not one does."""
        spent = self.tally.cost_before + self.tally.cost + sum(batch.ceiling for batch in self.open)
        room = math.inf if self.config.max_cost is None else self.config.max_cost - spent
        questions, size, ceiling = {}, 0, 0.0
        draft = self.folder / "part-draft"
        with draft.open("wb") as file:
            for key, question in self.queue.items():
                line = request_line(question, self.config)
                cost = request_ceiling(question, self.config)
                full = len(questions) == self.part_requests or (questions and size + len(line) > PART_BYTES)
                if full or ceiling + cost > room:
                    break
                file.write(line)
                questions[key] = question
                size += len(line)
                ceiling += cost
        if not questions:
            draft.unlink()
            return None
        part = hashlib.sha256("\n".join(sorted(questions)).encode()).hexdigest()
        draft.replace(self.part_file(part))
        return _Batch("", part, questions, ceiling)

    def create(self, part: str, path: Path) -> str:
        """Upload the part and create its batch, once; the batch's id."""
        return self.provider.create(part, path, self.state)

    def wait(self, poll_seconds: float) -> None:
        """Poll until every batch under way has ended, collecting each as it ends."""
        from tqdm import tqdm

        accepted, refused = 0, []
        with tqdm(total=len(self.todo), unit=" answers", desc="batches", disable=not sys.stderr.isatty()) as bar:
            while self.open:
                for batch in list(self.open):
                    found = self.provider.retrieve(batch.id)
                    if found.status not in ENDED:
                        batch.done = found.request_counts.completed if found.request_counts else 0
                    elif found.status == "failed":
                        refused.append((len(batch.questions), self.put_back(batch, found)))
                    else:
                        accepted += 1
                        self.collect(batch, found)
                self.report(bar)
                if self.open:
                    time.sleep(poll_seconds)
        if refused and accepted:
            self.window = accepted
        elif refused:
            largest, message = max(refused)
            if largest <= SMALLEST_PART:
                raise UserError(f"the account's queue of batches takes not even {largest} requests: {message}")
            self.window, self.part_requests = 1, largest // 2

    def put_back(self, batch: _Batch, found: Any) -> str:
        """Queue the questions of a batch the account's queue had no room for; UserError for any other refusal."""
        faults = (found.errors and found.errors.data) or []
        self.close(batch)
        said = "; ".join(f"{fault.message} (line {fault.line or '-'})" for fault in faults[:3])
        if not any(fault.code == QUEUE_FULL for fault in faults):
            raise UserError(f"the provider refuses batch {batch.id}: {said or 'it gives no reason'}")
        self.queue |= {key: question for key, question in batch.questions.items() if key in self.todo}
        return said

    def collect(self, batch: _Batch, found: Any) -> None:
        """Journal the answers of a batch that has ended; what it leaves open is queued again or counted as failed."""
        faults: dict[str, LineFault] = {}
        path = self.folder / "answers.jsonl"
        for file_id in (found.output_file_id, found.error_file_id):
            if file_id:
                self.provider.download(file_id, path)
                with path.open("rb") as lines:
                    faults |= self.journal_answers(lines, batch)
                path.unlink()
        self.close(batch)
        left = [key for key in batch.questions if key in self.todo and key not in self.journal.keys]
        for key in left:
            fault = faults.get(key) or LineFault(None, found.status, f"no answer in a batch that {found.status}")
            if fault.hopeless:
                raise UserError(f"the endpoint refuses model {self.config.model!r} or the account: {fault.message}")
            self.tries[key] += 1
            # who cancels a batch does not want it asked again at once
            if fault.lasting or found.status == "cancelled" or self.tries[key] == ROUNDS:
                self.tally.failed += 1
                self.tally.last_fault = fault.message
            else:
                self.queue[key] = self.todo[key]

    def journal_answers(self, lines: Iterable[bytes], batch: _Batch) -> dict[str, LineFault]:
        """Journal every answer of an output or error file that is not there yet; the faults of the other lines."""
        faults = {}
        for line in filter(bytes.strip, lines):
            row = json.loads(line)
            question = batch.questions.get(row["custom_id"])
            if question is None or question.key in self.journal.keys:
                continue
            answer = read_line(row, question)
            if isinstance(answer, LineFault) and answer.code in FINAL_REFUSALS:
                # this passage will never be answered: that is its answer
                answer = make_record(question, "", str(answer.code), NO_USAGE, self.config.model)
            if isinstance(answer, LineFault):
                faults[question.key] = answer
                continue
            self.journal.append(answer)
            self.tally.count(answer, self.config)
        return faults

    def close(self, batch: _Batch) -> None:
        """Record that nothing more is to be had of a batch, once all it gave is on the disk."""
        with self.journal.path.open("rb") as file:
            os.fsync(file.fileno())
        self.remember(batch.id, batch.part, collected=True)
        self.open.remove(batch)
        self.part_file(batch.part).unlink(missing_ok=True)

    def remember(self, name: str, part: str, collected: bool = False) -> None:
        """Write the state, as a whole or not at all."""
        self.state[name] = {"part": part, "collected": collected}
        draft = self.folder / "state.json.draft"
        with draft.open("w", encoding="utf-8") as file:
            json.dump({"batches": self.state}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.folder / "state.json")

    def part_file(self, part: str) -> Path:
        """Where a part's input file lies while its batch is under way."""
        return self.folder / f"part-{part[:32]}.jsonl"

    def report(self, bar: Any) -> None:
        """The progress bar, or a plain line where there is no terminal and something changed."""
        answered = sum(key in self.journal.keys for key in self.todo)
        bar.n = answered + sum(batch.done for batch in self.open)
        rest = f"{len(self.open)} batches under way, {self.tally.failed} failed, ${self.tally.cost:.4f}"
        bar.set_postfix_str(rest)
        said = f"{bar.n} of {len(self.todo)} answered, {answered} of them collected, {rest}"
        if bar.disable and said != self.said:
            print(said, file=sys.stderr, flush=True)
            self.said = said


def _read_state(path: Path) -> dict[str, dict[str, Any]]:
    """What is known of each batch, by its id: its `part`, and whether it is `collected`."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["batches"]
        return {name: {"part": str(e["part"]), "collected": bool(e["collected"])} for name, e in entries.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: no state of batches: delete it, they are found again at the provider") from None
