"""Branches: each answer is learned from exactly the tokens that inference shows."""

from copy import copy
from pathlib import Path

import datasets
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
)
from trl import SFTConfig

from kinds import encode_conversation
from open_ner.conversation import ACKNOWLEDGEMENT, build_conversation, build_query
from open_ner.tools.errors import UserError
from sft import IGNORED
from sft.branches import (
    PADDING,
    PREFIX,
    BranchCollator,
    attention_mask,
    positions,
    see_own_branch_only,
    single_queries,
)
from sft.conversations import tokenize
from sft.evaluation import HeldOut, count_entities, require_shared_passage
from sft.trainer import AnswerTrainer

CONVERSATIONS = [
    build_conversation(
        "Ada Lovelace met Charles Babbage in London.",
        [("person", ["Ada Lovelace", "Charles Babbage"]), ("city", ["London"]), ("book", []), ("place", ["London"])],
    ),
    build_conversation("It rained.", [("river", [])]),
    build_conversation("In Paris, he said.", [("person", []), ("city", ["Paris"])], dataset="wikigold"),
]


@pytest.fixture(scope="module")
def tokenizer(tiny_student) -> PreTrainedTokenizerBase:  # noqa: ANN001
    return AutoTokenizer.from_pretrained(tiny_student)


def load(student, attention: str) -> PreTrainedModel:  # noqa: ANN001
    return AutoModelForCausalLM.from_pretrained(student, attn_implementation=attention, dtype=torch.float32).eval()


def rows(tokenizer: PreTrainedTokenizerBase, conversations: list = CONVERSATIONS) -> datasets.Dataset:
    return tokenize(datasets.Dataset.from_dict({"messages": conversations}), tokenizer, 1024, branches=True)[0]


def test_single_queries_are_what_inference_asks() -> None:
    text = "Ada Lovelace met Charles Babbage in London."
    asked = [messages[:-1] for messages in single_queries(CONVERSATIONS[0])]
    assert asked == [build_query(text, name) for name in ("person", "city", "book", "place")]
    bare = [message for message in CONVERSATIONS[0] if message["role"] != "system"]
    assert all(messages[1]["content"] == ACKNOWLEDGEMENT for messages in single_queries(bare))


SHAPE = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.15,
}  # fmt: skip
WINDOWED = {  # each with layers that attend to fewer tokens than a passage has
    "mistral": MistralConfig(**SHAPE, sliding_window=9),
    "gemma3": Gemma3TextConfig(
        **SHAPE, sliding_window=9, head_dim=8, layer_types=["sliding_attention", "full_attention"] * 2
    ),
    "qwen2": Qwen2Config(**SHAPE, sliding_window=9, use_sliding_window=True, max_window_layers=2),
    "phi3": Phi3Config(**SHAPE, sliding_window=9, pad_token_id=0),
}


