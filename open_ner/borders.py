"""Where a span may begin and end, in any script: never inside a character as readers see it, best between words.

Characters with their combining marks, emoji sequences, flags, decomposed Hangul syllables and Indic conjuncts stay
whole: the grapheme clusters of Unicode (UAX 29), by the standard library alone, because this file travels with the
weights. In scripts without spaces every character may begin or end a word.
"""

import re
import unicodedata

# scripts that are written without spaces between words, as ranges of a character class
UNSPACED = (
    "\u0e00-\u0fff"  # Thai, Lao, Tibetan
    "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"  # Burmese and its neighbors
    "\u1780-\u17ff"  # Khmer
    "\u3005-\u3007\u3021-\u312f\u31a0-\u31ff\uff66-\uff9f"  # Hiragana, Katakana, Bopomofo
    "\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)
_UNSPACED = re.compile(f"[{UNSPACED}]")
FLAG_LETTERS = "".join(map(chr, range(0x1F1E6, 0x1F200)))  # two of them are a flag
# pairs of characters that no span separates
_TOGETHER = re.compile(
    ".[\u200c\u200d\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f"  # joiners, as in emoji and Persian; skin tones; tags
    "\u0e33\u0eb3\uff9e\uff9f]"  # vowels and voicing marks that Unicode counts among the letters
    "|\u200d."
    "|[\u094d\u09cd\u0acd\u0b4d\u0c4d\u0d4d\u1039\u17d2\u1a60\ua9c0\uaaf6][^\\W\\d_]"  # Indic conjuncts
    "|[\u1100-\u115f\ua960-\ua97c][\u1100-\u11ff\ua960-\ua97c\uac00-\ud7fb]"  # Hangul: initial, then vowel
    "|[\u1100-\u11ff\uac00-\ud7fb][\u1160-\u11ff\ud7b0-\ud7fb]",  # Hangul: vowel or final after anything
    re.DOTALL,
)
# Korean endings of nouns, written without a space: particles, some forms of "to be", honorifics
_PARTICLES = re.compile(
    "(?:에게서|에서|에게|에|께서|께|한테|으로|로|서|써|은|는|이|가|을|를|의|와|과|랑|하고|도|만|부터|까지|마저|조차|밖에"
    "|보다|처럼|만큼|대로|마다|나|든지|들|씨|님|이고|이자|입니다|였다|었다|라고|라는|라며|란|며|다){1,3}(?!\\w)"
)
# Arabic and Hebrew prefixes of nouns: and, in, to, as, the, ...
_PREFIXES = re.compile("(?<!\\w)(?:[وف]?[بكل]?(?:ال)?|[ושהבלכמ]{1,3})")
LONGEST_PREFIX = 4  # characters


def is_border(text: str, position: int) -> bool:
    """Return whether a span may begin or end at a position: not inside a grapheme cluster."""
    left, right = text[max(0, position - 1) : position], text[position : position + 1]
    if not left or not right or (left.isascii() and right.isascii()):
        return True
    if unicodedata.category(right)[0] == "M" or _TOGETHER.match(left + right):
        return False
    if left in FLAG_LETTERS and right in FLAG_LETTERS:
        before = text[:position]
        return (len(before) - len(before.rstrip(FLAG_LETTERS))) % 2 == 0
    return True


def begins_word(text: str, position: int) -> bool:
    """Return whether a word may begin at a position, for example after the Arabic "and" that is written with it."""
    if not is_border(text, position):
        return False
    starts = range(max(0, position - LONGEST_PREFIX), position)
    return not _inside_word(text, position) or any(_PREFIXES.fullmatch(text, start, position) for start in starts)


def ends_word(text: str, position: int) -> bool:
    """Return whether a word may end at a position, for example before a Korean particle."""
    return is_border(text, position) and (not _inside_word(text, position) or bool(_PARTICLES.match(text, position)))


def _inside_word(text: str, position: int) -> bool:
    pair = text[max(0, position - 1) : position + 1]
    return len(pair) == 2 and is_word(pair[0]) and is_word(pair[1]) and not _UNSPACED.search(pair)


def is_word(character: str) -> bool:
    r"""Return whether a character can be part of a word: `\w` of the standard `re`, and combining marks."""
    return character.isalnum() or character == "_" or unicodedata.category(character)[0] == "M"
