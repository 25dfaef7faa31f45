"""Conversations to token ids and labels: only the answers and their end tokens are learned."""

from collections.abc import Callable
from typing import Any

import datasets
from transformers import PreTrainedTokenizerBase

from open_ner.cli import UserError
from open_ner.conversation import ACKNOWLEDGEMENT, Message, neutralise, read_answer

IGNORED = -100


def encode_turns(messages: list[Message], tokenizer: PreTrainedTokenizerBase) -> dict[str, list[int]]:
    """`input_ids` and `labels` of a whole conversation, later answers in sight of earlier ones."""
    ids, labels = encode_conversation(messages, tokenizer)
    return {"input_ids": ids, "labels": labels}


def tokenize(
    rows: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None,
    encode: Callable[[list[Message], PreTrainedTokenizerBase], dict[str, list[int]]] = encode_turns,
) -> tuple[datasets.Dataset, dict[str, int]]:
    """Rows of what `encode` gives and their `length`, and what is trained on: conversations, queries, tokens.

    Raises UserError for a dataset without `messages`, and for a conversation longer than `max_length`: nothing is cut.
    """
    if "messages" not in rows.column_names:
        raise UserError(
            f"the dataset has columns {rows.column_names} and no `messages`: build it with dataset_builder"
        )
    if tokenizer.chat_template is None:
        raise UserError(f"{tokenizer.name_or_path} has no chat template: choose an instruct model as the student")
    if tokenizer.eos_token_id is None:
        raise UserError(f"{tokenizer.name_or_path} has no end-of-sequence token: an answer could not end")
    special = [*tokenizer.get_added_vocab(), *tokenizer.all_special_tokens]

    def encode_row(row: dict[str, Any]) -> dict[str, Any]:
        encoded = encode(neutralise(row["messages"], special), tokenizer)
        return {**encoded, "length": len(encoded["input_ids"])}

    encoded = rows.map(encode_row, remove_columns=rows.column_names, desc="tokenizing conversations")
    longest = max(encoded["length"])
    if max_length and longest > max_length:
        raise UserError(
            f"a conversation has {longest} tokens and max_length is {max_length}: raise max_length or build the "
            "dataset with a smaller dataset.max_conversation_tokens"
        )
    report = {
        "conversations": len(encoded),
        "queries": sum((len(messages) - 3) // 2 for messages in rows["messages"]),
        "answer_tokens": sum(sum(label != IGNORED for label in labels) for labels in encoded["labels"]),
        "tokens": sum(encoded["length"]),
    }
    return encoded, report


def encode_conversation(messages: list[Message], tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Token ids of a conversation, and labels that repeat the ids of each answer and of the token that ends it.

    Works with any chat template that renders a conversation's beginning the same whatever follows it: what a template
    adds for an answer is the difference between two renderings. The acknowledgement of the passage is not learned
    (paper, section 3.2). Raises UserError for a template or a conversation that does not fit.
    """
    check_roles(messages)
    render = lambda part, **options: tokenizer.apply_chat_template(part, tokenize=False, **options)  # noqa: E731
    text = render(messages)
    answers = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant" or message["content"] == ACKNOWLEDGEMENT:
            continue
        begin = len(render(messages[:index], add_generation_prompt=True))
        end = len(render(messages[: index + 1]).rstrip())
        if text[begin:end] == message["content"]:
            raise UserError(f"the chat template of {tokenizer.name_or_path} puts no end token after an answer")
        if not text[begin:end].startswith(message["content"]) or text[:end] != render(messages[: index + 1]).rstrip():
            raise UserError(f"the chat template of {tokenizer.name_or_path} rewrites earlier turns: not supported")
        answers.append((begin, end))
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = encoding["input_ids"]
    labels = [IGNORED] * len(ids)
    spans = iter(answers)
    begin, end = next(spans, (len(text), len(text)))
    for position, (start, stop) in enumerate(encoding["offset_mapping"]):
        while start >= end and begin < len(text):
            begin, end = next(spans, (len(text), len(text)))
        if begin <= start and stop <= end and start < stop:
            labels[position] = ids[position]
    return ids, labels


def check_roles(messages: list[Message]) -> None:
    """Raise UserError unless user and assistant alternate, after an optional system turn, and answers are lists."""
    turns = messages[1:] if messages and messages[0]["role"] == "system" else messages
    expected = ["user", "assistant"] * (len(turns) // 2)
    if not turns or [message["role"] for message in turns] != expected:
        raise UserError(
            f"a conversation has the roles {[message['role'] for message in messages]}: want user, assistant, ..."
        )
    for message in turns[3::2]:
        if read_answer(message["content"]) is None:
            raise UserError(f"an answer is no JSON list of strings: {message['content']!r:.80}")
