"""Branched training: the queries of a passage as branches over a shared prefix; no branch attends to another.

The paper trains each later answer with the earlier queries and answers of its conversation in view, but asks each type
alone at inference. Here one sequence holds the opening turns once, followed by what each single-query conversation
adds to them. Position ids restart at the end of the prefix and attention is masked, so each answer is learned from
exactly the tokens that inference shows, at the cost of one pass over the passage.
"""

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedConfig, PreTrainedModel

from open_ner.conversation import Message
from open_ner.packing import attention_kinds

from . import IGNORED

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

    AttentionMask = torch.Tensor | BlockMask

PREFIX, PADDING = 0, -1  # branch numbers: tokens that all branches attend to; tokens that no branch attends to


def single_queries(messages: list[Message]) -> list[list[Message]]:
    """Split a conversation into one conversation per query, as inference asks them."""
    opening = 3 if messages[0]["role"] == "system" else 2  # system, passage, acknowledgement
    return [[*messages[:opening], *messages[i : i + 2]] for i in range(opening, len(messages), 2)]


def lay_out(encoded: list[tuple[list[int], list[int]]]) -> dict[str, list[int]]:
    """Join a passage's single-query conversations into one sequence.

    Args:
        encoded: The `(ids, labels)` of each conversation.

    Returns:
        `input_ids`, `labels`, and `branches`: the number of each token's query from 1, or 0 for the tokens that all
        conversations begin with.
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


@dataclass
class BranchCollator:
    """Pads rows of `lay_out` to tensors of shape (batch, length) and adds their position ids."""

    pad_token_id: int

    def __call__(self, rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        """Return `input_ids`, `labels`, `branches`, `position_ids`, and the `attention_mask` of padding."""
        padding = {"input_ids": self.pad_token_id, "labels": IGNORED, "branches": PADDING, "position_ids": 0}
        rows = [{**row, "position_ids": positions(row["branches"])} for row in rows]
        batch = {
            name: pad_sequence([torch.tensor(row[name]) for row in rows], batch_first=True, padding_value=value)
            for name, value in padding.items()
        }
        return {**batch, "attention_mask": (batch["branches"] != PADDING).long()}


def positions(branches: list[int]) -> list[int]:
    """Return the position ids of a sequence: each branch continues from the end of the prefix."""
    prefix = branches.count(PREFIX)
    own = (len(list(tokens)) for branch, tokens in groupby(branches) if branch != PREFIX)
    return [*range(prefix), *(prefix + i for length in own for i in range(length))]


def attention_mask(
    branches: torch.Tensor, position_ids: torch.Tensor, config: PreTrainedConfig
) -> "AttentionMask | dict[str, AttentionMask]":
    """Return the mask that lets a token attend to the prefix and to its own branch up to itself, within the window.

    Args:
        branches: Branch numbers, of shape (batch, length).
        position_ids: Position ids, of the same shape.
        config: The model's config, with its attention implementation.

    Returns:
        A tensor of shape (batch, 1, length, length), boolean for sdpa and additive for eager, or the block mask of
        flex_attention, which skips fully masked blocks. If layers differ in attention, a dict with one mask per kind.
    """
    masks = {}
    for kind, window in attention_kinds(config).items():
        reach = window or branches.shape[1]
        if config._attn_implementation == "flex_attention":
            masks[kind] = _block_mask(branches, position_ids, reach)
            continue
        seen, back = branches[:, None, :], position_ids[:, :, None] - position_ids[:, None, :]
        visible = (((seen == PREFIX) | (seen == branches[:, :, None])) & (back < reach)).tril()[:, None]
        hidden = torch.finfo(torch.float32).min
        masks[kind] = visible if config._attn_implementation == "sdpa" else (~visible).float() * hidden
    return masks if len(masks) > 1 else next(iter(masks.values()))


def _block_mask(branches: torch.Tensor, position_ids: torch.Tensor, reach: int) -> "BlockMask":
    from torch.nn.attention.flex_attention import create_block_mask

    def visible(row: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        own, seen = branches[row, query], branches[row, key]
        near = position_ids[row, query] - position_ids[row, key] < reach
        return (key <= query) & ((seen == PREFIX) | (seen == own)) & near

    rows, length = branches.shape
    return create_block_mask(visible, rows, None, length, length, device=branches.device)


def see_own_branch_only(model: PreTrainedModel) -> None:
    """Replace `forward` of a model's layers, so that `branches` of shape (batch, length) set the attention mask.

    The head still gets the padding mask, which the load-balancing loss of mixture-of-experts models needs.
    """
    backbone = model.base_model
    inner = backbone.forward

    def forward(*args: Any, branches: torch.Tensor | None = None, **kwargs: Any) -> Any:
        if branches is not None:
            kwargs["attention_mask"] = attention_mask(branches, kwargs["position_ids"], model.config)
        return inner(*args, **kwargs)

    backbone.forward = forward
