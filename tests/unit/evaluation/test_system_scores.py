"""Scores of video files: a real video against itself, with late audio and as a still."""

from __future__ import annotations

import csv
import json
import os
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from talkinghead.data.clip_file import ClipFile
from talkinghead.data.manifest import Manifest
from talkinghead.data.synthetic_clips import Character, draw_face, speak
from talkinghead.errors import FaceNotFoundError, MediaError, UsageError
from talkinghead.evaluation.scorers.clip_scorers import SyncNetworkOptions
from talkinghead.evaluation.system_clips import pair_videos
from talkinghead.evaluation.system_scores import (
    REFERENCE,
    ScoreOptions,
    name_systems,
    score_systems,
)
from talkinghead.media.writer import VideoWriter
from talkinghead.types import FloatArray, UInt8Array

FPS, RATE = Fraction(25), 16_000
SHIFT = 3
QUICK = ScoreOptions(lpips=False, sync=SyncNetworkOptions(checkpoint=None), num_strips=0)


def write(path: Path, frames: UInt8Array, samples: FloatArray | None) -> Path:
    height, width = frames.shape[1:3]
    with VideoWriter(path, width, height, FPS, None if samples is None else RATE) as writer:
        for frame in frames:
            writer.write(frame)
        if samples is not None:
            writer.write_audio(samples)
    return path


