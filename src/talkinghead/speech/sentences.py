"""Split text into sentences while it is still being written."""

# ruff: noqa: RUF001 - punctuation of other scripts resembles ASCII.

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain
from typing import Any

from talkinghead.errors import DependencyError
from talkinghead.predict.source.head.expression.emotion_tags import TAG_START

log = logging.getLogger(__name__)

MAX_SENTENCE_CHARS = 250
"""Maximum length of a sentence: about twenty seconds, which most voices accept at once."""

_MAX_CHECKS = 16
"""Maximum number of ends in a sentence that pysbd, which takes milliseconds for each, may refuse.

Texts have a few of them (abbreviations); only rows of punctuation have more.
"""

# A possible end of a sentence, which is checked with pysbd. At least one character of the next
# sentence must follow.
_POSSIBLE_END = re.compile(r"[.!?…]++[\"'”’»)\]]*+(?=\s+\S)")
# A certain end of a sentence: unambiguous punctuation, even without a space after it, or the start
# of an empty line, a list item or a tag of an emotion.
_CERTAIN_END = re.compile(
    r"[。！？｡।॥؟۔።]++[\"'”’»」』）)\]]*+(?=\s*\S)|(?=\n\s*(?:\n|[-*•]\s|\d+[.)]\s))"
    rf"|(?=\s*{TAG_START})",
    re.IGNORECASE,
)
# Punctuation before which a first clause must end.
_SENTENCE_END = re.compile(r"\S[.!?…。！？\n]")
# A first clause, without a full stop, that is long enough to cover the synthesis of what follows.
_FIRST_CLAUSE = re.compile(r"\s*(?=\S)([^.!?…。！？\n]{15,}?[,;:—–،，；、])(?=\s+\S)")
# Patterns at which a sentence that is too long may be split, in order of preference.
_BREAKS = (re.compile(r"[;:—–,、，；]\s*"), re.compile(r"\s+"))


def split_sentences(
    pieces: Iterable[str], language: str | None = "en", max_length: int = MAX_SENTENCE_CHARS
) -> Iterator[str]:
    """Yield each sentence as soon as the next one begins.

    Full stops of abbreviations and numbers ("Dr. Smith paid 3.5 dollars.") do not end a sentence. A
    sentence longer than `max_length` is split at its last comma, else at its last space, else
    after `max_length` characters. All characters but whitespace are kept.

    Args:
        pieces: The text, in pieces of any length.
        language: Two-letter code that selects the abbreviations, with or without a region
            ("en-US"). For an unknown code those of English are used, with a warning.
        max_length: Maximum number of characters of a sentence.

    Raises:
        DependencyError: pysbd is not installed.
    """
    segmenter = _segmenter(language)
    text = ""
    refused = set[int]()  # Ends in the text that pysbd refused.
    for piece in pieces:
        # A long piece is added in parts, so that slicing the remaining text stays cheap.
        for start in range(0, len(piece), max_length):
            text = (text + piece[start : start + max_length]).lstrip()
            while end := _first_end(text, segmenter, max_length, refused):
                yield _one_line(text[:end])
                text = text[end:].lstrip()
                refused.clear()
    if text := _one_line(text):
        yield text


def split_reply(pieces: Iterable[str], language: str | None = "en") -> Iterator[str]:
    """Yield the first clause of a text by itself, and then its sentences.

    Since a sentence is synthesised as a whole, its speech starts earlier if its first part is
    short. See `split_sentences` for the arguments.
    """
    text, rest = "", iter(pieces)
    for piece in rest:
        text += piece
        if clause := _FIRST_CLAUSE.match(text):
            yield _one_line(clause[1])
            text = text[clause.end() :]
            break
        if _SENTENCE_END.search(text) or len(text) > MAX_SENTENCE_CHARS:
            break
    yield from split_sentences(chain([text], rest), language)


def limit_length(sentences: Iterator[str], max_chars: int) -> Iterator[str]:
    """Yield the first sentence, and further sentences up to `max_chars` in total."""
    num_chars = 0
    for sentence in sentences:
        if num_chars and num_chars + len(sentence) > max_chars:
            log.warning("the reply ends after %d characters (max_reply_chars)", num_chars)
            return
        num_chars += len(sentence)
        yield sentence


def _segmenter(language: str | None) -> Any:
    try:
        import pysbd
        from pysbd.languages import LANGUAGE_CODES
    except ImportError as error:
        raise DependencyError(
            "splitting text into sentences needs pysbd, which is not installed: "
            "pip install 'talkinghead[offline]' (or [speech])"
        ) from error
    code = re.split("[-_]", language or "en")[0].lower()
    if code not in LANGUAGE_CODES:
        _warn_unknown(code, ", ".join(sorted(LANGUAGE_CODES)))
        code = "en"
    return pysbd.Segmenter(code, clean=False)


@cache
def _warn_unknown(code: str, known: str) -> None:
    """Log once that sentences in a language are split by the rules of English."""
    log.warning(
        "language %.20r: no abbreviations are known (%s); texts are split into sentences as in "
        "English",
        code,
        known,
    )


def _first_end(text: str, segmenter: Any, max_length: int, refused: set[int]) -> int:
    """Return the length of the first sentence, or 0 if the sentence is incomplete.

    `refused` are ends that were refused before; further ones are added.
    """
    certain = _CERTAIN_END.search(text, 1, max_length)
    limit = certain.end() if certain else max_length
    # Punctuation alone is not spoken, so that its sentences do not matter.
    may_end = any(map(str.isalnum, text[:limit]))
    for match in _POSSIBLE_END.finditer(text, 0, limit) if may_end else ():
        if match.end() in refused:
            continue
        if len(refused) == _MAX_CHECKS:
            break
        sentence = _one_line(text[: match.end()])
        found = segmenter.segment(f"{sentence} {text[match.end() :].lstrip()[0]}")
        if found and found[0].strip() == sentence:
            return match.end()
        refused.add(match.end())
    if certain:
        return certain.end()
    return _forced_end(text, max_length) if len(text) > max_length else 0


def _forced_end(text: str, max_length: int) -> int:
    for pattern in _BREAKS:
        breaks = [match.end() for match in pattern.finditer(text, 1, max_length)]
        # Do not split after a few words: the fragment would be spoken like a whole sentence.
        if breaks and breaks[-1] > max_length // 3:
            return breaks[-1]
    return max_length


def _one_line(text: str) -> str:
    return " ".join(text.split())
