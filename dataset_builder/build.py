"""The stage `build`: passages and journal become the dataset's folder, complete or not at all. Nothing is paid."""

import dataclasses
import json
import platform
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from open_ner.cli import UserError

from .annotations import Annotations, annotate_passages
from .answers import record_cost
from .config import BuildConfig, TeacherConfig
from .figures import plot_all
from .journal import Journal
from .passages import load_passages
from .questions import RECORDED, prompt_hash, questions
from .report import PAPER, provenance, summarise
from .uniner_distill import materialise

KEPT = ("reply", "finish_reason", "model", "time")  # of a journal's record
REJECT = ("variant", "passage_id", "reason", "span", "type")


def build(config: BuildConfig, folder: Path, finish: Callable[[Path], None]) -> Path:
    """Annotations, conversations, statistics and figures, from passages and journal alone; returns their folder.

    `finish` writes the card into that folder, from the `stats.json` it finds there.
    """
    tokens = {passage.id: passage.tokens for passage in load_passages(folder)}
    replies, answers = read_replies(config.teacher, folder)
    student = config.dataset.tokenizer or config.corpus.tokenizer
    target = Path(config.dataset_dir) if config.dataset_dir else folder / "dataset"
    sources: dict[str, Path] = {}
    stats: dict[str, Any] = {"variants": {}}
    with replaced(target) as partial, Rejects(partial / "rejects") as rejects:
        for variant in config.teacher.variants:
            found = annotate_passages(
                load_passages(folder), replies.pop(variant), variant, config.dataset.max_entity_words
            )
            sources[variant] = folder / f"annotations.{variant}.jsonl"
            write_annotations(found, variant, sources[variant], tokens if student == config.corpus.tokenizer else {})
            rejects.write_annotations(variant, found)
            stats["variants"][variant] = {
                "counts": dict(found.counts),
                "hallucination_rate": found.hallucination_rate,
                "merged_types": found.merged_types,
            }
            del found  # its rows are on disk now, and memory is for one variant at a time
        built = materialise(sources, config.dataset, student, partial)
        for name in sources:
            rejects.write_left_out(name, built[name].tally.left_out)
            stats["variants"].setdefault(name, {"counts": {}}).update(summarise(built[name]))
        first = built[next(iter(sources))].annotations
        stats = {
            "name": config.name,
            "licence": config.licence,
            "corpus": _corpus_counts(folder),
            "answers": answers,
            "negatives": {**dataclasses.asdict(config.dataset), "tokenizer": _without_path(student)},
            "prompts": {v: prompt_hash(config.teacher.prompts.get(v, v)) for v in config.teacher.variants},
            **provenance(built, config.teacher.recorded_by if config.teacher.recorded else None),
            **stats,
            "configs": {
                name: {"splits": part.splits, "dataset_info": part.dataset_info} for name, part in built.items()
            },
            "paper": PAPER,
            "versions": {"python": platform.python_version(), "datasets": version("datasets")},
        }
        _write_json(partial / "stats.json", stats)
        _write_json(partial / "types.json", dict(first.counts.most_common()))
        plot_all(stats, first, partial / "figures")
        finish(partial)
    for name, part in built.items():
        print(f"{name}: " + ", ".join(f"{split} {rows}" for split, rows in part.splits.items()))
    return target


def _without_path(student: str) -> str:
    """A Hub id or relative folder as it is; of a path on this machine, which is nobody's business, the name."""
    return Path(student).name if Path(student).is_absolute() else student


def _corpus_counts(folder: Path) -> dict[str, Any]:
    path = folder / "passages.report.json"
    if not path.exists():
        raise UserError(f"{path}: not there; run --stage passages again")
    return json.loads(path.read_text(encoding="utf-8"))["counts"]


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


def write_annotations(found: Annotations, variant: str, path: Path, tokens: dict[str, int]) -> None:
    """A JSONL line per annotated passage; `tokens` are those that the student's tokenizer counted before."""
    print(f"{variant}: {dict(sorted(found.counts.items()))}")
    if not found.rows:
        raise UserError(f"no {variant} annotation is left of all passages: {dict(found.counts)}")
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as lines:
        for row in found.rows:
            counted = {"tokens": tokens[row["id"]]} if row["id"] in tokens else {}
            lines.write(json.dumps({**row, **counted}) + "\n")
    partial.replace(path)


class Rejects:
    """Everything that was left out, with its reason: `rejects.parquet`, and the verbatim replies in `replies.parquet`.

    A reply stands once however many of its entities were left out; `variant` and `passage_id` join the two.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        text = pa.string()
        self._rejects = parquet.ParquetWriter(folder / "rejects.parquet", pa.schema([(name, text) for name in REJECT]))
        reply = pa.schema([("variant", text), ("passage_id", text), ("reply", text)])
        self._replies = parquet.ParquetWriter(folder / "replies.parquet", reply)

    def __enter__(self) -> "Rejects":
        return self

    def __exit__(self, *error: Any) -> None:
        self._rejects.close()
        self._replies.close()

    def write_annotations(self, variant: str, found: Annotations) -> None:
        """Replies and entities that did not become annotations."""
        self._write(self._rejects, ((variant, r.passage_id, r.reason, r.span, r.type) for r in found.rejects))
        replies = {reject.passage_id: reject.reply for reject in found.rejects}
        self._write(self._replies, ((variant, passage_id, reply) for passage_id, reply in replies.items()))

    def write_left_out(self, config: str, left_out: Iterable[tuple[str, str, str]]) -> None:
        """Passages and queries that fit into no conversation."""
        self._write(self._rejects, ((config, passage_id, reason, "", kind) for passage_id, reason, kind in left_out))

    @staticmethod
    def _write(writer: parquet.ParquetWriter, rows: Iterable[tuple[str, ...]]) -> None:
        columns = list(zip(*rows, strict=True)) or [()] * len(writer.schema)
        writer.write_table(pa.table([pa.array(c, pa.string()) for c in columns], schema=writer.schema))


@contextmanager
def replaced(target: Path) -> Iterator[Path]:
    """A folder that takes the place of `target` when the block ends well; until then `target` stays as it is.

    So an interrupted build leaves no half-written dataset, and a finished one no file of the build before it.
    """
    if target.exists() and not (target / "stats.json").exists() and any(target.iterdir()):
        raise UserError(f"{target}: holds files that are no dataset of this program; choose another folder")
    partial, old = (target.with_name(f"{target.name}.{suffix}") for suffix in ("partial", "old"))
    for leftover in (partial, old):
        if leftover.exists():
            shutil.rmtree(leftover)
    partial.mkdir(parents=True)
    yield partial
    if target.exists():
        target.rename(old)
    partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False), encoding="utf-8")
