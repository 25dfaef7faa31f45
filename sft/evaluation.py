"""Entity F1 on held-out passages by real generation, as a metric of the Trainer's evaluations."""

from collections.abc import Callable
from itertools import groupby
from typing import Any

import torch

from open_ner.conversation import read_conversation
from open_ner.decoding import Decoder, Request

Score = Callable[[list[str], list[str]], tuple[int, int, int]]


class HeldOut:
    """Held-out conversations, asked one type at a time as inference asks them.

    `score` takes raw replies and gold replies and returns the counts (true positives, predicted, gold).
    """

    def __init__(self, conversations: list[list[dict[str, str]]], score: Score, max_new_tokens: int = 128) -> None:
        self.rows = [read_conversation(messages) for messages in conversations]
        self.score, self.max_new_tokens = score, max_new_tokens

    def evaluate(self, model: Any, tokenizer: Any, rank: int = 0, world: int = 1) -> torch.Tensor:
        """Counts `[true positives, predicted, gold]` of the rows of one process."""
        counts = torch.zeros(3, dtype=torch.long)
        decoder = Decoder(model, tokenizer)
        rows = sorted(self.rows[rank::world], key=lambda row: (row[1] or "", len(row[0])))
        for dataset, group in groupby(rows, key=lambda row: row[1]):
            part = list(group)
            requests = [Request(text, [name for name, _ in queries]) for text, _, queries in part]
            answers = decoder.answer(requests, dataset=dataset, grounded=False, max_new_tokens=self.max_new_tokens)
            for (_, _, queries), replies in zip(part, answers, strict=True):
                gold = [answer for _, answer in queries]
                counts += torch.tensor(self.score([reply.text for reply in replies], gold))
        return counts


def f1(counts: list[int]) -> dict[str, float]:
    """Precision, recall and F1 of `[true positives, predicted, gold]`; 0 where nothing was found or to be found."""
    hits, predicted, gold = counts
    return {
        "entity_precision": hits / max(predicted, 1),
        "entity_recall": hits / max(gold, 1),
        "entity_f1": 2 * hits / max(predicted + gold, 1),
    }
