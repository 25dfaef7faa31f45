"""A student small enough for tests: a random two-layer Llama and a byte-level tokenizer trained on a few sentences.

`python tests/tiny.py FOLDER` writes one from the shell, for a script or a machine that has no pytest.
"""

import sys
from pathlib import Path

SENTENCES = [
    "Angela Merkel met Barack Obama in Berlin on 5 June 2013.",
    "The European Commission fined Google, a company based in Mountain View, California.",
    "Marie Curie won the Nobel Prize in Physics in 1903 and lived in Paris.",
    "Toyota and Sony announced a new electric car at the fair in Tokyo last week.",
    "The patient was given aspirin and ibuprofen for chronic pain at St. Mary's Hospital.",
    "What describes person in the text? What describes organization in the text? What describes location in the text?",
    "A virtual assistant answers questions from a user based on the provided text. Text: I've read this text.",
    '["Angela Merkel", "Barack Obama"] ["Paris", "Rome"] ["Google"] [] [] ["5 June 2013", "1903"] ["Berlin", "Tokyo"]',
]
CHAT_TEMPLATE = (  # as in SmolLM2
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LEARNED = {  # what the tuned student answers; a type that is missing does not occur
    "Angela Merkel met Barack Obama in Berlin.": {"person": ["Angela Merkel", "Barack Obama"], "city": ["Berlin"]},
    "Rome and Paris.": {"city": ["Rome", "Paris"]},
    SENTENCES[0]: {"person": ["Angela Merkel", "Barack Obama"], "city": ["Berlin"], "date": ["5 June 2013"]},
    SENTENCES[2]: {"person": ["Marie Curie"], "city": ["Paris"], "date": ["1903"]},
}
VOCABULARY = 600
MAX_POSITIONS = 2048


def make_tiny_student(folder: Path, seed: int = 0) -> Path:
    """Write a random float32 student and its tokenizer to `folder`; the same seed gives the same files."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(SENTENCES, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        model_max_length=MAX_POSITIONS,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
    tokens = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        initializer_range=0.15,  # wide, so that greedy answers differ between prompts instead of echoing one token
        **tokens,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).float()
    model.generation_config = GenerationConfig(**tokens)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)


def make_tuned_student(tiny: Path, folder: Path, steps: int = 120) -> Path:
    """Write a copy of a tiny student that has learned `LEARNED` by heart, so that it finds something."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from open_ner.conversation import build_query, write_answer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny), AutoTokenizer.from_pretrained(tiny)
    rows = []
    for text, answers in LEARNED.items():
        for name in ("person", "city", "date"):
            prompt = tokenizer.apply_chat_template(build_query(text, name), add_generation_prompt=True, tokenize=False)
            answer = f"{write_answer(answers.get(name, []))}<|im_end|>"
            rows.append([tokenizer(part, add_special_tokens=False)["input_ids"] for part in (prompt, answer)])
    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    ids = torch.tensor([prompt + answer + [2] * (width - len(prompt + answer)) for prompt, answer in rows])
    labels = torch.full_like(ids, -100)
    for row, (prompt, answer) in zip(labels, rows, strict=True):
        row[len(prompt) : len(prompt + answer)] = torch.tensor(answer)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        model(ids, labels=labels).loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)


if __name__ == "__main__":
    print(make_tiny_student(Path(sys.argv[1])))
