"""Remove markup and characters that a voice cannot speak, and split text into sentences."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Iterator

from talkinghead.errors import UsageError
from talkinghead.speech.sentences import split_sentences
from talkinghead.speech.tts.text.english_symbols import spell_symbols
from talkinghead.speech.tts.text.text_markup import plain_text
from talkinghead.speech.tts.text.writing_systems import SCRIPTS, VOICES, is_letter_of, other_script

log = logging.getLogger(__name__)

# The first character after the Latin blocks, and the first arrow or pictogram.
_LATIN_END, _SYMBOLS_START = "\u0250", "\u2190"
# Markdown markup of emphasis and code. An asterisk between numbers is kept.
_EMPHASIS = re.compile(r"(?<!\d )\*|\*(?! \d)|[`~]|\b_|_\b")
# Table borders, underscores that join words, and brackets, which Piper would parse as phonemes.
_DIVIDERS = re.compile(r"[|_\[\]{}]")
# The zero-width joiner and non-joiner, which are meaningful only in some scripts.
_JOINERS = "\u200c\u200d"
# Mathematical letters, which social media use for bold text, and fullwidth forms.
_STYLED = re.compile(r"[\U0001d400-\U0001d7ff\uff01-\uff5e]")
# Superscripts and subscripts, which are exponents and indices, not separate numbers.
_SCRIPT_DIGITS = re.compile(r"[\u2070-\u209f]")


class TextCleaner:
    """A text filter that removes pictograms, markup, and letters of other scripts.

    A voice would spell out such characters ("Chinese letter") or fail. A warning is logged the
    first time that characters are removed.

    Args:
        language: Language code such as "en", "en-us" or "pt_BR"; None and unknown codes keep
            letters of all scripts.
    """

    def __init__(self, language: str | None) -> None:
        self._code = re.split("[^a-zA-Z]", language)[0].lower() if language else None
        self._has_warned = False

    def check(self, text: str) -> None:
        """Check before the work begins that the voice can speak a text.

        Raises:
            UsageError: Most letters are of another script, or there is nothing to speak.
        """
        plain = _readable(plain_text(text))
        shown = " ".join(plain.split())[:40]
        script = other_script(plain, self._code)
        if script is not None:
            voice = VOICES.get(script)
            language = voice.language if voice else script.capitalize()
            advice = voice.advice if voice else "choose a voice of the language of the text"
            raise UsageError(
                f"the text {shown!r} is in {language}, which a voice of the language {self._code} "
                f"cannot speak: {advice}"
            )
        if not any(map(str.isalnum, plain)):
            raise UsageError(f"the text {shown!r} has no letter or digit that can be spoken")

    def sentences(self, text: str) -> Iterator[str]:
        """Yield single-line sentences that contain a letter or digit; split long sentences."""
        text = _readable(plain_text(text))
        if self._code == "en":
            text = spell_symbols(text)
        dropped = {character for character in set(text) if not self._is_speakable(character)}
        kept = text.translate({ord(character): _replacement(character) for character in dropped})
        self._warn({character for character in dropped if _replacement(character)})
        plain = _DIVIDERS.sub(" ", _EMPHASIS.sub("", kept))
        for sentence in split_sentences([plain], self._code):
            if any(map(str.isalnum, sentence)):
                yield sentence

    def _is_speakable(self, character: str) -> bool:
        category = unicodedata.category(character)
        if category in ("Cf", "Cc"):
            return character.isspace() or (character in _JOINERS and self._code in SCRIPTS)
        if character < _LATIN_END:
            return True
        if category[0] in "LM":
            return is_letter_of(character, self._code)
        return category[0] != "C" and not (category in ("So", "Sk") and character >= _SYMBOLS_START)

    def _warn(self, dropped: set[str]) -> None:
        if dropped and not self._has_warned:
            self._has_warned = True
            examples = " ".join(sorted(dropped)[:10])
            log.warning("characters that the voice cannot speak are left out, such as %s", examples)


def _readable(text: str) -> str:
    """Return a text with plain letters and digits."""
    return "".join(map(_plain_character, text))


def _plain_character(character: str) -> str:
    """Return a letter in a fancy style, or a number in other digits, in ASCII."""
    if character < _LATIN_END or _SCRIPT_DIGITS.match(character):
        return character
    if _STYLED.match(character) and character.isalnum():
        return unicodedata.normalize("NFKC", character)
    value = unicodedata.numeric(character, 0.5)
    is_number = unicodedata.category(character) in ("Nd", "No") and value.is_integer()
    return str(int(value)) if is_number else character


def _replacement(character: str) -> str:
    """Return a space for a visible character, an empty string for an invisible character."""
    return "" if unicodedata.category(character)[0] in "CM" else " "
