"""`talkinghead predict` with broken and malicious inputs, a full disk and interruptions."""

import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from fractions import Fraction

import av
import numpy as np
import pytest
from helpers.predict_command import make_files, messages, predict, write_speech
from skimage.data import astronaut

from talkinghead.media.reader import probe, read_video
from talkinghead.media.writer import VideoWriter
from talkinghead.predict.predictor import LipSyncPredictor

FACE = np.ascontiguousarray(astronaut()[:256, 100:356])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = make_files(tmp_path_factory.mktemp("hostile"))
    write(folder / "wall.mp4", Fraction(25), [np.full((128, 128, 3), 90, np.uint8)] * 5)
    write(folder / "fast.mp4", Fraction(1_000_000), [FACE] * 24)
    write(folder / "one.mp4", Fraction(25), [FACE])
    write(folder / "instant.mp4", Fraction(1_000_000), [FACE])
    write_bomb(folder / "bomb.png", 30_000)
    write_giant(folder / "giant.avi", 60_000)
    shutil.copy(folder / "video.mp4", folder / "a, 'b' = \"c\" (1) ${d}.mp4")
    shutil.copy(folder / "speech.wav", folder / "e=f, {g: [h]}.wav")
    return folder


def write(path, fps, images):
    height, width, _ = images[0].shape
    with VideoWriter(path, width, height, fps, None, preset="ultrafast") as writer:
        for image in images:
            writer.write(image)


def write_bomb(path, side):
    """Write a black PNG of side x side pixels in a few kilobytes."""
    rows = zlib.compress(bytes((1 + (side + 7) // 8) * side), 6)
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)), (b"IDAT", rows))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in (*chunks, (b"IEND", b""))
        )
    )


