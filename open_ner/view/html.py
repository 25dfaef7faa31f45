"""Render passages as one HTML file that needs no server, no network, and no script to be read.

Everything from the data is escaped text or an escaped attribute. The content security policy allows only the page's
own style and script, by their hashes, so even if escaping failed, no script in the data and no request could run.
"""

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

from ..tools.escapes import HIDDEN
from .passages import RejectedSpan, ShownPassage, lay_out, levels_of, marks_of

COLORS = 8  # colors in the style sheet; further types have the same colors with dashed, then dotted lines
LEVELS = 4  # underlines below each other
LONG = 32  # characters; longer types are shortened beside a span, and are whole in its bubble
ODD = re.compile(rf"({HIDDEN.pattern}|[\ud800-\udfff])")  # characters that are shown as code points


def render_html(passages: Sequence[ShownPassage], title: str, notes: Iterable[str] = (), noun: str = "reject") -> str:
    """Return a page of passages with marked spans, filters of types and reasons, and rejects to step through.

    Args:
        passages: what to show.
        title: heading of the page, such as the name of the file.
        notes: lines under the heading.
        noun: what rejects are called, in the singular.
    """
    types = Counter(one["type"] for passage in passages for one in passage["entities"])
    reasons = Counter(one["reason"] for passage in passages for one in passage["rejects"])
    names = [name for name, _ in sorted(types.items(), key=lambda item: (-item[1], item[0]))]
    numbers = {name: number for number, name in enumerate(names)}
    of_reason = {name: number for number, name in enumerate(sorted(reasons, key=lambda name: (-reasons[name], name)))}
    style, script = (_part(kind) for kind in ("css", "js"))
    counts = [(len(passages), "passage"), (types.total(), "span"), (len(types), "type"), (reasons.total(), noun)]
    return Template(_part("html")).substitute(
        style=style, script=script, style_hash=_hash(style), script_hash=_hash(script), noun=escape(noun),
        title=_text(title), name=ODD.sub("\N{REPLACEMENT CHARACTER}", escape(title)),
        counts=" · ".join(_count(*one) for one in counts),
        notes="".join(f"<p>{_text(note)}</p>" for note in notes),
        types="".join(_choice("t", number, name, types[name], _color(number)) for name, number in numbers.items()),
        reasons="".join(_choice("r", number, name, reasons[name], "") for name, number in of_reason.items()),
        n_types=len(types), n_reasons=len(reasons),
        passages="\n".join(_article(one, n, numbers, of_reason, noun) for n, one in enumerate(passages, 1)),
    )  # fmt: skip


def render_fragment(passage: ShownPassage, types: Iterable[str]) -> str:
    """Return the marked text of a passage with its style, for a page that has a style of its own.

    Args:
        passage: its rejects and its id are not shown.
        types: all types that were asked, including those of the entities; their order determines the colors.
    """
    numbers = {name: number for number, name in enumerate(dict.fromkeys(types))}
    style = _part("css").replace(":root", ":scope")  # the surrounding page keeps its own `:root`
    text = f'<div class="text" dir="auto">{_marked({**passage, "rejects": []}, 1, numbers, {}, focusable=False)}</div>'
    return f'<style>@scope (.open-ner) {{{style}}}</style><div class="open-ner">{text}</div>'


def _part(kind: str) -> str:
    return Path(__file__).with_name(f"page.{kind}").read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """The source expression of a content security policy for this style or script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _text(text: str) -> str:
    """Escape a text; a character that would hide or reorder text, or end a line, becomes its symbol or its number."""

    def named(code: int) -> str:
        return f'<i class="odd" title="U+{code:04X}">{chr(0x2400 + code) if code < 0x20 else f"{code:04X}"}</i>'

    pieces = ODD.split(text)  # matches of ODD have odd indices
    return "".join(named(ord(piece)) if n % 2 else escape(piece) for n, piece in enumerate(pieces))


def _count(number: int, noun: str) -> str:
    return f"{number:,} {escape(noun)}{'' if number == 1 else 's'}"


def _color(number: int) -> str:
    """The classes of a type's color and line."""
    return f"c{number % COLORS} line{number // COLORS % 3}"


