"""Small tokenizers and chat templates like those of real students."""

import json
import shutil
from pathlib import Path

import datasets
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from open_ner.conversation import Message
from sft.conversations import tokenize
from tiny import SENTENCES

# like Qwen3: the last answer has an empty think block, earlier answers and the prompt do not
QWEN3 = (
    "{% for m in messages %}<|im_start|>{{ m.role + '\n' }}"
    "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# like Llama 3: a begin token, trimmed contents
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|head|>{{ m.role }}<|/head|>\n\n{{ m.content | trim }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|head|>assistant<|/head|>\n\n{% endif %}"
)
# like Gemma: no system turn, the role "model", and a turn does not end with the tokenizer's eos_token
GEMMA = (
    "{{ bos_token }}{% for m in messages[1:] %}<|turn|>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{% if loop.first %}{{ messages[0].content + '\n\n' }}{% endif %}{{ m.content | trim }}<|/turn|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>model\n{% endif %}"
)
# like Mistral: the system text moves to the last query, so a conversation and its first query differ early
MISTRAL = (
    "{{ bos_token }}{% for m in messages[1:] %}{% if m.role == 'user' %}[INST]"
    "{% if loop.last %}{{ messages[0].content + '\n\n' }}{% endif %}{{ m.content }}[/INST]"
    "{% else %}{{ m.content + eos_token }}{% endif %}{% endfor %}"
)
NO_END = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}" + (
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
NO_SYSTEM = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}" + (
    "{% endif %}{{ m.content }}<|im_end|>{% endfor %}"
)
# like Gemma 2: refuses a system turn and two turns of one role
ALTERNATE = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('must alternate') }}{% endif %}<|turn|>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<|/turn|>\n{% endfor %}{% if add_generation_prompt %}<|turn|>model\n{% endif %}"
)
# like DeepSeek R1: the prompt opens the thoughts, which no turn of a conversation has
THINKING = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}<|head|>{{ m.content + '<|eot|>' }}"
    "{% else %}{{ m.content + '<|/head|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|head|><think>\n{% endif %}"
)
# like gpt-oss: an answer is written in a channel, and ends in another token if it is the last turn
CHANNELS = (
    "{% for m in messages %}<|head|>{{ m.role }}{{ '<|turn|>final' if m.role == 'assistant' }}<|/head|>{{ m.content }}"
    "{{ '<|endoftext|>' if m.role == 'assistant' and loop.last else '<|eot|>' }}{% endfor %}"
    "{% if add_generation_prompt %}<|head|>assistant{% endif %}"
)
MARKS = ["<|head|>", "<|/head|>", "<|eot|>", "<|turn|>", "<|/turn|>"]


def encode_conversation(messages: list[Message], tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Token ids and labels of one conversation."""
    rows, _ = tokenize(datasets.Dataset.from_list([{"messages": messages}]), tokenizer, None)
    return rows[0]["input_ids"], rows[0]["labels"]


def with_template(student: Path, template: str) -> PreTrainedTokenizerFast:
    """The tiny student's tokenizer with another chat template and the special tokens of the templates above."""
    tokenizer = AutoTokenizer.from_pretrained(student)
    tokenizer.add_special_tokens({"additional_special_tokens": MARKS})
    tokenizer.chat_template = template
    return tokenizer


def gpt2_like(student: Path) -> PreTrainedTokenizerFast:
    """Byte-level, one special token for begin and end, no pad token, no chat template."""
    backend = AutoTokenizer.from_pretrained(student).backend_tokenizer
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|endoftext|>", eos_token="<|endoftext|>", model_max_length=2048
    )


def llama_like(student: Path) -> PreTrainedTokenizerFast:
    """Like SentencePiece: `▁` for spaces and before the text, bytes for unknown characters; no chat template.

    Its vocabulary is smaller than the tiny model's.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    learner.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=280, show_progress=False))
    learned = json.loads(learner.to_str())["model"]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *learned["vocab"]]
    backend = Tokenizer(
        models.BPE(
            {piece: index for index, piece in enumerate(pieces)},
            [tuple(pair) for pair in learned["merges"]],
            unk_token="<unk>",
            byte_fallback=True,
        )
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>", model_max_length=2048
    )


def base_student(student: Path, kind: str, folder: Path) -> Path:
    """A folder with the tiny model and a base model's tokenizer, `gpt2_like` or `llama_like`."""
    shutil.copytree(student, folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)
    globals()[kind](student).save_pretrained(folder)
    return folder
