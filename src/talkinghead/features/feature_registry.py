"""Registry of audio features: one class per feature, selected by name.

Shape suffixes: M mel frames, S samples of an analysis frame, C feature rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal, TypeVar

from torch import Tensor, nn

from talkinghead.errors import UsageError
from talkinghead.types import AVSpec

Source = Literal["samples", "emphasised_samples", "log_mel"]


class AudioFeature(nn.Module, ABC):
    """Base class of audio features.

    A feature is a function of one analysis frame (`spec.n_fft` samples) and uses no statistics of
    the recording, so audio in chunks gives the same values as the whole file. To add one, write a
    module with a registered subclass and import it in `talkinghead.features.audio_features`.

    Attributes:
        name: the name in `audio_features=[...]`.
        source: the input of `forward`: "samples" and "emphasised_samples" are float frames
            [..., M, S] without and with pre-emphasis; "log_mel" is [..., num_mels, M]. Features of
            the log-mel are computed inside `AudioEncoder`, after augmentation, and need no rows in
            its input.

    Example:
        >>> @register
        ... class Energy(AudioFeature):
        ...     name = "energy"
        ...
        ...     @classmethod
        ...     def silence(cls, spec):
        ...         return [0.0]
        ...
        ...     def forward(self, source):
        ...         return source.square().mean(-1).unsqueeze(-2)
    """

    name: ClassVar[str]
    source: ClassVar[Source] = "samples"

    def __init__(self, spec: AVSpec) -> None:
        super().__init__()
        self.spec = spec

    @classmethod
    @abstractmethod
    def silence(cls, spec: AVSpec) -> Sequence[float]:
        """Return the value of each feature row in digital silence."""

    @classmethod
    def change_gain(cls, rows_BCM: Tensor, gain_db_B: Tensor) -> Tensor:
        """Return the rows [B, C, M] of the same audio amplified by `gain_db_B` decibels.

        Used for augmentation. By default the rows do not depend on loudness and are returned as
        they are.
        """
        return rows_BCM

    @abstractmethod
    def forward(self, source: Tensor) -> Tensor:
        """Compute the rows float [..., C, M] from the input selected by `source`."""


AUDIO_FEATURES: dict[str, type[AudioFeature]] = {}
"""Registered feature classes by name."""

_Feature = TypeVar("_Feature", bound=type[AudioFeature])


def register(feature: _Feature) -> _Feature:
    """Register a feature class in `AUDIO_FEATURES`; for use as a class decorator."""
    AUDIO_FEATURES[feature.name] = feature
    return feature


def feature_class(name: str) -> type[AudioFeature]:
    """Return the class of a feature.

    Raises:
        UsageError: the name is unknown; the message lists the registered names.
    """
    if name not in AUDIO_FEATURES:
        raise UsageError(
            f"audio feature {name!r} is unknown: choose among {', '.join(AUDIO_FEATURES)}"
        )
    return AUDIO_FEATURES[name]
