"""With any chat template and tokenizer, learned answers begin where the prompt of inference ends."""

import shutil
from pathlib import Path

import datasets
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline
from transformers.pipelines.text_generation import Chat

import kinds
from kinds import encode_conversation
from open_ner.conversation import build_conversation, build_query
from open_ner.decoding import Decoder
from open_ner.prompts import Encoder
from open_ner.tools.errors import UserError
from sft import IGNORED
from sft.branches import PREFIX, single_queries
from sft.conversations import tokenize
from sft.template import Template
from sft.tokenizer import load_tokenizer
from tiny import CHAT_TEMPLATE

PASSAGE = 'Obama met  "Merkel" in Zürich,\nNew  York. '
QUERIES = [("person", ["Obama", '"Merkel"']), ("river", []), ("city", ["Zürich", "New  York"])]
CONVERSATION = build_conversation(PASSAGE, QUERIES)
TEMPLATES = {"smollm2": CHAT_TEMPLATE, "qwen3": kinds.QWEN3, "llama3": kinds.LLAMA3, "gemma": kinds.GEMMA}
ENDS = {"smollm2": "<|im_end|>", "qwen3": "<|im_end|>", "llama3": "<|eot|>", "gemma": "<|/turn|>"}
BASES = {"gpt2_like": "<|endoftext|>", "llama_like": "</s>"}


@pytest.fixture(params=[*TEMPLATES, *BASES])
def kind(request: pytest.FixtureRequest, tiny_student: Path, tmp_path: Path) -> tuple:
    """`(tokenizer, end token)` of each kind."""
    if request.param in TEMPLATES:
        return kinds.with_template(tiny_student, TEMPLATES[request.param]), ENDS[request.param]
    return load_tokenizer(str(kinds.base_student(tiny_student, request.param, tmp_path / "b"))), BASES[request.param]


def test_exactly_the_answers_and_their_end_tokens_are_learned(kind: tuple) -> None:
    tokenizer, end = kind
    ids, labels = encode_conversation(CONVERSATION, tokenizer)
    learned = tokenizer.decode([label for label in labels if label != IGNORED])
    answers = [part.strip() for part in learned.split(end)]
    assert answers == [*(turn["content"] for turn in CONVERSATION[4::2]), ""]
    assert all(label in (IGNORED, token) for token, label in zip(ids, labels, strict=True))
    assert labels[-1] == Template(tokenizer).end_token_id


def test_what_stands_before_the_first_answer_is_the_prompt_of_inference(kind: tuple) -> None:
    tokenizer, _ = kind
    ids, labels = encode_conversation(CONVERSATION, tokenizer)
    first = next(place for place, label in enumerate(labels) if label != IGNORED)
    prompt = tokenizer.apply_chat_template(
        build_query(PASSAGE, "person"), add_generation_prompt=True, tokenize=True, return_dict=False
    )
    assert ids[:first] == prompt


def test_one_query_has_the_text_and_span_that_it_has_in_a_conversation(kind: tuple) -> None:
    template = Template(kind[0])
    for text in (PASSAGE, "a", "\n\n spaces around \n", 'content-0 ["content-3."]', "{{ braces }}"):
        conversation = build_conversation(text, QUERIES[:1])
        assert template.spans(conversation) == template.single(conversation)


@pytest.mark.parametrize(
    ("template", "named"),
    [
        (kinds.MISTRAL, "renders an answer's prompt differently"),
        (kinds.NO_END, "writes no end token after an answer"),
        (CHAT_TEMPLATE.replace("message['content']", "message['content'] | upper"), "where .* stands"),
        (None, "no chat template"),
    ],
)
def test_templates_that_cannot_be_trained_exactly_are_refused(template: str, named: str, tiny_student: Path) -> None:
    with pytest.raises(UserError, match=named):
        Template(kinds.with_template(tiny_student, template)).spans(CONVERSATION)


@pytest.mark.parametrize("name", ["MISTRAL", "NO_SYSTEM", "ALTERNATE", "THINKING", "CHANNELS", "QWEN3", "GEMMA"])
def test_with_branches_any_template_gives_the_prompt_of_inference_the_answer_and_its_end(
    name: str, tiny_student: Path, tmp_path: Path
) -> None:
    student = tmp_path / name
    shutil.copytree(tiny_student, student)
    kinds.with_template(tiny_student, getattr(kinds, name)).save_pretrained(student)
    tokenizer = load_tokenizer(str(student))
    encoder = Encoder(tokenizer)
    rows, _ = tokenize(datasets.Dataset.from_list([{"messages": CONVERSATION}]), tokenizer, None, branches=True)
    row = rows[0]
    end = encoder.tokenizer.decode(Template(tokenizer).end_token_id)
    for number, query in enumerate(single_queries(CONVERSATION), start=1):
        own = [place for place, branch in enumerate(row["branches"]) if branch in (PREFIX, number)]
        learned = [row["labels"][place] for place in own if row["labels"][place] != IGNORED]
        prompts = encoder.encode(PASSAGE, [QUERIES[number - 1][0]])
        assert [row["input_ids"][place] for place in own] == prompts.prefix + prompts.suffixes[0] + learned
        assert tokenizer.decode(learned).strip() == query[-1]["content"] + end
        # what servers and pipeline("text-generation") are asked, with the template that is saved
        asked = tokenizer.apply_chat_template(query[:-1], add_generation_prompt=True, return_dict=False)
        assert asked == prompts.prefix + prompts.suffixes[0]
        assert tokenizer.decode(asked).count("virtual assistant answers questions") == 1


