"""Shards: the form on the command line, and the division."""

import pytest

from dataset_builder.shards import Shard
from open_ner.tools.errors import UserError
from open_ner.tools.options import read_shard


@pytest.mark.parametrize("text", ["0/4", "5/4", "x/y", "1", "1/0", "-1/4", "1/4/2", "01/4", "", "1/9999999"])
def test_a_shard_that_does_not_exist_gives_a_one_line_error(text: str) -> None:
    with pytest.raises(UserError, match=r"--shard .*: give I/N"):
        read_shard(text)


@pytest.mark.parametrize("files", [1, 2, 7, 20])
@pytest.mark.parametrize("count", [1, 2, 5, 7])
def test_every_row_of_every_file_is_in_one_shard(files: int, count: int) -> None:
    names = [f"{number:03}" for number in range(files)]
    read = []
    for index in range(1, count + 1):
        part, share = Shard(index, count).divide(files)
        chosen = part.choose(names)
        assert len(chosen) == 1 or share == Shard(1, 1)
        read += [(part.index, name, row) for name in chosen for row in range(100) if share.takes(row)]
    assert sorted(read)[0][0] == 1  # parts are in the order of the files
    assert [row[1:] for row in sorted(read)] == [(name, row) for name in names for row in range(100)]


def test_every_key_is_in_one_shard() -> None:
    shards = [Shard(*read_shard(f"{index}/7")) for index in range(1, 8)]
    assert shards[1] == Shard(2, 7) and str(shards[1]) == "2/7" and shards[1].suffix == "2-of-7"
    keys = [f"document {number}" for number in range(7_000)] + ["\ud800"]
    sizes = [sum(map(shard.has, keys)) for shard in shards]
    assert sum(sizes) == len(keys) and all(sum(shard.has(key) for shard in shards) == 1 for key in keys)
    assert min(sizes) > 900 and max(sizes) < 1_100  # expected 1000, deviation 29
    # the rule is part of the interface: the versions that write shards and that run them again must agree
    assert [next(shard.index for shard in shards if shard.has(name)) for name in ("Ada", "Alan", "Köln")] == [4, 5, 2]
