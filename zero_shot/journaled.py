"""The teacher of a build run, read from the run's journal: no requests are sent, so nothing is paid."""

import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from command_line.public import public_path
from dataset_builder.annotation.annotate import Rules, annotate_passages, to_reply
from dataset_builder.annotation.types import merge_plurals, normalize_type
from dataset_builder.config import ENGLISH
from dataset_builder.corpus.cutting import Passage
from dataset_builder.corpus.passages import StoredPassages
from dataset_builder.options import read_kept_recipe
from dataset_builder.teacher.journal import Journal
from dataset_builder.teacher.journals import JOURNAL
from dataset_builder.teacher.questions import RECORDED, Questioner
from dataset_builder.teacher.records import JournalRecord, record_bound
from dataset_builder.teacher.type_set import load_type_set
from hub.records import ModelRecord, PerThousand
from ner_sets.benchmarks import BenchmarkPassage
from ner_sets.mentions import Mention
from open_ner.conversation import write_mentions
from open_ner.tools.errors import UserError

from .predict import Todo
from .records import PredictedSpan, PredictionLine, make_line
from .suite import SuiteConfig

EMPTY = ("no_entities", "no_entities_left")  # reasons of valid replies: without entities, or without any that is kept
NAMED = 10  # most passage ids in a message


