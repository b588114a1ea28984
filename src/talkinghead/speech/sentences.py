"""Text as it is written to sentences, each as soon as the next has begun."""

# ruff: noqa: RUF001 - the marks of other scripts look like ours.

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from talkinghead.errors import DependencyError

MAX_LENGTH = 250
"""Characters: some twenty seconds of speech, and what most voices take at once."""

# Where a sentence may end: pysbd is asked. The first character of the next must be there.
_MAY_END = re.compile(r"[.!?…]++[\"'”’»)\]]*+(?=\s+\S)")
# Where it surely does: marks that mean nothing else (no space need follow), an empty line, a list.
_ENDS = re.compile(
    r"[。！？｡।॥؟۔።]++[\"'”’»」』）)\]]*+(?=\s*\S)|(?=\n\s*(?:\n|[-*•]\s|\d+[.)]\s))"
)
# The best places in a sentence that is too long, the best first.
_BREAKS = (re.compile(r"[;:—–,、，；]\s*"), re.compile(r"\s+"))


def cut_sentences(
    pieces: Iterable[str], language: str | None = "en", max_length: int = MAX_LENGTH
) -> Iterator[str]:
    """Cuts a text into sentences while it comes.

    The full stops of abbreviations and numbers ("Dr. Smith paid 3.5 dollars.") do not end one. One
    that does not end within `max_length` is cut at its last comma, else at its last space, else
    there. Nothing but spaces is lost.

    Args:
        pieces: the text, in pieces of any length.
        language: a two-letter code, for its abbreviations; English's where it is unknown.
        max_length: characters of the longest sentence.

    Raises:
        DependencyError: pysbd is not installed.
    """
    segmenter = _segmenter(language)
    text = ""
    for piece in pieces:
        # A long piece goes in by and by: what has gone out is then not moved each time.
        for start in range(0, len(piece), max_length):
            text = (text + piece[start : start + max_length]).lstrip()
            while end := _end(text, segmenter, max_length):
                yield _one_line(text[:end])
                text = text[end:].lstrip()
    if text := _one_line(text):
        yield text


def _segmenter(language: str | None) -> Any:
    try:
        import pysbd
        from pysbd.languages import LANGUAGE_CODES
    except ImportError as error:
        raise DependencyError(
            "pysbd, which cuts text into sentences, is not installed: "
            "pip install 'talkinghead[offline]' (or [speech])"
        ) from error
    return pysbd.Segmenter(language if language in LANGUAGE_CODES else "en", clean=False)


def _end(text: str, segmenter: Any, max_length: int) -> int:
    """The length of the text's first sentence, 0 where it has not ended yet."""
    certain = _ENDS.search(text, 1, max_length)
    limit = certain.end() if certain else max_length
    for match in _MAY_END.finditer(text, 0, limit):
        if _is_end(text, match.end(), segmenter):
            return match.end()
    if certain:
        return certain.end()
    return _forced_end(text, max_length) if len(text) > max_length else 0


def _is_end(text: str, end: int, segmenter: Any) -> bool:
    """Whether a sentence ends here, by what comes before and the first letter after."""
    sentence = _one_line(text[:end])
    found = segmenter.segment(f"{sentence} {text[end:].lstrip()[0]}")
    return bool(found) and found[0].strip() == sentence


def _forced_end(text: str, max_length: int) -> int:
    for pattern in _BREAKS:
        breaks = [match.end() for match in pattern.finditer(text, 1, max_length)]
        # Not after a few words: so short a piece would sound like a sentence.
        if breaks and breaks[-1] > max_length // 3:
            return breaks[-1]
    return max_length


def _one_line(text: str) -> str:
    return " ".join(text.split())
