"""Options of batch augmentation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from talkinghead.errors import UsageError


@dataclass(frozen=True)
class AugmentationOptions:
    """Strength of each augmentation; 0 disables it.

    Attributes:
        min_strength: warp and colour change of a sample are multiplied by a draw from [this, 1];
            below 1, many samples stay close to the original.
        brightness: maximum shift, as a fraction of the range [0, 1].
        contrast: the factor is in 1 ± this.
        saturation: the factor is in 1 ± this.
        hue: maximum rotation of the hue, in degrees.
        flip: probability of a mirrored sample.
        rotation: maximum angle, in degrees.
        scale: the factor is in 1 ± this.
        aspect: maximum change of the ratio of width to height, or of height to width.
        shift: maximum translation, as a fraction of the face size.
        elastic: size of the smooth random warp, as a fraction of the face size.
        turn: maximum foreshortening of one half of the face, as in a turned head, in half widths.
        still: probability that a sample is a photo, with the reference's masked face for all
            targets. Otherwise the area around the mouth reveals its opening, and the model could
            ignore the audio.
        reference_pose: maximum stretch and shear of the reference about the nose, as between two
            head poses.
        reference_smile: probability that the reference smiles, with a broader mouth, raised corners
            and parted lips.
        reference_blur: probability that the reference is blurred.
        reference_noise: probability of noise in the reference.
        reference_jpeg: probability that the reference is compressed.
        teacher_forced_lips: probability that the decoder is given the true lip motion, to learn
            rendering apart from prediction.
        mismatched_audio: probability that a sample with teacher-forced lips has other audio, so
            that the rendering follows the given lip motion (see `set_lip_motion`).
        gain_db: maximum change of the audio level.
        tilt_db: maximum difference between the gains of the lowest and the highest mel bin.
        vocal_tract: the frequency axis is scaled by a factor in [1 / (1 + this), 1 + this].
        mel_noise: probability of noise in the audio.

    Raises:
        UsageError: a value is negative.
    """

    min_strength: float = 0.0
    brightness: float = 0.12
    contrast: float = 0.25
    saturation: float = 0.4
    hue: float = 12.0
    flip: float = 0.5
    rotation: float = 10.0
    scale: float = 0.15
    aspect: float = 0.0
    shift: float = 0.03
    elastic: float = 0.015
    turn: float = 0.0
    still: float = 0.0
    reference_pose: float = 0.0
    reference_smile: float = 0.0
    reference_blur: float = 0.25
    reference_noise: float = 0.25
    reference_jpeg: float = 0.25
    teacher_forced_lips: float = 0.0
    mismatched_audio: float = 0.0
    gain_db: float = 8.0
    tilt_db: float = 8.0
    vocal_tract: float = 0.18
    mel_noise: float = 0.3

    def __post_init__(self) -> None:
        negative = sorted(name for name, value in vars(self).items() if value < 0)
        if negative:
            raise UsageError(f"augmentation: {', '.join(negative)} must not be negative")

    @classmethod
    def from_dict(cls, values: Mapping[str, float]) -> AugmentationOptions:
        """Return the options of a mapping.

        Raises:
            UsageError: a name is unknown or a value is negative.
        """
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            raise UsageError(
                f"augmentation has no {', '.join(unknown)}; "
                f"it has {', '.join(cls.__dataclass_fields__)}"
            )
        return cls(**values)
