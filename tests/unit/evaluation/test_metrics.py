"""Metrics on series and images with known values."""

from __future__ import annotations

import math
from fractions import Fraction

import kornia
import numpy as np
import pytest
import torch
from helpers.small_predictor import Detector

from talkinghead.evaluation import metrics
from talkinghead.evaluation.metrics.mouth_metrics import MOUTH_POINTS
from talkinghead.features.faces.alignment import LIP_POINTS, mouth_opening
from talkinghead.features.mel import MEL_SILENCE
from talkinghead.types import AVSpec, Box

SPEC = AVSpec()
NAN = float("nan")


def test_opening_series_is_nan_without_a_face() -> None:
    levels, detector = np.array([200, 200, 0, 200]), Detector()
    images = np.ones((4, 160, 192, 3), np.uint8) * levels[:, None, None, None].astype(np.uint8)
    points = metrics.track_landmarks(images, detector)
    opening = metrics.opening_series(points, detector.topology)
    assert np.isfinite(opening).tolist() == [True, True, False, True]
    assert opening[0] == mouth_opening(points[0], detector.topology)
    no_face = metrics.track_landmarks(images[2:3], detector)
    assert np.isnan(metrics.opening_series(no_face, detector.topology)).all()


def test_correlation_of_known_series() -> None:
    time = np.arange(50, dtype=np.float32)
    wave, still = np.sin(time / 3), np.full(50, 0.1, np.float32)
    assert metrics.pearson(wave, 3 * wave - 2) == pytest.approx(1)
    assert metrics.pearson(np.where(time % 7 == 0, NAN, wave), wave) == pytest.approx(1)
    broken = np.where(time < 25, wave, -wave)
    assert metrics.pearson(broken, wave, mask=time < 25) == pytest.approx(1)
    assert metrics.pearson(broken, wave) < 0.5
    assert math.isnan(metrics.pearson(still, wave))
    assert math.isnan(metrics.pearson(wave[:2], wave[:2]))
    # A still mouth is uncorrelated with a moving real mouth.
    assert metrics.opening_correlation(still, wave) == 0
    assert math.isnan(metrics.opening_correlation(wave, still))
    assert math.isnan(metrics.opening_correlation(still * NAN, wave))
    assert math.isnan(metrics.opening_correlation(wave, wave, mask=np.zeros(50, dtype=bool)))


def test_closure_rate_counts_closed_frames_near_the_sounds() -> None:
    opening = np.full(50, 0.3, np.float32)
    opening[[10, 11, 30]] = 0.0
    opening[20:24] = 0.1
    fps = Fraction(25)
    assert metrics.closure_rate(opening, [0.42], fps) == 1
    assert metrics.closure_rate(opening, [0.42, 0.88], fps) == 0.5
    assert metrics.closure_rate(opening, [1.18, 1.26, 1.34], fps) == pytest.approx(2 / 3)
    assert math.isnan(metrics.closure_rate(opening, [], fps))
    assert math.isnan(metrics.closure_rate(opening, [9.0], fps))
    assert math.isnan(metrics.closure_rate(opening * 0, [0.42], fps))


def test_rounding_rate_counts_narrow_frames_near_the_sounds() -> None:
    width = np.linspace(0.5, 0.6, 50, dtype=np.float32)
    fps = Fraction(25)
    # The width is in the lowest quarter of its range in the first 13 frames.
    assert metrics.rounding_rate(width, [0.2, 0.4, 0.7, 1.5], fps) == 0.5
    assert math.isnan(metrics.rounding_rate(width * NAN, [0.2], fps))


def test_correlation_in_step_ignores_a_constant_offset() -> None:
    real = np.random.default_rng(0).normal(size=80).astype(np.float32)
    late = np.concatenate([np.zeros(3, np.float32), real[:-3]])
    assert metrics.correlation_in_step(late, real)[:2] == (pytest.approx(1.0), 3)
    assert metrics.correlation_in_step(real, late).frames == -3
    r, shift, _ = metrics.correlation_in_step(real, real)
    assert (r, shift) == (pytest.approx(1.0), 0)
    assert metrics.correlation_in_step(np.roll(real, 20), real).r < 0.5
    assert math.isnan(metrics.correlation_in_step(real * NAN, real).r)


def test_standard_error_of_the_shift() -> None:
    real = np.random.default_rng(0).normal(size=100).astype(np.float32)
    assert metrics.correlation_in_step(real, real).standard_error == pytest.approx(0, abs=0.05)
    # One half is in step and the other is 4 frames late: leaving out either half gives 4 or 0.
    drifting = np.concatenate([real[:50], real[46:96]])
    error = metrics.correlation_in_step(drifting, real).standard_error
    assert error == pytest.approx(2, abs=0.1)
    assert math.isnan(metrics.correlation_in_step(real[:60], real[:60]).standard_error)


