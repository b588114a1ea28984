"""Tags of emotions in a text to be spoken, such as "[happy] Good morning!"."""

from __future__ import annotations

import logging
import re

from talkinghead.predict.source.head.expression.emotions import EMOTIONS, Emotion

log = logging.getLogger(__name__)

TAG_START = rf"\[\s*/?\s*(?:{'|'.join(EMOTIONS)})\b"
"""Pattern of the beginning of a tag."""
EMOTION_TAGS_PROMPT = (
    "Begin a sentence with one of the tags "
    + ", ".join(f"[{name}]" for name in EMOTIONS)
    + " where your emotion changes, and use no other tags. Example: [happy] That is good news!"
)
"""Instructions to a language model to tag its sentences."""

# A tag with an optional intensity; the closing bracket may be missing. A closing tag is neutral.
_TAG = re.compile(
    rf"\[\s*(?P<end>/)?\s*(?P<name>{'|'.join(EMOTIONS)})\b"
    r"(?:[^\[\]\w.]*(?P<intensity>\d*\.?\d+)?[^\[\]\w]*\]|\s*[:=]\s*(?P<open_intensity>\d*\.?\d+))?",
    re.IGNORECASE,
)
# A single word in brackets, which is a tag of an unknown emotion.
_UNKNOWN = re.compile(r"\[\s*/?\s*[^\W\d_]+\s*(?:[:=,]?\s*[\d.]+\s*)?\]")
# The same without the closing bracket. A bracket before a capital letter is not a tag, because it
# may begin a remark of several sentences.
_UNCLOSED = re.compile(r"\[\s*/?\s*(?!\s|[A-Z])[^\W\d_]*(?![^\[\]]*\])")


def take_emotion(text: str) -> tuple[str, Emotion | None]:
    """Return a text without tags, and the emotion of the last tag; None without a tag.

    Words in brackets that are not emotions are removed too, with a warning.

    Example:
        >>> take_emotion("[happy:0.5] Good morning!")
        ('Good morning!', Emotion(name='happy', intensity=0.5))
    """
    emotion = None
    for tag in _TAG.finditer(text):
        name = "neutral" if tag["end"] else tag["name"].lower()
        intensity = tag["intensity"] or tag["open_intensity"] or 1
        emotion = Emotion(name, min(float(intensity), 1.0))
    text = _TAG.sub(" ", text)
    for pattern in (_UNKNOWN, _UNCLOSED):
        for unknown in dict.fromkeys(pattern.findall(text)):
            if not any(map(str.isalpha, unknown)):
                continue
            log.warning(
                "%s is not one of the emotions %s: the tag is left out",
                *(unknown.strip(), ", ".join(EMOTIONS)),
            )
        text = pattern.sub(" ", text)
    return " ".join(text.split()), emotion
