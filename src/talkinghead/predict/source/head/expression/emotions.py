"""Named emotions as weights of blendshapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TypeAlias

from talkinghead.errors import UsageError
from talkinghead.predict.source.head.expression.blendshapes import to_weights
from talkinghead.types import FloatArray


def _both(**weights: float) -> dict[str, float]:
    """Return weights of the blendshapes of both sides."""
    return {f"{name}{side}": value for name, value in weights.items() for side in ("Left", "Right")}


EMOTIONS: Mapping[str, Mapping[str, float]] = {
    "neutral": {},
    "happy": _both(mouthSmile=0.75, mouthDimple=0.2, cheekSquint=0.6, eyeSquint=0.45),
    "sad": {
        "browInnerUp": 0.9,
        "mouthShrugLower": 0.3,
        **_both(mouthFrown=0.8, eyeBlink=0.2, eyeLookDown=0.15),
    },
    "angry": _both(browDown=1.0, eyeSquint=0.4, noseSneer=0.35, mouthPress=0.5, mouthFrown=0.25),
    "surprised": {"browInnerUp": 0.9, "jawOpen": 0.25, **_both(browOuterUp=1.0, eyeWide=0.7)},
    "afraid": {
        "browInnerUp": 1.0,
        **_both(eyeWide=0.6, browDown=0.15, mouthStretch=0.8, mouthFrown=0.2),
    },
    "disgusted": {
        "mouthShrugLower": 0.3,
        **_both(noseSneer=1.0, mouthUpperUp=0.6, browDown=0.5, cheekSquint=0.4, eyeSquint=0.5),
    },
}
"""Blendshape weights of each emotion at an intensity of 1.

The muscles are those of Ekman and Friesen's Facial Action Coding System.
"""


@dataclass(frozen=True)
class Emotion:
    """A named emotion.

    Attributes:
        name: One of `EMOTIONS`.
        intensity: 0 (neutral) to 1.

    Raises:
        UsageError: The name is unknown, or the intensity is out of range.

    Example:
        >>> SourceOptions(emotion=Emotion("happy", 0.6))
    """

    name: str
    intensity: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in EMOTIONS:
            nearest = get_close_matches(self.name.lower(), EMOTIONS, 1, 0)[0]
            raise UsageError(
                f"{self.name} is not an emotion: did you mean {nearest}? Choose one of "
                f"{', '.join(EMOTIONS)}"
            )
        value = self.intensity
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise UsageError(f"the intensity of {self.name} is {value}; expected 0 to 1")

    @property
    def is_neutral(self) -> bool:
        """Whether the emotion changes nothing."""
        return not EMOTIONS[self.name] or self.intensity == 0

    @property
    def weights(self) -> FloatArray:
        """The weights of the blendshapes, float32 [52]."""
        return to_weights(EMOTIONS[self.name]) * self.intensity


EmotionInput: TypeAlias = str | Sequence[str | float] | Emotion
"""An emotion, its name, or its name and intensity."""


def read_emotion(value: EmotionInput) -> Emotion:
    """Return an emotion.

    Raises:
        UsageError: The value is not an emotion.
    """
    if isinstance(value, Emotion):
        return value
    values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if not 1 <= len(values) <= 2 or not isinstance(values[0], str):
        raise UsageError(
            f"emotion={value}: expected a name, such as emotion=happy, or a name and an intensity, "
            "such as emotion=[happy,0.6]"
        )
    return Emotion(*values)
