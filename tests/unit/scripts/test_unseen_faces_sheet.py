"""The sheet of unseen faces, with the packaged weights on a real portrait."""

from __future__ import annotations

import csv
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from talkinghead.media.reader import read_audio
from talkinghead.media.writer import write_image
from talkinghead.paths import DEMO_SPEECH
from talkinghead.predict.predictor import LipSyncPredictor
from talkinghead.types import AudioClip

SCRIPT = str(Path(__file__).parents[3] / "scripts" / "unseen_faces_sheet.py")
SECONDS = 1.6


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [SCRIPT, *map(str, arguments)])
    runpy.run_path(SCRIPT, run_name="__main__")


def test_pairs_and_videos_are_measured_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    faces, video = tmp_path / "faces", tmp_path / "talking.mp4"
    write_image(faces / "astronaut.png", data.astronaut()[0:256, 96:352])
    write_image(faces / "no_face.png", np.zeros((64, 64, 3), np.uint8))
    demo = read_audio(DEMO_SPEECH, 16_000)
    audio = AudioClip(demo.samples[: int(SECONDS * 16_000)], 16_000)
    predictor = LipSyncPredictor.from_checkpoint(articulation=1.0, lip_prior=None)
    predictor.render(faces / "astronaut.png", audio, video)
    output = tmp_path / "sheet"
    options = ("--seconds", SECONDS, "--reference-spread", 0.1)
    run(
        monkeypatch,
        output,
        "--faces",
        faces,
        "--voices",
        DEMO_SPEECH,
        "--own-audio",
        video,
        *options,
    )
    with (output / "unseen_faces.csv").open() as file:
        photo, dubbed = csv.DictReader(file)
    assert (photo["face"], photo["voice"], photo["r"]) == ("astronaut", "demo", "")
    assert int(photo["num_frames"]) == int(dubbed["num_frames"]) == round(25 * SECONDS)
    assert float(photo["spread"]) > 0.02
    assert float(photo["ratio"]) == pytest.approx(float(photo["spread"]) / 0.1)
    # The video was rendered with the same audio from nearly the same image as its first frame.
    assert float(dubbed["r"]) > 0.6
    assert abs(int(dubbed["late"])) <= 1
    assert abs(float(dubbed["r_in_sync"]) - float(dubbed["r"])) < 0.3
    assert 0.3 < float(dubbed["ratio"]) < 2
    printed = capsys.readouterr().out
    assert "no_face.png, " in printed
    assert "are left out" in printed
    assert f"| astronaut | demo | 40 | {float(photo['spread']):.3f} |" in printed
    sheet = cv2.imread(str(output / "sheet.jpg"))
    assert sheet.shape == (3 * 160, 10 * 176, 3)
    # The first image has the most closed mouth, the second the most open; the rest is equal.
    closed, opened = (sheet[:, x : x + 176].astype(float) for x in (0, 176))
    assert np.abs(closed - opened)[70:130, 50:126].mean() > 8
    assert np.abs(closed - opened)[30:50, 50:126].mean() < 4


def test_missing_inputs_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, tmp_path, "--faces", tmp_path)
    assert "give --faces and --voices, or --own-audio" in capsys.readouterr().err
    (tmp_path / "video.mp4").write_text("not a video")
    with pytest.raises(SystemExit):
        run(monkeypatch, tmp_path, "--own-audio", tmp_path, "--checkpoint", tmp_path / "none.ckpt")
    assert "none.ckpt" in capsys.readouterr().err
