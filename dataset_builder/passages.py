"""Documents of any `datasets` source become passages of at most so many tokens, with offsets into their document."""

import gzip
import hashlib
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from open_ner.cli import UserError

from .config import CorpusConfig

WORD = re.compile(r"\S+")
LOCAL_READERS = {".parquet": "parquet", ".txt": "text", ".csv": "csv"}


def text_sha256(text: str) -> str:
    """Hex SHA-256 of a text's UTF-8, the name a passage's recorded answers know it by."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass
class Passage:
    """`text == document[start:end]`; `tokens` counts the corpus's tokenizer."""

    id: str
    text: str
    source: str
    source_id: str
    licence: str
    start: int
    end: int
    tokens: int


@dataclass
class Dropped:
    """A document or passage left out, and why."""

    id: str
    reason: str
    text: str


def read_documents(config: CorpusConfig) -> Iterator[dict[str, Any]]:
    """Rows of the corpus, one after the other; raises UserError for what cannot be read."""
    path = Path(config.path)
    if path.name.endswith((".jsonl", ".jsonl.gz", ".json.gz")):
        rows = _read_jsonl(path)
    else:
        rows = _read_datasets(config, path)
    for number, row in enumerate(rows, 1):
        if config.text_column not in row:
            raise UserError(
                f"{config.path}: row {number} has no column {config.text_column!r}, only {sorted(row)}: "
                "set corpus.text_column"
            )
        yield row


def make_passages(config: CorpusConfig) -> Iterator[Passage | Dropped]:
    """Passages of the corpus in its order, and what was dropped and why.

    Reasons: `not_unicode` (a lone surrogate), `empty`, `too_short`, `word_too_long`, `duplicate`.
    """
    count_tokens = _token_counter(config.tokenizer)
    seen: set[str] = set()
    ids: set[str] = set()
    kept = 0
    for row in read_documents(config):
        document = row[config.text_column]
        if not isinstance(document, str):
            raise UserError(f"{config.path}: column {config.text_column!r} holds {document!r:.60}, not text")
        digest = text_sha256(document)
        given = row.get(config.id_column) if config.id_column else None
        source_id = digest[:16] if given in (None, "") else str(given)
        if any("\ud800" <= character <= "\udfff" for character in document):
            yield Dropped(source_id, "not_unicode", document)
            continue
        windows = list(cut_windows(document, config.max_tokens, count_tokens))
        if not windows:
            yield Dropped(source_id, "empty", document)
        for start, end, tokens in windows:
            text = document[start:end]
            whole = len(windows) == 1
            passage = Passage(
                id=source_id if whole else f"{source_id}:{start}",
                text=text,
                source=str(row.get(config.source_column) or "") if config.source_column else "",
                source_id=source_id,
                licence=str(row.get(config.licence_column) or "") if config.licence_column else "",
                start=start,
                end=end,
                tokens=tokens,
            )
            reason = _why_not(passage, config, seen)
            if reason:
                yield Dropped(passage.id, reason, text)
                continue
            if passage.id in ids:  # the corpus gives an id twice: answers are kept by id, so make it one of its own
                passage.id = f"{passage.id}~{text_sha256(text)[:8]}"
            ids.add(passage.id)
            yield passage
            kept += 1
            if config.limit and kept == config.limit:
                return


def cut_windows(
    document: str, max_tokens: int, count_tokens: Callable[[str], list[int]]
) -> Iterator[tuple[int, int, int]]:
    """Windows `(start, end, tokens)` of whole words that cover the document and re-tokenise to at most `max_tokens`.

    `count_tokens` maps a text to the start offset of each of its tokens. A single word beyond the limit comes out as a
    window of its own, with its count, for the caller to reject.
    """
    words = [match.span() for match in WORD.finditer(document)]
    first = 0
    while first < len(words):
        # a word has at least one token, so no window holds more words than tokens
        last = min(first + max_tokens, len(words)) - 1
        start = words[first][0]
        offsets = count_tokens(document[start : words[last][1]])
        while len(offsets) > max_tokens and last > first:
            limit = start + offsets[max_tokens]  # where the first token too many begins
            last = max(first, next(i for i in range(last, first - 1, -1) if i == first or words[i][1] <= limit))
            offsets = count_tokens(document[start : words[last][1]])
            if len(offsets) > max_tokens and last > first:
                last -= 1
                offsets = count_tokens(document[start : words[last][1]])
        yield start, words[last][1], len(offsets)
        first = last + 1