def test_a_prompt_whose_end_is_read_differently_before_an_answer_is_refused(tiny_student: Path) -> None:
    # a byte-level tokenizer reads two spaces as one token at the end of a text, and as two before a word
    joined = CHAT_TEMPLATE.replace("assistant\n", "assistant:  ").replace(
        "message['role'] + '\n'", "message['role'] + (':  ' if message['role'] == 'assistant' else '\n')"
    )
    tokenizer = kinds.with_template(tiny_student, joined)
    tokenizer.add_tokens("assistant:  ")
    Template(tokenizer)  # one token, whatever follows
    tokenizer = kinds.with_template(tiny_student, joined)
    tokenizer.add_tokens('  ["')
    with pytest.raises(UserError, match="differently when an answer follows"):
        Template(tokenizer)


@pytest.mark.parametrize("name", ["qwen3", "gpt2_like", "llama_like"])
def test_inference_shares_the_passage_and_asks_as_text_generation_does(
    name: str, tiny_student: Path, tmp_path: Path
) -> None:
    folder = tiny_student
    if name in BASES:
        folder = kinds.base_student(tiny_student, name, tmp_path / "base")
    tokenizer = load_tokenizer(str(folder))
    if name == "qwen3":
        tokenizer.chat_template = kinds.QWEN3
    model = AutoModelForCausalLM.from_pretrained(folder)
    prompts = Decoder(model, tokenizer).encoder.encode(PASSAGE, ["person", "city"])
    prefix, suffixes = prompts.prefix, prompts.suffixes
    assert PASSAGE.rstrip() in tokenizer.decode(prefix) and "I've read this text." in tokenizer.decode(prefix)
    generator = pipeline("text-generation", model=model, tokenizer=tokenizer)
    for entity_type, suffix in zip(["person", "city"], suffixes, strict=True):
        asked = generator.preprocess(Chat(build_query(PASSAGE, entity_type)))["input_ids"][0].tolist()
        assert prefix + suffix == asked


@pytest.mark.parametrize("name", ["smollm2", "uniner"])
def test_templates_marked_for_trl_give_the_same_ids_and_labels(name: str, tiny_student: Path, tmp_path: Path) -> None:
    marked = (Path(__file__).parent.parent / "open_ner" / "chat_templates" / f"{name}.jinja").read_text()
    folder = kinds.base_student(tiny_student, "gpt2_like", tmp_path / "b") if name == "uniner" else tiny_student
    tokenizer = load_tokenizer(str(folder))
    ids, labels = encode_conversation(CONVERSATION, tokenizer)
    stock = tokenizer.apply_chat_template(
        CONVERSATION, chat_template=marked, return_dict=True, return_assistant_tokens_mask=True
    )
    assert stock["input_ids"][: len(ids)] == ids
    masks = stock["assistant_masks"][: len(ids)]
    assert [token if mask else IGNORED for token, mask in zip(ids, masks, strict=True)] == labels


def test_tokens_without_a_width_are_learned_with_their_answer(tiny_student: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_student)
    conversation = build_conversation("a", [("b", ["New   York"])])
    _, labels = encode_conversation(conversation, tokenizer)
    assert tokenizer.decode([label for label in labels if label != IGNORED]) == '["New   York"]<|im_end|>'


@pytest.mark.parametrize("name", ["smollm2", *BASES])
def test_the_empty_answer_has_the_tokens_that_training_gives_it(name: str, tiny_student: Path, tmp_path: Path) -> None:
    """Also where the template leaves the space before an answer to it."""
    folder = kinds.base_student(tiny_student, name, tmp_path / "base") if name in BASES else tiny_student
    tokenizer = load_tokenizer(str(folder))
    decoder = Decoder(AutoModelForCausalLM.from_pretrained(folder), tokenizer)
    _, labels = encode_conversation(build_conversation("Obama met Merkel.", [("city", [])]), tokenizer)
    learned = [label for label in labels if label != IGNORED]
    assert learned[: len(decoder.empty)] == decoder.empty
    assert "".join(tokenizer.decode(decoder.empty).split()) == "[]"
