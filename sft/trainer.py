"""TRL's SFTTrainer for open NER: a loss head over answer positions alone, branches, and entity F1 by generation."""

from copy import copy
from typing import Any

import datasets
import torch
from accelerate.utils import DistributedType
from transformers.trainer_utils import EvalLoopOutput
from trl import SFTTrainer
from trl.trainer.utils import FusedCausalLMOutput

from . import IGNORED
from .branches import BranchCollator, see_own_branch_only
from .evaluation import HeldOut, f1
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
    """SFTTrainer that, on CPU, projects only labeled positions onto the vocabulary.

    On CPU, TRL's fused head scores every position of a sequence (trl/trainer/utils.py, `compact`), which for short
    answers and a 49k vocabulary costs about five times the step. On GPU it selects them itself and nothing is changed.
    With `branches` the rows are those of `branches.lay_out`. With `held_out` every evaluation also reports
    `eval_entity_f1`, so that `metric_for_best_model: entity_f1` and early stopping work as for any other metric.
    """

    def __init__(self, *args: Any, branches: bool = False, held_out: HeldOut | None = None, **kwargs: Any) -> None:
        if branches:
            kwargs["data_collator"] = BranchCollator(kwargs["processing_class"].pad_token_id)
            kwargs["args"] = copy(kwargs["args"])  # the caller's go into the published recipe as they were given
            kwargs["args"].dataset_kwargs = {"skip_prepare_dataset": True}  # already tokenized, nothing to pack or cut
        super().__init__(*args, **kwargs)
        self.branches, self.held_out = branches, held_out
        model = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        config = model.config.get_text_config()
        if model.device.type == "cpu" and not any(getattr(config, name, None) for name in SPECIAL_HEADS):
            score_answers_only(model)
        if branches:
            see_own_branch_only(model)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if self.branches and "branches" not in self._signature_columns:
            self._signature_columns.append("branches")

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> EvalLoopOutput:
        """The Trainer's metrics, and precision, recall and F1 of entities where there are held-out passages."""
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        if self.held_out is not None:
            scores = self._entity_scores()
            output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in scores.items()})
        return output

    def _entity_scores(self) -> dict[str, float]:
        accelerator = self.accelerator
        model = accelerator.unwrap_model(self.model, keep_torch_compile=False)
        # where the parameters are sharded, every process must take part in every forward pass: all do the same work
        sharded = accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)
        own = (0, 1) if sharded else (accelerator.process_index, accelerator.num_processes)
        with accelerator.autocast():
            counts = self.held_out.evaluate(model, self.processing_class, *own).to(accelerator.device)
        return f1((counts if sharded else accelerator.reduce(counts, "sum")).tolist())

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
