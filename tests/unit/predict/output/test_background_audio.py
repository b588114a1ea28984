"""The music of a dubbed video is mixed with the new speech; the original voice is removed."""

import numpy as np
import pytest
from helpers.media_files import write_media
from helpers.small_predictor import make_predictor, speech

from talkinghead.errors import UsageError
from talkinghead.media.audio_decoding import stream_channels
from talkinghead.predict.options import EncodeOptions, SourceOptions
from talkinghead.predict.output.background_audio import BackgroundAudio, find_background

RATE = 48_000
SECONDS = np.arange(RATE) / RATE
IMAGE = np.full((160, 192, 3), 120, np.uint8)


def tone(frequency_hz, level=0.2):
    return (level * np.sin(2 * np.pi * frequency_hz * SECONDS)).astype(np.float32)


def amplitude(samples, frequency_hz):
    """Return the amplitude of a frequency in the second half of the samples."""
    times = np.arange(len(samples)) / RATE
    part = slice(len(samples) // 2, None)
    wave = np.exp(-2j * np.pi * frequency_hz * times[part])
    return float(2 * np.abs(np.mean(samples[part] * wave)))


def write_film(path, layout="stereo"):
    """Write a video with a voice (440 Hz) and bass (50 Hz) in the centre and music at the left."""
    left = tone(440) + tone(50) + tone(1000)
    audio = np.stack([left, tone(440) + tone(50)]) if layout == "stereo" else left[None]
    return write_media(
        path,
        [IMAGE] * 25,
        audio=audio,
        sample_rate=RATE,
        layout=layout,
        audio_codec="pcm_s16le",
        audio_format="s16",
    )


def mixed(background):
    return background.add_to(np.zeros((2, RATE), np.float32))


def test_voice_in_the_centre_is_removed_and_music_and_bass_are_kept(tmp_path):
    film = write_film(tmp_path / "film.mkv")
    left, right = mixed(BackgroundAudio(film, removes_voice=True))
    assert amplitude(left, 440) < 0.02
    assert amplitude(right, 440) < 0.02
    assert amplitude(left, 1000) > 0.09
    assert amplitude(left, 50) > 0.12
    left, right = mixed(BackgroundAudio(film, removes_voice=False))
    assert amplitude(left, 440) == pytest.approx(0.2, abs=0.01)
    assert amplitude(right, 1000) < 0.01


def test_speech_keeps_its_level_after_the_end_of_the_background(tmp_path):
    background = BackgroundAudio(write_film(tmp_path / "film.mkv"), removes_voice=False)
    wave = (0.3 * np.sin(2 * np.pi * 300 * np.arange(2 * RATE) / RATE)).astype(np.float32)
    chunks = [np.stack([part] * 2) for part in np.split(wave, [1000, 50_000])]
    found = np.concatenate([background.add_to(chunk) for chunk in chunks], axis=1)
    # The film ends after a second, in the second chunk.
    assert np.allclose(found[:, RATE:], wave[RATE:])
    assert amplitude(found[0, :RATE], 300) == pytest.approx(0.3, abs=0.01)
    assert amplitude(found[1, :RATE], 440) == pytest.approx(0.2, abs=0.01)


def test_background_needs_stereo_audio(tmp_path):
    mono = write_film(tmp_path / "mono.mkv", "mono")
    silent = write_media(tmp_path / "silent.mp4", [IMAGE] * 3)
    assert find_background("none", mono) is None
    assert find_background(str(mono), None).sample_rate == RATE
    for video in (None, silent):
        with pytest.raises(UsageError, match="background=keep needs a video with audio"):
            find_background("keep", video)
    with pytest.raises(UsageError, match="background=keep needs a video with stereo audio"):
        find_background("keep", mono)


def test_dubbed_video_has_speech_and_music(tmp_path):
    film = write_film(tmp_path / "film.mkv")
    output = tmp_path / "out.mkv"
    report = make_predictor().render(
        film, speech(0.8), output, encode=EncodeOptions(background="keep")
    )
    samples = np.concatenate(list(stream_channels(output)), axis=1)
    assert samples.shape[0] == 2
    assert float(report.duration_s) == pytest.approx(0.8, abs=0.01)
    assert amplitude(samples[0], 1000) > 0.05
    assert amplitude(samples[0], 440) < 0.03
    assert samples[0].std() > 0.1


def test_background_continues_after_the_speech_to_the_end_of_the_video(tmp_path):
    film, output = write_film(tmp_path / "film.mkv"), tmp_path / "out.mkv"
    encode = EncodeOptions(background=str(film))
    make_predictor().render(film, speech(0.2), output, SourceOptions(trim=False), encode=encode)
    samples = np.concatenate(list(stream_channels(output)), axis=1)
    assert samples.shape[1] == pytest.approx(RATE, abs=1100)
    for start_s in (0.4, 0.7):
        part = samples[0, round(start_s * RATE) : round((start_s + 0.2) * RATE)]
        assert amplitude(part, 1000) == pytest.approx(0.2, abs=0.02)
