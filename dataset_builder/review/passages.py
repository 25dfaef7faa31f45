"""The passages of a review: their files in the folder of the run, and the annotations of a run."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NotRequired, TypedDict

from ner_sets.mentions import Mention
from open_ner.tools.errors import UserError
from open_ner.tools.files import read_json, read_jsonl, write_json, write_jsonl

from ..config import BuildConfig
from ..corpus.passages import StoredPassages
from ..dataset.parts import Parts
from ..dataset.under_review import UNDER_REVIEW, add_under_review
from ..options import read_kept_recipe
from ..teacher.questions import RECORDED

ASK_NO_TYPES = "definition"  # the variant whose types are sentences, which cannot be labels
MOST_TYPES = 20  # labels that a person can choose from


class ScoredMention(Mention):
    """A mention with the score of the student that found it."""

    score: NotRequired[float]


class ReviewPassage(TypedDict):
    """A passage of a review, as it was exported."""

    id: str
    text: str
    entities: list[ScoredMention]  # in the task, for people to correct; empty if the review is blank
    teacher: list[Mention]  # what the teacher found, of the types under review
    uncertainty: NotRequired[float]  # between 0 and 1


@dataclass
class Review:
    """The passages of a review (exported.jsonl), and how they were drawn (review.json)."""

    types: dict[str, str]  # name -> definition, which may be empty
    by: str
    seed: int
    shown: str  # the origin of the spans in the tasks; empty if the review is blank
    teacher: str
    compared_with: str  # the student, file or run that gave the second opinion; may be empty
    passages: list[ReviewPassage] = field(default_factory=list)

    def write(self, run: Path, folder: Path) -> None:
        """Write the review, and hold its passages out of the dataset of the run."""
        folder.mkdir(parents=True, exist_ok=True)
        options = asdict(self)
        del options["passages"]
        write_json(folder / "review.json", options)
        write_jsonl(folder / "exported.jsonl", self.passages)
        add_under_review(run, ((passage["id"], passage["text"]) for passage in self.passages))

    @classmethod
    def read(cls, folder: Path) -> "Review":
        """Read a review. Raises UserError if the folder has none or a file was changed."""
        path = folder / "review.json"
        try:
            return cls(**read_json(path), passages=[*read_jsonl(folder / "exported.jsonl")])
        except FileNotFoundError as error:
            raise UserError(
                f"{error.filename} does not exist: export a review first, or name its folder by --review"
            ) from None
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{path} or exported.jsonl beside it is damaged ({error}): restore the exported files"
            ) from None


@dataclass
class RunAnnotations:
    """The teacher's annotations of a run: what can be drawn for a review."""

    config: BuildConfig
    variant: str
    teacher: str
    texts: dict[str, str]  # by the id of the passage
    mentions: dict[str, list[Mention]]  # by the id of the passage
    excluded: Counter[str]  # passages that cannot be drawn, by reason

    @property
    def types(self) -> dict[str, str]:
        """The types of a closed world with their definitions, otherwise the most frequent types."""
        if self.config.teacher.definitions:
            return dict(self.config.teacher.definitions)
        counts = Counter(mention["type"] for found in self.mentions.values() for mention in found)
        return {name: "" for name, _ in counts.most_common(MOST_TYPES)}


def read_run(run: Path) -> RunAnnotations:
    """Read the passages of a run that have a reply, and their mentions by the rules of the stage `build`.

    Passages that have no reply, are under review or overlap a benchmark are excluded. A reply that cannot be parsed
    has no mentions. Raises UserError if the run has no recipe, no journal or no types by name.
    """
    config = read_kept_recipe(run)
    wanted = next((variant for variant in config.teacher.variants if variant != ASK_NO_TYPES), None)
    if wanted is None:
        raise UserError(f"{run}: a review needs types by name, and this run has only the variant {ASK_NO_TYPES}")
    found = Parts(config, run).annotations(wanted)
    reasons = ("no_answer", UNDER_REVIEW)
    excluded = {
        reject.id: reject.reason.split(":")[0]
        for reject in found.rejects
        if reject.reason in reasons or reject.reason.startswith("contaminated: ")
    }
    texts = {passage.id: passage.text for passage in StoredPassages(run) if passage.id not in excluded}
    mentions = {row["id"]: row["entities"] for row in found.rows}
    models = Counter(row["teacher"] for row in found.rows if row["teacher"] not in ("", RECORDED))
    teacher = config.teacher.model or config.teacher.recorded_by
    teacher = ", ".join(sorted(models)) or teacher
    return RunAnnotations(config, wanted, teacher, texts, mentions, Counter(excluded.values()))
