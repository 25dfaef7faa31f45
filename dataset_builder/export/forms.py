"""The forms: GLiNER's JSON, spaCy's DocBin, and IOB2 tags as Parquet. Each writes one split to one file."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import regex

from open_ner.borders import UNSPACED
from open_ner.tools.files import write_atomic

from ..rejects import Reject
from .passages import Alignment, ExportPassage, Offsets, Tally, flat, place

if TYPE_CHECKING:
    from spacy.language import Language

GLINER_WORD = re.compile(r"\w+(?:[-_]\w+)*|\S")  # gliner's WhitespaceTokenSplitter, its default at inference
GLINER_LIMITS = {"max_width": 12, "max_len": 384, "max_types": 25}  # defaults of its config; what exceeds them is cut
# a word with its combining marks and joiners; other characters and scripts without spaces: one grapheme cluster
TAGGED_WORD = regex.compile(rf"[[\w\p{{M}}\u200c\u200d]--[{UNSPACED}]]+|(?!\s)\X", regex.VERSION1)
SPANS_KEY = "sc"  # the default of spaCy's `spancat`
ROWS_PER_TABLE = 2000


def split_words(
    passages: Iterable[ExportPassage], pattern: Any, tally: Tally
) -> Iterator[tuple[ExportPassage, Offsets, list[str]]]:
    """Yield each passage with the offsets and the texts of its words; passages of only white space are rejected."""
    for passage in passages:
        matches = list(pattern.finditer(passage.text))
        if matches:
            tally.counts["passages"] += 1
            yield passage, [match.span() for match in matches], [match[0] for match in matches]
        else:
            tally.rejects.append(Reject(passage.id, "no_words", passage.text))


def write_gliner(passages: Iterable[ExportPassage], path: Path, alignment: Alignment, tally: Tally) -> None:
    """Write a JSON list of `{"id", "tokenized_text", "ner", "ner_negatives"}`, as GLiNER's `train_model` reads it.

    `ner` has `[first word, last word, type]`, which may overlap. GLiNER asks the types of `ner` and `ner_negatives`; a
    passage without `ner_negatives` gets its absent types from the other passages of its batch.
    """

    def elements() -> Iterator[str]:
        before = "[\n"
        for passage, words, texts in split_words(passages, GLINER_WORD, tally):
            spans = sorted(place(passage, words, alignment, tally, divides_unspaced=False))
            element: dict[str, Any] = {"id": passage.id, "tokenized_text": texts, "ner": spans}
            if passage.negatives is not None:
                element["ner_negatives"] = passage.negatives
            widths = [span.last - span.first + 1 for span in spans]
            asked = len({span.type for span in spans}) + len(passage.negatives or [])
            tally.counts["spans_over_max_width"] += sum(width > GLINER_LIMITS["max_width"] for width in widths)
            tally.counts["passages_over_max_len"] += len(words) > GLINER_LIMITS["max_len"]
            tally.counts["passages_over_max_types"] += asked > GLINER_LIMITS["max_types"]
            yield before + json.dumps(element, ensure_ascii=False)
            before = ",\n"
        yield "\n]\n" if before == ",\n" else "[]\n"

    write_atomic(path, elements())


def write_spacy(
    passages: Iterable[ExportPassage], path: Path, alignment: Alignment, tally: Tally, nlp: "Language"
) -> None:
    """Write a DocBin: `doc.ents` has spans that share no token, `doc.spans["sc"]` all spans, `user_data` the id."""
    from spacy.tokenizer import Tokenizer
    from spacy.tokens import DocBin, Span

    divides_unspaced = not isinstance(nlp.tokenizer, Tokenizer)  # the class of languages without a segmenter
    docs = DocBin(attrs=["ENT_IOB", "ENT_TYPE"], store_user_data=True)
    for passage in passages:
        tally.counts["absent_types"] += len(passage.negatives or [])
        doc = nlp.make_doc(passage.text)
        tally.counts["passages"] += 1
        tokens = [token for token in doc if not token.is_space]  # spaCy does not train on spans with white space
        words = [(token.idx, token.idx + len(token)) for token in tokens]
        placed = place(passage, words, alignment, tally, divides_unspaced)
        spans = {each: Span(doc, tokens[each.first].i, tokens[each.last].i + 1, each.type) for each in sorted(placed)}
        doc.spans[SPANS_KEY] = list(spans.values())
        doc.ents = [spans[each] for each in flat(placed)]
        doc.user_data["id"] = passage.id
        tally.counts["entities_outside_doc_ents"] += len(spans) - len(doc.ents)
        docs.add(doc)
    docs.to_disk(path)


def write_iob2(
    passages: Iterable[ExportPassage], path: Path, alignment: Alignment, tally: Tally, types: Sequence[str]
) -> None:
    """Write Parquet with the columns `id`, `tokens` and `ner_tags`, a `ClassLabel` of `O`, `B-type`, `I-type`."""
    import pyarrow as pa
    from datasets import ClassLabel, Features, List, Value
    from pyarrow import parquet

    names = ["O", *(f"{prefix}-{kind}" for kind in types for prefix in "BI")]
    begin = {kind: 2 * number + 1 for number, kind in enumerate(types)}  # the I tag is the next one
    schema = Features(
        {"id": Value("string"), "tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=names))}
    ).arrow_schema

    def rows() -> Iterator[dict[str, Any]]:
        for passage, words, texts in split_words(passages, TAGGED_WORD, tally):
            tally.counts["absent_types"] += len(passage.negatives or [])
            placed = place(passage, words, alignment, tally, divides_unspaced=True)
            kept = flat(placed)
            for span in (span for span in placed if span not in kept):
                tally.reject(passage.id, placed[span], "overlaps_longer_span")
            tally.counts["entities_kept"] -= len(placed) - len(kept)
            tags = [0] * len(words)
            for span in kept:
                tags[span.first : span.last + 1] = [begin[span.type] + 1] * (span.last - span.first + 1)
                tags[span.first] -= 1
            yield {"id": passage.id, "tokens": texts, "ner_tags": tags}

    stream = rows()
    with parquet.ParquetWriter(path, schema) as writer:
        while block := list(islice(stream, ROWS_PER_TABLE)):
            writer.write_table(pa.Table.from_pylist(block, schema=schema))
