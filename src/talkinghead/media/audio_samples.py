"""Conversion of audio samples of any type and number of channels to mono float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from talkinghead.errors import MediaError
from talkinghead.types import FloatArray

# Decoders and resamplers may exceed full scale slightly; larger samples have the wrong scale.
_MAX_AMPLITUDE = 2.0
_MAX_CHANNELS = 32
# Offset and full scale of integer samples.
_INTEGER_SCALES = {"uint8": (128, 2**7), "int16": (0, 2**15), "int32": (0, 2**31)}
# Time in seconds over which the energy of the channels is measured.
_WINDOW_S = 1.0
# Correlation with the loudest channel below which a channel is inverted, and above which it no
# longer is.
_INVERTED, _NOT_INVERTED = -0.7, 0.3
_EXPECTED = "expected mono [num_samples], float32 or float64 in [-1, 1], or int16"


def finite(samples: FloatArray) -> FloatArray:
    """Return samples with NaN and infinite values replaced by 0."""
    is_finite = np.isfinite(samples)
    return samples if is_finite.all() else np.where(is_finite, samples, samples.dtype.type(0))


def to_int16(samples: FloatArray) -> npt.NDArray[np.int16]:
    """Return samples as 16-bit PCM, little endian: the inverse of `to_mono_float32`, clipped."""
    return np.clip(np.rint(samples * 2**15), -(2**15), 2**15 - 1).astype("<i2")


def to_mono_float32(audio: Any, name: str = "the audio") -> FloatArray:
    """Return samples as mono float32 [num_samples]; NaN and infinite values become 0.

    Args:
        audio: Samples [num_samples], or with several channels [num_samples, channels] or [channels,
            num_samples], which are mixed: floats in [-1, 1], int16, int32 or uint8, as an array, a
            tensor on the CPU or a list.
        name: Name of the audio, for error messages.

    Raises:
        MediaError: The audio has another type, shape or range.
    """
    samples = _as_array(audio, name)
    if samples.ndim == 2 and 1 <= min(samples.shape) <= _MAX_CHANNELS:
        channels = samples if samples.shape[0] < samples.shape[1] else samples.T
        scaled = np.stack([_scaled(channel, name) for channel in channels])
        return scaled[0] if len(scaled) == 1 else ChannelMixer(len(scaled)).mix(scaled, 1)
    if samples.ndim != 1:
        raise MediaError(f"{name} has the shape {list(samples.shape)}; {_EXPECTED}")
    return _scaled(samples, name)


def _as_array(audio: Any, name: str) -> npt.NDArray[Any]:
    if isinstance(audio, bytes | bytearray | memoryview):
        raise MediaError(
            f"{name} is {type(audio).__name__}, whose sample format is unknown; {_EXPECTED}: "
            "convert it, such as with np.frombuffer(data, np.int16)"
        )
    try:
        return np.asarray(audio)
    except (TypeError, ValueError, RuntimeError) as error:
        raise MediaError(f"{name} is no array of samples ({error}); {_EXPECTED}") from error


def _scaled(samples: npt.NDArray[Any], name: str) -> FloatArray:
    if samples.dtype.name in _INTEGER_SCALES:
        offset, scale = _INTEGER_SCALES[samples.dtype.name]
        return ((samples.astype(np.float64) - offset) / scale).astype(np.float32)
    if not np.issubdtype(samples.dtype, np.floating):
        raise MediaError(
            f"{name} has samples of the type {samples.dtype}; {_EXPECTED}: divide other integers "
            "by their full scale"
        )
    with np.errstate(over="ignore"):
        checked = finite(samples.astype(np.float32))
    peak = np.abs(checked).max(initial=0)
    if peak > _MAX_AMPLITUDE:
        raise MediaError(
            f"{name} has samples of {peak:g}; expected [-1, 1]: divide samples on the scale of "
            "int16 by 32768"
        )
    return checked


class ChannelMixer:
    """A mixer of channels to mono that keeps the energy of the loudest channel.

    A plain mean removes speech that is in opposite phase in two channels, and halves speech that is
    in one of two channels. Here, a channel in opposite phase to the loudest channel is inverted,
    and the mix gets the energy of the loudest channel. Energies and phases are measured over the
    last second, and the weights change linearly within a block, so that there are no steps.

    Args:
        num_channels: Number of channels.
        weights: Relative weights of the channels; None for equal weights. Channels of weight 0 are
            left out, unless all are 0.
    """

    def __init__(self, num_channels: int, weights: npt.ArrayLike | None = None) -> None:
        given = np.ones(num_channels) if weights is None else np.asarray(weights, np.float64)
        given = given if given.any() else np.ones(num_channels)
        self._weights = given / given.sum()
        self._signs = np.ones(num_channels)
        self._energy = np.zeros((num_channels, num_channels))
        self._gains: npt.NDArray[np.float64] | None = None

    def mix(self, channels: FloatArray, sample_rate: int) -> FloatArray:
        """Return the mix [num_samples] of the next block [channels, num_samples]."""
        channels = finite(channels)
        num_samples = channels.shape[1]
        if not num_samples:
            return np.zeros(0, np.float32)
        block = channels.astype(np.float64)
        self._energy *= np.exp(-num_samples / (_WINDOW_S * sample_rate))
        self._energy += block @ block.T
        gains = self._measure_gains()
        before = gains if self._gains is None else self._gains
        self._gains = gains
        if np.array_equal(before, gains):
            return (gains @ block).astype(np.float32)
        ramp = np.linspace(0, 1, num_samples, endpoint=False)
        return ((before @ block) * (1 - ramp) + (gains @ block) * ramp).astype(np.float32)

    def _measure_gains(self) -> npt.NDArray[np.float64]:
        energies = np.diag(self._energy) * (self._weights > 0)
        loudest = int(energies.argmax())
        if energies[loudest] <= 0:
            return self._weights * self._signs if self._gains is None else self._gains
        scale = np.sqrt(energies * energies[loudest])
        correlation = np.divide(
            self._energy[loudest], scale, out=np.zeros_like(scale), where=scale > 0
        )
        # Keep the sign of the loudest channel, so that the mix does not change its sign.
        relative = correlation * self._signs * self._signs[loudest]
        self._signs[relative < _INVERTED] *= -1
        regular = (self._signs < 0) & (correlation * self._signs[loudest] > _NOT_INVERTED)
        self._signs[regular] = 1
        mixed = self._weights * self._signs
        energy = float(mixed @ self._energy @ mixed)
        lowest = self._weights[self._weights > 0].min()
        gain = min(np.sqrt(energies[loudest] / max(energy, 1e-30)), 1 / lowest)
        return mixed * max(1.0, gain)
