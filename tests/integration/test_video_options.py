"""`talkinghead predict` with the keys that say whose mouth speaks, and how a source is played."""

import numpy as np
import pytest
from helpers.predict_command import make_files, messages, predict, write_speech

from talkinghead.media.reader import probe, read_audio, read_image, read_video


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The video has 24 frames, at 30 a second."""
    folder = make_files(tmp_path_factory.mktemp("inputs"))
    write_speech(folder / "short.wav", 0.3)
    return folder


def frames(path):
    return [frame.image.astype(int) for frame in read_video(path)]


def test_a_video_is_shown_to_its_end_with_silence(files, tmp_path):
    output = tmp_path / "out.mp4"
    code = predict(files, f"output={output}", "trim=false", face="video.mp4", audio="short.wav")
    assert code == 0
    assert len(frames(output)) == 24
    assert float(probe(output).duration_s) == pytest.approx(0.8, abs=0.01)
    sound = read_audio(output, 16_000).samples
    assert len(sound) == pytest.approx(12_800, abs=32)
    assert np.abs(sound[:4000]).max() > 0.1 > 10 * np.abs(sound[7000:]).max()


@pytest.mark.parametrize("extend", ["hold", "loop"])
def test_a_speech_goes_on_over_the_video(files, tmp_path, extend):
    output = tmp_path / "out.mp4"
    assert predict(files, f"output={output}", f"extend={extend}", face="video.mp4") == 0
    shown = frames(output)
    assert len(shown) == 36
    like = {"hold": shown[23], "loop": shown[0]}[extend]
    assert np.abs(shown[24] - like)[:100].mean() < 1.5


def test_a_photo_lives(files, tmp_path):
    output = tmp_path / "out.mp4"
    arguments = ("motion=idle", "seed=3", "face_select=index", "face_index=0")
    assert predict(files, f"output={output}", *arguments) == 0
    shown = frames(output)
    photo = read_image(files / "face.png")
    moved = np.abs(shown[0] - shown[-1]).mean(-1)
    # Above the mouth the head moves, and the photo's corners stay.
    assert moved[60:110, 80:170].mean() > 3 * moved[-30:, -30:].mean()
    assert np.abs(shown[-1][-30:, -30:] - photo[-30:, -30:]).mean() < 4


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("face_select=left", "largest, index, all, speaking"),
        ("face_index=-1", "from 0"),
        ("extend=forever", "pingpong, hold, loop"),
        ("motion=dance", "none, idle"),
    ],
)
def test_a_wrong_value_is_a_usage_error(files, tmp_path, capfd, override, named):
    assert predict(files, f"output={tmp_path / 'out.mp4'}", override) == 2
    (line,) = messages(capfd)
    assert named in line
    assert not list(tmp_path.iterdir())


def test_a_face_that_is_not_there_is_an_error(files, tmp_path, capfd):
    keys = ("face_select=index", "face_index=1")
    assert predict(files, f"output={tmp_path / 'out.mp4'}", *keys) == 1
    (line,) = messages(capfd)
    assert "face_index=1, but 1 face" in line
