"""`talkinghead predict` with a real detector and a real face: files, options and job lists."""

import os
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from helpers.predict_command import make_files, messages, predict, write_speech

from talkinghead.cli.main import main
from talkinghead.media.reader import probe, read_image, read_video
from talkinghead.media.writer import write_image
from talkinghead.predict.predictor import LipSyncPredictor


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return the folder of the inputs; video.mp4 has 24 frames at 30 frames/s."""
    folder = make_files(tmp_path_factory.mktemp("inputs"))
    write_speech(folder / "short.wav", 0.3)
    return folder


def read_frames(path):
    return np.stack([frame.image for frame in read_video(path)]).astype(int)


@pytest.mark.slow
def test_photo_with_special_characters_in_names(files, tmp_path):
    output = tmp_path / "new folder" / "i=j, (a) 'k' \"l\" ${m}.mp4"
    names = {"face": "a, 'b' = \"c\" (1) ${d}.png", "audio": "e=f, {g: [h]}.wav"}
    shutil.copy(files / "face.png", files / names["face"])
    shutil.copy(files / "speech.wav", files / names["audio"])
    assert predict(files, f"output={output}", **names) == 0
    info = probe(output)
    assert (info.width, info.height, info.fps) == (256, 256, 25)
    assert info.sample_rate == 16_000
    assert abs(info.duration_s - Fraction(6, 5)) <= Fraction(1, 25)
    frames = read_frames(output)
    assert len(frames) == 30
    # Far from the mouth, frames differ only by encoder rounding.
    motion = np.abs(frames - frames[0]).mean((0, 3))
    assert motion[:60].mean() < 0.5
    assert motion[130:170, 90:150].mean() > 2 * motion[:60].mean()


@pytest.mark.slow
def test_python_api_and_command_have_the_same_defaults(files, tmp_path):
    face, audio = files / "face.png", files / "speech.wav"
    command, api, plain = (tmp_path / f"{name}.mp4" for name in ("command", "api", "plain"))
    assert main(["predict", f"face={face}", f"audio={audio}", f"output={command}"]) == 0
    LipSyncPredictor.from_checkpoint("default").render(face, audio, api)
    LipSyncPredictor.from_checkpoint(articulation=1.0, lip_prior=None).render(face, audio, plain)
    expected, found, other = (read_frames(path) for path in (command, api, plain))
    assert np.array_equal(found, expected)
    assert not np.array_equal(other, expected)


@pytest.mark.parametrize(
    ("audio", "options", "num_frames"),
    [
        pytest.param(
            *("speech.wav", ["renderer=feather", "extend=hold"], 36), marks=pytest.mark.slow
        ),
        pytest.param(
            *("short.wav", ["renderer=poisson", "trim=false"], 24), marks=pytest.mark.slow
        ),
    ],
)
def test_extend_and_trim_set_the_number_of_frames(files, tmp_path, audio, options, num_frames):
    output = tmp_path / "out.mp4"
    assert predict(files, f"output={output}", *options, face="video.mp4", audio=audio) == 0
    assert probe(output).fps == 30
    frames = read_frames(output)
    assert len(frames) == num_frames
    assert num_frames == 24 or np.abs(frames[24] - frames[23])[:100].mean() < 1.5


@pytest.mark.slow
def test_photo_with_a_pose(files, tmp_path, capfd):
    output, table = tmp_path / "out.mp4", tmp_path / "pose.csv"
    table.write_text("time_s,yaw,pitch,roll\n0,0,0,0\n0.8,0,0,20\n")
    assert predict(files, f"output={output}", f"pose={table}") == 0
    assert "a roll of 20.0 degrees was requested" in "".join(capfd.readouterr())
    table_frames = read_frames(output)
    assert predict(files, f"output={output}", "pose=[0,0,9]") == 0
    constant_frames = read_frames(output)
    photo = read_image(files / "face.png").astype(int)[20:60, 60:130]
    moved = [np.abs(f[20:60, 60:130] - photo).mean() for f in (*table_frames, constant_frames[0])]
    assert moved[0] < moved[10] < moved[-2]
    assert moved[-1] > moved[0]


def test_two_faces_speak_and_a_third_is_left_alone(files, tmp_path, monkeypatch):
    monkeypatch.chdir(files)
    face = read_image("face.png")
    write_image("three.png", np.hstack([face, face[:, ::-1], face]))
    write_speech(Path("longer.wav"), 0.6)
    output = tmp_path / "out.mp4"
    keys = {"face": "three.png", "audio": None}
    overrides = ["audio=[longer.wav,short.wav]", "face_select=[2,384x100]", f"output={output}"]
    assert predict(files, *overrides, "chunk_frames=5", **keys) == 0
    frames = np.stack(read_frames(output))
    assert len(frames) == 15
    moved = [np.ptp(frames[:, :, x : x + 256].mean(-1), axis=0).max() for x in (0, 256, 512)]
    assert moved[0] < 12 < min(moved[1:])


BAD_KEYS = {
    "no output": (["output=null"], 2, "output=FILE"),
    "pose beyond numbers": (["pose=[1,2,inf]"], 2, "pose=[1, 2"),
    "missing table of expressions": (["expression=missing.csv"], 2, "cannot be read"),
    "unknown blendshape": (["expression={browUp: 1}"], 2, "did you mean browInnerUp?"),
    "unknown motion": (["motion=dance"], 2, "none, idle, speech or video:FILE"),
    "unknown selection": (["face_select=left"], 2, "largest, index, all or speaking"),
    "certificate without key": (
        ["provenance=c2pa", "provenance.certificate_path=chain, mine.pem"],
        2,
        "provenance.key_path=",
    ),
    "two audio files for one face": (
        ["audio=[speech.wav,speech.wav]"],
        2,
        "asks for the face 1, which is not among the 1 face of the photo",
    ),
    "missing photo of a person": (["exclude_face=nobody.jpg"], 2, "exclude_face=nobody.jpg"),
    "missing face": (["face_select=index", "face_index=1"], 1, "face_index=1, but only 1 face"),
}


@pytest.mark.parametrize(("overrides", "status", "named"), BAD_KEYS.values(), ids=BAD_KEYS)
def test_wrong_setting_gives_a_one_line_error(
    files, tmp_path, capfd, monkeypatch, overrides, status, named
):
    monkeypatch.chdir(files)
    assert predict(files, f"output={tmp_path / 'out.mp4'}", *overrides) == status
    (line,) = messages(capfd)
    assert named in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "choice",
    [*(pytest.param(name, marks=pytest.mark.slow) for name in ("metadata", "none")), "c2pa"],
)
def test_provenance_is_selectable(files, tmp_path, choice):
    if choice == "c2pa":
        pytest.importorskip("c2pa")
    path = tmp_path / "out.mp4"
    label = "label=Made by AI, 2026" if choice == "none" else "label=null"
    options = (f"provenance={choice}", label)
    assert predict(files, f"output={path}", *options, audio="short.wav") == 0
    with av.open(str(path)) as container:
        assert ("Generated by AI" in container.metadata.get("comment", "")) is (choice != "none")
    # White letters on a darkened background.
    corner = read_frames(path)[0, :10, :60]
    assert bool(corner.max() - corner.min() > 120) is (choice == "none")
    assert (b"c2pa.created" in path.read_bytes()) is (choice == "c2pa")


@pytest.fixture
def batch(files, tmp_path):
    """Return the arguments for a list of three jobs, of which b fails."""
    faces = {"a": "face.png", "b": "wall.png", "c": "video.mp4"}
    rows = [f"{files}/{face},{files}/speech.wav,{name}.mp4" for name, face in faces.items()]
    (tmp_path / "jobs.csv").write_text("\n".join(["face,audio,output", *rows]))
    return [f"jobs={tmp_path / 'jobs.csv'}", f"checkpoint={files / 'good.safetensors'}"]


# `submitit_local` runs a job array with submitit's local executor, as submitit_slurm does on SLURM.
@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
        ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=10"],
    ],
    ids=["joblib", "submitit_local"],
)
def test_launcher_divides_a_list(batch, files, tmp_path, launcher):
    # Neither shard contains the failing job b.
    shards = [*launcher, "num_shards=3", "shard=0,2"]
    command = [sys.executable, "-m", "talkinghead", "predict", "-m", *batch, *shards]
    done = subprocess.run(
        [*command, f"hydra.sweep.dir={tmp_path / 'sweep'}"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.glob("*.mp4")} == {"a.mp4", "c.mp4"}
