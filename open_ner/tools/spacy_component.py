"""The spaCy component `open_ner`: `nlp.add_pipe("open_ner", config={"model": "org/model", "types": ["person"]})`.

spaCy finds it through the entry point of the installed package; in a checkout, import this module first.
"""

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from spacy.language import Config, Language
from spacy.pipeline import Pipe
from spacy.tokens import Doc, Span
from spacy.util import minibatch

from .. import load
from ..answers import Entity
from ..selection import Overlaps, Selection

if TYPE_CHECKING:
    from ..pipeline import OpenNERPipeline

AlignmentMode = Literal["strict", "contract", "expand"]
DONE = {"strict": "left out", "contract": "shortened or left out", "expand": "widened"}  # fate of unaligned spans


@Language.factory(
    "open_ner", assigns=["doc.ents", "doc.spans"],
    default_config={
        "model": None, "types": None, "threshold": None, "overlaps": None, "alignment_mode": "expand",
        "spans_key": "open_ner", "annotate_ents": True, "device": None, "options": {},
    },
)  # fmt: skip
def make_component(
    nlp: Language, name: str, model: str | None, types: list[str] | dict[str, str] | None,
    threshold: float | dict[str, float] | None, overlaps: Overlaps | None, alignment_mode: AlignmentMode,
    spans_key: str, annotate_ents: bool, device: str | None, options: dict[str, Any],
) -> "OpenNERComponent":  # fmt: skip
    """Make the component from its config; see `OpenNERComponent`."""
    if not model:
        raise ValueError(f'{name}: model is missing: config={{"model": "folder or Hub id of a student", ...}}')
    if not types:
        raise ValueError(f'{name}: types is missing: config={{"types": ["person", "city"], ...}}')
    given = {key: value for key, value in (("threshold", threshold), ("overlaps", overlaps)) if value is not None}
    scores = threshold if isinstance(threshold, dict) else {"": threshold or 0.0}
    Selection(thresholds=scores, overlaps=overlaps or "flat")  # reports a mistake now, not at the first document
    for option, value in (("types", types), ("threshold", threshold), ("options", options)):
        for part in [{key: each} for key, each in value.items()] if isinstance(value, dict) else [value]:
            if not _is_saved_unchanged(Config({"open_ner": {option: part}})):
                hint = "in a name avoid ':', '=', spaces at its ends, and '#' or ';' at its beginning; avoid '${'"
                raise ValueError(f"{name}: {option} {part!r:.80} would change when spaCy saves the pipeline: {hint}")
    return OpenNERComponent(name, model, types, given | options, alignment_mode, spans_key, annotate_ents, device)


def _is_saved_unchanged(config: Config) -> bool:
    """Whether `config.cfg` of a pipeline keeps this unchanged; some keys are read as other keys or as comments."""
    try:
        return Config().from_str(config.to_str()) == config
    except ValueError:
        return False