def delayed(samples: FloatArray) -> FloatArray:
    return np.pad(samples, (SHIFT * RATE // 25, 0))[: len(samples)]


def drawn(seconds: float, size: int = 256) -> tuple[UInt8Array, FloatArray]:
    character = Character.of(0)
    samples, opening = speak(character, Fraction(seconds), RATE, np.random.default_rng(0))
    values = opening[RATE // 50 :: RATE // 25]
    return np.stack([draw_face(character, float(value), size) for value in values]), samples


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on a copy of a real clip, one with late audio, and a still."""
    folder = tmp_path_factory.mktemp("media")
    frames, samples = drawn(2.4)
    real = write(folder / "real/ann/one.mp4", frames, samples)
    (folder / "same/ann").mkdir(parents=True)
    shutil.copy(real, folder / "same/ann/one.mp4")
    write(folder / "late/one.mp4", frames, delayed(samples))
    write(folder / "still/one.mp4", np.repeat(frames[:1], len(frames), axis=0), samples)
    systems = {name: folder / name for name in ("same", "late", "still")}
    # LPIPS is slow and is tested in test_clip_scorers.py.
    score_systems(systems, folder / "real", folder / "scores", ScoreOptions(lpips=False))
    return folder / "scores"


@pytest.fixture(scope="module")
def report(output: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((output / "scores.json").read_text())
    return content


def means(report: dict[str, Any], system: str) -> dict[str, float]:
    return {n: s["mean"] for n, s in report["systems"][system]["scores"].items()}


def test_real_video_against_itself_is_perfect(report: dict[str, Any]) -> None:
    assert list(report["systems"]) == [REFERENCE, "same", "late", "still"]
    values = means(report, REFERENCE)
    for name in ("r_own", "r_own_speech", "motion_ratio", "ssim", "sharpness_ratio", "found"):
        assert values[name] == pytest.approx(1, abs=1e-4), name
    for name in ("lmd", "l1_own", "lips_l1_own", "jitter", "sync_offset"):
        assert values[name] == 0, name
    assert values["psnr"] == pytest.approx(100)
    assert values["lse_d"] == values["lse_d_at_zero"]
    assert values["opening_own"] == values["opening_real"]
    assert values["opening_pauses"] == values["opening_pauses_real"]
    assert means(report, "same") == values


def test_late_audio_changes_only_the_sync_scores(report: dict[str, Any]) -> None:
    values, real = means(report, "late"), means(report, REFERENCE)
    assert values["sync_offset"] == SHIFT
    assert values["lse_d"] == pytest.approx(real["lse_d"], abs=0.05)
    assert values["lse_d_at_zero"] > values["lse_d"] + 0.1
    changed = {name for name, value in values.items() if value != real[name]}
    assert changed <= {"lse_d", "lse_c", "sync_offset", "lse_d_at_zero"}


def test_still_has_no_correlation(output: Path, report: dict[str, Any]) -> None:
    values, real = means(report, "still"), means(report, REFERENCE)
    assert abs(values["r_own"]) < 0.3
    assert values["motion_ratio"] < 0.2
    assert values["lse_c"] < real["lse_c"] / 2
    assert values["psnr"] < 50
    assert values["l1_own"] > 0
    assert values["lmd"] > 0.005
    # One clip gives no significant difference.
    assert list(report["differences"]) == ["same - late", "same - still", "late - still"]
    difference = report["differences"]["same - still"]["r_own"]
    assert difference["mean"] > 0.7
    assert difference["differs"] is False
    with (output / "clips.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["id"], r["system"]) for r in rows] == [("ann/one", s) for s in report["systems"]]
    assert (float(rows[2]["sync_offset"]), rows[0]["num_frames"]) == (SHIFT, "60")
    assert len(list((output / "strips").iterdir())) == 3


def test_files_of_other_sizes_are_aligned_separately(tmp_path: Path) -> None:
    write(tmp_path / "real.mp4", drawn(2)[0], None)
    large = np.pad(drawn(2, 384)[0], ((0, 0), (20, 28), (40, 8), (0, 0)), mode="edge")
    write(tmp_path / "large.mp4", large, None)
    report = score_systems(tmp_path / "large.mp4", tmp_path / "real.mp4", tmp_path / "o", QUICK)
    values = means(report, "large")
    assert values["r_own"] > 0.9
    assert values["ssim"] > 0.8
    assert values["lmd"] < 0.02
    # Without audio there are no speech frames.
    assert not {"r_own_speech", "lse_d", "opening_pauses"} & set(values)


def test_bad_file_is_reported_and_skipped(tmp_path: Path) -> None:
    frames, samples = drawn(1)
    for name in ("a", "b", "c"):
        write(tmp_path / f"real/{name}.mp4", frames, samples)
    write(tmp_path / "made/a.mp4", frames, samples)
    (tmp_path / "made/b.mp4").write_bytes(b"no video")
    write(tmp_path / "made/c.mp4", np.full_like(frames, 90), samples)
    report = score_systems(tmp_path / "made", tmp_path / "real", tmp_path / "o", QUICK)
    assert report["systems"]["made"]["num_clips"] == 1
    skipped = [(entry["system"], entry["clip"]) for entry in report["skipped"]]
    assert skipped == [("made", "b"), ("made", "c")]
    assert "b.mp4" in report["skipped"][0]["reason"]
    (tmp_path / "made/a.mp4").unlink()
    with pytest.raises((MediaError, FaceNotFoundError)):
        score_systems(tmp_path / "made", tmp_path / "real", tmp_path / "o", QUICK)


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_files_are_paired_by_their_names(tmp_path: Path) -> None:
    real = touch(tmp_path / "real", "ann/a.mkv", "ben/a.mkv", "ben/b.mkv", "notes.txt")
    nested = touch(tmp_path / "nested", "ann/a.mp4", "ben/a.mp4")
    assert list(pair_videos(nested, real)) == ["ann/a", "ben/a"]
    flat = touch(tmp_path / "flat", "b.MP4", "other.mp4")
    assert pair_videos(flat, real) == {"ben/b": (flat / "b.MP4", real / "ben/b.mkv")}
    single = pair_videos(flat / "other.mp4", real / "ann/a.mkv")
    assert single == {"a": (flat / "other.mp4", real / "ann/a.mkv")}
    foreign, empty = touch(tmp_path / "foreign", "other.mp4"), touch(tmp_path / "empty", "a.txt")
    for generated, message in (
        (foreign, "other against ann/a, ben/a, ben/b; give the"),
        (empty, "contains no video"),
        (tmp_path / "nowhere", "does not exist"),
    ):
        with pytest.raises(UsageError, match=message):
            pair_videos(generated, real)


def test_names_of_systems() -> None:
    assert name_systems("out/ours") == {"ours": Path("out/ours")}
    assert name_systems("out/ours.v2.mp4") == {"ours.v2": Path("out/ours.v2.mp4")}
    assert list(name_systems(["a/x", "b/y"])) == ["x", "y"]
    assert name_systems({"new": "a"}) == {"new": Path("a")}
    for systems, message in (
        (["a/x", "b/x"], "have the same name"),
        ({"reference": "a"}, "cannot be named 'reference'"),
        ([], "names no file"),
    ):
        with pytest.raises(UsageError, match=message):
            name_systems(systems)


@pytest.mark.corpus
def test_late_audio_of_a_real_speaker_is_measured(tmp_path: Path) -> None:
    corpus = Path(os.environ["TALKINGHEAD_CORPUS"])
    entry = Manifest.load(corpus).split("val")[0]
    clip = ClipFile(corpus / entry.path)
    faces, samples = clip.faces(0, len(clip)), clip.tensor("audio").astype(np.float32) / 32_767
    real = write(tmp_path / "real.mp4", faces, samples)
    shifted = write(tmp_path / "late.mp4", faces, delayed(samples))
    report = score_systems(shifted, real, tmp_path / "o", ScoreOptions(lpips=False))
    assert means(report, REFERENCE)["sync_offset"] == 0
    assert means(report, "late")["sync_offset"] == SHIFT
