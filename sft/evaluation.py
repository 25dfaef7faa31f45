"""Ask the student as at inference: entity F1 on held-out passages, and a check before the first step."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from open_ner.conversation import Message, read_conversation
from open_ner.decoding import Decoder, Request
from open_ner.packing import SHARED, Packed, Tokens
from open_ner.prompts import Encoder
from open_ner.tools.errors import UserError

CountEntities = Callable[[list[str], list[str]], tuple[int, int, int]]
TOLERANCE = 0.1  # relative error of logits: about 0.02 from bfloat16, about 1 if a mask or positions are ignored


@contextmanager
def dense_attention(model: PreTrainedModel) -> Iterator[None]:
    """Switch to an attention implementation that accepts the decoder's dense masks, and back.

    FlashAttention does not accept them, and flex_attention would recompile for every new shape.
    """
    trained_with = model.config._attn_implementation or "sdpa"
    model.set_attn_implementation("sdpa" if model._supports_sdpa else "eager")
    try:
        yield
    finally:
        model.set_attn_implementation(trained_with)


def require_shared_passage(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise UserError unless two queries that share a passage get the logits that each gets alone.

    Branches and the open-NER decoder need this. A config does not say whether the layers ignore masks or positions.
    """
    prompts, tokens = Encoder(tokenizer).encode("Ada met Alan in Rome.", ["person", "city"]), Tokens()
    tokens.add(prompts.prefix, SHARED, 0)
    for number, suffix in enumerate(prompts.suffixes):
        tokens.add(suffix, number, len(prompts.prefix))
    alone = [torch.tensor([prompts.prefix + suffix], device=model.device) for suffix in prompts.suffixes]
    training, error = model.training, float("inf")
    model.eval()
    with torch.no_grad(), dense_attention(model):
        expected = torch.stack([model(ids).logits[0, -1].float() for ids in alone])
        try:
            both = Packed(model, 1, 0).read([tokens], len(tokens.ids))[0, [-1 - len(prompts.suffixes[1]), -1]]
            error = float((both.float() - expected).norm() / (expected - expected.mean()).norm())
        except RuntimeError:  # tensor shapes inside the layers do not match the mask
            pass
    model.train(training)
    if not error < TOLERANCE:
        raise UserError(
            f"models of type {model.config.model_type!r} are not supported: their layers ignore the attention mask or "
            "the position ids by which the queries of a passage share it; choose another student"
        )


class HeldOut:
    """Held-out conversations whose types are asked one at a time, as at inference.

    Args:
        conversations: The conversations, as messages.
        count: Function of generated and gold answers (texts) that returns true positives, predicted and gold entities.
        max_new_tokens: Bound of an answer, in tokens.
    """

    def __init__(self, conversations: list[list[Message]], count: CountEntities, max_new_tokens: int = 128) -> None:
        self.rows = [read_conversation(messages) for messages in conversations]
        self.count, self.max_new_tokens = count, max_new_tokens

    def evaluate(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rank: int = 0, world: int = 1
    ) -> torch.Tensor:
        """Return `[true positives, predicted, gold]` over the conversations of process `rank` out of `world`."""
        counts = torch.zeros(3, dtype=torch.long)
        decoder = Decoder(model, tokenizer)
        rows = sorted(self.rows[rank::world], key=lambda row: len(row[0]))
        requests = [Request(text, [name for name, _ in queries], dataset) for text, dataset, queries in rows]
        answers = decoder.answer(requests, free=True, max_new_tokens=self.max_new_tokens)
        for (_, _, queries), found in zip(rows, answers, strict=True):
            gold = [answer for _, answer in queries]
            counts += torch.tensor(self.count([answer.text for answer in found], gold))
        return counts


def count_entities(answers: list[str], gold: list[str]) -> tuple[int, int, int]:
    """Count true positives, predicted and gold entities under the official scorer."""
    from metrics.entity_f1.entity_f1 import Counts, official_counts

    total = sum((official_counts(*pair) for pair in zip(answers, gold, strict=True)), Counts())
    return int(total.tp), total.n_pred, total.n_gold


def entity_scores(counts: list[int]) -> dict[str, float]:
    """Return precision, recall and F1 from `[true positives, predicted, gold]`; 0 where a ratio is undefined."""
    from metrics.entity_f1.entity_f1 import Counts, f1_strict

    scores = f1_strict(Counts(*counts))
    return {f"entity_{name}": scores[name] for name in ("precision", "recall", "f1")}
