"""Whether a tokenizer knows the script of some texts, or spells their characters in bytes."""

from collections.abc import Callable, Iterable

SAMPLE = 200  # texts that are measured
SPELLED = 1.0  # tokens per character, above which characters are split into bytes; English has about 0.2


def tokens_per_character(texts: Iterable[str], count: Callable[[list[str]], int]) -> float:
    """Return the tokens per character of texts; `count` returns the number of tokens of a list of texts."""
    texts = list(texts)
    return count(texts) / max(1, sum(map(len, texts)))


def spelling_warning(tokenizer: str, texts: Iterable[str], count: Callable[[list[str]], int]) -> str | None:
    """Return a warning if a student's tokenizer, given by its name, spells texts in bytes; otherwise None."""
    ratio = tokens_per_character(texts, count)
    if ratio <= SPELLED:
        return None
    return (
        f"warning: the student's tokenizer {tokenizer} spells this language in bytes, {ratio:.2f} tokens per "
        "character (English: about 0.2), so passages are short and answers are long; choose a student that knows the "
        "script: docs/languages.md"
    )
