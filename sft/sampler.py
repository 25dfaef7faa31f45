"""The order of training rows: by seed and epoch alone, whatever the number of processes and wherever a run goes on."""

from collections.abc import Callable, Iterator, Sequence

import torch
from transformers.trainer_pt_utils import get_length_grouped_indices


class EpochSampler(torch.utils.data.Sampler[int]):
    """Row numbers of an epoch, shuffled; with `lengths`, rows of about the same length stand together.

    The stock samplers make another order where `batch_size` is split otherwise over processes and accumulation
    (length-grouped ones), and where a run goes on in the middle of an epoch: `set_epoch` does not reach them through
    accelerate's SkipBatchSampler and BatchSamplerShard, and a length-grouped one draws from the global generator.
    """

    def __init__(
        self, rows: int, batch_size: int, seed: int, epoch: Callable[[], int], lengths: Sequence[int] | None = None
    ) -> None:
        self.rows, self.batch_size, self.seed, self.epoch, self.lengths = rows, batch_size, seed, epoch, lengths

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch())
        if self.lengths is None:
            return iter(torch.randperm(self.rows, generator=generator).tolist())
        return iter(get_length_grouped_indices(self.lengths, self.batch_size, generator=generator))
