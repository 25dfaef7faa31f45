"""The parts of a dataset, each in one file of annotations: distilled, human-annotated, and their mixture."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from command_line.build_statistics import AnnotationCounts
from open_ner.tools.errors import UserError
from open_ner.tools.files import read_jsonl, write_jsonl

from ..annotation.annotate import AnnotationRow, Annotations, TeacherReply, annotate_passages
from ..config import ENGLISH, BuildConfig, TeacherConfig
from ..corpus.cutting import Passage
from ..corpus.passages import load_passages
from ..rejects import Reject
from ..teacher.journal import Journal
from ..teacher.questions import RECORDED, questions
from ..teacher.records import JournalRecord, record_cost
from ..teacher.type_set import load_type_set
from .contamination import Decontaminator
from .held_out import UNDER_REVIEW, HeldOut
from .mixture import DISTILLED, mix
from .supervised import load_sets


class Parts:
    """Writes the file of annotations of each config, and keeps the rejects and the counts that the card shows.

    All passages are compared with the benchmarks. `human` contains the human-annotated sets by name, as they enter the
    dataset.
    """

    def __init__(self, config: BuildConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.rejects: dict[str, list[Reject]] = {}
        self.decontaminator = Decontaminator(config.contamination)
        self.files: dict[str, Path] = {}
        self.counts: dict[str, AnnotationCounts] = {}
        self.cost: dict[str, float] = {"paid": 0, "cost": 0.0}
        self.human: dict[str, Annotations] = {}
        self.passages_outside_mixture = 0

    def write(self) -> None:
        """Write `annotations.<config>.jsonl` for each part of the recipe."""
        if self.config.corpus.named:
            self._write_distilled()
        if self.config.supervised.sets:
            self._write_sets()
        if self.config.supervised.mixture is not None:
            self._write_mixture(self.config.supervised.mixture)

    def annotated(self) -> Iterator[tuple[str, Annotations]]:
        """Yield each variant with the annotations of its replies; one variant at a time is in memory."""
        config, passages = self.config, load_passages(self.folder)
        replies, self.cost = read_replies(config.teacher, self.folder)
        answered = set().union(*replies.values())
        rejected = self.decontaminator.look_up((p.id, p.text) for p in passages if p.id in answered)
        # passages that were rejected before the teacher was paid are overlap too
        contaminated = (item for item in passages.rejects() if item.reason.startswith("contaminated: "))
        self.decontaminator.look_up((item.id, item.text) for item in contaminated)
        under_review = HeldOut.read(self.folder)
        rejected |= {passage.id: UNDER_REVIEW for passage in passages if passage in under_review}
        for variant in config.teacher.variants:
            yield (
                variant,
                annotate_variant(config, variant, passages, replies.pop(variant), self.decontaminator, rejected),
            )

    def _write_distilled(self) -> None:
        for variant, found in self.annotated():
            if number := found.counts[UNDER_REVIEW]:
                print(f"{variant}: {number} passages are under review, so they are not part of the dataset")
            self._announce(variant, found)
            if not any(row["entities"] for row in found.rows):
                why = f"none of {len(found.rows)} annotated passages has an entity of a type in teacher.types"
                raise UserError(f"{variant}: {why}: check the types, their definitions and the counts above")
            self._write_file(variant, found.rows)
            self.rejects[variant] = found.rejects
            counts, rate = dict(found.counts), found.hallucination_rate
            self.counts[variant] = {"counts": counts, "hallucination_rate": rate, "merged_types": found.merged_types}
            del found  # keep the rows of one variant at a time in memory

    def _write_sets(self) -> None:
        config = self.config
        sets = load_sets(config.supervised, config.corpus.tokenizer, config.corpus.max_tokens, config.dataset.seed)
        for name, part in sets.items():
            self.human[name] = self.decontaminator.clean(part)
            self._announce(f"supervised: {name}", self.human[name])
            if not any(row["entities"] for row in self.human[name].rows):
                hint = "remove it from supervised.sets, or set contamination.passages or contamination.types to report"
                raise UserError(f"set {name}: decontamination removed all of its entities; {hint}")
            self.rejects[f"supervised: {name}"] = self.human[name].rejects
        self._write_file("supervised", (row for part in self.human.values() for row in part.rows))

    def _write_mixture(self, weights: dict[str, float]) -> None:
        parts: dict[str, list[AnnotationRow]] = {
            DISTILLED: list(read_jsonl(self.files[self.config.teacher.variants[0]])),
            **{name: part.rows for name, part in self.human.items()},
        }
        rows = mix(parts, weights, self.config.dataset.seed)
        self.passages_outside_mixture = sum(map(len, parts.values())) - len(rows)
        self._write_file("mixture", rows)

    @staticmethod
    def _announce(name: str, found: Annotations) -> None:
        print(f"{name}: {dict(sorted(found.counts.items()))}")
        if not found.rows:
            raise UserError(f"{name}: all annotations were rejected: {dict(found.counts)}")

    def _write_file(self, config: str, rows: Iterable[AnnotationRow]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.files[config] = self.folder / f"annotations.{config}.jsonl"
        write_jsonl(self.files[config], rows)


def annotate_variant(
    config: BuildConfig, variant: str, passages: Iterable[Passage], replies: Mapping[str, TeacherReply],
    decontaminator: Decontaminator, rejected: Mapping[str, str] | None = None,
) -> Annotations:  # fmt: skip
    """Turn the replies of a variant into annotations, with the options of a recipe; see `annotate_passages`."""
    return annotate_passages(
        passages, replies, variant, config.dataset.max_entity_words, rejected, decontaminator.why_not_type,
        load_type_set(config.teacher), config.corpus.language, config.teacher.type_language or ENGLISH,
    )  # fmt: skip


def to_reply(record: JournalRecord) -> TeacherReply:
    """Return the fields of a journal record that become part of an annotation."""
    return {
        "reply": record["reply"], "finish_reason": record["finish_reason"], "model": record["model"],
        "time": record.get("time", ""),
    }  # fmt: skip


def read_replies(teacher: TeacherConfig, folder: Path) -> tuple[dict[str, dict[str, TeacherReply]], dict[str, float]]:
    """Read the journal's replies to the questions of a recipe.

    Returns:
        The replies by variant and passage id, and the number and cost in dollars of all paid replies.

    Raises:
        UserError: the journal does not exist, or a variant has no reply.
    """
    path = folder / "journal.jsonl"
    if not path.exists():
        raise UserError(f"{path} does not exist; run --stage annotate first")
    asked = {one.key: (one.variant, one.passage_id) for one in questions(load_passages(folder), teacher)}
    replies: dict[str, dict[str, TeacherReply]] = {variant: {} for variant in teacher.variants}
    cost: dict[str, float] = {"paid": 0, "cost": 0.0}
    with Journal(path) as journal:
        for record in journal.records():
            if record["model"] != RECORDED:
                cost["paid"] += "copy_of" not in record
                cost["cost"] += record_cost(record, teacher)
            if record["key"] in asked:
                variant, passage_id = asked[record["key"]]
                replies[variant][passage_id] = to_reply(record)
        cost["cost"] += journal.unread + journal.in_flight
        if journal.damaged:
            print(f"{path}: ignored {journal.damaged} damaged lines; --stage annotate asks their questions again")
    passages = len(asked) // max(1, len(teacher.variants))
    for variant, found in replies.items():
        if not found:
            hint = "run --stage annotate with the model, prompts and parameters of this recipe"
            raise UserError(f"{path}: no {variant} reply to any of {passages} passages; {hint}")
        if left := passages - len(found):
            print(f"{variant}: {left} of {passages} passages have no reply yet: rejected as no_answer")
    return replies, cost
