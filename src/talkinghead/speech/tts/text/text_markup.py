"""Convert marked-up text to the words that a reader would read aloud.

SSML, HTML and Markdown are reduced to their text; colour codes of terminals are removed. An empty
line, which ends a sentence and so makes a pause, replaces paragraphs, headings, list items and rows
of tables. Breaks of SSML are pauses of the given length.
"""

from __future__ import annotations

import html
import logging
import re
from collections.abc import Callable, Set
from dataclasses import dataclass
from functools import cache
from html.entities import html5

log = logging.getLogger(__name__)

MAX_BREAK_S = 10.0
"""Maximum duration of a break in seconds."""
_PAUSE = "\n\n"
# A break in a text: its duration in milliseconds between two characters of the private use area.
_MARK = "\ue000"
_MARKED = re.compile(f"{_MARK}(\\d+){_MARK}")
_STRENGTHS_S = {"x-weak": 0.25, "weak": 0.5, "medium": 0.75, "strong": 1.0, "x-strong": 1.25}
# Elements of SSML, HTML and language models whose content is not spoken.
_UNSPOKEN = "script|style|head|desc|metadata|lexicon|title|think|thinking|reasoning"
# Elements that are separate paragraphs.
_BLOCKS = frozenset(
    (
        *("p", "s", "paragraph", "sentence", "br", "hr", "div", "li", "ul", "ol", "tr", "table"),
        *("h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "address", "article", "aside", "pre"),
        *("caption", "dd", "details", "dl", "dt", "fieldset", "figcaption", "figure", "footer"),
        *("form", "header", "legend", "main", "nav", "option", "section", "summary", "td", "th"),
    )
)
# Names of further elements of HTML, SSML and voices. Others in angle brackets are words, such as
# "Dear <name>", unless they are closed.
_ELEMENTS = _BLOCKS | frozenset(
    re.findall(
        r"[\w-]+",
        "a abbr acronym address area article aside audio b base big body button canvas "
        "caption center cite code col data dd del dfn dl dt em embed emphasis fieldset figcaption "
        "figure font footer form header html i iframe img input ins kbd label legend link main "
        "mark meta nav noscript object option output param phoneme picture pre prosody q reasoning "
        "say-as script section select small span speak strike strong style sub sup svg table tbody "
        "td textarea tfoot th thead think thinking time title tt u var video voice w wbr "
        "chuckle cough gasp groan laugh laughs sigh sniffle yawn",
    )
)
# The time of each expression must be linear in the length of the text: repetitions end before the
# next beginning of a match or have a maximum length, and `_replace_spans` finds the ends of parts.
_COLOUR_CODE = re.compile(r"\x1b\[[\d;]{0,50}[A-Za-z]")
_DOCTYPE = re.compile(r"<!DOCTYPE[^>]{0,1000}>", re.IGNORECASE)
_COMMENT, _COMMENT_END = re.compile("<!--"), re.compile("-->")
_INSTRUCTION, _INSTRUCTION_END = re.compile(r"<\?"), re.compile(r"\?>")
_CDATA, _CDATA_END = re.compile(r"<!\[CDATA\[", re.IGNORECASE), re.compile(r"\]\]>")
# A document that was escaped as a whole.
_ESCAPED_SSML = re.compile(r"\s*&lt;(?:\?xml|speak)\b", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:(\w+;)|(#\d+;|#x[\da-f]+;))", re.IGNORECASE)
_HIDDEN = re.compile(rf"<(?P<name>{_UNSPOKEN})\b[^<>]*>", re.IGNORECASE)
# The end of reasoning whose beginning was in the prompt.
_REASONING_END = re.compile(r"^.*</think(?:ing)?\s*>", re.DOTALL | re.IGNORECASE)
_ATTRIBUTES = r"(?P<attributes>(?:[^<>\"']|\"[^\"<]*\"|'[^'<]*')*)"
_SUBSTITUTE = re.compile(rf"<sub\b{_ATTRIBUTES}>", re.IGNORECASE)
_ALIAS = re.compile(r"\balias\s*=\s*(?:\"(?P<alias>[^\"]*)\"|'(?P<other>[^']*)')", re.IGNORECASE)
_SAY_AS = re.compile(
    rf"<say-as\b{_ATTRIBUTES}>(?P<text>[^<>]*)</say-as\s*>",
    re.IGNORECASE,
)
_SPELLED = re.compile(
    r"\binterpret-as\s*=\s*([\"'])(?:characters|spell-out|verbatim|digits|telephone)\1",
    re.IGNORECASE,
)
_DASH_IN_NUMBER = re.compile(r"(?<=\d) [-\u2013] (?=\d)")
_TAG = re.compile(
    r"</?(?P<name>[A-Za-z][\w:.-]*)(?P<attributes>(?:\s+[\w:.-]+(?:\s*=\s*"
    r"(?:\"[^\"]{0,500}\"|'[^']{0,500}'|[^\s\"'<>]+))?){0,50})\s*/?>"
)
_CLOSING = re.compile(r"</([A-Za-z][\w:.-]*)\s*>")
# Code in a line, whose tags are words.
_CODE = re.compile(r"(?<!`)`[^`\n<]*<[^`\n]*`(?!`)")
_TIME = re.compile(
    r"\btime\s*=\s*[\"']?\s*\+?(?P<number>\d+\.?\d*|\.\d+)\s*(?P<unit>ms|s)?\s*(?=[\"'\s/]|$)",
    re.IGNORECASE,
)
_STRENGTH = re.compile(r"\bstrength\s*=\s*[\"']?\s*(?P<name>[\w-]+)", re.IGNORECASE)

_FENCE = re.compile(r"^[ \t]*(```|~~~).*?(?:^[ \t]*\1[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)
_DEFINITION = re.compile(r"^[ ]{0,3}\[[^\]\n]+\]:[ \t]+\S+.*$", re.MULTILINE)
# The target of a link: an address, which may contain parentheses, or the name of a reference.
_TARGET = r"(?:\([^()\n]*(?:\([^()\n]*\)[^()\n]*)*\)|\[[^\]\n]*\])"
_IMAGE = re.compile(rf"!\[(?P<text>[^\[\]\n]*)\]{_TARGET}")
_LINK = re.compile(rf"\[(?P<text>[^\[\]\n]+)\]{_TARGET}")
# Footnotes, numbered references and the boxes of task lists.
_REFERENCE = re.compile(
    r"[ \t]?\[\^[^\[\]\n]+\]:?|(?<!\])(?:\[\d+(?:\s*[-\u2013,]\s*\d+)*\])+|(?<=[-*+] )\[[ xX]\] "
)
_HEADING = re.compile(r"^[ ]{0,3}#{1,6}[ \t]+(?P<text>.*)$", re.MULTILINE)
_RULE = re.compile(r"^[ \t]*(?:(?:=+|-{3,})[ \t]*|(?:[-*_][ \t]*){3,})$", re.MULTILINE)
_QUOTE = re.compile(r"^[ \t]*(?:>[ \t]?)+", re.MULTILINE)
_ITEM = re.compile(r"^[ \t]*[-*+•‣◦][ \t]+", re.MULTILINE)
_TABLE_RULE = re.compile(
    r"^(?:[ \t]*\|)?(?:[ \t]*:?-+:?[ \t]*\|)+(?:[ \t]*:?-+:?)?[ \t]*$", re.MULTILINE
)
_TABLE_ROW = re.compile(r"^[ \t]*\|(?P<cells>.*)\|[ \t]*$", re.MULTILINE)
_HIGHLIGHT = re.compile(r"(?<![\w=])==(?=[^\s=])(?P<text>[^=\n]*[^\s=])==(?![\w=])")
# Signs around formulas, as in "$x^2$" and "$$E = mc^2$$", which are not amounts.
_FORMULA = re.compile(
    r"(?<![\w$\\])(?P<signs>\$\$?)(?P<text>[^\s$](?:[^$\n]*[^\s$])?)(?P=signs)(?![\w$])"
)
_ESCAPE = re.compile(r"\\([\\`*_{}\[\]()#+.!|~>-])")

_ADDRESS = re.compile(
    r"<?\b(?:https?|ftp|wss?)://(?:[^\s/@<>\"]+@)?(?P<host>[^\s/:?#<>\")\]]+)[^\s<>\"]*>?",
    re.IGNORECASE,
)
_BARE_ADDRESS = re.compile(
    r"\bwww\.(?P<host>[\w-]+(?:\.[\w-]+)+)(?P<path>[/?#:][^\s<>\"]*)?", re.IGNORECASE
)
_PATH = re.compile(
    r"(?<![\w@/])(?P<host>(?:[\w-]{1,63}\.){1,8}[a-z]{2,6})/[^\s<>\"]*", re.IGNORECASE
)
_OTHER_ADDRESS = re.compile(r"<?\b(?:data|file):[^\s<>\"]+>?", re.IGNORECASE)
_MAILTO = re.compile(r"\bmailto:", re.IGNORECASE)
_END_PUNCTUATION = ".,;:!?)]}'"
_SMILEY = re.compile(r"(?<!\S)[:;=8][-o^']?[()\[\]dDpP/\\|*](?!\S)")
_SPACES = re.compile(r"[ \t]{2,}")


@dataclass(frozen=True)
class Pause:
    """A pause in the speech, `duration_s` seconds long."""

    duration_s: float


class PlainText(str):
    """A text without markup, whose tags and symbols are words."""


def plain_text(text: str) -> PlainText:
    """Return a text without the markup of SSML, HTML and Markdown, and with short addresses.

    Of SSML, breaks, paragraphs, substitutes and spelled words have an effect; a break ends a
    sentence. Links are reduced to their text, other addresses to the name of the host. Code blocks
    are left out, unless there is nothing else. A `PlainText` is returned as it is.
    """
    return text if isinstance(text, PlainText) else PlainText(_MARKED.sub("", _marked_text(text)))


def split_at_breaks(text: str) -> list[str | Pause]:
    """Return `plain_text` in parts, with the breaks of SSML as pauses between them.

    Breaks that follow each other are one pause, of at most `MAX_BREAK_S`. A text without a word has
    no pauses.
    """
    first, *others = _MARKED.split(_marked_text(text))
    parts: list[str | Pause] = [first]
    for duration_ms, following in zip(others[::2], others[1::2], strict=True):
        duration_s = int(duration_ms) / 1000
        if len(parts) > 1 and not str(parts[-1]).strip():
            parts.pop()
            before = parts.pop()
            duration_s += before.duration_s if isinstance(before, Pause) else 0.0
        parts += [Pause(duration_s), following]
    texts = [part for part in parts if isinstance(part, str)]
    has_words = any(map(str.isalnum, "".join(texts)))
    pauses_s = [part.duration_s for part in parts if isinstance(part, Pause)] if has_words else []
    if (longest_s := max(pauses_s, default=0.0)) > MAX_BREAK_S:
        log.warning("breaks are limited to %g s; one is %.3g s long", MAX_BREAK_S, longest_s)
    spoken: list[str | Pause] = []
    for part in parts:
        if isinstance(part, str):
            spoken += [part] if part.strip() else []
        elif has_words:
            spoken.append(Pause(min(part.duration_s, MAX_BREAK_S)))
    return spoken


def _marked_text(text: str) -> str:
    """Return the text without markup, with marks at the breaks."""
    without_tags = _without_tags(_COLOUR_CODE.sub("", text.replace(_MARK, "")))
    plain = _without_addresses(_without_markdown(without_tags))
    if not any(map(str.isalnum, _MARKED.sub("", plain))):
        plain = re.sub("[`~]", " ", without_tags)
    return _SPACES.sub(" ", plain)


def _without_tags(text: str) -> str:
    if _ESCAPED_SSML.match(text):
        text = _unescape(text)
    if "<" not in text:
        return _unescape(text)
    text = _replace_spans(text, _COMMENT, lambda _: _COMMENT_END, lambda *_: "")
    text = _replace_spans(text, _INSTRUCTION, lambda _: _INSTRUCTION_END, lambda *_: "")
    text = _DOCTYPE.sub("", text)
    text = _replace_spans(text, _CDATA, lambda _: _CDATA_END, lambda _, part: html.escape(part))
    # A section or a comment without its end, of which only the beginning is markup.
    text = _COMMENT.sub("", _CDATA.sub("", text))
    text = _CODE.sub(lambda match: html.escape(_unescape(match[0])), text)
    text = _REASONING_END.sub("", _replace_spans(text, _HIDDEN, _end_of, lambda *_: " "))
    text = _replace_spans(text, _SUBSTITUTE, lambda _: _end_of("sub"), _alias)
    text = _SAY_AS.sub(_spell, text)
    closed = {name.lower() for name in _CLOSING.findall(text)}
    return _unescape(_TAG.sub(lambda match: _replace_tag(match, closed), text))


def _replace_spans(
    text: str,
    beginning: re.Pattern[str],
    end: Callable[[str], re.Pattern[str]],
    replace: Callable[[re.Match[str], str], str],
) -> str:
    """Replace the parts of a text from a beginning to the next end, in linear time.

    Args:
        text: Any text.
        beginning: The beginning of a part, with a group "name" if there are several kinds.
        end: Returns the end of parts with this name, empty without names. Beginnings without an end
            are kept.
        replace: Returns the replacement for a beginning and the text up to its end.
    """
    parts, position, unclosed = list[str](), 0, set[str]()
    for match in beginning.finditer(text):
        name = match.groupdict().get("name", "").lower()
        if match.start() < position or name in unclosed:
            continue
        if (closing := end(name).search(text, match.end())) is None:
            unclosed.add(name)
            continue
        inner = text[match.end() : closing.start()]
        parts += [text[position : match.start()], replace(match, inner)]
        position = closing.end()
    return "".join([*parts, text[position:]])


@cache
def _end_of(name: str) -> re.Pattern[str]:
    return re.compile(rf"</{name}\s*>", re.IGNORECASE)


def _alias(match: re.Match[str], inner: str) -> str:
    """Return the substitute that an element <sub> gives, or its content without one."""
    alias = _ALIAS.search(match["attributes"])
    return inner if alias is None else (alias["alias"] or alias["other"] or "")


def _spell(match: re.Match[str]) -> str:
    """Return the content of an element <say-as>, with spaces if it is to be spelled."""
    if _SPELLED.search(match["attributes"]) is None:
        return match[0]
    spelled = " ".join("".join(match["text"].split()))
    return _DASH_IN_NUMBER.sub(", ", spelled)  # A dash between numbers would be a range.


def _heading(match: re.Match[str]) -> str:
    """Return the text of a heading without the signs that close it."""
    text = match["text"].rstrip()
    shorter = text.rstrip("#")
    is_closed = not shorter or shorter[-1] in " \t"
    return f"{_PAUSE}{shorter.rstrip() if is_closed else text}{_PAUSE}"


def _unescape(text: str) -> str:
    """Return a text with the characters of entities, which end with a semicolon."""
    return _ENTITY.sub(
        lambda match: html.unescape(match[0]) if match[1] in html5 or match[2] else match[0], text
    )


def _replace_tag(match: re.Match[str], closed: Set[str]) -> str:
    """Return the text for a tag; `closed` are the names of the elements that are closed."""
    full_name = match["name"].lower()
    name = full_name.rpartition(":")[2]
    is_known = name in _ELEMENTS or full_name in closed or match[0].endswith("/>")
    # Comparisons, such as "a<b and b>c".
    is_comparison = len(name) == 1 and match["attributes"] and "=" not in match["attributes"]
    if is_comparison or not (is_known or name == "break" or ":" in full_name):
        return match[0]
    if name == "break":
        if match[0].startswith("</"):
            return ""
        duration_ms = round(1000 * _break_s(match["attributes"]))
        return f"{_PAUSE}{_MARK}{duration_ms}{_MARK}{_PAUSE}" if duration_ms else " "
    return _PAUSE if name in _BLOCKS else ""


def _break_s(attributes: str) -> float:
    """Return the duration of a break in seconds; its time has priority over its strength."""
    if time := _TIME.search(attributes):
        is_ms = (time["unit"] or "s").lower() == "ms"
        return min(float(time["number"]) / (1000 if is_ms else 1), 1e6)
    strength = _STRENGTH.search(attributes)
    name = strength["name"].lower() if strength else "medium"
    return 0.0 if name == "none" else _STRENGTHS_S.get(name, _STRENGTHS_S["medium"])


def _without_markdown(text: str) -> str:
    text = _REFERENCE.sub("", _DEFINITION.sub("", _FENCE.sub(_PAUSE, text)))
    text = _LINK.sub(lambda match: match["text"], _IMAGE.sub(lambda match: match["text"], text))
    text = _RULE.sub(_PAUSE, _TABLE_RULE.sub("", _FORMULA.sub(_formula, text)))
    text = _HEADING.sub(_heading, _HIGHLIGHT.sub(lambda match: match["text"], text))
    text = _TABLE_ROW.sub(_replace_row, _ITEM.sub(_PAUSE, _QUOTE.sub("", text)))
    return _ESCAPE.sub(r"\1", text)


def _formula(match: re.Match[str]) -> str:
    """Return a formula without the signs around it, and other text as it is."""
    return match["text"] if re.search(r"[\\^_=]", match["text"]) else match[0]


def _replace_row(match: re.Match[str]) -> str:
    cells = (cell.strip() for cell in match["cells"].split("|"))
    return f"{', '.join(filter(None, cells))}{_PAUSE}"


def _without_addresses(text: str) -> str:
    text = _OTHER_ADDRESS.sub("", _MAILTO.sub("", text))
    for pattern in (_ADDRESS, _BARE_ADDRESS, _PATH):
        text = pattern.sub(_replace_address, text)
    return _SMILEY.sub("", text)


def _replace_address(match: re.Match[str]) -> str:
    """Return the host, and the punctuation of the sentence after the address."""
    whole = match[0].removesuffix(">")
    end = whole[len(whole.rstrip(_END_PUNCTUATION)) :]
    host = match["host"].rstrip(_END_PUNCTUATION)
    return host.removeprefix("www.") + end
