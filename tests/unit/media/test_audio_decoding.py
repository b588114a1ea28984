"""Sound of every kind comes out as mono float32, in step with the pictures."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from helpers.media_files import quadrants, tone, write_media

from talkinghead.errors import MediaError
from talkinghead.media.reader import read_audio, stream_audio
from talkinghead.media.writer import write_audio_file
from talkinghead.types import AudioClip

RATE = 16_000


def click(at_s: float, seconds: float, sample_rate: int = RATE) -> np.ndarray:
    """Silence with a click of 3 ms, tapered so that no resampler makes it ring."""
    samples = np.zeros(round(seconds * sample_rate), np.float32)
    width = round(0.003 * sample_rate)
    start = round(at_s * sample_rate) - width // 2
    samples[start : start + width] = 0.9 * np.hanning(width)
    return samples


def centre_s(samples: np.ndarray, sample_rate: int = RATE) -> float:
    """Where the energy is, in seconds."""
    energy = samples.astype(np.float64) ** 2
    return float((energy * np.arange(len(energy))).sum() / energy.sum() / sample_rate)


def frequency_hz(samples: np.ndarray, sample_rate: int = RATE) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * sample_rate / len(samples))


@pytest.mark.parametrize(
    "sample_rate", [7_350, 8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000]
)
def test_any_rate(tmp_path, sample_rate):
    path = write_media(
        tmp_path / "a.wav",
        sound=tone(1, sample_rate),
        sample_rate=sample_rate,
        sound_codec="pcm_s16le",
        sound_format="s16",
    )
    clip = read_audio(path, RATE)
    assert clip.sample_rate == RATE
    assert clip.samples.dtype == np.float32
    assert abs(len(clip.samples) - RATE) <= 1
    assert abs(frequency_hz(clip.samples) - 440) <= 1
    inner = slice(400, -400)
    assert np.abs(clip.samples[inner] - tone(1, RATE)[: len(clip.samples)][inner]).max() < 0.01


@pytest.mark.parametrize(
    ("codec", "sound_format"),
    [
        ("pcm_u8", "u8"),
        ("pcm_s16le", "s16"),
        ("pcm_s32le", "s32"),
        ("pcm_f64le", "dbl"),
        ("flac", "s32"),
    ],
)
def test_any_sample_format(tmp_path, codec, sound_format):
    path = write_media(
        tmp_path / "a.mkv", sound=tone(1, RATE), sound_codec=codec, sound_format=sound_format
    )
    difference = np.abs(read_audio(path, RATE).samples - tone(1, RATE)).max()
    assert difference < (0.02 if codec == "pcm_u8" else 1e-4)


@pytest.mark.parametrize(
    ("layout", "shares"),
    [
        ("mono", {0: 1.0}),
        ("stereo", {0: 0.5, 1: 0.5}),
        ("5.1", {0: 0.2071, 1: 0.2071, 2: 0.2929, 3: 0.0, 4: 0.1464, 5: 0.1464}),
    ],
)
def test_channels_are_summed_without_clipping(tmp_path, layout, shares):
    for channel, share in shares.items():
        sound = np.zeros((len(shares), RATE), np.float32)
        sound[channel] = tone(1, RATE)
        path = write_media(
            tmp_path / f"{channel}.wav",
            sound=sound,
            layout=layout,
            sound_codec="pcm_s16le",
            sound_format="s16",
        )
        samples = read_audio(path, RATE).samples
        assert np.abs(samples - share * tone(1, RATE)).max() < 1e-3


@pytest.mark.parametrize("chunk_s", [0.0001, 0.02, 0.333, 10])
def test_chunks_equal_the_whole_bit_for_bit(tmp_path, chunk_s):
    path = write_media(tmp_path / "a.m4a", sound=tone(0.5, 44_100), sample_rate=44_100)
    whole = read_audio(path, RATE).samples
    chunks = list(stream_audio(path, RATE, chunk_s=chunk_s))
    assert np.array_equal(np.concatenate(chunks), whole)
    size = max(1, round(chunk_s * RATE))
    assert all(len(chunk) == size for chunk in chunks[:-1])
    assert 0 < len(chunks[-1]) <= size


@pytest.mark.parametrize("sample_rate", [RATE, 44_100])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_late_sound_is_padded(tmp_path, name, sample_rate):
    path = write_media(
        tmp_path / name,
        [quadrants()] * 50,
        sound=click(0.5, 1, sample_rate),
        sample_rate=sample_rate,
        sound_start_ms=400,
    )
    samples = read_audio(path, RATE).samples
    assert abs(centre_s(samples) - 0.9) < 0.002
    assert abs(len(samples) / RATE - 1.4) < 0.07


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_early_sound_is_cut(tmp_path, name):
    path = write_media(
        tmp_path / name, [quadrants()] * 25, sound=click(0.9, 1.4), video_start_ms=400
    )
    samples = read_audio(path, RATE).samples
    assert abs(centre_s(samples) - 0.5) < 0.002
    assert abs(len(samples) / RATE - 1) < 0.07


def test_a_hole_in_the_sound_becomes_silence(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for start in (0, RATE // 2, 2 * RATE):
            data = np.full((1, RATE // 2), 10_000, np.int16)
            frame = av.AudioFrame.from_ndarray(data, "s16", "mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
            container.mux(stream.encode(frame))
    samples = read_audio(tmp_path / "a.mkv", RATE).samples
    assert len(samples) == 2.5 * RATE
    assert samples[:RATE].min() > 0.3
    assert np.abs(samples[RATE + 1 : 2 * RATE - 1]).max() == 0
    assert samples[2 * RATE :].min() > 0.3


def test_sound_alone_begins_with_its_first_sample(tmp_path):
    path = write_media(tmp_path / "a.mkv", sound=click(0.5, 1), sound_start_ms=700)
    assert abs(centre_s(read_audio(path, RATE).samples) - 0.5) < 0.002


def test_resampling_does_not_shift(tmp_path):
    path = write_media(
        tmp_path / "a.wav",
        sound=click(0.5, 1, 48_000),
        sample_rate=48_000,
        sound_codec="pcm_s16le",
        sound_format="s16",
    )
    for sample_rate in (8_000, 16_000, 44_100):
        samples = read_audio(path, sample_rate).samples
        assert abs(centre_s(samples, sample_rate) - 0.5) < 1e-4


def test_a_wav_that_was_written_to_a_pipe_states_no_length(tmp_path):
    path = tmp_path / "a.wav"
    write_audio_file(path, AudioClip(tone(1, RATE), RATE))
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert len(read_audio(path, RATE).samples) == RATE


def float_wav(path, samples):
    return write_media(path, sound=samples, sound_codec="pcm_f32le", sound_format="flt")


def test_samples_that_are_not_numbers_become_silence_and_loud_ones_are_clipped(tmp_path):
    sound = tone(1, RATE)
    sound[100:200], sound[300], sound[400] = np.nan, np.inf, 7.0
    samples = read_audio(float_wav(tmp_path / "a.wav", sound), RATE).samples
    assert np.isfinite(samples).all()
    assert (samples[100:200] == 0).all()
    assert samples[300] == 0
    assert samples[400] == 1
    resampled = read_audio(tmp_path / "a.wav", 8_000).samples
    assert np.isfinite(resampled).all()


def test_nothing_but_nan_is_refused(tmp_path):
    path = float_wav(tmp_path / "a.wav", np.full(RATE, np.nan, np.float32))
    with pytest.raises(MediaError, match=r"a\.wav.*NaN"):
        read_audio(path, RATE)


def test_sound_of_no_length_is_refused(tmp_path):
    path = tmp_path / "a.wav"
    write_audio_file(path, AudioClip(np.zeros(0, np.float32), RATE))
    with pytest.raises(MediaError, match=r"a\.wav"):
        read_audio(path, RATE)


def test_no_sound_is_said_at_once(tmp_path):
    path = write_media(tmp_path / "a.mp4", [quadrants()] * 3)
    for read in (read_audio, stream_audio):
        with pytest.raises(MediaError, match=r"a\.mp4: has no sound"):
            read(path, RATE)
