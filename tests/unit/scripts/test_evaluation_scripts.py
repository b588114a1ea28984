"""Tests of the scripts that render sheets of faces or score lip motion."""

from __future__ import annotations

import csv
import re
import runpy
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from helpers.tiny_training import GENERATOR, SPEC
from skimage import data

from talkinghead.data.synthetic_clips import make_synthetic_corpus
from talkinghead.features.faces.head_pose import head_pose
from talkinghead.features.faces.litert_detector import LiteRtDetector
from talkinghead.media.reader import read_audio, read_image, read_video
from talkinghead.media.writer import VideoWriter, write_image
from talkinghead.models.checkpoint import build, save_release
from talkinghead.paths import DEMO_SPEECH
from talkinghead.predict.options import SourceOptions
from talkinghead.predict.predictor import LipSyncPredictor
from talkinghead.types import AudioClip

SCRIPTS = Path(__file__).parents[3] / "scripts"
SECONDS = 1.6

Run = Callable[..., None]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    def run(main: Callable[[], None], *arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["script", *map(str, arguments)])
        main()

    return run


def load(script: str) -> dict[str, Any]:
    return runpy.run_path(str(SCRIPTS / f"{script}.py"))


@pytest.mark.slow
def test_difficult_inputs_sheet_writes_images_and_csv(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    portrait, output = np.ascontiguousarray(data.astronaut()[0:288, 60:420]), tmp_path / "sheet"
    with VideoWriter(tmp_path / "grid/s3/clip.mp4", 360, 288, Fraction(25), None) as writer:
        for _ in range(75):
            writer.write(portrait)
    script = load("difficult_inputs_sheet")
    for name in script["CASES"].keys() - {"rotated", "grey", "two", "painting"}:
        del script["CASES"][name]
    run(script["main"], output, "--grid", tmp_path / "grid", "--around", 1)
    with (output / "difficult_inputs.csv").open() as file:
        rotated, grey = csv.DictReader(file)
    assert [*rotated.values()][:3] == ["rotated", "216", "288"]
    assert (grey["num_frames"], grey["num_frames_without_face"]) == ("75", "0")
    printed = capsys.readouterr().out
    assert "two is left out because it needs clips of GRID's s20: give --grid" in printed
    assert "painting is left out because it needs a portrait: give --painting" in printed
    shown = sorted(path.name for path in (output / "frames").iterdir())
    assert shown == [f"{name}_{n}.png" for name in ("grey", "rotated") for n in (44, 45, 46)]
    upright, stored = read_image(output / "frames/rotated_45.png"), portrait[:, 72:288]
    assert np.abs(upright[:100].astype(int) - stored[:100]).mean() < 3
    sheet = cv2.imread(str(output / "sheet.jpg"))
    assert sheet.shape == (480, 6 * 240, 3)
    assert sheet[:, :480].mean() > 50
    assert sheet[:, 480:].max() < 10


def test_depth_map_rotates_the_head(tmp_path: Path) -> None:
    script, detector, photo = load("difficult_inputs_sheet"), LiteRtDetector(), data.astronaut()
    media = script["Media"](tmp_path, detector, photo, None, None, None)
    images = [frame.image for frame in read_video(script["turned"](media))]
    face = detector.detect(images[script["SHOWN_FRAME"]])[0]
    assert 30 < head_pose(face.points, "mesh468")[0] < 60
    assert np.abs(images[0].astype(int) - photo).mean() < 3
    assert np.abs(images[45][:, 480:].astype(int) - images[0][:, 480:]).mean() < 3


@pytest.mark.slow
def test_unseen_faces_sheet_writes_image_and_csv(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    faces, video, output = tmp_path / "faces", tmp_path / "talking.mp4", tmp_path / "sheet"
    write_image(faces / "astronaut.png", data.astronaut()[0:256, 96:352])
    write_image(faces / "no_face.png", np.zeros((64, 64, 3), np.uint8))
    demo = read_audio(DEMO_SPEECH, 16_000)
    audio = AudioClip(demo.samples[: int(SECONDS * 16_000)], 16_000)
    predictor = LipSyncPredictor.from_checkpoint(articulation=1.0, lip_prior=None)
    predictor.render(faces / "astronaut.png", audio, video, SourceOptions(motion="none"))
    inputs = ("--faces", faces, "--voices", DEMO_SPEECH, "--own-audio", video)
    options = ("--seconds", SECONDS, "--reference-spread", 0.1)
    run(load("unseen_faces_sheet")["main"], output, *inputs, *options)
    with (output / "unseen_faces.csv").open() as file:
        photo, dubbed = csv.DictReader(file)
    assert (photo["face"], photo["voice"], photo["r"]) == ("astronaut", "demo", "")
    assert int(photo["num_frames"]) == int(dubbed["num_frames"]) == round(25 * SECONDS)
    assert float(photo["spread"]) > 0.02
    assert float(photo["ratio"]) == pytest.approx(float(photo["spread"]) / 0.1)
    # The input video was rendered with the same audio from nearly the same image.
    assert float(dubbed["r"]) > 0.6
    assert abs(int(dubbed["late"])) <= 1
    assert abs(float(dubbed["r_in_sync"]) - float(dubbed["r"])) < 0.3
    # The video starts with nearly closed lips, whose opening the detector overestimates.
    assert 0.1 < float(dubbed["ratio"]) < 2
    printed = capsys.readouterr().out
    assert re.search("no_face.png, .* are left out", printed)
    assert f"| astronaut | demo | 40 | {float(photo['spread']):.3f} |" in printed
    sheet = cv2.imread(str(output / "sheet.jpg"))
    assert sheet.shape == (3 * 160, 10 * 176, 3)
    # The first image has the most closed mouth and the second the most open mouth. Other parts of
    # the face below the caption are equal.
    closed, opened = (sheet[:, x : x + 176].astype(float) for x in (0, 176))
    assert np.abs(closed - opened)[70:130, 50:126].mean() > 8
    assert np.abs(closed - opened)[40:50, 50:126].mean() < 4


def test_true_lip_motion_increases_l1_ratio_of_audio_independent_model(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, checkpoint = tmp_path / "corpus", tmp_path / "small.safetensors"
    make_synthetic_corpus(corpus, SPEC, 1, clips_per_speaker=6, seconds=1.6)
    torch.manual_seed(0)
    model = build("generator", GENERATOR, SPEC)
    torch.nn.init.normal_(model.lip_head.weight, std=1e-4)
    meta = {"generator": GENERATOR, "av": SPEC.to_dict(), "license": "MIT", "trained_on": "-"}
    save_release(checkpoint, "generator", model, meta)
    run(load("upper_bound_lip_motion")["main"], corpus, "--checkpoint", checkpoint)
    seen, unseen = capsys.readouterr().out.splitlines()
    assert unseen == "unseen speakers: no clips"
    predicted, true = (float(ratio) for ratio in re.findall(r"ratio ([\d.]+)", seen))
    assert predicted == pytest.approx(1, abs=0.02)
    assert true > predicted + 0.05


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["unseen_faces_sheet", "o", "--faces", "f"], "give --faces and --voices, or --own-audio"),
        (["unseen_faces_sheet", "o", "--own-audio", "v", "--checkpoint", "none.ckpt"], "none.ckpt"),
        (["upper_bound_lip_motion", "no corpus"], "upper_bound_lip_motion: "),
    ],
)
def test_missing_inputs_are_reported(
    arguments: list[str], expected: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(load(arguments[0])["main"], *arguments[1:])
    assert expected in capsys.readouterr().err
