"""TRL's SFTTrainer with the loss of its answer positions alone, also on CPU."""

from typing import Any

import datasets
import torch
from trl import SFTTrainer
from trl.trainer.utils import FusedCausalLMOutput

from .conversations import IGNORED
from .sampler import EpochSampler

# of these configs TRL rescales or caps the logits; its own head does it right
SPECIAL_HEADS = (
    "final_logit_softcapping",
    "logit_scale",
    "output_multiplier",
    "lm_head_multiplier",
    "logits_scaling",
    "output_router_logits",
)


class AnswerTrainer(SFTTrainer):
    """SFTTrainer that, on CPU, projects only labelled positions onto the vocabulary.

    On CPU, TRL's fused head scores every position of a sequence (trl/trainer/utils.py, `compact`), which for short
    answers and a 49k vocabulary costs about five times the step. On GPU it selects them itself and nothing is changed.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        model = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        config = model.config.get_text_config()
        if model.device.type == "cpu" and not any(getattr(config, name, None) for name in SPECIAL_HEADS):
            score_answers_only(model)

    def _get_train_sampler(self, train_dataset: datasets.Dataset | None = None) -> torch.utils.data.Sampler | None:
        args, rows = self.args, self.train_dataset  # `train_dataset` is the same without its column of lengths
        if args.train_sampling_strategy not in ("random", "group_by_length"):
            return super()._get_train_sampler(train_dataset)
        grouped = args.train_sampling_strategy == "group_by_length" and not args.packing  # packed rows are all full
        return EpochSampler(
            len(rows),
            args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
            args.seed if args.data_seed is None else args.data_seed,
            lambda: int(self.state.epoch or 0),
            rows[args.length_column_name][:] if grouped else None,
        )


def score_answers_only(model: torch.nn.Module) -> None:
    """Replace the fused head of a causal language model by one over the positions whose next label is learned.

    Same outputs as TRL's: log-probabilities, entropies and hits of shape (batch, length - 1), zero elsewhere.
    """
    fused = model.forward

    def forward(*args: Any, fused_lm_head: bool = False, labels: torch.Tensor | None = None, **kwargs: Any) -> Any:
        if not fused_lm_head or labels is None:
            return fused(*args, fused_lm_head=fused_lm_head, labels=labels, **kwargs)
        kwargs.pop("num_items_in_batch", None)
        hidden = model.base_model(*args, **kwargs).last_hidden_state[:, :-1]
        targets = labels[:, 1:]
        mask = targets != IGNORED
        logprobs = torch.log_softmax(model.get_output_embeddings()(hidden[mask]).float(), dim=-1)
        chosen = logprobs.gather(-1, targets[mask][:, None]).squeeze(-1)
        with torch.no_grad():
            entropy = -(logprobs.exp() * logprobs).sum(-1)
            is_top1 = (logprobs.argmax(-1) == targets[mask]).float()
        spread = lambda values: values.new_zeros(mask.shape).masked_scatter(mask, values)  # noqa: E731
        return FusedCausalLMOutput(
            loss=-chosen.sum() / mask.sum().clamp(min=1),
            log_probs=spread(chosen),
            entropy=spread(entropy),
            is_top1=spread(is_top1),
            label_mask=mask,
        )

    model.forward = forward
