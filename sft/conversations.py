"""Conversations to token ids and labels: only the answers and their end tokens are learned."""

from bisect import bisect_right
from itertools import islice
from typing import Any

import datasets
from transformers import PreTrainedTokenizerBase

from open_ner.conversation import Message, neutralize, read_answer
from open_ner.tools.errors import UserError

from . import IGNORED
from .branches import lay_out, single_questions
from .template import Span, Template


def tokenize(
    rows: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None,
    window: int | None = None,
    num_proc: int | None = None,
    branches: bool = False,
) -> tuple[datasets.Dataset, dict[str, int]]:
    """Rows with `input_ids`, `labels` and `length`, and what is trained on: conversations, queries, tokens.

    `window` is the positions the model has (sft.tokenizer.read_window), `num_proc` the processes that share the work.
    Raises UserError, naming the row, for a conversation that is not ours or is longer than `max_length` or the window:
    nothing is cut. With `branches` the questions of a row do not see one another (sft.branches.lay_out).
    """
    if "messages" not in rows.column_names:
        raise UserError(
            f"the dataset has columns {rows.column_names} and no `messages`: build it with dataset_builder"
        )
    template = Template(tokenizer)

    def encode(batch: dict[str, list[Any]], indices: list[int]) -> dict[str, list[Any]]:
        names = [_row_name(index, identity) for index, identity in zip(indices, batch.get("id", indices), strict=True)]
        texts, spans, parts = [], [], []
        for name, messages in zip(names, batch["messages"], strict=True):
            check_conversation(messages, name)
            messages = neutralize(messages, template.special_tokens)
            own = single_questions(messages) if branches else [messages]
            parts.append(len(own))
            for text, answers in map(template.spans, own):
                texts.append(text)
                spans.append(answers)
        encoding = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
        columns = zip(encoding["input_ids"], encoding["offset_mapping"], spans, strict=True)
        encoded = ((ids, _labels(ids, offsets, answers)) for ids, offsets, answers in columns)
        if branches:
            rows = [lay_out(list(islice(encoded, number))) for number in parts]
        else:
            rows = [{"input_ids": ids, "labels": labels} for ids, labels in encoded]
        return {
            **{name: [row[name] for row in rows] for name in rows[0]},
            "length": [len(row["input_ids"]) for row in rows],
            "queries": [(len(messages) - 2) // 2 for messages in batch["messages"]],
            "answer_tokens": [len(row["labels"]) - row["labels"].count(IGNORED) for row in rows],
        }

    encoded = rows.map(
        encode,
        batched=True,
        batch_size=200,
        with_indices=True,
        remove_columns=rows.column_names,
        num_proc=num_proc,
        desc="tokenizing conversations",
    )
    lengths = encoded["length"][:]
    longest = max(lengths)
    for limit, what, remedy in (
        (max_length, "max_length", "raise max_length"),
        (window, "the student's window", "choose a student with a longer one"),
    ):
        if limit and longest > limit:
            index = lengths.index(longest)
            name = _row_name(index, rows[index].get("id", index))
            raise UserError(
                f"{name} has {longest} tokens and {what} is {limit} ({sum(n > limit for n in lengths)} of "
                f"{len(lengths)} are longer): {remedy}, or build the dataset with a smaller "
                "dataset.max_conversation_tokens"
            )
    report = {
        "conversations": len(encoded),
        "queries": sum(encoded["queries"]),
        "answer_tokens": sum(encoded["answer_tokens"]),
        "tokens": sum(lengths),
    }
    return encoded.remove_columns(["queries", "answer_tokens"]), report


def encode_conversation(
    messages: list[Message], tokenizer: PreTrainedTokenizerBase, template: Template | None = None
) -> tuple[list[int], list[int]]:
    """Token ids of a conversation, and labels that repeat the ids of each answer and of the token that ends it.

    The text ends with the last answer's end token. The acknowledgement of the passage is not learned (paper, section
    3.2). `template` saves making it for every call. Raises UserError for a conversation or a template that does not
    fit.
    """
    check_conversation(messages)
    text, answers = (template or Template(tokenizer)).spans(messages)
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = encoding["input_ids"]
    return ids, _labels(ids, encoding["offset_mapping"], answers)


def check_conversation(messages: list[Message], name: str = "a conversation") -> None:
    """Raise UserError unless the turns are the paper's: a passage and its acknowledgement, then questions and lists.

    A system turn may stand first. `name` says in the message which conversation it is.
    """
    try:
        turns = [(message["role"], message["content"]) for message in messages]
    except (TypeError, KeyError):
        raise UserError(f"{name}: its messages are no list of role and content: {messages!r:.80}") from None
    turns = turns[1:] if turns and turns[0][0] == "system" else turns
    roles = [role for role, _ in turns]
    if len(turns) < 4 or roles != ["user", "assistant"] * (len(turns) // 2):
        raise UserError(
            f"{name} has the roles {', '.join(roles) or 'of no turn'}: want user, assistant for the passage, "
            "then user, assistant for every question"
        )
    for role, content in turns:
        if not isinstance(content, str):
            raise UserError(f"{name}: a turn of the {role} is no text: {content!r:.80}")
    for _, answer in turns[3::2]:
        if read_answer(answer) is None:
            raise UserError(f"{name}: an answer is no JSON list of strings: {answer!r:.80}")


def _row_name(index: int, identity: Any) -> str:
    return f"row {index}" if identity == index else f"row {index} (id {identity!r:.60})"


def _labels(ids: list[int], offsets: list[Span], answers: list[Span]) -> list[int]:
    """The ids of the tokens inside the answers' spans, -100 elsewhere.

    A byte-level tokenizer may give a space no width of its own, so tokens are told by where they stop.
    """
    labels = [IGNORED] * len(ids)
    stops = [stop for _, stop in offsets]
    for begin, end in answers:
        first, last = bisect_right(stops, begin), bisect_right(stops, end)
        labels[first:last] = ids[first:last]
    return labels
