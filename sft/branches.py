"""Branched training: the questions of a passage as branches over its shared prefix, none in sight of another.

The paper trains a later answer in sight of the earlier questions and answers of its conversation, and asks each type
alone at inference. Here one sequence holds the opening once and then, side by side, what each single-question
conversation adds to it. Position ids restart at the end of the prefix and attention is masked, so each answer is
learned from exactly the tokens that inference will show, at the cost of one pass over the passage.
"""

from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from open_ner.conversation import ACKNOWLEDGEMENT, Message

from . import IGNORED

PREFIX, PADDING = 0, -1  # branch numbers of what every branch sees, and of what no token sees


def single_questions(messages: list[Message]) -> list[list[Message]]:
    """The conversations in which inference asks each question of `messages` alone."""
    opening = next((i + 1 for i, message in enumerate(messages) if message["content"] == ACKNOWLEDGEMENT), 0)
    opening = opening or (1 if messages[0]["role"] == "system" else 0)
    return [[*messages[:opening], *messages[i : i + 2]] for i in range(opening, len(messages), 2)]


def lay_out(encoded: list[tuple[list[int], list[int]]]) -> dict[str, list[int]]:
    """`input_ids`, `labels` and `branches` of one sequence of `(ids, labels)` pairs, one for each question.

    `branches` numbers the branch of each token from 1; what all the single-question conversations begin with is the
    prefix, 0.
    """
    first_ids, first_labels = encoded[0]
    shared = next(i for i, label in enumerate(first_labels) if label != IGNORED)
    if len(encoded) > 1:
        columns = zip(*(ids for ids, _ in encoded), strict=False)
        shared = min(shared, next((i for i, column in enumerate(columns) if len(set(column)) > 1), shared))
    row = {"input_ids": first_ids[:shared], "labels": [IGNORED] * shared, "branches": [PREFIX] * shared}
    for number, (ids, labels) in enumerate(encoded, start=1):
        row["input_ids"] += ids[shared:]
        row["labels"] += labels[shared:]
        row["branches"] += [number] * (len(ids) - shared)
    return row


class BranchCollator:
    """Pads rows of `lay_out` to tensors of shape (batch, length), with the position ids of their branches."""

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """`input_ids`, `labels`, `branches`, `position_ids` and, for what counts tokens, `attention_mask`."""
        padding = {"input_ids": self.pad_token_id, "labels": IGNORED, "branches": PADDING, "position_ids": 0}
        rows = [{**row, "position_ids": positions(row["branches"])} for row in rows]
        batch = {
            name: pad_sequence([torch.tensor(row[name]) for row in rows], batch_first=True, padding_value=value)
            for name, value in padding.items()
        }
        return {**batch, "attention_mask": (batch["branches"] != PADDING).long()}


def positions(branches: list[int]) -> list[int]:
    """Position ids: those of the prefix, then for each branch the ones that follow the prefix."""
    prefix = branches.count(PREFIX)
    result, previous, position = [], PREFIX, 0
    for branch in branches:
        if branch != previous:
            previous, position = branch, prefix
        result.append(position)
        position += 1
    return result


def attention_mask(branches: torch.Tensor, implementation: str) -> Any:
    """What lets a token see the prefix and its own branch up to itself, and nothing else.

    `branches` has shape (batch, length). Returns a boolean mask of shape (batch, 1, length, length) for `sdpa`, or the
    block mask of `flex_attention`, which skips the blocks that no token sees. Raises ValueError for another kind.
    """
    if implementation == "flex_attention":
        from torch.nn.attention.flex_attention import create_block_mask

        def visible(row: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
            own, seen = branches[row, query], branches[row, key]
            return (key <= query) & ((seen == PREFIX) | (seen == own))

        rows, length = branches.shape
        return create_block_mask(visible, rows, None, length, length, device=branches.device)
    if implementation != "sdpa":
        raise ValueError(f"branched training needs attn_implementation sdpa or flex_attention, not {implementation}")
    seen = branches[:, None, :]
    return ((seen == PREFIX) | (seen == branches[:, :, None])).tril()[:, None]


def see_own_branch_only(model: PreTrainedModel) -> None:
    """Teach a causal language model's `forward` the argument `branches`, of shape (batch, length)."""
    inner = model.forward

    def forward(*args: Any, branches: torch.Tensor | None = None, **kwargs: Any) -> Any:
        if branches is not None:
            kwargs["attention_mask"] = attention_mask(branches, model.config._attn_implementation)
        return inner(*args, **kwargs)

    model.forward = forward
