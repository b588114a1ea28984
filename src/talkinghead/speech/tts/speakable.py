"""What of a text a voice can say, sentence by sentence."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Iterator

from talkinghead.speech.sentences import cut_sentences

log = logging.getLogger(__name__)

# Scripts, as the first word of their letters' Unicode names. Languages that are not here are
# written in Latin letters, which all voices read.
_SCRIPTS = {
    **dict.fromkeys(("be", "bg", "kk", "ky", "mk", "mn", "ru", "sr", "tg", "uk"), ("CYRILLIC",)),
    **dict.fromkeys(("ar", "fa", "ur"), ("ARABIC",)),
    **dict.fromkeys(("hi", "mr", "ne"), ("DEVANAGARI",)),
    **dict.fromkeys(("cmn", "yue", "zh"), ("CJK", "BOPOMOFO", "FULLWIDTH")),
    "am": ("ETHIOPIC",),
    "bn": ("BENGALI",),
    "el": ("GREEK",),
    "gu": ("GUJARATI",),
    "he": ("HEBREW",),
    "hy": ("ARMENIAN",),
    "ja": ("CJK", "HIRAGANA", "KATAKANA", "HALFWIDTH", "FULLWIDTH", "KATAKANA-HIRAGANA"),
    "ka": ("GEORGIAN",),
    "kn": ("KANNADA",),
    "ko": ("HANGUL", "CJK"),
    "ml": ("MALAYALAM",),
    "pa": ("GURMUKHI",),
    "ta": ("TAMIL",),
    "te": ("TELUGU",),
    "th": ("THAI",),
}
# Latin letters and their signs, which have names of many kinds, end here; arrows and pictures
# begin there.
_LATIN_END, _PICTURES = "\u0250", "\u2190"
# Marks of emphasis and code, as language models write them; a star between numbers is a product.
_EMPHASIS = re.compile(r"(?<!\d )\*|\*(?! \d)|[`~]|\b_|_\b|^\s*#+\s", re.MULTILINE)
# Marks of tables, joined words, and brackets that Piper would take for phonemes.
_DIVIDERS = re.compile(r"[|_\[\]{}]")
# Joiners matter in scripts that need them, and nowhere else.
_JOINERS = "\u200c\u200d"


class Speakable:
    """Leaves out what a voice cannot say, and tells so once.

    Pictures, marks of layout, and letters of scripts that the language is not written in: a voice
    would name them one by one ("Chinese letter"), if it did not fail.

    Args:
        language: a code such as "en", "en-us" or "pt_BR"; None leaves letters of all scripts.
    """

    def __init__(self, language: str | None) -> None:
        self._code = re.split("[^a-zA-Z]", language)[0].lower() if language else None
        self._told = False

    def sentences(self, text: str) -> Iterator[str]:
        """Sentences of one line each with something to say in them, the longest cut."""
        dropped = {character for character in set(text) if not self._can_say(character)}
        kept = text.translate({ord(character): self._gap(character) for character in dropped})
        self._tell({character for character in dropped if self._gap(character)})
        plain = _DIVIDERS.sub(" ", _EMPHASIS.sub("", kept))
        for sentence in cut_sentences([plain], self._code):
            if any(map(str.isalnum, sentence)):
                yield " ".join(sentence.split())

    def _can_say(self, character: str) -> bool:
        category = unicodedata.category(character)
        if category in ("Cf", "Cc"):
            return character.isspace() or (character in _JOINERS and self._code in _SCRIPTS)
        if character < _LATIN_END or (self._code is None and category[0] in "LM"):
            return True
        script = unicodedata.name(character, "").partition(" ")[0]
        if category[0] == "L":
            return script in ("LATIN", *_SCRIPTS.get(self._code or "", ()))
        if category[0] == "M":
            return script in ("COMBINING", *_SCRIPTS.get(self._code or "", ()))
        return category[0] != "C" and not (category in ("So", "Sk") and character >= _PICTURES)

    @staticmethod
    def _gap(character: str) -> str:
        """What stands in the place of what is dropped: nothing where it was not to be seen."""
        return "" if unicodedata.category(character)[0] in "CM" else " "

    def _tell(self, dropped: set[str]) -> None:
        if dropped and not self._told:
            self._told = True
            log.warning(
                "what the voice cannot say is left out, such as %s", " ".join(sorted(dropped)[:10])
            )
