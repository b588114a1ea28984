"""Options of the training data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


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
