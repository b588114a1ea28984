"""`talkinghead predict` with the options of the source."""

import numpy as np
import pytest
from helpers.predict_command import make_files, messages, predict, write_speech

from talkinghead.media.reader import probe, read_audio, read_image, read_video


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return the folder of the inputs; the video has 24 frames at 30 frames/s."""
    folder = make_files(tmp_path_factory.mktemp("inputs"))
    write_speech(folder / "short.wav", 0.3)
    return folder


def frames(path):
    return [frame.image.astype(int) for frame in read_video(path)]


def test_untrimmed_video_ends_with_silence(files, tmp_path):
    output = tmp_path / "out.mp4"
    code = predict(files, f"output={output}", "trim=false", face="video.mp4", audio="short.wav")
    assert code == 0
    assert len(frames(output)) == 24
    assert float(probe(output).duration_s) == pytest.approx(0.8, abs=0.01)
    samples = read_audio(output, 16_000).samples
    assert len(samples) == pytest.approx(12_800, abs=32)
    assert np.abs(samples[:4000]).max() > 0.1 > 10 * np.abs(samples[7000:]).max()


def test_video_is_extended_for_longer_speech(files, tmp_path):
    output = tmp_path / "out.mp4"
    assert predict(files, f"output={output}", "extend=hold", face="video.mp4") == 0
    shown = frames(output)
    assert len(shown) == 36
    assert np.abs(shown[24] - shown[23])[:100].mean() < 1.5


def test_photo_with_idle_motion(files, tmp_path):
    output = tmp_path / "out.mp4"
    arguments = ("motion=idle", "seed=3", "face_select=index", "face_index=0")
    assert predict(files, f"output={output}", *arguments) == 0
    shown = frames(output)
    photo = read_image(files / "face.png")
    moved = np.abs(shown[0] - shown[-1]).mean(-1)
    # The head moves, the corners of the photo do not.
    assert moved[60:110, 80:170].mean() > 3 * moved[-30:, -30:].mean()
    assert np.abs(shown[-1][-30:, -30:] - photo[-30:, -30:]).mean() < 4


def test_wrong_value_is_a_usage_error(files, tmp_path, capfd):
    assert predict(files, f"output={tmp_path / 'out.mp4'}", "face_select=left") == 2
    (line,) = messages(capfd)
    assert "largest, index, all, speaking" in line
    assert not list(tmp_path.iterdir())


def test_missing_face_index_is_an_error(files, tmp_path, capfd):
    keys = ("face_select=index", "face_index=1")
    assert predict(files, f"output={tmp_path / 'out.mp4'}", *keys) == 1
    (line,) = messages(capfd)
    assert "face_index=1, but 1 face" in line