@pytest.fixture(scope="module")
def student(request: pytest.FixtureRequest, tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random students whose layers attend to everything before a token, or only to a window."""
    if request.param == "llama":
        return tiny_student
    config = copy(WINDOWED[request.param])
    config.vocab_size = len(AutoTokenizer.from_pretrained(tiny_student))
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp(request.param)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("student", "attention"),
    [
        *((name, "sdpa") for name in ("llama", *WINDOWED)),
        *((name, attention) for name in ("llama", "gemma3") for attention in ("eager", "flex_attention")),
    ],
    indirect=["student"],
)
def test_logits_of_every_answer_equal_those_of_the_single_query(
    attention: str, student: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    batch = BranchCollator(tokenizer.pad_token_id)(rows(tokenizer).to_list())
    plain, branched = load(student, "sdpa"), load(student, attention)
    see_own_branch_only(branched)
    names = ("input_ids", "position_ids", "branches")
    # not compiled, which for flex_attention on a CPU takes a C++ compiler and a minute
    with torch.inference_mode(), torch.compiler.set_stance("force_eager"):
        together = branched(**{name: batch[name] for name in names}, use_cache=False).logits
    compared = 0
    for row, conversation in enumerate(CONVERSATIONS):
        branches = batch["branches"][row]
        for number, query in enumerate(single_queries(conversation), start=1):
            ids, labels = encode_conversation(query, tokenizer)
            own = (branches == PREFIX) | (branches == number)
            assert batch["input_ids"][row][own].tolist() == ids
            learned = torch.tensor([i for i, label in enumerate(labels) if label != IGNORED])
            with torch.inference_mode():
                alone = plain(input_ids=torch.tensor([ids])).logits[0]
            torch.testing.assert_close(together[row][own][learned - 1], alone[learned - 1], atol=1e-4, rtol=1e-4)
            assert batch["labels"][row][own][learned].tolist() == [labels[i] for i in learned]
            compared += len(learned)
    assert compared == (batch["labels"] != IGNORED).sum()


def test_the_passage_is_there_once(tokenizer: PreTrainedTokenizerBase) -> None:
    conversation = CONVERSATIONS[0]
    branched = rows(tokenizer, [conversation])[0]
    turns = encode_conversation(conversation, tokenizer)[0]
    assert len(branched["input_ids"]) <= len(turns) + 2
    assert tokenizer.decode(branched["input_ids"]).count("Lovelace met") == 1


def test_a_token_sees_the_prefix_and_its_own_branch_up_to_itself() -> None:
    branches = torch.tensor([[PREFIX, PREFIX, 1, 1, 2, PADDING]])
    places = torch.tensor([[0, 1, 2, 3, 2, 0]])
    seen = attention_mask(branches, places, LlamaConfig(attn_implementation="sdpa"))[0, 0].int().tolist()
    assert seen == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [1, 1, 0, 0, 0, 1],  # its output is unused; a fully masked row would be NaN
    ]
    assert positions(branches[0].tolist()[:5]) == [0, 1, 2, 3, 2]
    added = attention_mask(branches, places, LlamaConfig(attn_implementation="eager"))[0, 0]
    assert (added == 0).int().tolist() == seen and added.min() == torch.finfo(torch.float32).min


def test_training_on_branches_learns_the_single_queries(
    tiny_student,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path,  # noqa: ANN001
) -> None:
    """The first loss is the mean over all answer tokens of the single-query conversations, and it decreases."""
    config = SFTConfig(
        output_dir=str(tmp_path), max_steps=8, per_device_train_batch_size=len(CONVERSATIONS), learning_rate=1e-2,
        bf16=False, gradient_checkpointing=False, report_to="none", logging_steps=1, save_strategy="no", use_cpu=True,
    )  # fmt: skip
    trainer = AnswerTrainer(
        model=load(tiny_student, "sdpa"), args=config, train_dataset=rows(tokenizer), processing_class=tokenizer,
        branches=True,
    )  # fmt: skip
    plain, summed, count = load(tiny_student, "sdpa"), 0.0, 0
    for query in [query for conversation in CONVERSATIONS for query in single_queries(conversation)]:
        ids, labels = (torch.tensor([part]) for part in encode_conversation(query, tokenizer))
        learned = (labels != IGNORED).sum().item()
        with torch.inference_mode():
            summed += plain(input_ids=ids, labels=labels).loss.item() * learned
        count += learned
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[0] == pytest.approx(summed / count, abs=1e-3)
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("ignored", ["position_ids", "attention_mask"])
def test_a_student_that_ignores_mask_or_positions_is_refused_before_training(
    ignored: str, tiny_student: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    model = load(tiny_student, "sdpa")
    require_shared_passage(model, tokenizer)
    inner = model.forward
    model.forward = lambda *given, **options: inner(*given, **{k: v for k, v in options.items() if k != ignored})
    config = SFTConfig(output_dir=str(tmp_path), bf16=False, report_to="none", use_cpu=True)
    with pytest.raises(UserError, match="models of type 'llama' are not supported: their layers ignore"):
        AnswerTrainer(
            model=model, args=config, train_dataset=rows(tokenizer), processing_class=tokenizer, branches=True
        )


def test_held_out_answers_are_generated_by_sdpa(
    tiny_student: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """Under flex_attention every pass of the decoder has another shape and would be compiled again."""
    held_out = HeldOut(CONVERSATIONS[:1], count_entities, max_new_tokens=4)
    config = SFTConfig(output_dir=str(tmp_path), bf16=False, report_to="none", use_cpu=True)
    model, used = load(tiny_student, "flex_attention"), set()
    trainer = AnswerTrainer(
        model=model, args=config, train_dataset=rows(tokenizer), processing_class=tokenizer, branches=True,
        held_out=held_out,
    )  # fmt: skip
    model.register_forward_pre_hook(lambda module, _: used.add(module.config._attn_implementation))
    trainer._entity_scores(held_out)  # not trainer.evaluate, whose loss would compile flex_attention on a CPU
    assert used == {"sdpa"} and model.config._attn_implementation == "flex_attention"
