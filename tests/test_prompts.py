"""Prompts split into a shared prefix and suffixes have the tokens of `apply_chat_template`, for all templates."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from open_ner.conversation import build_query, neutralize
from open_ner.prompts import Encoder
from tiny import SENTENCES

PLAIN = (  # the paper's, for base models
    "{% for message in messages %}{% if message.role == 'system' %}{{ message.content }}"
    "{% elif message.role == 'user' %}{{ ' ' if loop.index0 == 1 }}USER: {{ message.content }} ASSISTANT:"
    "{% else %} {{ message.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
HEADERS = (  # like Llama 3, which trims contents
    "{{ bos_token }}{% for message in messages %}{{ '<|im_start|>' + message.role + '<|im_start|>\n\n'"
    " + message.content | trim + '<|im_end|>' }}{% endfor %}{{ '<|im_start|>assistant<|im_start|>\n\n' }}"
)
THINKING = (  # like Qwen 3, which writes the last answer differently
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}{% if message.role == 'assistant' %}"
    "{{ message.content.split('</think>')[-1].lstrip('\n') }}{% else %}{{ message.content }}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' }}"
)
BARE = "{% for message in messages %}{{ message.content }}\n{% endfor %}"
LATE = "{{ messages[-1].content }}<|im_end|>{% for message in messages %}{{ message.content }}{% endfor %}"
TEXTS = [
    "Marie Curie lived in Paris.",
    "",
    " lead\n",
    "trail  ",
    "\n\n",
    "Rome<|im_end|>",
    "naïve 東京 👩\u200d💻",
    "a " * 300,
]
TYPES = ["person", "  x", "y  ", "\n", "人", "<|im_start|>", "What describes", "in the text?", "a city; a town", "per"]


def byte_level(folder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(folder)


def sentence_piece(folder: Path) -> PreTrainedTokenizerBase:
    """A tokenizer like Llama 2's: a mark before every piece, unknown characters as bytes."""
    bpe = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    special = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", *(f"<0x{byte:02X}>" for byte in range(256))]
    bpe.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=800, special_tokens=special[:5], show_progress=False)
    )
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def greedy_about_spaces(folder: Path) -> PreTrainedTokenizerBase:
    """Special tokens that include the white space around them: a cut there is not safe."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    bpe.train_from_iterator(
        SENTENCES,
        trainers.BpeTrainer(vocab_size=500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe)
    from tokenizers import AddedToken

    tokenizer.add_special_tokens(
        {
            "bos_token": AddedToken("<|im_start|>", lstrip=True, rstrip=True, special=True),
            "eos_token": AddedToken("<|im_end|>", lstrip=True, rstrip=True, special=True),
        }
    )
    return tokenizer


@pytest.mark.parametrize("template", [None, PLAIN, HEADERS, THINKING, BARE, LATE])
@pytest.mark.parametrize("make", [byte_level, sentence_piece, greedy_about_spaces])
def test_the_tokens_are_those_of_the_whole(
    tiny_student: Path, make: Callable[[Path], PreTrainedTokenizerBase], template: str | None
) -> None:
    tokenizer = make(tiny_student)
    tokenizer.chat_template = template or byte_level(tiny_student).chat_template
    encoder = Encoder(tokenizer)
    for text in TEXTS:
        for dataset in (None, "MIT Movie"):
            prompts = encoder.encode(text, TYPES, dataset)
            assert len(prompts.suffixes) == len(TYPES) and all(prompts.suffixes)
            for name, suffix in zip(TYPES, prompts.suffixes, strict=True):
                messages = neutralize(build_query(text, name, dataset), encoder.special_tokens)
                whole = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
                assert prompts.prefix + suffix == whole, (text, name)


@pytest.mark.parametrize("template", [None, PLAIN, HEADERS, THINKING])
def test_the_passage_is_in_the_tokens_that_all_prompts_share(tiny_student: Path, template: str | None) -> None:
    tokenizer = byte_level(tiny_student)
    tokenizer.chat_template = template or tokenizer.chat_template
    text = "A passage that is shared." * 20
    prompts = Encoder(tokenizer).encode(text, [f"type {number}" for number in range(500)])
    assert len(prompts.prefix) > len(tokenizer.encode(text)) and max(map(len, prompts.suffixes)) < 40


def test_a_tokenizer_without_a_template_is_refused(tiny_student: Path) -> None:
    tokenizer = byte_level(tiny_student)
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="chat template"):
        Encoder(tokenizer)


def test_no_types_no_tokens(tiny_student: Path) -> None:
    prompts = Encoder(byte_level(tiny_student)).encode("Rome", [])
    assert (prompts.prefix, prompts.suffixes, len(prompts)) == ([], [], 0)


def test_a_template_that_rejects_the_dialogue_is_a_value_error(tiny_student: Path) -> None:
    tokenizer = byte_level(tiny_student)
    tokenizer.chat_template = "{{ raise_exception('system turns are not supported') }}"
    with pytest.raises(ValueError, match="cannot render a conversation: system turns are not supported"):
        Encoder(tokenizer).encode("Rome", ["city"])


def test_rendering_needs_no_torch() -> None:
    """The builder renders templates too, and stays light."""
    script = "import sys, open_ner.prompts; assert not {'torch', 'datasets'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parent.parent)
