"""Documents are cut into pieces of whole words that cover them and stay within the limit, with any tokenizer."""

import re
from pathlib import Path
from typing import Any

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from dataset_builder.corpus import cutting
from dataset_builder.corpus.cutting import PassageCutter, Piece, load_tokenizer
from open_ner import borders
from open_ner.tools.errors import UserError

TEXTS = ["the quick brown fox jumps over the lazy dog.\n\nthe dog's 12 foxes; 345 (the end)." * 5]
CL100K = r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def byte_level(splitter: pre_tokenizers.PreTokenizer) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = splitter
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def sentencepiece() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(vocab_size=60, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def word_piece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=80, special_tokens=["[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


GPT2 = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))
LLAMA3 = byte_level(
    pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(CL100K), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
)
TOKENIZERS = {"gpt2": GPT2, "llama3": LLAMA3, "sentencepiece": sentencepiece(), "bert": word_piece()}
WORDS = ["the", "quick", "fox's", "dog.", "Zürich", "😀", "a" * 12, "1234", "(x)", "\u4e2d\u6587", "\0", "_a-b_"]
SPACES = [" ", "\n", "\n\n", "  ", "\t ", "\xa0", "\x85", "\u2028", "\u3000", "\x1c", "\r\n"]
DOCUMENTS = st.lists(st.sampled_from(WORDS + SPACES * 2), max_size=120).map("".join)


UNSPACED = re.compile(f"[{borders.UNSPACED}{cutting.MARKS}]")


def may_cut(document: str, position: int) -> bool:
    """Between words, or between grapheme clusters of which one is of a script without spaces."""
    sides = regex.findall(r"\X$", document[:position]) + regex.findall(r"^\X", document[position:])
    whole = "".join(sides) in document and regex.findall(r"\X", "".join(sides)) == sides
    return len(sides) < 2 or not all(map(str.strip, sides)) or (whole and bool(UNSPACED.search("".join(sides))))


def cut(tokenizer: Tokenizer, limit: int, document: str) -> list[Piece]:
    return list(PassageCutter(tokenizer, limit).cut(document))


@pytest.mark.parametrize("name", TOKENIZERS)
@given(documents=st.lists(DOCUMENTS | st.text(max_size=60), max_size=4), limit=st.integers(1, 30))
def test_pieces_cover_the_document_in_whole_words_within_the_limit(
    name: str, documents: list[str], limit: int
) -> None:
    tokenizer = TOKENIZERS[name]
    documents = [text.encode("utf-8", "replace").decode() for text in documents]
    for document in documents:
        found = cut(tokenizer, limit, document)
        assert "".join("".join(document[a:b].split()) for a, b, _ in found) == "".join(document.split())
        for start, end, tokens in found:
            text = document[start:end]
            assert text == text.strip() and all(may_cut(document, position) for position in (start, end))
            assert tokens == len(tokenizer.encode(text, add_special_tokens=False))
            assert tokens <= limit or len(cutting.SMALLEST_PART.findall(text)) == 1 or not UNSPACED.search(text)
            assert tokens <= limit or len(text.split()) == 1


@given(st.lists(DOCUMENTS, min_size=1, max_size=5), st.integers(1, 30))
def test_pieces_do_not_depend_on_what_was_cut_before(documents: list[str], limit: int) -> None:
    for tokenizer in (GPT2, LLAMA3):
        cutter = PassageCutter(tokenizer, limit)
        assert [list(cutter.cut(document)) for document in documents] == [
            cut(tokenizer, limit, document) for document in documents
        ]


@given(DOCUMENTS, st.integers(1, 30))
def test_the_next_word_would_not_have_fitted(document: str, limit: int) -> None:
    found = cut(GPT2, limit, document)
    for (start, _, _), (following, end, _) in zip(found, found[1:], strict=False):
        word = document[following:end].split()[0]
        assert len(GPT2.encode(document[start : following + len(word)], add_special_tokens=False)) > limit


CHINESE = "北京市市长张伟星期一与交通运输部部长李娜一起，为横跨永定河的新桥举行了通车仪式。许多市民、学生到场观看。"
JAPANESE = "東京都知事の小池氏は月曜日、国土交通大臣とともに「隅田川」に架かる新しい橋の開通式を行った。"
THAI = "ผู้ว่าราชการกรุงเทพมหานครเปิดสะพานใหม่ข้ามแม่น้ำเจ้าพระยา เมื่อวันจันทร์ร่วมกับรัฐมนตรี"


