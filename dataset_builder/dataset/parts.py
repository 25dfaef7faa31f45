"""The parts of a dataset, each an annotation file: what the teacher found, what people annotated, and both mixed."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from open_ner.tools.errors import UserError

from ..annotation.annotate import Annotations, annotate_passages
from ..config import BuildConfig, TeacherConfig
from ..corpus.passages import load_passages
from ..rejects import RejectsFolder
from ..teacher.journal import Journal
from ..teacher.questions import RECORDED, questions
from ..teacher.records import record_cost
from .contamination import Decontaminator
from .mixture import DISTILLED, mix
from .supervised import load_sets

KEPT = ("reply", "finish_reason", "model", "time")  # of a journal's record


class Parts:
    """The annotation files of a build by the config they become, with the counts that the card shows of each.

    Everything is looked up in the benchmarks on its way, and what is left out goes to `rejects`. `human` holds the
    sets by name, after their caps and the benchmarks.
    """

    def __init__(self, config: BuildConfig, folder: Path, rejects: RejectsFolder) -> None:
        self.config, self.folder, self.rejects = config, folder, rejects
        self.decontaminator = Decontaminator(config.contamination)
        self.files: dict[str, Path] = {}
        self.counts: dict[str, dict[str, Any]] = {}
        self.answers: dict[str, Any] = {"paid": 0, "cost": 0.0}
        self.human: dict[str, Annotations] = {}
        self.passages_left_out = 0  # of the mixture, by its weights

    def write(self) -> None:
        """Write `annotations.<config>.jsonl` of every part of the recipe."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.config.corpus.named:
            self._write_distilled()
        if self.config.supervised.sets:
            self._write_sets()
        if self.config.supervised.mixture is not None:
            self._write_mixture(self.config.supervised.mixture)

    def _write_distilled(self) -> None:
        config, passages = self.config, load_passages(self.folder)
        replies, self.answers = read_replies(config.teacher, self.folder)
        answered = set().union(*replies.values())
        unwanted = self.decontaminator.look_up((p.id, p.text) for p in passages if p.id in answered)
        # those that were dropped before the teacher was paid belong to the overlap too
        dropped = (item for item in passages.dropped() if item.reason.startswith("contaminated: "))
        self.decontaminator.look_up((item.id, item.text) for item in dropped)
        same = config.dataset.tokenizer in (None, config.corpus.tokenizer)
        tokens = {passage.id: passage.tokens for passage in passages} if same else {}
        for variant in config.teacher.variants:
            found = annotate_passages(
                passages, replies.pop(variant), variant, config.dataset.max_entity_words, unwanted,
                self.decontaminator.why_not_type,
            )  # fmt: skip
            self._announce(variant, found)
            self._write_file(variant, ({**row, "tokens": tokens[row["id"]]} if tokens else row for row in found.rows))
            self.rejects.write(variant, found.rejects)
            self.counts[variant] = {
                "counts": dict(found.counts),
                "hallucination_rate": found.hallucination_rate,
                "merged_types": found.merged_types,
            }
            del found  # its rows are on disk now, and memory is for one variant at a time

    def _write_sets(self) -> None:
        config = self.config
        sets = load_sets(config.supervised, config.corpus.tokenizer, config.corpus.max_tokens, config.dataset.seed)
        for name, part in sets.items():
            self.human[name] = self.decontaminator.clean(part)
            self._announce(f"supervised: {name}", self.human[name])
            if not any(row["entities"] for row in self.human[name].rows):
                raise UserError(
                    f"set {name}: nothing is left of it beside the benchmarks: drop it from supervised.sets, or set "
                    "contamination.passages or contamination.types to report"
                )
            self.rejects.write(f"supervised: {name}", self.human[name].rejects)
        self._write_file("supervised", (row for part in self.human.values() for row in part.rows))

    def _write_mixture(self, weights: dict[str, float]) -> None:
        with self.files[self.config.teacher.variants[0]].open(encoding="utf-8") as lines:
            mixed = {DISTILLED: [json.loads(line) for line in lines]}
        mixed |= {name: part.rows for name, part in self.human.items()}
        rows = mix(mixed, weights, self.config.dataset.seed)
        self.passages_left_out = sum(map(len, mixed.values())) - len(rows)
        self._write_file("mixture", rows)

    @staticmethod
    def _announce(name: str, found: Annotations) -> None:
        print(f"{name}: {dict(sorted(found.counts.items()))}")
        if not found.rows:
            raise UserError(f"no {name} annotation is left of all passages: {dict(found.counts)}")

    def _write_file(self, config: str, rows: Iterable[dict[str, Any]]) -> None:
        """A JSONL line per annotated passage."""
        self.files[config] = self.folder / f"annotations.{config}.jsonl"
        partial = self.folder / f"annotations.{config}.jsonl.partial"
        with partial.open("w", encoding="utf-8") as lines:
            lines.writelines(json.dumps(row) + "\n" for row in rows)
        partial.replace(self.files[config])


def read_replies(teacher: TeacherConfig, folder: Path) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """The journal's records of this recipe's questions by variant and passage id, and what was paid for all of it.

    Raises UserError where there is no journal, or none of its answers belongs to this recipe.
    """
    path = folder / "journal.jsonl"
    if not path.exists():
        raise UserError(f"{path}: not there yet; run --stage annotate first")
    asked = {
        question.key: (question.variant, question.passage.id) for question in questions(load_passages(folder), teacher)
    }
    replies: dict[str, dict[str, Any]] = {variant: {} for variant in teacher.variants}
    models: dict[str, str] = {}
    paid, cost = 0, 0.0
    with Journal(path) as journal:
        for record in journal.records():
            if record["model"] != RECORDED:
                paid += 1
                cost += record_cost(record, teacher)
            if record["key"] in asked:
                variant, passage_id = asked[record["key"]]
                slim = {key: record[key] for key in KEPT}
                slim["model"] = models.setdefault(record["model"], record["model"])
                replies[variant][passage_id] = slim
        if journal.damaged:
            print(
                f"{path}: {journal.damaged} damaged lines were passed over; --stage annotate asks their answers again"
            )
    passages = len(asked) // max(1, len(teacher.variants))
    for variant, found in replies.items():
        if not found:
            raise UserError(
                f"{path}: no {variant} answer for any of {passages} passages: run --stage annotate with the model, "
                "prompts and parameters of this recipe"
            )
        if len(found) < passages:
            print(
                f"{variant}: {passages - len(found)} of {passages} passages have no answer yet: counted as no_answer"
            )
    return replies, {"paid": paid, "cost": cost}
