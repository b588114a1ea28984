"""`talkinghead predict` with a real detector and a real face, and its error messages."""

from fractions import Fraction

import numpy as np
import pytest
from helpers.predict_command import make_files, messages, predict

from talkinghead.cli.main import main
from talkinghead.media.reader import probe, read_video
from talkinghead.predict.predictor import LipSyncPredictor


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_files(tmp_path_factory.mktemp("inputs"))


def test_photo(files, tmp_path):
    output = tmp_path / "new folder" / "it's, (a) = b.mp4"
    assert predict(files, f"output={output}") == 0
    info = probe(output)
    assert (info.width, info.height, info.fps) == (256, 256, 25)
    assert info.sample_rate == 16_000
    assert abs(info.duration_s - Fraction(6, 5)) <= Fraction(1, 25)
    frames = [frame.image.astype(int) for frame in read_video(output)]
    assert len(frames) == 30
    # Away from the mouth only the rounding of the encoder differs.
    motion = np.abs(np.stack(frames) - frames[0]).mean((0, 3))
    assert motion[:60].mean() < 0.5
    assert motion[130:170, 90:150].mean() > 2 * motion[:60].mean()


def test_python_api_and_command_have_the_same_defaults(files, tmp_path):
    face, audio = files / "face.png", files / "speech.wav"
    command, api, plain = (tmp_path / f"{name}.mp4" for name in ("command", "api", "plain"))
    assert main(["predict", f"face={face}", f"audio={audio}", f"output={command}"]) == 0
    LipSyncPredictor.from_checkpoint("default").render(face, audio, api)
    LipSyncPredictor.from_checkpoint(articulation=1.0, lip_prior=None).render(face, audio, plain)
    expected, found, other = (
        np.stack([frame.image for frame in read_video(path)]) for path in (command, api, plain)
    )
    assert np.array_equal(found, expected)
    assert not np.array_equal(other, expected)


@pytest.mark.parametrize("renderer", ["feather", "poisson"])
def test_video_keeps_its_rate(files, tmp_path, renderer):
    output = tmp_path / "out.mp4"
    assert predict(files, f"output={output}", f"renderer={renderer}", face="video.mp4") == 0
    info = probe(output)
    assert info.fps == 30
    assert sum(1 for _ in read_video(output)) == 36


BAD_INPUTS = {
    "no face file": ({"face": "missing.jpg"}, "missing.jpg"),
    "no audio file": ({"audio": "missing.wav"}, "missing.wav"),
    "a folder as face": ({"face": "folder.mp4"}, "folder.mp4"),
    "an empty face": ({"face": "empty.mp4"}, "empty.mp4"),
    "text as a video": ({"face": "text.mp4"}, "text.mp4"),
    "a truncated face": ({"face": "cut.mp4"}, "cut.mp4"),
    "a truncated audio": ({"audio": "cut.mp4"}, "cut.mp4"),
    "a video without audio": ({"audio": "silent.mp4"}, "silent.mp4"),
    "a photo as audio": ({"audio": "face.png"}, "face.png"),
    "audio as a face": ({"face": "speech.wav"}, "speech.wav"),
    "no samples": ({"audio": "nothing.wav"}, "nothing.wav"),
    "all NaN": ({"audio": "nan.wav"}, "nan.wav"),
    "a photo without a face": ({"face": "wall.png"}, "wall.png"),
    "no checkpoint": ({"checkpoint": "missing.ckpt"}, "missing.ckpt"),
    "a truncated checkpoint": ({"checkpoint": "cut.safetensors"}, "cut.safetensors"),
    "another schema": ({"checkpoint": "other.safetensors"}, "other.safetensors"),
    "a text as checkpoint": ({"checkpoint": "text.mp4"}, "text.mp4"),
}


@pytest.mark.parametrize(("keys", "named"), BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_invalid_input_gives_one_line_and_leaves_no_file(files, tmp_path, capfd, keys, named):
    assert predict(files, f"output={tmp_path / 'out.mp4'}", **keys) == 1
    lines = messages(capfd)
    assert len(lines) == 1
    assert named in lines[0]
    assert not list(tmp_path.iterdir())


def test_unwritable_output_is_an_error(files, tmp_path, capfd):
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
def test_wrong_key_or_value_is_a_usage_error(files, tmp_path, capfd, overrides, named):
    assert predict(files, f"output={tmp_path / 'out.mp4'}", *overrides) == 2
    lines = messages(capfd)
    assert len(lines) == 1
    assert named in lines[0]
    assert not list(tmp_path.iterdir())


def test_one_of_several_jobs_may_fail(files, tmp_path, capfd):
    listed = tmp_path / "jobs.csv"
    faces = {"a": "face.png", "b": "wall.png", "c": "video.mp4"}
    rows = [f"{files}/{face},{files}/speech.wav,{name}.mp4" for name, face in faces.items()]
    listed.write_text("\n".join(["face,audio,output", *rows]))
    code = main(["predict", f"jobs={listed}", f"checkpoint={files / 'good.safetensors'}"])
    assert code == 1
    assert {path.name for path in tmp_path.iterdir()} == {"jobs.csv", "a.mp4", "c.mp4"}
    captured = capfd.readouterr()
    assert "wall.png" in captured.out + captured.err
    assert "1 of 3 jobs failed" in captured.err
