"""Run all queries of a passage through the model in one sequence that contains the passage once.

UniversalNER sends one prompt per query, and each repeats the passage. Here a row of the batch is the passage, then the
rest of each query's prompt without its last token (`?`), then these last tokens, so that all logits that are needed
are at the end, then the answers, one token of each per forward pass. For example, with two queries:

    token      The  cat  sat | person  animal |  ?   ?  |  []  [" | cat
    owner      -1   -1   -1  |   0       1    |  0   1  |  0   1  |  1
    position    0    1    2  |   3       3    |  4   4  |  5   5  |  6

A token attends only to the passage (owner `SHARED`, -1) and to its own query, and positions count as in the separate
prompt, so each answer is the one that the separate prompt would get. The key/value cache has a column per token. A
cell (one row, one column) that is no longer needed gets the owner `NOBODY`, which hides it; `keep` removes hidden
cells.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel

SHARED, NOBODY = -1, -2
CHUNK = 2048  # columns per forward pass; bounds the memory for the mask and the activations of a long passage
# model types whose layers cannot share a passage among queries, although their config does not say so
UNSUPPORTED = {"bloom": "ALiBi", "mpt": "ALiBi", "rwkv": "recurrent state", "gpt_neo": "window over cache columns"}
ATTENTION = ("full_attention", "sliding_attention")


@dataclass
class Tokens:
    """Input tokens of a row for the next forward pass: ids, owners (a query's number, or SHARED), positions."""

    ids: list[int] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)

    def add(self, ids: Sequence[int], owner: int, position: int) -> None:
        """Append tokens of one owner; `position` is that of the first."""
        self.ids += ids
        self.owners += [owner] * len(ids)
        self.positions += range(position, position + len(ids))


class Packed:
    """Key/value cache of a batch, with the owner and the position of each cell in tensors of (rows, columns)."""

    def __init__(self, model: PreTrainedModel, rows: int, pad: int) -> None:
        self.model, self.pad = model, pad
        # transformers 5.23 renamed forward()'s `past_key_values`, and 5.40 will remove the old name
        names = inspect.signature(type(model).forward).parameters
        self.cache_argument = "cache" if "cache" in names else "past_key_values"
        self.cache = DynamicCache()  # without a config, so that sliding-window layers keep every column too
        self.owners = torch.full((rows, 0), NOBODY, device=model.device)
        self.positions = self.owners.clone()
        self.waste = 0  # number of cells hidden by `release` (padding excluded) and not yet removed by `keep`

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.owners.shape[1]

    @property
    def size(self) -> int:
        """Number of cells."""
        return self.owners.numel()

    def read(self, rows: Sequence[Tokens], last: int) -> torch.Tensor:
        """Append the tokens of each row, padded on the left to equal length, and run the model on them.

        Returns:
            The logits after the last `last` tokens of each row, of shape (rows, last, vocabulary).
        """
        width = max(len(row.ids) for row in rows)
        padded = [(width - len(row.ids), row) for row in rows]
        ids = torch.tensor([[self.pad] * pads + row.ids for pads, row in padded], device=self.model.device)
        owners = torch.tensor([[NOBODY] * pads + row.owners for pads, row in padded], device=self.model.device)
        positions = torch.tensor([[0] * pads + row.positions for pads, row in padded], device=self.model.device)
        *earlier, final = range(0, max(width - last, 1), CHUNK)
        for begin in earlier:
            part = slice(begin, begin + CHUNK)
            self._forward(ids[:, part], owners[:, part], positions[:, part], 1)
        return self._forward(ids[:, final:], owners[:, final:], positions[:, final:], last)

    def release(self, queries: Sequence[tuple[int, int]]) -> None:
        """Hide the cells of queries that are done, given as (row, number)."""
        released = torch.zeros_like(self.owners, dtype=torch.bool)
        for row, query in queries:
            released[row] |= self.owners[row] == query
        self.owners[released] = NOBODY
        self.waste += int(released.sum())

    def keep(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order, and remove hidden cells; rows with fewer cells are left-padded."""
        index = torch.tensor(rows, device=self.owners.device)[:, None]
        used = self.owners[index[:, 0]] != NOBODY
        width, self.waste = int(used.sum(1).max()), 0
        columns = used.int().argsort(dim=1, stable=True)[:, used.shape[1] - width :]  # hidden cells are sorted first
        self.owners, self.positions = self.owners[index, columns], self.positions[index, columns]
        for layer in self.cache.layers:
            for name in ("keys", "values"):
                states = getattr(layer, name)  # (rows, heads, columns, size), on any device with device_map="auto"
                kept = states[index.to(states.device), :, columns.to(states.device)]  # (rows, columns, heads, size)
                setattr(layer, name, kept.transpose(1, 2))

    def _forward(self, ids: torch.Tensor, owners: torch.Tensor, positions: torch.Tensor, last: int) -> torch.Tensor:
        """Run the model on new columns; return the logits after the last `last` of them."""
        self.owners = torch.cat([self.owners, owners], dim=1)
        self.positions = torch.cat([self.positions, positions], dim=1)
        cached_owner, new_owner = self.owners[:, None, :], owners[:, :, None]
        distance = positions[:, :, None] - self.positions[:, None, :]  # (rows, new columns, all columns)
        visible = ((cached_owner == SHARED) | (cached_owner == new_owner)) & (distance >= 0)
        visible |= new_owner == NOBODY  # padding attends to everything: a row of only masked cells would give NaN
        masks = {}
        for kind, window in attention_kinds(self.model.config).items():
            seen = visible & (distance < window) if window else visible
            mask = torch.zeros(seen.shape, dtype=self.model.dtype, device=seen.device)
            masks[kind] = mask.masked_fill_(~seen, torch.finfo(mask.dtype).min)[:, None]
        return self.model(
            input_ids=ids,
            attention_mask=masks if len(masks) > 1 else next(iter(masks.values())),
            position_ids=positions,
            use_cache=True,
            logits_to_keep=last,
            **{self.cache_argument: self.cache},
        ).logits


def attention_kinds(config: PreTrainedConfig) -> dict[str, int | None]:
    """Return the kinds of attention of a model's layers.

    Returns:
        For each kind its window in tokens (a token sees that many positions, its own included), or None without one.

    Raises:
        ValueError: a layer's state cannot be shared by several queries (linear attention), or its positions are not
            taken from `position_ids` (ALiBi).
    """
    config = config.get_text_config()
    window = getattr(config, "sliding_window", None)
    default = ["sliding_attention" if window else "full_attention"]
    kinds: list[str] = list(dict.fromkeys(getattr(config, "layer_types", None) or default))
    other = [kind for kind in kinds if kind not in ATTENTION]
    alibi = "ALiBi" if getattr(config, "alibi", False) else ""
    why = ", ".join(other) or UNSUPPORTED.get(config.model_type, alibi)
    if why:
        raise ValueError(
            f"models of type {config.model_type!r} ({why}) are not supported: "
            f"the layers must have {' or '.join(ATTENTION)} and rotary or learned positions"
        )
    return {kind: window if kind == "sliding_attention" else None for kind in kinds}
