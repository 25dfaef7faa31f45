"""Licenses: which one follows from the sources of a dataset or model, and which of their terms conflict with it."""

import re
from collections.abc import Mapping
from typing import Literal

Terms = Literal["free", "noncommercial", "share-alike", "no derivatives", "unknown"]
SPACES = re.compile(r"[\s_/]+")
FREE = re.compile(
    r"\b(apache-2|mit\b|0?bsd|isc\b|cc0|unlicense\b|pddl|odc-by|public-domain|cc-by(-\d[\d.]*)?(?!-(nc|sa|nd))\b"
    r"|creativeml)"
)
SHARE_ALIKE = re.compile(r"cc-by-(nc-)?sa|gpl|odbl|\bsa\b")
DEMANDS: dict[Terms, str] = {
    "noncommercial": "forbids commercial use",
    "share-alike": "demands the same license for what is made from it",
    "no derivatives": "forbids sharing what is made from it",
    "unknown": "has terms that were not compared",
}


def terms_of(license_name: str) -> set[Terms]:
    """Return the terms of a license, in the Hub's or another spelling; {"free"} if it demands at most attribution."""
    spelled = SPACES.sub("-", license_name.strip().lower())
    found: set[Terms] = set()
    if re.search(r"\bnc\b|non-?commercial", spelled):
        found.add("noncommercial")
    if SHARE_ALIKE.search(spelled):
        found.add("share-alike")
    if re.search(r"\bnd\b", spelled):
        found.add("no derivatives")
    return found or ({"free"} if FREE.search(spelled) else {"unknown"})


def derive(sources: Mapping[str, str]) -> str:
    """Return the license, in the Hub's spelling, that follows from those of the sources; "other" if none does.

    Args:
        sources: license by source, such as {"the base model": "apache-2.0"}; an empty string means not stated. If all
            licenses are free, the first one is returned.
    """
    known = {name: terms_of(name) for name in sources.values()}
    if not known or any(terms & {"unknown", "no derivatives"} for terms in known.values()):
        return "other"
    strict = [name for name, terms in known.items() if terms != {"free"}]
    if len(strict) > 1:  # two licenses with demands; their compatibility is not decided here
        return "other"
    return (strict or list(known))[0]


def conflicts(license_name: str, sources: Mapping[str, str], passages: Mapping[str, int]) -> list[str]:
    """Return a sentence for each demand of a source's or passage's license that `license_name` does not make.

    Args:
        license_name: the license of the whole.
        sources: license by source; an empty string means not stated and is skipped.
        passages: number of passages by their license.
    """
    own = terms_of(license_name)
    found = []
    for source, name in sources.items():
        if name not in ("", license_name) and (lacking := sorted(terms_of(name) - own - {"free"})):
            found.append(f"The license of {source}, {name}, {' and '.join(DEMANDS[term] for term in lacking)}.")
    if number := passages.get("", 0):
        found.append(f"{number:,} passages do not state a license.")
    for term, demand in DEMANDS.items():
        named = {name: number for name, number in passages.items() if name and term in terms_of(name) - own}
        if named:
            kinds = f"{len(named)} licenses" if len(named) > 1 else next(iter(named))
            found.append(f"{sum(named.values()):,} passages have a license that {demand} ({kinds}).")
    return found