class JournaledTeacher:
    """An `EvaluatedModel` with the replies of a run's teacher to the passages of a benchmark.

    Replies are looked up by the questions that the run's recipe asks, and are read as the builder reads them.
    `records` has the replies by the id of their passage; a passage may have no reply.

    Args:
        run: folder of the run.
        passages: all passages of the benchmark.

    Raises:
        UserError: the folder is not that of a run, or its recipe asks for definitions only, not for types.
    """

    in_process = False

    def __init__(self, run: Path, passages: list[BenchmarkPassage]) -> None:
        if not (run / JOURNAL).exists():
            raise UserError(f"{run}: no {JOURNAL} there: give the folder of a run of `python -m dataset_builder`")
        self.run, self.faults, self.passages = run, Counter[str](), passages
        self.recipe = read_kept_recipe(run)
        config = self.recipe.teacher
        if not (variants := [name for name in config.variants if name != "definition"]):
            raise UserError(f"{run}: its teacher was asked for definitions only: use a run that asks for types")
        self.variant, self.name = variants[0], config.model or "recorded replies"
        questioner, self.records = Questioner(config), dict[str, JournalRecord]()
        with Journal(run / JOURNAL) as journal:
            for passage in passages:
                asked = {question.variant: question.key for question in questioner.about(_as_passage(passage))}
                if record := journal.get(asked[self.variant]):
                    original = journal.get(record.get("copy_of", ""))
                    self.records[passage.id] = {**record, "cost": (original or record).get("cost", 0.0)}
        served = sorted({record["model"] or self.name for record in self.records.values()} - {RECORDED})
        self.record: ModelRecord = {"id": self.name, "revision": None, "kind": "endpoint", "served_as": served}

    def ask(self, todo: Todo, suite: SuiteConfig) -> Iterator[list[PredictionLine]]:
        """Yield the lines of each passage, in order, from its reply; see `EvaluatedModel`."""
        config = self.recipe
        replies = {name: to_reply(record) for name, record in self.records.items()}
        rules = Rules(
            self.variant, config.dataset.max_entity_words, types=load_type_set(config.teacher),
            language=config.corpus.language, type_language=self.type_language,
        )  # fmt: skip
        found = annotate_passages([_as_passage(passage) for _, passage in todo], replies, rules)
        self.faults.update(one.reason for one in found.rejects if one.reason not in EMPTY)
        read = {row["id"] for row in found.rows} | {one.id for one in found.rejects if one.reason in EMPTY}
        unread = {one.id: one.text for one in found.rejects if one.id not in read}
        mentions = {row["id"]: row["entities"] for row in found.rows}
        types = {mention["type"] for own in mentions.values() for mention in own}
        for benchmark, passage in todo:
            name, lines = benchmark.config.name, []
            by_type = self._sort(mentions.get(passage.id, []), [query.type for query in passage.queries], types)
            for query in passage.queries:
                if passage.id in unread:
                    lines.append(make_line(name, passage, query, "", None, unread[passage.id]))
                    continue
                own = by_type[query.type]
                spans: list[PredictedSpan] = [{"start": m["start"], "end": m["end"], "score": None} for m in own]
                raw = write_mentions((mention["start"], mention["text"]) for mention in own)
                lines.append(make_line(name, passage, query, raw, spans))
            yield lines

    def _sort(self, mentions: list[Mention], asked: list[str], types: set[str]) -> dict[str, list[Mention]]:
        """Group mentions by the asked type of the same name, ignoring case and, for open English types, plurals."""
        exact = {normalize_type(name): name for name in asked}
        is_merged = self.type_language == ENGLISH and not self.is_closed
        merged = merge_plurals({*types, *exact}) if is_merged else {}
        singular = {merged.get(words, words): name for words, name in exact.items()}
        result: dict[str, list[Mention]] = defaultdict(list)
        for mention in mentions:
            words = normalize_type(mention["type"])
            if name := exact.get(words) or singular.get(merged.get(words, words)):
                result[name].append(mention)
            else:
                self.faults["type_not_asked"] += 1
        return result

    @property
    def is_closed(self) -> bool:
        """Whether the teacher was asked for given types rather than open types."""
        return bool(self.recipe.teacher.definitions)

    @property
    def type_language(self) -> str:
        """The language in which the teacher was asked to name types."""
        return self.recipe.teacher.type_language or ENGLISH

    def per_thousand(self, ids: Iterable[str]) -> PerThousand:
        """Return dollars and seconds of replies per 1,000 of these passages; a value is None if it is not known."""
        records = [self.records[name] for name in ids]
        cost = sum(record.get("cost", 0.0) for record in records)
        seconds = [record["seconds"] for record in records if "seconds" in record]
        notes = []
        if any(record["model"] == RECORDED for record in records):
            cost, notes = 0.0, ["the cost of recorded replies is not known"]
        elif not cost:
            notes = ["its recipe has no prices"]
        elif any(map(record_bound, records)):
            notes = ["dollars at most, because the endpoint did not state all tokens"]
        if seconds:
            notes.append("seconds of requests one after another")
        return {
            "dollars": 1000 * cost / len(records) if cost else None,
            "seconds": 1000 * sum(seconds) / len(seconds) if seconds else None,
            "note": "; ".join(notes),
        }

    def how_to_ask(self, data: Path) -> Iterator[str]:
        """Yield lines that name the passages without a reply and how to ask them; `data` is the benchmark's file."""
        missing = [passage for passage in self.passages if passage.id not in self.records]
        if not missing:
            return
        run, texts = public_path(self.run), {passage.text for passage in missing}
        own = {stored.text for stored in StoredPassages(self.run) if stored.text in texts}
        command = f"python -m dataset_builder --config {shlex.quote(f'{run}/recipe.yaml')}"
        if ids := [passage.id for passage in missing if passage.text in own]:
            yield f"{run}: passages without a reply: {_count(ids)}; this command asks them:"
            yield f"  {command} --stage annotate"
        if ids := [passage.id for passage in missing if passage.text not in own]:
            new, journal, file = map(shlex.quote, (f"{run}-asked", f"{run}/{JOURNAL}", public_path(data)))
            asks = f"{command} --corpus.path {file} --corpus.sources null --output_dir {new} --stage"
            yield f"{run}: passages that it does not have: {_count(ids)}; ask them so, and give {new} instead:"
            yield f"  mkdir -p {new} && cp {journal} {new}  # what is paid stays paid"
            yield f"  {asks} passages\n  {asks} annotate"


def _as_passage(passage: BenchmarkPassage) -> Passage:
    return Passage(passage.id, passage.text, "", passage.id, "", 0, len(passage.text), 0)


def _count(ids: list[str]) -> str:
    return f"{len(ids)} ({', '.join(ids[:NAMED])}{', ...' if len(ids) > NAMED else ''})"
