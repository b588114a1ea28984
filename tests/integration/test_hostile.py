"""`talkinghead predict` with broken and malicious inputs."""

import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
from helpers.media_files import write_media
from helpers.predict_command import make_files, messages, predict, write_speech
from skimage.data import astronaut

from talkinghead.media.reader import probe, read_video
from talkinghead.predict.predictor import LipSyncPredictor

FACE = np.ascontiguousarray(astronaut()[:256, 100:356])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = make_files(tmp_path_factory.mktemp("hostile"))
    write_media(folder / "wall.mp4", [np.full((128, 128, 3), 90, np.uint8)] * 5)
    write_media(folder / "fast.mp4", [FACE] * 3, fps=Fraction(1_000_000))
    write_media(folder / "one.mp4", [FACE])
    write_media(folder / "instant.mp4", [FACE], fps=Fraction(1_000_000))
    write_giant(folder / "giant.avi", 60_000)
    return folder


def write_giant(path, side):
    """Write a small video whose header claims side x side pixels."""
    content = write_media(path, [FACE[:48, :64]], codec="rawvideo").read_bytes()
    size, claimed = struct.pack("<II", 64, 48), struct.pack("<II", side, side)
    assert size in content
    path.write_bytes(content.replace(size, claimed))


BAD_INPUTS = {
    "no audio file": ({"audio": "missing.wav"}, "missing.wav: no such file"),
    "video without audio": ({"audio": "silent.mp4"}, "silent.mp4: has no audio"),
    "no samples": ({"audio": "nothing.wav"}, "nothing.wav: "),
    "all NaN": ({"face": "video.mp4", "audio": "nan.wav"}, "nan.wav: "),
    "truncated face": ({"face": "cut.mp4"}, "cut.mp4: "),
    "audio as a face": ({"face": "speech.wav"}, "speech.wav: "),
    "photo without a face": ({"face": "wall.png"}, "wall.png: no face was found in this photo"),
    "video without a face": ({"face": "wall.mp4"}, "wall.mp4: no face was found in any of"),
    "a million frames a second": ({"face": "fast.mp4"}, "fast.mp4: has 1,000,000 frames/s"),
    "a header of 3.6 billion pixels": ({"face": "giant.avi"}, "more than 134,217,728 pixels"),
    "no checkpoint": ({"checkpoint": "missing.ckpt"}, "missing.ckpt"),
}


@pytest.mark.parametrize(("keys", "message"), BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_invalid_input_gives_one_error_line_and_ends_threads(files, tmp_path, capfd, keys, message):
    threads = threading.active_count()
    started = time.monotonic()
    assert predict(files, f"output={tmp_path / 'out.mp4'}", **keys) == 1
    assert time.monotonic() - started < 20
    (line,) = messages(capfd)
    assert message in line
    assert not list(tmp_path.iterdir())
    while threading.active_count() > threads + 1:  # The detector keeps one thread.
        assert time.monotonic() - started < 20
        time.sleep(0.05)


@pytest.mark.parametrize("name", [pytest.param("one.mp4", marks=pytest.mark.slow), "instant.mp4"])
def test_video_of_one_frame_is_treated_as_photo(files, tmp_path, name):
    write_speech(files / "short.wav", 0.4)
    assert predict(files, f"output={tmp_path / 'out.mp4'}", face=name, audio="short.wav") == 0
    assert probe(tmp_path / "out.mp4").fps == 25
    assert sum(1 for _ in read_video(tmp_path / "out.mp4")) == 10


@pytest.mark.parametrize(("folder", "status"), [("/proc", 1), (__file__, 2)])
def test_unwritable_output_is_an_error(files, capfd, folder, status):
    assert predict(files, f"output={folder}/out.mp4") == status
    (line,) = messages(capfd)
    assert folder in line
    assert ("cannot be written" if status == 1 else "is a file") in line


@pytest.mark.slow
def test_two_runs_with_one_output_leave_the_last_complete_file(files, tmp_path):
    write_speech(files / "longer.wav", 2)
    output = tmp_path / "out.mp4"
    reports = []

    def render(speech):
        checkpoint = files / "good.safetensors"
        predictor = LipSyncPredictor.from_checkpoint(checkpoint, lip_prior=None)
        reports.append(predictor.render(files / "face.png", files / speech, output))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(render, ("speech.wav", "longer.wav")))
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert sorted(report.num_frames for report in reports) == [30, 50]
    assert sum(1 for _ in read_video(output)) == reports[-1].num_frames
