"""The order of rows equals the stock one and does not depend on the number of processes."""

import torch
from accelerate.data_loader import SeedableRandomSampler

from sft.sampler import EpochSampler

LENGTHS = [(7 * number) % 100 for number in range(100)]


def order(epoch: int = 0, batch_size: int = 4, lengths: list[int] | None = LENGTHS) -> list[int]:
    return list(EpochSampler(100, batch_size, 42, lambda: epoch, lengths))


def test_every_row_comes_once_and_another_order_each_epoch() -> None:
    for lengths in (None, LENGTHS):
        assert sorted(order(lengths=lengths)) == list(range(100))
        assert order(0, lengths=lengths) != order(1, lengths=lengths)
    assert len(EpochSampler(100, 4, 42, lambda: 0)) == 100


def test_without_lengths_it_is_the_order_of_the_stock_trainer() -> None:
    stock = SeedableRandomSampler(range(100), data_seed=42)
    assert [list(stock), list(stock)] == [order(epoch, lengths=None) for epoch in (0, 1)]


def test_with_lengths_a_batch_holds_rows_of_about_the_same_length() -> None:
    def padding(rows: list[int]) -> int:
        batches = [[LENGTHS[row] for row in rows[i : i + 4]] for i in range(0, 100, 4)]
        return sum(max(batch) * len(batch) - sum(batch) for batch in batches)

    assert padding(order()) < padding(order(lengths=None)) / 2


def test_the_order_does_not_depend_on_other_random_draws() -> None:
    first = order()
    torch.rand(5)
    assert order() == first
