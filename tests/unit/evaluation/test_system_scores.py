"""Scores of video files: a copy of the real video, a copy with late audio, and a still."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.media_files import write_media

from talkinghead.data.synthetic_clips import Character, draw_face, speak, write_synthetic_clip
from talkinghead.errors import FaceNotFoundError, MediaError, UsageError
from talkinghead.evaluation.scorers.clip_scorers import SyncNetworkOptions
from talkinghead.evaluation.system_clips import pair_videos
from talkinghead.evaluation.system_scores import (
    REFERENCE,
    ScoreOptions,
    name_systems,
    score_systems,
)

RATE, SHIFT = 16_000, 3
QUICK = ScoreOptions(lpips=False, sync=SyncNetworkOptions(checkpoint=None), num_strips=0)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the report on a copy of a real clip, a copy with late audio, and a still."""
    folder = tmp_path_factory.mktemp("media")
    character = Character.of(0)
    samples, opening = speak(character, Fraction(8, 5), RATE, np.random.default_rng(0))
    frames = [draw_face(character, float(v), 256) for v in opening[RATE // 50 :: RATE // 25]]
    late = np.pad(samples, (SHIFT * RATE // 25, 0))[: len(samples)]
    real = write_media(folder / "one.mp4", frames, audio=samples)
    systems = {
        "same": shutil.copy(real, folder / "same.mp4"),
        "late": write_media(folder / "late.mp4", frames, audio=late),
        "still": write_media(folder / "still.mp4", frames[:1] * len(frames), audio=samples),
    }
    # LPIPS is slow and is tested in test_clip_scorers.py.
    return score_systems(systems, real, folder / "scores", ScoreOptions(lpips=False))


def means(report: dict[str, Any], system: str) -> dict[str, float]:
    return {n: s["mean"] for n, s in report["systems"][system]["scores"].items()}


@pytest.mark.slow
def test_real_video_compared_with_itself_has_ideal_scores(report: dict[str, Any]) -> None:
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


@pytest.mark.slow
def test_late_audio_changes_only_the_sync_scores(report: dict[str, Any]) -> None:
    values, real = means(report, "late"), means(report, REFERENCE)
    assert values["sync_offset"] == SHIFT
    assert values["lse_d"] == pytest.approx(real["lse_d"], abs=0.05)
    assert values["lse_d_at_zero"] > values["lse_d"] + 0.1
    changed = {name for name, value in values.items() if value != real[name]}
    assert changed <= {"lse_d", "lse_c", "sync_offset", "lse_d_at_zero"}


@pytest.mark.slow
def test_still_video_has_no_correlation(report: dict[str, Any]) -> None:
    values, real = means(report, "still"), means(report, REFERENCE)
    assert abs(values["r_own"]) < 0.3
    assert values["motion_ratio"] < 0.2
    assert values["lse_c"] < real["lse_c"] / 2
    assert values["lmd"] > 0.005
    # With one clip, no difference is significant.
    assert list(report["differences"]) == ["same - late", "same - still", "late - still"]
    difference = report["differences"]["same - still"]["r_own"]
    assert difference["mean"] > 0.7
    assert difference["differs"] is False
    rows = [(row["id"], row["system"], row["num_frames"]) for row in report["clips"]]
    assert rows == [("one", system, 40) for system in report["systems"]]


@pytest.mark.slow
def test_files_of_different_size_are_aligned_separately(tmp_path: Path) -> None:
    write_synthetic_clip(tmp_path / "real.mp4", sample_rate=None, seed=2)
    large = {"width": 448, "height": 384}
    write_synthetic_clip(tmp_path / "large.mp4", sample_rate=None, seed=2, **large)
    report = score_systems(tmp_path / "large.mp4", tmp_path / "real.mp4", tmp_path / "o", QUICK)
    values = means(report, "large")
    assert values["r_own"] > 0.8
    assert values["ssim"] > 0.9
    assert values["lmd"] < 0.03
    # Without audio there are no speech frames.
    assert not {"r_own_speech", "lse_d", "opening_pauses"} & set(values)


@pytest.mark.slow
def test_bad_file_is_reported_and_skipped(tmp_path: Path) -> None:
    for name in ("real/a", "real/b", "real/c", "made/a"):
        write_synthetic_clip(tmp_path / f"{name}.mp4", 1)
    (tmp_path / "made/b.mp4").write_bytes(b"no video")
    write_media(tmp_path / "made/c.mp4", [np.full((256, 256, 3), 90, np.uint8)] * 25)
    report = score_systems(tmp_path / "made", tmp_path / "real", tmp_path / "o", QUICK)
    assert report["systems"]["made"]["num_clips"] == 1
    skipped = [(entry["system"], entry["clip"]) for entry in report["skipped"]]
    assert skipped == [("made", "b"), ("made", "c")]
    assert "b.mp4" in report["skipped"][0]["reason"]
    (tmp_path / "made/a.mp4").unlink()
    with pytest.raises((MediaError, FaceNotFoundError)):
        score_systems(tmp_path / "made", tmp_path / "real", tmp_path / "o", QUICK)


@pytest.mark.slow
def test_first_folder_is_the_corpus(tmp_path: Path) -> None:
    for name in ("a/x", "b/x", "b/y"):
        write_synthetic_clip(tmp_path / f"real/{name}.mp4", 1, sample_rate=None)
        shutil.copytree(tmp_path / "real", tmp_path / "made", dirs_exist_ok=True)
    report = score_systems(tmp_path / "made", tmp_path / "real", tmp_path / "o", QUICK)
    counts = {part: table["made"]["num_clips"] for part, table in report["by_corpus"].items()}
    assert counts == {"a": 1, "b": 2}


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
    touch(tmp_path, "foreign/other.mp4", "empty/a.txt")
    for generated, message in (
        ("foreign", "other against ann/a, ben/a, ben/b; give the"),
        ("empty", "contains no video"),
        ("nowhere", "does not exist"),
    ):
        with pytest.raises(UsageError, match=message):
            pair_videos(tmp_path / generated, real)


def test_systems_are_named_by_their_paths() -> None:
    assert name_systems("out/ours") == {"ours": Path("out/ours")}
    assert name_systems("out/ours.v2.mp4") == {"ours.v2": Path("out/ours.v2.mp4")}
    assert list(name_systems(["a/x", "b/y"])) == ["x", "y"]
    assert name_systems({"new": "a"}) == {"new": Path("a")}
    for systems, message in (
        (["a/x", "b/x"], "have the same name"),
        ({"reference": "a"}, "cannot be named 'reference'"),
        ("videos/real", "cannot be named 'real'"),
        ([], "names no file"),
    ):
        with pytest.raises(UsageError, match=message):
            name_systems(systems)
