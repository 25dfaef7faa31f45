"""Rules that depend on the language of a text: the scripts it is written in, and what counts as a word."""

import re
import unicodedata
from collections.abc import Sequence
from functools import cache

import regex

from open_ner.borders import UNSPACED
from open_ner.tools.errors import UserError

# codes of the language detector, by the Unicode scripts of these languages other than Latin
SCRIPTS = {
    "Arabic": "ar arz azb ckb fa lrc mzn pnb ps sd ug ur", "Armenian": "hy", "Bengali": "as bn bpy",
    "Cyrillic": "av ba be bg bxr ce cv kk krc kv ky lez mhr mk mn mrj myv os ru rue sah sr tg tt tyv uk xal",
    "Devanagari": "bh dty gom hi mai mr ne new sa", "Ethiopic": "am", "Georgian": "ka xmf", "Greek": "el",
    "Gujarati": "gu", "Gurmukhi": "pa", "Han Bopomofo": "wuu yue zh", "Han Hiragana Katakana": "ja",
    "Hangul Han": "ko", "Hebrew": "he yi", "Kannada": "kn", "Khmer": "km", "Lao": "lo", "Malayalam": "ml",
    "Myanmar": "my", "Oriya": "or", "Sinhala": "si", "Tamil": "ta", "Telugu": "te", "Thaana": "dv", "Thai": "th",
    "Tibetan": "bo",
    "": "af als an ast az bar bcl br bs ca cbk ceb co cs cy da de diq dsb eml en eo es et eu fi fr frr fy ga gd gl gn "
    "gv hif hr hsb ht hu ia id ie ilo io is it jbo jv ku kw la lb li lmo lt lv mg min ms mt mwl nah nap nds nl nn no "
    "oc pam pfl pl pms pt qu rm ro sc scn sco sh sk sl so sq su sv sw tk tl tr uz vec vep vi vls vo wa war yo",
}  # fmt: skip
SCRIPTS_OF = {code: names.split() for names, codes in SCRIPTS.items() for code in codes.split()}
CHARACTERS_PER_WORD = 2  # in scripts without spaces; Chinese has fewer on average, Thai more

UNSPACED_LETTER = regex.compile(rf"(?=[{UNSPACED}])(?=[\p{{L}}\p{{N}}])\X")  # of a script without spaces
WORD = regex.compile(
    rf"{UNSPACED_LETTER.pattern}|(?![{UNSPACED}])[\p{{L}}\p{{N}}_](?:(?![{UNSPACED}])[\p{{L}}\p{{N}}\p{{M}}_])*"
)
PLAIN_WORD = re.compile(r"\w+")  # the same words in texts without SPECIAL characters, but faster
SPECIAL = re.compile("[\u0300-\u1fff\u2e80-\U0010ffff]")
GREEK_WORD = re.compile("[\u0370-\u03ff\u1f00-\u1fff]{3,}")
LATIN = ("LATIN", "GREEK", "MODIFIER LETTER")  # beginnings of the Unicode names of letters


def check_language(code: str) -> None:
    """Raise UserError if the language detector does not know a code."""
    if code not in SCRIPTS_OF:
        raise UserError(
            f"corpus.language {code!r} is not a language code that the detector knows: give an ISO 639 code in lower "
            "case, such as en, de, ru, ar, hi, ko, ja or zh, or null to keep passages in every language"
        )


def count_words(text: str) -> int:
    """Count the words of a text; where the script has no spaces, two characters count as one word."""
    if not SPECIAL.search(text):
        return len(text.split())
    rest, characters = UNSPACED_LETTER.subn(" ", text)
    words = len(rest.split()) if not characters else len(WORD.findall(rest))
    return words + -(-characters // CHARACTERS_PER_WORD)


def split_words(text: str) -> list[str]:
    """Return the words of a text without punctuation; where the script has no spaces, its characters."""
    return WORD.findall(text) if SPECIAL.search(text) else PLAIN_WORD.findall(text)


def words_in_units(words: Sequence[str], number: int) -> int:
    """Convert a number of words to items of `split_words`: twice as many if most of `words` are characters."""
    characters = sum(map(bool, map(UNSPACED_LETTER.match, words))) if SPECIAL.search("".join(words)) else 0
    return number * CHARACTERS_PER_WORD if 2 * characters > len(words) else number


def is_written_in(text: str, language: str) -> bool:
    """Whether at least half of a text's letters are Latin or of the language's scripts.

    Greek letters count as Latin outside of Greek words, as in β-carotene.
    """
    if text.isascii():
        return True
    own = _letters_of(language)
    rest = text if "Greek" in SCRIPTS_OF[language] else GREEK_WORD.sub("", text)
    plain = [unicodedata.normalize("NFKC", letter)[0] for letter in rest if letter.isalpha()]
    known = sum(bool(own.match(letter)) or unicodedata.name(letter, "").startswith(LATIN) for letter in plain)
    return 2 * known >= sum(map(str.isalpha, text))


@cache
def _letters_of(language: str) -> regex.Pattern[str]:
    scripts = "".join(rf"\p{{Script_Extensions={name}}}" for name in SCRIPTS_OF[language])
    return regex.compile(f"[{scripts}]" if scripts else r"(?!)")