def write_giant(path, side):
    """Write a small video whose header claims side x side pixels."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("rawvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        frame = av.VideoFrame.from_ndarray(FACE[:48, :64].copy()).reformat(format="yuv420p")
        container.mux(stream.encode(frame))
    size, claimed = struct.pack("<II", 64, 48), struct.pack("<II", side, side)
    content = path.read_bytes()
    assert size in content
    path.write_bytes(content.replace(size, claimed))


VIDEO_INPUTS = {
    "no audio file": ({"audio": "missing.wav"}, "missing.wav: no such file"),
    "all NaN": ({"audio": "nan.wav"}, "nan.wav: "),
    "no face": ({"face": "wall.mp4"}, "wall.mp4: no face was found in any of"),
    "a million frames a second": ({"face": "fast.mp4"}, "fast.mp4: has 1,000,000 frames/s"),
    "900 million pixels": ({"face": "bomb.png"}, "more than 134,217,728 pixels"),
    "a header of 3.6 billion": ({"face": "giant.avi"}, "more than 134,217,728 pixels"),
}


@pytest.mark.parametrize(("keys", "message"), VIDEO_INPUTS.values(), ids=VIDEO_INPUTS)
def test_invalid_input_gives_one_line_and_ends_all_threads(files, tmp_path, capfd, keys, message):
    threads = threading.active_count()
    started = time.monotonic()
    assert predict(files, f"output={tmp_path / 'out.mp4'}", **{"face": "video.mp4", **keys}) == 1
    assert time.monotonic() - started < 20
    lines = messages(capfd)
    assert len(lines) == 1
    assert message in lines[0]
    assert not list(tmp_path.iterdir())
    while threading.active_count() > threads + 1:  # The detector keeps one.
        assert time.monotonic() - started < 20  # Whisper may still be loading.
        time.sleep(0.05)


@pytest.mark.parametrize("name", ["one.mp4", "instant.mp4"])
def test_video_of_one_frame_is_a_photo(files, tmp_path, name):
    assert predict(files, f"output={tmp_path / 'out.mp4'}", face=name) == 0
    assert probe(tmp_path / "out.mp4").fps == 25
    assert sum(1 for _ in read_video(tmp_path / "out.mp4")) == 30


def test_special_characters_in_names(files, tmp_path):
    output = tmp_path / "i=j, 'k' \"l\" ${m}.mp4"
    names = {"face": "a, 'b' = \"c\" (1) ${d}.mp4", "audio": "e=f, {g: [h]}.wav"}
    assert predict(files, f"output={output}", **names) == 0
    assert [path.name for path in tmp_path.iterdir()] == [output.name]


def test_unwritable_folder_is_an_error(files, capfd):
    assert predict(files, "output=/proc/out.mp4", face="video.mp4") == 1
    assert "/proc/out.mp4: cannot be written" in messages(capfd)[0]


# RLIMIT_FSIZE simulates a full disk. It also limits the output of a process, here a pipe.
_FULL_DISK = """
import resource, signal, sys
from talkinghead.cli.main import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
sys.exit(main(["predict", *sys.argv[1:]]))
"""


def test_full_disk_is_an_error_and_leaves_no_file(files, tmp_path):
    keys = {"face": "video.mp4", "audio": "speech.wav", "checkpoint": "good.safetensors"}
    arguments = [f"{key}={files / name}" for key, name in keys.items()]
    command = [sys.executable, "-c", _FULL_DISK, *arguments, f"output={tmp_path / 'out.mp4'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "out.mp4: cannot be written (File too large)" in done.stderr
    assert not list(tmp_path.iterdir())


def test_two_runs_with_one_output_leave_the_last_complete_file(files, tmp_path):
    write_speech(files / "longer.wav", 2)
    output = tmp_path / "out.mp4"
    checkpoint = files / "good.safetensors"
    predictors = [LipSyncPredictor.from_checkpoint(checkpoint, lip_prior=None) for _ in range(2)]
    reports = []

    def render(predictor, speech):
        reports.append(predictor.render(files / "face.png", files / speech, output))

    threads = [
        threading.Thread(target=render, args=arguments)
        for arguments in zip(predictors, ("speech.wav", "longer.wav"), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert sorted(report.num_frames for report in reports) == [30, 50]
    assert sum(1 for _ in read_video(output)) == reports[-1].num_frames


_COMMAND = """
import signal, sys
from talkinghead.cli.main import main
# A shell ignores SIGINT in background processes, which would be inherited here.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main(sys.argv[1:]))
"""


def interrupt(arguments, folder, num_files):
    """Send SIGINT once `num_files` exist, and return exit status, seconds and messages."""
    process = subprocess.Popen(
        [sys.executable, "-c", _COMMAND, "predict", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        deadline = time.monotonic() + 120
        while len(list(folder.iterdir())) < num_files and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, time.monotonic() - started, error


@pytest.mark.parametrize("face", [pytest.param("face.png", marks=pytest.mark.slow), "video.mp4"])
def test_ctrl_c_stops_and_leaves_no_file(files, tmp_path, face):
    if not (files / "long.wav").exists():
        write_speech(files / "long.wav", 600)
    arguments = [f"face={files / face}", f"audio={files / 'long.wav'}"]
    arguments += [f"checkpoint={files / 'good.safetensors'}", f"output={tmp_path / 'out.mp4'}"]
    code, elapsed_s, error = interrupt(arguments, tmp_path, 1)
    assert code == 130
    assert error.splitlines()[-1] == "talkinghead: interrupted"
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())
    assert elapsed_s < 20  # A second or two on an idle machine.


@pytest.mark.slow
def test_ctrl_c_stops_all_worker_processes(files, tmp_path):
    write_speech(files / "endless.wav", 600)
    out = tmp_path / "out"
    out.mkdir()
    rows = [f"{files}/face.png,{files}/endless.wav,out/{number}.mp4" for number in range(3)]
    (tmp_path / "jobs.csv").write_text("\n".join(["face,audio,output", *rows]))
    arguments = [f"jobs={tmp_path / 'jobs.csv'}", "workers=2"]
    arguments += [f"checkpoint={files / 'good.safetensors'}"]
    code, _, error = interrupt(arguments, out, 2)
    assert code == 130
    assert error.splitlines()[-1] == "talkinghead: interrupted"
    assert "Traceback" not in error
    assert not list(out.iterdir())
