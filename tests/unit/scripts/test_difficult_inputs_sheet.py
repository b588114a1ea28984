"""The sheet of difficult inputs, with the packaged weights on a real portrait."""

from __future__ import annotations

import csv
import runpy
import sys
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from skimage import data

from talkinghead.features.faces.head_pose import head_pose
from talkinghead.features.faces.litert_detector import LiteRtDetector
from talkinghead.media.reader import read_image, read_video
from talkinghead.media.writer import VideoWriter

SCRIPT = str(Path(__file__).parents[3] / "scripts" / "difficult_inputs_sheet.py")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> dict:
    """The names of the script, with a few quick inputs only."""
    names = runpy.run_path(SCRIPT)
    for name in names["CASES"].keys() - {"rotated", "grey", "two", "painting"}:
        monkeypatch.delitem(names["CASES"], name)
    return names


@pytest.mark.slow
def test_inputs_are_rendered_and_counted(
    script: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    speaker = tmp_path / "grid" / "s3" / "clip.mp4"
    portrait = np.ascontiguousarray(data.astronaut()[0:288, 60:420])
    with VideoWriter(speaker, 360, 288, Fraction(25), None) as writer:
        for _ in range(75):
            writer.write(portrait)
    output = tmp_path / "sheet"
    arguments = [SCRIPT, output, "--grid", tmp_path / "grid", "--around", 1]
    monkeypatch.setattr(sys, "argv", [*map(str, arguments)])
    script["main"]()
    with (output / "difficult_inputs.csv").open() as file:
        rotated, grey = csv.DictReader(file)
    with av.open(str(output / "inputs" / "rotated.mp4")) as container:
        assert abs(next(container.decode(video=0)).rotation) == 90
    assert (rotated["name"], rotated["width"], rotated["height"]) == ("rotated", "216", "288")
    assert (grey["name"], grey["num_frames"], grey["num_frames_without_face"]) == (
        "grey",
        "75",
        "0",
    )
    printed = capsys.readouterr().out
    assert "two is left out, it needs clips of GRID's s20: give --grid" in printed
    assert "painting is left out, it needs a portrait: give --painting" in printed
    shown = sorted(path.name for path in (output / "frames").iterdir())
    assert shown == [f"{name}_{n}.png" for name in ("grey", "rotated") for n in (44, 45, 46)]
    upright, stored = read_image(output / "frames" / "rotated_45.png"), portrait[:, 72:288]
    assert np.abs(upright[:100].astype(int) - stored[:100]).mean() < 3
    sheet = cv2.imread(str(output / "sheet.jpg"))
    assert sheet.shape == (480, 6 * 240, 3)
    assert sheet[:, :480].mean() > 50
    assert sheet[:, 480:].max() < 10


def test_depth_map_turns_the_head(script: dict, tmp_path: Path) -> None:
    detector = LiteRtDetector()
    media = script["Media"](tmp_path, detector, data.astronaut(), None, None, None)
    images = [frame.image for frame in read_video(script["turned"](media))]
    (yaw, *_), *_ = (
        head_pose(detector.detect(images[n])[0].points, "mesh468")
        for n in (script["SHOWN_FRAME"], 0)
    )
    assert 30 < yaw < 60
    assert np.abs(images[0].astype(int) - data.astronaut()).mean() < 3
    assert np.abs(images[45][:, 480:].astype(int) - images[0][:, 480:]).mean() < 3
