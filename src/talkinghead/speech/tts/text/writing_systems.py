"""Scripts of languages, and voices that can speak them."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

# Languages that use Latin letters only.
_LATIN_LANGUAGES = frozenset(
    re.findall(
        r"\w+",
        "af az bs ca cs cy da de en eo es et eu fi fr ga gl hr hu id is it la lb lt lv ms mt nb nl "
        "nn no pl pt ro sk sl sq sv sw tr vi",
    )
)
# Scripts of the languages that use others, given by the first word of the Unicode names of the
# letters. All voices can read Latin letters.
SCRIPTS = {
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
# The first character after the Latin blocks.
_LATIN_END = "\u0250"


@dataclass(frozen=True)
class ScriptVoice:
    """Voices for a script: the language, its code, a voice of Piper (if any) and of eSpeak NG."""

    language: str
    code: str
    espeak: str
    piper: str | None = None

    @property
    def advice(self) -> str:
        """How to choose such a voice."""
        espeak = f"tts=espeak tts.voice={self.espeak} language={self.code}"
        if self.piper is None:
            return f"choose a voice that can, such as {espeak}"
        return (
            f"choose a voice that can, such as Piper's {self.piper} (tts.voice={self.piper}.onnx "
            f"language={self.code}), or {espeak}"
        )


# In the order in which they are tried: Japanese and Korean texts also contain Chinese characters.
VOICES = {
    "HIRAGANA": ScriptVoice("Japanese", "ja", "ja"),
    "KATAKANA": ScriptVoice("Japanese", "ja", "ja"),
    "HANGUL": ScriptVoice("Korean", "ko", "ko"),
    "CJK": ScriptVoice("Chinese", "zh", "cmn", "zh_CN-huayan-medium"),
    "CYRILLIC": ScriptVoice("Cyrillic", "ru", "ru", "ru_RU-irina-medium"),
    "ARABIC": ScriptVoice("Arabic", "ar", "ar", "ar_JO-kareem-medium"),
    "DEVANAGARI": ScriptVoice("Devanagari", "hi", "hi", "hi_IN-pratham-medium"),
    "GREEK": ScriptVoice("Greek", "el", "el", "el_GR-rapunzelina-low"),
    "HEBREW": ScriptVoice("Hebrew", "he", "he"),
    "THAI": ScriptVoice("Thai", "th", "th"),
    "GEORGIAN": ScriptVoice("Georgian", "ka", "ka", "ka_GE-natia-medium"),
    "ARMENIAN": ScriptVoice("Armenian", "hy", "hy"),
    "BENGALI": ScriptVoice("Bengali", "bn", "bn"),
    "ETHIOPIC": ScriptVoice("Amharic", "am", "am"),
    "GUJARATI": ScriptVoice("Gujarati", "gu", "gu"),
    "KANNADA": ScriptVoice("Kannada", "kn", "kn"),
    "MALAYALAM": ScriptVoice("Malayalam", "ml", "ml", "ml_IN-meera-medium"),
    "GURMUKHI": ScriptVoice("Punjabi", "pa", "pa"),
    "TAMIL": ScriptVoice("Tamil", "ta", "ta"),
    "TELUGU": ScriptVoice("Telugu", "te", "te", "te_IN-maya-medium"),
}


def has_known_scripts(code: str | None) -> bool:
    """Return whether the scripts of a language are known; a voice is then given no others."""
    return code in SCRIPTS or code in _LATIN_LANGUAGES


def is_letter_of(character: str, code: str | None) -> bool:
    """Return whether a letter or mark belongs to the scripts of a language, if they are known."""
    if not has_known_scripts(code) or character < _LATIN_END:
        return True
    latin = "LATIN" if unicodedata.category(character)[0] == "L" else "COMBINING"
    return script_of(character) in (latin, *SCRIPTS.get(code or "", ()))


def script_of(character: str) -> str:
    """Return the first word of the Unicode name of a character."""
    return unicodedata.name(character, "").partition(" ")[0]


def other_script(text: str, code: str | None) -> str | None:
    """Return the script of a text most of whose letters the language does not use, or None."""
    letters = [character for character in text if character.isalpha()]
    others = [character for character in letters if not is_letter_of(character, code)]
    if not others or 2 * len(others) <= len(letters):
        return None
    counts = Counter(map(script_of, others))
    known = (script for script in VOICES if counts[script] > len(others) // 10)
    return next(known, counts.most_common(1)[0][0])