class OpenNERComponent(Pipe):
    """Finds entities with a student, and sets `doc.spans[spans_key]` and `doc.ents`.

    The student is loaded for the first document. `doc.spans[spans_key]` has all spans, with their scores in
    `.attrs["scores"]`, as spaCy's `spancat` has them. `.attrs["unaligned"]` has the entities that do not begin and end
    with a token of spaCy, in the form of `open_ner.answers.Entity`.

    Args:
        name: the component's name in the pipeline.
        model: folder or Hub id of a student; after `from_disk`, the student's folder in that of the pipeline.
        types: names of entity types, or `{name: definition}`.
        options: other options of `OpenNERPipeline`, such as `threshold` and `overlaps`.
        alignment_mode: of `Doc.char_span`: whether a span that begins or ends inside a token is widened ("expand"),
            shortened ("contract") or left out ("strict").
        spans_key: the key of `doc.spans`.
        annotate_ents: whether to replace `doc.ents` by the spans that share no token; the surest ones are kept.
        device: where to load the student; see `open_ner.load`.
    """

    def __init__(
        self, name: str, model: str, types: list[str] | dict[str, str], options: dict[str, Any],
        alignment_mode: AlignmentMode = "expand", spans_key: str = "open_ner", annotate_ents: bool = True,
        device: str | None = None,
    ) -> None:  # fmt: skip
        if alignment_mode not in DONE:
            raise ValueError(f"alignment_mode={alignment_mode!r}: choose from {', '.join(map(repr, DONE))}")
        self.name, self.model, self.types, self.options, self.device = name, model, types, options, device
        self.alignment_mode, self.spans_key, self.annotate_ents = alignment_mode, spans_key, annotate_ents
        self.loaded: OpenNERPipeline | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the types."""
        return tuple(self.types)

    @property
    def tagger(self) -> "OpenNERPipeline":
        """The student's pipeline, loaded when it is first used."""
        if self.loaded is None:
            try:
                self.loaded = load(self.model, device=self.device)
            except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: of the device
                cause = " ".join(str(error).split())
                raise ValueError(f"{self.name}: model {self.model!r} cannot be loaded ({cause:.200})") from None
        return self.loaded

    def __call__(self, doc: Doc) -> Doc:
        """Annotate one document."""
        return next(self.pipe([doc]))

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = 128) -> Iterator[Doc]:
        """Annotate documents; the student reads `batch_size` of them in one call."""
        handle_error = self.get_error_handler()
        for docs in minibatch(stream, batch_size):
            try:
                options = {"batch_size": batch_size} | self.options
                answers = self.tagger([doc.text for doc in docs], types=self.types, **options)
                for doc, entities in zip(docs, answers, strict=True):
                    self.annotate(doc, entities)
            except Exception as error:  # as in spaCy's own components: the caller may have set a handler
                handle_error(self.name, self, docs, error)
            else:
                yield from docs

    def annotate(self, doc: Doc, entities: list[Entity]) -> None:
        """Set the spans of a document."""
        spans: list[Span] = []
        scores: list[float] = []
        unaligned: list[Entity] = []
        for entity in entities:
            place = entity["start"], entity["end"]
            span = doc.char_span(*place, label=entity["entity_group"], alignment_mode=self.alignment_mode)
            if span is None or (span.start_char, span.end_char) != place:
                unaligned.append(entity)
            if span is not None and len(span):
                spans.append(span)
                scores.append(cast(float, entity["score"]))  # None only for a served model
        doc.spans[self.spans_key] = spans
        doc.spans[self.spans_key].attrs |= {"scores": np.array(scores), "unaligned": unaligned}
        if self.annotate_ents:
            doc.ents = surest(spans, scores)
        if unaligned:
            hint = f"each document lists its own in doc.spans[{self.spans_key!r}].attrs['unaligned']"
            what = f"spans that begin or end inside a token of spaCy are {DONE[self.alignment_mode]}"
            warnings.warn(f"{self.name}: {what}; {hint}", stacklevel=2)

    def to_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> None:
        """Save the student in the pipeline's folder, so that `spacy.load` needs no other one."""
        if Path(self.model).resolve() != Path(path).resolve():  # else it is already there, and may be memory-mapped
            self.tagger.save_pretrained(path)

    def from_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> "OpenNERComponent":
        """Use the student in the pipeline's folder, or that of the config if it was not saved there."""
        if Path(path).is_dir():
            self.model, self.loaded = str(path), None
        return self


def surest(spans: Iterable[Span], scores: Iterable[float]) -> list[Span]:
    """Return spans that share no token; the one with the highest score is kept, of equal scores the longest."""
    kept: list[Span] = []
    taken: set[int] = set()
    for _, span in sorted(zip(scores, spans, strict=True), key=lambda pair: (-pair[0], -len(pair[1]))):
        if taken.isdisjoint(range(span.start, span.end)):
            taken.update(range(span.start, span.end))
            kept.append(span)
    return kept
