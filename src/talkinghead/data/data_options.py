"""Options of the training data and its augmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from talkinghead.errors import UsageError


@dataclass(frozen=True)
class WindowOptions:
    """Content of a window of a clip.

    Attributes:
        num_frames: target frames of a window.
        context_frames: frames of audio before the target frames.
        lookahead_frames: frames of audio after the target frames.
        seed: seed of sampling and augmentation.
        audio_features: names of the model's audio features.
        emotions: emotion labels that the model is conditioned on, in the order of their numbers.
        head_pose: add the head rotation of the targets relative to the reference.
        reference_min_gap: minimum distance in frames from the reference to every target frame; the
            most distant frame is used in clips that are too short.
        open_reference_fraction: fraction of references drawn from the frames with the widest mouth
            opening of their clip.
    """

    num_frames: int = 5
    context_frames: int = 16
    lookahead_frames: int = 2
    seed: int = 0
    audio_features: Sequence[str] = ("mel",)
    emotions: Sequence[str] = ()
    head_pose: bool = False
    reference_min_gap: int = 10
    open_reference_fraction: float = 0.3


@dataclass(frozen=True)
class SamplingOptions:
    """Distribution of the training windows over the clips.

    Attributes:
        windows_per_clip: number of consecutive samples that come from the same clip; contrastive
            training needs such hard negatives.
        speaker_weights: fractions of the samples for some speakers, null for none; the others
            divide the rest in proportion to their number of clips to the power of `temperature`.
        temperature: 1 draws clips evenly, 0 draws speakers evenly.
    """

    windows_per_clip: int = 1
    speaker_weights: Mapping[str, float] | None = None
    temperature: float = 0.5


@dataclass(frozen=True)
class LoaderOptions:
    """Batches of the loaders.

    Attributes:
        batch_size: samples of a batch, per process.
        num_workers: loader processes; 0 loads in the training process.
        iterations_per_epoch: batches of a training epoch.
        val_windows: number of windows of each validation split.
        val_splits: splits to validate on, with one loader each.
        mouths_only: make the batches of `finish_mouths` instead of `finish_batch`.
    """

    batch_size: int = 12
    num_workers: int = 1
    iterations_per_epoch: int = 100
    val_windows: int = 96
    val_splits: Sequence[str] = ("val",)
    mouths_only: bool = False


@dataclass(frozen=True)
class DataOptions(WindowOptions, SamplingOptions, LoaderOptions):
    """All options of `LipSyncDataModule` that are not paths."""


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
