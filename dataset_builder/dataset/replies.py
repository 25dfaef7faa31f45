"""The replies to the questions of a recipe, which stay in the journal until they are read."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from tqdm import tqdm

from open_ner.tools.errors import UserError

from ..annotation.annotate import TeacherReply, to_reply
from ..config import TeacherConfig
from ..corpus.cutting import Passage
from ..corpus.passages import StoredPassages
from ..teacher.journal import Journal
from ..teacher.questions import Questioner

NONE = -1  # the place of a reply that does not exist


@dataclass
class StoredReplies:
    """The replies of an open journal to the questions of a recipe.

    `places` has, for each variant, the place of the reply to each passage, in the order of the passages; `reasons` has
    the reason to reject a passage, by its id.
    """

    journal: Journal
    passages: StoredPassages
    places: dict[str, array]
    reasons: dict[str, str] = field(default_factory=dict)

    @classmethod
    def find(cls, journal: Journal, passages: StoredPassages, teacher: TeacherConfig) -> "StoredReplies":
        """Find the replies. Raises UserError if a variant has none."""
        found = cls(journal, passages, {variant: array("q") for variant in teacher.variants})
        questioner = Questioner(teacher)
        for passage in tqdm(passages, desc="replies", unit=" passages", disable=None):
            for question in questioner.about(passage):
                place = journal.place(question.key)
                found.places[question.variant].append(NONE if place is None else place)
        for variant, places in found.places.items():
            left = places.count(NONE)
            if left == len(places):
                hint = "run --stage annotate with the model, prompts and parameters of this recipe"
                raise UserError(f"{journal.path}: no {variant} reply to any of {left} passages; {hint}")
            if left:
                print(f"{variant}: {left} of {len(places)} passages have no reply yet: rejected as no_answer")
        return found

    def of(self, variant: str) -> Iterator[tuple[Passage, TeacherReply | None]]:
        """Yield each passage with its reply, or None."""
        for passage, place in zip(self.passages, self.places[variant], strict=True):
            yield passage, None if place == NONE else to_reply(self.journal.read(place))

    def answered(self) -> Iterator[Passage]:
        """Yield the passages that have a reply of some variant."""
        for passage, *places in zip(self.passages, *self.places.values(), strict=True):
            if max(places) > NONE:
                yield passage
