"""Tests of the scoreboard's adapters and table, with commands that copy a file."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.media_files import write_sample_media

from talkinghead.features.faces.alignment import LIP_POINTS, mouth_opening
from talkinghead.features.faces.detector import build_detector
from talkinghead.media.reader import read_image
from talkinghead.paths import demo_face

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "scripts/scoreboard.py"
_spec = importlib.util.spec_from_file_location("scoreboard", SCRIPT)
scoreboard = sys.modules["scoreboard"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(scoreboard)

ADAPTERS = sorted(path.stem for path in scoreboard.ADAPTERS.glob("*.yaml"))


@pytest.mark.parametrize("name", ADAPTERS)
def test_packaged_adapter_has_a_complete_command(name, tmp_path):
    adapter = scoreboard.Adapter.load(name, {name: str(tmp_path)})
    words = adapter.arguments(Path("a face.png"), Path("b.wav"), Path("c.mp4"))
    assert {"a face.png", "b.wav", "c.mp4"} <= {word.rpartition("=")[2] for word in words}
    assert not [word for word in words if word.startswith("{")]
    assert adapter.citation
    if adapter.requires:
        assert set(adapter.missing()) == set(adapter.requires)
        assert adapter.needs
        assert scoreboard.Adapter.load(name, {}).missing() == ["its folder (--home NAME=FOLDER)"]


def test_pairs_are_found_by_name(tmp_path):
    for name in ("a.png", "a.wav", "b.mp4", "c.txt"):
        (tmp_path / name).touch()
    pairs = list(scoreboard.find_pairs(tmp_path))
    assert pairs == [(tmp_path / "a.png", tmp_path / "a.wav"), (tmp_path / "b.mp4",) * 2]


def test_unknown_or_invalid_adapter_is_refused(tmp_path):
    with pytest.raises(scoreboard.UsageError, match="give one of latentsync, loudness, musetalk"):
        scoreboard.Adapter.load("nothing", {})
    (tmp_path / "bad.yaml").write_text("comand: x\n")
    with pytest.raises(scoreboard.UsageError, match="comand"):
        scoreboard.Adapter.load(str(tmp_path / "bad.yaml"), {})


def test_failures_and_missing_systems_are_listed(tmp_path):
    failing = tmp_path / "failing.yaml"
    failing.write_text(f'command: "{sys.executable} -c \'raise SystemExit(\\"no GPU\\")\'"\n')
    results = [
        scoreboard.run_system(scoreboard.Adapter.load(name, {}), [(tmp_path, tmp_path)], tmp_path)
        for name in (str(failing), "wav2lip")
    ]
    assert results[0].failures == [f"{tmp_path.stem}: no GPU"]
    adapters = [scoreboard.Adapter.load(name, {}) for name in (str(failing), "wav2lip")]
    table = scoreboard.format_table(results, adapters, 1)
    assert "- failing: failed on" in table
    assert "**wav2lip** (arXiv:2008.10010) was not run: missing: its folder" in table


@pytest.fixture(scope="module")
def loudness():
    spec = importlib.util.spec_from_file_location("loudness", scoreboard.ADAPTERS / "loudness.py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(scoreboard.ADAPTERS))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(scoreboard.ADAPTERS))
    return module


def test_mouth_of_the_baseline_opens_with_the_loudness(loudness):
    image, detector = read_image(demo_face()), build_detector()
    (face, *_) = detector.detect(image)
    lips = face.points[list(LIP_POINTS[detector.topology])]
    assert np.array_equal(loudness.open_mouth(image, lips, 0.0), image)
    openings = []
    for level in (0.0, 0.5, 1.0):
        (found, *_) = detector.detect(loudness.open_mouth(image, lips, level))
        openings.append(mouth_opening(found.points, detector.topology))
    assert openings[0] + 0.02 < openings[1] < openings[2] - 0.02


def test_loudness_of_the_baseline_is_relative_to_the_loud_frames(loudness):
    rate, rng = 16_000, np.random.default_rng(0)
    noise = rng.standard_normal(4 * rate).astype(np.float32) * 0.01
    noise[rate : 2 * rate] *= 1e-3
    level = loudness.loudness(noise, 100)
    assert level.shape == (100,)
    assert level[30:45].max() == 0
    assert level[55:95].min() > 0.9


@pytest.mark.slow
def test_still_is_scored_and_timed(tmp_path):
    (tmp_path / "inputs").mkdir()
    write_sample_media(tmp_path, speech_s=1.0)
    (tmp_path / "video.mp4").rename(tmp_path / "inputs/a.mp4")
    (tmp_path / "speech.wav").rename(tmp_path / "inputs/a.wav")
    command = [sys.executable, SCRIPT, "inputs", "output", "--systems", "still", "latentsync"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    still, latentsync = json.loads((tmp_path / "output/scoreboard.json").read_text())
    assert len(still["seconds"]) == 1
    assert abs(still["scores"]["r_own"]) < 0.1  # Compression changes the measured opening slightly.
    assert "setup_env.sh" in latentsync["needs"]
    assert "| still | 1 |" in done.stdout
