"""TRL's SFTTrainer for open NER: a loss head over answer tokens only, branches, and entity F1 by generation."""

from copy import copy
from typing import Any

import datasets
import torch
from accelerate.utils import DistributedType
from peft import PeftModel
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_utils import EvalLoopOutput
from trl import SFTConfig, SFTTrainer
from trl.trainer.utils import FusedCausalLMOutput

from . import IGNORED
from .branches import BranchCollator, see_own_branch_only
from .evaluation import HeldOut, dense_attention, entity_scores, require_shared_passage
from .sampler import EpochSampler

# TRL rescales or caps the logits if a config sets one of these, which score_answers_only does not support
SPECIAL_HEADS = (
    "final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling",
)  # fmt: skip


class LogEnds(TrainerCallback):
    """Logs the first and the last step for any logging_steps, because the card shows their losses."""

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Request a log entry."""
        control.should_log |= state.global_step in (1, state.max_steps)


class AnswerTrainer(SFTTrainer):
    """SFTTrainer that, on CPU, computes vocabulary logits at labeled positions only.

    On CPU, TRL's fused head scores every position of a sequence (trl/trainer/utils.py, `compact`), although only the
    few tokens of the answers have labels. On GPU, TRL selects the labeled positions itself.

    Args:
        args: Those of SFTTrainer.
        branches: Whether the rows come from `branches.lay_out`.
        held_out: Conversations on which every evaluation measures `eval_entity_f1`, which `metric_for_best_model:
            entity_f1` and early stopping can use.
        kwargs: Those of SFTTrainer.

    Raises:
        UserError: Queries cannot share a passage in the student's layers.
    """

    args: SFTConfig
    processing_class: PreTrainedTokenizerBase

    def __init__(self, *args: Any, branches: bool = False, held_out: HeldOut | None = None, **kwargs: Any) -> None:
        kwargs["args"] = config = copy(kwargs["args"])  # the caller saves its own object as the recipe
        # load_tokenizer and sft.conversations.tokenize have applied these options already
        config.chat_template_path = config.eos_token = config.pad_token = config.completion_only_loss = None
        config.assistant_only_loss = False
        config.restore_callback_states_from_checkpoint = True  # early stopping keeps its count
        if branches:
            kwargs["data_collator"] = BranchCollator(kwargs["processing_class"].pad_token_id)
            config.dataset_kwargs = {"skip_prepare_dataset": True}  # already tokenized, nothing to pack or cut
            config.remove_unused_columns = False  # the Trainer would remove `branches`
        super().__init__(*args, **kwargs)
        self.add_callback(LogEnds())
        self.held_out = held_out
        model = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        assert isinstance(model, PreTrainedModel)
        config = model.config.get_text_config()
        if hasattr(config, "output_router_logits"):
            config.output_router_logits = False  # TRL requests them in training steps; elsewhere they only cost time
        special = self.aux_loss_enabled or any(getattr(config, name, None) for name in SPECIAL_HEADS)
        if model.device.type == "cpu" and not special:
            score_answers_only(model)
        # skipped for sharded weights, which cannot be used before training, and for quantized ones, which bitsandbytes
        # repacks irreversibly in eval mode on some CPUs
        if not (self.is_fsdp_enabled or self.is_deepspeed_enabled or getattr(model, "is_quantized", False)):
            require_shared_passage(model, self.processing_class)
        if branches:
            see_own_branch_only(model)

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> EvalLoopOutput:
        """Add precision, recall and F1 of entities to the Trainer's metrics if there are held-out conversations."""
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        if self.held_out is not None and output.metrics is not None:
            scores = self._entity_scores(self.held_out)
            output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in scores.items()})
        return output

    def _entity_scores(self, held_out: HeldOut) -> dict[str, float]:
        accelerator = self.accelerator
        model = accelerator.unwrap_model(self.model, keep_torch_compile=False)
        # sharded parameters need all processes in every forward pass, so each process scores all conversations
        sharded = accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)
        own = (0, 1) if sharded else (accelerator.process_index, accelerator.num_processes)
        with accelerator.autocast(), dense_attention(model):
            counts = held_out.evaluate(model, self.processing_class, *own).to(accelerator.device)
        total = counts if sharded else torch.as_tensor(accelerator.reduce(counts, "sum"))
        return entity_scores(total.tolist())

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write nothing: TRL would put a card of its own beside each checkpoint. Ours comes with the student."""

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        args, rows = self.args, self.train_dataset  # the argument is the same dataset without the column of lengths
        if args.train_sampling_strategy not in ("random", "group_by_length"):
            return super()._get_train_sampler(train_dataset)
        assert isinstance(rows, datasets.Dataset)
        grouped = args.train_sampling_strategy == "group_by_length" and not args.packing  # packed rows are all full
        batch_size = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        seed = args.seed if args.data_seed is None else args.data_seed
        lengths = rows[args.length_column_name][:] if grouped else None
        return EpochSampler(len(rows), batch_size, seed, lambda: int(self.state.epoch or 0), lengths)


def score_answers_only(model: PreTrainedModel) -> None:
    """Replace TRL's fused head of a causal language model by one that computes logits at labeled positions only.

    Outputs as in TRL: log-probabilities, entropies and top-1 hits of shape (batch, length - 1), zero without a label.
    """
    fused = model.forward

    def forward(*args: Any, fused_lm_head: bool = False, labels: torch.Tensor | None = None, **kwargs: Any) -> Any:
        if not fused_lm_head or labels is None:
            return fused(*args, fused_lm_head=fused_lm_head, labels=labels, **kwargs)
        kwargs.pop("num_items_in_batch", None)
        hidden = model.base_model(*args, **kwargs).last_hidden_state[:, :-1]
        targets = labels[:, 1:]
        mask = targets != IGNORED
        head = model.get_output_embeddings()
        assert head is not None
        logprobs = torch.log_softmax(head(hidden[mask]).float(), dim=-1)
        chosen = logprobs.gather(-1, targets[mask][:, None]).squeeze(-1)
        with torch.no_grad():
            entropy = -(logprobs.exp() * logprobs).sum(-1)
            is_top1 = (logprobs.argmax(-1) == targets[mask]).float()
        spread = lambda values: values.new_zeros(mask.shape).masked_scatter(mask, values)  # noqa: E731
        return FusedCausalLMOutput(
            loss=-chosen.sum() / mask.sum().clamp(min=1), log_probs=spread(chosen), entropy=spread(entropy),
            is_top1=spread(is_top1), label_mask=mask,
        )  # fmt: skip

    model.forward = forward
