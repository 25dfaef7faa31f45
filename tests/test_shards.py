"""Shards: the form on the command line, and the division."""

import pytest

from dataset_builder.shards import Shard, parse_shard
from open_ner.tools.errors import UserError


@pytest.mark.parametrize("text", ["0/4", "5/4", "x/y", "1", "1/0", "-1/4", "1/4/2", "01/4", "", "1/9999999"])
def test_a_shard_that_does_not_exist_gives_a_one_line_error(text: str) -> None:
    with pytest.raises(UserError, match=r"--shard .*: give I/N"):
        parse_shard(text)


def test_every_key_and_file_is_in_one_shard() -> None:
    shards = [parse_shard(f"{index}/7") for index in range(1, 8)]
    assert shards[1] == Shard(2, 7) and str(shards[1]) == "2/7" and shards[1].suffix == "2-of-7"
    keys = [f"document {number}" for number in range(7_000)] + ["\ud800"]
    sizes = [sum(map(shard.has, keys)) for shard in shards]
    assert sum(sizes) == len(keys) and all(sum(shard.has(key) for shard in shards) == 1 for key in keys)
    assert min(sizes) > 900 and max(sizes) < 1_100  # expected 1000, deviation 29
    files = [f"{number:03}" for number in range(20)]
    assert sorted(file for shard in shards for file in shard.choose(files)) == files
    # the rule is part of the interface: the versions that write shards and that run them again must agree
    assert [next(shard.index for shard in shards if shard.has(name)) for name in ("Ada", "Alan", "Köln")] == [4, 5, 2]
