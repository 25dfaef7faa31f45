"""Order of the training rows: it depends on seed and epoch only, not on the number of processes or on a resume."""

from collections.abc import Callable, Iterator, Sequence

import torch
from transformers.trainer_pt_utils import get_length_grouped_indices


class EpochSampler(torch.utils.data.Sampler[int]):
    """Shuffles the row numbers of an epoch; with `lengths`, rows of similar length follow one another.

    The stock samplers change their order when `batch_size` is split differently over processes and accumulation steps
    (if length-grouped), and when a run resumes within an epoch: `set_epoch` does not reach them through accelerate's
    SkipBatchSampler and BatchSamplerShard, and the length-grouped one draws from the global generator.
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
