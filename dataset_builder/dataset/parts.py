"""The parts of a dataset, each in one file of annotations: distilled, human-annotated, and their mixture."""

import json
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from command_line.build_statistics import AnnotationCounts
from open_ner.tools.errors import UserError
from open_ner.tools.files import write_jsonl

from ..annotation.annotate import AnnotationRow, Annotations, Answered, Rules, annotate_replies
from ..config import ENGLISH, BuildConfig
from ..corpus.passages import StoredPassages
from ..rejects import RejectFiles
from ..teacher.journal import Journal
from ..teacher.journals import JOURNAL, require_merged
from ..teacher.type_set import load_type_set
from .contamination import Decontaminator
from .mixture import DISTILLED, mix
from .replies import StoredReplies
from .supervised import load_sets
from .under_review import UNDER_REVIEW, UnderReview


class Parts:
    """Writes the file of annotations of each config, and keeps the counts that the card shows.

    All passages are compared with the benchmarks. `human` contains the human-annotated sets by name, as they enter the
    dataset. Distilled passages are in memory one at a time.
    """

    def __init__(self, config: BuildConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.decontaminator = Decontaminator(config.contamination)
        self.files: dict[str, Path] = {}
        self.counts: dict[str, AnnotationCounts] = {}
        self.cost: dict[str, float] = {"paid": 0, "cost": 0.0}
        self.human: dict[str, Annotations] = {}
        self.passages_outside_mixture = 0

    def write(self, rejects: RejectFiles) -> None:
        """Write `annotations.<config>.jsonl` for each part of the recipe, and the rejects."""
        if self.config.corpus.named:
            with self._replies() as replies:
                for variant in self.config.teacher.variants:
                    self._write_file(variant, self._distilled(variant, replies, rejects))
        if self.config.supervised.sets:
            self._write_sets(rejects)
        if self.config.supervised.mixture is not None:
            self._write_mixture(self.config.supervised.mixture)

    def annotations(self, variant: str) -> Annotations:
        """Return the annotations of the replies of a variant, all of them in memory."""
        found = Annotations()
        with self._replies() as replies:
            found.rows = [row for row in self._annotate(variant, replies, found) if row]
        return found

    @contextmanager
    def _replies(self) -> Iterator[StoredReplies]:
        """Find the journal's replies, with the reasons to reject some of the passages.

        Raises UserError if the journal does not exist, if shards of it are not merged, or if a variant has no reply.
        """
        teacher, passages, path = self.config.teacher, StoredPassages(self.folder), self.folder / JOURNAL
        require_merged(self.folder)
        if not path.exists():
            raise UserError(f"{path} does not exist; run --stage annotate first")
        with Journal(path, reading=True) as journal:
            cost = journal.spent.cost + journal.unread + journal.in_flight
            self.cost = {"paid": journal.spent.paid, "cost": cost}
            if journal.damaged:
                print(f"{path}: ignored {journal.damaged} damaged lines; --stage annotate asks their questions again")
            replies = StoredReplies.find(journal, passages, teacher)
            replies.reasons = self.decontaminator.look_up((p.id, p.text) for p in replies.answered())
            # the overlap also counts passages that were rejected before the teacher was paid
            contaminated = (item for item in passages.rejects() if item.reason.startswith("contaminated: "))
            self.decontaminator.look_up((item.id, item.text) for item in contaminated)
            if (under_review := UnderReview.read(self.folder)).ids:
                replies.reasons |= {passage.id: UNDER_REVIEW for passage in passages if passage in under_review}
            yield replies

    def _annotate(self, variant: str, replies: StoredReplies, found: Annotations) -> Iterator[AnnotationRow | None]:
        """Yield the row of each passage, or None if it is rejected; `found` receives the counts and rejects."""
        rules = rules_of(self.config, variant, self.decontaminator)

        def read() -> Iterator[Answered]:
            total = len(replies.places[variant])
            asked = tqdm(replies.of(variant), f"annotations: {variant}", total, unit=" passages", disable=None)
            return ((passage, reply, replies.reasons.get(passage.id)) for passage, reply in asked)

        yield from annotate_replies(read, rules, found)

    def _distilled(self, variant: str, replies: StoredReplies, rejects: RejectFiles) -> Iterator[AnnotationRow]:
        """Yield the rows of a variant, and write its rejects. Raises UserError if no entity is left."""
        found, rows, with_entities = Annotations(), 0, 0
        for row in self._annotate(variant, replies, found):
            rejects.add(variant, found.rejects)
            found.rejects.clear()
            if row:
                rows += 1
                with_entities += bool(row["entities"])
                yield row
        if number := found.counts[UNDER_REVIEW]:
            print(f"{variant}: {number} passages are under review, so they are not part of the dataset")
        self._announce(variant, found, rows)
        if not with_entities:
            why = f"none of {rows} annotated passages has an entity of a type in teacher.types"
            raise UserError(f"{variant}: {why}: check the types, their definitions and the counts above")
        counts, rate = dict(found.counts), found.hallucination_rate
        self.counts[variant] = {"counts": counts, "hallucination_rate": rate, "merged_types": found.merged_types}

    def _write_sets(self, rejects: RejectFiles) -> None:
        config = self.config
        sets = load_sets(config.supervised, config.corpus.tokenizer, config.corpus.max_tokens, config.dataset.seed)
        for name, part in sets.items():
            self.human[name] = self.decontaminator.clean(part)
            self._announce(f"supervised: {name}", self.human[name], len(self.human[name].rows))
            if not any(row["entities"] for row in self.human[name].rows):
                hint = "remove it from supervised.sets, or set contamination.passages or contamination.types to report"
                raise UserError(f"set {name}: decontamination removed all of its entities; {hint}")
            rejects.add(f"supervised: {name}", self.human[name].rejects)
        self._write_file("supervised", (row for part in self.human.values() for row in part.rows))

    def _write_mixture(self, weights: dict[str, float]) -> None:
        distilled = self.files[self.config.teacher.variants[0]]
        places, ids = array("q"), {DISTILLED: list[str]()}
        with distilled.open("rb") as lines:
            while line := lines.readline():
                places.append(lines.tell() - len(line))
                ids[DISTILLED].append(json.loads(line)["id"])
        ids |= {name: [row["id"] for row in part.rows] for name, part in self.human.items()}
        mixed = mix(ids, weights, self.config.dataset.seed)
        self.passages_outside_mixture = sum(map(len, ids.values())) - len(mixed)

        def rows() -> Iterator[AnnotationRow]:
            with distilled.open("rb") as lines:
                for name, index in mixed:
                    if name == DISTILLED:
                        lines.seek(places[index])
                        row: AnnotationRow = json.loads(lines.readline())
                        yield {**row, "dataset": ""}
                    else:
                        yield self.human[name].rows[index]

        self._write_file("mixture", rows())

    @staticmethod
    def _announce(name: str, found: Annotations, rows: int) -> None:
        print(f"{name}: {dict(sorted(found.counts.items()))}")
        if not rows:
            raise UserError(f"{name}: all annotations were rejected: {dict(found.counts)}")

    def _write_file(self, config: str, rows: Iterable[AnnotationRow]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.files[config] = self.folder / f"annotations.{config}.jsonl"
        write_jsonl(self.files[config], rows)


def rules_of(config: BuildConfig, variant: str, decontaminator: Decontaminator) -> Rules:
    """Return how the replies of a variant are read, by the options of a recipe."""
    return Rules(
        variant, config.dataset.max_entity_words, decontaminator.why_not_type, load_type_set(config.teacher),
        config.corpus.language, config.teacher.type_language or ENGLISH,
    )  # fmt: skip