def write_passages(config: CorpusConfig, folder: Path) -> dict[str, Any]:
    """Write `passages.jsonl` and `dropped_passages.jsonl`; returns counts: kept, and dropped by reason.

    Passages already written from the same corpus with the same options are left as they are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    local = Path(config.path)
    state = [local.stat().st_size, local.stat().st_mtime_ns] if local.is_file() else None
    origin = {"options": asdict(config), "file": state}
    report = folder / "passages.report.json"
    if report.exists() and (folder / "passages.jsonl").exists():
        before = json.loads(report.read_text())
        if before["origin"] == origin:
            return before["counts"]
    kept, reasons = 0, Counter()
    partial = folder / "passages.jsonl.partial"
    with partial.open("w", encoding="utf-8") as good, (folder / "dropped_passages.jsonl").open("w") as bad:
        for item in tqdm(make_passages(config), desc="passages", unit=" passages"):
            if isinstance(item, Passage):
                kept += 1
            else:
                reasons[item.reason] += 1
            print(json.dumps(asdict(item)), file=good if isinstance(item, Passage) else bad)
    if not kept:
        raise UserError(f"{config.path}: no passage left of this corpus; dropped: {dict(reasons) or 'it has no rows'}")
    partial.replace(folder / "passages.jsonl")
    counts = {"kept": kept, "dropped": dict(reasons)}
    report.write_text(json.dumps({"origin": origin, "counts": counts}, indent=1))
    return counts


class StoredPassages:
    """Passages written by `write_passages`, in order; may be read again and again, and is never held in memory."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "passages.jsonl"
        if not self.path.exists():
            raise UserError(f"{self.path}: not there yet; run --stage passages first")

    def __iter__(self) -> Iterator[Passage]:
        with self.path.open(encoding="utf-8") as lines:
            for line in lines:
                yield Passage(**json.loads(line))


def load_passages(folder: Path) -> StoredPassages:
    """The passages of a run's folder; UserError where that stage has not run yet."""
    return StoredPassages(folder)


def _why_not(passage: Passage, config: CorpusConfig, seen: set[str]) -> str | None:
    if len(passage.text.split()) < config.min_words:
        return "too_short"
    if passage.tokens > config.max_tokens:
        return "word_too_long"
    digest = text_sha256(passage.text)
    if digest in seen:
        return "duplicate"
    seen.add(digest)
    return None


def load_tokenizer(name: str) -> Any:
    """The tokenizer `name` (folder or Hub id), which never cuts or pads; light: no torch, no model."""
    from tokenizers import Tokenizer

    file = Path(name) / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(file)) if file.exists() else Tokenizer.from_pretrained(name)
    except Exception as error:  # tokenizers raises bare Exception
        raise UserError(
            f"corpus.tokenizer {name!r} is neither a folder with a tokenizer.json nor a Hub id that can be reached "
            f"({str(error):.120}); `make setup` puts the default one in place"
        ) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _token_counter(name: str) -> Callable[[str], list[int]]:
    """A function from text to the start of each of its tokens."""
    tokenizer = load_tokenizer(name)
    return lambda text: [start for start, _ in tokenizer.encode(text, add_special_tokens=False).offsets]


def _read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        raise UserError(f"{path}: no such file: set corpus.path to your corpus")
    opener = gzip.open if path.suffix == ".gz" else open
    number = 0
    try:
        with opener(path, "rt", encoding="utf-8-sig") as lines:  # some editors write a mark first
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise UserError(f"{path}: line {number} is no JSON object: {line.strip()[:60]!r}")
                yield row
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: line {number} is not JSON ({error.msg} at column {error.colno})") from None
    except (UnicodeDecodeError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UserError(f"{path}: not readable after line {number}: {error}") from None


def _read_datasets(config: CorpusConfig, path: Path) -> Iterator[dict[str, Any]]:
    """Everything else goes through `datasets`, streaming, so that no corpus is held in memory or on disk."""
    from datasets import load_dataset

    try:
        if path.suffix in LOCAL_READERS or path.is_file():
            if not path.exists():
                raise UserError(f"{path}: no such file: set corpus.path to your corpus")
            reader = LOCAL_READERS.get(path.suffix)
            if reader is None:
                raise UserError(f"{path}: unknown kind of file: use .jsonl, .jsonl.gz, {', '.join(LOCAL_READERS)}")
            yield from load_dataset(reader, data_files=str(path), split="train", streaming=True)
        else:
            yield from load_dataset(config.path, config.name, split=config.split, streaming=True)
    except UserError:
        raise
    except Exception as error:  # `datasets` raises dozens of kinds for a source it cannot read
        raise UserError(f"corpus.path {config.path!r} cannot be read: {str(error):.200}") from None