@pytest.mark.parametrize("text", [CHINESE, JAPANESE, THAI])
def test_scripts_without_spaces_are_cut_between_phrases(text: str) -> None:
    phrases = [match[0] for match in cutting.PHRASE.finditer(text)]
    longest = max(len(GPT2.encode(phrase, add_special_tokens=False)) for phrase in phrases) + cutting.MARGIN
    document = f"{text} " * 20
    found = cut(GPT2, longest, document)
    assert len(found) > 10 and max(tokens for *_, tokens in found) <= longest
    whole = [match.span() for match in cutting.PHRASE.finditer(document)]
    assert {start for start, _, _ in found} <= {start for start, _ in whole}


@pytest.mark.parametrize("text", [CHINESE, JAPANESE, THAI, "क्षत्रिय" * 20 + "北京", "🇰🇷" * 40 + "か\u3099" * 40])
def test_a_phrase_without_an_end_is_cut_between_characters(text: str) -> None:
    document = re.sub(f"[{cutting.MARKS} ]", "", text) * 10
    clusters = {0} | {match.end() for match in regex.finditer(r"\X", document)}
    found = cut(GPT2, 30, document)
    assert "".join(document[a:b] for a, b, _ in found) == document
    assert {position for start, end, _ in found for position in (start, end)} <= clusters


def test_pieces_are_nearly_as_long_as_the_limit(tiny_student: Path) -> None:
    document = " ".join(TEXTS * 20)
    found = cut(load_tokenizer(str(tiny_student)), 50, document)
    assert min(tokens for _, _, tokens in found[:-1]) >= 40


def test_a_long_document_and_a_long_word_are_cut_like_any(monkeypatch: pytest.MonkeyPatch) -> None:
    document = "the quick fox " * 300
    whole = cut(GPT2, 20, document)
    monkeypatch.setattr(cutting, "LONGEST_WORD", 100)
    assert cut(GPT2, 20, document) == whole
    text = "the " * 40 + "x" * 1000 + " fox"
    found = cut(GPT2, 20, text)
    assert [text[a:b] for a, b, tokens in found if tokens > 20] == ["x" * 1000]
    assert " ".join(text[a:b] for a, b, _ in found).split() == text.split()


class Counting:
    """A tokenizer that counts the characters it is given."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer, self.characters = tokenizer, 0

    def encode(self, text: str, **options: Any) -> Any:
        self.characters += len(text)
        return self.tokenizer.encode(text, **options)

    def encode_batch_fast(self, texts: list[str], **options: Any) -> Any:
        self.characters += sum(map(len, texts))
        return self.tokenizer.encode_batch_fast(texts, **options)


@pytest.mark.parametrize("document", ["x" * 10**7, " " * 10**7, "ab " * 10**5, "\n".join(["y" * 76] * 10**3)])
def test_huge_documents_are_cut_in_linear_time(document: str) -> None:
    """What is tokenized is counted; a search that is quadratic takes hours, which the limit of every test ends."""
    tokenizer = Counting(GPT2)
    found = list(PassageCutter(tokenizer, 256).cut(document))
    assert [b for _, b, _ in found][-1:] == ([len(document.rstrip())] if document.strip() else [])
    assert tokenizer.characters < 3 * len(document)


def test_an_unknown_tokenizer_gives_a_one_line_error() -> None:
    with pytest.raises(UserError, match="^tokenizer 'no/such' is neither"):
        load_tokenizer("no/such")


def test_a_long_document_is_tokenized_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "BLOCK", 300)
    lengths: list[int] = []

    class Counting:
        """A tokenizer that notes the length of each text."""

        def __init__(self, tokenizer: Tokenizer) -> None:
            self.tokenizer = tokenizer

        def encode(self, text: str, **options: Any) -> Any:
            lengths.append(len(text))
            return self.tokenizer.encode(text, **options)

        def encode_batch_fast(self, texts: list[str], **options: Any) -> Any:
            return self.tokenizer.encode_batch_fast(texts, **options)

    tokenizer = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))
    for document in (TEXTS[0] * 8, "艾达在罗马见到了查尔斯。" * 200):
        lengths.clear()
        pieces = list(PassageCutter(Counting(tokenizer), 40).cut(document))
        assert max(lengths) <= 320 and len(lengths) > 5
        borders = [0, *(border for start, end, _ in pieces for border in (start, end)), len(document)]
        between = [document[end:start] for end, start in zip(borders[::2], borders[1::2], strict=True)]
        assert not "".join(between).strip()  # every word is in a piece
        assert all(size <= 40 for _, _, size in pieces)
