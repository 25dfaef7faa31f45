"""Conversations as token ids and labels: only answers and their end tokens are learned."""

from bisect import bisect_right
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
from datasets.exceptions import DatasetsError
from transformers import PreTrainedTokenizerBase

from command_line.public import public_path
from command_line.spelling import SAMPLE, spelling_warning
from open_ner.conversation import ACKNOWLEDGEMENT, Message, Span, neutralize, read_answer, read_conversation
from open_ner.tools.errors import UserError

from . import IGNORED
from .branches import lay_out, single_queries
from .template import Template


def load_conversations(name: str, config: str, split: str, first: int | None, fresh: bool) -> datasets.Dataset:
    """Load a split of a dataset with a `messages` column.

    Args:
        name: Folder or Hub id of the dataset.
        config: Config of the dataset.
        split: Split to load.
        first: Number of rows to keep; None keeps all.
        fresh: Whether a local folder is read again instead of from the cache.

    Raises:
        UserError: The split cannot be read or has no rows.
    """
    # the cache key of a local folder does not depend on its contents, so a rebuilt dataset must bypass the cache
    mode = "force_redownload" if fresh and Path(name).is_dir() else None
    try:
        rows = datasets.load_dataset(name, config, split=split, download_mode=mode)
    except (DatasetsError, OSError, ValueError) as error:
        where = f"dataset {name!r}, config {config!r}, split {split!r}"
        raise UserError(f"{where} cannot be read: {str(error):.200}") from None
    if not len(rows):
        raise UserError(f"dataset {name!r} has no rows in split {split!r}")
    return rows.select(range(min(first or len(rows), len(rows))))


def check_spelling(rows: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, student: str) -> str | None:
    """Return a warning if the student's tokenizer spells the passages of a dataset in bytes; otherwise None.

    Call it after `tokenize`, which checks the rows.
    """
    conversations = rows[:SAMPLE]["messages"]
    texts = [next(turn["content"] for turn in turns if turn["role"] == "user") for turns in conversations]  # passages

    def count(texts: list[str]) -> int:
        return sum(map(len, tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]))

    return spelling_warning(public_path(student), texts, count)


