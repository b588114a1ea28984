"""Audio decoding to mono float32, aligned with the video."""

from fractions import Fraction

import av
import numpy as np
import pytest
from helpers.media_files import quadrants, tone, write_media, write_wav

from talkinghead.errors import MediaError
from talkinghead.media.audio_decoding import probe_channels, stream_channels
from talkinghead.media.encoding.audio_track import EncodedTrack
from talkinghead.media.reader import read_audio, stream_audio
from talkinghead.types import AudioClip

RATE = 16_000
PCM = {"audio_codec": "pcm_s16le", "audio_format": "s16"}


def click(at_s, duration_s):
    """Return silence with a click of 3 ms, tapered to avoid ringing."""
    samples = np.zeros(round(duration_s * RATE), np.float32)
    start = round(at_s * RATE) - 24
    samples[start : start + 48] = 0.9 * np.hanning(48)
    return samples


def centre_s(samples):
    """Return the centre of the energy in seconds."""
    return float(np.average(np.arange(len(samples)) / RATE, weights=samples.astype(float) ** 2))


@pytest.mark.parametrize("sample_rate", [7_350, 44_100, 192_000])
def test_sample_rate_is_converted(tmp_path, sample_rate):
    path = write_media(
        tmp_path / "a.wav", audio=tone(1, sample_rate), sample_rate=sample_rate, **PCM
    )
    clip = read_audio(path, RATE)
    assert (clip.sample_rate, clip.samples.dtype) == (RATE, np.float32)
    assert abs(len(clip.samples) - RATE) <= 1
    inner = slice(400, -400)
    assert np.abs(clip.samples[inner] - tone(1, RATE)[: len(clip.samples)][inner]).max() < 0.01


@pytest.mark.parametrize(
    ("codec", "audio_format"),
    [("pcm_u8", "u8"), ("pcm_s16le", "s16"), ("pcm_f64le", "dbl"), ("flac", "s32")],
)
def test_sample_format_is_converted(tmp_path, codec, audio_format):
    path = write_media(
        tmp_path / "a.mkv", audio=tone(1, RATE), audio_codec=codec, audio_format=audio_format
    )
    difference = np.abs(read_audio(path, RATE).samples - tone(1, RATE)).max()
    assert difference < (0.02 if codec == "pcm_u8" else 1e-4)


@pytest.mark.parametrize(
    ("layout", "weights"),
    [("stereo", [0.5, 0.5]), ("5.1", [0.2071, 0.2071, 0.2929, 0.0, 0.1464, 0.1464])],
)
def test_channels_are_mixed_to_mono_with_weights(tmp_path, layout, weights):
    times_s = np.arange(RATE) / RATE
    tones = [0.3 * np.sin(2 * np.pi * 100 * (n + 2) * times_s) for n in range(len(weights))]
    path = write_media(tmp_path / "a.wav", audio=np.float32(tones), layout=layout, **PCM)
    mono = read_audio(path, RATE).samples
    found = np.array([2 * np.mean(mono * tone) / 0.3 for tone in tones]) / 0.3
    np.testing.assert_allclose(found / found.sum(), weights, atol=2e-3)


@pytest.mark.parametrize("channel", range(6))
def test_speech_in_a_single_channel_keeps_its_level(tmp_path, channel):
    audio = np.zeros((6, RATE), np.float32)
    audio[channel] = tone(1, RATE)
    path = write_media(tmp_path / "a.wav", audio=audio, layout="5.1", **PCM)
    level = 0 if channel == 3 else 1  # The bass channel contains no speech.
    assert np.abs(read_audio(path, RATE).samples - level * tone(1, RATE)).max() < 2e-3


@pytest.mark.parametrize(
    ("codec", "audio_format", "layout", "num_channels"),
    [
        ("aac", "fltp", "7.1", 8),
        ("flac", "s16", "7.1", 8),
        ("pcm_s16le", "s16", "24 channels", 24),
    ],
)
def test_many_channels_are_read_and_encoded(tmp_path, codec, audio_format, layout, num_channels):
    audio = np.zeros((num_channels, 3 * RATE), np.float32)
    audio[2] = tone(3, RATE)
    options = {"audio_codec": codec, "audio_format": audio_format, "layout": layout}
    path = write_media(tmp_path / "a.mka", audio=audio, sample_rate=RATE, **options)
    found = np.concatenate(list(stream_channels(path)), axis=1)
    assert found.shape[0] == num_channels
    assert np.abs(found[2, 2000:40_000]).max() == pytest.approx(np.abs(audio[2]).max(), rel=0.1)
    assert np.abs(found[[0, 1, 3, 7], 2000:40_000]).max() < 0.05
    with av.open(str(tmp_path / "o.mp4"), "w") as container:
        track = EncodedTrack(container, "aac", RATE, probe_channels(path)[1])
        container.mux([*track.encode(found), *track.flush()])
    assert np.abs(read_audio(tmp_path / "o.mp4", RATE).samples).max() > 0.05


def test_speech_in_opposite_phase_in_two_channels_is_kept(tmp_path):
    audio = np.stack([tone(1, RATE), -tone(1, RATE)])
    path = write_media(tmp_path / "a.wav", audio=audio, layout="stereo", **PCM)
    mono = read_audio(path, RATE).samples
    assert np.abs(np.abs(mono) - np.abs(tone(1, RATE))).max() < 2e-3


