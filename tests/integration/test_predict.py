"""`talkinghead predict` as typed: a real detector, a real face, and each bad input's line."""

from fractions import Fraction

import numpy as np
import pytest
from helpers.predict_command import make_files, messages, predict

from talkinghead.cli.main import main
from talkinghead.media.reader import probe, read_video


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_files(tmp_path_factory.mktemp("inputs"))


def test_a_photo_speaks(files, tmp_path):
    output = tmp_path / "new folder" / "it's, (a) = b.mp4"
    assert predict(files, f"output={output}") == 0
    info = probe(output)
    assert (info.width, info.height, info.fps) == (256, 256, 25)
    assert info.sample_rate == 16_000
    assert abs(info.duration_s - Fraction(6, 5)) <= Fraction(1, 25)
    frames = [frame.image.astype(int) for frame in read_video(output)]
    assert len(frames) == 30
    # Where there is no mouth nothing moves but the encoder's rounding.
    motion = np.abs(np.stack(frames) - frames[0]).mean((0, 3))
    assert motion[:60].mean() < 0.5
    assert motion[130:170, 90:150].mean() > 2 * motion[:60].mean()


@pytest.mark.parametrize("renderer", ["feather", "poisson"])
def test_a_video_speaks_at_its_own_rate(files, tmp_path, renderer):
    output = tmp_path / "out.mp4"
    assert predict(files, f"output={output}", f"renderer={renderer}", face="video.mp4") == 0
    info = probe(output)
    assert info.fps == 30
    assert sum(1 for _ in read_video(output)) == 36


BAD_INPUTS = {
    "no face file": ({"face": "missing.jpg"}, "missing.jpg"),
    "no audio file": ({"audio": "missing.wav"}, "missing.wav"),
    "a folder as face": ({"face": "folder.mp4"}, "folder.mp4"),
    "a folder as audio": ({"audio": "folder.mp4"}, "folder.mp4"),
    "an empty face": ({"face": "empty.mp4"}, "empty.mp4"),
    "an empty audio": ({"audio": "empty.mp4"}, "empty.mp4"),
    "text as a video": ({"face": "text.mp4"}, "text.mp4"),
    "text as audio": ({"audio": "text.mp4"}, "text.mp4"),
    "a truncated face": ({"face": "cut.mp4"}, "cut.mp4"),
    "a truncated audio": ({"audio": "cut.mp4"}, "cut.mp4"),
    "a video without sound": ({"audio": "silent.mp4"}, "silent.mp4"),
    "a photo as audio": ({"audio": "face.png"}, "face.png"),
    "sound as a face": ({"face": "speech.wav"}, "speech.wav"),
    "no samples": ({"audio": "nothing.wav"}, "nothing.wav"),
    "all NaN": ({"audio": "nan.wav"}, "nan.wav"),
    "a photo without a face": ({"face": "wall.png"}, "wall.png"),
    "no checkpoint": ({"checkpoint": "missing.ckpt"}, "missing.ckpt"),
    "a truncated checkpoint": ({"checkpoint": "cut.safetensors"}, "cut.safetensors"),
    "another schema": ({"checkpoint": "other.safetensors"}, "other.safetensors"),
    "a text as checkpoint": ({"checkpoint": "text.mp4"}, "text.mp4"),
}


@pytest.mark.parametrize(("keys", "named"), BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_a_bad_input_has_one_line_and_leaves_nothing(files, tmp_path, capfd, keys, named):
    assert predict(files, f"output={tmp_path / 'out.mp4'}", **keys) == 1
    lines = messages(capfd)
    assert len(lines) == 1
    assert named in lines[0]
    assert not list(tmp_path.iterdir())


def test_an_output_that_cannot_be_written_is_an_error(files, tmp_path, capfd):
    (tmp_path / "file").write_text("not a folder")
    assert predict(files, f"output={tmp_path / 'file' / 'out.mp4'}") == 1
    lines = messages(capfd)
    assert len(lines) == 1
    assert str(tmp_path / "file") in lines[0]


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["fase=a.png"], "face"),
        (["renderer=magic"], "poisson"),
        (["precision=64"], "bf16-mixed"),
        (["device=abacus"], "abacus"),
        (["output=null"], "output=FILE"),
    ],
)
def test_a_wrong_key_or_value_is_a_usage_error(files, tmp_path, capfd, overrides, named):
    assert predict(files, f"output={tmp_path / 'out.mp4'}", *overrides) == 2
    lines = messages(capfd)
    assert len(lines) == 1
    assert named in lines[0]
    assert not list(tmp_path.iterdir())


def test_of_several_jobs_one_may_fail(files, tmp_path, capfd):
    listed = tmp_path / "jobs.csv"
    rows = ("face.png,speech.wav,a.mp4", "wall.png,speech.wav,b.mp4", "video.mp4,video.mp4,c.mp4")
    listed.write_text(
        "face,audio,output\n"
        + "\n".join(
            ",".join(
                str((files if i < 2 else tmp_path) / name) for i, name in enumerate(row.split(","))
            )
            for row in rows
        )
    )
    code = main(["predict", f"jobs={listed}", f"checkpoint={files / 'good.safetensors'}"])
    assert code == 1
    assert {path.name for path in tmp_path.iterdir()} == {"jobs.csv", "a.mp4", "c.mp4"}
    captured = capfd.readouterr()
    assert "wall.png" in captured.out + captured.err
    assert "1 of 3 jobs failed" in captured.err
