"""A passage and all its queries as one sequence, in which the queries share the passage's keys and values.

Every column of the cache has an owner, the passage or one query, and a position in its owner's prompt. A token attends
to the earlier columns of the passage and of its own query, so each query is answered as if it alone had followed the
passage. Columns that are no longer needed (an answered query, a rejected draft) lose their owner, and are removed when
they are many.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer

SHARED, NOBODY = -1, -2
CHUNK = 2048  # columns read in one pass, which bounds the mask and the activations of a long passage
ATTENTION = ("full_attention", "sliding_attention")


@dataclass
class Tokens:
    """What a row of the batch reads next: ids of tokens, the owner of each (a query, or SHARED), and its position."""

    ids: list[int] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)

    def add(self, ids: Sequence[int], owner: int, position: int) -> None:
        """Append tokens of one owner, the first at `position`."""
        self.ids += ids
        self.owners += [owner] * len(ids)
        self.positions += range(position, position + len(ids))


class Packed:
    """The key/value cache of a batch of rows, each a passage with some of its queries."""

    def __init__(self, model: PreTrainedModel, rows: int, pad: int) -> None:
        self.model, self.pad = model, pad
        # transformers 5.23 renamed forward()'s `past_key_values`, and 5.40 will remove the old name
        names = inspect.signature(type(model).forward).parameters
        self.cache_argument = "cache" if "cache" in names else "past_key_values"
        self.cache = DynamicCache()  # without a config, sliding-window layers keep every column; they are masked below
        self.owners = torch.full((rows, 0), NOBODY, device=model.device)
        self.positions = self.owners.clone()
        self.waste = 0  # cells without an owner that have not been removed yet

    @property
    def width(self) -> int:
        """Columns of the cache."""
        return self.owners.shape[1]

    @property
    def size(self) -> int:
        """Cells of the cache: columns times rows."""
        return self.owners.numel()

    def read(self, rows: Sequence[Tokens], last: int) -> torch.Tensor:
        """Read tokens and return the logits after the `last` of each row, of shape (rows, last, vocabulary).

        Rows are padded on the left, so that their last tokens are in the same columns.
        """
        width = max(len(row.ids) for row in rows)
        ids = self._matrix([row.ids for row in rows], width, self.pad)
        owners = self._matrix([row.owners for row in rows], width, NOBODY)
        positions = self._matrix([row.positions for row in rows], width, 0)
        begin = 0
        while width - begin > max(CHUNK, last):
            part = slice(begin, min(begin + CHUNK, width - last))
            self._forward(ids[:, part], owners[:, part], positions[:, part], 1)
            begin = part.stop
        return self._forward(ids[:, begin:], owners[:, begin:], positions[:, begin:], last)

    def release(self, cells: Sequence[tuple[int, int]], queries: Sequence[tuple[int, int]]) -> None:
        """Release cells, given as `(row, columns from the end)`, and all cells of queries, as `(row, query)`."""
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
        """Keep only these rows, in this order, and remove cells without an owner; rows stay equally long."""
        index = torch.tensor(rows, device=self.owners.device)
        owners = self.owners[index]
        live = owners != NOBODY
        width, self.waste = int(live.sum(1).max()), 0
        columns = live.long().argsort(dim=1, stable=True)[:, owners.shape[1] - width :]  # without an owner: first
        self.owners, self.positions = owners.gather(1, columns), self.positions[index].gather(1, columns)

        def kept(states: torch.Tensor | None) -> torch.Tensor:
            assert states is not None, "a layer that has read tokens has states"
            where = columns[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[3])
            # with device_map="auto", the layers are on several devices
            return states[index.to(states.device)].gather(2, where.to(states.device))

        for layer in self.cache.layers:
            assert isinstance(layer, DynamicLayer), "a DynamicCache without a config has no other layers"
            layer.keys, layer.values = kept(layer.keys), kept(layer.values)

    def _matrix(self, lines: Sequence[list[int]], width: int, filler: int) -> torch.Tensor:
        return torch.tensor([[filler] * (width - len(line)) + line for line in lines], device=self.model.device)

    def _forward(self, ids: torch.Tensor, owners: torch.Tensor, positions: torch.Tensor, last: int) -> torch.Tensor:
        self.owners = torch.cat([self.owners, owners], dim=1)
        self.positions = torch.cat([self.positions, positions], dim=1)
        theirs, own = self.owners[:, None, :], owners[:, :, None]
        back = positions[:, :, None] - self.positions[:, None, :]
        # let padding attend to everything: its output is unused; this avoids NaN from an all-masked row
        visible = ((theirs == SHARED) | (theirs == own)) & (back >= 0) | (own == NOBODY)
        output = self.model(
            input_ids=ids,
            attention_mask=self._masks(visible, back),
            position_ids=positions,
            use_cache=True,
            logits_to_keep=last,
            **{self.cache_argument: self.cache},
        )
        return output.logits

    def _masks(self, visible: torch.Tensor, back: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        """Additive masks of shape (rows, 1, tokens, columns): one, or one for each kind of the model's layers."""
        masks = {}
        for kind, window in attention_kinds(self.model.config).items():
            seen = visible & (back < window) if window else visible
            mask = torch.zeros(seen.shape, dtype=self.model.dtype, device=seen.device)
            masks[kind] = mask.masked_fill_(~seen, torch.finfo(self.model.dtype).min)[:, None]
        return masks if len(masks) > 1 else next(iter(masks.values()))


def attention_kinds(config: PreTrainedConfig) -> dict[str, int | None]:
    """Return the kinds of attention of a model's layers, each with the width of its window in tokens or None.

    A token attends to those before it that are fewer positions away than the width. Raises ValueError for layers whose
    state the queries of a passage cannot share, such as linear attention.
    """
    config = config.get_text_config()
    window = getattr(config, "sliding_window", None)
    default = ["sliding_attention" if window else "full_attention"]
    kinds: list[str] = list(dict.fromkeys(getattr(config, "layer_types", None) or default))
    other = [kind for kind in kinds if kind not in ATTENTION]
    if other or getattr(config, "alibi", False) or config.model_type in ("bloom", "mpt"):
        raise ValueError(
            f"a student of the kind {config.model_type!r} ({', '.join(other) or 'ALiBi'}) cannot be asked: "
            f"its layers must have {' or '.join(ATTENTION)} and rotary or learned positions"
        )
    return {kind: window if kind == "sliding_attention" else None for kind in kinds}