def tokenize(
    rows: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int | None,
    max_positions: int | None = None, num_proc: int | None = None, branches: bool = False,
) -> tuple[datasets.Dataset, dict[str, int]]:  # fmt: skip
    """Tokenize the `messages` of each row; nothing is truncated.

    Args:
        rows: A dataset with the column `messages`, and optionally `id`.
        tokenizer: The student's tokenizer with its chat template.
        max_length: Maximum number of tokens of a conversation.
        max_positions: The student's position limit (sft.tokenizer.read_max_positions).
        num_proc: Number of processes.
        branches: Whether the queries of a row are laid out as branches (sft.branches.lay_out).

    Returns:
        Rows with `input_ids`, `labels`, `length` and, with branches, `branches`; and the numbers of `conversations`,
        `queries`, queries whose type is `present` in the passage, `answer_tokens` and `tokens`.

    Raises:
        UserError: A row is not a conversation of the dialogue, or exceeds a limit; the message names the row.
    """
    if "messages" not in (columns := rows.column_names):
        raise UserError(f"the dataset has columns {columns} and no `messages`: build it with dataset_builder")
    template = Template(tokenizer)

    def encode(batch: dict[str, list[Any]], indices: list[int]) -> dict[str, list[Any]]:
        names = [_row_name(index, identity) for index, identity in zip(indices, batch.get("id", indices), strict=True)]
        for name, messages in zip(names, batch["messages"], strict=True):
            check_conversation(messages, name)
        rows = _encode(batch["messages"], tokenizer, template, branches)
        return {
            **{name: [row[name] for row in rows] for name in rows[0]},
            "length": [len(row["input_ids"]) for row in rows],
            "queries": [(len(messages) - 2) // 2 for messages in batch["messages"]],
            "present": [
                sum(m["content"] not in (ACKNOWLEDGEMENT, "[]") for m in own if m["role"] == "assistant")
                for own in batch["messages"]
            ],
            "answer_tokens": [len(row["labels"]) - row["labels"].count(IGNORED) for row in rows],
        }

    encoded = rows.map(
        encode, batched=True, batch_size=200, with_indices=True, remove_columns=columns, num_proc=num_proc,
        desc="tokenizing conversations",
    )  # fmt: skip
    lengths = encoded["length"][:]
    _refuse_too_long(rows, lengths, max_length, "max_length", "raise max_length")
    what, remedy = "the student's max_position_embeddings", "choose a student with more positions"
    _refuse_too_long(rows, lengths, max_positions, what, remedy)
    report = {
        "conversations": len(encoded), "queries": sum(encoded["queries"]), "present": sum(encoded["present"]),
        "answer_tokens": sum(encoded["answer_tokens"]), "tokens": sum(lengths),
    }  # fmt: skip
    return encoded.remove_columns(["queries", "present", "answer_tokens"]), report


def _encode(
    conversations: list[list[Message]], tokenizer: PreTrainedTokenizerBase, template: Template, branches: bool
) -> list[dict[str, list]]:
    """Return the token ids and labels of conversations, each laid out as branches or as it is."""
    texts, spans, parts = [], [], []
    for messages in conversations:
        messages = neutralize(messages, template.special_tokens)
        own = single_queries(messages) if branches else [messages]
        parts.append(len(own))
        for text, answers in map(template.single if branches else template.spans, own):
            texts.append(text)
            spans.append(answers)
    encoding = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    tokens = zip(encoding["input_ids"], encoding["offset_mapping"], spans, strict=True)
    encoded = ((ids, _labels(ids, offsets, answers)) for ids, offsets, answers in tokens)
    if branches:
        return [lay_out(list(islice(encoded, number))) for number in parts]
    return [{"input_ids": ids, "labels": labels} for ids, labels in encoded]


def _refuse_too_long(rows: datasets.Dataset, lengths: list[int], limit: int | None, what: str, remedy: str) -> None:
    """Raise UserError, which names the longest row, if a row has more tokens than a limit."""
    longest = max(lengths)
    if not limit or longest <= limit:
        return
    index, number = lengths.index(longest), sum(length > limit for length in lengths)
    name = _row_name(index, rows[index].get("id", index))
    raise UserError(
        f"{name} has {longest} tokens and {what} is {limit} ({number} of {len(lengths)} are longer): {remedy}, "
        "or build the dataset with a smaller dataset.max_conversation_tokens"
    )


def check_conversation(messages: list[Message], name: str = "a conversation") -> None:
    """Raise UserError unless the turns are the paper's: passage and acknowledgement, then queries and JSON lists.

    A system turn may come first. `name` identifies the conversation in the error message.
    """
    if not isinstance(messages, list) or not all(
        isinstance(turn, dict) and isinstance(turn.get("role"), str) and "content" in turn for turn in messages
    ):
        raise UserError(f"{name}: its messages are not a list of role and content: {messages!r:.80}")
    turns = messages[1:] if messages and messages[0]["role"] == "system" else messages
    roles = [turn["role"] for turn in turns]
    if len(turns) < 4 or roles != ["user", "assistant"] * (len(turns) // 2):
        raise UserError(
            f"{name} has the roles {', '.join(roles) or '(none)'}: want user, assistant for the passage, "
            "then user, assistant for every query"
        )
    for turn in turns:
        if not isinstance(turn["content"], str):
            raise UserError(f"{name}: a turn of the {turn['role']} is not text: {turn['content']!r:.80}")
    for turn in turns[3::2]:
        if read_answer(turn["content"]) is None:
            raise UserError(f"{name}: an answer is not a JSON list of strings: {turn['content']!r:.80}")
    try:
        read_conversation(messages)
    except ValueError as error:
        raise UserError(f"{name}: {error}") from None


def _row_name(index: int, identity: Any) -> str:
    return f"row {index}" if identity == index else f"row {index} (id {identity!r:.60})"


def _labels(ids: list[int], offsets: list[Span], answers: list[Span]) -> list[int]:
    """Return the ids of the tokens inside the spans of the answers, and -100 elsewhere.

    Tokens are located by their ends, because a byte-level tokenizer may give a space an empty span.
    """
    labels = [IGNORED] * len(ids)
    stops = [stop for _, stop in offsets]
    for begin, end in answers:
        first, last = bisect_right(stops, begin), bisect_right(stops, end)
        labels[first:last] = ids[first:last]
    return labels