def _choice(kind: str, number: int, name: str, count: int, color: str) -> str:
    """A row of a filter: a box to check, the name, the count, and a button that unchecks all others."""
    key = f"{kind}{number}"
    swatch = f'<span class="swatch {color}"></span>' if color else ""
    box = f'<input type="checkbox" checked data-choice="{key}">{swatch}<bdi>{_text(name)}</bdi>'
    only = f'<button type="button" data-only="{key}">only</button><span class="count">{count:,}</span>'
    return f"<li><label>{box}</label>{only}</li>"


def _article(passage: ShownPassage, number: int, types: dict[str, int], reasons: dict[str, int], noun: str) -> str:
    """A passage: its id, its text with marks, its rejects, its types without a span, and the teacher's reply."""
    entities, rejects = passage["entities"], passage["rejects"]
    counts = _count(len(entities), "span") + (f" · {_count(len(rejects), noun)}" if rejects else "")
    title = f'<span class="number">{number}</span><bdi>{_text(passage["id"])}</bdi>'
    about = f'<bdi class="about">{_text(passage.get("about", ""))}</bdi><span class="count">{counts}</span>'
    parts = [
        f'<article id="p{number}" tabindex="-1"><h2>{title}{about}</h2>',
        f'<div class="text" dir="auto">{_marked(passage, number, types, reasons)}</div>',
    ]
    if rejects:
        parts.append(f'<ul class="rejects">{"".join(_reject(one, reasons) for one in rejects)}</ul>')
    if absent := passage.get("absent"):
        names = ", ".join(f"<bdi>{_text(name)}</bdi>" for name in absent)
        parts.append(f'<p class="absent">Asked, no span: {names}</p>')
    if reply := passage.get("reply"):
        parts.append(f'<details><summary>Reply</summary><div class="reply" dir="auto">{_text(reply)}</div></details>')
    return "".join([*parts, "</article>"])


def _marked(
    passage: ShownPassage, number: int, types: dict[str, int], reasons: dict[str, int], focusable: bool = True
) -> str:
    """The text of a passage with a `mark` for each span; an interrupted span has several with the same key."""
    marks = marks_of(passage)
    levels, keys = levels_of(marks), {mark: f"{number}.{place}" for place, mark in enumerate(marks)}
    html: list[str] = []
    for piece in lay_out(passage["text"], marks):
        if isinstance(piece, str):
            html.append(_text(piece))
            continue
        mark = piece.mark
        if piece.opens:
            choice = f"r{reasons[mark.reason]}" if mark.reason else f"t{types[mark.type]}"
            looks = "missing" if mark.reason else _color(types[mark.type])
            focus = ' tabindex="0"' if piece.whole and focusable else ""
            score = "" if mark.score is None else f' data-score="{mark.score:.4g}"'
            html.append(
                f'<mark class="{looks} level{min(levels[mark], LEVELS - 1)}"{focus} data-choice="{choice}" '
                f'data-key="{keys[mark]}" data-start="{mark.start}" data-end="{mark.end}"{score}>'
            )
        elif piece.whole:
            name = f"{mark.reason}: {mark.type}" if mark.reason else mark.type
            short = name if len(name) <= LONG else f"{name[: LONG - 1]}…"
            html.append(f'<bdi class="type">{_text(short)}</bdi></mark>')
        else:
            html.append("</mark>")
    return "".join(html)


def _reject(one: RejectedSpan, reasons: dict[str, int]) -> str:
    """An item of the list of rejects."""
    offsets = f'<span class="offsets">{one.get("start")}:{one.get("end")}</span>' if "start" in one else ""
    return (
        f'<li tabindex="-1" data-choice="r{reasons[one["reason"]]}"><b>{_text(one["reason"])}</b> '
        + (f"<q><bdi>{_text(one['text'])}</bdi></q> " if one["text"] else "")
        + f'<bdi class="type">{_text(one["type"])}</bdi>{offsets}</li>'
    )