@pytest.mark.parametrize("chunk_s", [0.0001, 0.333, 10])
def test_chunked_audio_equals_the_whole_file(tmp_path, chunk_s):
    path = write_media(tmp_path / "a.m4a", audio=tone(0.5, 44_100), sample_rate=44_100)
    chunks = list(stream_audio(path, RATE, chunk_s=chunk_s))
    assert np.array_equal(np.concatenate(chunks), read_audio(path, RATE).samples)
    size = max(1, round(chunk_s * RATE))
    assert all(len(chunk) == size for chunk in chunks[:-1])
    assert 0 < len(chunks[-1]) <= size


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize(
    ("audio", "audio_start_ms", "video_start_ms", "click_s", "duration_s"),
    [(click(0.5, 1), 400, 0, 0.9, 1.4), (click(0.9, 1.4), 0, 400, 0.5, 1.0)],
    ids=["late audio is padded", "early audio is cut"],
)
def test_audio_is_aligned_with_the_video(
    tmp_path, name, audio, audio_start_ms, video_start_ms, click_s, duration_s
):
    times_ms = list(range(video_start_ms, video_start_ms + 2000, 40))
    options = {"audio": audio, "audio_start_ms": audio_start_ms, "times_ms": times_ms}
    path = write_media(tmp_path / name, [quadrants()] * 50, **options)
    samples = read_audio(path, RATE).samples
    assert abs(centre_s(samples) - click_s) < 0.002
    assert abs(len(samples) / RATE - duration_s) < 0.07
    # Without video the audio starts with its first sample.
    path = write_media(tmp_path / "b.mkv", audio=click(0.5, 1), audio_start_ms=audio_start_ms)
    assert abs(centre_s(read_audio(path, RATE).samples) - 0.5) < 0.002


def test_gap_between_timestamps_becomes_silence(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for start in (0, RATE // 2, 2 * RATE):
            data = np.full((1, RATE // 2), 10_000, np.int16)
            frame = av.AudioFrame.from_ndarray(data, "s16", "mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
            container.mux(stream.encode(frame))
    samples = read_audio(tmp_path / "a.mkv", RATE).samples
    assert len(samples) == 2.5 * RATE
    assert min(samples[:RATE].min(), samples[2 * RATE :].min()) > 0.3
    assert np.abs(samples[RATE + 1 : 2 * RATE - 1]).max() == 0


def test_wav_without_a_length_in_its_header_is_read(tmp_path):
    path = tmp_path / "a.wav"
    write_wav(path, AudioClip(tone(1, RATE), RATE))
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert len(read_audio(path, RATE).samples) == RATE


def test_concatenated_mp3_files_are_read(tmp_path, caplog):
    options = {"audio_codec": "libmp3lame", "audio_format": "fltp", "sample_rate": 44_100}
    path = write_media(tmp_path / "a.mp3", audio=tone(1, 44_100), **options)
    path.write_bytes(path.read_bytes() * 3)
    assert abs(len(read_audio(path, RATE).samples) / RATE - 3) < 0.2
    read_audio(path, RATE)
    # One warning for both readings.
    assert caplog.messages == [f"{path}: 2 packets that are damaged or no audio were skipped"]


def test_ogg_file_whose_first_page_is_damaged_is_refused(tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.1, 48_000 * 3 // 2).astype(np.float32)
    options = {"audio_codec": "libopus", "audio_format": "flt", "sample_rate": 48_000}
    path = write_media(tmp_path / "a.ogg", audio=noise, **options)
    data = bytearray(path.read_bytes())
    data[1000:1100] = bytes(100)  # In the first page of audio.
    path.write_bytes(data)
    with pytest.raises(MediaError, match=r"truncated or damaged, .* s could be read"):
        read_audio(path, RATE)


def write_float_wav(path, samples):
    return write_media(path, audio=samples, audio_codec="pcm_f32le", audio_format="flt")


def test_non_finite_samples_become_silence_and_loud_ones_are_clipped(tmp_path):
    audio = tone(1, RATE)
    audio[100:200], audio[300], audio[400] = np.nan, np.inf, 7.0
    path = write_float_wav(tmp_path / "a.wav", audio)
    samples = read_audio(path, RATE).samples
    assert not samples[[*range(100, 200), 300]].any()
    assert samples[400] == 1
    assert np.isfinite(read_audio(path, 8_000).samples).all()


def test_audio_without_valid_samples_is_refused(tmp_path):
    nan = write_float_wav(tmp_path / "nan.wav", np.full(RATE, np.nan, np.float32))
    write_wav(tmp_path / "empty.wav", AudioClip(np.zeros(0, np.float32), RATE))
    write_wav(tmp_path / "short.wav", AudioClip(np.ones(1, np.float32), 48_000))
    raw = tmp_path / "raw.wav"
    raw.write_bytes(np.repeat(tone(1, RATE) * 32_767, 2).astype("<i2").tobytes())
    reasons = {"empty": "empty or damaged", "short": "no duration", "raw": "has no header"}
    cases = {nan: "only NaN", **{tmp_path / f"{n}.wav": reason for n, reason in reasons.items()}}
    for path, reason in cases.items():
        with pytest.raises(MediaError, match=rf"{path.name}: .*{reason}"):
            read_audio(path, RATE)