@pytest.mark.parametrize(("topology", "eyes"), [("mesh468", (33, 263)), ("ibug68", (36, 45))])
def test_lip_shape_scores_ignore_the_rest_shape(topology: str, eyes: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    real = np.repeat(rng.normal(size=(1, 468, 2)), 9, axis=0).astype(np.float32)
    real[:, eyes[0]], real[:, eyes[1]] = (0, 0), (50, 0)
    lips = list(LIP_POINTS[topology])
    motion = np.zeros((9, 1, 2), np.float32)
    motion[:4, 0], motion[5:, 0] = (3, 4), (-3, -4)
    other = real + rng.normal(size=(1, 468, 2)).astype(np.float32)
    other[:, list(eyes)] = real[:, list(eyes)]
    real[:, lips] += motion
    half = other.copy()
    half[:, lips] += motion / 2
    shapes = [metrics.lip_shape_motion(points, topology) for points in (half, other, real)]
    # Eight of nine frames differ by half of 5 pixels; the eyes are 50 pixels apart.
    assert metrics.lip_shape_error(shapes[0], shapes[2]) == pytest.approx(8 / 9 * 0.05, rel=1e-3)
    assert metrics.lip_shape_correlation(shapes[0], shapes[2]) == pytest.approx(1, abs=1e-4)
    assert metrics.lip_shape_correlation(-shapes[0], shapes[2]) == pytest.approx(-1, abs=1e-4)
    still = shapes[1] * 0
    assert metrics.lip_shape_correlation(still, shapes[2]) == 0
    assert math.isnan(metrics.lip_shape_correlation(shapes[2], still))
    no_face = metrics.lip_shape_motion(real[:, :0], topology)
    assert math.isnan(metrics.lip_shape_error(no_face, shapes[2]))
    assert math.isnan(metrics.lip_shape_correlation(no_face, shapes[2]))


def test_width_is_measured_between_the_corners() -> None:
    for topology, eyes, corners in (
        ("mesh468", (33, 263), (61, 291)),
        ("ibug68", (36, 45), (48, 54)),
    ):
        points = np.zeros((2, 468, 2), np.float32)
        points[:, eyes[1]] = (100, 0)
        points[0, corners[1]], points[1, corners[1]] = (50, 0), (30, 40)
        points[1, corners[0]] = (30, 0)
        assert metrics.width_series(points, topology) == pytest.approx([0.5, 0.4]), topology
    assert np.isnan(metrics.width_series(points[:, :0], topology)).all()


def test_relative_opening_is_measured_in_the_real_range() -> None:
    real = np.linspace(0, 1, 101, dtype=np.float32)
    real[0] = NAN
    low, high = 0.0595, 0.9505  # The 5th and the 95th percentile of 0.01, 0.02 ... 1.
    for opening in (0.0, low, 0.5, high):
        generated = np.array([NAN, opening, opening, 9], np.float32)
        expected = (opening - low) / (high - low)
        assert metrics.relative_opening(generated, real) == pytest.approx(expected, abs=1e-6)
    for generated, target in ((real * NAN, real), (real, real * NAN), (real, real * 0)):
        assert math.isnan(metrics.relative_opening(generated, target))


def test_frames_are_divided_into_speech_and_pauses() -> None:
    silent = torch.full((80, 240), MEL_SILENCE)
    mel = silent.clone()
    mel[:, 80:160] = 1.0
    speech = metrics.speech_frames(mel, 75, SPEC.fps, SPEC)
    assert speech[28:47].all()
    assert not speech[:20].any()
    assert not speech[55:].any()
    noisy = mel + 0.3 * torch.rand(80, 240) + 1.0  # A noise floor must not change the result.
    assert (metrics.speech_frames(noisy, 75, SPEC.fps, SPEC) == speech).mean() > 0.95
    assert not metrics.speech_frames(silent, 75, SPEC.fps, SPEC).any()
    assert metrics.speech_frames(silent + 4, 73, SPEC.fps, SPEC).all()
    gaps = np.array([0] * 6 + [1] * 5 + [0] * 4 + [1] * 5 + [0] * 5, dtype=bool)
    assert np.flatnonzero(metrics.pause_frames(gaps)).tolist() == [*range(6), *range(20, 25)]


def test_pixel_scores_of_known_differences() -> None:
    torch.manual_seed(0)
    image = torch.rand(2, 3, 48, 48) * 0.8
    assert metrics.l1(image + 0.1, image) == pytest.approx(0.1, abs=1e-6)
    weights = torch.zeros(48, 48)
    weights[0, 0] = 2.0
    assert metrics.l1(image + 0.15 * weights, image, weights) == pytest.approx(0.3, abs=1e-6)
    assert metrics.psnr(image, image) == pytest.approx(100)
    noisy = (image + 0.05 * torch.randn_like(image)).clamp(0, 1)
    ssim = kornia.metrics.ssim(noisy, image, window_size=11).mean()
    assert metrics.ssim(noisy, image) == pytest.approx(float(ssim), abs=2e-3)
    psnr = [float(kornia.metrics.psnr(x, y, 1.0)) for x, y in zip(noisy, image, strict=True)]
    assert metrics.psnr(noisy, image) == pytest.approx(np.mean(psnr), abs=1e-4)


def test_jitter_measures_motion_outside_the_mouth() -> None:
    rng = np.random.default_rng(0)
    box = Box(4, 4, 12, 12)
    real = rng.integers(0, 200, (6, 16, 16, 3)).astype(np.uint8)
    mouth, flicker = real.copy(), real.copy()
    mouth[:, 4:12, 4:12] = rng.integers(0, 200, (6, 8, 8, 3))
    flicker[1::2] += 10
    # A constant colour offset is not motion.
    for generated, expected in ((real + np.uint8(20), 0), (mouth, 0), (flicker, 10)):
        assert metrics.jitter(generated, real, box) == pytest.approx(expected)
    assert math.isnan(metrics.jitter(real[:1], real[:1], box))


def test_sharpness_ignores_brightness() -> None:
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * torch.ones(1, 3, 1, 1)
    # The Laplacian of a checkerboard of 0 and 255 is +-4 x 255.
    for image in (board, board + 0.3):
        assert metrics.sharpness(image) == pytest.approx((4 * 255) ** 2, rel=0.05)


def test_landmark_distance_is_in_eye_distances() -> None:
    for topology, eyes in (("mesh468", (33, 263)), ("ibug68", (36, 45))):
        target = np.random.default_rng(0).normal(size=(4, 468, 2)).astype(np.float32)
        target[:, eyes[0]], target[:, eyes[1]] = (0, 0), (50, 0)
        predicted = target.copy()
        predicted[:, list(MOUTH_POINTS[topology])] += (3, 4)
        predicted[1] = NAN
        distance = metrics.landmark_distance(predicted, target, topology)
        assert distance == pytest.approx(0.1, rel=1e-4), topology
    assert math.isnan(metrics.landmark_distance(predicted[:, :0], target, topology))


def test_sync_scores_find_the_offset() -> None:
    rng = np.random.default_rng(0)
    video, other = rng.normal(size=(2, 80, 16)).astype(np.float32)
    for late in (0, 3, -4):
        # The frame at t matches the audio at t + late.
        scores = metrics.sync_scores(np.roll(video, late, axis=0), video)
        assert scores.offset == late
        assert scores.lse_d == pytest.approx(0, abs=1e-4)
        assert scores.lse_c == pytest.approx(np.sqrt(32), rel=0.1)
        assert (scores.distance_at_zero < 1e-4) == (late == 0)
    assert metrics.sync_scores(other, video).lse_c < 0.5
    assert metrics.sync_scores(video[:4], video[:4]).offset == 0


def test_torchmetrics_classes_average_over_clips() -> None:
    wave, mask = torch.sin(torch.arange(50.0)), torch.arange(50) > 25
    correlation = metrics.MouthOpeningCorrelation()
    correlation.update(wave, wave)
    correlation.update(-wave, wave, mask)
    correlation.update(wave, torch.full_like(wave, 0.1))  # NaN: the real mouth does not move.
    assert float(correlation.compute()) == pytest.approx(0)
    same, points = torch.eye(40), torch.rand(3, 68, 2)
    clips = {
        metrics.LipSyncDistance(): (same, same, 0),
        metrics.LipSyncConfidence(): (same, same, math.sqrt(2)),
        metrics.LipLandmarkDistance("ibug68"): (points, points, 0),
        metrics.InStepMouthOpeningCorrelation(): (wave.roll(2), wave, 1),
        metrics.MouthWidthCorrelation("ibug68"): (points, points, 1),
        metrics.LipShapeError("ibug68"): (points, points, 0),
        metrics.LipShapeCorrelation("ibug68"): (points, points, 1),
        metrics.RelativeMouthOpening(): (torch.full((5,), 0.5), torch.linspace(0, 1, 101), 0.5),
    }
    for metric, (generated, real, expected) in clips.items():
        metric.update(generated, real)
        assert float(metric.compute()) == pytest.approx(expected, abs=2e-3), type(metric)


def test_bootstrap_interval_of_known_values() -> None:
    values = np.random.default_rng(1).normal(0.7, 0.1, size=100)
    interval = metrics.bootstrap_interval(np.append(values, NAN))
    assert interval.num_clips == 100
    assert interval.mean == pytest.approx(values.mean())
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 0.1 / 10, rel=0.25)
    assert interval == metrics.bootstrap_interval(values)
    assert metrics.bootstrap_interval(np.array([NAN])).num_clips == 0
    # With fewer than six clips, no difference is significant.
    assert metrics.bootstrap_interval(np.full(6, 0.2)).excludes_zero
    assert not metrics.bootstrap_interval(np.full(5, 0.2)).excludes_zero
