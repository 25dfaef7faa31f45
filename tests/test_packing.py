"""Packed queries with other kinds of models: each answer equals that of `generate()` for its query alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from open_ner.conversation import build_query
from open_ner.decoding import Decoder, Request

TEXTS = ["Angela Merkel met Barack Obama in Berlin. " * 3, "Rome"]
TYPES = ["person", "a city or a town that lies by a river", "date"]
SIZE = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 1024, "initializer_range": 0.3,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "qwen2": SIZE,
    "qwen3": SIZE,
    "mistral": {**SIZE, "sliding_window": 40},
    "gemma2": {**SIZE, "sliding_window": 40, "query_pre_attn_scalar": 8, "attn_logit_softcapping": None},
    "gemma3_text": {**SIZE, "sliding_window": 40, "query_pre_attn_scalar": 8},
    "phi3": {**SIZE, "sliding_window": 40},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 1024, "initializer_range": 0.3},
}


def make(kind: str, folder: Path, **options: Any) -> tuple[Any, Any]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    config = AutoConfig.for_model(kind, vocab_size=len(tokenizer), **ends, **options)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval(), tokenizer


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_generate(tiny_student: Path, kind: str) -> None:
    model, tokenizer = make(kind, tiny_student, **KINDS[kind])
    model.generation_config.eos_token_id = [2, *range(10, len(tokenizer), 20)]
    decoder = Decoder(model, tokenizer)
    answers = list(decoder.answer([Request(text, TYPES) for text in TEXTS], free=True, max_new_tokens=12))
    for text, row in zip(TEXTS, answers, strict=True):
        for name, answer in zip(TYPES, row, strict=True):
            prompt = tokenizer.apply_chat_template(
                build_query(text, name), add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
            [tokens] = model.generate(**prompt, max_new_tokens=12, do_sample=False, pad_token_id=2).tolist()
            tokens = tokens[prompt["input_ids"].shape[1] :]
            assert answer.tokens == (tokens[:-1] if tokens[-1] in decoder.eos else tokens)


@pytest.mark.parametrize("kind", ["mamba", "bloom"])
def test_a_model_whose_layers_cannot_share_a_passage_is_refused(tiny_student: Path, kind: str) -> None:
    model, tokenizer = make(kind, tiny_student, hidden_size=32, num_hidden_layers=2, n_head=4)
    with pytest.raises(ValueError, match=kind):
        Decoder(model, tokenizer)
