"""Options of the training data and its augmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from talkinghead.errors import UsageError
from talkinghead.value_rules import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    Range,
    Seed,
    UnitFloat,
)


@dataclass(frozen=True)
class WindowOptions:
    """Options for the content of a window of a clip.

    Attributes:
        num_frames: Number of target frames of a window.
        context_frames: Number of frames of audio before the target frames.
        lookahead_frames: Number of frames of audio after the target frames.
        seed: Seed of sampling and augmentation.
        audio_features: Names of the model's audio features.
        emotions: Emotion labels that the model is conditioned on; their order defines their
            numbers.
        head_pose: Condition the model on the head rotation of the targets relative to the
            reference.
        reference_min_gap: Minimum distance in frames from the reference to every target frame; the
            most distant frame is used in clips that are too short.
        open_reference_fraction: Fraction of references drawn from the frames with the widest mouth
            opening of their clip.
    """

    num_frames: PositiveInt = 5
    context_frames: NonNegativeInt = 16
    lookahead_frames: NonNegativeInt = 2
    seed: Seed = 0
    audio_features: Sequence[str] = ("mel",)
    emotions: Sequence[str] = ()
    head_pose: bool = False
    reference_min_gap: NonNegativeInt = 10
    open_reference_fraction: UnitFloat = 0.3


@dataclass(frozen=True)
class SamplingOptions:
    """Distribution of the training windows over the clips.

    Attributes:
        windows_per_clip: Number of consecutive samples that come from the same clip; they are hard
            negatives for contrastive training.
        speaker_weights: Fraction of the samples for each named speaker, or null. The remaining
            samples are divided between the other speakers in proportion to their number of clips to
            the power of `temperature`.
        temperature: With 1, all clips are equally likely; with 0, all speakers are.
    """

    windows_per_clip: PositiveInt = 1
    speaker_weights: Mapping[str, float] | None = None
    temperature: NonNegativeFloat = 0.5


@dataclass(frozen=True)
class LoaderOptions:
    """Options of the data loaders.

    Attributes:
        batch_size: Number of samples of a batch in each process.
        num_workers: Number of loader processes; with 0 the training process loads the data.
        iterations_per_epoch: Number of batches in a training epoch.
        val_windows: Number of windows of each validation split.
        val_splits: Splits to validate on; each one has its own loader.
        mouths_only: Return the batches of `finish_mouths` instead of `finish_batch`.
    """

    batch_size: PositiveInt = 12
    num_workers: Annotated[int, Range(0, 1024)] = 1
    iterations_per_epoch: PositiveInt = 100
    val_windows: PositiveInt = 96
    val_splits: Sequence[str] = ("val",)
    mouths_only: bool = False


@dataclass(frozen=True)
class DataOptions(WindowOptions, SamplingOptions, LoaderOptions):
    """All options of `LipSyncDataModule` that are not paths."""


@dataclass(frozen=True)
class AugmentationOptions:
    """Strength of each augmentation; 0 disables it.

    Attributes:
        min_strength: The warp and the colour change of a sample are multiplied by a random number
            from [min_strength, 1]; with a low value, many samples stay close to the original.
        brightness: Maximum shift, as a fraction of the range [0, 1].
        contrast: Maximum change of the contrast, as a fraction.
        saturation: Maximum change of the saturation, as a fraction.
        hue: Maximum rotation of the hue, in degrees.
        flip: Probability of a mirrored sample.
        rotation: Maximum rotation, in degrees.
        scale: Maximum change of the size, as a fraction.
        aspect: Maximum change of the aspect ratio, as a fraction.
        shift: Maximum translation, as a fraction of the face size.
        elastic: Standard deviation of a smooth random warp, as a fraction of half the face size.
        turn: Maximum horizontal compression of one half of the face, as in a turned head, as a
            fraction of half the width.
        still: Probability that a sample simulates a photo: all targets get the masked face of the
            reference. Otherwise the model could read the mouth opening from the area around the
            mouth and ignore the audio.
        reference_pose: Maximum stretch and shear of the reference about the nose, which simulate
            another head pose.
        reference_smile: Probability that the reference is warped to a smile with a broader mouth,
            raised corners and parted lips.
        reference_blur: Probability that the reference is blurred.
        reference_noise: Probability that noise is added to the reference.
        reference_jpeg: Probability that the reference is compressed as JPEG.
        teacher_forced_lips: Probability that the decoder is given the true lip motion, so that
            rendering is trained independently of the prediction of lip motion.
        mismatched_audio: Probability that a sample with teacher-forced lips gets other audio, so
            that the rendering depends only on the given lip motion (see `LipHead.set_motion`).
        gain_db: Maximum change of the audio level.
        tilt_db: Maximum difference between the gains of the lowest and the highest mel bin.
        vocal_tract: Maximum change of the frequency scale, as a fraction (see
            `warp_vocal_tract`).
        mel_noise: Probability that noise is added to the audio.

    Raises:
        UsageError: A value is negative.
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
        """Return the options with the values of a mapping.

        Raises:
            UsageError: A name is unknown or a value is negative.
        """
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            raise UsageError(
                f"augmentation has no {', '.join(unknown)}; "
                f"it has {', '.join(cls.__dataclass_fields__)}"
            )
        return cls(**values)
