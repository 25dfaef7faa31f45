"""A passage and all its queries as one sequence: the queries share the passage's keys and values, uncopied.

Every column of the cache has an owner, the passage or one query, and a position in its owner's own prompt. A token
sees the columns of the passage and of its own query that lie before it, so that each query is answered as if it
alone had followed the passage. Columns that served their turn (a finished query, a rejected draft) belong to nobody
and are removed when they are many.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from transformers import DynamicCache, PreTrainedModel

SHARED, NOBODY = -1, -2
CHUNK = 2048  # columns read in one pass: what the mask and the activations of a long passage are bounded by
ATTENTION = ("full_attention", "sliding_attention")


@dataclass
class Tokens:
    """What one row of the batch reads next: token ids, the query each belongs to or SHARED, and its position."""

    ids: list[int] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)

    def add(self, ids: Sequence[int], owner: int, position: int) -> None:
        """Append tokens of one owner, the first of them at `position`."""
        self.ids += ids
        self.owners += [owner] * len(ids)
        self.positions += range(position, position + len(ids))


class Packed:
    """The key/value cache of a batch of rows, each a passage with some of its queries."""

    def __init__(self, model: PreTrainedModel, rows: int, pad: int) -> None:
        self.model, self.pad = model, pad
        self.cache = DynamicCache()  # without the config: layers of a sliding window keep every column, masked below
        self.owners = torch.full((rows, 0), NOBODY, device=model.device)
        self.positions = self.owners.clone()
        self.waste = 0  # columns given up and not yet removed

    @property
    def width(self) -> int:
        """Columns of each row of the cache."""
        return self.owners.shape[1]

    @property
    def size(self) -> int:
        """Columns of the cache, over all rows."""
        return self.owners.numel()

    def after(self, rows: Sequence[Tokens]) -> int:
        """Columns of the cache, over all rows, once these tokens were read."""
        return (self.width + max(len(row.ids) for row in rows)) * len(rows)

    def read(self, rows: Sequence[Tokens], last: int) -> torch.Tensor:
        """Logits after the `last` tokens of each row, of shape (rows, last, vocabulary); the cache grows by all.

        Rows are padded on the left, so that the last tokens of all stand in the same columns.
        """
        width = max(len(row.ids) for row in rows)
        ids = self._matrix([row.ids for row in rows], width, self.pad)
        owners = self._matrix([row.owners for row in rows], width, NOBODY)
        positions = self._matrix([row.positions for row in rows], width, 0)
        begin = 0
        while begin < width:
            end = width if width - begin <= max(CHUNK, last) else min(begin + CHUNK, width - last)
            part = slice(begin, end)
            logits = self._forward(ids[:, part], owners[:, part], positions[:, part], last if end == width else 1)
            begin = end
        return logits

    def release(self, cells: Sequence[tuple[int, int]], queries: Sequence[tuple[int, int]]) -> None:
        """Give up columns, as `(row, columns from the end)`, and all columns of queries, as `(row, query)`."""
        if cells:
            row, back = torch.tensor(cells, device=self.owners.device).T
            self.owners[row, -back] = NOBODY
            self.waste += len(cells)
        if queries:
            row, query = torch.tensor(queries, device=self.owners.device).T
            gone = self.owners.new_zeros(len(self.owners), int(query.max()) + 1, dtype=torch.bool)
            gone[row, query] = True
            known = (self.owners >= 0) & (self.owners < gone.shape[1])
            theirs = known & gone.gather(1, self.owners.clamp(0, gone.shape[1] - 1))
            self.owners[theirs] = NOBODY
            self.waste += int(theirs.sum())

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows alone, in this order, and drop the columns that belong to nobody in any of them."""
        index = torch.tensor(rows, device=self.owners.device)
        owners = self.owners[index]
        live = owners != NOBODY
        width, self.waste = int(live.sum(1).max()), 0
        columns = live.long().argsort(dim=1, stable=True)[:, owners.shape[1] - width :]  # nobody's come first
        self.owners, self.positions = owners.gather(1, columns), self.positions[index].gather(1, columns)
        for layer in self.cache.layers:
            where = columns[:, None, :, None].expand(-1, layer.keys.shape[1], -1, layer.keys.shape[3])
            layer.keys = layer.keys[index].gather(2, where)
            where = columns[:, None, :, None].expand(-1, layer.values.shape[1], -1, layer.values.shape[3])
            layer.values = layer.values[index].gather(2, where)

    def _matrix(self, lines: Sequence[list[int]], width: int, filler: int) -> torch.Tensor:
        padded = [[filler] * (width - len(line)) + line for line in lines]
        return torch.tensor(padded, device=self.model.device)

    def _forward(self, ids: torch.Tensor, owners: torch.Tensor, positions: torch.Tensor, last: int) -> torch.Tensor:
        self.owners = torch.cat([self.owners, owners], dim=1)
        self.positions = torch.cat([self.positions, positions], dim=1)
        keys, queries = self.owners[:, None, :], owners[:, :, None]
        back = positions[:, :, None] - self.positions[:, None, :]
        # padding sees everything: what it computes is read by nobody, and must only be a number
        visible = ((keys == SHARED) | (keys == queries)) & (back >= 0) | (queries == NOBODY)
        output = self.model(
            input_ids=ids,
            attention_mask=self._masks(visible, back),
            position_ids=positions,
            use_cache=True,
            logits_to_keep=last,
            **{cache_argument(self.model): self.cache},
        )
        return output.logits

    def _masks(self, visible: torch.Tensor, back: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        """Additive masks of shape (rows, 1, tokens, columns): one, or one for each kind of layer of the model."""
        kinds, window = attention_kinds(self.model)
        masks = {}
        for kind in kinds:
            seen = visible & (back < window) if kind == "sliding_attention" else visible
            mask = torch.zeros(seen.shape, dtype=self.model.dtype, device=seen.device)
            masks[kind] = mask.masked_fill_(~seen, torch.finfo(self.model.dtype).min)[:, None]
        return masks if len(masks) > 1 else next(iter(masks.values()))


def cache_argument(model: PreTrainedModel) -> str:
    """The name of forward's cache: transformers 5.23 renamed `past_key_values`, and 5.40 will refuse the old name."""
    return "cache" if "cache" in inspect.signature(type(model).forward).parameters else "past_key_values"


def attention_kinds(model: PreTrainedModel) -> tuple[list[str], int | None]:
    """The kinds of attention of a model's layers, and the width of its sliding window in tokens.

    Raises ValueError for layers whose state cannot be shared by the queries of a passage, such as linear attention.
    """
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    kinds = list(dict.fromkeys(getattr(config, "layer_types", None) or ()))
    if not kinds:
        kinds = ["sliding_attention" if window else "full_attention"]
    other = [kind for kind in kinds if kind not in ATTENTION]
    if other or getattr(config, "alibi", False) or config.model_type in ("bloom", "mpt"):
        raise ValueError(
            f"a student of the kind {config.model_type!r} ({', '.join(other) or 'ALiBi'}) cannot be asked: "
            f"its layers must have {' or '.join(ATTENTION)} and rotary or learned positions"
        )
    return kinds, window
