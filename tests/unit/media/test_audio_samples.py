from __future__ import annotations

import numpy as np
import pytest

from talkinghead.errors import MediaError
from talkinghead.media.audio_samples import ChannelMixer, to_mono_float32

RATE = 16_000


def tone(frequency: float = 200.0, duration_s: float = 1.0) -> np.ndarray:
    times_s = np.arange(round(duration_s * RATE)) / RATE
    return (0.5 * np.sin(2 * np.pi * frequency * times_s)).astype(np.float32)


def rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples))))


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int16, np.int32, np.uint8, list])
def test_samples_of_any_type_are_converted(kind):
    samples = tone()
    if kind is list:
        given = samples.tolist()
    elif kind is np.uint8:
        given = (samples * 127 + 128).round().astype(np.uint8)
    elif np.issubdtype(kind, np.integer):
        given = (samples * np.iinfo(kind).max).astype(kind)
    else:
        given = samples.astype(kind)
    converted = to_mono_float32(given)
    assert converted.dtype == np.float32
    np.testing.assert_allclose(converted, samples, atol=0.01)


def test_nan_and_infinite_samples_are_silence():
    given = np.array([0.5, np.nan, np.inf, -np.inf, 1e200, 0.25])[[0, 1, 2, 3, 5]]
    np.testing.assert_array_equal(to_mono_float32(given), [0.5, 0, 0, 0, 0.25])
    mixed = ChannelMixer(2).mix(np.array([[np.nan, 0.5], [np.inf, 0.5]], np.float32), RATE)
    np.testing.assert_allclose(mixed, [0, 0.5])


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (b"\0\0", r"is bytes.*np\.frombuffer\(data, np\.int16\)"),
        ([[0.1], [0.1, 0.2]], "no array of samples"),
        (np.zeros((50, 50, 2)), r"shape \[50, 50, 2\]"),
        (np.zeros((99, 99)), r"shape \[99, 99\]"),
        (np.float32(1), r"shape \[\]"),
        (np.zeros(5, np.int64), "type int64.*divide other integers"),
        ("speech", r"shape \[\]"),
        (np.full(5, 3.0), "samples of 3; expected"),
    ],
)
def test_values_that_are_not_audio_samples_are_refused(audio, message):
    with pytest.raises(MediaError, match=message) as caught:
        to_mono_float32(audio)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("channels_first", [False, True])
def test_channels_are_mixed_in_either_order(channels_first):
    stereo = np.stack([tone(), tone()], 0 if channels_first else 1)
    np.testing.assert_allclose(to_mono_float32(stereo), tone(), atol=1e-6)
    single = tone()[None] if channels_first else tone()[:, None]
    np.testing.assert_array_equal(to_mono_float32(single), tone())


@pytest.mark.parametrize(("left", "right"), [(1, 1), (1, -1), (1, 0), (0, 1), (-0.5, 1), (1, 0.1)])
def test_mix_is_as_loud_as_the_loudest_channel(left, right):
    mixer, blocks = ChannelMixer(2), np.split(np.stack([left * tone(), right * tone()]), 10, axis=1)
    mixed = np.concatenate([mixer.mix(block, RATE) for block in blocks])
    assert rms(mixed) == pytest.approx(rms(tone()), rel=0.02)
    # There is no step between blocks.
    assert np.abs(np.diff(mixed)).max() < 1.1 * np.abs(np.diff(tone())).max()


def test_speech_that_moves_to_the_other_channel_keeps_its_level():
    mixer, silence = ChannelMixer(2), np.zeros_like(tone())
    halves = [np.stack([tone(), silence]), np.stack([silence, tone()])]
    blocks = [block for half in halves for block in np.split(half, 50, axis=1)]
    mixed = np.concatenate([mixer.mix(block, RATE) for block in blocks])
    for start in (0.0, 1.0, 1.5):
        part = mixed[round(start * RATE) :][: RATE // 2]
        assert 0.6 < rms(part) / rms(tone()) < 1.5


def test_channels_without_weight_are_left_out():
    mixed = ChannelMixer(2, [1, 0]).mix(np.stack([tone(), tone(90)]), RATE)
    np.testing.assert_allclose(mixed, tone(), atol=1e-6)
    only = ChannelMixer(2, [0, 0]).mix(np.stack([tone(), tone()]), RATE)
    np.testing.assert_allclose(only, tone(), atol=1e-6)
