"""Entity F1 on held-out passages, by generating answers during the Trainer's evaluations."""

from collections.abc import Callable
from itertools import groupby

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from open_ner.conversation import Message, read_conversation
from open_ner.decoding import Decoder, Request

CountEntities = Callable[[list[str], list[str]], tuple[int, int, int]]


class HeldOut:
    """Held-out conversations whose types are asked one at a time, as at inference.

    `count` takes generated and gold answers as text and returns true positives, predicted and gold entities.
    """

    def __init__(self, conversations: list[list[Message]], count: CountEntities, max_new_tokens: int = 128) -> None:
        self.rows = [read_conversation(messages) for messages in conversations]
        self.count, self.max_new_tokens = count, max_new_tokens

    def evaluate(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rank: int = 0, world: int = 1
    ) -> torch.Tensor:
        """Counts `[true positives, predicted, gold]` over the rows of process `rank` out of `world`."""
        counts = torch.zeros(3, dtype=torch.long)
        decoder = Decoder(model, tokenizer)
        rows = sorted(self.rows[rank::world], key=lambda row: (row[1] or "", len(row[0])))
        for dataset, group in groupby(rows, key=lambda row: row[1]):
            part = list(group)
            requests = [Request(text, [name for name, _ in queries]) for text, _, queries in part]
            answers = decoder.answer(requests, dataset=dataset, grounded=False, max_new_tokens=self.max_new_tokens)
            for (_, _, queries), found in zip(part, answers, strict=True):
                gold = [answer for _, answer in queries]
                counts += torch.tensor(self.count([answer.text for answer in found], gold))
        return counts


def count_entities(answers: list[str], gold: list[str]) -> tuple[int, int, int]:
    """Count true positives, predicted and gold entities under the official scorer."""
    from metrics.entity_f1.entity_f1 import Counts, official_counts

    total = sum((official_counts(*pair) for pair in zip(answers, gold, strict=True)), Counts())
    return int(total.tp), total.n_pred, total.n_gold


def f1(counts: list[int]) -> dict[str, float]:
    """Precision, recall and F1 from `[true positives, predicted, gold]`; 0 where a ratio is undefined."""
    hits, predicted, gold = counts
    return {
        "entity_precision": hits / max(predicted, 1),
        "entity_recall": hits / max(gold, 1),
        "entity_f1": 2 * hits / max(predicted + gold, 1),
    }
